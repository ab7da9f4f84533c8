//! Commits that another connection waits for: nobody is answered before the disk has what he did.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use calos_adapters::postgres::{self, LogOptions, PgLog};
use calos_commands::log::{Failed, LogError};
use calos_tests::cluster::TestCluster;
use calos_tests::database::TestDatabase;
use futures_util::future::join_all;
use sqlx::PgPool;

use crate::tally::{add, assert_sealed, assert_sealed_in, open, stored};

/// More than enough for batches whose commit is left to the second connection.
const CALLERS: u64 = 256;
/// From the kill to the first answered command, PostgreSQL's restart and recovery included.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(20);

/// Callers who add for as long as they are let, each with ids of its own: what was acknowledged.
async fn add_until(over: &Arc<AtomicBool>, answered: &Arc<AtomicU64>, log: &PgLog, round: u64) -> Vec<u64> {
    let calls = (0..CALLERS).map(|caller| {
        let (log, over, answered) = (log.clone(), Arc::clone(over), Arc::clone(answered));
        tokio::spawn(async move {
            let (stream, mut acknowledged) = (format!("t-{}", caller % 12), Vec::new());
            for turn in 0..u64::MAX {
                let id = (round * CALLERS + caller) * 1_000_000 + turn;
                match add(&log, &stream, id, 1).await {
                    Ok(_) => {
                        acknowledged.push(id);
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(Failed::Log(LogError::Unavailable(_) | LogError::Unresolved)) => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    Err(other) => panic!("{other}"),
                }
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
            acknowledged
        })
    });
    join_all(calls).await.into_iter().flat_map(|call| call.expect("no panic")).collect()
}

async fn stored_ids(pool: &PgPool) -> Vec<i64> {
    sqlx::query_scalar("SELECT (payload -> 'added' ->> 'id')::bigint FROM events WHERE aggregate_type = 'tally'")
        .fetch_all(pool)
        .await
        .expect("the log reads")
}

fn assert_all_there_once(acknowledged: &[u64], stored: &[i64]) {
    let distinct: HashSet<i64> = stored.iter().copied().collect();
    assert_eq!(distinct.len(), stored.len(), "an event is there twice");
    let missing = acknowledged.iter().filter(|id| !i64::try_from(**id).is_ok_and(|id| distinct.contains(&id))).count();
    assert_eq!(missing, 0, "of {} acknowledged commands", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_the_death_of_the_database() {
    let cluster = TestCluster::private().await;
    let url = cluster.database("deferred").await;
    let pool = postgres::connect(&url, 8).await.expect("the database is there");
    let log = PgLog::open(pool.clone(), LogOptions::default()).await.expect("the log opens");
    let mut acknowledged = Vec::new();
    for round in 0..5u64 {
        let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let calls = tokio::spawn({
            let (over, answered, log) = (Arc::clone(&over), Arc::clone(&answered), log.clone());
            async move { add_until(&over, &answered, &log, round).await }
        });
        let deadline = Instant::now() + RECOVERY_TIMEOUT;
        while answered.load(Ordering::Relaxed) < 4 * CALLERS + round * 37 {
            assert!(Instant::now() < deadline, "round {round}: the log takes nothing");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cluster.kill_postgres();
        tokio::time::sleep(Duration::from_millis(300)).await;
        over.store(true, Ordering::Relaxed);
        acknowledged.extend(calls.await.expect("no panic"));
        let deadline = Instant::now() + RECOVERY_TIMEOUT;
        let mut probe = 900_000_000_000 + round * 1_000;
        while add(&log, "probe", probe, 0).await.is_err() {
            assert!(Instant::now() < deadline, "round {round}: the log did not recover");
            tokio::time::sleep(Duration::from_millis(50)).await;
            probe += 1;
        }
        assert_all_there_once(&acknowledged, &stored_ids(&pool).await);
        assert_sealed_in(&pool).await;
    }
    assert!(log.counters().deferred_batches.get() > 5, "no commit was left to the second connection");
    log.close().await;
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_that_is_cut_off_loses_and_doubles_nothing() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    add(&log, "t-0", 7, 0).await.expect("it is taken");
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let calls = tokio::spawn({
        let (over, answered, log) = (Arc::clone(&over), Arc::clone(&answered), log.clone());
        async move { add_until(&over, &answered, &log, 0).await }
    });
    // The writer's own connection stays; every other time both are cut at once.
    let mut cut = 0;
    for turn in 0..60 {
        let query = if turn % 2 == 0 { "%emit_message%" } else { "%" };
        let cuts: Vec<bool> = sqlx::query_scalar(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE $1",
        )
        .bind(query)
        .fetch_all(&database.owner_pool)
        .await
        .unwrap_or_default();
        cut += cuts.len();
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    over.store(true, Ordering::Relaxed);
    let acknowledged = calls.await.expect("no panic");
    assert!(cut >= 20, "{cut} connections were cut");
    assert!(log.counters().deferred_batches.get() > 0, "no commit was left to the second connection");
    assert_all_there_once(&acknowledged, &stored_ids(&database.pool).await);
    assert_sealed(&database).await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_it_every_commit_is_waited_for() {
    let database = TestDatabase::create().await;
    sqlx::raw_sql(
        "REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) FROM PUBLIC;
         REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, bytea) FROM PUBLIC",
    )
    .execute(&database.owner_pool)
    .await
    .expect("the owner may");
    let log = open(&database).await;
    let calls = (0..CALLERS).map(|id| {
        let log = log.clone();
        tokio::spawn(async move { add(&log, "a", id, 1).await.map(drop) })
    });
    for call in join_all(calls).await {
        call.expect("no panic").expect("it is taken");
    }
    assert_eq!(log.counters().deferred_batches.get(), 0);
    assert_eq!(stored(&database, "a").await, (256, 256));
    log.close().await;
}
