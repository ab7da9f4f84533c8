//! Starting beside each other, and ending in order.

use std::time::Duration;

use calos_api::cli::TierName;
use calos_tests::app::{Answer, TestApp};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_flight_is_answered_although_the_server_is_asked_to_stop() {
    let app = TestApp::start().await;
    let who = app.register().await;
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;
    let slow = json!({"model": "gpt-4", "max_tokens": 20,
        "messages": [{"role": "user", "content": "[[first_byte_delay_ms=800]] hello"}]});
    let call = app.post("/v1/chat/completions", &slow).bearer_auth(&key);
    let call = tokio::spawn(Answer::of(call));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let url = app.url("/health");
    let TestApp { running, client, database, .. } = app;
    running.stop(Duration::from_secs(5)).await;
    let answer = call.await.expect("the call ends").expect(200);
    let charged = answer.body["billing"]["total_cost_micros"].as_i64().expect("a charge");
    assert!(charged > 0);
    assert!(client.get(url).send().await.is_err(), "nobody listens any more");
    let settled = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM events WHERE event_type = 'credits_deducted'");
    assert_eq!(settled.fetch_one(&database.pool).await.expect("the log can be read"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_over_one_database_see_each_others_writes() {
    let app = TestApp::start().await;
    let beside = app.start_beside().await;
    let who = app.register().await;
    let read = |address| {
        let request = app.client.get(format!("http://{address}/api/credits/balance"));
        Answer::of(request.bearer_auth(&who.token).header("calos-after", &who.position))
    };
    let here = read(app.address).await.expect(200);
    let there = read(beside.address()).await.expect(200);
    assert_eq!(here.body, there.body);
    beside.stop(Duration::from_secs(5)).await;
    let here = read(app.address).await.expect(200);
    assert_eq!(here.body["balance_micros"], 10_000_000);
    app.stop().await;
}
