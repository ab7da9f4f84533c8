//! How often and for how much a key may call, as its client meets it.

use std::time::Duration;

use calos_api::cli::TierName;
use calos_tests::app::{Answer, Registered, TestApp};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::identity::ok;

fn say(max_tokens: u32, stream: bool) -> Value {
    json!({"model": "llama3.2", "max_tokens": max_tokens, "stream": stream,
        "messages": [{"role": "user", "content": "Say hello."}]})
}

async fn call_at(base: &str, client: &reqwest::Client, key: &str, body: &Value) -> Answer {
    Answer::of(client.post(format!("{base}/v1/chat/completions")).json(body).bearer_auth(key)).await
}

async fn call(app: &TestApp, key: &str) -> Answer {
    call_at(&app.url(""), &app.client, key, &say(20, false)).await
}

async fn issue(app: &TestApp, who: &Registered, body: &Value) -> String {
    let path = format!("/api/tenants/{}/keys", who.tenant_id);
    let issued = ok(app.post(&path, body).bearer_auth(&who.token), 201).await;
    issued.body["key"].as_str().expect("a key").to_owned()
}

fn number(answer: &Answer, header: &str) -> u64 {
    answer.header(header).parse().unwrap_or_else(|_| panic!("{header} in {:?}", answer.headers))
}

/// So that no sixty seconds of a test are cut in two by a slow machine, calls are made quickly or the test fails itself.
fn assert_within_a_minute(began: Instant) {
    assert!(began.elapsed() < Duration::from_secs(50), "the machine is too slow for this test");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_one_calls_in_a_minute_give_sixty_answers_and_one_refusal() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let key = app.issue_key(&who).await;
    let began = Instant::now();
    for n in 1..=60 {
        let answer = call(&app, &key).await.expect(200);
        assert_eq!(answer.header("x-ratelimit-limit-requests"), "60");
        assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), 60 - n);
        let reset = answer.header("x-ratelimit-reset-requests");
        assert!(reset.ends_with('s') && !reset.is_empty(), "{reset}");
    }
    let refused = call(&app, &key).await.expect(429);
    assert_within_a_minute(began);
    assert_eq!(refused.body["error"]["code"], "rate_limit_exceeded", "{}", refused.text);
    assert_eq!(refused.body["error"]["type"], "requests");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), "0");
    let (seconds, millis) = (number(&refused, "retry-after"), number(&refused, "retry-after-ms"));
    assert!((1..=61).contains(&seconds) && millis.div_ceil(1_000) == seconds, "{seconds} {millis}");

    // Neither the refusal nor the way it is asked for changes anything; a stream is refused alike.
    call_at(&app.url(""), &app.client, &key, &say(20, true)).await.expect(429);
    let other = app.issue_key(&who).await;
    call(&app, &other).await.expect(200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_through_two_processes_get_no_more_through() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let key = issue(&app, &who, &json!({"limits": {"perMinute": 25, "perHour": 25, "perDay": 25}})).await;
    let beside = app.start_beside().await;
    let bases = [app.url(""), format!("http://{}", beside.address())];
    call(&app, &key).await.expect(200);
    let began = Instant::now();
    let calls = (0..60).map(|n| {
        let (base, key) = (&bases[n % 2], &key);
        let client = &app.client;
        async move { call_at(base, client, key, &say(20, false)).await }
    });
    let answers = join_all(calls).await;
    assert_within_a_minute(began);
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(200), count(429)), (24, 36), "{:?}", answers.iter().map(|a| a.text.clone()).collect::<Vec<_>>());

    // A restart forgets nothing.
    beside.stop(Duration::from_secs(5)).await;
    let again = app.start_beside().await;
    let refused = call_at(&format!("http://{}", again.address()), &app.client, &key, &say(20, false)).await;
    assert_eq!(refused.expect(429).body["error"]["code"], "rate_limit_exceeded");
    again.stop(Duration::from_secs(5)).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_headers_show_the_window_that_is_nearest_to_its_end_and_the_licences_tokens() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let key = issue(&app, &who, &json!({"limits": {"perMinute": 10, "perHour": 12, "perDay": 11_000}})).await;
    let first = call(&app, &key).await.expect(200);
    assert_eq!(
        (first.header("x-ratelimit-limit-requests"), number(&first, "x-ratelimit-remaining-requests")),
        ("10", 9)
    );
    let limit = number(&first, "x-ratelimit-limit-tokens");
    assert_eq!(number(&first, "x-ratelimit-remaining-tokens"), limit);
    assert!(first.header("x-ratelimit-reset-tokens").contains('h'), "{:?}", first.headers);
    let used = first.body["usage"]["total_tokens"].as_u64().expect("tokens");
    let streamed = call_at(&app.url(""), &app.client, &key, &say(20, true)).await.expect(200);
    assert_eq!(number(&streamed, "x-ratelimit-remaining-requests"), 8);
    assert_eq!(number(&streamed, "x-ratelimit-remaining-tokens"), limit - used);

    app.admin_tier(who.tenant_id, TierName::Enterprise).await;
    let unlimited = call(&app, &key).await.expect(200);
    assert_eq!(unlimited.header("x-ratelimit-limit-tokens"), "", "{:?}", unlimited.headers);
    app.stop().await;
}
