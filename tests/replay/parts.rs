//! A part of a read model put right: exactly the rows of one tenant or stream, at the position they stand at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calos_adapters::postgres::partitioning::partition_of;
use calos_domain::TenantId;
use calos_projections::{Runner, RunnerOptions, registry};
use calos_replay::diff::diff;
use calos_replay::progress::Show;
use calos_replay::rebuild::only::{Only, OnlyReports, repair_only};
use calos_replay::write_guard::{Assent, confirm};
use calos_replay::{ReadModel, ToolError};

use crate::history::{COST, GRANTED, History, model, operator, spend};

fn only(text: &str) -> Only {
    text.parse().expect("it can be named")
}

async fn put_right(history: &History, models: &[ReadModel], what: &Only) -> Result<OnlyReports, ToolError> {
    let confirmed = confirm(Assent::Given, "rebuild").expect("it is confirmed");
    let pool = &history.database.owner_pool;
    repair_only(pool, &history.log, models, what, &operator(), Some(&confirmed), 10).await
}

async fn differing(history: &History, name: &str) -> i64 {
    let found = diff(&history.database.owner_pool, model(name), 10, Show::Silent).await.expect("a diff");
    found.differences.count
}

/// Two tenants whose events lie in one partition.
fn neighbours(history: &History) -> (TenantId, TenantId) {
    let of = |tenant: &TenantId| partition_of(&tenant.to_string(), 16);
    let tenants = &history.tenants;
    let found = tenants.iter().enumerate().find_map(|(index, one)| {
        let other = tenants[index + 1..].iter().find(|other| of(other) == of(one))?;
        Some((*one, *other))
    });
    found.expect("more tenants than partitions")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_wallets_rows_are_put_right_and_nobody_elses_are_touched() {
    let history = History::of(20, 3).await;
    let (mine, other) = neighbours(&history);
    history
        .run(&format!(
            "UPDATE read.wallet_balance SET available = 777 WHERE tenant_id IN ('{mine}', '{other}'); \
             DELETE FROM read.wallet_ledger WHERE tenant_id = '{mine}' AND position = (SELECT max(position) \
                 FROM read.wallet_ledger WHERE tenant_id = '{mine}'); \
             INSERT INTO read.open_holds (tenant_id, hold_id, partition, asset, amount, usage_id, placed_at, expires_at) \
                 SELECT tenant_id, gen_random_uuid(), partition, 'USD', 1, gen_random_uuid(), now(), now() \
                 FROM read.wallet_balance WHERE tenant_id IN ('{mine}', '{other}') AND asset = 'USD'"
        ))
        .await;
    let spoilt = differing(&history, "wallet_balance").await;
    let what = only(&format!("wallet:{mine}"));

    let looked =
        repair_only(&history.database.owner_pool, &history.log, registry::ALL, &what, &operator(), None, 10).await;
    let looked = looked.expect("it is looked at");
    assert_eq!(looked.repaired.iter().map(|report| report.differences.count).sum::<i64>(), spoilt / 2 + 2);
    assert_eq!(differing(&history, "wallet_balance").await, spoilt, "looking changes nothing");
    assert_eq!(history.number("SELECT count(*) FROM events WHERE aggregate_type = 'operation'").await, 0);

    let report = put_right(&history, &[model("wallet_balance")], &what).await.expect("it is put right");
    assert_eq!(report.repaired[0].differences.count, spoilt / 2, "{report:?}");
    assert_eq!(report.repaired[0].events, 2 + 3 * 3);
    assert_eq!(differing(&history, "wallet_balance").await, spoilt / 2);
    let wrong = "SELECT count(DISTINCT tenant_id) FROM read.wallet_balance WHERE available = 777";
    assert_eq!(history.number(wrong).await, 1);

    let reports = put_right(&history, registry::ALL, &what).await.expect("all that can be is put right");
    let repaired: Vec<_> =
        reports.repaired.iter().map(|report| (report.projection, report.differences.count)).collect();
    assert!(repaired.contains(&("wallet_ledger", 1)) && repaired.contains(&("open_holds", 1)), "{repaired:?}");
    let left_out: Vec<_> = reports.left_out.iter().map(|left| left.projection).collect();
    assert!(left_out.contains(&"trial_balance") && left_out.contains(&"journal"), "{left_out:?}");
    assert_eq!((differing(&history, "wallet_ledger").await, differing(&history, "open_holds").await), (0, 1));
    assert_eq!(history.number("SELECT max(live_version)::bigint FROM projections").await, 1);

    let facts: Vec<(String, Option<String>)> = sqlx::query_as(
        "SELECT event_type, payload -> event_type -> 'only' ->> 'stream' FROM events \
         WHERE aggregate_type = 'operation' AND event_type = ANY('{rebuild_started,projection_repaired}') ORDER BY \
         partition, position",
    )
    .fetch_all(&history.database.owner_pool)
    .await
    .expect("the facts are read");
    assert_eq!(facts.len(), 2 + 1 + repaired.len());
    assert!(facts.iter().all(|fact| fact.1.as_deref() == Some(&format!("wallet/{mine}"))), "{facts:?}");
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_rows_of_the_book_are_put_right_and_sums_over_tenants_stay() {
    let history = History::of(20, 2).await;
    let (mine, other) = neighbours(&history);
    let spoil = |tenant: TenantId| {
        format!(
            "UPDATE read.account_balances SET balance = balance + 1 WHERE tenant_id = '{tenant}'; \
             UPDATE read.wallet_days SET available = 0 WHERE tenant_id = '{tenant}'; \
             DELETE FROM read.journal WHERE tenant_id = '{tenant}'"
        )
    };
    history.run(&format!("{}; {}", spoil(mine), spoil(other))).await;
    // Somebody else's sums are wrong too, and no tenant's.
    history.run("UPDATE read.account_balances SET balance = balance - 5 WHERE account = 'Income:Usage:chat'").await;
    let models = ["account_balances", "wallet_days", "journal"].map(model);
    let before = [differing(&history, "account_balances").await, differing(&history, "wallet_days").await];
    let reports = put_right(&history, &models, &only(&format!("tenant:{mine}"))).await.expect("it is put right");
    assert!(reports.left_out.is_empty(), "{reports:?}");
    let put: Vec<i64> = reports.repaired.iter().map(|report| report.differences.count).collect();
    assert!(put.iter().all(|count| *count > 0), "{put:?}");
    assert!(reports.repaired[0].left_as_is.is_some_and(|why| why.contains("every tenant")));
    assert_eq!(differing(&history, "account_balances").await, before[0] - put[0]);
    assert_eq!(differing(&history, "wallet_days").await, before[1] - put[1]);
    assert_eq!(differing(&history, "journal").await, put[2], "the neighbour's are as many");
    let mine_only = |table: &str| format!("SELECT count(*) FROM read.{table} WHERE tenant_id = '{mine}'");
    assert!(history.number(&mine_only("journal")).await > 0);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_as_of_the_position_the_live_version_is_at_and_go_on_from_there() {
    let history = History::of(3, 2).await;
    let tenant = history.tenants[1];
    let balance = format!("SELECT available FROM read.wallet_balance WHERE tenant_id = '{tenant}' AND asset = 'USD'");
    spend(&history.log, tenant).await;
    history.run(&format!("UPDATE read.wallet_balance SET available = 1 WHERE tenant_id = '{tenant}'")).await;
    let what = only(&format!("wallet:{tenant}"));
    let report = put_right(&history, &[model("wallet_balance")], &what).await.expect("it is put right");
    assert_eq!(report.repaired[0].events, 2 + 2 * 3, "what the live version has not read is not folded");
    assert_eq!(history.number(&balance).await, GRANTED - 2 * COST);
    history.catch_up().await;
    assert_eq!(history.number(&balance).await, GRANTED - 3 * COST);
    assert!(history.verify().await.passed);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_rows_are_put_right_while_their_wallet_is_used() {
    let history = Arc::new(History::of(4, 2).await);
    let tenant = history.tenants[2];
    let heads = history.log.heads();
    let runner =
        Runner::start(history.database.pool.clone(), heads, RunnerOptions::default()).await.expect("it starts");
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (log, stop) = (history.log.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                spend(&log, tenant).await;
                // Each round folds all there is: a wallet used as fast as it can be makes them long.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    for round in 0..4 {
        history.run(&format!("UPDATE read.wallet_balance SET spent = {round} WHERE tenant_id = '{tenant}'")).await;
        let what = only(&format!("tenant:{tenant}"));
        put_right(&history, registry::ALL, &what).await.expect("it is put right");
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("the writer did not fail");
    runner.shutdown().await;
    history.catch_up().await;
    let report = history.verify().await;
    assert!(report.passed, "{:?}", report.first());
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_put_right_in_part_is_refused_with_what_to_do_instead() {
    let history = History::of(2, 2).await;
    let tenant = history.tenants[0];
    let why = async |name: &str, what: &str| match put_right(&history, &[model(name)], &only(what)).await {
        Err(ToolError::Refused(why)) => why,
        other => panic!("expected a refusal: {other:?}"),
    };
    let (of_tenant, of_wallet) = (format!("tenant:{tenant}"), format!("wallet:{tenant}"));
    assert!(why("trial_balance", &of_tenant).await.contains("rebuild it as a whole"));
    assert!(why("journal", &of_wallet).await.contains("--only tenant:"));
    assert!(why("wallet_balance", &format!("wallet:{}", uuid::Uuid::now_v7())).await.contains("the log has no wallet"));
    assert_eq!(history.number("SELECT count(*) FROM events WHERE aggregate_type = 'operation'").await, 0);

    // An event that is set aside is missing in the rows: neither with it nor without it would they be what they should.
    history
        .tamper(&format!(
            "UPDATE events SET event_version = '9' WHERE (partition, position) = (SELECT partition, position FROM events \
             WHERE aggregate_id = '{tenant}' AND event_type = 'hold_placed' ORDER BY position LIMIT 1)"
        ))
        .await;
    assert!(why("wallet_balance", &of_wallet).await.contains("cannot take"));
    history
        .run(
            "TRUNCATE read.wallet_balance; \
             UPDATE checkpoints SET position = 0 WHERE projection = 'wallet_balance'",
        )
        .await;
    history.catch_up().await;
    assert!(why("wallet_balance", &of_wallet).await.contains("dead-letters retry wallet_balance"));
    let fine = only(&format!("wallet:{}", history.tenants[1]));
    put_right(&history, &[model("wallet_balance")], &fine).await.expect("the other one has nothing set aside");
    history.log.close().await;
}
