//! `Idempotency-Key`: the same request is answered the same and done once; another request under the key is refused.

use calos_api::cli::TierName;
use calos_tests::app::{Answer, PASSWORD, TestApp};
use futures_util::future::join_all;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_and_body_give_the_first_answer_again() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let path = format!("/api/tenants/{}/keys", who.tenant_id);
    let issue = |name: &str, key: &str| {
        app.post(&path, &json!({"name": name})).bearer_auth(&who.token).header("idempotency-key", key)
    };
    let first = Answer::of(issue("ci", "order-1")).await.expect(201);
    assert_eq!(first.header("idempotent-replayed"), "");
    let events = app.event_count().await;

    let again = Answer::of(issue("ci", "order-1")).await.expect(201);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!((&again.body, again.header("calos-position")), (&first.body, first.header("calos-position")));
    assert_eq!(app.event_count().await, events, "nothing was done twice");

    let other_body = Answer::of(issue("other", "order-1")).await.expect(409);
    assert_eq!(other_body.body["code"], "idempotency_key_reused");
    let elsewhere = app.post("/api/tenants", &json!({"name": "ci"})).bearer_auth(&who.token);
    let elsewhere = Answer::of(elsewhere.header("idempotency-key", "order-1")).await;
    assert!(elsewhere.status.is_success() || elsewhere.status == 409, "{}", elsewhere.text);

    let other_key = Answer::of(issue("ci", "order-2")).await.expect(201);
    assert_ne!(other_key.body["keyId"], first.body["keyId"]);

    let stranger = app.register().await;
    let theirs = format!("/api/tenants/{}/keys", stranger.tenant_id);
    let theirs = app.post(&theirs, &json!({"name": "ci"})).bearer_auth(&stranger.token);
    let theirs = Answer::of(theirs.header("idempotency-key", "order-1")).await.expect(201);
    assert_ne!(theirs.body["keyId"], first.body["keyId"], "a key means nothing to anybody else");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_not_remembered() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let path = format!("/api/tenants/{}/keys", who.tenant_id);
    let issue =
        |name: &str| app.post(&path, &json!({"name": name})).bearer_auth(&who.token).header("idempotency-key", "once");
    let too_long = "x".repeat(10_000);
    Answer::of(issue(&too_long)).await.expect(400);
    Answer::of(issue("fine")).await.expect(201);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_repeated_with_its_key_signs_up_once() {
    let app = TestApp::start().await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let register = || app.post("/api/auth/register", &body).header("idempotency-key", "signup-1");
    let first = Answer::of(register()).await.expect(201);
    let again = Answer::of(register()).await.expect(201);
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("set-cookie"), first.header("set-cookie"));
    assert_eq!(again.header("idempotent-replayed"), "true");
    Answer::of(app.post("/api/auth/register", &body)).await.expect(409);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_do_the_work_once_even_across_processes() {
    let app = TestApp::start().await;
    let beside = app.start_beside().await;
    let who = app.register().await;
    let before = app.event_count().await;
    let path = format!("/api/tenants/{}/keys", who.tenant_id);
    let calls = (0..16).map(|number| {
        let address = if number % 2 == 0 { app.address } else { beside.address() };
        let request = app.client.post(format!("http://{address}{path}")).json(&json!({"name": "ci"}));
        Answer::of(request.bearer_auth(&who.token).header("idempotency-key", "race"))
    });
    let answers = join_all(calls).await;
    let issued: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert!(!issued.is_empty());
    for answer in &answers {
        if answer.status == 201 {
            assert_eq!(answer.body, issued[0].body, "one answer for all");
        } else {
            assert_eq!((answer.status.as_u16(), &answer.body["code"]), (409, &json!("idempotency_in_progress")));
        }
    }
    assert_eq!(app.event_count().await, before + 2, "one key was issued and counted");
    beside.stop(std::time::Duration::from_secs(5)).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_call_repeated_with_its_key_is_paid_once() {
    let app = TestApp::start().await;
    let who = app.register().await;
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;
    let body = json!({"model": "gpt-4", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]});
    let chat = || app.post("/v1/chat/completions", &body).bearer_auth(&key).header("idempotency-key", "chat-1");
    let first = Answer::of(chat()).await.expect(200);
    let events = app.event_count().await;
    let again = Answer::of(chat()).await.expect(200);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.body, first.body);
    assert_eq!(app.event_count().await, events, "nothing was held or charged again");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_answer_is_sealed_and_forgotten_after_a_day() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let path = format!("/api/tenants/{}/keys", who.tenant_id);
    let issue = || app.post(&path, &json!({"name": "ci"})).bearer_auth(&who.token).header("idempotency-key", "day");
    let first = Answer::of(issue()).await.expect(201);
    let key = first.body["key"].as_str().expect("a key").to_owned();
    let kept = sqlx::query_scalar::<_, Vec<u8>>("SELECT sealed_answer FROM idempotency WHERE key = 'day'");
    let kept = kept.fetch_one(&app.database.owner_pool).await.expect("one answer is kept");
    assert!(!kept.windows(key.len()).any(|window| window == key.as_bytes()), "the key stands in plain text");

    let age = sqlx::query("UPDATE idempotency SET created_at = now() - interval '25 hours'");
    age.execute(&app.database.owner_pool).await.expect("rows can be aged");
    let anew = Answer::of(issue()).await.expect(201);
    assert_ne!(anew.body["keyId"], first.body["keyId"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_sent_to_two_processes_at_once_is_answered_alike_by_both() {
    let app = TestApp::start().await;
    let beside = app.start_beside().await;
    for round in 0..4 {
        let body = json!({"email": format!("ada{round}@example.com"), "password": PASSWORD});
        let register = |address: std::net::SocketAddr| {
            let request = app.client.post(format!("http://{address}/api/auth/register")).json(&body);
            Answer::of(request.header("idempotency-key", format!("signup-{round}")))
        };
        let (here, there) = tokio::join!(register(app.address), register(beside.address()));
        let (here, there) = (here.expect(201), there.expect(201));
        assert_eq!(here.body, there.body, "both tell of the one account");
        assert!([&here, &there].iter().any(|answer| answer.header("idempotent-replayed") == "true"));
    }
    beside.stop(std::time::Duration::from_secs(5)).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_creates_one_tenant_a_day_and_another_one_later() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let create = || {
        let request = app.post("/api/tenants", &json!({"name": "Acme"})).bearer_auth(&who.token);
        Answer::of(request.header("idempotency-key", "acme"))
    };
    let first = create().await.expect(201);
    assert_eq!(create().await.expect(201).body, first.body);
    let age = sqlx::query("UPDATE idempotency SET created_at = now() - interval '25 hours'");
    age.execute(&app.database.owner_pool).await.expect("rows can be aged");
    let later = create().await.expect(201);
    assert_ne!(later.body["tenantId"], first.body["tenantId"]);
    app.stop().await;
}
