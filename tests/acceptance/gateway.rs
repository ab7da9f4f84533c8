//! The gateway: every charge exact to the micro-dollar, no answer unpaid, no credit lost, whoever breaks off.

#![expect(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

use std::time::Duration;

use calos_api::cli::TierName;
use calos_api::simulated::switches::Switches;
use calos_tests::app::{Answer, Registered, TestApp};
use futures_util::StreamExt;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// What a wallet begins with.
const TRIAL_MICROS: i64 = 10_000_000;

/// How long something that happens by itself may take.
const PATIENCE: Duration = Duration::from_secs(10);

struct Tenant {
    app: TestApp,
    who: Registered,
    key: String,
}

impl Tenant {
    async fn start(tier: TierName) -> Self {
        let app = TestApp::start().await;
        let who = app.register().await;
        if !matches!(tier, TierName::Free) {
            app.admin_tier(who.tenant_id, tier).await;
        }
        let key = app.issue_key(&who).await;
        Self { app, who, key }
    }

    fn chat(&self, body: &Value) -> RequestBuilder {
        self.app.post("/v1/chat/completions", body).bearer_auth(&self.key)
    }

    async fn ask(&self, text: &str) -> Answer {
        Answer::of(self.chat(&question(text, false))).await
    }

    /// Balance and usage, once the read models have seen `position`.
    async fn balance(&self, position: &str) -> Value {
        let request = self.app.get("/api/credits/balance").bearer_auth(&self.who.token);
        let request = if position.is_empty() { request } else { request.header("calos-after", position) };
        Answer::of(request).await.expect(200).body
    }

    async fn usage(&self) -> Vec<Value> {
        let usage = self.app.get("/api/credits/usage").bearer_auth(&self.who.token);
        let usage = Answer::of(usage).await.expect(200);
        usage.body["usage"].as_array().expect("usage").clone()
    }

