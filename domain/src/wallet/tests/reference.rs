//! A second bookkeeping, written from the ledger's rules and not from the wallet's code: it folds the same events into
//! plain sums, so that the two can be held against each other.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::claimed::{Claimed, released};

use super::*;
use crate::book::{self, Account};

/// One grant's line: `granted + restored = available + held + spent + expired + voided + taken`.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) asset: Asset,
    kind: GrantKind,
    priority: i16,
    effective_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    cost: i64,
    pub(super) granted: i64,
    pub(super) available: i64,
    pub(super) held: i64,
    pub(super) spent: i64,
    pub(super) expired: i64,
    pub(super) voided: i64,
    pub(super) taken: i64,
    pub(super) restored: i64,
    pub(super) claims: BTreeMap<String, Claimed>,
    pub(super) end_recorded: bool,
}

impl Line {
    /// What can be spent of it: of a grant whose time has run out only what stands for other grants' credit.
    fn spendable(&self, at: Timestamp) -> i64 {
        if self.expires_at.is_none_or(|end| at < end) { self.available } else { self.available.min(self.restored) }
    }

    /// What is owed of its price: its share of the units that are free or held, any fraction rounded up.
    pub(super) fn owed(&self) -> i64 {
        let left = i128::from((self.available + self.held).min(self.granted));
        let (cost, granted) = (i128::from(self.cost), i128::from(self.granted));
        i64::try_from((cost * left + granted - 1) / granted).unwrap()
    }
}

/// A deduction's original allocations, and how much of it is undone.
#[derive(Clone, Debug)]
struct Spending {
    meter: Meter,
    parts: Vec<(GrantId, i64)>,
    reversed: i64,
}

/// The second bookkeeping.
#[derive(Default, Debug)]
pub(super) struct Books {
    pub(super) lines: BTreeMap<GrantId, Line>,
    pub(super) holds: BTreeMap<HoldId, (Asset, Vec<Allocation>)>,
    ended: BTreeSet<HoldId>,
    expired_holds: BTreeSet<HoldId>,
    spendings: BTreeMap<UsageId, Spending>,
    pub(super) debts: BTreeMap<Asset, i64>,
    pub(super) taken: BTreeSet<AdjustmentId>,
    /// What every use and correction came to, but for claims: `available + held - debt` without any claim.
    unclaimed: BTreeMap<Asset, i64>,
    /// The meter of the use recorded last.
    pub(super) meter: Option<Meter>,
    /// Grants to which credit came back in the decision that is being folded in.
    pub(super) came_back: BTreeSet<GrantId>,
    /// The claim of the decision that is being folded in.
    pub(super) claiming: Option<(GrantId, String)>,
    accounts: BTreeMap<(Asset, Account), i128>,
}

impl Books {
    pub(super) fn available(&self, asset: Asset) -> i64 {
        self.of(asset).map(|line| line.available).sum()
    }

    pub(super) fn debt(&self, asset: Asset) -> i64 {
        self.debts.get(&asset).copied().unwrap_or_default()
    }

    pub(super) fn held(&self, asset: Asset) -> i64 {
        let holds = self.holds.values().filter(|(of, _)| *of == asset);
        holds.flat_map(|(_, parts)| parts).map(|part| part.amount.get()).sum()
    }

    pub(super) fn spendable(&self, asset: Asset, at: Timestamp) -> i64 {
        self.of(asset).map(|line| line.spendable(at)).sum()
    }

    fn of(&self, asset: Asset) -> impl Iterator<Item = &Line> {
        self.lines.values().filter(move |line| line.asset == asset)
    }

    /// Which grants pay, found by asking again and again which of those left burns first.
    pub(super) fn burn(&self, asset: Asset, at: Timestamp, amount: i64) -> Vec<(GrantId, i64)> {
        let mut left: Vec<_> =
            self.lines.iter().filter(|(_, line)| line.asset == asset && line.spendable(at) > 0).collect();
        let (mut burnt, mut needed) = (Vec::new(), amount);
        while needed > 0 && !left.is_empty() {
            let mut first = 0;
            for other in 1..left.len() {
                if burns_before(left[other], left[first]) {
                    first = other;
                }
            }
            let (id, line) = left.swap_remove(first);
            let part = line.spendable(at).min(needed);
            burnt.push((*id, part));
            needed -= part;
        }
        burnt
    }

