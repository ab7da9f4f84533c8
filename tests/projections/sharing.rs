//! Several runners, runners that die, and connections that are killed: every event is counted once.

use std::str::FromStr as _;
use std::time::Duration;

use calos_projections::{Runner, RunnerOptions, status};
use calos_tests::database::TestDatabase;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::equality::assert_equal_to_a_fold_from_zero;
use crate::histories::{Dice, Story, mixed, people};
use crate::raw_log::{Raw, append};

const NAME: &str = "a-runner-that-is-killed";

async fn pool_of_a_runner(database: &TestDatabase) -> PgPool {
    let options = PgConnectOptions::from_str(&database.url).expect("an address").application_name(NAME);
    PgPoolOptions::new().max_connections(2).connect_with(options).await.expect("a pool")
}

fn options() -> RunnerOptions {
    RunnerOptions {
        round_min_interval: Duration::from_millis(1),
        poll_interval: Duration::from_millis(5),
        round_max_events: 40,
        ..RunnerOptions::default()
    }
}

fn history(seed: u64) -> Vec<Raw> {
    let mut dice = Dice::new(seed);
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut events = Vec::new();
        let mut story = Story::begin(&mut dice, &mut events);
        for _ in 0..150 {
            story.go_on(&mut dice, &mut events);
        }
        streams.push(people(&mut dice, story.tenant));
        streams.push(events);
    }
    mixed(&mut dice, streams)
}

async fn until_nothing_lags(pool: &PgPool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let all = status::projections(pool).await.expect("a status");
        if !all.is_empty() && all.iter().all(|projection| projection.lag_events() == 0) {
            return;
        }
        assert!(Instant::now() < deadline, "still behind: {all:#?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn assert_nothing_is_set_aside(pool: &PgPool) {
    let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters").fetch_one(pool).await.expect("a count");
    assert_eq!(letters, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runners_share_the_work_and_count_every_event_once() {
    let database = TestDatabase::create().await;
    let (_wake, heads) = watch::channel(Vec::new());
    let one = Runner::start(pool_of_a_runner(&database).await, heads.clone(), options()).await.expect("a runner");
    let two = Runner::start(pool_of_a_runner(&database).await, heads, options()).await.expect("a runner");
    for event in history(31) {
        append(&database.pool, &event).await;
    }
    until_nothing_lags(&database.pool).await;
    one.shutdown().await;
    two.shutdown().await;
    assert_nothing_is_set_aside(&database.pool).await;
    assert_equal_to_a_fold_from_zero(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_killed_in_the_middle_of_rounds_lose_nothing_and_double_nothing() {
    let database = TestDatabase::create().await;
    let (wake, heads) = watch::channel(Vec::new());
    let one = Runner::start(pool_of_a_runner(&database).await, heads.clone(), options()).await.expect("a runner");
    let two = Runner::start(pool_of_a_runner(&database).await, heads, options()).await.expect("a runner");
    let mut killed = 0_i64;
    for (number, event) in history(47).into_iter().enumerate() {
        append(&database.pool, &event).await;
        wake.send_replace(vec![number as i64]);
        if number % 25 == 0 {
            // Whoever is in the middle of a round dies there.
            killed += sqlx::query_scalar::<_, i64>(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE application_name = $1 AND datname = current_database() AND xact_start IS NOT NULL",
            )
            .bind(NAME)
            .fetch_one(&database.owner_pool)
            .await
            .expect("they are killed");
        }
    }
    until_nothing_lags(&database.pool).await;
    assert!(one.is_running() && two.is_running());
    assert!(killed > 3, "only {killed} connections were killed within a transaction");
    one.shutdown().await;
    two.shutdown().await;
    assert_nothing_is_set_aside(&database.pool).await;
    assert_equal_to_a_fold_from_zero(&database).await;
}
