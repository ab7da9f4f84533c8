//! The second bookkeeping of what is claimed, undone, taken and expired; see [`super::reference`].

use super::reference::{Books, Line, pairs};
use super::*;

/// A claim on a grant, as the events say.
#[derive(Clone, Default, Debug)]
pub(super) struct Claimed {
    claimed: i64,
    voided: i64,
    owed: i64,
    undone: bool,
}

impl Claimed {
    const fn asked(&self) -> i64 {
        if self.undone { 0 } else { self.voided + self.owed }
    }
}

impl Line {
    /// What standing claims have taken or made a debt of.
    pub(super) fn claimed(&self) -> i64 {
        self.claims.values().map(Claimed::asked).sum()
    }
}

impl Books {
    pub(super) fn expire(&mut self, expired: &GrantExpired, at: Timestamp) {
        let came_back = self.came_back.contains(&expired.grant_id);
        let line = self.line(expired.grant_id);
        assert!(line.expires_at.is_some_and(|end| end <= at), "expired before its time");
        assert_eq!(expired.expired_at, line.expires_at.filter(|_| !came_back), "gone before it came back");
        assert!(expired.amount.get() > 0 || !line.end_recorded, "an end was recorded twice for nothing");
        line.end_recorded = true;
        let lasting = line.available.min(line.restored);
        line.available -= expired.amount.get();
        line.expired += expired.amount.get();
        assert!(line.available >= lasting, "what stands for other credit does not run out");
        self.move_unclaimed(expired.asset, -expired.amount.get());
        self.check_available(expired.asset, expired.available_after);
    }

    pub(super) fn void(&mut self, voided: &GrantVoided) {
        let line = self.line(voided.grant_id);
        assert_eq!(voided.amount.get(), line.available.min(voided.claimed.get()), "unspent credit was left");
        line.available -= voided.amount.get();
        line.voided += voided.amount.get();
        let (claimed, voided_amount) = (voided.claimed.get(), voided.amount.get());
        let claim = Claimed { claimed, voided: voided_amount, owed: 0, undone: false };
        assert!(line.claims.insert(voided.source_ref.clone(), claim).is_none(), "claimed twice");
        self.claiming = Some((voided.grant_id, voided.source_ref.clone()));
        self.check_available(voided.asset, voided.available_after);
    }

    pub(super) fn incur(&mut self, incurred: &DebtIncurred) {
        *self.debts.entry(incurred.asset).or_default() += incurred.amount.get();
        assert_eq!(self.debt(incurred.asset), incurred.debt_after.get());
        match incurred.cause {
            DebtCause::Overrun | DebtCause::InboundWithoutCredit => {
                assert_eq!(incurred.meter, self.meter);
                self.move_unclaimed(incurred.asset, -incurred.amount.get());
            }
            DebtCause::Refund | DebtCause::Dispute => {
                assert_eq!(incurred.meter, None);
                let (grant_id, source_ref) = self.claiming.clone().expect("a debt of no claim");
                assert_eq!(incurred.source_ref, source_ref);
                self.line(grant_id).claims.get_mut(&source_ref).unwrap().owed = incurred.amount.get();
            }
        }
    }

    /// At the end of a decision: a claim asked for all it claimed, but for what had expired and was not asked for yet.
    pub(super) fn decided(&mut self) {
        self.came_back.clear();
        let Some((grant_id, source_ref)) = self.claiming.take() else { return };
        let line = self.line(grant_id);
        let new = &line.claims[&source_ref];
        let standing: i64 = line.claims.values().filter(|claim| !claim.undone).map(|claim| claim.claimed).sum();
        let asked_before = line.claimed() - new.asked();
        assert_eq!(new.asked(), new.voided.max(standing - line.expired - asked_before), "{line:?}");
    }

    pub(super) fn restore(&mut self, restored: &GrantRestored) {
        self.came_back.insert(restored.grant_id);
        let debt = self.debt(restored.asset);
        let line = self.line(restored.grant_id);
        let claim = line.claims.get_mut(&restored.source_ref).expect("no claim is undone");
        assert!(!claim.undone, "undone twice");
        let cancelled = claim.owed.min(debt);
        assert_eq!(restored.debt_cancelled.get(), cancelled);
        assert_eq!(restored.amount.get() + cancelled, claim.asked(), "not what the claim took");
        claim.undone = true;
        line.available += restored.amount.get();
        line.voided -= claim.voided;
        line.restored += claim.owed - cancelled;
        *self.debts.entry(restored.asset).or_default() -= cancelled;
        assert_eq!(self.debt(restored.asset), restored.debt_after.get());
        self.check_available(restored.asset, restored.available_after);
    }

    pub(super) fn take(&mut self, taken: &CreditsTaken, at: Timestamp) {
        assert!(self.taken.insert(taken.adjustment_id), "taken twice");
        let parts = pairs(&taken.allocations);
        assert_eq!(parts, self.burn(taken.asset, at, taken.amount.get()), "not the burn order");
        assert_eq!(parts.iter().map(|part| part.1).sum::<i64>(), taken.amount.get());
        for (grant_id, amount) in parts {
            let line = self.line(grant_id);
            line.available -= amount;
            line.taken += amount;
        }
        self.move_unclaimed(taken.asset, -taken.amount.get());
        self.check_available(taken.asset, taken.available_after);
    }
}

/// What an event says was paid for the credit it moves.
pub(super) fn released(event: &WalletEvent) -> &[CostReleased] {
    match event {
        WalletEvent::CreditsDeducted(event) => &event.released,
        WalletEvent::DeductionReversed(event) => &event.released,
        WalletEvent::GrantExpired(event) => &event.released,
        WalletEvent::GrantVoided(event) => &event.released,
        WalletEvent::GrantRestored(event) => &event.released,
        WalletEvent::CreditsTaken(event) => &event.released,
        WalletEvent::DebtRepaid(event) => &event.released,
        WalletEvent::WalletOpened(_)
        | WalletEvent::CreditsGranted(_)
        | WalletEvent::HoldPlaced(_)
        | WalletEvent::UsageRecorded(_)
        | WalletEvent::HoldReleased(_)
        | WalletEvent::DebtIncurred(_)
        | WalletEvent::WalletFrozen(_)
        | WalletEvent::WalletThawed(_) => &[],
    }
}
