//! Signing up, in and out, and sessions, as a client meets them.

#![expect(clippy::expect_used, reason = "a test's helper fails the test")]

use std::time::Duration;

use calos_tests::app::{Answer, PASSWORD, Registered, TestApp};
use futures_util::future::join_all;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use uuid::Uuid;

/// How long another process may go on believing what this one ended.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(1);

pub(super) async fn ok(request: RequestBuilder, status: u16) -> Answer {
    Answer::of(request).await.expect(status)
}

pub(super) async fn refused(request: RequestBuilder, status: u16, code: &str) -> Answer {
    let answer = Answer::of(request).await.expect(status);
    assert_eq!(answer.body["code"], code, "{}", answer.text);
    assert!(answer.body["error"].as_str().is_some_and(|text| !text.is_empty()), "{}", answer.text);
    answer
}

fn login(app: &TestApp, email: &str, password: &str) -> RequestBuilder {
    app.post("/api/auth/login", &json!({"email": email, "password": password}))
}

fn session(app: &TestApp, token: &str) -> RequestBuilder {
    app.get("/api/auth/session").bearer_auth(token)
}

fn token_of(answer: &Answer) -> String {
    answer.body["session"]["token"].as_str().expect("a session token").to_owned()
}

fn cookies(answer: &Answer) -> Vec<String> {
    let lines = answer.headers.get_all("set-cookie").iter();
    lines.map(|line| line.to_str().expect("a cookie is text").to_owned()).collect()
}

