//! Starting beside each other, and ending in order.

use std::time::Duration;

use calos_api::cli::{Role, TierName};
use calos_tests::app::{Answer, Registered, TestApp};
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
async fn a_server_that_is_about_to_stop_says_so_and_goes_on_until_it_does() {
    let app = TestApp::start().await;
    let (who, operator) = (app.register().await, app.staff(Role::Operator).await);
    let get = |path: &str, who: &Registered| {
        Answer::of(app.get(path).bearer_auth(&who.token).header("calos-after", &who.position))
    };
    get("/readyz", &who).await.expect(200);
    app.running.say_not_ready(Duration::ZERO).await;
    let not_ready = get("/readyz", &who).await.expect(503);
    assert!(not_ready.text.contains("the server is stopping"), "{}", not_ready.text);

    // Whole, and not broken off behind a 200.
    let statement = get("/api/credits/statement?format=csv", &who).await.expect(200);
    assert!(statement.text.contains("\r\nclosing,"), "{}", statement.text);
    let export = get("/api/finance/export?format=csv", &operator).await.expect(200);
    assert!(export.text.contains(&who.tenant_id.to_string()), "{}", export.text);
    Answer::of(app.client.post(app.url("/api/finance/verify")).bearer_auth(&operator.token)).await.expect(202);
    let checked = async || {
        loop {
            let look = get("/api/finance/verify", &operator).await.expect(200);
            if look.body["running"].is_null() {
                return look;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let checked = tokio::time::timeout(Duration::from_secs(20), checked()).await.expect("the check ends");
    assert_eq!(checked.body["last"]["passed"], true, "{}", checked.text);
    app.stop().await;
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
