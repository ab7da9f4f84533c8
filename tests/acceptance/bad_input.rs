//! Bad input gets a 4xx in the documented shape, changes nothing, and is logged once.

#![expect(clippy::expect_used, reason = "a test's helper fails the test")]

use std::time::Duration;

use calos_api::cli::TierName;
use calos_tests::app::{Answer, Registered, TestApp};
use calos_tests::logs;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

/// What a table of bad input is tried with.
struct Caller {
    app: TestApp,
    who: Registered,
    key: String,
}

impl Caller {
    async fn start() -> Self {
        let app = TestApp::start().await;
        let who = app.register().await;
        app.admin_tier(who.tenant_id, TierName::Pro).await;
        let key = app.issue_key(&who).await;
        Self { app, who, key }
    }

    fn chat(&self, body: &Value) -> RequestBuilder {
        self.app.post("/v1/chat/completions", body).bearer_auth(&self.key)
    }

    fn raw(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = self.app.client.post(self.app.url(path)).header("content-type", content_type);
        request.bearer_auth(if path.starts_with("/v1") { &self.key } else { &self.who.token }).body(body)
    }

    /// Sends it under a request id of its own: the answer is a refusal in the shape of its path, nothing is appended,
    /// and there is one line in the log about it.
    async fn refused(&self, what: &str, request: RequestBuilder, status: u16, code: &str) -> Answer {
        let before = self.app.event_count().await;
        let id = Uuid::new_v4().to_string();
        let request = request.header("x-request-id", &id).build().expect("a request");
        let under_v1 = request.url().path().starts_with("/v1");
        let answer = Answer::of(RequestBuilder::from_parts(self.app.client.clone(), request)).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/json", "{what}");
        assert_eq!(answer.header("x-request-id"), id, "{what}");
        if under_v1 {
            let error = &answer.body["error"];
            assert_eq!(error["code"], code, "{what}: {}", answer.text);
            assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {}", answer.text);
            assert!(error["type"].is_string() && error.get("param").is_some(), "{what}: {}", answer.text);
        } else {
            assert_eq!(answer.body["code"], code, "{what}: {}", answer.text);
            assert!(answer.body["error"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {}", answer.text);
        }
        assert_eq!(self.app.event_count().await, before, "{what} changed something");
        let lines = logs::lines_of(&id);
        assert_eq!(lines.len(), 1, "{what}: {lines:?}");
        assert!(lines[0].text.contains(&format!("code={code} ")), "{what}: {lines:?}");
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_json_is_refused_wherever_json_is_taken() {
    let caller = Caller::start().await;
    let keys = format!("/api/tenants/{}/keys", caller.who.tenant_id);
    for path in [
        "/v1/chat/completions",
        "/api/chat/complete",
        "/api/auth/register",
        "/api/auth/login",
        "/api/tenants",
        keys.as_str(),
    ] {
        for body in ["", "{", "not json", "{\"a\":1} trailing", "\u{0}"] {
            let request = caller.raw(path, "application/json", body.to_owned());
            caller.refused(&format!("{path} {body:?}"), request, 400, "invalid_json").await;
        }
        let deep = "[".repeat(10_000);
        caller.refused(path, caller.raw(path, "application/json", deep), 400, "invalid_json").await;
        let invalid_utf8 = b"{\"name\":\"\xff\xfe\"}".to_vec();
        caller.refused(path, caller.raw(path, "application/json", invalid_utf8), 400, "invalid_json").await;
        caller.refused(path, caller.raw(path, "text/plain", "{}"), 415, "unsupported_media_type").await;
        // Only a prompt may be larger than 10 MB, for its pictures' sake.
        let megabytes = if path == "/v1/chat/completions" { 33 } else { 10 };
        let large = caller.raw(path, "application/json", vec![b' '; megabytes * 1024 * 1024]);
        caller.refused(path, large, 413, "body_too_large").await;
    }
    caller.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_the_wrong_type_is_neither_answered_nor_logged() {
    let caller = Caller::start().await;
    let id = Uuid::new_v4().to_string();
    let body = json!({"email": "ada@example.com", "password": 8_675_309_123_u64});
    let answer = Answer::of(caller.app.post("/api/auth/login", &body).header("x-request-id", &id)).await.expect(400);
    assert_eq!((&answer.body["code"], &answer.body["param"]), (&json!("invalid_field"), &json!("password")));
    assert!(!answer.text.contains("8675309"), "{}", answer.text);
    let lines = logs::lines_of(&id);
    assert_eq!(lines.len(), 1);
    assert!(!lines[0].text.contains("8675309"), "{lines:?}");
    caller.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_types_are_refused_and_the_field_is_named() {
    let caller = Caller::start().await;
    let keys = format!("/api/tenants/{}/keys", caller.who.tenant_id);
    let cases = [
        ("/api/auth/register", json!({"email": 7, "password": "long enough"}), "email"),
        ("/api/auth/register", json!({"password": "long enough"}), "email"),
        ("/api/auth/register", json!({"email": "a@example.com", "password": ["x"]}), "password"),
        ("/api/auth/register", json!({"email": "a\u{0}@example.com", "password": "long enough"}), "email"),
        ("/api/auth/login", json!({"email": "a@example.com"}), "password"),
        ("/api/tenants", json!({"name": {}}), "name"),
        (keys.as_str(), json!({"name": "x", "limits": {"perMinute": -1}}), "limits.perMinute"),
    ];
    for (path, body, field) in cases {
        let request = caller.app.post(path, &body).bearer_auth(&caller.who.token);
        let answer = caller.refused(&format!("{path} {body}"), request, 400, "invalid_field").await;
        assert_eq!(answer.body["param"], field, "{}", answer.text);
    }
    caller.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_call_that_cannot_be_right_is_refused_before_it_costs_anything() {
    let caller = Caller::start().await;
    let hello = json!([{"role": "user", "content": "hello"}]);
    for (body, field) in [
        (json!({"model": "gpt-4", "messages": []}), "messages"),
        (json!({"model": "gpt-4"}), "messages"),
        (json!({"model": "gpt-4", "messages": "hello"}), "messages"),
        (json!({"model": 4, "messages": hello}), "model"),
        (json!({"model": "gpt-4", "messages": hello, "max_tokens": -1}), "max_tokens"),
        (json!({"model": "gpt-4", "messages": hello, "max_tokens": 0}), "max_tokens"),
        (json!({"model": "gpt-4", "messages": hello, "max_tokens": "many"}), "max_tokens"),
        (json!({"model": "gpt-4", "messages": hello, "max_tokens": 1.5}), "max_tokens"),
        (json!({"model": "gpt-4", "messages": hello, "n": 0}), "n"),
        (json!({"model": "gpt-4", "messages": hello, "stream": "yes"}), "stream"),
    ] {
        let answer = caller.refused(&body.to_string(), caller.chat(&body), 400, "invalid_field").await;
        assert_eq!(answer.body["error"]["param"], field, "{}", answer.text);
        assert_eq!(answer.body["error"]["type"], "invalid_request_error");
    }
    let unknown = json!({"model": "gpt-17-ultra", "messages": hello});
    caller.refused("an unknown model", caller.chat(&unknown), 404, "model_not_found").await;
    caller.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_garbage_are_refused() {
    let caller = Caller::start().await;
    let hello = json!({"model": "gpt-4", "messages": [{"role": "user", "content": "hello"}]});
    let chat = || caller.app.post("/v1/chat/completions", &hello);
    let wild = || reqwest::header::HeaderValue::from_bytes(b"\xff\xfe garbage \x80").expect("HTTP lets it pass");

    caller.refused("no key", chat(), 401, "unauthenticated").await;
    caller.refused("a wild key", chat().header("authorization", wild()), 401, "unauthenticated").await;
    caller.refused("a wrong key", chat().bearer_auth("sk-tenant-nonsense"), 401, "invalid_api_key").await;
    let wild_key = caller.chat(&hello).header("idempotency-key", wild());
    caller.refused("a wild idempotency key", wild_key, 400, "invalid_header").await;
    let long_key = caller.chat(&hello).header("idempotency-key", "k".repeat(300));
    caller.refused("a long idempotency key", long_key, 400, "invalid_header").await;

    let balance = || caller.app.get("/api/credits/balance").bearer_auth(&caller.who.token);
    for after in ["garbage", "1", "1:", "1:x", "-1:5", "1:-5", "1:2,1:3", "9999:1"] {
        let request = balance().header("calos-after", after);
        caller.refused(&format!("calos-after {after}"), request, 400, "invalid_header").await;
    }
    caller.refused("a wild calos-after", balance().header("calos-after", wild()), 400, "invalid_header").await;
    let anonymous = caller.app.get("/api/credits/balance");
    caller.refused("nobody", anonymous.header("authorization", wild()), 401, "unauthenticated").await;
    caller.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_methods_and_ids_have_the_documented_shape() {
    let caller = Caller::start().await;
    let app = &caller.app;
    for path in ["/nowhere", "/api/nowhere", "/v1/nowhere"] {
        caller.refused(path, app.get(path), 404, "unknown_path").await;
    }
    for path in ["/v1/chat/completions", "/api/auth/register"] {
        let answer = caller.refused(path, app.get(path), 405, "method_not_allowed").await;
        assert_eq!(answer.header("allow"), "POST");
    }
    let delete = app.client.request(Method::DELETE, app.url("/health"));
    caller.refused("DELETE /health", delete, 405, "method_not_allowed").await;
    for tenant in ["not-a-uuid".to_owned(), Uuid::new_v4().to_string()] {
        let path = format!("/api/tenants/{tenant}/keys");
        let request = app.get(&path).bearer_auth(&caller.who.token);
        caller.refused(&path, request, 404, "not_found").await;
    }
    caller.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_is_turned_away_and_the_server_goes_on() {
    let app = TestApp::start().await;
    let many = format!("GET /health HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(500));
    let long = format!("GET /health HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "b".repeat(200_000));
    for garbage in ["\u{1}\u{2}\u{3}\r\n\r\n", "GET /health HTTP/1.1\r\nno colon\r\n\r\n", &many, &long] {
        let mut stream = tokio::net::TcpStream::connect(app.address).await.expect("a connection");
        // The server may hang up before all of it has been sent.
        let _ = stream.write_all(garbage.as_bytes()).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the server neither answers nor hangs up");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(Answer::of(app.get("/health")).await.expect(200).body["status"], "ok");
    app.stop().await;
}
