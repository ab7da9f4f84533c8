//! Reading one's own writes.

use std::time::{Duration, Instant};

use calos_api::cli::TierName;
use calos_tests::app::{Answer, TestApp};

#[tokio::test(flavor = "multi_thread")]
async fn a_read_after_a_write_has_seen_it_every_time() {
    let app = TestApp::start().await;
    let who = app.register().await;
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;
    let mut spent = 0;
    for _ in 0..10 {
        let chat = app.chat(&key, "gpt-4").await.expect(200);
        spent += chat.body["billing"]["total_cost_micros"].as_i64().expect("a charge");
        let balance = app.get("/api/credits/balance").bearer_auth(&key);
        let balance = Answer::of(balance.header("calos-after", chat.header("calos-position"))).await.expect(200);
        assert_eq!(balance.body["balance_micros"], 10_000_000 - spent);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_not_reached_in_two_seconds_is_a_503_that_says_when_to_come_back() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let began = Instant::now();
    let balance = app.get("/api/credits/balance").bearer_auth(&who.token).header("calos-after", "0:999999999");
    let balance = Answer::of(balance).await.expect(503);
    let took = began.elapsed();
    assert_eq!((balance.body["code"].as_str(), balance.header("retry-after")), (Some("projection_behind"), "1"));
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(4), "{took:?}");
    app.stop().await;
}
