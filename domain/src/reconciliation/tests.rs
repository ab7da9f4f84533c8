//! Given what happened, when this is asked, then these events follow, or this refusal; and what a comparison finds.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{Decider, MicroUsd, ReconciliationId, Timestamp, UserId};

const AT: Timestamp = Timestamp::from_micros(1_793_750_400_000_000);
const ADA: UserId = UserId(Uuid::from_u128(1));
const BOB: UserId = UserId(Uuid::from_u128(2));

fn side(amount: i64, fee: i64, at: i64) -> Side {
    Side { amount: MicroUsd::new(amount), fee: MicroUsd::new(fee), at: Timestamp::from_micros(at) }
}

fn moved(id: &str, reference: &str, amount: i64, fee: i64, at: i64) -> Movement {
    Movement { id: id.to_owned(), reference: reference.to_owned(), side: side(amount, fee, at) }
}

fn exception(number: u32) -> Exception {
    let kind = ExceptionKind::MissingHere;
    Exception { number, kind, reference: format!("ch_{number}"), ours: None, theirs: Some(side(1, 0, 1)) }
}

fn found(exceptions: u32) -> ReconciliationRun {
    ReconciliationRun {
        reconciliation_id: ReconciliationId(Uuid::from_u128(5)),
        source: "stripe".to_owned(),
        from: AT.plus_seconds(-86_400),
        to: AT.plus_seconds(-3_600),
        matched: 41,
        found: u64::from(exceptions),
        exceptions: (1..=exceptions).map(exception).collect(),
        outside: 0,
        statement_hash: "0a".repeat(32),
        run_by: ADA,
        run_at: AT,
    }
}

fn assign(number: u32, owner: UserId) -> ReconciliationCommand {
    ReconciliationCommand::Assign { number, owner, by: ADA, at: AT }
}

fn resolve(number: u32, resolution: Resolution) -> ReconciliationCommand {
    ReconciliationCommand::Resolve { number, resolution, note: "ticket:4712".to_owned(), by: BOB, at: AT }
}

fn given(commands: &[ReconciliationCommand]) -> Reconciliation {
    let mut reconciliation = Reconciliation::default();
    for command in commands {
        for event in reconciliation.decide(command.clone()).unwrap() {
            reconciliation.evolve(&event);
        }
    }
    reconciliation
}

fn with_three(rest: &[ReconciliationCommand]) -> Reconciliation {
    given(&[&[ReconciliationCommand::Record(found(3))], rest].concat())
}

fn kinds(matched: &Matched) -> Vec<(ExceptionKind, &str)> {
    matched.exceptions.iter().map(|found| (found.kind, found.reference.as_str())).collect()
}

#[test]
fn a_run_is_recorded_once() {
    let reconciliation = with_three(&[]);
    let later = ReconciliationRun { run_at: AT.plus_seconds(5), ..found(3) };
    assert_eq!(reconciliation.decide(ReconciliationCommand::Record(later)), Ok(Vec::new()));
    let refused = reconciliation.decide(ReconciliationCommand::Record(found(2)));
    assert_eq!(refused, Err(ReconciliationRefusal::IdReused(found(3).reconciliation_id)));
}

#[test]
fn a_span_that_is_not_over_is_not_reconciled() {
    let (from, to) = (found(0).from, found(0).to);
    for (from, to) in [(to, from), (from, from), (from, Timestamp::from_micros(AT.micros() + 1))] {
        let run = ReconciliationRun { from, to, ..found(0) };
        let refused = Reconciliation::default().decide(ReconciliationCommand::Record(run));
        assert_eq!(refused, Err(ReconciliationRefusal::ImpossibleSpan { from, to, at: AT }));
    }
}