async fn balance(app: &TestApp, who: &Registered) -> Value {
    ok(session(app, &who.token), 200).await.body["balanceCents"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_signs_up_is_signed_in_with_a_tenant_and_the_free_start() {
    let app = TestApp::start().await;
    let body = json!({"email": "Ada@Example.com", "password": PASSWORD, "displayName": "Ada"});
    let answer = ok(app.post("/api/auth/register", &body), 201).await;
    let fields: Vec<_> = answer.body.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(fields, ["session", "status", "tenantId", "userId"]);
    assert_eq!(answer.body["status"], "success");
    assert!(!answer.header("calos-position").is_empty());

    let set = cookies(&answer);
    let cookie = set.iter().find(|line| line.starts_with("calos_session=")).expect("a session cookie");
    for flag in ["HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    assert!(set.iter().any(|line| line.starts_with("calos_device=")));

    let me = ok(session(&app, &token_of(&answer)), 200).await.body;
    assert_eq!(me["email"], "Ada@Example.com");
    assert_eq!(me["displayName"], "Ada");
    assert_eq!(me["userId"], answer.body["userId"]);
    assert_eq!(me["tenantId"], answer.body["tenantId"]);
    assert_eq!(
        (&me["role"], &me["trustLevel"], &me["staffRoles"], &me["balanceCents"], &me["subscriptionTier"]),
        (&json!("owner"), &json!("medium"), &json!([]), &json!(1_000), &json!("free"))
    );
    assert_eq!(me["expiresAt"], answer.body["session"]["expiresAt"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_personal_stands_in_the_log() {
    let app = TestApp::start().await;
    let body = json!({"email": "ada.lovelace@example.com", "password": PASSWORD, "displayName": "Ada Lovelace"});
    ok(app.post("/api/auth/register", &body).header("user-agent", "Analytical/1.0"), 201).await;
    let rows: Vec<String> = sqlx::query_scalar("SELECT payload::text || metadata::text FROM events")
        .fetch_all(&app.database.pool)
        .await
        .expect("the log can be read");
    assert!(rows.len() >= 10, "{} events", rows.len());
    for row in rows {
        for personal in ["ada.lovelace", "Lovelace", PASSWORD, "127.0.0.1", "Analytical", "$2b$"] {
            assert!(!row.contains(personal), "{personal} stands in {row}");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_address_is_refused_in_every_spelling() {
    let app = TestApp::start().await;
    let register = |email: &str| app.post("/api/auth/register", &json!({"email": email, "password": PASSWORD}));
    ok(register("ada@example.com"), 201).await;
    for spelling in ["ada@example.com", "ADA@Example.COM", " ada@example.com "] {
        refused(register(spelling), 409, "email_taken").await;
    }
    let keys: i64 = sqlx::query_scalar("SELECT count(*) FROM subject_keys")
        .fetch_one(&app.database.pool)
        .await
        .expect("the keys can be counted");
    assert_eq!(keys, 1, "a refused registration leaves no key behind");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_claim_one_address_at_once_one_gets_it() {
    let app = TestApp::start().await;
    let beside = app.start_beside().await;
    let tries = (0..8).map(|number| {
        let address = if number % 2 == 0 { app.address } else { beside.address() };
        let body = json!({"email": "ada@example.com", "password": PASSWORD});
        Answer::of(app.client.post(format!("http://{address}/api/auth/register")).json(&body))
    });
    let answers = join_all(tries).await;
    let won = answers.iter().filter(|answer| answer.status == 201).count();
    let lost = answers.iter().filter(|answer| answer.status == 409 && answer.body["code"] == "email_taken").count();
    assert_eq!((won, lost), (1, 7));
    let accounts: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE event_type = 'account_registered'")
        .fetch_one(&app.database.pool)
        .await
        .expect("the log can be read");
    assert_eq!(accounts, 1);
    beside.stop(Duration::from_secs(5)).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_registration_is_refused_with_its_reason_and_changes_nothing() {
    let app = TestApp::start().await;
    let before = app.event_count().await;
    let register = |body: &Value| app.post("/api/auth/register", body);
    for (password, why) in [("test123", "8"), ("password123", "first"), (&*"x".repeat(257), "256")] {
        let body = json!({"email": "ada@example.com", "password": password});
        let answer = refused(register(&body), 400, "weak_password").await;
        assert!(answer.body["error"].as_str().is_some_and(|text| text.contains(why)), "{}", answer.text);
    }
    for email in ["", "ada", "ada@", "ada@host", "a b@example.com"] {
        refused(register(&json!({"email": email, "password": PASSWORD})), 400, "invalid_email").await;
    }
    let long = json!({"email": "ada@example.com", "password": PASSWORD, "displayName": "x".repeat(101)});
    refused(register(&long), 400, "invalid_field").await;
    for code in ["nobody".to_owned(), Uuid::new_v4().to_string()] {
        let body = json!({"email": "ada@example.com", "password": PASSWORD, "referralCode": code});
        refused(register(&body), 400, "invalid_field").await;
    }
    assert_eq!(app.event_count().await, before);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn being_brought_by_somebody_adds_a_dollar() {
    let app = TestApp::start().await;
    let ada = app.register().await;
    let body = json!({"email": "ben@example.com", "password": PASSWORD, "referralCode": ada.user_id});
    let ben = ok(app.post("/api/auth/register", &body), 201).await;
    assert_eq!(ok(session(&app, &token_of(&ben)), 200).await.body["balanceCents"], 1_100);
    assert_eq!(balance(&app, &ada).await, 1_000);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_needs_the_right_password_and_says_the_same_of_an_unknown_address() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let right = ok(login(&app, &who.email.to_uppercase(), PASSWORD), 200).await;
    assert_eq!(right.body["userId"], json!(who.user_id));
    assert_eq!(right.body["tenantId"], json!(who.tenant_id));
    assert!(right.body["deviceId"].as_str().is_some_and(|id| Uuid::parse_str(id).is_ok()));
    let me = ok(session(&app, &token_of(&right)), 200).await.body;
    assert_eq!(me["trustLevel"], "none", "an unknown device is recorded, not trusted");

    let wrong = refused(login(&app, &who.email, "wrong password"), 401, "invalid_credentials").await;
    let unknown = refused(login(&app, "nobody@example.com", "wrong password"), 401, "invalid_credentials").await;
    assert_eq!(wrong.body, unknown.body);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_an_account_was_made_on_is_recognised_by_its_cookie() {
    let app = TestApp::start().await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let registered = ok(app.post("/api/auth/register", &body), 201).await;
    let device = cookies(&registered).into_iter().find(|line| line.starts_with("calos_device=")).expect("a device");
    let device = device.split(';').next().expect("name and value").to_owned();
    let again = ok(login(&app, "ada@example.com", PASSWORD).header("cookie", &device), 200).await;
    let me = ok(session(&app, &token_of(&again)), 200).await.body;
    assert_eq!(me["trustLevel"], "medium");
    let secret = device.trim_start_matches("calos_device=");
    let by_header = ok(login(&app, "ada@example.com", PASSWORD).header("x-device-id", secret), 200).await;
    assert_eq!(by_header.body["deviceId"], again.body["deviceId"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_logins_of_one_account_are_limited_and_others_are_not() {
    let app = TestApp::start().await;
    let (ada, ben) = (app.register().await, app.register().await);
    for _ in 0..10 {
        refused(login(&app, &ada.email, "wrong password"), 401, "invalid_credentials").await;
    }
    let limited = refused(login(&app, &ada.email, PASSWORD), 429, "too_many_attempts").await;
    assert!(limited.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1));
    ok(login(&app, &ben.email, PASSWORD), 200).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_from_one_address_are_limited_and_repetitions_are_not() {
    let app = TestApp::start().await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let register = || app.post("/api/auth/register", &body).header("idempotency-key", "signup");
    let first = ok(register(), 201).await;
    // Refused before anything is hashed, and counted all the same: each asks whether an address is taken.
    let mut tried = 1;
    let limited = loop {
        let answer = Answer::of(app.post("/api/auth/register", &body)).await;
        if answer.status == 429 {
            break answer;
        }
        assert_eq!(answer.expect(409).body["code"], "email_taken");
        tried += 1;
        assert!(tried < 90, "nobody is limited");
    };
    assert!(tried >= 60, "limited after {tried}");
    assert_eq!(limited.body["code"], "too_many_attempts");
    assert!(limited.header("retry-after").parse::<u64>().is_ok_and(|seconds| (1..=11).contains(&seconds)));
    assert_eq!(ok(register(), 201).await.body, first.body);
    ok(login(&app, "ada@example.com", PASSWORD), 200).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_works_by_header_and_by_each_cookie() {
    let app = TestApp::start().await;
    let who = app.register().await;
    ok(session(&app, &who.token), 200).await;
    for name in ["calos_session", "session", "__Host-calos_session"] {
        let cookie = format!("{name}={}", who.token);
        ok(app.get("/api/auth/session").header("cookie", cookie), 200).await;
    }
    refused(app.get("/api/auth/session"), 401, "unauthenticated").await;
    refused(app.get("/api/auth/session").header("x-user-id", who.user_id.to_string()), 401, "unauthenticated").await;
    for garbage in ["garbage", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        refused(session(&app, garbage), 401, "unauthenticated").await;
    }
    refused(app.get("/api/auth/session").header("authorization", "Basic YTpi"), 401, "unauthenticated").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_production_only_a_cookie_of_this_very_host_is_a_session_and_nobody_registers_as_operator() {
    let app = TestApp::start_with(&[
        ("CALOS_ENV", "production"),
        ("DOMAIN", "calos.example.com"),
        ("CALOS_ADMIN_EMAIL", "root@example.com"),
    ])
    .await;
    let body = json!({"email": "root@example.com", "password": PASSWORD});
    let answer = ok(app.post("/api/auth/register", &body), 201).await;
    assert!(cookies(&answer).iter().all(|line| line.starts_with("__Host-") && line.contains("; Secure;")));
    let token = token_of(&answer);
    let by_cookie = |name: &str| app.get("/api/auth/session").header("cookie", format!("{name}={token}"));
    let me = ok(by_cookie("__Host-calos_session"), 200).await.body;
    assert_eq!(me["staffRoles"], json!([]));
    for planted in ["calos_session", "session"] {
        refused(by_cookie(planted), 401, "unauthenticated").await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_logging_out_the_token_is_worth_nothing() {
    let app = TestApp::start().await;
    let who = app.register().await;
    ok(session(&app, &who.token), 200).await;
    let logout = || app.post("/api/auth/logout", &json!({})).bearer_auth(&who.token);
    let answer = ok(logout(), 204).await;
    assert!(cookies(&answer).iter().any(|line| line.starts_with("calos_session=;") && line.contains("Max-Age=0")));
    refused(session(&app, &who.token), 401, "session_ended").await;
    ok(logout(), 204).await;
    ok(app.post("/api/auth/logout", &json!({})), 204).await;
    ok(login(&app, &who.email, PASSWORD), 200).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_login_takes_the_place_of_the_session_it_came_with() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let stranger = app.register().await;
    let other = ok(login(&app, &who.email, PASSWORD).bearer_auth(&stranger.token), 200).await;
    ok(session(&app, &stranger.token), 200).await;
    ok(login(&app, &who.email, PASSWORD).bearer_auth(token_of(&other)), 200).await;
    refused(session(&app, &token_of(&other)), 401, "session_ended").await;
    ok(session(&app, &who.token), 200).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ones_own_sessions_are_listed_and_ended_and_nobody_elses() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let stranger = app.register().await;
    let second = ok(login(&app, &who.email, PASSWORD).header("user-agent", "Phone/1.0"), 200).await;
    let list = |after: &str| app.get("/api/auth/sessions").bearer_auth(&who.token).header("calos-after", after);
    let listed = ok(list(second.header("calos-position")), 200).await.body;
    let sessions = listed["sessions"].as_array().expect("a list");
    assert_eq!(sessions.len(), 2);
    assert_eq!((&sessions[0]["userAgent"], &sessions[0]["current"]), (&json!("Phone/1.0"), &json!(false)));
    assert_eq!((&sessions[1]["current"], &sessions[1]["address"]), (&json!(true), &json!("127.0.0.1")));

    let path = format!("/api/auth/sessions/{}", sessions[0]["sessionId"].as_str().expect("an id"));
    let delete = |path: &str, token: &str| app.client.delete(app.url(path)).bearer_auth(token);
    refused(delete(&path, &stranger.token), 404, "not_found").await;
    let ended = ok(delete(&path, &who.token), 204).await;
    refused(session(&app, &token_of(&second)), 401, "session_ended").await;
    let left = ok(list(ended.header("calos-position")), 200).await.body;
    assert_eq!(left["sessions"].as_array().map(Vec::len), Some(1));
    refused(delete(&format!("/api/auth/sessions/{}", Uuid::new_v4()), &who.token), 404, "not_found").await;
    refused(delete("/api/auth/sessions/garbage", &who.token), 404, "not_found").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_site_cannot_use_a_browsers_cookie() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let create = || {
        let cookie = format!("calos_session={}", who.token);
        app.post("/api/tenants", &json!({"name": "Acme"})).header("cookie", cookie)
    };
    refused(create().header("sec-fetch-site", "cross-site"), 403, "cross_site_request").await;
    refused(create().header("origin", "https://evil.example"), 403, "cross_site_request").await;
    let forged = login(&app, &who.email, PASSWORD).header("sec-fetch-site", "cross-site");
    refused(forged, 403, "cross_site_request").await;
    let logout = app.post("/api/auth/logout", &json!({})).header("origin", "https://evil.example");
    refused(logout, 403, "cross_site_request").await;
    ok(create().header("sec-fetch-site", "same-origin"), 201).await;
    ok(create().header("origin", format!("http://{}", app.address)), 201).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_ends_another_refuses_within_a_second() {
    let app = TestApp::start().await;
    let beside = app.start_beside().await;
    let who = app.register().await;
    let key = app.issue_key(&who).await;
    let at = |address: std::net::SocketAddr, path: &str, token: &str| {
        app.client.get(format!("http://{address}{path}")).bearer_auth(token)
    };
    for address in [app.address, beside.address()] {
        ok(at(address, "/api/credits/balance", &key), 200).await;
        ok(at(address, "/api/auth/session", &who.token), 200).await;
    }
    let key_id = &key[key.len() - 40..key.len() - 32];
    let revoke = app.client.delete(app.url(&format!("/api/tenants/{}/keys/{key_id}", who.tenant_id)));
    ok(revoke.bearer_auth(&who.token), 204).await;
    ok(app.post("/api/auth/logout", &json!({})).bearer_auth(&who.token), 204).await;
    refused(at(app.address, "/api/credits/balance", &key), 401, "invalid_api_key").await;
    tokio::time::sleep(FOLLOWS_WITHIN).await;
    refused(at(beside.address(), "/api/credits/balance", &key), 401, "invalid_api_key").await;
    refused(at(beside.address(), "/api/auth/session", &who.token), 401, "session_ended").await;
    beside.stop(Duration::from_secs(5)).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_still_knows_everybody() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let key = app.issue_key(&who).await;
    let beside = app.start_beside().await;
    let url = |path: &str| format!("http://{}{path}", beside.address());
    ok(app.client.get(url("/api/auth/session")).bearer_auth(&who.token), 200).await;
    ok(app.client.get(url("/api/credits/balance")).bearer_auth(&key), 200).await;
    let body = json!({"email": who.email, "password": PASSWORD});
    ok(app.client.post(url("/api/auth/login")).json(&body), 200).await;
    beside.stop(Duration::from_secs(5)).await;
    app.stop().await;
}
