//! Who called of late, and what each key has spent: what limits and budgets are decided on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api_key::{KeyBudgets, KeyLimits};
use crate::{Asset, KeyId, MicroUsd, Timestamp, UserId};

use super::windows::{CallWindows, WindowStatus};
use super::{HoldPlaced, OpenHold, Wallet, WalletRefusal};

/// Callers a wallet remembers. A tenant's live keys and members stay below it; beyond it whoever called longest ago is
/// forgotten.
pub const CALLERS_REMEMBERED_MAX_COUNT: usize = 4_096;

/// How often callers nothing has to be remembered of are looked for.
const SWEEP_INTERVAL_SECONDS: i64 = 3_600;

/// Who calls.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Caller {
    /// A program with a tenant key.
    Key(KeyId),
    /// A person in a session.
    User(UserId),
}

/// What a caller is held to at the moment of the call; the default is nothing. No part of a hold's content: a repetition
/// is answered as before, whatever the terms are by then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CallTerms {
    /// How often it may call.
    pub limits: Option<KeyLimits>,
    /// What a key may spend.
    pub budgets: KeyBudgets,
}

/// A stretch of the calendar a budget is for, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BudgetPeriod {
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the next.
    Month,
}

impl BudgetPeriod {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    const fn number(self, at: Timestamp) -> i64 {
        match self {
            Self::Day => at.utc_day(),
            Self::Month => at.utc_month(),
        }
    }

    /// When the period that holds this moment ends.
    #[must_use]
    pub const fn end(self, at: Timestamp) -> Timestamp {
        match self {
            Self::Day => Timestamp::of_utc_day(at.utc_day() + 1),
            Self::Month => Timestamp::of_utc_month(at.utc_month() + 1),
        }
    }
}

/// What a key spent and keeps in one period. A call belongs to the period it was let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spending {
    /// What its calls cost, corrections aside.
    pub spent: MicroUsd,
    /// What its open holds keep.
    pub held: MicroUsd,
}

/// A [`Spending`] and its period's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Account(i64, MicroUsd, MicroUsd);

impl Account {
    /// A period that has not begun has no spending; one that is over can only be asked for by a clock that is behind.
    fn of(self, number: i64) -> Spending {
        if number > self.0 { Spending::default() } else { Spending { spent: self.1, held: self.2 } }
    }

    fn begin(&mut self, number: i64) {
        if number > self.0 {
            *self = Self(number, MicroUsd::ZERO, MicroUsd::ZERO);
        }
    }
}

/// One caller.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Entry {
    /// None once the last call is a day old.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    windows: Option<Box<CallWindows>>,
    #[serde(rename = "d")]
    day: Account,
    #[serde(rename = "m")]
    month: Account,
    /// When it called last.
    #[serde(rename = "l")]
    last: Timestamp,
}

impl Entry {
    const fn account(&self, period: BudgetPeriod) -> Account {
        match period {
            BudgetPeriod::Day => self.day,
            BudgetPeriod::Month => self.month,
        }
    }

    fn each(&mut self, at: Timestamp, mut change: impl FnMut(&mut Account)) {
        for (period, account) in [(BudgetPeriod::Day, &mut self.day), (BudgetPeriod::Month, &mut self.month)] {
            let number = period.number(at);
            account.begin(number);
            if account.0 == number {
                change(account);
            }
        }
    }

    fn called(&mut self, placed: &HoldPlaced) {
        let at = placed.admitted_at;
        self.last = at;
        self.windows.get_or_insert_with(|| Box::new(CallWindows::beginning_at(at))).count(at);
        if placed.asset == Asset::Usd {
            let amount = MicroUsd::new(placed.amount.get());
            self.each(at, |account| account.2 = account.2.saturating_plus(amount));
        }
    }

    /// Whether anything about it matters to a decision at `at` or later.
    fn matters(&self, at: Timestamp) -> bool {
        let spending = self.month.of(BudgetPeriod::Month.number(at));
        self.windows.is_some() || spending != Spending::default()
    }
}

