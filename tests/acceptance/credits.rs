//! Balance, ledger and usage: their shapes, their pages, and that they tell the same story.

use std::collections::BTreeSet;

use calos_api::cli::TierName;
use calos_tests::app::{Answer, TestApp};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_tenant_has_its_trial_and_its_credits() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let balance = app.get("/api/credits/balance").bearer_auth(&who.token).header("calos-after", &who.position);
    let balance = Answer::of(balance).await.expect(200);
    assert_eq!(
        balance.body,
        json!({
            "tenantId": who.tenant_id, "balance_cents": 1_000, "balance_micros": 10_000_000, "held_micros": 0,
            "credits_remaining": 100, "credits_held": 0, "subscription_tier": "free",
        })
    );
    let ledger = app.get("/api/credits/ledger").bearer_auth(&who.token).header("calos-after", &who.position);
    let ledger = Answer::of(ledger).await.expect(200);
    assert!(ledger.body["nextCursor"].is_null());
    let entries = ledger.body["entries"].as_array().expect("entries");
    assert_eq!(entries.len(), 2, "{}", ledger.text);
    for entry in entries {
        assert_eq!((&entry["type"], &entry["reason"]), (&json!("credits_granted"), &json!("trial")), "{}", ledger.text);
        assert_eq!(entry["amount"], entry["balanceAfter"]);
        assert!(entry["recordedAt"].as_str().is_some_and(|text| text.ends_with('Z')), "{}", ledger.text);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_key_reads_the_same_balance_as_a_session() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let key = app.issue_key(&who).await;
    let read = |token: &str| {
        app.get("/api/credits/balance").bearer_auth(token.to_owned()).header("calos-after", &who.position)
    };
    let by_session = Answer::of(read(&who.token)).await.expect(200);
    let by_key = Answer::of(read(&key)).await.expect(200);
    assert_eq!(by_session.body, by_key.body);
    let stranger = app.register().await;
    let other = Answer::of(read(&stranger.token)).await.expect(200);
    assert_eq!(other.body["tenantId"], json!(stranger.tenant_id));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_join_without_gap_or_overlap_and_their_bounds_are_kept() {
    let app = TestApp::start().await;
    let who = app.register().await;
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;
    let mut position = String::new();
    for _ in 0..5 {
        let chat = app.chat(&key, "gpt-4").await.expect(200);
        position = chat.header("calos-position").to_owned();
    }
    assert!(!position.is_empty(), "a chat call says where it landed");
    for (path, rows, id) in [("ledger", "entries", "position"), ("usage", "usage", "usageId")] {
        let page = async |query: &str| {
            let request = app.get(&format!("/api/credits/{path}{query}")).bearer_auth(&who.token);
            Answer::of(request.header("calos-after", &position)).await
        };
        let whole = page("?limit=200").await.expect(200);
        let all: Vec<_> = whole.body[rows].as_array().expect("rows").iter().map(|row| row[id].to_string()).collect();
        assert!(all.len() >= 5 && whole.body["nextCursor"].is_null(), "{}", whole.text);
        let mut seen = Vec::new();
        let mut query = "?limit=2".to_owned();
        loop {
            let part = page(&query).await.expect(200);
            let found = part.body[rows].as_array().expect("rows").clone();
            assert!((1..=2).contains(&found.len()), "{}", part.text);
            seen.extend(found.iter().map(|row| row[id].to_string()));
            let Some(cursor) = part.body["nextCursor"].as_str() else { break };
            query = format!("?limit=2&cursor={cursor}");
        }
        assert_eq!(seen, all, "{path}");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
        for bad in ["?limit=0", "?limit=201", "?limit=-1", "?limit=x", "?cursor=x", "?cursor=-5", "?page=2"] {
            let refused = page(bad).await.expect(400);
            assert_eq!(refused.body["code"], "invalid_field", "{path}{bad}: {}", refused.text);
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_charge_is_the_price_books_and_the_ledger_adds_up() {
    let app = TestApp::start().await;
    let who = app.register().await;
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;
    let mut charged = 0;
    let mut position = String::new();
    for _ in 0..3 {
        let chat = app.chat(&key, "gpt-4").await.expect(200);
        let (prompt, completion) = (&chat.body["usage"]["prompt_tokens"], &chat.body["usage"]["completion_tokens"]);
        let provider = prompt.as_i64().expect("tokens") * 30 + completion.as_i64().expect("tokens") * 60;
        let total = provider + (provider * 30 + 50) / 100;
        assert_eq!(chat.body["billing"]["total_cost_micros"], total, "{}", chat.text);
        charged += total;
        position = chat.header("calos-position").to_owned();
    }
    let read = |path: &str| app.get(path).bearer_auth(&who.token).header("calos-after", &position);
    let balance = Answer::of(read("/api/credits/balance")).await.expect(200);
    assert_eq!(balance.body["balance_micros"], 10_000_000 - charged);
    assert_eq!(balance.body["held_micros"], 0);
    let ledger = Answer::of(read("/api/credits/ledger")).await.expect(200);
    let entries = ledger.body["entries"].as_array().expect("entries");
    let usd = || entries.iter().filter(|entry| entry["asset"] == "USD");
    assert_eq!(usd().map(|entry| entry["amount"].as_i64().expect("an amount")).sum::<i64>(), 10_000_000 - charged);
    assert_eq!(usd().next().expect("a line")["balanceAfter"], 10_000_000 - charged);
    app.stop().await;
}
