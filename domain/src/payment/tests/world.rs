//! A tenant with a wallet, its payments and the book: facts and uses go in as they do in production, all or nothing, and
//! what must always hold is checked after each.

use std::collections::BTreeMap;

use uuid::Builder;

use super::*;
use crate::book::{self, Account, AccountClass, Entry};
use crate::wallet::{
    AdjustmentReason, CallTerms, DebtCause, GrantKind, Meter, UsageOutcome, UsageRecorded, Wallet, WalletCommand,
    WalletEvent, WalletOpened, WalletRefusal,
};
use crate::{AdjustmentId, HoldId, UsageId};

#[derive(Clone)]
pub(super) struct World {
    pub(super) wallet: Wallet,
    payments: BTreeMap<String, Payment>,
    accounts: BTreeMap<(Asset, Account), i128>,
    pub(super) now: i64,
    given: u128,
}

/// Why a fact was not recorded.
#[derive(Debug)]
#[expect(dead_code, reason = "shown when a test fails")]
pub(super) enum NotRecorded {
    Fact(FactRefusal),
    Wallet(WalletRefusal),
}

impl World {
    pub(super) fn new() -> Self {
        let mut wallet = Wallet::default();
        wallet.evolve(&WalletEvent::WalletOpened(WalletOpened { tenant_id: tenant(), opened_at: at(0) }));
        Self { wallet, payments: BTreeMap::new(), accounts: BTreeMap::new(), now: 1, given: 1_000 }
    }

    /// Credit that was given away.
    pub(super) fn give(&mut self, asset: Asset, kind: GrantKind, amount: i64) {
        self.grant(asset, kind, amount, 0, None);
    }

    pub(super) fn grant(
        &mut self,
        asset: Asset,
        kind: GrantKind,
        amount: i64,
        cost: i64,
        reason: Option<AdjustmentReason>,
    ) {
        self.given += 1;
        self.ask(WalletCommand::GrantCredits {
            grant_id: GrantId(Uuid::from_u128(self.given)),
            asset,
            kind,
            amount: Units::new(amount),
            priority: 10,
            effective_at: at(0),
            expires_at: None,
            cost_basis: usd(cost),
            source_ref: "given".to_owned(),
            reason,
            at: at(self.now),
        });
    }

    pub(super) fn take(&mut self, asset: Asset, amount: i64, reason: AdjustmentReason) {
        self.ask(WalletCommand::TakeCredits {
            adjustment_id: AdjustmentId(id(900)),
            asset,
            amount: Units::new(amount),
            reason,
            effective_at: at(0),
            at: at(self.now),
        });
    }

    /// A use that nothing was held for.
    pub(super) fn spend(&mut self, n: u64, asset: Asset, amount: i64) {
        self.ask(WalletCommand::Charge {
            usage: usage(n, asset, amount),
            asset,
            amount: Units::new(amount),
            debt_limit: Units::ZERO,
            debt_cause: DebtCause::InboundWithoutCredit,
            at: at(self.now),
        });
    }

    pub(super) fn reverse(&mut self, n: u64, amount: i64) {
        let (amount, reason) = (Units::new(amount), "wrong".to_owned());
        self.ask(WalletCommand::ReverseDeduction { usage_id: UsageId(id(n)), amount, reason, at: at(self.now) });
    }

    /// Keeps credit for a use that is settled later, whatever it comes to.
    pub(super) fn hold(&mut self, n: u64, asset: Asset, amount: i64) {
        self.ask(WalletCommand::PlaceHold {
            hold_id: HoldId(id(n)),
            asset,
            amount: Units::new(amount),
            meter: meter(asset),
            caller: None,
            terms: CallTerms::default(),
            usage_id: UsageId(id(n)),
            admitted_at: at(self.now),
            expires_at: at(self.now + 600),
        });
    }

    pub(super) fn settle(&mut self, n: u64, asset: Asset, amount: i64) {
        let (hold_id, usage) = (HoldId(id(n)), usage(n, asset, amount));
        self.ask(WalletCommand::SettleHold { hold_id, usage, amount: Units::new(amount), at: at(self.now) });
    }

    pub(super) fn expire(&mut self, grant_id: GrantId) {
        self.ask(WalletCommand::ExpireGrant { grant_id, at: at(self.now) });
    }

    /// Records a fact and does what follows, or neither.
    pub(super) fn fact(&mut self, fact: &PaymentFact) -> Result<(), NotRecorded> {
        let before = self.payments.get(fact.payment_ref()).cloned().unwrap_or_default();
        let mut world = self.clone();
        let mut after = before.clone();
        let command = RecordFact { fact: fact.clone(), at: at(self.now) };
        for event in after.clone().decide(command).map_err(NotRecorded::Fact)? {
            after.evolve(&event);
            world.post(&book::payment_entries(&event).unwrap());
        }
        for command in super::super::effects(&before, &after, at(self.now)) {
            world.asked(command).map_err(NotRecorded::Wallet)?;
        }
        world.payments.insert(fact.payment_ref().to_owned(), after);
        *self = world;
        self.check();
        Ok(())
    }

