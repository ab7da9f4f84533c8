//! Fences: once one stands, nothing recorded before it appears, and nobody loses anything by it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calos_adapters::postgres::{PgLog, Timestamptz};
use calos_commands::log::{Failed, LogError};
use calos_domain::Timestamp;
use calos_tests::database::TestDatabase;
use futures_util::future::join_all;

use crate::tally::{add, assert_sealed, open, stored};

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::from_micros(i64::try_from(since.as_micros()).expect("not for long"))
}

/// The head clocks, by partition.
async fn clocks(database: &TestDatabase) -> BTreeMap<i32, Timestamp> {
    let rows: Vec<(i32, Timestamptz)> = sqlx::query_as("SELECT partition, last_recorded_at FROM partitions")
        .fetch_all(&database.pool)
        .await
        .expect("the heads read");
    rows.into_iter().map(|(partition, at)| (partition, at.0)).collect()
}

/// The earliest event behind a head.
async fn earliest_behind(database: &TestDatabase, partition: i32, position: i64) -> Option<Timestamp> {
    let (earliest,): (Option<Timestamptz>,) =
        sqlx::query_as("SELECT min(recorded_at) FROM events WHERE partition = $1 AND position > $2")
            .bind(partition)
            .bind(position)
            .fetch_one(&database.pool)
            .await
            .expect("the events read");
    earliest.map(|at| at.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_of_several_processes_go_on_while_the_log_is_fenced_and_none_lands_before_a_fence() {
    const CALLERS: u64 = 24;
    let database = TestDatabase::create().await;
    let logs = [open(&database).await, open(&database).await];
    let stop = Arc::new(AtomicBool::new(false));
    let callers = (0..CALLERS).map(|caller| {
        let (log, stop) = (logs[usize::try_from(caller % 2).expect("small")].clone(), Arc::clone(&stop));
        // Several callers share a stream, several streams a partition, and both processes all of them.
        let stream = format!("tally-{}", caller % 8);
        tokio::spawn(async move {
            let mut taken = 0;
            while !stop.load(Ordering::Relaxed) {
                match add(&log, &stream, caller * 1_000_000 + taken, 1).await {
                    Ok(_) => taken += 1,
                    // Not in the log, since the other process wrote the stream each time: asked again, as any caller does.
                    Err(Failed::Log(LogError::Contended { .. })) => {}
                    Err(error) => panic!("a fence fails nobody: {error:?}"),
                }
            }
            (stream, i64::try_from(taken).expect("small"))
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut fences: Vec<(Timestamp, Vec<(i32, i64)>)> = Vec::new();
    for turn in 0..120 {
        let at = now();
        // Either process, as it comes.
        fences.push((at, logs[turn % 2].fence(at).await.expect("it stands")));
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut taken: BTreeMap<String, i64> = BTreeMap::new();
    for caller in join_all(callers).await {
        let (stream, count) = caller.expect("no panic");
        *taken.entry(stream).or_default() += count;
    }
    for (stream, count) in &taken {
        assert_eq!(stored(&database, stream).await, (*count, *count), "{stream}");
    }
    let mut appended_after = 0;
    for (at, heads) in &fences {
        assert_eq!(heads.len(), usize::from(logs[0].partitions()));
        for (partition, position) in heads {
            let earliest = earliest_behind(&database, *partition, *position).await;
            assert!(earliest.is_none_or(|earliest| earliest > *at), "partition {partition} behind {position}");
            appended_after += usize::from(earliest.is_some());
        }
    }
    assert!(appended_after > 100, "nothing was appended behind the fences");
    let stale: u64 = logs.iter().map(|log| log.counters().stale_batches.get()).sum();
    assert!(stale > 10, "no append was ever under way when a fence went up: {stale}");
    assert_sealed(&database).await;
    for log in logs {
        log.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_decided_on_a_clock_from_before_the_fence_is_stamped_anew() {
    let database = TestDatabase::create().await;
    let (log, other) = (open(&database).await, open(&database).await);
    add(&log, "a", 1, 1).await.expect("it is taken");
    // Ahead of every clock here, so that no moment read later can be what keeps the append behind it.
    let at = now().plus_seconds(60);
    let heads = other.fence(at).await.expect("it stands");
    add(&log, "a", 2, 1).await.expect("it is taken");
    add(&other, "a", 3, 1).await.expect("it is taken");
    let partition = log.partition_of("a");
    let position = heads.iter().find(|head| head.0 == partition).expect("every partition is fenced").1;
    assert_eq!(position, 1);
    let beyond = Timestamp::from_micros(at.micros() + 1);
    assert_eq!(earliest_behind(&database, partition, position).await, Some(beyond));
    assert_eq!(stored(&database, "a").await, (3, 3));
    assert_sealed(&database).await;
    log.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_never_sets_a_clock_back_and_never_far_ahead() {
    let database = TestDatabase::create().await;
    let log: PgLog = open(&database).await;
    add(&log, "a", 1, 1).await.expect("it is taken");
    let before = clocks(&database).await;
    log.fence(Timestamp::from_micros(0)).await.expect("it stands");
    let after = clocks(&database).await;
    let partition = log.partition_of("a");
    assert_eq!(after[&partition], before[&partition]);
    let refused = log.fence(now().plus_seconds(3_600)).await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    assert_eq!(clocks(&database).await, after);
    // Twice the same fence moves nothing the second time.
    let at = now();
    let first = log.fence(at).await.expect("it stands");
    let clocks_then = clocks(&database).await;
    assert_eq!(log.fence(at).await.expect("it stands"), first);
    assert_eq!(clocks(&database).await, clocks_then);
    log.close().await;
}
