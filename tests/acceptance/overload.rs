//! More at once than the log can take in.

use std::time::Duration;

use calos_api::cli::TierName;
use calos_tests::app::{Answer, TestApp};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::json;

const CALLS: usize = 24;
/// With room for one command, one more is in the database, one sealed behind it and one waiting.
const LET_IN_MAX: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_a_503_that_says_when_to_come_back_and_changes_nothing() {
    let app = TestApp::start_with(&[("CALOS_QUEUE_COMMANDS", "1")]).await;
    let who = app.register().await;
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;
    app.chat(&key, "gpt-4").await.expect(200);
    let before = app.event_count().await;

    // The database stops taking appends, and nobody is told.
    let mut lock = app.database.owner_pool.begin().await.expect("a transaction");
    sqlx::query("SELECT FROM partitions FOR UPDATE").execute(&mut *lock).await.expect("the heads are locked");
    let mut calls: FuturesUnordered<_> = (0..CALLS)
        .map(|_| {
            let body = json!({"model": "gpt-4", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]});
            Answer::of(app.post("/v1/chat/completions", &body).bearer_auth(&key))
        })
        .collect();
    let mut turned_away = 0;
    while let Ok(Some(answer)) = tokio::time::timeout(Duration::from_secs(1), calls.next()).await {
        let answer = answer.expect(503);
        assert_eq!((&answer.body["error"]["code"], answer.header("retry-after")), (&json!("overloaded"), "1"));
        turned_away += 1;
    }
    assert!((CALLS - LET_IN_MAX..CALLS).contains(&turned_away), "{turned_away} of {CALLS} were turned away");
    assert_eq!(app.event_count().await, before, "a call that was turned away changed something");

    // It goes on, and whoever was let in is served.
    lock.rollback().await.expect("the heads are free");
    let mut served = 0;
    while let Some(answer) = calls.next().await {
        served += usize::from(answer.status.is_success());
    }
    assert!(served > 0, "nobody was served");
    app.chat(&key, "gpt-4").await.expect(200);
    app.stop().await;
}
