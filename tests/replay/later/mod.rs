//! A read model that did not exist when the events were written joins a running system: it catches up beside the live ones,
//! which go on, and then it serves. Nothing has to stop.

mod model_use;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calos_adapters::postgres;
use calos_domain::TenantId;
use calos_projections::status::{self, ProjectionStatus};
use calos_projections::{Projection as _, Runner, RunnerHandle, RunnerOptions, registry, wait_until};
use calos_replay::ReadModel;
use calos_replay::progress::Show;
use calos_replay::rebuild::{RebuildOptions, rebuild};
use calos_replay::verify::{VerifyOptions, verify};
use calos_replay::write_guard::{Assent, confirm};
use sqlx::{Executor as _, PgPool};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::history::{COST, History, operator, spend};
use model_use::{MODEL_USE, ModelUse};

/// Small enough that catching up takes many rounds.
const ROUND_MAX_EVENTS: u32 = 64;

/// A runner as a server process has one: with a pool of its own.
async fn process(history: &History, models: Vec<ReadModel>) -> (RunnerHandle, PgPool) {
    let pool = postgres::connect(&history.database.url, 4).await.expect("a pool");
    let options = RunnerOptions {
        projections: models,
        round_min_interval: Duration::from_millis(5),
        relaxed_min_interval: Duration::from_millis(10),
        poll_interval: Duration::from_millis(10),
        round_max_events: ROUND_MAX_EVENTS,
        ..RunnerOptions::default()
    };
    let (_nobody_wakes_it, heads) = watch::channel(Vec::new());
    (Runner::start(pool.clone(), heads, options).await.expect("a runner"), pool)
}

fn today() -> Vec<ReadModel> {
    registry::ALL.to_vec()
}

fn tomorrow() -> Vec<ReadModel> {
    registry::ALL.iter().copied().chain([MODEL_USE]).collect()
}

/// Tenants who go on spending until they are told to stop; each answers how often it did.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<u64>>,
}

impl Writers {
    fn start(history: &History) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writer = |&tenant: &TenantId| {
            let (log, stop) = (history.log.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut uses = 0;
                while !stop.load(Ordering::Relaxed) {
                    spend(&log, tenant).await;
                    uses += 1;
                    sleep(Duration::from_millis(2)).await;
                }
                uses
            })
        };
        let tasks = history.tenants.iter().take(3).map(writer).collect();
        Self { stop, tasks }
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut uses = 0;
        for task in self.tasks {
            uses += task.await.expect("a writer ends well");
        }
        uses
    }
}

async fn standing(pool: &PgPool) -> BTreeMap<String, ProjectionStatus> {
    let all = status::projections(pool).await.expect("a status");
    all.into_iter().map(|projection| (projection.name.clone(), projection)).collect()
}

fn taken(projection: &ProjectionStatus) -> i64 {
    projection.partitions.iter().map(|partition| partition.position).sum()
}

async fn until_nothing_lags(pool: &PgPool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while standing(pool).await.values().any(|projection| projection.lag_events() > 0) {
        assert!(Instant::now() < deadline, "still behind: {:#?}", standing(pool).await);
        sleep(Duration::from_millis(10)).await;
    }
}