#[test]
fn exceptions_are_numbered_bounded_and_no_more_than_were_found() {
    let refused = |run: ReconciliationRun| Reconciliation::default().decide(ReconciliationCommand::Record(run));
    let gap = ReconciliationRun { exceptions: vec![exception(2)], ..found(1) };
    assert_eq!(refused(gap), Err(ReconciliationRefusal::BadExceptions { kept: 1, found: 1 }));
    let uncounted = ReconciliationRun { found: 2, ..found(3) };
    assert_eq!(refused(uncounted), Err(ReconciliationRefusal::BadExceptions { kept: 3, found: 2 }));
    let many = found(1_001);
    assert_eq!(refused(many), Err(ReconciliationRefusal::BadExceptions { kept: 1_001, found: 1_001 }));
    let left_out = ReconciliationRun { found: 5_000, ..found(1_000) };
    assert!(refused(left_out).is_ok());
    let mut endless = found(1);
    endless.exceptions[0].reference = "x".repeat(201);
    let refusal = ReconciliationRefusal::BadText { field: "the reference", bytes: 201, limit: REFERENCE_MAX_BYTES };
    assert_eq!(refused(endless), Err(refusal));
    let nameless = ReconciliationRun { source: String::new(), ..found(0) };
    let refusal = ReconciliationRefusal::BadText { field: "the source", bytes: 0, limit: SOURCE_MAX_BYTES };
    assert_eq!(refused(nameless), Err(refusal));
}

#[test]
fn an_exception_has_one_owner_until_it_is_resolved_once() {
    let assigned = with_three(&[assign(2, BOB)]);
    assert_eq!(assigned.decide(assign(2, BOB)), Ok(Vec::new()));
    assert_eq!(assigned.decide(assign(2, ADA)).unwrap().len(), 1);
    let resolved = with_three(&[assign(2, BOB), resolve(2, Resolution::Timing)]);
    assert_eq!(resolved.exceptions()[&2].owner, Some(BOB));
    let refusal = ReconciliationRefusal::ResolvedBefore { number: 2, resolution: Resolution::Timing, at: AT };
    for again in [resolve(2, Resolution::Timing), resolve(2, Resolution::WrittenOff), assign(2, ADA)] {
        assert_eq!(resolved.decide(again), Err(refusal.clone()));
    }
    // One nobody was told about can be resolved too.
    assert_eq!(resolved.decide(resolve(1, Resolution::NotOurs)).unwrap().len(), 1);
}

#[test]
fn an_exception_that_is_none_is_refused() {
    for number in [0, 4] {
        let refusal = ReconciliationRefusal::NoSuchException { number, exceptions: 3 };
        assert_eq!(with_three(&[]).decide(assign(number, BOB)), Err(refusal.clone()));
        assert_eq!(with_three(&[]).decide(resolve(number, Resolution::Timing)), Err(refusal));
    }
    assert_eq!(given(&[]).decide(assign(1, BOB)), Err(ReconciliationRefusal::NotRun));
    assert_eq!(given(&[]).decide(resolve(1, Resolution::Timing)), Err(ReconciliationRefusal::NotRun));
}

#[test]
fn a_resolution_says_how_it_is_known() {
    for (note, bytes) in [(String::new(), 0), ("n".repeat(1_001), 1_001)] {
        let command =
            ReconciliationCommand::Resolve { number: 1, resolution: Resolution::Timing, note, by: BOB, at: AT };
        let refusal = ReconciliationRefusal::BadText { field: "the note", bytes, limit: NOTE_MAX_BYTES };
        assert_eq!(with_three(&[]).decide(command), Err(refusal));
    }
}

#[test]
fn equal_movements_meet_whenever_each_side_says_they_moved() {
    let ours = [moved("1", "ch_1", 20, 1, 5), moved("2", "dp_1", -20, 15, 6), moved("3", "dp_1", 20, 0, 9)];
    let theirs = [moved("a", "dp_1", 20, 0, 8), moved("b", "dp_1", -20, 15, 7), moved("c", "ch_1", 20, 1, 1)];
    assert_eq!(match_up(&ours, &theirs), Matched { matched: 3, found: 0, exceptions: Vec::new() });
}

#[test]
fn what_one_side_lacks_is_missing_there_or_here() {
    let matched = match_up(&[moved("1", "ch_1", 20, 1, 5)], &[moved("a", "ch_2", 20, 1, 5)]);
    let [there, here] = matched.exceptions.as_slice() else { panic!("{matched:?}") };
    assert_eq!(kinds(&matched), [(ExceptionKind::MissingThere, "ch_1"), (ExceptionKind::MissingHere, "ch_2")]);
    assert_eq!((there.number, there.ours, there.theirs), (1, Some(side(20, 1, 5)), None));
    assert_eq!((here.number, here.ours, here.theirs), (2, None, Some(side(20, 1, 5))));
}

