//! Who called of late, and what each key has spent: what limits and budgets are decided on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api_key::{KeyBudgets, KeyLimits};
use crate::{Asset, KeyId, MicroUsd, Timestamp, UserId};

use super::windows::{CallWindows, WindowStatus};
use super::{HoldPlaced, OpenHold, Wallet, WalletRefusal};

/// Callers a wallet remembers. A tenant's live keys and members stay below it; beyond it whoever called longest ago is
/// forgotten, people before keys.
pub const CALLERS_REMEMBERED_MAX_COUNT: usize = 4_096;

/// How many of them may be people before keys have to stay: few enough that a tenant's live keys always fit beside them,
/// and enough that people are still counted when keys come and go in thousands.
const PEOPLE_REMEMBERED_MIN_COUNT: usize = 1_024;

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
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CallTerms {
    /// How often it may call.
    pub limits: Option<KeyLimits>,
    /// What a key may spend.
    pub budgets: KeyBudgets,
    /// The key under which a key's calls count: the first of its line.
    pub line: Option<KeyId>,
}

impl CallTerms {
    /// Under whom this caller's calls count.
    #[must_use]
    pub fn counted(&self, caller: &Caller) -> Caller {
        match (caller, &self.line) {
            (Caller::Key(_), Some(line)) => Caller::Key(line.clone()),
            (Caller::Key(_), None) | (Caller::User(_), _) => caller.clone(),
        }
    }
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
    const ALL: [Self; 2] = [Self::Day, Self::Month];

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

/// A period's number, and its [`Spending`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Account(i64, MicroUsd, MicroUsd);

/// The accounts of the two periods called in last, the later call's first. Two, so that neither a clock that is ahead
/// nor a late settlement closes the account of everybody else: what is spent always goes into the call's own period.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Accounts([Account; 2]);

impl Accounts {
    /// A period nobody called in has no spending.
    fn of(&self, number: i64) -> Spending {
        let Some(account) = self.0.iter().find(|account| account.0 == number) else { return Spending::default() };
        Spending { spent: account.1, held: account.2 }
    }

    /// The account of a period that is called in.
    fn called(&mut self, number: i64) -> &mut Account {
        let [first, second] = &mut self.0;
        if first.0 != number {
            std::mem::swap(first, second);
            if first.0 != number {
                *first = Account(number, MicroUsd::ZERO, MicroUsd::ZERO);
            }
        }
        first
    }

    /// The account of a period that has one, or comes after the one called in last.
    fn known(&mut self, number: i64) -> Option<&mut Account> {
        if number > self.0[0].0 {
            return Some(self.called(number));
        }
        self.0.iter_mut().find(|account| account.0 == number)
    }

    /// Whether something was spent or is kept in this period or a later one.
    fn matter(&self, number: i64) -> bool {
        self.0.iter().any(|account| account.0 >= number && !(account.1.is_zero() && account.2.is_zero()))
    }

    fn are_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One caller.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Entry {
    /// None once the last call is a day old.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    windows: Option<Box<CallWindows>>,
    /// Empty for people: budgets are for keys.
    #[serde(rename = "d", default, skip_serializing_if = "Accounts::are_empty")]
    days: Accounts,
    #[serde(rename = "m", default, skip_serializing_if = "Accounts::are_empty")]
    months: Accounts,
    /// When it called last.
    #[serde(rename = "l")]
    last: Timestamp,
}

impl Entry {
    const fn accounts(&self, period: BudgetPeriod) -> &Accounts {
        match period {
            BudgetPeriod::Day => &self.days,
            BudgetPeriod::Month => &self.months,
        }
    }

    const fn accounts_mut(&mut self, period: BudgetPeriod) -> &mut Accounts {
        match period {
            BudgetPeriod::Day => &mut self.days,
            BudgetPeriod::Month => &mut self.months,
        }
    }

    fn called(&mut self, at: Timestamp) {
        self.last = at;
        self.windows.get_or_insert_with(|| Box::new(CallWindows::beginning_at(at))).count(at);
    }

    /// A hold of this much was placed.
    fn kept(&mut self, amount: MicroUsd, at: Timestamp) {
        for period in BudgetPeriod::ALL {
            let account = self.accounts_mut(period).called(period.number(at));
            account.2 = account.2.saturating_plus(amount);
        }
    }

    /// Something about a call let in at `at` has come to its end.
    fn each(&mut self, at: Timestamp, change: impl Fn(&mut Account)) {
        for period in BudgetPeriod::ALL {
            if let Some(account) = self.accounts_mut(period).known(period.number(at)) {
                change(account);
            }
        }
    }

    /// Whether anything about it matters to a decision at `at` or later.
    fn matters(&self, at: Timestamp) -> bool {
        self.windows.is_some() || self.months.matter(BudgetPeriod::Month.number(at))
    }
}

/// Every caller something has to be remembered of.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Callers {
    #[serde(rename = "k")]
    keys: BTreeMap<KeyId, Entry>,
    #[serde(rename = "u")]
    users: BTreeMap<UserId, Entry>,
    /// Keys that count under another, the first of their line.
    #[serde(rename = "n", default, skip_serializing_if = "BTreeMap::is_empty")]
    lines: BTreeMap<KeyId, KeyId>,
    /// The moment of the call that swept last.
    #[serde(rename = "s")]
    swept_at: Timestamp,
}

impl Callers {
    fn get(&self, caller: &Caller) -> Option<&Entry> {
        match caller {
            Caller::Key(key) => self.keys.get(self.line_of(key)),
            Caller::User(user) => self.users.get(user),
        }
    }