    /// Waits until so many uses stand in the usage log and nothing is held any more.
    async fn settled(&self, uses: usize) -> (Vec<Value>, Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (usage, balance) = (self.usage().await, self.balance("").await);
            if usage.len() >= uses && balance["held_micros"] == 0 {
                return (usage, balance);
            }
            assert!(Instant::now() < deadline, "not settled: {usage:?} {balance}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn switch(&self, switches: Switches) {
        self.app.running.simulated().expect("simulated providers").switch(switches);
    }
}

fn question(text: &str, stream: bool) -> Value {
    json!({"model": "gpt-4", "max_tokens": 500, "stream": stream, "messages": [{"role": "user", "content": text}]})
}

/// What gpt-4 costs a pro tenant: 30 and 60 micro-dollars a token, and 30 percent, rounded half up once.
fn pro_gpt_4(usage: &Value) -> (i64, i64) {
    let tokens = |field: &str| usage[field].as_i64().unwrap_or_else(|| panic!("{field} in {usage}"));
    let provider = tokens("prompt_tokens") * 30 + tokens("completion_tokens") * 60;
    (provider, (provider * 130 + 50) / 100)
}

/// The data of every event of a stream, read to its end.
async fn events(request: RequestBuilder) -> Vec<String> {
    let answer = Answer::of(request).await.expect(200);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let events = answer.text.split("\n\n").filter(|event| !event.is_empty());
    events.map(|event| event.strip_prefix("data: ").expect("a data event").to_owned()).collect()
}

fn chunks(events: &[String]) -> Vec<Value> {
    let data = events.iter().filter(|event| *event != "[DONE]");
    data.map(|event| serde_json::from_str(event).expect("a chunk is JSON")).collect()
}

fn text_of(chunks: &[Value]) -> String {
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pro_call_is_charged_to_the_micro_dollar() {
    let pro = Tenant::start(TierName::Pro).await;
    let answer = pro.ask("Tell me about event sourcing, please.").await.expect(200);
    assert_eq!(answer.body["provider"], "openai");
    assert_eq!(answer.body["model"], "gpt-4");
    assert_eq!(answer.body["object"], "chat.completion");
    let text = answer.body["choices"][0]["message"]["content"].as_str().expect("an answer");
    assert!(text.starts_with("[simulated]"), "{text}");
    let (provider, total) = pro_gpt_4(&answer.body["usage"]);
    let billing = &answer.body["billing"];
    assert_eq!(billing["total_cost_micros"], total);
    assert_eq!(billing["total_cost_cents"], (total + 5_000) / 10_000);
    assert_eq!(billing["provider_cost_cents"], (provider + 5_000) / 10_000);
    assert_eq!(billing["markup_cost_cents"], (total - provider + 5_000) / 10_000);

    let balance = pro.balance(answer.header("calos-position")).await;
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - total);
    assert_eq!(balance["held_micros"], 0);
    let (usage, _) = pro.settled(1).await;
    assert_eq!(usage[0]["usageId"], billing["usage_id"]);
    assert_eq!(usage[0]["totalMicros"], total);
    assert_eq!(usage[0]["providerCostMicros"], provider);
    assert_eq!(usage[0]["promptTokens"], answer.body["usage"]["prompt_tokens"]);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_tenant_gets_the_local_model_for_nothing_and_is_told_so() {
    let free = Tenant::start(TierName::Free).await;
    let answer = free.ask("Hello there.").await.expect(200);
    assert_eq!(answer.header("x-calos-substituted-for"), "gpt-4");
    assert_eq!(answer.body["provider"], "ollama");
    assert_eq!(answer.body["model"], "llama3.2:3b");
    assert_eq!(answer.body["billing"]["total_cost_micros"], 0);
    assert!(answer.body["usage"]["prompt_tokens"].as_i64().is_some_and(|tokens| tokens > 0));
    let own = Answer::of(free.chat(&json!({"messages": [{"role": "user", "content": "Hi"}]}))).await.expect(200);
    assert_eq!(own.header("x-calos-substituted-for"), "");
    let (usage, balance) = free.settled(2).await;
    assert_eq!(balance["balance_micros"], TRIAL_MICROS);
    assert!(usage.iter().all(|usage| usage["provider"] == "ollama" && usage["totalMicros"] == 0));
    free.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_bill() {
    let pro = Tenant::start(TierName::Pro).await;
    let events = events(pro.chat(&question("Tell me a story.", true))).await;
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let chunks = chunks(&events);
    assert!(text_of(&chunks).starts_with("[simulated] You said: Tell me a story."), "{}", text_of(&chunks));
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let ids: std::collections::BTreeSet<_> = chunks.iter().map(|chunk| chunk["id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
    // Nobody asked for the usage, so it is not shown; the bill stands in the chunk that says why it ended.
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()), "{chunks:?}");
    let (last, before) = chunks.split_last().expect("chunks");
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert_eq!(last["provider"], "openai");
    assert!(before.iter().all(|chunk| chunk.get("billing").is_none()));

    let (usage, balance) = pro.settled(1).await;
    assert_eq!(last["billing"]["usage_id"], usage[0]["usageId"]);
    let counted = json!({"prompt_tokens": usage[0]["promptTokens"], "completion_tokens": usage[0]["completionTokens"]});
    let (_, total) = pro_gpt_4(&counted);
    assert_eq!(last["billing"]["total_cost_micros"], total);
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - total);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_its_usage_to_who_asks_for_it() {
    for (tier, provider) in [(TierName::Pro, "openai"), (TierName::Free, "ollama")] {
        let tenant = Tenant::start(tier).await;
        let mut body = question("Tell me a story.", true);
        body["stream_options"] = json!({"include_usage": true});
        let chunks = chunks(&events(tenant.chat(&body)).await);
        let (last, before) = chunks.split_last().expect("chunks");
        assert!(before.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()), "{provider}");
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["provider"], provider);
        let spoken = before
            .iter()
            .filter(|chunk| chunk["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(last["usage"]["completion_tokens"].as_u64(), Some(spoken.count() as u64), "{provider}");
        assert!(last["billing"]["usage_id"].is_string());
        assert_eq!(before.last().expect("a finish")["choices"][0]["finish_reason"], "stop");
        tenant.app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_in_the_middle_of_a_stream_pays_for_what_was_produced() {
    let pro = Tenant::start(TierName::Pro).await;
    let body = question("[[answer_tokens=400]] [[token_delay_ms=10]] go on", true);
    let response = pro.chat(&body).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    let mut stream = response.bytes_stream();
    let mut seen = String::new();
    while seen.matches("word").count() < 5 {
        let piece = stream.next().await.expect("more to come").expect("a piece");
        seen.push_str(&String::from_utf8_lossy(&piece));
    }
    drop(stream);
    let (usage, balance) = pro.settled(1).await;
    let produced = usage[0]["completionTokens"].as_i64().expect("tokens");
    assert!((5..300).contains(&produced), "{produced}");
    let counted = json!({"prompt_tokens": usage[0]["promptTokens"], "completion_tokens": produced});
    let (_, total) = pro_gpt_4(&counted);
    assert!(total > 0);
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - total);
    // The provider was stopped rather than left to write on.
    let tally = pro.app.running.simulated().expect("simulated providers").produced()["openai/gpt-4"];
    assert_eq!((tally.calls, tally.broken_off), (1, 1));
    assert!(tally.completion_tokens < 300, "{tally:?}");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_before_a_whole_answer_pays_for_it() {
    let pro = Tenant::start(TierName::Pro).await;
    let body = question("[[answer_tokens=50]] [[token_delay_ms=40]] go on", false);
    let call = tokio::spawn(pro.chat(&body).send());
    let deadline = Instant::now() + PATIENCE;
    while pro.balance("").await["held_micros"] == 0 {
        assert!(Instant::now() < deadline && !call.is_finished(), "nothing is held");
        sleep(Duration::from_millis(10)).await;
    }
    call.abort();
    let (usage, balance) = pro.settled(1).await;
    assert_eq!(usage[0]["completionTokens"], 50);
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - usage[0]["totalMicros"].as_i64().expect("a total"));
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_gives_nothing_costs_nothing() {
    let pro = Tenant::start(TierName::Pro).await;
    for (switch, status, code) in [
        ("[[fail_with=500]]", 502, "simulated_failure"),
        ("[[fail_with=503]]", 503, "provider_unavailable"),
        ("[[fail_with=401]]", 503, "provider_unavailable"),
        ("[[fail_with=429]]", 429, "simulated_failure"),
        ("[[fail_with=400]]", 400, "simulated_failure"),
        ("[[drop_after_tokens=3]]", 503, "provider_unavailable"),
    ] {
        for stream in [false, true] {
            if stream && switch.contains("drop") {
                continue;
            }
            let answer = Answer::of(pro.chat(&question(switch, stream))).await.expect(status);
            assert_eq!(answer.body["error"]["code"], code, "{switch} {}", answer.text);
            assert_eq!(answer.header("retry-after").is_empty(), !matches!(status, 429 | 503), "{switch}");
        }
    }
    let (usage, balance) = pro.settled(0).await;
    assert!(usage.is_empty(), "{usage:?}");
    assert_eq!(balance["balance_micros"], TRIAL_MICROS);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_breaks_off_is_paid_for_what_it_gave() {
    for switch in ["[[drop_after_tokens=7]]", "[[error_after_tokens=7]]"] {
        let pro = Tenant::start(TierName::Pro).await;
        let events = events(pro.chat(&question(&format!("{switch} [[answer_tokens=40]]"), true))).await;
        assert_ne!(events.last().map(String::as_str), Some("[DONE]"), "{switch}");
        let chunks = chunks(&events);
        let last = chunks.last().expect("an error");
        assert!(last["error"]["message"].is_string(), "{switch} {last}");
        let (usage, balance) = pro.settled(1).await;
        let total = usage[0]["totalMicros"].as_i64().expect("a total");
        assert!(usage[0]["completionTokens"].as_i64().is_some_and(|tokens| (7..=20).contains(&tokens)), "{usage:?}");
        assert_eq!(last["billing"]["total_cost_micros"], total, "{switch} {last}");
        assert_eq!(balance["balance_micros"], TRIAL_MICROS - total);
        pro.app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_charges_what_was_written_and_says_so() {
    let pro = Tenant::start(TierName::Pro).await;
    let body = question("[[answer_tokens=400]] [[token_delay_ms=20]] go on", true);
    let mut stream = pro.chat(&body).send().await.expect("an answer").bytes_stream();
    stream.next().await.expect("a beginning").expect("a piece");
    sleep(Duration::from_millis(200)).await;
    pro.app.running.app().gateway.stop().await;
    let mut seen = String::new();
    while let Some(piece) = stream.next().await {
        seen.push_str(&String::from_utf8_lossy(&piece.expect("a piece")));
    }
    let last = seen.trim_end().rsplit("data: ").next().expect("an event");
    let last: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(last["error"]["code"], "provider_unavailable", "{last}");
    let (usage, balance) = pro.settled(1).await;
    let total = usage[0]["totalMicros"].as_i64().expect("a total");
    assert!(total > 0);
    assert_eq!(last["billing"]["total_cost_micros"], total);
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - total);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_count_is_counted() {
    let pro = Tenant::start(TierName::Pro).await;
    pro.switch(Switches { omit_usage: true, ..Switches::default() });
    pro.ask("How much is it?").await.expect(200);
    let chunks = chunks(&events(pro.chat(&question("How much is it?", true))).await);
    assert!(chunks.last().expect("a bill")["billing"]["total_cost_micros"].as_i64().is_some_and(|total| total > 0));
    let (usage, balance) = pro.settled(2).await;
    let totals: Vec<i64> = usage.iter().filter_map(|usage| usage["totalMicros"].as_i64()).collect();
    assert!(totals.iter().all(|total| *total > 0), "{totals:?}");
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - totals.iter().sum::<i64>());
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_answers_are_held_for_and_paid() {
    let pro = Tenant::start(TierName::Pro).await;
    let mut body = question("[[answer_tokens=20]]", false);
    body["n"] = json!(3);
    let answer = Answer::of(pro.chat(&body)).await.expect(200);
    assert_eq!(answer.body["choices"].as_array().map(Vec::len), Some(3));
    assert_eq!(answer.body["usage"]["completion_tokens"], 60);
    assert_eq!(answer.body["billing"]["total_cost_micros"], pro_gpt_4(&answer.body["usage"]).1);
    // 3 x 8192 tokens cost more than the wallet has.
    body["max_tokens"] = json!(8_192);
    body["n"] = json!(100);
    let refused = Answer::of(pro.chat(&body)).await.expect(402);
    assert_eq!(refused.body["error"]["code"], "insufficient_quota");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_at_once_never_spend_more_than_the_wallet_has() {
    let pro = Tenant::start(TierName::Pro).await;
    // Each costs 197,808 micro-dollars or a little more, so the trial pays for fifty.
    let text = "[[answer_tokens=2530]] go";
    let body = json!({"model": "gpt-4", "max_tokens": 2_530, "messages": [{"role": "user", "content": text}]});
    let calls = (0..200).map(|_| Answer::of(pro.chat(&body)));
    let answers: Vec<Answer> = futures_util::future::join_all(calls).await;
    let mut charged = 0;
    let mut paid = 0;
    for answer in &answers {
        match answer.status.as_u16() {
            200 => {
                let (_, total) = pro_gpt_4(&answer.body["usage"]);
                assert_eq!(answer.body["billing"]["total_cost_micros"], total);
                charged += total;
                paid += 1;
            }
            402 => assert_eq!(answer.body["error"]["code"], "insufficient_quota"),
            429 => {
                assert_eq!(answer.body["error"]["code"], "in_flight_budget_exhausted");
                assert!(!answer.header("retry-after").is_empty());
            }
            other => panic!("{other}: {}", answer.text),
        }
    }
    assert!((40..=50).contains(&paid), "{paid} calls were paid for");
    let (usage, balance) = pro.settled(paid).await;
    assert_eq!(usage.len().min(50), paid);
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - charged);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_model_and_a_foreign_key_are_refused_as_openai_does() {
    let pro = Tenant::start(TierName::Pro).await;
    let mut body = question("Hi", false);
    body["model"] = json!("gpt-99");
    let unknown = Answer::of(pro.chat(&body)).await.expect(404);
    assert_eq!(unknown.body["error"]["code"], "model_not_found");
    assert_eq!(unknown.body["error"]["param"], "model");
    let nobody = Answer::of(pro.app.post("/v1/chat/completions", &body)).await.expect(401);
    assert!(nobody.body["error"]["message"].is_string());
    let wrong = pro.app.post("/v1/chat/completions", &body).bearer_auth(format!("{}x", pro.key));
    assert_eq!(Answer::of(wrong).await.expect(401).body["error"]["code"], "invalid_api_key");
    body["model"] = json!("gpt-4");
    body["service_tier"] = json!("priority");
    let unpriced = Answer::of(pro.chat(&body)).await.expect(400);
    assert_eq!(unpriced.body["error"]["param"], "service_tier");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_sees_and_uses_only_the_models_it_may() {
    let pro = Tenant::start(TierName::Pro).await;
    let path = format!("/api/tenants/{}/keys", pro.who.tenant_id);
    let request =
        pro.app.post(&path, &json!({"name": "narrow", "models": ["gpt-4o-mini"]})).bearer_auth(&pro.who.token);
    let narrow = Answer::of(request).await.expect(201).body["key"].as_str().expect("a key").to_owned();
    let models = |key: &str| pro.app.get("/v1/models").bearer_auth(key.to_owned());

    let all = Answer::of(models(&pro.key)).await.expect(200);
    let ids: Vec<&str> =
        all.body["data"].as_array().expect("models").iter().filter_map(|model| model["id"].as_str()).collect();
    assert!(ids.contains(&"gpt-4") && ids.contains(&"llama3.2:3b"), "{ids:?}");
    assert!(all.body["data"].as_array().expect("models").iter().all(|model| model["owned_by"] == "simulated"));

    let some = Answer::of(models(&narrow)).await.expect(200);
    assert_eq!(some.body["data"].as_array().map(Vec::len), Some(1));
    let refused = Answer::of(pro.app.post("/v1/chat/completions", &question("Hi", false)).bearer_auth(&narrow)).await;
    assert_eq!(refused.expect(403).body["error"]["code"], "model_not_allowed");

    let free = pro.app.register().await;
    let free_key = pro.app.issue_key(&free).await;
    let local = Answer::of(models(&free_key)).await.expect(200);
    let ids: Vec<&str> =
        local.body["data"].as_array().expect("models").iter().filter_map(|model| model["id"].as_str()).collect();
    assert!(!ids.contains(&"gpt-4") && ids.contains(&"llama3.2:3b"), "{ids:?}");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_called_in_openais_shape_whoever_answers() {
    for tier in [TierName::Pro, TierName::Free] {
        let tenant = Tenant::start(tier).await;
        let mut body = question("[[call_tool]] what is the weather?", false);
        body["tools"] =
            json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]);
        let answer = Answer::of(tenant.chat(&body)).await.expect(200);
        let choice = &answer.body["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls", "{}", answer.text);
        let call = &choice["message"]["tool_calls"][0];
        assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("weather")));
        let arguments = call["function"]["arguments"].as_str().expect("arguments are text");
        assert_eq!(serde_json::from_str::<Value>(arguments).expect("JSON"), json!({"simulated": true}));
        body["stream"] = json!(true);
        let chunks = chunks(&events(tenant.chat(&body)).await);
        let delta = chunks.iter().find_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0].as_object().cloned());
        let delta = delta.expect("a tool call");
        assert_eq!(delta["index"], 0);
        assert_eq!(delta["function"]["name"], "weather");
        tenant.app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_whose_owner_died_is_given_back() {
    use calos_commands::log::{EventLog, Plan};
    use calos_commands::metadata::{Actor, Metadata};
    use calos_domain::wallet::{Meter, Wallet, WalletCommand, WalletRefusal};
    use calos_domain::{Asset, HoldId, StreamId, Units, UsageId};

    let pro = Tenant::start(TierName::Pro).await;
    let app = pro.app.running.app();
    let now = calos_api::request::now();
    let id = uuid::Uuid::now_v7();
    let mut plan = Plan::default();
    let wallet = plan.stream::<Wallet>(StreamId::key(pro.who.tenant_id));
    let placed = app.log.execute(&plan, Metadata::new(Actor::System("test")).into(), |unit| {
        let command = WalletCommand::PlaceHold {
            hold_id: HoldId(id),
            asset: Asset::Usd,
            amount: Units::new(4_000_000),
            meter: Meter::Chat,
            api_key_id: None,
            usage_id: UsageId(id),
            admitted_at: now.plus_seconds(-120),
            expires_at: now.plus_seconds(-60),
        };
        unit.decide(wallet, command).map(drop)
    });
    let placed: Result<_, calos_commands::log::Failed<WalletRefusal>> = placed.await;
    let position = placed.expect("a hold").positions.to_string();
    assert_eq!(pro.balance(&position).await["held_micros"], 4_000_000);

    let deadline = Instant::now() + PATIENCE;
    while calos_api::expire_holds::sweep(&app.pool, &app.log).await.expect("a sweep") == 0 {
        if pro.balance("").await["held_micros"] == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "the hold is still there");
        sleep(Duration::from_millis(20)).await;
    }
    let (_, balance) = pro.settled(0).await;
    assert_eq!(balance["balance_micros"], TRIAL_MICROS);
    assert_eq!(calos_api::expire_holds::sweep(&app.pool, &app.log).await.expect("a sweep"), 0);
    pro.app.stop().await;
}