/// Every caller something has to be remembered of.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Callers {
    #[serde(rename = "k")]
    keys: BTreeMap<KeyId, Entry>,
    #[serde(rename = "u")]
    users: BTreeMap<UserId, Entry>,
    #[serde(rename = "s")]
    swept_at: Timestamp,
}

impl Callers {
    fn get(&self, caller: &Caller) -> Option<&Entry> {
        match caller {
            Caller::Key(key) => self.keys.get(key),
            Caller::User(user) => self.users.get(user),
        }
    }

    /// When a call that arrives at `at` counts as let in.
    pub(super) fn admission(&self, caller: Option<&Caller>, at: Timestamp) -> Timestamp {
        let windows = caller.and_then(|caller| self.get(caller)).and_then(|entry| entry.windows.as_ref());
        windows.map_or(at, |windows| windows.admission(at))
    }

    pub(super) fn status(&self, caller: &Caller, limits: KeyLimits, at: Timestamp) -> WindowStatus {
        match self.get(caller).and_then(|entry| entry.windows.as_ref()) {
            Some(windows) => windows.tightest(limits, at),
            None => CallWindows::beginning_at(at).tightest(limits, at),
        }
    }

    pub(super) fn by_minute(&self, caller: &Caller) -> Vec<(Timestamp, u32)> {
        let windows = self.get(caller).and_then(|entry| entry.windows.as_ref());
        windows.map_or_else(Vec::new, |windows| windows.by_minute().collect())
    }

    pub(super) fn spending(&self, caller: &Caller, period: BudgetPeriod, at: Timestamp) -> Spending {
        self.get(caller).map_or_else(Spending::default, |entry| entry.account(period).of(period.number(at)))
    }

    /// Refuses a call beyond the terms.
    pub(super) fn check(
        &self,
        caller: &Caller,
        terms: &CallTerms,
        needed: MicroUsd,
        at: Timestamp,
    ) -> Result<(), WalletRefusal> {
        if let Some(limits) = terms.limits {
            let status = self.status(caller, limits, at);
            if status.free_at.is_some() {
                return Err(WalletRefusal::RateLimited(status));
            }
        }
        // What costs nothing overdraws nothing.
        if needed.is_zero() {
            return Ok(());
        }
        for (period, budget) in periods(terms.budgets) {
            let Spending { spent, held } = self.spending(caller, period, at);
            if spent.saturating_plus(held).saturating_plus(needed) > budget {
                let ends_at = period.end(at);
                return Err(WalletRefusal::BudgetExceeded { period, budget, spent, held, needed, ends_at });
            }
        }
        Ok(())
    }

    pub(super) fn room(&self, caller: &Caller, terms: &CallTerms, at: Timestamp) -> Option<MicroUsd> {
        let rooms = periods(terms.budgets).map(|(period, budget)| {
            let Spending { spent, held } = self.spending(caller, period, at);
            budget.saturating_minus(spent).saturating_minus(held).max(MicroUsd::ZERO)
        });
        rooms.min()
    }

    /// How many there are: each with its windows, for a bound that costs no walk.
    pub(super) fn weight_bytes(&self) -> usize {
        const ENTRY_BYTES: usize = std::mem::size_of::<Entry>() + std::mem::size_of::<CallWindows>() + 48;
        (self.keys.len() + self.users.len()) * ENTRY_BYTES
    }

    pub(super) fn placed(&mut self, placed: &HoldPlaced) {
        let before = self.keys.len() + self.users.len();
        match (&placed.api_key_id, placed.user_id) {
            (Some(key), _) => match self.keys.get_mut(key) {
                Some(entry) => entry.called(placed),
                None => self.keys.entry(key.clone()).or_default().called(placed),
            },
            (None, Some(user)) => self.users.entry(user).or_default().called(placed),
            (None, None) => return,
        }
        self.sweep(placed.admitted_at);
        if before >= CALLERS_REMEMBERED_MAX_COUNT {
            self.forget_beyond_bound();
        }
    }