    /// Folds one event in, checking on the way whatever a single event must keep to.
    pub(super) fn fold(&mut self, event: &WalletEvent, at: Timestamp) {
        self.post(event);
        let owed: Vec<_> = self.lines.iter().map(|(id, line)| (*id, line.owed())).collect();
        match event {
            WalletEvent::WalletOpened(_) | WalletEvent::WalletFrozen(_) | WalletEvent::WalletThawed(_) => {}
            WalletEvent::UsageRecorded(usage) => self.meter = Some(usage.meter),
            WalletEvent::CreditsGranted(granted) => self.grant(granted),
            WalletEvent::HoldPlaced(placed) => self.hold(placed, at),
            WalletEvent::CreditsDeducted(deducted) => self.deduct(deducted, at),
            WalletEvent::HoldReleased(released) => {
                let (_, parts) = self.end(released.hold_id, released.cause == ReleaseCause::Expired);
                assert_eq!(sum(&parts), released.amount.get());
                assert_eq!(released.returned_to, parts);
                self.check_available(released.asset, released.available_after);
            }
            WalletEvent::DeductionReversed(reversed) => self.reverse(reversed),
            WalletEvent::GrantExpired(expired) => self.expire(expired, at),
            WalletEvent::GrantVoided(voided) => self.void(voided),
            WalletEvent::GrantRestored(restored) => self.restore(restored),
            WalletEvent::CreditsTaken(taken) => self.take(taken, at),
            WalletEvent::DebtIncurred(incurred) => self.incur(incurred),
            WalletEvent::DebtRepaid(repaid) => {
                if self.claiming.is_some() {
                    let first = self.burn(repaid.asset, at, repaid.amount.get());
                    assert_eq!(first, [(repaid.grant_id, repaid.amount.get())], "not the burn order");
                }
                let line = self.line(repaid.grant_id);
                line.available -= repaid.amount.get();
                line.spent += repaid.amount.get();
                *self.debts.entry(repaid.asset).or_default() -= repaid.amount.get();
                assert_eq!(self.debt(repaid.asset), repaid.debt_after.get());
                self.check_available(repaid.asset, repaid.available_after);
            }
        }
        self.check();
        self.check_released(&owed, event);
    }

    fn grant(&mut self, granted: &CreditsGranted) {
        let line = Line {
            asset: granted.asset,
            kind: granted.kind,
            priority: granted.priority,
            effective_at: granted.effective_at,
            expires_at: granted.expires_at,
            cost: granted.cost_basis.get(),
            granted: granted.amount.get(),
            available: granted.amount.get(),
            held: 0,
            spent: 0,
            expired: 0,
            voided: 0,
            taken: 0,
            restored: 0,
            claims: BTreeMap::new(),
            end_recorded: false,
        };
        self.move_unclaimed(granted.asset, granted.amount.get());
        assert!(self.lines.insert(granted.grant_id, line).is_none(), "granted twice");
        self.check_available(granted.asset, granted.available_after);
    }

    fn hold(&mut self, placed: &HoldPlaced, at: Timestamp) {
        assert_eq!(pairs(&placed.allocations), self.burn(placed.asset, at, placed.amount.get()), "not the burn order");
        assert_eq!(sum(&placed.allocations), placed.amount.get());
        for part in &placed.allocations {
            let line = self.line(part.grant_id);
            line.available -= part.amount.get();
            line.held += part.amount.get();
        }
        assert!(!self.ended.contains(&placed.hold_id), "placed again after its end");
        let known = self.holds.insert(placed.hold_id, (placed.asset, placed.allocations.clone()));
        assert!(known.is_none(), "placed twice");
        self.check_available(placed.asset, placed.available_after);
    }

    fn deduct(&mut self, deducted: &CreditsDeducted, at: Timestamp) {
        let before = self.available(deducted.asset);
        let mut parts = Vec::new();
        if let Some(hold_id) = deducted.hold_id.filter(|hold_id| self.holds.contains_key(hold_id)) {
            // What is beyond the hold burns while the hold still keeps its own.
            let held = sum(&self.holds[&hold_id].1);
            let beyond = self.burn(deducted.asset, at, (deducted.amount.get() - held).max(0));
            let pinned = self.end(hold_id, false).1;
            parts = cut(&pairs(&pinned), deducted.amount.get());
            // What is not spent goes back where it came from: put behind what is, it makes the whole hold again.
            let mut whole = parts.clone();
            join(&mut whole, pairs(&deducted.returned_to));
            assert_eq!(whole, pairs(&pinned), "not what was held");
            join(&mut parts, beyond);
            assert!(deducted.amount.get() <= held + before, "settled more than held and available");
            assert_eq!((deducted.held.get(), deducted.returned.get()), (held, (held - deducted.amount.get()).max(0)));
        } else {
            if let Some(hold_id) = deducted.hold_id {
                assert!(self.expired_holds.remove(&hold_id), "settled a hold that had ended");
            }
            parts.extend(self.burn(deducted.asset, at, deducted.amount.get()));
            assert_eq!((deducted.held, deducted.returned), (Units::ZERO, Units::ZERO));
            assert_eq!(deducted.returned_to, []);
        }
        assert_eq!(pairs(&deducted.allocations), parts, "not the burn order");
        assert_eq!(sum(&deducted.allocations), deducted.amount.get());
        for (grant_id, amount) in &parts {
            let line = self.line(*grant_id);
            line.available -= amount;
            line.spent += amount;
        }
        assert_eq!(Some(deducted.meter), self.meter);
        self.move_unclaimed(deducted.asset, -deducted.amount.get());
        let spending = Spending { meter: deducted.meter, parts, reversed: 0 };
        let spent_before = self.spendings.insert(deducted.usage_id, spending);
        assert!(spent_before.is_none(), "deducted twice for one use");
        self.check_available(deducted.asset, deducted.available_after);
    }

