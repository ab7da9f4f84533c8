//! Whether the model refuses a command, and why, or has nothing to do; what it changes is told in [`super::rules`].

use calos_domain::wallet::{FreezeCause, ReleaseCause, UsageRecorded, WalletCommand};
use calos_domain::{Asset, GrantId, HoldId, Timestamp, Units, UsageId};
use uuid::Uuid;

use super::figures::{Sum, sum};
use super::model::{Model, Standing, Verdict, Why};
use super::recorded::wide;

use Verdict::{Changes, Nothing};

/// How far an effective date may lie ahead of the command's moment, in microseconds.
pub(super) const AHEAD_MAX_MICROS: i64 = 300_000_000;

const fn refused(why: Why) -> Verdict {
    Verdict::Refused(why)
}

/// The same content changes nothing, other content is refused.
const fn repeated(same: bool) -> Verdict {
    if same { Nothing } else { refused(Why::IdReused) }
}

const fn either(changes: bool) -> Verdict {
    if changes { Changes } else { Nothing }
}

/// Without a reference a thaw is of the cause as a whole.
pub fn thaws(cause: FreezeCause, source_ref: Option<&String>, known: &(FreezeCause, Option<String>)) -> bool {
    known.0 == cause && (source_ref.is_none() || known.1.as_ref() == source_ref)
}

impl Model {
    /// What the command comes to.
    pub fn judge(&self, command: &WalletCommand) -> Verdict {
        if let WalletCommand::OpenWallet { .. } = command {
            return either(!self.open);
        }
        match command {
            WalletCommand::OpenWallet { .. } => Nothing,
            WalletCommand::GrantCredits { .. } => self.judge_grant(command),
            WalletCommand::PlaceHold { .. } => self.judge_hold(command),
            WalletCommand::SettleHold { hold_id, usage, amount, .. } => self.judge_settle(hold_id, usage, *amount),
            WalletCommand::ReleaseHold { hold_id, cause, at } => self.judge_release(hold_id, *cause, *at),
            WalletCommand::Charge { usage, asset, amount, debt_limit, at, .. } => {
                self.judge_charge(usage, *asset, *amount, *debt_limit, *at)
            }
            WalletCommand::ReverseDeduction { usage_id, amount, .. } => self.judge_reverse(usage_id, wide(*amount)),
            WalletCommand::ExpireGrant { grant_id, at } => self.judge_expire(grant_id, *at),
            WalletCommand::VoidGrant { grant_id, claimed, source_ref, .. } => {
                self.judge_void(grant_id, wide(*claimed), source_ref)
            }
            WalletCommand::RestoreGrant { grant_id, source_ref, .. } => self.judge_restore(grant_id, source_ref),
            WalletCommand::TakeCredits { adjustment_id, asset, amount, reason, effective_at, at } => {
                let content = (*asset, wide(*amount), effective_at.micros(), reason.as_str());
                let free = self.spendable(*asset, at.micros());
                match self.takings.get(adjustment_id) {
                    Some(known) => repeated(*known == content),
                    None if content.1 < 1 => refused(Why::TooSmall),
                    None if content.1 > free => refused(Why::Insufficient(free)),
                    None => Changes,
                }
            }
            WalletCommand::Freeze { cause, source_ref } => {
                either(!self.figures.frozen.contains(&(*cause, source_ref.clone())))
            }
            WalletCommand::Thaw { cause, source_ref } => {
                either(self.figures.frozen.iter().any(|known| thaws(*cause, source_ref.as_ref(), known)))
            }
        }
    }

    fn judge_grant(&self, command: &WalletCommand) -> Verdict {
        let WalletCommand::GrantCredits {
            grant_id,
            asset,
            kind,
            amount,
            priority,
            effective_at,
            expires_at,
            cost_basis,
            source_ref,
            at,
            ..
        } = command
        else {
            return Nothing;
        };
        if let (Some(terms), Some(line)) = (self.terms.get(grant_id), self.figures.lines.get(grant_id)) {
            let same = (line.asset, line.granted, terms.kind, terms.priority, terms.cost)
                == (*asset, wide(*amount), *kind, *priority, Sum::from(cost_basis.get()))
                && (terms.effective, terms.expires) == (effective_at.micros(), expires_at.map(Timestamp::micros))
                && terms.source_ref == *source_ref;
            return repeated(same);
        }
        if amount.get() < 1 || cost_basis.get() < 0 {
            return refused(Why::TooSmall);
        }
        let ahead = effective_at.micros() > at.micros() + AHEAD_MAX_MICROS;
        if ahead || expires_at.is_some_and(|end| end <= *effective_at) {
            return refused(Why::Other("impossible term".to_owned()));
        }
        Changes
    }

