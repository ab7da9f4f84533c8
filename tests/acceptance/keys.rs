//! Keys over their life: changed, rotated, restricted, bounded, and told the same everywhere.

#![expect(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

use std::time::Duration;

use calos_tests::app::{Answer, Registered, TestApp};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::identity::{ok, refused};

/// How long another process may go on believing what a key was.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(1);

struct Keys {
    app: TestApp,
    who: Registered,
}

impl Keys {
    async fn start() -> Self {
        let app = TestApp::start().await;
        let who = app.register().await;
        Self { app, who }
    }

    fn at(&self, method: Method, path: &str) -> RequestBuilder {
        let path = format!("/api/tenants/{}/keys{path}", self.who.tenant_id);
        self.app.client.request(method, self.app.url(&path)).bearer_auth(&self.who.token)
    }

    /// A new key, and its id.
    async fn issue(&self, body: &Value) -> (String, String) {
        let issued = ok(self.at(Method::POST, "").json(body), 201).await;
        (text(&issued.body["key"]), text(&issued.body["keyId"]))
    }

    fn change(&self, key_id: &str, body: &Value) -> RequestBuilder {
        self.at(Method::PATCH, &format!("/{key_id}")).json(body)
    }

    fn rotate(&self, key_id: &str, body: &Value) -> RequestBuilder {
        self.at(Method::POST, &format!("/{key_id}/rotate")).json(body)
    }

    async fn line(&self, key_id: &str, position: &str) -> Value {
        let list = ok(self.at(Method::GET, "").header("calos-after", position), 200).await;
        let lines = list.body["keys"].as_array().expect("keys").clone();
        lines.into_iter().find(|line| line["keyId"] == key_id).expect("the key is listed")
    }

    fn models(&self, key: &str) -> RequestBuilder {
        self.app.get("/v1/models").bearer_auth(key)
    }