    fn reverse(&mut self, reversed: &DeductionReversed) {
        let spending = self.spendings.get_mut(&reversed.usage_id).expect("nothing was deducted");
        assert_eq!(reversed.meter, spending.meter);
        let original: i64 = spending.parts.iter().map(|part| part.1).sum();
        let stood = cut(&spending.parts, original - spending.reversed);
        spending.reversed += reversed.amount.get();
        let stands = cut(&spending.parts, original - spending.reversed);
        // What still stands is a prefix of the original: put what was undone behind it, and the rest is there again.
        let mut whole = stands;
        join(&mut whole, pairs(&reversed.allocations).into_iter().rev());
        assert_eq!(whole, stood, "the reversal is no suffix");
        for part in &reversed.allocations {
            self.came_back.insert(part.grant_id);
            let line = self.line(part.grant_id);
            line.available += part.amount.get();
            line.spent -= part.amount.get();
        }
        self.move_unclaimed(reversed.asset, reversed.amount.get());
        self.check_available(reversed.asset, reversed.available_after);
    }

    fn end(&mut self, hold_id: HoldId, expired: bool) -> (Asset, Vec<Allocation>) {
        let hold = self.holds.remove(&hold_id).expect("ended a hold that is not open");
        assert!(self.ended.insert(hold_id), "a hold ended twice");
        if expired {
            self.expired_holds.insert(hold_id);
        }
        for part in &hold.1 {
            self.came_back.insert(part.grant_id);
            let line = self.line(part.grant_id);
            line.held -= part.amount.get();
            line.available += part.amount.get();
        }
        hold
    }

    /// Keeps the accounts of the book, from the mapping under test.
    fn post(&mut self, event: &WalletEvent) {
        let entries = book::wallet_entries(tenant(), event).unwrap_or_else(|error| panic!("{error}: {event:?}"));
        for entry in entries {
            assert_eq!(entry.postings.iter().map(|posting| posting.amount).sum::<i128>(), 0, "unbalanced: {event:?}");
            for posting in entry.postings {
                *self.accounts.entry((entry.asset, posting.account)).or_default() += posting.amount;
            }
        }
    }

    /// What must hold after every event.
    fn check(&self) {
        for (id, line) in &self.lines {
            let parts = [line.available, line.held, line.spent, line.expired, line.voided, line.taken];
            assert!(parts.into_iter().all(|part| part >= 0), "{id}: {line:?}");
            assert_eq!(parts.into_iter().sum::<i64>(), line.granted + line.restored, "{id}: {line:?}");
            let account = Account::Available(tenant(), *id);
            assert_eq!(self.account(line.asset, account), -i128::from(line.available), "{id}");
        }
        for kind in GrantKind::ALL {
            let owed: i64 = self.lines.values().filter(|line| line.kind == kind).map(Line::owed).sum();
            assert_eq!(self.account(Asset::Usd, Account::Deferred(kind)), -i128::from(owed), "{kind:?}");
        }
        for asset in Asset::ALL {
            assert!(self.debt(asset) >= 0);
            // As if claims that are undone had never been: only those that stand count.
            let claimed: i64 = self.of(asset).map(Line::claimed).sum();
            let unclaimed = self.unclaimed.get(&asset).copied().unwrap_or_default();
            assert_eq!(self.available(asset) + self.held(asset) - self.debt(asset), unclaimed - claimed);
            assert_eq!(self.of(asset).map(|line| line.held).sum::<i64>(), self.held(asset));
            let trial: i128 = self.accounts.iter().filter(|((of, _), _)| *of == asset).map(|(_, sum)| sum).sum();
            assert_eq!(trial, 0, "the trial balance is off");
            assert_eq!(self.account(asset, Account::Debt(tenant())), i128::from(self.debt(asset)));
        }
        for ((asset, account), balance) in &self.accounts {
            if let Account::Held(_, hold_id) = account {
                let held = self.holds.get(hold_id).map_or(0, |(_, parts)| sum(parts));
                assert_eq!(*balance, -i128::from(held), "{asset} {account}");
            }
        }
    }

