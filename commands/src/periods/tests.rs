//! Closing months over books that are made up.

use std::sync::Mutex;

use async_trait::async_trait;
use calos_domain::Asset;
use calos_domain::operation::PartitionPosition;
use calos_domain::period::ClosedLine;
use calos_domain::reconciliation::Movement;
use uuid::Uuid;

use super::*;
use crate::log::LogError;
use crate::memory_log::{MemoryLog, request};

const BY: UserId = UserId(Uuid::from_u128(1));

/// Books that note what they are asked, in order.
#[derive(Default)]
struct MadeUp {
    asked: Mutex<Vec<String>>,
    behind: bool,
    dead_letters: u64,
}

#[async_trait]
impl Books for MadeUp {
    async fn fence(&self, at: Timestamp) -> Result<Vec<PartitionPosition>, LogError> {
        self.asked.lock().unwrap().push(format!("fence {}", at.micros()));
        Ok(vec![PartitionPosition { partition: 0, position: 17 }])
    }

    async fn wait_for(&self, heads: &[PartitionPosition]) -> Result<(), BooksError> {
        self.asked.lock().unwrap().push(format!("wait for {}", heads[0].position));
        if self.behind { Err(BooksError::Behind("journal".to_owned())) } else { Ok(()) }
    }

    async fn open_dead_letters(&self) -> Result<u64, BooksError> {
        self.asked.lock().unwrap().push("dead letters".to_owned());
        Ok(self.dead_letters)
    }

    async fn trial_balance(&self, effective: Timestamp, recorded: Timestamp) -> Result<Vec<ClosedLine>, BooksError> {
        self.asked.lock().unwrap().push(format!("balance {} {}", effective.micros(), recorded.micros()));
        let line =
            |account: &str, asset, debit, credit| ClosedLine { account: account.to_owned(), asset, debit, credit };
        // Out of order on purpose.
        Ok(vec![line("b", Asset::Usd, 0, 5), line("a", Asset::Usd, 5, 0), line("a", Asset::Credit, 1, 1)])
    }

    async fn stripe_movements(&self, _: Timestamp, _: Timestamp, _: usize) -> Result<Vec<Movement>, BooksError> {
        Err(BooksError::Unavailable("not asked for".to_owned()))
    }
}

fn month(text: &str) -> Month {
    text.parse().unwrap()
}

async fn closing(log: &MemoryLog, books: &MadeUp, of: &str) -> Result<Closing, Fault<CloseRefusal>> {
    let at = month(of).ends_at().plus_seconds(60);
    close(log, books, month(of), BY, at, request()).await.map(|done| done.answer)
}

#[tokio::test]
async fn a_month_is_fenced_then_waited_for_then_read_as_known_at_the_fence() {
    let (log, books) = (MemoryLog::default(), MadeUp::default());
    let closed = closing(&log, &books, "2026-10").await.unwrap();
    let (end, at) = (month("2026-10").last_moment().micros(), month("2026-10").ends_at().plus_seconds(60).micros());
    let expected =
        [format!("fence {at}"), "wait for 17".to_owned(), "dead letters".to_owned(), format!("balance {end} {at}")];
    assert_eq!(*books.asked.lock().unwrap(), expected);
    let order: Vec<_> = closed.trial.lines.iter().map(|line| (line.account.as_str(), line.asset.as_str())).collect();
    assert_eq!(order, [("a", "CREDIT"), ("a", "USD"), ("b", "USD")]);
    assert_eq!(log.names::<Periods>(&periods_stream()), ["period_closed"]);
}

#[tokio::test]
async fn each_month_carries_the_hash_of_the_one_before_and_its_own_of_exactly_what_it_says() {
    let (log, books) = (MemoryLog::default(), MadeUp::default());
    let first = closing(&log, &books, "2026-10").await.unwrap();
    let second = closing(&log, &books, "2026-11").await.unwrap();
    assert_eq!((first.previous_hash.as_ref(), second.previous_hash.as_ref()), (None, Some(&first.trial.hash)));
    let event = |closing: &Closing| PeriodClosed {
        month: closing.month,
        closed_by: BY,
        closed_at: Timestamp::from_micros(0),
        as_known_at: closing.trial.as_known_at,
        heads: closing.trial.heads.clone(),
        lines: closing.trial.lines.clone(),
        hash: closing.trial.hash.clone(),
        previous_hash: closing.previous_hash.clone(),
    };
    assert_eq!(hash_of(&event(&second)), second.trial.hash);
    let changed: [fn(&mut PeriodClosed); 5] = [
        |closed| closed.lines[0].debit += 1,
        |closed| closed.heads[0].position += 1,
        |closed| closed.previous_hash = None,
        |closed| closed.month = closed.month.next(),
        |closed| closed.as_known_at = closed.as_known_at.plus_seconds(1),
    ];
    for change in changed {
        let mut other = event(&second);
        change(&mut other);
        assert_ne!(hash_of(&other), second.trial.hash);
    }
    assert_eq!(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[tokio::test]
async fn the_wrong_month_is_refused_before_the_log_is_fenced() {
    let (log, books) = (MemoryLog::default(), MadeUp::default());
    closing(&log, &books, "2026-10").await.unwrap();
    books.asked.lock().unwrap().clear();
    for of in ["2026-10", "2026-12"] {
        assert!(matches!(closing(&log, &books, of).await, Err(Fault::Refused(CloseRefusal::Period(_)))), "{of}");
    }
    let early = close(&log, &books, month("2026-11"), BY, month("2026-11").last_moment(), request()).await;
    assert!(matches!(early, Err(Fault::Refused(CloseRefusal::Period(PeriodRefusal::NotOver { .. })))));
    assert!(books.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn books_that_are_behind_or_not_whole_close_nothing() {
    let log = MemoryLog::default();
    let behind = closing(&log, &MadeUp { behind: true, ..MadeUp::default() }, "2026-10").await;
    assert!(matches!(behind, Err(Fault::Refused(CloseRefusal::Books(BooksError::Behind(_))))), "{behind:?}");
    let broken = closing(&log, &MadeUp { dead_letters: 3, ..MadeUp::default() }, "2026-10").await;
    let Err(Fault::Refused(CloseRefusal::Period(refusal))) = broken else { panic!("{broken:?}") };
    assert_eq!(refusal, PeriodRefusal::DeadLetters { open: 3 });
    assert!(closed(&log).await.unwrap().closed().is_empty());
}
