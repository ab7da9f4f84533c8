//! Somebody looks at the log for a long time: a copy, an index being built, a report. Appends must not notice.

use std::time::Duration;

use calos_tests::database::TestDatabase;
use sqlx::Connection;

use crate::tally::{add, open};

/// Appends whose work is compared.
const STRETCH: u64 = 100;
/// Appends between the two stretches: each leaves a version of its head that the snapshot might see.
const BETWEEN: u64 = 2_000;
/// PostgreSQL tells of a connection's work about once a second.
const TOLD_MAX: Duration = Duration::from_secs(20);

/// What was done to the heads.
#[derive(Clone, Copy, Debug)]
struct Work {
    moved: i64,
    blocks: i64,
}

async fn work(database: &TestDatabase) -> Work {
    let (moved, blocks) = sqlx::query_as(
        "SELECT t.n_tup_upd, io.heap_blks_read + io.heap_blks_hit + io.idx_blks_read + io.idx_blks_hit \
         FROM pg_stat_user_tables t JOIN pg_statio_user_tables io USING (relid) WHERE t.relname = 'partitions'",
    )
    .fetch_one(&database.pool)
    .await
    .expect("the statistics read");
    Work { moved, blocks }
}

/// What had been done once a head had been moved so often.
async fn work_at(database: &TestDatabase, moved: u64) -> Work {
    let begun = std::time::Instant::now();
    loop {
        let now = work(database).await;
        if now.moved >= i64::try_from(moved).expect("small") {
            return now;
        }
        assert!(begun.elapsed() < TOLD_MAX, "{now:?} of {moved}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_costs_the_same_however_long_somebody_has_been_looking() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    add(&log, "hot", 0, 1).await.expect("it is taken");
    let mut looking = database.pool.acquire().await.expect("a connection");
    let mut snapshot = looking.begin().await.expect("a transaction");
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *snapshot).await.expect("it is set");
    sqlx::query("SELECT FROM events").execute(&mut *snapshot).await.expect("the snapshot is taken");

    let mut asked = 1;
    let mut seen = vec![work_at(&database, asked).await];
    for stretch in [STRETCH, BETWEEN, STRETCH] {
        // One after the other, so that each is a batch of its own and moves the head.
        for id in asked..asked + stretch {
            add(&log, "hot", id, 1).await.expect("it is taken");
        }
        asked += stretch;
        seen.push(work_at(&database, asked).await);
    }
    snapshot.rollback().await.expect("it ends");
    let blocks = |index: usize| seen[index + 1].blocks - seen[index].blocks;
    let (early, late) = (blocks(0), blocks(2));
    assert!(late <= early * 2, "{STRETCH} appends looked at {early} blocks of heads at first, at {late} in the end");
    log.close().await;
}
