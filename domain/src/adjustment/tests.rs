//! Given what happened, when this is asked, then these events follow, or this refusal.

use uuid::Uuid;

use super::limits::two_approvals_limit;
use super::*;
use crate::wallet::AdjustmentReason;
use crate::{AdjustmentId, Asset, Decider, GrantId, TenantId, Timestamp, Units, UserId};

const AT: Timestamp = Timestamp::from_micros(1_793_750_400_000_000);
const AUTHOR: UserId = UserId(Uuid::from_u128(1));
const ONE: UserId = UserId(Uuid::from_u128(2));
const OTHER: UserId = UserId(Uuid::from_u128(3));
const THIRD: UserId = UserId(Uuid::from_u128(4));
/// A UUIDv7 of 2024.
const ID: AdjustmentId = AdjustmentId(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0007));
const GRANT: GrantId = GrantId(Uuid::from_u128(9));

fn proposal(asset: Asset, amount: i64) -> Proposal {
    Proposal {
        adjustment_id: ID,
        tenant_id: TenantId(Uuid::from_u128(8)),
        asset,
        amount: Units::new(amount),
        reason: AdjustmentReason::BillingError,
        evidence: "ticket:4711".to_owned(),
        effective_at: AT,
    }
}

fn propose(proposal: Proposal) -> AdjustmentCommand {
    AdjustmentCommand::Propose { proposal, by: AUTHOR, at: AT }
}

fn approve(by: UserId) -> AdjustmentCommand {
    AdjustmentCommand::Approve { by, at: AT.plus_seconds(60) }
}

fn reject(by: UserId) -> AdjustmentCommand {
    AdjustmentCommand::Reject { by, reason: "the invoice was right".to_owned(), at: AT.plus_seconds(60) }
}

fn apply() -> AdjustmentCommand {
    AdjustmentCommand::Apply { grant_id: Some(GRANT), at: AT.plus_seconds(60) }
}

fn lapse(seconds: i64) -> AdjustmentCommand {
    AdjustmentCommand::Lapse { at: AT.plus_seconds(seconds) }
}

/// An adjustment on which all of this was decided.
fn given(commands: &[AdjustmentCommand]) -> Adjustment {
    let mut adjustment = Adjustment::default();
    for command in commands {
        for event in adjustment.decide(command.clone()).unwrap() {
            adjustment.evolve(&event);
        }
    }
    adjustment
}

/// One of $12.50, which a single approval is enough for.
fn small(rest: &[AdjustmentCommand]) -> Adjustment {
    given(&[&[propose(proposal(Asset::Usd, 12_500_000))], rest].concat())
}

/// One of 900 credits taken, which takes two.
fn large(rest: &[AdjustmentCommand]) -> Adjustment {
    given(&[&[propose(proposal(Asset::Credit, -900))], rest].concat())
}

