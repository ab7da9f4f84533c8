//! A wallet in use: steps as a generator draws them become commands, and every event is checked as it happens.

use super::reference::Books;
use super::*;

/// What a generator draws; numbers pick among what exists by then.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Grant { asset: Asset, kind: GrantKind, amount: i64, priority: i16, age: i64, lasts: Option<i64>, cost: i64 },
    Hold { asset: Asset, amount: i64, lasts: i64 },
    Settle { pick: usize, amount: i64 },
    Release { pick: usize, cause: ReleaseCause },
    Charge { asset: Asset, amount: i64, debt_limit: i64 },
    Reverse { pick: usize, amount: i64 },
    Expire { pick: usize },
    Void { pick: usize, claimed: i64, reference: u8, cause: DebtCause },
    Restore { pick: usize },
    Take { asset: Asset, amount: i64, reason: AdjustmentReason, age: i64 },
    Freeze { cause: FreezeCause },
    Thaw { cause: FreezeCause },
    Clock { seconds: i64 },
    Repeat { pick: usize },
    Twist { pick: usize },
}

/// A wallet, its log, and the second bookkeeping beside it.
pub(super) struct World {
    pub(super) wallet: Wallet,
    pub(super) books: Books,
    pub(super) log: Vec<WalletEvent>,
    accepted: Vec<WalletCommand>,
    pub(super) now: i64,
    next: u64,
    holds: Vec<u64>,
    uses: Vec<u64>,
    grants: Vec<u128>,
    claims: Vec<(u128, u8)>,
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            wallet: Wallet::default(),
            books: Books::default(),
            log: Vec::new(),
            accepted: Vec::new(),
            now: 1,
            next: 1,
            holds: Vec::new(),
            uses: Vec::new(),
            grants: Vec::new(),
            claims: Vec::new(),
        };
        world.run(open());
        world
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Clock { seconds } => self.now = (self.now + seconds).max(0),
            Step::Repeat { pick } => self.repeat(pick),
            Step::Twist { pick } => self.twist(pick),
            other => {
                if let Some(command) = self.resolve(other) {
                    self.run(command);
                }
            }
        }
    }

    fn resolve(&mut self, step: Step) -> Option<WalletCommand> {
        let now = at(self.now);
        let n = self.next;
        self.next += 1;
        Some(match step {
            Step::Grant { asset, kind, amount, priority, age, lasts, cost } => {
                let n = u128::from(n);
                self.grants.push(n);
                let effective = (self.now - age).max(-1_000);
                let expires = lasts.map(|lasts| effective + lasts);
                Grant { n, asset, kind, amount, priority, effective, expires, cost, reason: None, now: self.now }
                    .command()
            }
            Step::Hold { asset, amount, lasts } => {
                self.holds.push(n);
                self.uses.push(n);
                WalletCommand::PlaceHold {
                    hold_id: hold_id(n),
                    asset,
                    amount: units(amount),
                    meter: Meter::Chat,
                    caller: None,
                    terms: CallTerms::default(),
                    usage_id: usage_id(n),
                    admitted_at: now,
                    expires_at: now.plus_seconds(lasts),
                }
            }
            Step::Settle { pick, amount } => {
                let n = self.pick_hold(pick)?;
                let usage = metered(n, amount);
                WalletCommand::SettleHold { hold_id: hold_id(n), usage, amount: units(amount), at: now }
            }
            Step::Release { pick, cause } => {
                let n = self.pick_hold(pick)?;
                WalletCommand::ReleaseHold { hold_id: hold_id(n), cause, at: now }
            }
            Step::Charge { asset, amount, debt_limit } => {
                self.uses.push(n);
                WalletCommand::Charge {
                    usage: metered(n, amount),
                    asset,
                    amount: units(amount),
                    debt_limit: units(debt_limit),
                    debt_cause: DebtCause::InboundWithoutCredit,
                    at: now,
                }
            }
            Step::Reverse { pick, amount } => {
                let usage_id = usage_id(self.pick_use(pick)?);
                WalletCommand::ReverseDeduction { usage_id, amount: units(amount), reason: "wrong".to_owned(), at: now }
            }
            Step::Expire { pick } => {
                WalletCommand::ExpireGrant { grant_id: grant_id(*choose(&self.grants, pick)?), at: now }
            }
            Step::Void { pick, claimed, reference, cause } => {
                let n = *choose(&self.grants, pick)?;
                self.claims.push((n, reference));
                let source_ref = format!("claim:{reference}");
                WalletCommand::VoidGrant { grant_id: grant_id(n), claimed: units(claimed), cause, source_ref, at: now }
            }
            Step::Restore { pick } => {
                let (n, reference) = *choose(&self.claims, pick)?;
                restore_at(n, &format!("claim:{reference}"), self.now)
            }
            Step::Take { asset, amount, reason, age } => WalletCommand::TakeCredits {
                adjustment_id: adjustment_id(n),
                asset,
                amount: units(amount),
                reason,
                effective_at: at(self.now - age),
                at: now,
            },
            Step::Freeze { cause } => WalletCommand::Freeze { cause, source_ref: None },
            Step::Thaw { cause } => WalletCommand::Thaw { cause, source_ref: None },
            Step::Clock { .. } | Step::Repeat { .. } | Step::Twist { .. } => return None,
        })
    }

    /// Mostly an open hold, now and then one that ended or was never placed.
    fn pick_hold(&self, pick: usize) -> Option<u64> {
        let open: Vec<u64> = self.holds.iter().copied().filter(|n| self.wallet.hold(&hold_id(*n)).is_some()).collect();
        let among = if pick.is_multiple_of(4) || open.is_empty() { &self.holds } else { &open };
        choose(among, pick / 4).copied()
    }

    /// Mostly a use that was paid for.
    fn pick_use(&self, pick: usize) -> Option<u64> {
        let paid: Vec<u64> =
            self.uses.iter().copied().filter(|n| self.wallet.ended_use(&usage_id(*n)).is_some()).collect();
        let among = if pick.is_multiple_of(4) || paid.is_empty() { &self.uses } else { &paid };
        choose(among, pick / 4).copied()
    }

    /// Decides, and checks every event as it is folded in.
    fn run(&mut self, command: WalletCommand) {
        let events = match self.wallet.decide(command.clone()) {
            Ok(events) => events,
            Err(WalletRefusal::InsufficientCredit { asset, needed, available, held }) => {
                let debt_limit = match &command {
                    WalletCommand::Charge { debt_limit, .. } => debt_limit.get(),
                    _ => 0,
                };
                let room = (debt_limit - self.books.debt(asset)).max(0);
                let carried = self.books.spendable(asset, at(self.now));
                assert_eq!((available.get(), held.get()), (carried + room, self.books.held(asset)), "{command:?}");
                assert!(needed > available, "refused what could be paid: {command:?}");
                return;
            }
            Err(_) => return,
        };
        for event in &events {
            self.books.fold(event, at(self.now));
            self.wallet.evolve(event);
            self.check();
        }
        self.books.decided();
        for asset in Asset::ALL {
            let (available, debt) = (self.wallet.available(asset), self.wallet.debt(asset));
            assert!(available.is_zero() || debt.is_zero(), "{available} free and {debt} owed: {command:?}");
            let spendable = self.wallet.available_at(asset, at(self.now)).get();
            assert_eq!(spendable, self.books.spendable(asset, at(self.now)), "{command:?}");
        }
        assert_eq!(self.wallet.decide(command.clone()), Ok(Vec::new()), "a repetition is not a no-op: {command:?}");
        self.log.extend(events);
        self.accepted.push(command);
    }

    /// The wallet's state says what the second bookkeeping says.
    fn check(&self) {
        for asset in Asset::ALL {
            assert_eq!(self.wallet.available(asset).get(), self.books.available(asset));
            assert_eq!(self.wallet.held(asset).get(), self.books.held(asset));
            assert_eq!(self.wallet.debt(asset).get(), self.books.debt(asset));
        }
        assert_eq!(self.wallet.open_holds().count(), self.books.holds.len());
        for (id, line) in &self.books.lines {
            let grant = self.wallet.grant(id).expect("a grant is forgotten");
            let state = [grant.amount, grant.available, grant.held, grant.spent(), grant.expired, grant.voided];
            let books = [line.granted, line.available, line.held, line.spent, line.expired, line.voided];
            assert_eq!(state.map(Units::get), books, "{id}");
            assert_eq!([grant.taken, grant.restored].map(Units::get), [line.taken, line.restored], "{id}");
            assert_eq!((grant.asset, grant.deferred().get()), (line.asset, line.owed()), "{id}");
        }
    }

    /// Any command that carries an id may be repeated at any time.
    fn repeat(&mut self, pick: usize) {
        let Some(command) = choose(&self.accepted, pick).filter(|command| has_id(command)) else { return };
        assert_eq!(self.wallet.decide(command.clone()), Ok(Vec::new()), "{command:?}");
    }

    /// The same id with other content is refused, whatever has happened since.
    fn twist(&mut self, pick: usize) {
        let Some(command) = choose(&self.accepted, pick).filter(|command| has_content(command)) else { return };
        let refused = self.wallet.decide(twisted(command.clone()));
        assert!(matches!(refused, Err(WalletRefusal::IdReused { .. })), "{command:?}: {refused:?}");
    }
}

