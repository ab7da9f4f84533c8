//! Anthropic's dialect for every provider, and every dialect for Anthropic: text, streams, tools, pictures, and bills
//! exact to the micro-dollar.

mod caching;
mod dialects;
mod failing;

use calos_api::cli::TierName;
use calos_tests::app::Answer;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{TRIAL_MICROS, Tenant};

/// Claude, the model of the tests.
const CLAUDE: &str = "claude-sonnet-4-6";

/// Who answers, and with which model.
const EVERYBODY: [(&str, &str); 4] =
    [("anthropic", CLAUDE), ("openai", "gpt-4o"), ("deepseek", "deepseek-chat"), ("ollama", "llama3.2:3b")];

/// A picture of one white point.
const PICTURE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";

impl Tenant {
    fn message(&self, body: &Value) -> RequestBuilder {
        self.app.post("/v1/messages", body).header("x-api-key", &self.key).header("anthropic-version", "2023-06-01")
    }
}

fn asking(model: &str, content: impl Into<Value>) -> Value {
    json!({"model": model, "max_tokens": 500, "messages": [{"role": "user", "content": content.into()}]})
}

fn streaming(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

/// The events of a message stream, read to its end; each is named as its data is typed.
async fn message_events(request: RequestBuilder) -> Vec<Value> {
    let answer = Answer::of(request).await.expect(200);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    events_in(&answer.text)
}

fn events_in(text: &str) -> Vec<Value> {
    let events = text.split("\n\n").filter(|event| !event.is_empty()).map(|event| {
        let (name, data) = event.split_once('\n').expect("a name and data");
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(name, format!("event: {}", data["type"].as_str().expect("a type")));
        data
    });
    events.collect()
}

fn types(events: &[Value]) -> Vec<&str> {
    let types = events.iter().filter_map(|event| event["type"].as_str());
    // A ping may come at any time.
    types.filter(|kind| *kind != "ping").collect()
}

fn delta_text(events: &[Value], field: &str) -> String {
    events.iter().filter_map(|event| event["delta"][field].as_str()).collect()
}

/// Hundredths of a micro-dollar a token costs: in, out, read from the cache, written to it for minutes and for an hour.
fn prices(model: &str) -> [i64; 5] {
    match model {
        CLAUDE => [300, 1_500, 30, 375, 600],
        "gpt-4o" => [250, 1_000, 125, 250, 250],
        "deepseek-chat" => [100; 5],
        _ => [0; 5],
    }
}

/// What a message costs a pro tenant, by the usage it shows: 30 percent on top, rounded half up once.
fn pro_message(model: &str, usage: &Value) -> i64 {
    let tokens = |field: &str| usage[field].as_i64().unwrap_or(0);
    let hour = usage["cache_creation"]["ephemeral_1h_input_tokens"].as_i64().unwrap_or(0);
    let counts = [
        tokens("input_tokens"),
        tokens("output_tokens"),
        tokens("cache_read_input_tokens"),
        tokens("cache_creation_input_tokens") - hour,
        hour,
    ];
    let exact: i64 = counts.iter().zip(prices(model)).map(|(tokens, price)| tokens * price).sum();
    (exact * 130 + 5_000) / 10_000
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_answered_and_charged_whoever_answers() {
    let pro = Tenant::start(TierName::Pro).await;
    let (mut charged, mut shown) = (0, Value::Null);
    for (provider, model) in EVERYBODY {
        let answer = Answer::of(pro.message(&asking(model, "Tell me about ledgers."))).await.expect(200);
        assert_eq!((&answer.body["type"], &answer.body["role"]), (&json!("message"), &json!("assistant")));
        assert_eq!((&answer.body["model"], &answer.body["provider"]), (&json!(model), &json!(provider)));
        assert_eq!(answer.body["stop_reason"], "end_turn", "{}", answer.text);
        let said = json!([{"type": "text", "text": "[simulated] You said: Tell me about ledgers."}]);
        assert_eq!(answer.body["content"], said);
        assert!(answer.body["id"].as_str().is_some_and(|id| id.starts_with("msg_")), "{}", answer.text);
        let total = pro_message(model, &answer.body["usage"]);
        assert_eq!(answer.body["billing"]["total_cost_micros"], total, "{}", answer.text);
        assert_eq!(total > 0, provider != "ollama");
        assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
        assert!(!answer.header("request-id").is_empty());
        charged += total;
        shown = answer.body["usage"].clone();
        assert_eq!(pro.balance(answer.header("calos-position")).await["balance_micros"], TRIAL_MICROS - charged);
    }
    let (usage, _) = pro.settled(4).await;
    // The simulated ones count alike, and what was shown is what was recorded.
    let mut recorded = usage.iter().map(|usage| (&usage["promptTokens"], &usage["completionTokens"]));
    assert!(recorded.all(|counts| counts == (&shown["input_tokens"], &shown["output_tokens"])), "{usage:?}");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_in_events_and_ends_with_its_bill_whoever_answers() {
    let pro = Tenant::start(TierName::Pro).await;
    let mut charged = 0;
    for (place, (provider, model)) in EVERYBODY.into_iter().enumerate() {
        let events = message_events(pro.message(&streaming(asking(model, "Tell me a story.")))).await;
        let types = types(&events);
        assert_eq!(types[..2], ["message_start", "content_block_start"], "{provider}");
        assert_eq!(types[types.len() - 3..], ["content_block_stop", "message_delta", "message_stop"], "{provider}");
        assert!(types[2..types.len() - 3].iter().all(|kind| *kind == "content_block_delta"), "{provider}");
        let start = &events[0]["message"];
        assert_eq!(
            (&start["model"], &start["content"], &start["stop_reason"]),
            (&json!(model), &json!([]), &Value::Null)
        );
        assert_eq!(delta_text(&events, "text"), "[simulated] You said: Tell me a story.");
        let delta = events.iter().find(|event| event["type"] == "message_delta").expect("a delta");
        assert_eq!(delta["delta"]["stop_reason"], "end_turn");
        let mut usage = start["usage"].clone();
        for (field, tokens) in delta["usage"].as_object().expect("a usage") {
            usage[field] = tokens.clone();
        }
        let total = pro_message(model, &usage);
        let (last, before) = events.split_last().expect("events");
        assert_eq!(last["provider"], provider);
        assert_eq!(last["billing"]["total_cost_micros"], total, "{provider} {usage}");
        assert!(before.iter().all(|event| event.get("billing").is_none()));
        charged += total;
        let (_, balance) = pro.settled(place + 1).await;
        assert_eq!(balance["balance_micros"], TRIAL_MICROS - charged);
    }
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_called_and_their_results_read_whoever_answers() {
    let pro = Tenant::start(TierName::Pro).await;
    for (provider, model) in EVERYBODY {
        let mut body = asking(model, "[[call_tool]] what is the weather?");
        body["tools"] = json!([{"name": "weather", "description": "tells it", "input_schema": {"type": "object"}}]);
        let answer = Answer::of(pro.message(&body)).await.expect(200);
        assert_eq!(answer.body["stop_reason"], "tool_use", "{}", answer.text);
        let call = &answer.body["content"][0];
        assert_eq!((&call["type"], &call["name"]), (&json!("tool_use"), &json!("weather")), "{provider}");
        assert_eq!(call["input"], json!({"simulated": true}), "{provider}");

        let events = message_events(pro.message(&streaming(body.clone()))).await;
        let start = events.iter().find(|event| event["type"] == "content_block_start").expect("a block");
        assert_eq!((&start["content_block"]["name"], &start["index"]), (&json!("weather"), &json!(0)));
        assert_eq!(start["content_block"]["input"], json!({}));
        let input: Value = serde_json::from_str(&delta_text(&events, "partial_json")).expect("JSON");
        assert_eq!(input, json!({"simulated": true}), "{provider}");

        let result =
            json!([{"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "rain"}]}]);
        let messages = body["messages"].as_array_mut().expect("messages");
        messages.push(json!({"role": "assistant", "content": answer.body["content"]}));
        messages.push(json!({"role": "user", "content": result}));
        let answer = Answer::of(pro.message(&body)).await.expect(200);
        let said = answer.body["content"][0]["text"].as_str().unwrap_or_default();
        assert!(said.ends_with("rain"), "{provider}: {}", answer.text);
    }
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_and_system_prompts_are_read_whoever_answers() {
    let pro = Tenant::start(TierName::Pro).await;
    for (provider, model) in EVERYBODY {
        let picture =
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}});
        let mut body = asking(model, json!([picture, {"type": "text", "text": "what is this"}]));
        let bare = Answer::of(pro.message(&body)).await.expect(200);
        assert!(
            bare.body["content"][0]["text"].as_str().is_some_and(|text| text.ends_with("what is this")),
            "{provider}"
        );
        body["system"] = json!([{"type": "text", "text": "be very brief"}]);
        let with = Answer::of(pro.message(&body)).await.expect(200);
        let tokens = |answer: &Answer| answer.body["usage"]["input_tokens"].as_i64().expect("tokens");
        assert_eq!(tokens(&with) - tokens(&bare), 3 + 4, "{provider}: the prompt's words and its frame");
    }
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_tenant_gets_the_local_model_in_anthropics_words() {
    let free = Tenant::start(TierName::Free).await;
    let answer = Answer::of(free.message(&asking(CLAUDE, "Hello there."))).await.expect(200);
    assert_eq!(answer.header("x-calos-substituted-for"), CLAUDE);
    assert_eq!((&answer.body["provider"], &answer.body["model"]), (&json!("ollama"), &json!("llama3.2:3b")));
    assert_eq!(answer.body["billing"]["total_cost_micros"], 0);
    let events = message_events(free.message(&streaming(asking(CLAUDE, "Hello there.")))).await;
    assert_eq!(events.last().expect("an end")["provider"], "ollama");
    free.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_message_is_paid_once_and_a_count_is_free() {
    let pro = Tenant::start(TierName::Pro).await;
    let body = asking(CLAUDE, "Once.");
    let ask = || pro.message(&body).header("idempotency-key", "m-1");
    let first = Answer::of(ask()).await.expect(200);
    let again = Answer::of(ask()).await.expect(200);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!((&again.body["id"], &again.body["billing"]), (&first.body["id"], &first.body["billing"]));
    let refused = Answer::of(pro.message(&streaming(body.clone())).header("idempotency-key", "m-2")).await.expect(400);
    assert_eq!(refused.body["error"]["type"], "invalid_request_error");

    let request = pro.app.post("/v1/messages/count_tokens", &json!({"model": CLAUDE, "messages": body["messages"]}));
    let count = Answer::of(request.header("x-api-key", &pro.key)).await.expect(200);
    assert!(count.body["input_tokens"].as_u64().is_some_and(|tokens| (5..20).contains(&tokens)), "{}", count.text);
    assert_eq!(count.body["estimated"], true);
    assert_eq!(pro.settled(1).await.0.len(), 1);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_models_are_listed_for_either_client() {
    let pro = Tenant::start(TierName::Pro).await;
    let list = Answer::of(pro.app.get("/v1/models").header("x-api-key", &pro.key)).await.expect(200);
    let models = list.body["data"].as_array().expect("models");
    let claude = models.iter().find(|model| model["id"] == CLAUDE).expect("Claude is listed");
    assert_eq!((&claude["type"], &claude["object"]), (&json!("model"), &json!("model")));
    assert_eq!((&claude["display_name"], &claude["created_at"]), (&json!(CLAUDE), &json!("2025-02-19T00:00:00Z")));
    assert_eq!((&list.body["has_more"], &list.body["first_id"]), (&json!(false), &models[0]["id"]));
    pro.app.stop().await;
}