    /// A hold has ended; what it cost comes by [`Self::spent`].
    pub(super) fn ended(&mut self, hold: &OpenHold) {
        let Some(entry) = hold.key.as_ref().and_then(|key| self.keys.get_mut(key)) else { return };
        if hold.asset == Asset::Usd {
            let amount = MicroUsd::new(hold.amount.get());
            entry.each(hold.admitted_at, |account| account.2 = account.2.saturating_minus(amount).max(MicroUsd::ZERO));
        }
    }

    /// A call of the key, let in at `at`, has cost this much.
    pub(super) fn spent(&mut self, key: &KeyId, total: MicroUsd, at: Timestamp) {
        if let Some(entry) = self.keys.get_mut(key) {
            entry.each(at, |account| account.1 = account.1.saturating_plus(total));
        }
    }

    /// Lets go of what no decision will ask for, once in a while and by the calls' own time, so that a replay does the
    /// same at the same call.
    fn sweep(&mut self, at: Timestamp) {
        let passed = at.micros().saturating_sub(self.swept_at.micros()).saturating_abs();
        if passed < Timestamp::default().plus_seconds(SWEEP_INTERVAL_SECONDS).micros() {
            return;
        }
        self.swept_at = at;
        let keep = |entry: &mut Entry| {
            if entry.windows.as_ref().is_some_and(|windows| windows.is_over(at)) {
                entry.windows = None;
            }
            entry.matters(at)
        };
        self.keys.retain(|_, entry| keep(entry));
        self.users.retain(|_, entry| keep(entry));
    }

    fn forget_beyond_bound(&mut self) {
        while self.keys.len() + self.users.len() > CALLERS_REMEMBERED_MAX_COUNT {
            let key = self.keys.iter().map(|(key, entry)| (entry.last, Caller::Key(key.clone()))).min();
            let user = self.users.iter().map(|(user, entry)| (entry.last, Caller::User(*user))).min();
            match [key, user].into_iter().flatten().min() {
                Some((_, Caller::Key(key))) => drop(self.keys.remove(&key)),
                Some((_, Caller::User(user))) => drop(self.users.remove(&user)),
                None => return,
            }
        }
    }
}

/// What others may ask a wallet about its callers.
impl Wallet {
    /// Where a caller with these limits stands at `at`, in the window that is nearest to being used up.
    #[must_use]
    pub fn call_status(&self, caller: &Caller, limits: KeyLimits, at: Timestamp) -> WindowStatus {
        self.callers.status(caller, limits, at)
    }

    /// Whether a caller may make a call at `at` that costs up to `needed`: what [`super::WalletCommand::PlaceHold`] asks too.
    ///
    /// # Errors
    /// [`WalletRefusal::RateLimited`] or [`WalletRefusal::BudgetExceeded`].
    pub fn may_call(
        &self,
        caller: &Caller,
        terms: &CallTerms,
        needed: MicroUsd,
        at: Timestamp,
    ) -> Result<(), WalletRefusal> {
        self.callers.check(caller, terms, needed, at)
    }

    /// What the tightest of a caller's budgets has left at `at`, never below zero; none without a budget.
    #[must_use]
    pub fn budget_room(&self, caller: &Caller, terms: &CallTerms, at: Timestamp) -> Option<MicroUsd> {
        self.callers.room(caller, terms, at)
    }

    /// How many calls of a caller each minute of the last hour before its newest call saw, oldest first; minutes
    /// without one are left out.
    #[must_use]
    pub fn calls_by_minute(&self, caller: &Caller) -> Vec<(Timestamp, u32)> {
        self.callers.by_minute(caller)
    }

    /// What a key has spent, and keeps, in the period that holds `at`.
    #[must_use]
    pub fn spending(&self, caller: &Caller, period: BudgetPeriod, at: Timestamp) -> Spending {
        self.callers.spending(caller, period, at)
    }
}

/// The budgets there are.
pub(super) fn periods(budgets: KeyBudgets) -> impl Iterator<Item = (BudgetPeriod, MicroUsd)> {
    let both = [(BudgetPeriod::Day, budgets.per_day), (BudgetPeriod::Month, budgets.per_month)];
    both.into_iter().filter_map(|(period, budget)| Some((period, budget?)))
}
