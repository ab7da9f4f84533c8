//! Reading one's own writes, joining later, and standing aside for a new version.

use std::collections::BTreeMap;
use std::time::Duration;

use calos_domain::{Asset, Decider as _, wallet::Wallet};
use calos_projections::{Progress, Runner, RunnerOptions, checkpoint, wait_until, wallet_balance};
use calos_tests::database::TestDatabase;
use sqlx::Executor as _;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::fussy::{FUSSY, create_table};
use crate::histories::{Dice, Story};
use crate::raw_log::{Raw, append};

fn events(seed: u64, commands: u32) -> (Story, Vec<Raw>) {
    let mut dice = Dice::new(seed);
    let mut events = Vec::new();
    let mut story = Story::begin(&mut dice, &mut events);
    for _ in 0..commands {
        story.go_on(&mut dice, &mut events);
    }
    (story, events)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(2)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_waits_for_a_position_sees_what_was_written_there() {
    let database = TestDatabase::create().await;
    let (wake, heads) = watch::channel(Vec::new());
    // It would look by itself only after a minute: it is the writer's word that wakes it.
    let options = RunnerOptions { poll_interval: Duration::from_secs(60), ..RunnerOptions::default() };
    let runner = Runner::start(database.pool.clone(), heads, options).await.expect("a runner");
    let (_, events) = events(1, 60);
    let mut wallet = Wallet::default();
    for event in &events {
        let (partition, position) = append(&database.pool, event).await;
        wake.send_replace(vec![position]);
        wallet.evolve(&serde_json::from_str(&event.payload).expect("a wallet event"));
        let wanted = BTreeMap::from([(partition, position)]);
        let waited = wait_until(&database.pool, &runner.progress(), "wallet_balance", &wanted, soon()).await;
        waited.expect("it is there in time");
        let tenant = wallet.tenant().expect("it is open");
        let figures = wallet_balance::figures(&database.pool, tenant, Asset::Usd).await.expect("a row");
        assert_eq!(figures.available, wallet.available(Asset::Usd).get());
    }
    runner.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_learns_of_another_process_s_work_and_gives_up_in_time() {
    let database = TestDatabase::create().await;
    let (_, events) = events(2, 5);
    let (partition, position) = append(&database.pool, &events[0]).await;
    // This process runs no projections: its progress never moves.
    let (_idle, progress) = watch::channel(Progress::default());
    let wanted = BTreeMap::from([(partition, position)]);
    Runner::catch_up(database.pool.clone(), RunnerOptions::default()).await.expect("another process's round");
    wait_until(&database.pool, &progress, "tenants", &wanted, soon()).await.expect("it is found by asking");

    let wanted = BTreeMap::from([(partition, position + 1)]);
    let began = Instant::now();
    let deadline = began + Duration::from_millis(300);
    let behind =
        wait_until(&database.pool, &progress, "tenants", &wanted, deadline).await.expect_err("nobody wrote it");
    assert_eq!((behind.partition, behind.at, behind.wanted), (partition, position, position + 1));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_joins_later_begins_at_the_first_event_and_holds_up_nobody() {
    let database = TestDatabase::create().await;
    create_table(&database.owner_pool).await;
    let (_, events) = events(3, 400);
    for event in &events[..events.len() / 2] {
        append(&database.pool, event).await;
    }
    Runner::catch_up(database.pool.clone(), RunnerOptions::default()).await.expect("the others are there");
    for event in &events[events.len() / 2..] {
        append(&database.pool, event).await;
    }
    let mut options = RunnerOptions { round_max_events: 64, ..RunnerOptions::default() };
    options.projections.push(FUSSY);
    Runner::catch_up(database.pool.clone(), options).await.expect("all are there");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM read.fussy").fetch_one(&database.pool).await.expect("n");
    assert_eq!(rows, events.len() as i64);
    let positions = checkpoint::positions(&database.pool, "usage_log").await.expect("positions");
    assert_eq!(positions.values().sum::<i64>(), events.len() as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_goes_live_in_the_middle_of_a_round_gets_none_of_its_rows() {
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    let (_, events) = events(4, 60);
    for event in &events {
        append(pool, event).await;
    }
    checkpoint::ensure_registered(pool, calos_projections::registry::ALL).await.expect("they are registered");
    // A round waits for the table, its checkpoints claimed; meanwhile another version becomes the live one.
    let mut holder = database.owner_pool.begin().await.expect("a transaction");
    holder.execute("LOCK TABLE read.wallet_balance IN ACCESS EXCLUSIVE MODE").await.expect("it is locked");
    let round = tokio::spawn(Runner::catch_up(pool.clone(), RunnerOptions::default()));
    tokio::time::sleep(Duration::from_millis(400)).await;
    pool.execute(
        "INSERT INTO checkpoints (projection, version, partition, position, recorded_at)
         SELECT 'wallet_balance', 2, c.partition, h.last_position, NULL
         FROM checkpoints c JOIN partitions h USING (partition) WHERE c.projection = 'wallet_balance' AND c.version = 1",
    )
    .await
    .expect("the new version stands at the head");
    pool.execute("UPDATE projections SET live_version = 2 WHERE name = 'wallet_balance'").await.expect("it is live");
    holder.commit().await.expect("the lock is given back");
    round.await.expect("no panic").expect("the others catch up");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM read.wallet_balance").fetch_one(pool).await.expect("n");
    assert_eq!(rows, 0, "the old version's round wrote into the new version's table");
    let other: i64 = sqlx::query_scalar("SELECT count(*) FROM read.wallet_ledger").fetch_one(pool).await.expect("n");
    assert!(other > 0, "the others were not held up for good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relaxed_read_model_is_there_in_time_for_a_reader_and_holds_up_none_of_the_others() {
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    let (wake, heads) = watch::channel(Vec::new());
    let runner = Runner::start(pool.clone(), heads, RunnerOptions::default()).await.expect("a runner");
    let (_, events) = events(6, 40);
    let (first, last) = events.split_at(events.len() / 2);
    for event in first {
        let (partition, position) = append(pool, event).await;
        wake.send_replace(vec![position]);
        let wanted = BTreeMap::from([(partition, position)]);
        let waited = wait_until(pool, &runner.progress(), "journal", &wanted, soon()).await;
        waited.expect("it is there within the time a reader waits");
    }
    // The journal's rounds hang; whoever reads a live one does not notice.
    let mut holder = database.owner_pool.begin().await.expect("a transaction");
    holder.execute("LOCK TABLE read.journal IN ACCESS EXCLUSIVE MODE").await.expect("it is locked");
    let mut wanted = BTreeMap::new();
    for event in last {
        let (partition, position) = append(pool, event).await;
        wake.send_replace(vec![position]);
        wanted.insert(partition, position);
        let waited = wait_until(pool, &runner.progress(), "wallet_balance", &wanted, soon()).await;
        waited.expect("it does not wait for the journal");
    }
    let deadline = Instant::now() + Duration::from_millis(300);
    let behind = wait_until(pool, &runner.progress(), "journal", &wanted, deadline).await;
    assert!(behind.is_err(), "the journal was locked");
    holder.commit().await.expect("the lock is given back");
    wait_until(pool, &runner.progress(), "journal", &wanted, soon()).await.expect("it goes on");
    runner.shutdown().await;
}
