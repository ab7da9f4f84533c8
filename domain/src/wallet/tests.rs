//! Given what happened, when this is asked, then these events follow, or this refusal.

mod budgets;
mod charges;
mod claimed;
mod claims;
mod clocks;
mod corrections;
mod costs;
mod dates;
mod debts;
mod grants;
mod histories;
mod holds;
mod interleavings;
mod limits;
mod memory;
mod reference;
mod settlements;
mod takings;
mod world;

use uuid::{Builder, Uuid};

use super::*;
use crate::{AdjustmentId, Asset, Decider, GrantId, HoldId, MicroUsd, TenantId, Timestamp, Units, UsageId};

/// Milliseconds at which every test begins.
const START_MS: u64 = 1_760_000_000_000;

/// A moment, in seconds after the start.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(START_MS.cast_signed() * 1_000).plus_seconds(seconds)
}

/// A UUIDv7 of the `n`th millisecond after the start.
fn id(n: u64) -> Uuid {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&n.to_be_bytes());
    Builder::from_unix_timestamp_millis(START_MS + n, &random).into_uuid()
}

fn hold_id(n: u64) -> HoldId {
    HoldId(id(n))
}

/// A use's id; never the same as a hold's.
fn usage_id(n: u64) -> UsageId {
    UsageId(id(200_000 + n))
}

/// An adjustment's id; never the same as a hold's or a use's.
fn adjustment_id(n: u64) -> AdjustmentId {
    AdjustmentId(id(100_000 + n))
}

fn grant_id(n: u128) -> GrantId {
    GrantId(Uuid::from_u128(n))
}

fn tenant() -> TenantId {
    TenantId(Uuid::from_u128(0x7e4a47))
}

const fn units(amount: i64) -> Units {
    Units::new(amount)
}

fn allocations<const N: usize>(parts: [(u128, i64); N]) -> Vec<Allocation> {
    parts.into_iter().map(|(n, amount)| Allocation { grant_id: grant_id(n), amount: units(amount) }).collect()
}

fn open() -> WalletCommand {
    WalletCommand::OpenWallet { tenant_id: tenant(), opened_at: at(0) }
}

/// A purchase in dollars that never expires, at the price of its amount.
fn grant(n: u128, amount: i64) -> WalletCommand {
    Grant::usd(n, amount).command()
}

/// A grant that can be varied.
#[derive(Clone, Copy)]
struct Grant {
    n: u128,
    asset: Asset,
    kind: GrantKind,
    amount: i64,
    priority: i16,
    effective: i64,
    expires: Option<i64>,
    cost: i64,
    reason: Option<AdjustmentReason>,
    now: i64,
}

impl Grant {
    const fn usd(n: u128, amount: i64) -> Self {
        Self {
            n,
            asset: Asset::Usd,
            kind: GrantKind::Purchase,
            amount,
            priority: 0,
            effective: 0,
            expires: None,
            cost: amount,
            reason: None,
            now: 0,
        }
    }

    const fn expiring(self, seconds: i64) -> Self {
        Self { expires: Some(seconds), ..self }
    }

    fn command(self) -> WalletCommand {
        WalletCommand::GrantCredits {
            grant_id: grant_id(self.n),
            asset: self.asset,
            kind: self.kind,
            amount: units(self.amount),
            priority: self.priority,
            effective_at: at(self.effective),
            expires_at: self.expires.map(at),
            cost_basis: MicroUsd::new(self.cost),
            source_ref: format!("invoice:{}", self.n),
            reason: self.reason,
            at: at(self.now),
        }
    }
}

/// A hold in dollars from second 1 on, for ten minutes, of the use with the same number.
fn hold(n: u64, amount: i64) -> WalletCommand {
    hold_at(n, amount, 1)
}

fn hold_at(n: u64, amount: i64, seconds: i64) -> WalletCommand {
    WalletCommand::PlaceHold {
        hold_id: hold_id(n),
        asset: Asset::Usd,
        amount: units(amount),
        meter: Meter::Chat,
        caller: None,
        terms: CallTerms::default(),
        usage_id: usage_id(n),
        admitted_at: at(seconds),
        expires_at: at(seconds + 600),
    }
}

/// A use that costs this much.
fn usage(n: u64, total: i64) -> UsageRecorded {
    UsageRecorded {
        usage_id: usage_id(n),
        meter: Meter::Chat,
        api_key_id: None,
        provider: "openai".to_owned(),
        model: "gpt-4".to_owned(),
        prompt_tokens: 10,
        completion_tokens: 20,
        cached_tokens: 0,
        cache_write_tokens: 0,
        cache_write_hour_tokens: 0,
        failed_attempts: Vec::new(),
        reasoning_tokens: 0,
        provider_cost: MicroUsd::new(total - total / 4),
        markup: MicroUsd::new(total / 4),
        total: MicroUsd::new(total),
        byok: false,
        estimated: false,
        price_book_version: "2025-11-01".to_owned(),
        latency_ms: 700,
        task_type: "chat".to_owned(),
        outcome: UsageOutcome::Completed,
    }
}