    pub(super) fn payout(&mut self, amount: i64) {
        let sent = PayoutSent { payout_ref: "po_1".to_owned(), amount: usd(amount), occurred_at: at(0) };
        self.post(&book::payout_entries(&PayoutEvent::PayoutSent(sent)).unwrap());
        self.check();
    }

    fn ask(&mut self, command: WalletCommand) {
        let described = format!("{command:?}");
        self.asked(command).unwrap_or_else(|refusal| panic!("{described}: {refusal}"));
        self.check();
    }

    fn asked(&mut self, command: WalletCommand) -> Result<(), WalletRefusal> {
        for event in self.wallet.decide(command)? {
            self.post(&book::wallet_entries(tenant(), &event).unwrap_or_else(|error| panic!("{error}: {event:?}")));
            self.wallet.evolve(&event);
        }
        Ok(())
    }

    fn post(&mut self, entries: &[Entry]) {
        for entry in entries {
            for posting in &entry.postings {
                *self.accounts.entry((entry.asset, posting.account.clone())).or_default() += posting.amount;
            }
        }
    }

    /// Available and owed.
    pub(super) fn purse(&self, asset: Asset) -> (i64, i64) {
        (self.wallet.available(asset).get(), self.wallet.debt(asset).get())
    }

    /// The balance of everything in a class: debits are positive.
    pub(super) fn balance(&self, asset: Asset, class: &AccountClass) -> i64 {
        let of = self.accounts.iter().filter(|((known, account), _)| *known == asset && account.class() == *class);
        i64::try_from(of.map(|(_, balance)| balance).sum::<i128>()).unwrap()
    }

    /// Every class that does not stand at zero, by its name.
    pub(super) fn trial_balance(&self, asset: Asset) -> Vec<(String, i64)> {
        let classes: BTreeMap<_, _> =
            self.accounts.keys().map(|(_, account)| (account.class().to_string(), account.class())).collect();
        let lines = classes.into_iter().map(|(name, class)| (name, self.balance(asset, &class)));
        lines.filter(|(_, balance)| *balance != 0).collect()
    }

    /// What must hold after every step: the book balances, and it says of the wallet what the wallet says of itself.
    fn check(&self) {
        for asset in Asset::ALL {
            let trial: i128 = self.accounts.iter().filter(|((of, _), _)| *of == asset).map(|(_, sum)| sum).sum();
            assert_eq!(trial, 0, "the trial balance is off");
            let (available, debt) = self.purse(asset);
            let held = self.wallet.held(asset).get();
            let booked = [AccountClass::Available, AccountClass::Held, AccountClass::Debt];
            let booked = booked.map(|class| self.balance(asset, &class));
            assert_eq!(booked, [-available, -held, debt], "the book is not the wallet");
            assert!(available == 0 || debt == 0, "{available} {asset} are free and {debt} are owed");
            for grant in self.wallet.grants(asset) {
                let account = (asset, Account::Available(tenant(), grant.grant_id));
                let booked = self.accounts.get(&account).copied().unwrap_or_default();
                assert_eq!(booked, -i128::from(grant.available.get()), "{}", account.1);
            }
        }
        for kind in GrantKind::ALL {
            let grants = Asset::ALL.iter().flat_map(|asset| self.wallet.grants(*asset));
            let owed: i64 = grants.filter(|grant| grant.kind == kind).map(|grant| grant.deferred().get()).sum();
            assert_eq!(self.balance(Asset::Usd, &AccountClass::Deferred(kind)), -owed, "deferred for {kind:?}");
        }
    }
}

/// A UUIDv7 of the `n`th millisecond after the start.
fn id(n: u64) -> Uuid {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&n.to_be_bytes());
    Builder::from_unix_timestamp_millis(1_760_000_000_000 + n, &random).into_uuid()
}

/// What credit of an asset is used for.
pub(super) const fn meter(asset: Asset) -> Meter {
    match asset {
        Asset::Usd => Meter::Chat,
        Asset::Credit => Meter::Voice,
    }
}

/// A use that a provider charges half of its price for; phone calls cost CALOS nothing here.
fn usage(n: u64, asset: Asset, amount: i64) -> UsageRecorded {
    let total = match asset {
        Asset::Usd => amount,
        Asset::Credit => 0,
    };
    UsageRecorded {
        usage_id: UsageId(id(n)),
        meter: meter(asset),
        api_key_id: None,
        provider: "openai".to_owned(),
        model: "gpt-4".to_owned(),
        prompt_tokens: 1,
        completion_tokens: 1,
        cached_tokens: 0,
        cache_write_tokens: 0,
        cache_write_hour_tokens: 0,
        reasoning_tokens: 0,
        provider_cost: usd(total / 2),
        markup: usd(total - total / 2),
        total: usd(total),
        byok: false,
        estimated: false,
        price_book_version: "1".to_owned(),
        latency_ms: 1,
        task_type: "chat".to_owned(),
        outcome: UsageOutcome::Completed,
        failed_attempts: Vec::new(),
    }
}