    fn judge_hold(&self, command: &WalletCommand) -> Verdict {
        let WalletCommand::PlaceHold { hold_id, asset, amount, meter, usage_id, admitted_at, .. } = command else {
            return Nothing;
        };
        if let Some(known) = self.holds.get(hold_id) {
            let placed = self.uses.get(known).and_then(|known| known.hold.as_ref()).map(|hold| hold.1);
            let same = placed
                .is_some_and(|placed| (placed.asset, placed.amount, placed.meter) == (*asset, wide(*amount), *meter));
            return repeated(same && known == usage_id);
        }
        if self.knows(hold_id.0) || self.knows(usage_id.0) {
            return refused(Why::IdReused);
        }
        if !self.figures.frozen.is_empty() {
            return refused(Why::Frozen);
        }
        if amount.get() < 0 {
            return refused(Why::TooSmall);
        }
        let free = self.spendable(*asset, admitted_at.micros());
        if wide(*amount) > free { refused(Why::Insufficient(free)) } else { Changes }
    }

    fn knows(&self, id: Uuid) -> bool {
        self.uses.contains_key(&UsageId(id)) || self.holds.contains_key(&HoldId(id))
    }

    fn judge_settle(&self, hold_id: &HoldId, usage: &UsageRecorded, amount: Units) -> Verdict {
        let Some(known) = self.use_of(hold_id) else { return refused(Why::NoSuchHold) };
        match &known.standing {
            Standing::Spent(spent) => repeated(spent.usage == *usage && spent.asked == wide(amount)),
            Standing::Open | Standing::Released(ReleaseCause::Expired) if amount.get() < 0 => refused(Why::TooSmall),
            Standing::Open | Standing::Released(ReleaseCause::Expired) => Changes,
            Standing::Released(_) => refused(Why::HoldEnded),
        }
    }

    fn judge_release(&self, hold_id: &HoldId, cause: ReleaseCause, at: Timestamp) -> Verdict {
        let Some(known) = self.use_of(hold_id) else { return refused(Why::NoSuchHold) };
        let early = known.hold.as_ref().is_some_and(|(_, placed)| at.micros() < placed.expires);
        match &known.standing {
            Standing::Open if cause == ReleaseCause::Expired && early => refused(Why::NotDue),
            Standing::Open => Changes,
            Standing::Released(before) if *before == cause => Nothing,
            Standing::Released(_) | Standing::Spent(_) => refused(Why::HoldEnded),
        }
    }

    fn judge_charge(
        &self,
        usage: &UsageRecorded,
        asset: Asset,
        amount: Units,
        debt_limit: Units,
        at: Timestamp,
    ) -> Verdict {
        if let Some(known) = self.uses.get(&usage.usage_id) {
            return match &known.standing {
                Standing::Spent(spent) => {
                    let same = known.hold.is_none() && known.asset == asset;
                    repeated(same && spent.usage == *usage && spent.asked == wide(amount))
                }
                Standing::Open | Standing::Released(_) => refused(Why::IdReused),
            };
        }
        if self.knows(usage.usage_id.0) {
            return refused(Why::IdReused);
        }
        if !self.figures.frozen.is_empty() {
            return refused(Why::Frozen);
        }
        if amount.get() < 0 {
            return refused(Why::TooSmall);
        }
        let room = (wide(debt_limit) - self.figures.debt(asset)).max(0);
        let reach = self.spendable(asset, at.micros()) + room;
        if wide(amount) > reach { refused(Why::Insufficient(reach)) } else { Changes }
    }

    fn judge_reverse(&self, usage_id: &UsageId, amount: Sum) -> Verdict {
        if amount < 1 {
            return refused(Why::TooSmall);
        }
        let Some(Standing::Spent(spent)) = self.uses.get(usage_id).map(|known| &known.standing) else {
            return refused(Why::NoSuchUse);
        };
        if amount > sum(&spent.drawn) || amount < spent.reversed {
            return refused(Why::OutOfBounds);
        }
        either(amount > spent.reversed)
    }

    fn judge_expire(&self, grant_id: &GrantId, at: Timestamp) -> Verdict {
        let (Some(terms), Some(asset)) =
            (self.terms.get(grant_id), self.figures.lines.get(grant_id).map(|line| line.asset))
        else {
            return refused(Why::NoSuchGrant);
        };
        if !terms.lapsed(at.micros()) {
            return refused(Why::NotDue);
        }
        let lapsing = self.figures.available(asset) - self.spendable(asset, at.micros());
        either(lapsing > 0 || !terms.expiry_recorded)
    }

    fn judge_void(&self, grant_id: &GrantId, claimed: Sum, source_ref: &str) -> Verdict {
        if claimed < 1 {
            return refused(Why::TooSmall);
        }
        let (Some(terms), Some(line)) = (self.terms.get(grant_id), self.figures.lines.get(grant_id)) else {
            return refused(Why::NoSuchGrant);
        };
        if let Some(known) = terms.claims.iter().find(|claim| claim.source_ref == source_ref) {
            return repeated(known.claimed == claimed);
        }
        if claimed > line.granted - terms.claimed() { refused(Why::ClaimTooLarge) } else { Changes }
    }

    fn judge_restore(&self, grant_id: &GrantId, source_ref: &str) -> Verdict {
        let Some(terms) = self.terms.get(grant_id) else { return refused(Why::NoSuchGrant) };
        match terms.claims.iter().find(|claim| claim.source_ref == source_ref) {
            None => refused(Why::NoSuchClaim),
            Some(claim) => either(!claim.undone),
        }
    }
}