    fn line_of<'a>(&'a self, key: &'a KeyId) -> &'a KeyId {
        self.lines.get(key).unwrap_or(key)
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
        self.get(caller).map_or_else(Spending::default, |entry| entry.accounts(period).of(period.number(at)))
    }

    /// Refuses a call beyond the terms.
    pub(super) fn check(
        &self,
        caller: &Caller,
        terms: &CallTerms,
        needed: MicroUsd,
        at: Timestamp,
    ) -> Result<(), WalletRefusal> {
        let caller = &terms.counted(caller);
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
        let caller = terms.counted(caller);
        let rooms = periods(terms.budgets).map(|(period, budget)| {
            let Spending { spent, held } = self.spending(&caller, period, at);
            budget.saturating_minus(spent).saturating_minus(held).max(MicroUsd::ZERO)
        });
        rooms.min()
    }

    /// How many there are: each with its windows, for a bound that costs no walk.
    pub(super) fn weight_bytes(&self) -> usize {
        const ENTRY_BYTES: usize = std::mem::size_of::<Entry>() + std::mem::size_of::<CallWindows>() + 48;
        const LINE_BYTES: usize = 2 * std::mem::size_of::<KeyId>() + 16;
        (self.keys.len() + self.users.len()) * ENTRY_BYTES + self.lines.len() * LINE_BYTES
    }

    pub(super) fn placed(&mut self, placed: &HoldPlaced) {
        let before = self.keys.len() + self.users.len();
        let at = placed.admitted_at;
        match (&placed.api_key_id, placed.user_id) {
            (Some(key), _) => {
                let counted = placed.line.as_ref().unwrap_or(key);
                self.follow(key, counted);
                if !self.keys.contains_key(counted) {
                    self.keys.insert(counted.clone(), Entry::default());
                }
                if let Some(entry) = self.keys.get_mut(counted) {
                    entry.called(at);
                    if placed.asset == Asset::Usd {
                        entry.kept(MicroUsd::new(placed.amount.get()), at);
                    }
                }
            }
            (None, Some(user)) => self.users.entry(user).or_default().called(at),
            (None, None) => return,
        }
        self.sweep(at);
        if before >= CALLERS_REMEMBERED_MAX_COUNT {
            self.forget_beyond_bound();
        }
    }

    /// Remembers under which key another counts: a use is recorded by the key that called.
    fn follow(&mut self, key: &KeyId, counted: &KeyId) {
        if key == counted || self.lines.get(key) == Some(counted) {
            return;
        }
        self.lines.insert(key.clone(), counted.clone());
        if self.lines.len() > CALLERS_REMEMBERED_MAX_COUNT {
            let other = self.lines.keys().find(|other| *other != key).cloned();
            other.map(|other| self.lines.remove(&other));
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
        let counted = self.line_of(key).clone();
        if let Some(entry) = self.keys.get_mut(&counted) {
            entry.each(at, |account| account.1 = account.1.saturating_plus(total));
        }
    }

    /// Lets go of what no decision will ask for, once in a while and by the calls' own time, so that a replay does the
    /// same at the same call. It goes by the earlier of this moment and that of the sweep before, so that one call by a
    /// clock that is ahead takes nothing from anybody.
    fn sweep(&mut self, at: Timestamp) {
        let passed = at.micros().saturating_sub(self.swept_at.micros()).saturating_abs();
        if passed < Timestamp::default().plus_seconds(SWEEP_INTERVAL_SECONDS).micros() {
            return;
        }
        let since = at.min(std::mem::replace(&mut self.swept_at, at));
        let keep = |entry: &mut Entry| {
            if entry.windows.as_ref().is_some_and(|windows| windows.is_over(since)) {
                entry.windows = None;
            }
            entry.matters(since)
        };
        self.keys.retain(|_, entry| keep(entry));
        self.lines.retain(|_, counted| self.keys.contains_key(counted));
        self.users.retain(|_, entry| keep(entry));
    }

    /// People go before keys, since nothing but the last day's calls is forgotten with them; among each, whoever called
    /// longest ago. No id but the one that goes is copied.
    fn forget_beyond_bound(&mut self) {
        while self.keys.len() + self.users.len() > CALLERS_REMEMBERED_MAX_COUNT {
            if self.users.len() > PEOPLE_REMEMBERED_MIN_COUNT {
                let user = self.users.iter().min_by_key(|(_, entry)| entry.last).map(|(user, _)| *user);
                user.and_then(|user| self.users.remove(&user));
            } else {
                let key = self.keys.iter().min_by_key(|(_, entry)| entry.last).map(|(key, _)| key.clone());
                key.and_then(|key| self.keys.remove(&key));
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
