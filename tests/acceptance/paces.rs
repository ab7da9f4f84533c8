//! What one person may do for good in a short time, how many tenants they may have, and what outlives its connection.

#![expect(clippy::expect_used, reason = "a test's helper fails the test")]

use std::time::Duration;

use calos_tests::app::{Answer, Registered, TestApp};
use calos_tests::database::TestDatabase;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use uuid::Uuid;

use super::identity::{ok, refused};

/// A key as OpenAI issues them, and the simulated provider takes them.
const OWN_KEY: &str = "sk-proj-0123456789abcdefghijklmnop-wxyz";

async fn start() -> (TestApp, Registered) {
    let app = TestApp::start().await;
    let who = app.register().await;
    (app, who)
}

async fn issue(app: &TestApp, who: &Registered, body: &Value) -> (String, String) {
    let path = format!("/api/tenants/{}/keys", who.tenant_id);
    let issued = ok(app.post(&path, body).bearer_auth(&who.token), 201).await;
    let text = |field: &str| issued.body[field].as_str().expect("a text").to_owned();
    (text("key"), text("keyId"))
}

fn of_key(app: &TestApp, who: &Registered, method: Method, key_id: &str) -> RequestBuilder {
    let path = format!("/api/tenants/{}/keys/{key_id}", who.tenant_id);
    app.client.request(method, app.url(&path)).bearer_auth(&who.token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_creates_ten_tenants_and_the_eleventh_is_refused() {
    let (app, who) = start().await;
    let create = |name: &str| app.post("/api/tenants", &json!({"name": name})).bearer_auth(&who.token);
    for number in 0..10 {
        ok(create(&format!("Acme {number}")), 201).await;
    }
    let events = app.event_count().await;
    refused(create("Acme 10"), 403, "too_many_tenants").await;
    assert_eq!(app.event_count().await, events);
    let other = app.register().await;
    ok(app.post("/api/tenants", &json!({"name": "Other"})).bearer_auth(&other.token), 201).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_keys_without_end_is_slowed_down_and_can_still_revoke() {
    let (app, who) = start().await;
    let (key, id) = issue(&app, &who, &json!({})).await;
    let mut slowed = None;
    for number in 0..200 {
        let change = of_key(&app, &who, Method::PATCH, &id).json(&json!({"name": format!("key {number}")}));
        let answer = Answer::of(change).await;
        if answer.status == 429 {
            slowed = Some((number, answer));
            break;
        }
        answer.expect(200);
    }
    let (number, answer) = slowed.expect("nobody was slowed down");
    assert!((60..100).contains(&number), "{number}");
    assert_eq!(answer.body["code"], "too_many_attempts");
    assert!(!answer.header("retry-after").is_empty());
    refused(app.post("/api/tenants", &json!({"name": "Acme"})).bearer_auth(&who.token), 429, "too_many_attempts").await;
    let path = format!("/api/tenants/{}", who.tenant_id);
    let strict = app.client.patch(app.url(&path)).json(&json!({"strictModels": true})).bearer_auth(&who.token);
    refused(strict, 429, "too_many_attempts").await;
    ok(of_key(&app, &who, Method::DELETE, &id), 204).await;
    refused(app.get("/api/credits/balance").bearer_auth(&key), 401, "invalid_api_key").await;
    let mut ended = 1;
    while Answer::of(of_key(&app, &who, Method::DELETE, &id)).await.status == 204 {
        ended += 1;
        assert!(ended < 200, "ending has no pace");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_asked_about_ten_keys_at_once_and_what_is_no_key_is_not_counted() {
    let (app, who) = start().await;
    let add = |key: &str| {
        let body = json!({"provider": "openai", "apiKey": key});
        app.post("/api/byok/add", &body).bearer_auth(&who.token)
    };
    for _ in 0..20 {
        refused(add("short"), 400, "invalid_field").await;
    }
    let stranger = app.register().await;
    for _ in 0..20 {
        let body = json!({"provider": "openai", "apiKey": OWN_KEY, "tenantId": who.tenant_id});
        refused(app.post("/api/byok/add", &body).bearer_auth(&stranger.token), 404, "not_found").await;
    }
    for _ in 0..10 {
        ok(add(OWN_KEY), 201).await;
    }
    refused(add(OWN_KEY), 429, "too_many_attempts").await;
    let theirs = json!({"provider": "openai", "apiKey": OWN_KEY});
    let theirs = app.post("/api/byok/add", &theirs).bearer_auth(&stranger.token);
    refused(theirs, 429, "too_many_attempts").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_keys_are_listed_before_the_ended_ones() {
    let (app, who) = start().await;
    let (_, oldest) = issue(&app, &who, &json!({})).await;
    let (_, revoked) = issue(&app, &who, &json!({})).await;
    let (_, newest) = issue(&app, &who, &json!({})).await;
    let done = ok(of_key(&app, &who, Method::DELETE, &revoked), 204).await;
    let list = app.get(&format!("/api/tenants/{}/keys", who.tenant_id)).bearer_auth(&who.token);
    let list = ok(list.header("calos-after", done.header("calos-position")), 200).await;
    let ids: Vec<_> = list.body["keys"].as_array().expect("keys").iter().map(|line| line["keyId"].clone()).collect();
    assert_eq!(ids, [newest, oldest, revoked]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_are_too_long_together_are_refused() {
    let (app, who) = start().await;
    let models: Vec<_> = (0..90).map(|number| format!("{number:0100}")).collect();
    let path = format!("/api/tenants/{}/keys", who.tenant_id);
    let large = app.post(&path, &json!({"models": models})).bearer_auth(&who.token);
    assert_eq!(refused(large, 400, "invalid_field").await.body["bytes"], 9_000);
    let (_, id) = issue(&app, &who, &json!({"models": models[..81]})).await;
    refused(of_key(&app, &who, Method::PATCH, &id).json(&json!({"models": models})), 400, "invalid_field").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_used_for_one_tenant_gives_no_answer_for_another() {
    let app = TestApp::over(TestDatabase::with_partitions(2).await).await;
    let who = app.register().await;
    let partition = |tenant: &Uuid| app.running.app().log.partition_of(&tenant.to_string());
    let add = |tenant: &Uuid| {
        let body = json!({"provider": "openai", "apiKey": OWN_KEY});
        let request = app.post("/api/byok/add", &body).bearer_auth(&who.token).header("idempotency-key", "order-1");
        request.header("x-calos-tenant", tenant.to_string())
    };
    // Answers are kept in the tenant's partition; only one in the same could ever be taken for another's.
    let mut tenants = vec![who.tenant_id];
    let (first, second) = loop {
        let create = app.post("/api/tenants", &json!({"name": "Acme"})).bearer_auth(&who.token);
        let created: Uuid = ok(create, 201).await.body["tenantId"].as_str().expect("an id").parse().expect("an id");
        match tenants.iter().find(|tenant| partition(tenant) == partition(&created)) {
            Some(beside) => break (*beside, created),
            None => tenants.push(created),
        }
    };
    ok(add(&first), 201).await;
    let answer = refused(add(&second), 409, "idempotency_key_reused").await;
    assert_eq!(answer.header("idempotent-replayed"), "");
    assert_eq!(ok(add(&first), 201).await.header("idempotent-replayed"), "true");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_no_wallet_counts_are_limited_by_the_key_too() {
    let (app, who) = start().await;
    let (key, _) = issue(&app, &who, &json!({"limits": {"perMinute": 2, "perHour": 100, "perDay": 100}})).await;
    let models = || app.get("/v1/models").bearer_auth(&key);
    let body = json!({"model": "llama2", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    ok(models(), 200).await;
    ok(app.post("/v1/messages/count_tokens", &body).bearer_auth(&key), 200).await;
    let refused = Answer::of(models()).await.expect(429);
    assert_eq!(refused.body["error"]["code"], "rate_limit_exceeded");
    assert!(!refused.header("retry-after").is_empty());
    Answer::of(app.post("/v1/messages/count_tokens", &body).bearer_auth(&key)).await.expect(429);
    app.chat(&key, "llama2").await.expect(200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_revoked_by_somebody_who_hung_up_opens_nothing() {
    let (app, who) = start().await;
    for wait_micros in [0, 300, 1_000, 2_000, 4_000, 8_000] {
        let (key, id) = issue(&app, &who, &json!({})).await;
        let call = || app.get("/api/credits/balance").bearer_auth(&key);
        ok(call(), 200).await;
        let events = app.event_count().await;
        let mut socket = TcpStream::connect(app.address).await.expect("a connection");
        let request = format!(
            "DELETE /api/tenants/{}/keys/{id} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\r\n",
            who.tenant_id, app.address, who.token
        );
        socket.write_all(request.as_bytes()).await.expect("it is sent");
        tokio::time::sleep(Duration::from_micros(wait_micros)).await;
        drop(socket);
        tokio::time::sleep(Duration::from_millis(300)).await;
        // It was dropped before anything was decided, or it is revoked to the end.
        if app.event_count().await > events {
            refused(call(), 401, "invalid_api_key").await;
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_hands_out_no_fresh_limits_and_no_fresh_budget() {
    let (app, who) = start().await;
    let limits = json!({"limits": {"perMinute": 2, "perHour": 100, "perDay": 100}});
    let (first, first_id) = issue(&app, &who, &limits).await;
    app.chat(&first, "llama2").await.expect(200);
    let rotate = async |id: &str| {
        let path = format!("/api/tenants/{}/keys/{id}/rotate", who.tenant_id);
        let rotated = ok(app.post(&path, &json!({"overlapSeconds": 600})).bearer_auth(&who.token), 201).await;
        let text = |field: &str| rotated.body[field].as_str().expect("a text").to_owned();
        (text("key"), text("keyId"))
    };
    let (second, second_id) = rotate(&first_id).await;
    let answer = app.chat(&second, "llama2").await.expect(200);
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), "0");
    app.chat(&first, "llama2").await.expect(429);
    let (third, _) = rotate(&second_id).await;
    app.chat(&third, "llama2").await.expect(429);
    app.stop().await;
}
