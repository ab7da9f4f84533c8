//! A rebuild that is killed says so, leaves whole partitions behind, and is gone on with.

use std::sync::Arc;
use std::time::Duration;

use calos_replay::rebuild::{RebuildOptions, RebuildReport};
use calos_replay::{APPLICATION_NAME, Exit, ToolError};
use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;

use crate::history::History;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// One worker, so that partitions are folded in their order; nothing is recorded, since some tests lock the log.
const ONE_BY_ONE: RebuildOptions = RebuildOptions {
    workers: 1,
    in_place: false,
    restart: false,
    announced: true,
    listed_rows: 10,
    show: calos_replay::progress::Show::Silent,
};

async fn connect(history: &History) -> PgConnection {
    PgConnection::connect(&history.database.url).await.expect("a connection")
}

fn start(history: &Arc<History>, name: &'static str) -> JoinHandle<Result<RebuildReport, ToolError>> {
    let history = Arc::clone(history);
    tokio::spawn(async move { history.rebuild_with(name, ONE_BY_ONE).await })
}

/// Waits until a backend of the tools waits for a lock, and answers its process id.
async fn blocked(history: &History) -> i32 {
    let waiting = async {
        loop {
            let pid: Option<i32> = sqlx::query_scalar(
                "SELECT pid FROM pg_stat_activity WHERE application_name LIKE $1 || '%' AND wait_event_type = 'Lock' \
                 AND datname = current_database() LIMIT 1",
            )
            .bind(APPLICATION_NAME)
            .fetch_optional(&history.database.owner_pool)
            .await
            .expect("the activity is read");
            if let Some(pid) = pid {
                return pid;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the rebuild reaches the lock")
}

/// Waits until the tools have no connection left, of those a condition picks.
async fn ended(history: &History, condition: &str) {
    let open = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE starts_with(application_name, '{APPLICATION_NAME}') \
         AND datname = current_database() {condition}"
    );
    let gone = async {
        while history.number(&open).await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("its connections end");
}

async fn kill(history: &History, pid: i32) {
    let killed: bool = sqlx::query_scalar("SELECT pg_terminate_backend($1, 10000)")
        .bind(pid)
        .fetch_one(&history.database.owner_pool)
        .await
        .expect("the backend is named");
    assert!(killed);
}

/// Makes the checkpoint of one partition of the version being built wait for the test.
async fn barrier(history: &History, partition: i32) -> PgConnection {
    let mut holder = connect(history).await;
    let statements = format!(
        "CREATE OR REPLACE FUNCTION wait_for_the_test() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.version = 2 AND NEW.partition = {partition} THEN PERFORM pg_advisory_xact_lock(4711); END IF; \
         RETURN NEW; END $$; \
         CREATE OR REPLACE TRIGGER wait_for_the_test BEFORE UPDATE ON checkpoints \
         FOR EACH ROW EXECUTE FUNCTION wait_for_the_test(); \
         SELECT pg_advisory_lock(4711)"
    );
    sqlx::raw_sql(&statements).execute(&mut holder).await.expect("the barrier stands");
    holder
}

/// Partitions with events, in order.
async fn partitions(history: &History) -> Vec<i32> {
    sqlx::query_scalar("SELECT partition FROM partitions WHERE last_position > 0 ORDER BY partition")
        .fetch_all(&history.database.owner_pool)
        .await
        .expect("the heads are read")
}

async fn finished(history: &History) -> usize {
    let count = "SELECT count(*) FROM checkpoints WHERE projection = 'wallet_balance' AND version = 2 AND position > 0";
    usize::try_from(history.number(count).await).expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_killed_in_the_middle_fails_the_rebuild_loudly_and_it_can_be_gone_on_with() {
    let history = Arc::new(History::of(10, 3).await);
    let mut holder = connect(&history).await;
    let mut locked = holder.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE events IN ACCESS EXCLUSIVE MODE").execute(&mut *locked).await.expect("the lock");
    let running = start(&history, "wallet_balance");
    let reader = blocked(&history).await;
    kill(&history, reader).await;
    let failed = running.await.expect("no panic").expect_err("a lost reader is no success");
    assert_eq!(failed.exit(), Exit::Environment, "{failed}");
    locked.rollback().await.expect("the lock is gone");

    assert_eq!(history.number("SELECT live_version::bigint FROM projections WHERE name = 'wallet_balance'").await, 1);
    let report = history.rebuild("wallet_balance").await.expect("the rebuild ends");
    assert_eq!(report.to_version, 2);
    assert_eq!(report.parity.differences.expect("compared").count, 0);
    assert!(history.verify().await.passed);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_killed_between_partitions_fails_loudly_and_the_finished_partitions_are_kept() {
    let history = Arc::new(History::of(24, 2).await);
    let with_events = partitions(&history).await;
    let at = with_events.len() / 2;
    let barrier = barrier(&history, with_events[at]).await;
    let running = start(&history, "wallet_balance");
    let writer = blocked(&history).await;
    assert_eq!(finished(&history).await, at, "every partition before the barrier is finished");
    kill(&history, writer).await;
    let failed = running.await.expect("no panic").expect_err("a lost writer is no success");
    assert_eq!(failed.exit(), Exit::Environment, "{failed}");
    assert_eq!(finished(&history).await, at, "the partition in hand is undone, the others stand");
    drop(barrier);

    let report = history.rebuild("wallet_balance").await.expect("the rebuild ends");
    assert_eq!(report.resumed_partitions, at);
    assert_eq!(report.parity.differences.expect("compared").count, 0);
    history.catch_up().await;
    assert!(history.verify().await.passed);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_left_in_the_middle_is_gone_on_with_from_there() {
    let history = Arc::new(History::of(24, 2).await);
    let with_events = partitions(&history).await;
    let at = with_events.len() / 2;
    let barrier = barrier(&history, with_events[at]).await;
    let running = start(&history, "wallet_ledger");
    let writer = blocked(&history).await;
    kill(&history, writer).await;
    running.await.expect("no panic").expect_err("a lost writer is no success");
    drop(barrier);

    // As a rebuild beside others leaves it, which commits a partition piece by piece.
    let longest =
        "SELECT partition::bigint FROM read_next.wallet_ledger GROUP BY partition ORDER BY count(*) DESC LIMIT 1";
    let first = history.number(longest).await;
    let rows = format!("SELECT count(*) FROM read_next.wallet_ledger WHERE partition = {first}");
    let whole = history.number(&rows).await;
    let middle = history.number(&rows.replace("count(*)", "min(position)")).await;
    history
        .run(&format!("DELETE FROM read_next.wallet_ledger WHERE partition = {first} AND position > {middle}"))
        .await;
    history
        .run(&format!(
            "UPDATE checkpoints SET position = {middle} WHERE projection = 'wallet_ledger' AND version = 2 \
             AND partition = {first}"
        ))
        .await;
    assert!((1..whole).contains(&history.number(&rows).await), "the partition is there in part");

    let report = history.rebuild("wallet_ledger").await.expect("the rebuild ends");
    assert_eq!(report.resumed_partitions, at);
    assert_eq!(report.parity.differences.expect("compared").count, 0);
    history.catch_up().await;
    assert!(history.verify().await.passed);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_rebuild_leaves_no_lock_behind_and_is_gone_on_with() {
    let history = Arc::new(History::of(24, 2).await);
    let with_events = partitions(&history).await;
    let at = with_events.len() / 3;
    let barrier = barrier(&history, with_events[at]).await;
    let running = start(&history, "wallet_balance");
    blocked(&history).await;
    running.abort();
    assert!(running.await.expect_err("it was cancelled").is_cancelled());
    // The backend that waits at the barrier does not hear that nobody waits for it; it goes once the barrier does, and
    // until the others are gone the rebuild may not have heard either.
    ended(&history, "AND wait_event_type IS DISTINCT FROM 'Lock'").await;
    drop(barrier);
    ended(&history, "").await;

    // That backend may have got as far as the end of its partition; whole partitions either way.
    let kept = finished(&history).await;
    assert!((at..=at + 1).contains(&kept), "{kept} partitions are finished, {at} were before the barrier");
    // The log went on meanwhile.
    crate::history::live(&history.log, calos_domain::TenantId(uuid::Uuid::now_v7()), 2).await;
    history.catch_up().await;
    let report = history.rebuild("wallet_balance").await.expect("the rebuild ends");
    assert_eq!(report.resumed_partitions, kept);
    assert_eq!(report.parity.differences.expect("compared").count, 0);
    assert!(history.verify().await.passed);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_another_program_began_is_started_over() {
    let history = Arc::new(History::of(24, 2).await);
    let with_events = partitions(&history).await;
    let barrier = barrier(&history, with_events[with_events.len() / 3]).await;
    let running = start(&history, "wallet_balance");
    let writer = blocked(&history).await;
    kill(&history, writer).await;
    running.await.expect("no panic").expect_err("a lost writer is no success");
    drop(barrier);
    assert!(finished(&history).await > 0);
    history.run("UPDATE projections SET building_fold = 'of another program'").await;
    let report = history.rebuild("wallet_balance").await.expect("the rebuild ends");
    assert_eq!(report.resumed_partitions, 0);
    assert_eq!(report.parity.differences.expect("compared").count, 0);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_operators_connection_means_no_switch() {
    let history = Arc::new(History::of(6, 2).await);
    let with_events = partitions(&history).await;
    let barrier = barrier(&history, with_events[0]).await;
    let running = start(&history, "wallet_balance");
    blocked(&history).await;
    let operator: i32 = sqlx::query_scalar(
        "SELECT a.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted \
         AND a.application_name LIKE $1 || '%' AND a.datname = current_database()",
    )
    .bind(APPLICATION_NAME)
    .fetch_one(&history.database.owner_pool)
    .await
    .expect("somebody holds the operator's lock");
    kill(&history, operator).await;
    drop(barrier);
    let failed = running.await.expect("no panic").expect_err("without its lock a rebuild must not switch");
    assert_eq!(failed.exit(), Exit::Environment, "{failed}");
    assert_eq!(history.number("SELECT live_version::bigint FROM projections WHERE name = 'wallet_balance'").await, 1);
    assert_eq!(history.rebuild("wallet_balance").await.expect("the rebuild ends").to_version, 2);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_rebuild_can_be_forgotten() {
    let history = Arc::new(History::of(12, 2).await);
    let with_events = partitions(&history).await;
    let barrier = barrier(&history, with_events[3]).await;
    let running = start(&history, "wallet_balance");
    let writer = blocked(&history).await;
    kill(&history, writer).await;
    running.await.expect("no panic").expect_err("it was killed");
    drop(barrier);
    // Rows of the unfinished version are spoilt: going on with it would say so, beginning anew must not.
    history.run("UPDATE read_next.wallet_balance SET granted = -1").await;
    let report = history
        .rebuild_with("wallet_balance", RebuildOptions { restart: true, ..RebuildOptions::default() })
        .await
        .expect("the rebuild ends");
    assert_eq!(report.resumed_partitions, 0);
    assert_eq!(report.parity.differences.expect("compared").count, 0);
    history.log.close().await;
}