    fn account(&self, asset: Asset, account: Account) -> i128 {
        self.accounts.get(&(asset, account)).copied().unwrap_or_default()
    }

    pub(super) fn check_available(&self, asset: Asset, stated: Units) {
        assert_eq!(self.available(asset), stated.get(), "the running balance is off");
    }

    /// The price of what is gone is released, kind by kind, and nothing else.
    fn check_released(&self, owed_before: &[(GrantId, i64)], event: &WalletEvent) {
        let mut expected = BTreeMap::<GrantKind, i64>::new();
        for (id, owed) in owed_before {
            let line = &self.lines[id];
            *expected.entry(line.kind).or_default() += owed - line.owed();
        }
        if let WalletEvent::CreditsGranted(_) = event {
            assert!(expected.values().all(|amount| *amount == 0), "a grant changed another");
            return;
        }
        expected.retain(|_, amount| *amount != 0);
        let stated = released(event);
        let by_kind: BTreeMap<_, _> = stated.iter().map(|part| (part.kind, part.amount.get())).collect();
        assert_eq!(by_kind.len(), stated.len(), "a kind is named twice: {event:?}");
        assert_eq!(by_kind, expected, "{event:?}");
    }

    pub(super) fn move_unclaimed(&mut self, asset: Asset, amount: i64) {
        *self.unclaimed.entry(asset).or_default() += amount;
    }

    pub(super) fn line(&mut self, grant_id: GrantId) -> &mut Line {
        self.lines.get_mut(&grant_id).expect("an event names a grant that was never granted")
    }
}

/// The rule as the ledger states it, as a chain of questions.
fn burns_before((id, line): (&GrantId, &Line), (other_id, other): (&GrantId, &Line)) -> bool {
    if line.priority != other.priority {
        return line.priority < other.priority;
    }
    if line.expires_at != other.expires_at {
        return match (line.expires_at, other.expires_at) {
            (Some(end), Some(other_end)) => end < other_end,
            (Some(_), None) => true,
            (None, _) => false,
        };
    }
    match compare_fractions((line.cost, line.granted), (other.cost, other.granted)) {
        Ordering::Less => return true,
        Ordering::Greater => return false,
        Ordering::Equal => {}
    }
    if line.effective_at != other.effective_at {
        return line.effective_at < other.effective_at;
    }
    id.0.as_bytes() < other_id.0.as_bytes()
}

/// Compares two fractions by their continued expansions, without a product that could overflow.
pub(super) fn compare_fractions(one: (i64, i64), other: (i64, i64)) -> Ordering {
    let whole = (one.0 / one.1).cmp(&(other.0 / other.1));
    let (rest, other_rest) = (one.0 % one.1, other.0 % other.1);
    match (whole, rest, other_rest) {
        (Ordering::Less | Ordering::Greater, _, _) => whole,
        (Ordering::Equal, 0, 0) => Ordering::Equal,
        (Ordering::Equal, 0, _) => Ordering::Less,
        (Ordering::Equal, _, 0) => Ordering::Greater,
        // Of two proper fractions the one with the smaller reciprocal is larger.
        (Ordering::Equal, _, _) => compare_fractions((other.1, other_rest), (one.1, rest)),
    }
}

pub(super) fn pairs(parts: &[Allocation]) -> Vec<(GrantId, i64)> {
    parts.iter().map(|part| (part.grant_id, part.amount.get())).collect()
}

/// Puts parts behind others, a part of the same grant onto the one before it.
fn join(parts: &mut Vec<(GrantId, i64)>, more: impl IntoIterator<Item = (GrantId, i64)>) {
    for (grant_id, amount) in more {
        match parts.last_mut() {
            Some(last) if last.0 == grant_id => last.1 += amount,
            Some(_) | None => parts.push((grant_id, amount)),
        }
    }
}

fn sum(parts: &[Allocation]) -> i64 {
    parts.iter().map(|part| part.amount.get()).sum()
}

/// The first `amount` of these parts.
fn cut(parts: &[(GrantId, i64)], amount: i64) -> Vec<(GrantId, i64)> {
    let mut left = amount;
    let mut first = Vec::new();
    for (id, part) in parts {
        let taken = (*part).min(left);
        left -= taken;
        if taken > 0 {
            first.push((*id, taken));
        }
    }
    first
}