#[test]
fn another_amount_or_another_fee_is_a_difference_and_money_in_never_meets_money_out() {
    for (amount, fee) in [(21, 1), (20, 2)] {
        let matched = match_up(&[moved("1", "ch_1", 20, 1, 5)], &[moved("a", "ch_1", amount, fee, 6)]);
        assert_eq!(kinds(&matched), [(ExceptionKind::Different, "ch_1")]);
        let found = &matched.exceptions[0];
        assert_eq!((found.ours, found.theirs), (Some(side(20, 1, 5)), Some(side(amount, fee, 6))));
    }
    let matched = match_up(&[moved("1", "dp_1", -20, 0, 5)], &[moved("a", "dp_1", 20, 0, 6)]);
    let expected = [(ExceptionKind::MissingHere, "dp_1"), (ExceptionKind::MissingThere, "dp_1")];
    assert_eq!(kinds(&matched), expected);
}

#[test]
fn what_is_there_twice_is_a_duplicate_on_either_side() {
    let once = moved("1", "ch_1", 20, 1, 5);
    let again = moved("2", "ch_1", 20, 1, 6);
    let matched = match_up(&[once.clone(), again.clone()], std::slice::from_ref(&once));
    assert_eq!((matched.matched, kinds(&matched)), (1, vec![(ExceptionKind::Duplicate, "ch_1")]));
    assert_eq!(matched.exceptions[0].ours, Some(again.side));
    let matched = match_up(std::slice::from_ref(&once), &[again.clone(), once.clone()]);
    assert_eq!((matched.matched, matched.exceptions[0].theirs), (1, Some(again.side)));
    // One id said twice, as of two pages that overlap.
    let matched = match_up(std::slice::from_ref(&once), &[once.clone(), once.clone()]);
    assert_eq!((matched.matched, kinds(&matched)), (1, vec![(ExceptionKind::Duplicate, "ch_1")]));
    assert_eq!(matched.exceptions[0].theirs, Some(once.side));
    // Two of each are two that agree.
    let both = [once, again];
    assert_eq!(match_up(&both, &both), Matched { matched: 2, found: 0, exceptions: Vec::new() });
}

#[test]
fn exceptions_beyond_the_bound_are_counted() {
    let theirs: Vec<_> = (0..1_500).map(|n| moved(&format!("t{n}"), &format!("ch_{n:04}"), 1, 0, 1)).collect();
    let matched = match_up(&[], &theirs);
    assert_eq!((matched.found, matched.exceptions.len()), (1_500, EXCEPTIONS_MAX_COUNT));
    assert_eq!(matched.exceptions.last().map(|last| (last.number, last.reference.as_str())), Some((1_000, "ch_0999")));
}

prop_compose! {
    fn some_movements()(parts in prop::collection::vec((0..30u8, 0..4u8, -3..3i64, 0..2i64, 0..5i64), 0..40)) -> Vec<Movement> {
        let of = |(id, reference, amount, fee, at): (u8, u8, i64, i64, i64)| moved(&format!("{id}"), &format!("r{reference}"), amount, fee, at);
        parts.into_iter().map(of).collect()
    }
}

proptest! {
    #[test]
    fn every_movement_is_matched_or_excepted_exactly_once(ours in some_movements(), theirs in some_movements()) {
        let result = match_up(&ours, &theirs);
        let here = result.exceptions.iter().filter(|found| found.ours.is_some()).count();
        let there = result.exceptions.iter().filter(|found| found.theirs.is_some()).count();
        let matched = usize::try_from(result.matched).unwrap();
        prop_assert_eq!((matched + here, matched + there), (ours.len(), theirs.len()));
        prop_assert_eq!(result.found, result.exceptions.len() as u64);
    }

    #[test]
    fn the_order_in_which_either_side_comes_does_not_matter(ours in some_movements(), theirs in some_movements()) {
        let mut turned = (ours.clone(), theirs.clone());
        turned.0.reverse();
        turned.1.reverse();
        prop_assert_eq!(match_up(&ours, &theirs), match_up(&turned.0, &turned.1));
    }

    #[test]
    fn a_side_compared_with_itself_has_no_exception_but_ids_said_twice(ours in some_movements()) {
        let result = match_up(&ours, &ours);
        prop_assert!(result.exceptions.iter().all(|found| found.kind == ExceptionKind::Duplicate));
    }
}