/// Every read model, the new one too, is what a fresh fold gives; and the new one's rows are the uses that were made.
async fn assert_all_is_right(history: &History, uses: u64) {
    let models = tomorrow();
    let options = VerifyOptions { chain_only: false, anchors: None, models: &models, show: Show::Silent };
    let report = verify(&history.database.owner_pool, &options).await.expect("the verification ends");
    assert!(report.passed, "{:?}", report.first());
    let served: (i64, i64) =
        sqlx::query_as("SELECT sum(uses)::bigint, sum(total)::bigint FROM read.model_use WHERE model = 'gpt-4'")
            .fetch_one(&history.database.pool)
            .await
            .expect("the new read model serves");
    let uses = i64::try_from(uses).expect("few uses");
    assert_eq!(served, (uses, uses * COST));
    assert_eq!(history.number("SELECT count(*) FROM dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_added_later_catches_up_beside_the_live_ones_and_then_serves() {
    let history = History::of(12, 100).await;
    let (old, old_pool) = process(&history, today()).await;
    let writers = Writers::start(&history);

    // The next version of the program is rolled out: its migration, then its process, while the one before goes on.
    history.database.owner_pool.execute(include_str!("model_use.sql")).await.expect("the migration runs");
    assert_eq!(
        ModelUse::declared(&history.database.owner_pool).await,
        ModelUse::migrated(&history.database.owner_pool).await
    );
    let (new, new_pool) = process(&history, tomorrow()).await;
    let (mut lags, mut live) = (Vec::new(), Vec::new());
    loop {
        let all = standing(&old_pool).await;
        let lag = all[ModelUse::NAME].lag_events();
        lags.push(lag);
        if lag < i64::from(ROUND_MAX_EVENTS) {
            break;
        }
        live.push(
            all.values()
                .filter(|one| one.name != ModelUse::NAME)
                .map(|one| (taken(one), one.lag_events()))
                .collect::<Vec<_>>(),
        );
        assert!(lags.len() < 10_000, "it does not catch up: {lags:?}");
        sleep(Duration::from_millis(5)).await;
    }
    let backlog = lags[0];
    assert!(backlog > 3_000 && lags.len() > 10, "it began far behind, and was seen on its way: {lags:?}");
    let moved = live.windows(2).filter(|pair| pair[0].iter().zip(&pair[1]).any(|(before, after)| after.0 > before.0));
    assert!(moved.count() > 5, "the live ones went on all the while: {live:?}");
    let furthest = live.iter().flatten().map(|(_, lag)| *lag).max().unwrap_or_default();
    assert!(furthest < backlog / 4, "none of the live ones was held up: {furthest} of {backlog}");

    // It serves: whoever wrote finds what they wrote, by the new process and by the old.
    let heads: BTreeMap<i32, i64> = (0..).zip(history.log.heads().borrow().iter().copied()).collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    wait_until(&new_pool, &new.progress(), ModelUse::NAME, &heads, deadline)
        .await
        .expect("it has taken what is durable");
    wait_until(&old_pool, &old.progress(), ModelUse::NAME, &heads, deadline)
        .await
        .expect("the old process can tell, too");

    // The process before ends; the new one alone keeps everything at the head.
    old.shutdown().await;
    let spent = writers.stop().await;
    until_nothing_lags(&new_pool).await;
    assert_all_is_right(&history, 1_200 + spent).await;
    new.shutdown().await;
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_added_later_can_be_built_in_bulk_and_switched_while_both_programs_go_on() {
    let history = History::of(12, 60).await;
    let (old, _old_pool) = process(&history, today()).await;
    let writers = Writers::start(&history);
    history.database.owner_pool.execute(include_str!("model_use.sql")).await.expect("the migration runs");
    let (new, new_pool) = process(&history, tomorrow()).await;

    let confirmed = confirm(Assent::Given, "rebuild").expect("it is confirmed");
    let (pool, options) = (&history.database.owner_pool, RebuildOptions::default());
    let report = rebuild(pool, &history.log, MODEL_USE, &operator(), &confirmed, &options).await.expect("it is built");
    assert_eq!((report.from_version, report.to_version, report.parity.differing_rows()), (1, 2, 0));
    assert_eq!(standing(&new_pool).await[ModelUse::NAME].version, 2, "the next version took its place");

    // Who spends after the switch is counted by the runner that was there before it.
    sleep(Duration::from_millis(50)).await;
    let spent = writers.stop().await;
    until_nothing_lags(&new_pool).await;
    assert!(old.is_running() && new.is_running());
    assert_all_is_right(&history, 720 + spent).await;
    old.shutdown().await;
    new.shutdown().await;
    history.log.close().await;
}
