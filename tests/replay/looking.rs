//! Status, balances and events, as an operator asks for them.

use std::time::Duration;

use calos_domain::{Asset, TenantId};
use calos_replay::ToolError;
use calos_replay::balance::{BalanceAt, balance};
use calos_replay::events::{EventFilter, events};
use calos_replay::status::{SPEED_MEASURED_MILLISECONDS, measured, status};
use uuid::Uuid;

use crate::history::{COST, GRANTED, History, now};

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_every_projection_and_how_far_it_is() {
    let history = History::of(4, 1).await;
    let shown = status(&history.database.owner_pool).await.expect("a status");
    assert_eq!(shown.heads.len(), 16);
    assert!(shown.projections.iter().all(|projection| projection.lag_events == 0 && projection.state == "live"));
    history.run("UPDATE checkpoints SET position = 0 WHERE projection = 'usage_log'").await;
    let shown = status(&history.database.owner_pool).await.expect("a status");
    let behind = shown.projections.iter().find(|projection| projection.name == "usage_log").expect("it is there");
    assert_eq!(behind.lag_events, 4 * 5);
    assert!(behind.lag_seconds > 0.0);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_is_behind_by_the_age_of_the_oldest_event_it_has_not_read_and_its_speed_is_measured() {
    let history = History::of(4, 1).await;
    let (partition, head) = history.longest().await;
    // Its oldest unread event was recorded an hour ago, and the one after it only just now.
    let unread = head - 1;
    history
        .tamper(&format!(
            "UPDATE events SET recorded_at = now() - interval '1 hour' WHERE partition = {partition} AND position = {unread}"
        ))
        .await;
    let back = format!(
        "UPDATE checkpoints SET position = {} WHERE projection = 'usage_log' AND partition = {partition}",
        unread - 1
    );
    history.run(&back).await;
    let pool = history.database.owner_pool.clone();
    let looking = tokio::spawn(async move { measured(&pool).await.expect("a status") });
    tokio::time::sleep(Duration::from_millis(SPEED_MEASURED_MILLISECONDS / 4)).await;
    // Half of what was unread is taken between the two looks.
    history
        .run(&format!(
            "UPDATE checkpoints SET position = {unread} WHERE projection = 'usage_log' AND partition = {partition}; \
             UPDATE checkpoints SET position = position - 2 WHERE projection = 'tenants' AND partition = {partition}"
        ))
        .await;
    let shown = looking.await.expect("it ends");
    let of = |name: &str| shown.projections.iter().find(|projection| projection.name == name).expect("it is there");
    let usage = of("usage_log");
    assert_eq!(usage.lag_events, 1);
    assert!(usage.lag_seconds < 60.0, "{} s", usage.lag_seconds);
    let speed = usage.events_per_second.expect("it was measured");
    let most = 1_000.0 / SPEED_MEASURED_MILLISECONDS as f64;
    assert!(speed > 0.0 && speed <= most, "{speed}");
    assert_eq!(of("wallet_ledger").events_per_second, Some(0.0));
    let older = of("tenants").partitions.iter().find(|at| at.partition == partition).expect("it is there");
    assert_eq!(older.lag_events, 2);
    assert!((3_599.0..3_700.0).contains(&older.lag_seconds), "{} s", older.lag_seconds);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_as_known_at_a_moment_stays_what_it_was() {
    let history = History::of(1, 2).await;
    let (tenant, pool) = (history.tenants[0], &history.database.owner_pool);
    let moment = now();
    let known = BalanceAt { as_known_at: Some(moment), as_of: None };
    let before = balance(pool, tenant, known, Some(Asset::Usd)).await.expect("a balance");
    assert_eq!(before.assets[0].available.get(), GRANTED - 2 * COST);
    crate::history::spend(&history.log, tenant).await;
    assert_eq!(balance(pool, tenant, known, Some(Asset::Usd)).await.expect("a balance"), before);
    let after = balance(pool, tenant, BalanceAt::default(), None).await.expect("a balance");
    assert_eq!(after.assets.len(), 2);
    assert_eq!(after.assets[0].available.get(), GRANTED - 3 * COST);
    let nobody = balance(pool, TenantId(Uuid::nil()), BalanceAt::default(), None).await;
    assert!(matches!(nobody, Err(ToolError::Usage(_))));
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_filtered_and_limited() {
    let history = History::of(3, 2).await;
    let pool = &history.database.owner_pool;
    let stream = Some(("wallet".to_owned(), history.tenants[1].to_string()));
    let shown = async |filter: EventFilter| {
        let mut lines = Vec::new();
        let collect = |line: &calos_replay::events::EventLine| {
            lines.push((line.stream.clone(), line.sequence, line.event_type.clone()));
            Ok(())
        };
        events(pool, &filter, false, collect).await.expect("the events are read");
        lines
    };
    let all = shown(EventFilter { stream: stream.clone(), ..EventFilter::default() }).await;
    assert_eq!(all.iter().map(|line| line.1).collect::<Vec<_>>(), (1..=8).collect::<Vec<i64>>());
    let deducted =
        shown(EventFilter { stream, event_type: Some("credits_deducted".to_owned()), ..EventFilter::default() }).await;
    assert_eq!(deducted.len(), 2);
    assert_eq!(shown(EventFilter { limit: Some(5), ..EventFilter::default() }).await.len(), 5);
    assert_eq!(shown(EventFilter { to: Some(now()), ..EventFilter::default() }).await.len(), 24);
    assert_eq!(shown(EventFilter { from: Some(now()), ..EventFilter::default() }).await.len(), 0);
    history.log.close().await;
}
