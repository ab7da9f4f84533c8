//! Versions that are built to be looked at: a dry run leaves nothing, one up to a moment leaves its tables, and neither goes
//! live.

use calos_domain::Timestamp;
use calos_replay::diff::diff;
use calos_replay::progress::Show;
use calos_replay::rebuild::RebuildOptions;
use calos_replay::rebuild::preview::{Preview, preview};
use calos_replay::{ReadModel, ToolError};

use crate::history::{History, model, names, now, operator, spend};

const SHAPE: &str = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'read_next'";

const LEFT: &str = "SELECT (SELECT count(*) FROM projections WHERE building_version IS NOT NULL) \
    + (SELECT count(*) FROM checkpoints c JOIN projections p ON p.name = c.projection WHERE c.version <> p.live_version) \
    + (SELECT count(*) FROM dead_letters d JOIN projections p ON p.name = d.projection WHERE d.version <> p.live_version)";

async fn look(history: &History, names: &[&str], until: Option<Timestamp>, keep: bool) -> Vec<Preview> {
    let models: Vec<ReadModel> = names.iter().map(|name| model(name)).collect();
    let options = RebuildOptions::default();
    let pool = &history.database.owner_pool;
    preview(pool, &models, &operator(), until, keep, &options).await.expect("it is built and compared")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_a_rebuild_would_and_changes_nothing() {
    let history = History::of(8, 3).await;
    history.rebuild("wallet_balance").await.expect("the rebuild ends");
    let tenant = history.tenants[5];
    history.run(&format!("UPDATE read.wallet_balance SET available = 777 WHERE tenant_id = '{tenant}'")).await;
    let old = "SELECT count(*) FROM read_old.wallet_balance";
    let (before, recorded) = (history.number(old).await, history.log.heads().borrow().clone());

    let found = look(&history, &["wallet_balance", "usage_log"], None, false).await;
    let differing =
        diff(&history.database.owner_pool, model("wallet_balance"), 10, Show::Silent).await.expect("a diff");
    assert_eq!(found[0].parity.differences.as_ref(), Some(&differing.differences));
    assert!(differing.differences.count > 0);
    assert_eq!(found[1].parity.differences.as_ref().expect("compared").count, 0);
    assert_eq!((found[0].live_version, found[0].dead_letters), (2, 0));
    assert!(found.iter().all(|preview| preview.tables.is_empty() && preview.until.is_none()));

    assert_eq!((history.number(SHAPE).await, history.number(LEFT).await), (0, 0));
    assert_eq!(history.number(old).await, before, "the version before is still there");
    assert_eq!(*history.log.heads().borrow(), recorded, "nothing was recorded");
    assert!(history.number("SELECT count(*) FROM read.wallet_balance WHERE available = 777").await > 0);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn up_to_a_moment_a_read_model_says_what_it_said_then_beside_the_live_one() {
    let history = History::of(6, 2).await;
    let all: Vec<&str> = names().collect();
    for name in &all {
        for table in model(name).tables() {
            history.run(&format!("CREATE TABLE public.then_{0} AS SELECT * FROM read.{0}", table.name)).await;
        }
    }
    let moment = now();
    // Clocks have microseconds, and what is recorded at the moment itself belongs to it.
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    for tenant in &history.tenants {
        spend(&history.log, *tenant).await;
    }
    history.catch_up().await;

    let built = look(&history, &all, Some(moment), true).await;
    for preview in &built {
        for table in model(preview.projection).tables() {
            let kept = format!("read_next.{}", table.name);
            assert!(preview.tables.contains(&kept), "{:?}", preview.tables);
            let columns = table.column_list();
            let (next, then) = (format!("SELECT {columns} FROM {kept}"), format!("public.then_{}", table.name));
            let differing = format!(
                "SELECT count(*) FROM (({next} EXCEPT ALL SELECT {columns} FROM {then}) UNION ALL \
                 (SELECT {columns} FROM {then} EXCEPT ALL {next})) d"
            );
            assert_eq!(history.number(&differing).await, 0, "{kept}");
        }
    }
    let balance = built.iter().find(|preview| preview.projection == "wallet_balance").expect("it is built");
    assert_eq!(balance.parity.differences.as_ref().expect("compared").count, 6, "what has changed since");
    assert_eq!(history.number(LEFT).await, 0, "it is no version");
    assert!(history.verify().await.passed, "the live ones are as they were");

    // The next rebuild takes its place.
    history.rebuild("wallet_balance").await.expect("the rebuild ends");
    let there = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'read_next' AND table_name = \
                 'wallet_balance'";
    assert_eq!(history.number(there).await, 0);
    look(&history, &all, Some(moment), false).await;
    assert_eq!(history.number(SHAPE).await, 0, "a dry run takes them away");
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_event_there_was_nothing() {
    let history = History::of(2, 1).await;
    let built = look(&history, &["wallet_balance"], Some(Timestamp::from_micros(1)), true).await;
    assert!(built[0].positions.values().all(|position| *position == 0) && built[0].events == 0);
    assert_eq!(history.number("SELECT count(*) FROM read_next.wallet_balance").await, 0);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_moves_the_live_version_and_no_preview_waits_for_the_other() {
    let history = History::of(6, 2).await;
    let mut live = history.database.owner_pool.begin().await.expect("a transaction");
    let held = "SELECT 1 FROM checkpoints WHERE projection = 'wallet_balance' AND version = 1 FOR UPDATE";
    sqlx::query(held).fetch_all(&mut *live).await.expect("a runner's round has begun");
    let (pool, models) = (&history.database.owner_pool, [model("wallet_balance")]);
    let built = preview(pool, &models, &operator(), None, false, &RebuildOptions::default()).await;
    let parity = built.expect("it does not wait for the round").remove(0).parity;
    assert_eq!(parity.differences.expect("compared").count, 0);
    live.rollback().await.expect("the round ends");
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_does_not_throw_an_unfinished_rebuild_away_and_a_rebuild_does_not_go_on_with_a_preview() {
    let history = History::of(6, 2).await;
    let options = RebuildOptions::default();
    let (pool, models) = (&history.database.owner_pool, [model("wallet_balance")]);
    // As a rebuild that was killed leaves it.
    let half_done = |fold: &str| {
        format!(
            "DROP TABLE IF EXISTS read_next.wallet_balance; \
             CREATE TABLE read_next.wallet_balance (LIKE read.wallet_balance INCLUDING ALL); \
             DELETE FROM checkpoints WHERE projection = 'wallet_balance' AND version = 2; \
             INSERT INTO checkpoints (projection, version, partition, position) \
                 SELECT 'wallet_balance', 2, partition, last_position FROM partitions; \
             UPDATE projections SET building_version = 2, building_fold = {fold} WHERE name = 'wallet_balance'"
        )
    };
    history.run(&half_done(&format!("'{}'", calos_projections::FOLD_FINGERPRINT))).await;
    let refused = preview(pool, &models, &operator(), None, false, &options).await;
    assert!(matches!(&refused, Err(ToolError::Refused(why)) if why.contains("--restart")), "{refused:?}");
    assert_eq!(history.number("SELECT count(*) FROM projections WHERE building_version = 2").await, 1);
    let restart = RebuildOptions { restart: true, ..options };
    preview(pool, &models, &operator(), None, false, &restart).await.expect("it is forgotten");
    assert_eq!((history.number(SHAPE).await, history.number(LEFT).await), (0, 0));

    // What a killed preview left is nothing to go on with, and in nobody's way.
    history.run(&half_done("'preview'")).await;
    let report = history.rebuild("wallet_balance").await.expect("the rebuild ends");
    assert_eq!((report.resumed_partitions, report.parity.differences.expect("compared").count), (0, 0));
    history.log.close().await;
}
