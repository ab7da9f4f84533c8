//! How often and for how much a key may call, as its client meets it.

#![expect(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

use std::time::Duration;

use calos_api::cli::TierName;
use calos_commands::log::{EventLog as _, Plan};
use calos_commands::metadata::{Actor, Metadata};
use calos_domain::wallet::{Caller, Wallet};
use calos_domain::{KeyId, StreamId, Timestamp};
use calos_projections::registry;
use calos_replay::operation::run_by;
use calos_replay::rebuild::{RebuildOptions, rebuild};
use calos_replay::write_guard::{Assent, confirm};
use calos_tests::app::{Answer, Registered, TestApp};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::identity::ok;

fn say(max_tokens: u32, stream: bool) -> Value {
    json!({"model": "llama2", "max_tokens": max_tokens, "stream": stream,
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

    // Who has called too often is told that, whatever else is wrong with the call.
    let mut unknown = say(20, false);
    unknown["model"] = json!("gpt-99");
    call_at(&app.url(""), &app.client, &key, &unknown).await.expect(429);

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

/// What the wallet counts of a key in memory, once it is loaded from the log.
async fn counted(app: &calos_api::wiring::App, who: &Registered, key: &str) -> Vec<(Timestamp, u32)> {
    let mut plan = Plan::default();
    let wallet = plan.stream::<Wallet>(StreamId::key(who.tenant_id));
    let caller = by(key);
    let look = app.log.execute(&plan, Metadata::new(Actor::System("test")).into(), |unit| {
        Ok::<_, std::convert::Infallible>(unit.with(wallet, |wallet| wallet.calls_by_minute(&caller)))
    });
    look.await.expect("the wallet is read").answer
}

fn by(key: &str) -> Caller {
    let id: KeyId = key["sk-tenant-".len() + 37..][..8].parse().expect("a key id");
    Caller::Key(id)
}

async fn shown(app: &TestApp, who: &Registered, key: &str) -> Vec<(Timestamp, u32)> {
    let Caller::Key(id) = by(key) else { return Vec::new() };
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT (extract(epoch FROM minute) * 1000000)::bigint, requests FROM read.rate_limit_windows
         WHERE tenant_id = $1 AND caller = $2 ORDER BY minute",
    )
    .bind(who.tenant_id)
    .bind(id.to_string())
    .fetch_all(&app.database.pool)
    .await
    .expect("rows");
    let row = |(minute, calls)| (Timestamp::from_micros(minute), u32::try_from(calls).expect("few"));
    rows.into_iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_read_model_rebuilt_says_what_the_live_counters_say_minute_by_minute() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let keys = [app.issue_key(&who).await, app.issue_key(&who).await];
    let mut position = String::new();
    for n in 0..23 {
        position = call(&app, &keys[n % 3 % 2]).await.expect(200).header("calos-position").to_owned();
    }
    ok(app.get("/api/credits/balance").bearer_auth(&who.token).header("calos-after", &position), 200).await;
    let beside = app.start_beside().await;
    let deadline = Instant::now() + Duration::from_secs(10);
    for key in &keys {
        let live = counted(app.running.app(), &who, key).await;
        assert_eq!(live, counted(beside.app(), &who, key).await, "a restart counts otherwise");
        while shown(&app, &who, key).await != live {
            assert!(Instant::now() < deadline, "the read model never says what the wallet says");
            sleep(Duration::from_millis(20)).await;
        }
        assert!(live.iter().map(|(_, calls)| calls).sum::<u32>() >= 7, "{live:?}");
    }
    sqlx::query("UPDATE read.rate_limit_windows SET requests = 1000").execute(&app.database.pool).await.expect("a lie");
    let model = registry::find("rate_limit_windows").expect("there is such a read model");
    let operator = run_by(Some("olga".to_owned()), Some("the counts looked wrong".to_owned()));
    let confirmed = confirm(Assent::Given, "rebuild").expect("it is confirmed");
    let log = &app.running.app().log;
    let report = rebuild(&app.database.owner_pool, log, model, &operator, &confirmed, &RebuildOptions::default()).await;
    let differences = report.expect("the rebuild ends").parity.differences.expect("compared");
    assert!(differences.count >= 2, "the lie is not told: {differences:?}");
    for key in &keys {
        assert_eq!(shown(&app, &who, key).await, counted(app.running.app(), &who, key).await);
    }
    beside.stop(Duration::from_secs(5)).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_spends_no_more_than_its_budget_however_many_call_at_once() {
    let app = TestApp::start().await;
    let who = app.register().await;
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let ask = |key: String| {
        let body =
            json!({"model": "gpt-4", "max_tokens": 100, "messages": [{"role": "user", "content": "Say hello."}]});
        Answer::of(app.post("/v1/chat/completions", &body).bearer_auth(key))
    };
    // What one such call costs, and keeps while it is in flight.
    let probe = issue(&app, &who, &json!({})).await;
    let cost = ask(probe).await.expect(200).body["billing"]["total_cost_micros"].as_i64().expect("a cost");
    let tiny = issue(&app, &who, &json!({"budgets": {"perDayMicros": cost}})).await;
    let refused = ask(tiny).await.expect(402);
    assert_eq!(refused.body["error"]["code"], "budget_exceeded", "{}", refused.text);
    assert_eq!(refused.body["error"]["type"], "insufficient_quota");
    assert_eq!(refused.header("retry-after"), "");

    let budget = 12 * cost;
    let key = issue(&app, &who, &json!({"budgets": {"perDayMicros": budget, "perMonthMicros": 10 * budget}})).await;
    let answers = join_all((0..30).map(|_| ask(key.clone()))).await;
    let spent: i64 = answers.iter().filter_map(|answer| answer.body["billing"]["total_cost_micros"].as_i64()).sum();
    assert!(spent > 0 && spent <= budget, "{spent} of {budget}");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        let told = (answer.status.as_u16(), answer.body["error"]["code"].as_str().unwrap_or_default());
        assert!([(429, "in_flight_budget_exhausted"), (402, "budget_exceeded")].contains(&told), "{}", answer.text);
        assert_eq!(answer.header("retry-after").is_empty(), answer.status == 402, "{:?}", answer.headers);
    }
    let mut whole = spent;
    let refused = loop {
        let answer = ask(key.clone()).await;
        match answer.body["billing"]["total_cost_micros"].as_i64() {
            Some(cost) => whole += cost,
            None => break answer,
        }
    };
    assert!(whole <= budget, "{whole} of {budget}");
    assert_eq!(refused.expect(402).body["error"]["code"], "budget_exceeded");

    // A restart forgets nothing, a raised budget lets the next call in, and the list says what was spent.
    let beside = app.start_beside().await;
    let body = json!({"model": "gpt-4", "max_tokens": 100, "messages": [{"role": "user", "content": "Say hello."}]});
    call_at(&format!("http://{}", beside.address()), &app.client, &key, &body).await.expect(402);
    beside.stop(Duration::from_secs(5)).await;
    let id = &key["sk-tenant-".len() + 37..][..8];
    let path = format!("/api/tenants/{}/keys", who.tenant_id);
    let list = ok(app.get(&path).bearer_auth(&who.token), 200).await;
    let line =
        list.body["keys"].as_array().expect("keys").iter().find(|line| line["keyId"] == *id).expect("it is listed");
    assert_eq!(line["spending"], json!({"todayMicros": whole, "thisMonthMicros": whole, "heldMicros": 0}));
    let raise = json!({"budgets": {"perDayMicros": 2 * budget}});
    ok(app.client.patch(app.url(&format!("{path}/{id}"))).json(&raise).bearer_auth(&who.token), 200).await;
    ask(key).await.expect(200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_limit_of_its_own_is_made_for_what_the_budget_carries() {
    let app = TestApp::start().await;
    let who = app.register().await;
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let ask = |key: String| {
        let body = json!({"model": "gpt-4", "messages": [{"role": "user", "content": "Say hello."}]});
        Answer::of(app.post("/v1/chat/completions", &body).bearer_auth(key))
    };
    let some = issue(&app, &who, &json!({"budgets": {"perMonthMicros": 40_000}})).await;
    ask(some).await.expect(200);
    let none = issue(&app, &who, &json!({"budgets": {"perMonthMicros": 100}})).await;
    assert_eq!(ask(none).await.expect(402).body["error"]["code"], "budget_exceeded");
    app.stop().await;
}