fn settle(n: u64, amount: i64) -> WalletCommand {
    settle_at(n, amount, 2)
}

fn settle_at(n: u64, amount: i64, seconds: i64) -> WalletCommand {
    WalletCommand::SettleHold { hold_id: hold_id(n), usage: usage(n, amount), amount: units(amount), at: at(seconds) }
}

fn release(n: u64, cause: ReleaseCause, seconds: i64) -> WalletCommand {
    WalletCommand::ReleaseHold { hold_id: hold_id(n), cause, at: at(seconds) }
}

fn charge(n: u64, amount: i64) -> WalletCommand {
    charge_up_to(n, amount, 0)
}

fn charge_up_to(n: u64, amount: i64, debt_limit: i64) -> WalletCommand {
    WalletCommand::Charge {
        usage: usage(n, amount),
        asset: Asset::Usd,
        amount: units(amount),
        debt_limit: units(debt_limit),
        debt_cause: DebtCause::InboundWithoutCredit,
        at: at(1),
    }
}

fn reverse(n: u64, amount: i64) -> WalletCommand {
    let reason = "charged for an empty answer".to_owned();
    WalletCommand::ReverseDeduction { usage_id: usage_id(n), amount: units(amount), reason, at: at(3) }
}

fn expire(n: u128, seconds: i64) -> WalletCommand {
    WalletCommand::ExpireGrant { grant_id: grant_id(n), at: at(seconds) }
}

fn void(n: u128, claimed: i64, reference: &str) -> WalletCommand {
    WalletCommand::VoidGrant {
        grant_id: grant_id(n),
        claimed: units(claimed),
        cause: DebtCause::Refund,
        source_ref: reference.to_owned(),
        at: at(3),
    }
}

fn restore(n: u128, reference: &str) -> WalletCommand {
    restore_at(n, reference, 4)
}

fn restore_at(n: u128, reference: &str, seconds: i64) -> WalletCommand {
    WalletCommand::RestoreGrant { grant_id: grant_id(n), source_ref: reference.to_owned(), at: at(seconds) }
}

/// An adjustment that takes dollars, effective from the start.
fn take(n: u64, amount: i64) -> WalletCommand {
    WalletCommand::TakeCredits {
        adjustment_id: adjustment_id(n),
        asset: Asset::Usd,
        amount: units(amount),
        reason: AdjustmentReason::BillingError,
        effective_at: at(0),
        at: at(3),
    }
}

/// What purchases cost, as an event releases it; nothing for zero.
fn paid(amount: i64) -> Vec<CostReleased> {
    let released = CostReleased { kind: GrantKind::Purchase, amount: MicroUsd::new(amount) };
    Some(released).filter(|_| amount != 0).into_iter().collect()
}

/// A wallet in the making: `given([...])` applies commands that must succeed.
struct Given {
    wallet: Wallet,
}

fn given<const N: usize>(commands: [WalletCommand; N]) -> Given {
    let mut given = Given { wallet: Wallet::default() };
    given.wallet.evolve(&WalletEvent::WalletOpened(WalletOpened { tenant_id: tenant(), opened_at: at(0) }));
    for command in commands {
        let described = format!("{command:?}");
        let events = given.wallet.decide(command).unwrap_or_else(|refusal| panic!("{described}: {refusal}"));
        given.apply(&events);
    }
    given
}

impl Given {
    fn apply(&mut self, events: &[WalletEvent]) {
        for event in events {
            self.wallet.evolve(event);
        }
    }

    /// Decides a command, checks that repeating it at once changes nothing, and leaves the state as it then is.
    fn when(&mut self, command: WalletCommand) -> Result<Vec<WalletEvent>, WalletRefusal> {
        let before = json(&self.wallet);
        let decided = self.wallet.decide(command.clone());
        assert_eq!(json(&self.wallet), before, "deciding changed the state");
        if let Ok(events) = &decided {
            self.apply(events);
            assert_eq!(self.wallet.decide(command), Ok(Vec::new()), "a repetition is not a no-op");
        }
        decided
    }

    fn then_refused(&mut self, command: WalletCommand) -> WalletRefusal {
        match self.when(command) {
            Ok(events) => panic!("not refused: {events:?}"),
            Err(refusal) => refusal,
        }
    }

    /// Available, held and owed dollars.
    fn usd(&self) -> (i64, i64, i64) {
        let wallet = &self.wallet;
        (wallet.available(Asset::Usd).get(), wallet.held(Asset::Usd).get(), wallet.debt(Asset::Usd).get())
    }
}

fn json(wallet: &Wallet) -> String {
    serde_json::to_string(wallet).unwrap()
}

fn names(events: &[WalletEvent]) -> Vec<&'static str> {
    events.iter().map(crate::Fact::name).collect()
}