#[test]
fn a_proposal_says_how_many_must_approve_it_and_until_when() {
    let cases = [
        (Asset::Usd, 1, 1),
        (Asset::Usd, 50_000_000, 1),
        (Asset::Usd, 50_000_001, 2),
        (Asset::Usd, -1_000_000_000, 2),
        (Asset::Credit, -500, 1),
        (Asset::Credit, 501, 2),
        (Asset::Credit, 10_000, 2),
    ];
    for (asset, amount, approvals_needed) in cases {
        let events = Adjustment::default().decide(propose(proposal(asset, amount))).unwrap();
        let [AdjustmentEvent::AdjustmentProposed(proposed)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(proposed.approvals_needed, approvals_needed, "{amount} {asset}");
        assert_eq!(proposed.lapses_at, AT.plus_seconds(7 * 24 * 60 * 60));
        assert_eq!((proposed.proposed_by, proposed.proposed_at), (AUTHOR, AT));
    }
}

#[test]
fn an_amount_over_the_limit_is_refused_with_the_limit() {
    for (asset, amount) in [
        (Asset::Usd, 1_000_000_001),
        (Asset::Usd, -1_000_000_001),
        (Asset::Usd, i64::MIN),
        (Asset::Credit, 10_001),
        (Asset::Credit, i64::MAX),
    ] {
        let limit = two_approvals_limit(asset);
        let refusal = AdjustmentRefusal::OverLimit { asset, amount: Units::new(amount), limit };
        assert_eq!(Adjustment::default().decide(propose(proposal(asset, amount))), Err(refusal));
    }
    let nothing = Adjustment::default().decide(propose(proposal(Asset::Usd, 0)));
    assert_eq!(nothing, Err(AdjustmentRefusal::Nothing));
}

#[test]
fn a_proposal_without_evidence_or_from_a_time_to_come_is_refused() {
    for (evidence, bytes) in [(String::new(), 0), ("  ".to_owned(), 2), ("x".repeat(1_001), 1_001)] {
        let refused = Adjustment::default().decide(propose(Proposal { evidence, ..proposal(Asset::Usd, 1) }));
        let refusal = AdjustmentRefusal::BadText { field: "the evidence", bytes, limit: EVIDENCE_MAX_BYTES };
        assert_eq!(refused, Err(refusal));
    }
    let effective_at = Timestamp::from_micros(AT.micros() + 1);
    let refused = Adjustment::default().decide(propose(Proposal { effective_at, ..proposal(Asset::Usd, 1) }));
    assert_eq!(refused, Err(AdjustmentRefusal::NotYetEffective { effective_at, at: AT }));
}

#[test]
fn an_id_the_wallet_would_not_take_is_refused_at_once() {
    let of_a_moment = |micros: i64| (i128::from(micros / 1_000).cast_unsigned() << 80) | (7 << 76) | (0b10 << 62);
    let (random, ahead) = (0x4000_8000_0000_0000_0000, of_a_moment(AT.plus_seconds(301).micros()));
    for id in [0, random, ahead] {
        let id = AdjustmentId(Uuid::from_u128(id));
        let refused = Adjustment::default().decide(propose(Proposal { adjustment_id: id, ..proposal(Asset::Usd, 1) }));
        assert_eq!(refused, Err(AdjustmentRefusal::BadId { id, at: AT }));
    }
    let id = AdjustmentId(Uuid::from_u128(of_a_moment(AT.plus_seconds(299).micros())));
    assert!(Adjustment::default().decide(propose(Proposal { adjustment_id: id, ..proposal(Asset::Usd, 1) })).is_ok());
}

#[test]
fn the_same_proposal_again_changes_nothing_and_another_under_its_id_is_refused() {
    let adjustment = small(&[]);
    let again =
        AdjustmentCommand::Propose { proposal: proposal(Asset::Usd, 12_500_000), by: AUTHOR, at: AT.plus_seconds(5) };
    assert_eq!(adjustment.decide(again), Ok(Vec::new()));
    let reused = Err(AdjustmentRefusal::IdReused(ID));
    let base = || proposal(Asset::Usd, 12_500_000);
    for other in [
        proposal(Asset::Usd, 12_500_001),
        Proposal { asset: Asset::Credit, amount: Units::new(1), ..base() },
        Proposal { reason: AdjustmentReason::Goodwill, ..base() },
        Proposal { evidence: "ticket:1".to_owned(), ..base() },
        Proposal { effective_at: Timestamp::from_micros(1), ..base() },
        Proposal { tenant_id: TenantId(Uuid::from_u128(1)), ..base() },
    ] {
        assert_eq!(adjustment.decide(propose(other)), reused);
    }
    let by_another = AdjustmentCommand::Propose { proposal: base(), by: ONE, at: AT };
    assert_eq!(adjustment.decide(by_another), reused);
}

#[test]
fn nobody_approves_their_own_adjustment() {
    assert_eq!(small(&[]).decide(approve(AUTHOR)), Err(AdjustmentRefusal::OwnProposal));
    assert_eq!(large(&[approve(ONE)]).decide(approve(AUTHOR)), Err(AdjustmentRefusal::OwnProposal));
}

#[test]
fn a_small_one_takes_one_other_person_and_a_large_one_two_different_ones() {
    assert!(small(&[]).ready().is_none());
    assert!(small(&[approve(ONE)]).ready().is_some());
    let half = large(&[approve(ONE)]);
    assert!(half.ready().is_none());
    assert_eq!(half.decide(approve(ONE)), Err(AdjustmentRefusal::ApprovedBefore { approvals: 1, needed: 2 }));
    assert_eq!(half.decide(apply()), Err(AdjustmentRefusal::NotApproved { approvals: 1, needed: 2 }));
    assert!(large(&[approve(ONE), approve(OTHER)]).ready().is_some());
}

#[test]
fn an_approved_one_is_applied_once_and_then_left_alone() {
    let approved = small(&[approve(ONE)]);
    let applied = AdjustmentApplied { at: AT.plus_seconds(60), grant_id: Some(GRANT) };
    assert_eq!(approved.decide(apply()), Ok(vec![AdjustmentEvent::AdjustmentApplied(applied)]));
    let done = small(&[approve(ONE), apply()]);
    assert!(done.ready().is_none());
    let at = AT.plus_seconds(60);
    assert_eq!(done.status(), AdjustmentStatus::Applied { at, grant_id: Some(GRANT) });
    for command in [approve(OTHER), reject(OTHER), apply()] {
        assert_eq!(done.decide(command), Err(AdjustmentRefusal::Applied { at }));
    }
    assert_eq!(done.decide(lapse(8 * 24 * 60 * 60)), Ok(Vec::new()));
}

#[test]
fn a_rejected_one_stays_rejected() {
    for by in [ONE, AUTHOR] {
        let at = AT.plus_seconds(60);
        let rejected = large(&[approve(OTHER), reject(by)]);
        assert_eq!(rejected.status(), AdjustmentStatus::Rejected { by, at });
        for command in [approve(THIRD), reject(THIRD), apply()] {
            assert_eq!(rejected.decide(command), Err(AdjustmentRefusal::Rejected { at }));
        }
        assert_eq!(rejected.decide(lapse(8 * 24 * 60 * 60)), Ok(Vec::new()));
    }
}

#[test]
fn a_rejection_says_why() {
    for (reason, bytes) in [(String::new(), 0), ("y".repeat(501), 501)] {
        let refusal = AdjustmentRefusal::BadText { field: "the reason", bytes, limit: REJECTION_MAX_BYTES };
        let refused = small(&[]).decide(AdjustmentCommand::Reject { by: ONE, reason, at: AT });
        assert_eq!(refused, Err(refusal));
    }
}

#[test]
fn nothing_is_decided_after_seven_days_whether_or_not_the_lapse_is_recorded() {
    let week = 7 * 24 * 60 * 60;
    let lapsed_at = AT.plus_seconds(week);
    let late = |by| AdjustmentCommand::Approve { by, at: lapsed_at };
    let in_time = AdjustmentCommand::Approve { by: ONE, at: Timestamp::from_micros(lapsed_at.micros() - 1) };
    assert!(small(&[]).decide(in_time).is_ok());
    let late_rejection = AdjustmentCommand::Reject { by: ONE, reason: "no".to_owned(), at: lapsed_at };
    let late_application = AdjustmentCommand::Apply { grant_id: None, at: lapsed_at };
    for (adjustment, command) in [
        (small(&[]), late(ONE)),
        (small(&[]), late_rejection),
        (small(&[approve(ONE)]), late_application),
        (small(&[lapse(week)]), late(ONE)),
        (small(&[lapse(week)]), approve(ONE)),
    ] {
        assert_eq!(adjustment.decide(command), Err(AdjustmentRefusal::Lapsed { lapsed_at }));
    }
    let event = AdjustmentEvent::AdjustmentLapsed(AdjustmentLapsed { at: AT.plus_seconds(week + 5) });
    assert_eq!(small(&[]).decide(lapse(week + 5)), Ok(vec![event]));
    assert_eq!(small(&[lapse(week)]).decide(lapse(week)), Ok(Vec::new()));
    let early = AT.plus_seconds(week - 1);
    let refusal = AdjustmentRefusal::NotDue { lapses_at: lapsed_at, at: early };
    assert_eq!(small(&[]).decide(lapse(week - 1)), Err(refusal));
}

#[test]
fn what_was_never_proposed_is_not_decided_on() {
    for command in [approve(ONE), reject(ONE), apply(), lapse(0)] {
        assert_eq!(Adjustment::default().decide(command), Err(AdjustmentRefusal::NotProposed));
    }
}