    async fn chat(&self, key: &str) -> Answer {
        self.app.chat(key, "llama2").await
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn in_seconds(seconds: i64) -> String {
    let moment = time::OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    moment.format(&time::format_description::well_known::Rfc3339).expect("a moment")
}

async fn openai_refusal(request: RequestBuilder, status: u16, code: &str) {
    let answer = Answer::of(request).await.expect(status);
    assert_eq!(answer.body["error"]["code"], code, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_holds_for_the_next_call_and_leaves_the_rest_as_it_was() {
    let keys = Keys::start().await;
    let (key, id) = keys.issue(&json!({"name": "ci", "limits": {"perMinute": 1}, "models": ["llama2"]})).await;
    keys.chat(&key).await.expect(200);
    keys.chat(&key).await.expect(429);
    let changed = ok(keys.change(&id, &json!({"limits": {"perMinute": 3}})), 200).await;
    assert_eq!(changed.body["limits"], json!({"perMinute": 3, "perHour": 1_000, "perDay": 10_000}));
    assert_eq!((&changed.body["name"], &changed.body["models"]), (&json!("ci"), &json!(["llama2"])));
    let answer = keys.chat(&key).await.expect(200);
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), "1");

    ok(keys.change(&id, &json!({"endpoints": ["/v1/models"]})), 200).await;
    assert_eq!(keys.chat(&key).await.expect(403).body["error"]["code"], "endpoint_not_allowed");
    ok(keys.models(&key), 200).await;
    ok(keys.change(&id, &json!({"endpoints": null, "models": ["gpt-4"]})), 200).await;
    assert_eq!(keys.chat(&key).await.expect(403).body["error"]["code"], "model_not_allowed");
    ok(keys.change(&id, &json!({"models": null, "ipAllowlist": ["203.0.113.0/24"]})), 200).await;
    openai_refusal(keys.models(&key), 403, "address_not_allowed").await;
    let last =
        ok(keys.change(&id, &json!({"ipAllowlist": null, "name": "done", "budgets": {"perDayMicros": 7}})), 200).await;
    keys.chat(&key).await.expect(200);
    let line = keys.line(&id, last.header("calos-position")).await;
    assert_eq!((&line["name"], &line["endpoints"], &line["ipAllowlist"]), (&json!("done"), &Value::Null, &Value::Null));
    assert_eq!(line["budgets"], json!({"perDayMicros": 7, "perMonthMicros": null}));
    let position = ok(keys.change(&id, &json!({"budgets": null})), 200).await;
    assert_eq!(keys.line(&id, position.header("calos-position")).await["budgets"]["perDayMicros"], Value::Null);
    keys.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_makes_no_sense_is_refused_by_its_field() {
    let keys = Keys::start().await;
    let (_, id) = keys.issue(&json!({})).await;
    for (body, param) in [
        (json!({"limits": {"perMinute": 0}}), "limits"),
        (json!({"limits": {"perHour": 10}}), "limits"),
        (json!({"budgets": {"perDayMicros": -1}}), "budgets"),
        (json!({"budgets": {"perDay": 1}}), "budgets.perDay"),
        (json!({"endpoints": ["v1/models"]}), "endpoints"),
        (json!({"ipAllowlist": ["localhost"]}), "ipAllowlist"),
        (json!({"models": []}), "models"),
        (json!({"expiresAt": "2020-01-01T00:00:00Z"}), "expiresAt"),
        (json!({"name": " "}), "name"),
    ] {
        let answer = refused(keys.change(&id, &body), 400, "invalid_field").await;
        assert_eq!(answer.body["param"], param, "{body}");
    }
    let stranger = keys.app.register().await;
    let path = format!("/api/tenants/{}/keys/{id}", keys.who.tenant_id);
    let strange =
        keys.app.client.patch(keys.app.url(&path)).json(&json!({"name": "mine"})).bearer_auth(&stranger.token);
    refused(strange, 404, "not_found").await;
    refused(keys.change("zzzz9999", &json!({"name": "x"})), 404, "not_found").await;
    ok(keys.at(Method::DELETE, &format!("/{id}")), 204).await;
    refused(keys.change(&id, &json!({"name": "x"})), 409, "conflict").await;
    refused(keys.rotate(&id, &json!({})), 409, "conflict").await;
    keys.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_keys_overlap_and_then_only_the_new_one_opens() {
    let keys = Keys::start().await;
    let wish = json!({"name": "ci", "limits": {"perMinute": 7}, "budgets": {"perMonthMicros": 5_000_000}});
    let (old, old_id) = keys.issue(&wish).await;
    ok(keys.models(&old), 200).await;
    let rotated = ok(keys.rotate(&old_id, &json!({"overlapSeconds": 2})), 201).await;
    let (new, new_id) = (text(&rotated.body["key"]), text(&rotated.body["keyId"]));
    assert_eq!(rotated.body["replaces"], old_id);
    assert!(rotated.body["overlapEndsAt"].as_str().is_some_and(|at| at.ends_with('Z')));
    ok(keys.models(&new), 200).await;
    ok(keys.models(&old), 200).await;
    let line = keys.line(&new_id, rotated.header("calos-position")).await;
    assert_eq!(
        (&line["name"], &line["limits"]["perMinute"], &line["replaces"]),
        (&json!("ci"), &json!(7), &json!(old_id))
    );
    assert_eq!(line["budgets"]["perMonthMicros"], 5_000_000);
    let gone = keys.line(&old_id, rotated.header("calos-position")).await;
    assert_eq!((&gone["replacedBy"], &gone["expiresAt"]), (&json!(new_id), &rotated.body["overlapEndsAt"]));

    refused(keys.rotate(&old_id, &json!({})), 409, "conflict").await;
    refused(keys.change(&old_id, &json!({"expiresAt": null})), 400, "invalid_field").await;
    sleep(Duration::from_millis(2_100)).await;
    openai_refusal(keys.models(&old), 401, "invalid_api_key").await;
    ok(keys.models(&new), 200).await;

    // Without an overlap the old one stops with the answer.
    let again = ok(keys.rotate(&new_id, &json!({"overlapSeconds": 0})), 201).await;
    openai_refusal(keys.models(&new), 401, "invalid_api_key").await;
    ok(keys.models(&text(&again.body["key"])), 200).await;
    for overlap in [-1, 604_801] {
        let (_, id) = keys.issue(&json!({})).await;
        refused(keys.rotate(&id, &json!({"overlapSeconds": overlap})), 400, "invalid_field").await;
    }
    keys.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_rotation_is_answered_with_the_same_key() {
    let keys = Keys::start().await;
    let (_, id) = keys.issue(&json!({})).await;
    let rotate = || keys.rotate(&id, &json!({})).header("idempotency-key", "rotate-once");
    let first = ok(rotate(), 201).await;
    assert_eq!(ok(rotate(), 201).await.body, first.body);
    let list = ok(keys.at(Method::GET, "").header("calos-after", first.header("calos-position")), 200).await;
    assert_eq!(list.body["keys"].as_array().map(Vec::len), Some(2));
    keys.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_follows_a_change_and_a_rotation_within_a_second() {
    let keys = Keys::start().await;
    let beside = keys.app.start_beside().await;
    let (key, id) = keys.issue(&json!({})).await;
    let there = |path: &str| keys.app.client.get(format!("http://{}{path}", beside.address())).bearer_auth(&key);
    ok(there("/v1/models"), 200).await;
    ok(keys.change(&id, &json!({"endpoints": ["/v1/chat/completions"]})), 200).await;
    let began = Instant::now();
    while Answer::of(there("/v1/models")).await.status != 403 {
        assert!(began.elapsed() < FOLLOWS_WITHIN, "the other process still goes by what the key was");
    }
    ok(keys.change(&id, &json!({"endpoints": null})), 200).await;
    sleep(FOLLOWS_WITHIN).await;
    ok(there("/v1/models"), 200).await;
    ok(keys.rotate(&id, &json!({"overlapSeconds": 0})), 201).await;
    let began = Instant::now();
    while Answer::of(there("/v1/models")).await.status != 401 {
        assert!(began.elapsed() < FOLLOWS_WITHIN, "the other process still takes the key that was replaced");
    }
    beside.stop(Duration::from_secs(5)).await;
    keys.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allow_list_sees_the_address_behind_a_trusted_proxy_and_no_other() {
    for (trusted, from_inside, from_outside) in [("127.0.0.0/8", 200, 403), ("10.0.0.0/8", 403, 403)] {
        let app = TestApp::start_with(&[("CALOS_TRUSTED_PROXIES", trusted)]).await;
        let who = app.register().await;
        let keys = Keys { app, who };
        let (key, _) = keys.issue(&json!({"ipAllowlist": ["203.0.113.0/24", "2001:db8::/32"]})).await;
        let from = |address: &'static str| keys.models(&key).header("x-forwarded-for", address);
        Answer::of(from("203.0.113.7")).await.expect(from_inside);
        Answer::of(from("2001:db8::9")).await.expect(from_inside);
        Answer::of(from("203.0.114.7")).await.expect(from_outside);
        Answer::of(keys.models(&key)).await.expect(403);
        keys.app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_changed_counts_from_then_on() {
    let keys = Keys::start().await;
    let (key, id) = keys.issue(&json!({"expiresAt": in_seconds(3_600)})).await;
    ok(keys.models(&key), 200).await;
    ok(keys.change(&id, &json!({"expiresAt": in_seconds(2)})), 200).await;
    ok(keys.models(&key), 200).await;
    sleep(Duration::from_millis(2_100)).await;
    openai_refusal(keys.models(&key), 401, "invalid_api_key").await;
    refused(keys.change(&id, &json!({"expiresAt": null})), 409, "conflict").await;
    keys.app.stop().await;
}
