//! The book beside the log: every event as entries, summed per account, and held against the figures of the wallets.

use std::collections::BTreeMap;

use calos_domain::book::{self, Account, Entry};
use calos_domain::payment::PaymentEvent;
use calos_domain::wallet::{GrantKind, WalletEvent};
use calos_domain::{Asset, TenantId};

use super::figures::{Figures, Sum, sum};
use super::model::Model;

type Accounts = BTreeMap<(Account, Asset), Sum>;

/// The balances of all accounts; a debit is positive.
#[derive(Default, Debug)]
pub struct Ledger {
    tenants: BTreeMap<TenantId, Accounts>,
    common: Accounts,
    /// What tenants that are gone still had, by class of account.
    gone: BTreeMap<(String, Asset), Sum>,
    /// What was still owed for the grants of tenants that are gone.
    archived: BTreeMap<GrantKind, Sum>,
}

/// What was paid for a grant and is not earned yet: all of it less the whole micro-dollars its used part makes, so that the
/// last unit releases the rest.
pub fn deferred(model: &Model) -> BTreeMap<GrantKind, Sum> {
    let mut sums = BTreeMap::new();
    for (grant_id, terms) in &model.terms {
        if let Some(line) = model.figures.lines.get(grant_id).filter(|_| terms.cost > 0) {
            let gone = (line.granted - line.available - line.held).clamp(0, line.granted);
            *sums.entry(terms.kind).or_default() += terms.cost - terms.cost * gone / line.granted;
        }
    }
    sums
}

impl Ledger {
    /// Books a wallet's event.
    ///
    /// # Errors
    /// It has no balanced, legal entries.
    pub fn wallet(&mut self, tenant: TenantId, event: &WalletEvent) -> Result<(), String> {
        let entries = book::wallet_entries(tenant, event).map_err(|error| format!("{error}: {event:?}"))?;
        self.post(entries)
    }

    /// Books a payment's event.
    ///
    /// # Errors
    /// As [`Self::wallet`].
    pub fn payment(&mut self, event: &PaymentEvent) -> Result<(), String> {
        let entries = book::payment_entries(event).map_err(|error| format!("{error}: {event:?}"))?;
        self.post(entries)
    }

    fn post(&mut self, entries: Vec<Entry>) -> Result<(), String> {
        for entry in entries {
            let total: Sum = entry.postings.iter().map(|posting| posting.amount).sum();
            if total != 0 {
                return Err(format!("an entry in {} sums to {total}: {:?}", entry.asset, entry.postings));
            }
            for posting in entry.postings {
                let accounts = match posting.account.tenant() {
                    Some(tenant) => self.tenants.entry(tenant).or_default(),
                    None => &mut self.common,
                };
                let key = (posting.account, entry.asset);
                let balance = accounts.entry(key.clone()).or_default();
                *balance += posting.amount;
                if *balance == 0 {
                    accounts.remove(&key);
                }
            }
        }
        Ok(())
    }

    /// A tenant's accounts say what its wallet says.
    ///
    /// # Errors
    /// The first account that does not.
    pub fn check_tenant(&self, tenant: TenantId, figures: &Figures) -> Result<(), String> {
        let mut expected = Accounts::new();
        for (grant_id, line) in figures.lines.iter().filter(|(_, line)| line.available != 0) {
            expected.insert((Account::Available(tenant, *grant_id), line.asset), -line.available);
        }
        for (hold_id, kept) in figures.holds.iter().filter(|(_, kept)| sum(&kept.parts) != 0) {
            expected.insert((Account::Held(tenant, *hold_id), kept.asset), -sum(&kept.parts));
        }
        for asset in Asset::ALL.into_iter().filter(|asset| figures.debt(*asset) != 0) {
            expected.insert((Account::Debt(tenant), asset), figures.debt(asset));
        }
        let empty = Accounts::new();
        let booked = self.tenants.get(&tenant).unwrap_or(&empty);
        for key in expected.keys().chain(booked.keys()) {
            if expected.get(key) != booked.get(key) {
                let (wallet, book) = (expected.get(key), booked.get(key));
                return Err(format!("account {} in {}: the wallet has {wallet:?}, the book {book:?}", key.0, key.1));
            }
        }
        Ok(())
    }

    /// The trial balance is zero, and what is deferred is what the unused part of every paid grant cost.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_common<'a>(&self, models: impl Iterator<Item = &'a Model>) -> Result<(), String> {
        for asset in Asset::ALL {
            let classes = self.classes();
            let trial: Sum = classes.iter().filter(|((_, of), _)| *of == asset).map(|(_, balance)| balance).sum();
            if trial != 0 {
                return Err(format!("the trial balance in {asset} is {trial}"));
            }
        }
        let mut owed = self.archived.clone();
        for (kind, amount) in models.flat_map(deferred) {
            *owed.entry(kind).or_default() += amount;
        }
        for kind in GrantKind::ALL {
            let expected = owed.get(&kind).copied().unwrap_or_default();
            let booked = self.common.get(&(Account::Deferred(kind), Asset::Usd)).copied().unwrap_or_default();
            if -booked != expected {
                return Err(format!("deferred for {}: the grants say {expected}, the book {}", kind.as_str(), -booked));
            }
        }
        Ok(())
    }

    /// Forgets a tenant that is gone but for what it leaves in sums.
    pub fn archive(&mut self, tenant: TenantId, model: &Model) {
        for (kind, amount) in deferred(model) {
            *self.archived.entry(kind).or_default() += amount;
        }
        let left = self.tenants.remove(&tenant).unwrap_or_default();
        for ((account, asset), balance) in left {
            *self.gone.entry((account.class().to_string(), asset)).or_default() += balance;
        }
    }

    /// The balances by class of account, as a trial balance lists them.
    pub fn classes(&self) -> BTreeMap<(String, Asset), Sum> {
        let mut classes = self.gone.clone();
        for ((account, asset), balance) in self.tenants.values().chain([&self.common]).flatten() {
            *classes.entry((account.class().to_string(), *asset)).or_default() += balance;
        }
        classes
    }
}