fn choose<T>(among: &[T], pick: usize) -> Option<&T> {
    among.get(pick.checked_rem(among.len())?)
}

/// A use that costs this much, of a meter of its own.
fn metered(n: u64, total: i64) -> UsageRecorded {
    let meter = *choose(&Meter::ALL, usize::try_from(n).unwrap()).unwrap();
    UsageRecorded { meter, ..usage(n, total) }
}

const fn has_id(command: &WalletCommand) -> bool {
    has_content(command) || matches!(command, WalletCommand::RestoreGrant { .. })
}

const fn has_content(command: &WalletCommand) -> bool {
    matches!(
        command,
        WalletCommand::GrantCredits { .. }
            | WalletCommand::PlaceHold { .. }
            | WalletCommand::SettleHold { .. }
            | WalletCommand::Charge { .. }
            | WalletCommand::VoidGrant { .. }
            | WalletCommand::TakeCredits { .. }
    )
}

fn twisted(mut command: WalletCommand) -> WalletCommand {
    match &mut command {
        WalletCommand::GrantCredits { priority, .. } => *priority += 1,
        WalletCommand::PlaceHold { amount, .. } => *amount = amount.saturating_plus(units(1)),
        WalletCommand::SettleHold { usage, .. } | WalletCommand::Charge { usage, .. } => usage.latency_ms += 1,
        WalletCommand::TakeCredits { effective_at, .. } => *effective_at = effective_at.plus_seconds(1),
        WalletCommand::VoidGrant { claimed, .. } => *claimed = claimed.saturating_plus(units(1)),
        _ => {}
    }
    command
}
