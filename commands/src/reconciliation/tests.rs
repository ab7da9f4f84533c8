//! Comparing made-up books with made-up statements.

use calos_domain::operation::PartitionPosition;
use calos_domain::period::ClosedLine;
use calos_domain::reconciliation::ExceptionKind;
use uuid::Uuid;

use super::*;
use crate::log::LogError;
use crate::memory_log::{MemoryLog, request};

const BY: UserId = UserId(Uuid::from_u128(1));
const ID: ReconciliationId = ReconciliationId(Uuid::from_u128(7));

struct Ours(Vec<Movement>);

#[async_trait]
impl Books for Ours {
    async fn fence(&self, _: Timestamp) -> Result<Vec<PartitionPosition>, LogError> {
        Ok(Vec::new())
    }

    async fn wait_for(&self, _: &[PartitionPosition]) -> Result<(), BooksError> {
        Ok(())
    }

    async fn open_dead_letters(&self) -> Result<u64, BooksError> {
        Ok(0)
    }

    async fn trial_balance(&self, _: Timestamp, _: Timestamp) -> Result<Vec<ClosedLine>, BooksError> {
        Ok(Vec::new())
    }

    async fn stripe_movements(&self, from: Timestamp, to: Timestamp, _: usize) -> Result<Vec<Movement>, BooksError> {
        let within = |movement: &&Movement| movement.side.at >= from && movement.side.at < to;
        Ok(self.0.iter().filter(within).cloned().collect())
    }
}

struct Theirs(Vec<Vec<BalanceTransaction>>);

#[async_trait]
impl BalanceTransactions for Theirs {
    fn source(&self) -> &'static str {
        "stripe"
    }

    async fn next_page(&mut self) -> Result<Option<Vec<BalanceTransaction>>, SourceError> {
        Ok(self.0.pop())
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::default().plus_seconds(seconds)
}

fn said(id: &str, reference: &str, amount: i64, created: i64) -> BalanceTransaction {
    let amount = MicroUsd::new(amount);
    let (id, source_ref, kind) = (id.to_owned(), reference.to_owned(), "charge".to_owned());
    BalanceTransaction { id, source_ref, amount, fee: MicroUsd::ZERO, net: amount, kind, created_at: at(created) }
}

fn ours(reference: &str, amount: i64, moved: i64) -> Movement {
    let side = Side { amount: MicroUsd::new(amount), fee: MicroUsd::ZERO, at: at(moved) };
    Movement { id: reference.to_owned(), reference: reference.to_owned(), side }
}

fn comparison() -> Comparison {
    Comparison { id: ID, from: at(100), to: at(200), by: BY, at: at(300) }
}

async fn compare(
    log: &MemoryLog,
    pages: Vec<Vec<BalanceTransaction>>,
) -> Result<ReconciliationRun, Fault<ReconcileRefusal>> {
    let books = Ours(vec![ours("ch_1", 20, 100), ours("ch_2", 30, 199), ours("ch_3", 40, 200)]);
    run(log, &books, &mut Theirs(pages), comparison(), request()).await.map(|done| done.answer)
}

#[tokio::test]
async fn both_sides_are_compared_within_the_span_and_what_lies_outside_is_counted() {
    let log = MemoryLog::default();
    let pages = vec![
        vec![said("t1", "ch_1", 20, 100), said("t0", "ch_0", 5, 99)],
        vec![said("t3", "ch_3", 40, 200), said("t4", "ch_4", 9, 150)],
    ];
    let found = compare(&log, pages.clone()).await.unwrap();
    assert_eq!((found.matched, found.found, found.outside), (1, 2, 2));
    let kinds: Vec<_> = found.exceptions.iter().map(|one| (one.kind, one.reference.as_str())).collect();
    assert_eq!(kinds, [(ExceptionKind::MissingThere, "ch_2"), (ExceptionKind::MissingHere, "ch_4")]);
    // The pages in another order are the same statement, and the same run is recorded once.
    let turned = pages.into_iter().rev().collect();
    assert_eq!(compare(&log, turned).await.unwrap().statement_hash, found.statement_hash);
    assert_eq!(log.names::<Reconciliation>(&reconciliation_stream(ID)), ["reconciliation_run"]);
    let other = compare(&log, Vec::new()).await;
    let Err(Fault::Refused(ReconcileRefusal::Reconciliation(refusal))) = other else { panic!("{other:?}") };
    assert_eq!(refusal, ReconciliationRefusal::IdReused(ID));
}

#[tokio::test]
async fn exceptions_are_assigned_and_resolved_once() {
    let log = MemoryLog::default();
    assert!(look(&log, ID).await.unwrap().is_none());
    compare(&log, Vec::new()).await.unwrap();
    assign(&log, (ID, 1), BY, BY, at(301), request()).await.unwrap();
    let resolved = resolve(&log, (ID, 1), (Resolution::Timing, "in November"), BY, at(302), request()).await.unwrap();
    assert_eq!(resolved.answer.exceptions()[&1].resolved, Some((Resolution::Timing, at(302))));
    let again = resolve(&log, (ID, 1), (Resolution::Timing, "in November"), BY, at(303), request()).await;
    assert!(matches!(
        again,
        Err(Fault::Refused(ReconcileRefusal::Reconciliation(ReconciliationRefusal::ResolvedBefore { .. })))
    ));
}

#[tokio::test]
async fn a_statement_that_is_too_long_is_refused() {
    let page: Vec<_> = (0..=MOVEMENTS_MAX_COUNT).map(|n| said(&n.to_string(), "ch_1", 1, 150)).collect();
    let refused = compare(&MemoryLog::default(), vec![page]).await;
    assert!(matches!(refused, Err(Fault::Refused(ReconcileRefusal::TooLong { limit: MOVEMENTS_MAX_COUNT }))));
}
