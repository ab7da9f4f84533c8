//! A rebuild mends what is wrong, says exactly what that was, and loses nothing on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use calos_projections::{Runner, RunnerOptions};
use calos_replay::ToolError;
use calos_replay::diff::diff;
use calos_replay::progress::Show;
use calos_replay::rebuild::RebuildOptions;
use calos_replay::write_guard::{Assent, confirm};

use crate::history::{COST, GRANTED, History, model, names, operator, spend};

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_balance_is_named_by_diff_and_cured_by_a_rebuild_that_reports_just_that() {
    let history = History::of(8, 3).await;
    let tenant = history.tenants[5];
    history.run(&format!("UPDATE read.wallet_balance SET available = 777 WHERE tenant_id = '{tenant}'")).await;

    let before = diff(&history.database.owner_pool, model("wallet_balance"), 10, Show::Silent).await.expect("a diff");
    assert_eq!((before.differences.count, before.version), (1, 1));
    let difference = &before.differences.listed[0];
    assert_eq!(difference.key["tenant_id"], tenant.to_string());
    assert_eq!(difference.live.as_ref().expect("a row")["available"], 777);
    assert_eq!(difference.log.as_ref().expect("a row")["available"], GRANTED - 3 * COST);
    let text = difference.to_string();
    assert!(text.contains(&format!("available is 777, the log gives {}", GRANTED - 3 * COST)), "{text}");
    assert_eq!(history.number("SELECT count(*) FROM read.wallet_balance WHERE available = 777").await, 1);

    let report = history.rebuild("wallet_balance").await.expect("the rebuild ends");
    assert_eq!((report.from_version, report.to_version), (1, 2));
    assert_eq!(report.parity.differences.as_ref().expect("compared"), &before.differences);
    assert_eq!(history.number("SELECT count(*) FROM read.wallet_balance WHERE available = 777").await, 0);
    // The version before stays beside it, as it was.
    assert_eq!(history.number("SELECT count(*) FROM read_old.wallet_balance WHERE available = 777").await, 1);

    history.catch_up().await;
    let report = history.verify().await;
    assert!(report.passed, "{:?}", report.first());
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_leaves_a_trace_of_who_when_and_why_in_the_log() {
    let history = History::of(2, 1).await;
    history.rebuild("wallet_balance").await.expect("the rebuild ends");
    let facts: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT event_type, payload -> event_type ->> 'operator', metadata ->> 'reason' FROM events \
         WHERE aggregate_type = 'operation' ORDER BY sequence",
    )
    .fetch_all(&history.database.owner_pool)
    .await
    .expect("the events are read");
    let fact = |name: &str| (name.to_owned(), "olga".to_owned(), "the balance looked wrong".to_owned());
    assert_eq!(facts, [fact("rebuild_started"), fact("projection_rebuilt"), fact("projection_switched")]);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_missing_or_should_not_be_there_are_reported_with_their_side() {
    let history = History::of(4, 1).await;
    let (gone, grown) = (history.tenants[0], uuid::Uuid::nil());
    history
        .run(&format!(
            "UPDATE read.wallet_balance SET tenant_id = '{grown}' WHERE tenant_id = '{gone}' AND asset = 'USD'"
        ))
        .await;
    let report = diff(&history.database.owner_pool, model("wallet_balance"), 10, Show::Silent).await.expect("a diff");
    let sides: Vec<(String, bool, bool)> = report
        .differences
        .listed
        .iter()
        .map(|found| {
            let key = found.key["tenant_id"].as_str().expect("an id").to_owned();
            (key, found.live.is_some(), found.log.is_some())
        })
        .collect();
    assert_eq!(sides, [(grown.to_string(), true, false), (gone.to_string(), false, true)]);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_model_can_be_rebuilt_beside_the_live_one_and_in_place() {
    let history = History::of(6, 3).await;
    for name in names() {
        let report = history.rebuild(name).await.expect("the rebuild ends");
        assert_eq!(report.parity.differences.expect("compared").count, 0, "{name}");
        assert_eq!(report.dead_letters, 0, "{name}");
        history.catch_up().await;
        let in_place = RebuildOptions { in_place: true, ..RebuildOptions::default() };
        let report = history.rebuild_with(name, in_place).await.expect("the rebuild ends");
        assert_eq!((report.from_version, report.to_version), (2, 2), "{name}");
        assert_eq!(report.parity.differences.expect("compared").count, 0, "{name}");
        // A second one beside it drops the one before the last.
        assert_eq!(history.rebuild(name).await.expect("the rebuild ends").to_version, 3, "{name}");
    }
    history.catch_up().await;
    let report = history.verify().await;
    assert!(report.passed, "{:?}", report.first());
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_read_models_are_rebuilt_from_one_reading_each_as_far_as_its_live_version_had_read() {
    let history = History::of(8, 2).await;
    let tenant = history.tenants[2];
    // One is wrong, and one is far behind: neither keeps the others from being compared where they stand.
    history
        .run(&format!("UPDATE read.wallet_balance SET spent = 1 WHERE tenant_id = '{tenant}' AND asset = 'USD'"))
        .await;
    let (partition, head) = history.longest().await;
    history
        .run(&format!(
            "DELETE FROM read.usage_log WHERE partition = {partition} AND position > 3; \
             UPDATE checkpoints SET position = 3 WHERE projection = 'usage_log' AND partition = {partition}"
        ))
        .await;
    let all: Vec<&str> = names().collect();
    let reports = history.rebuild_all(&all).await.expect("the rebuild ends");
    assert_eq!(reports.iter().map(|report| report.projection).collect::<Vec<_>>(), all);
    for report in reports {
        let expected = i64::from(report.projection == "wallet_balance");
        assert_eq!(report.parity.differences.expect("compared").count, expected, "{}", report.projection);
        let compared_at = if report.projection == "usage_log" { 3 } else { head };
        assert_eq!(report.parity.positions[&partition], compared_at, "{}", report.projection);
        assert!(report.positions[&partition] >= head);
    }
    history.catch_up().await;
    let report = history.verify().await;
    assert!(report.passed, "{:?}", report.first());
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_that_stand_after_a_rebuild_have_every_key_index_and_right_of_the_ones_before() {
    let history = History::of(2, 1).await;
    let shape = "SELECT coalesce(string_agg(line, E'\\n' ORDER BY line), '') FROM (\
         SELECT indexdef AS line FROM pg_indexes WHERE schemaname = 'read' \
         UNION ALL SELECT table_name || ' ' || privilege_type FROM information_schema.role_table_grants \
         WHERE table_schema = 'read' AND grantee = 'calos_app') lines";
    let read = || async {
        let text: String =
            sqlx::query_scalar(shape).fetch_one(&history.database.owner_pool).await.expect("the catalogue is read");
        text
    };
    let before = read().await;
    assert!(before.contains("wallet_balance_pkey") && before.contains("wallet_balance UPDATE"), "{before}");
    for name in names() {
        history.rebuild(name).await.expect("the rebuild ends");
    }
    assert_eq!(read().await, before);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_dropped_is_built_anew_and_said_to_have_been_unreadable() {
    let history = History::of(3, 1).await;
    history.run("DROP TABLE read.wallet_balance").await;
    let report = history.rebuild("wallet_balance").await.expect("the rebuild ends");
    assert!(report.parity.differences.is_none());
    assert!(report.parity.unreadable.expect("a reason").contains("does not exist"));
    assert!(history.verify().await.passed);

    history.run("ALTER TABLE read.wallet_balance DROP COLUMN spent").await;
    let in_place = RebuildOptions { in_place: true, ..RebuildOptions::default() };
    let report = history.rebuild_with("wallet_balance", in_place).await.expect("the rebuild ends");
    assert!(report.parity.unreadable.is_some());
    history.catch_up().await;
    assert!(history.verify().await.passed);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_a_rebuild_runs_while_writers_append_and_readers_read() {
    let history = Arc::new(History::of(12, 4).await);
    let heads = history.log.heads();
    let runner =
        Runner::start(history.database.pool.clone(), heads, RunnerOptions::default()).await.expect("it starts");
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = history
        .tenants
        .iter()
        .map(|&tenant| {
            let (log, stop) = (history.log.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut uses = 0;
                while !stop.load(Ordering::Relaxed) {
                    spend(&log, tenant).await;
                    uses += 1;
                }
                uses
            })
        })
        .collect();
    let readers = {
        let (pool, stop) = (history.database.pool.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM read.wallet_balance WHERE asset = 'USD'")
                    .fetch_one(&pool)
                    .await
                    .expect("reads go on");
                assert_eq!(rows, 12);
            }
        })
    };
    for name in ["wallet_balance", "wallet_ledger", "usage_log", "wallet_balance"] {
        let report = history.rebuild(name).await.expect("the rebuild ends");
        assert_eq!(report.parity.differences.expect("compared").count, 0, "{name}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut uses = 12 * 4;
    for writer in writers {
        uses += writer.await.expect("no writer failed");
    }
    readers.await.expect("no reader failed");
    runner.shutdown().await;
    history.catch_up().await;
    assert!(uses > 12 * 4, "nobody wrote anything");
    let spent = history.number("SELECT sum(spent)::bigint FROM read.wallet_balance").await;
    assert_eq!(spent, uses * COST);
    assert_eq!(history.number("SELECT count(*) FROM read.usage_log").await, uses);
    let report = history.verify().await;
    assert!(report.passed, "{:?}", report.first());
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_while_tables_are_being_replaced_finds_nothing_that_is_not_there() {
    let history = Arc::new(History::of(4, 2).await);
    let stop = Arc::new(AtomicBool::new(false));
    let comparing = {
        let (history, stop) = (Arc::clone(&history), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut compared = 0;
            while !stop.load(Ordering::Relaxed) {
                let found = diff(&history.database.owner_pool, model("wallet_balance"), 10, Show::Silent).await;
                let found = found.expect("a diff");
                assert_eq!(found.differences.count, 0, "{:?}", found.differences.listed);
                compared += 1;
            }
            compared
        })
    };
    for round in 0..6 {
        let options = RebuildOptions { in_place: round % 2 == 0, ..RebuildOptions::default() };
        history.rebuild_with("wallet_balance", options).await.expect("the rebuild ends");
        history.catch_up().await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(comparing.await.expect("every comparison was right") > 0);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_cannot_be_projected_are_set_aside_by_a_rebuild_as_by_the_runner() {
    let history = History::of(3, 2).await;
    let (partition, _) = history.longest().await;
    // The wallet's first hold, as an event nobody knows: its later events have to wait behind it.
    history
        .tamper(&format!(
            "UPDATE events SET event_version = '9' WHERE (partition, position) = \
             (SELECT partition, position FROM events WHERE partition = {partition} AND event_type = 'hold_placed' \
              ORDER BY position LIMIT 1)"
        ))
        .await;
    let in_place = RebuildOptions { in_place: true, ..RebuildOptions::default() };
    let first = history.rebuild_with("wallet_balance", in_place).await.expect("the rebuild ends");
    assert!(first.dead_letters > 1, "{}", first.dead_letters);
    let second = history.rebuild("wallet_balance").await.expect("the rebuild ends");
    assert_eq!(second.dead_letters, first.dead_letters);
    assert_eq!(second.parity.differences.expect("compared").count, 0);

    let ran = "SELECT count(*) FROM dead_letters WHERE projection = 'wallet_balance' AND version = 2 AND parked";
    assert_eq!(history.number(ran).await, first.dead_letters - 1);
    // The runner, reading the same log from its beginning, sets the same events aside.
    history
        .run(
            "TRUNCATE read.wallet_balance; DELETE FROM dead_letters; \
             UPDATE checkpoints SET position = 0 WHERE projection = 'wallet_balance'",
        )
        .await;
    history.catch_up().await;
    let runner = "SELECT count(*) FROM dead_letters WHERE projection = 'wallet_balance' AND version = 2";
    assert_eq!(history.number(runner).await, first.dead_letters);
    let report = diff(&history.database.owner_pool, model("wallet_balance"), 10, Show::Silent).await.expect("a diff");
    assert_eq!((report.differences.count, report.dead_letters), (0, first.dead_letters));
    history.log.close().await;
}

#[test]
fn a_change_without_a_confirmation_is_refused_where_nobody_can_be_asked() {
    // The tests have no terminal; with one the question would wait for an answer that never comes.
    use std::io::IsTerminal;
    if !std::io::stdin().is_terminal() {
        assert!(matches!(confirm(Assent::Ask, "rebuild all"), Err(ToolError::Usage(_))));
    }
    assert_eq!(operator().operator, "olga");
}
