//! The Rust client `async-openai`, unchanged, against CALOS: what it sends is understood, what it gets it can read, and
//! every class of error reaches it as the error object it knows.

#![expect(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

use std::time::Duration;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::chat::{ChatCompletionMessageToolCalls, CreateChatCompletionRequest, FinishReason};
use async_openai::types::embeddings::CreateEmbeddingRequest;
use calos_api::cli::TierName;
use calos_tests::app::{Answer, Registered, TestApp};
use futures_util::StreamExt;
use serde_json::{Value, json};

struct Customer {
    app: TestApp,
    who: Registered,
    key: String,
    client: Client<OpenAIConfig>,
}

impl Customer {
    async fn on(tier: TierName) -> Self {
        let app = TestApp::start().await;
        let who = app.register().await;
        app.admin_tier(who.tenant_id, tier).await;
        let key = app.issue_key(&who).await;
        let client = client(&app, &key);
        Self { app, who, key, client }
    }

    async fn refused(&self, request: Value) -> (u16, String, String) {
        refusal(self.client.chat().create(chat(request)).await)
    }
}

fn client(app: &TestApp, key: &str) -> Client<OpenAIConfig> {
    Client::with_config(OpenAIConfig::new().with_api_base(app.url("/v1")).with_api_key(key))
}

fn chat(request: Value) -> CreateChatCompletionRequest {
    serde_json::from_value(request).expect("a request of the client's own types")
}

/// Status, type and code of an error, as the client understood it.
fn refusal<T>(answer: Result<T, OpenAIError>) -> (u16, String, String) {
    match answer {
        Err(OpenAIError::ApiError(refused)) => (
            refused.status_code.as_u16(),
            refused.api_error.r#type.unwrap_or_default(),
            refused.api_error.code.unwrap_or_default(),
        ),
        Err(other) => panic!("no error object: {other}"),
        Ok(_) => panic!("it was answered"),
    }
}

fn ask(text: &str) -> Value {
    json!({"model": "gpt-4", "max_tokens": 100, "messages": [{"role": "user", "content": text}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_answered_and_counted() {
    let customer = Customer::on(TierName::Pro).await;
    let answer = customer.client.chat().create(chat(ask("Say hello."))).await.expect("an answer");
    assert_eq!(answer.model, "gpt-4");
    let choice = &answer.choices[0];
    assert_eq!(choice.finish_reason, Some(FinishReason::Stop));
    assert!(choice.message.content.as_deref().is_some_and(|text| text.contains("hello")), "{choice:?}");
    let usage = answer.usage.expect("usage");
    assert_eq!(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
    customer.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_usage() {
    let customer = Customer::on(TierName::Pro).await;
    let mut request = ask("[[answer_tokens=20]] go on");
    request["stream_options"] = json!({"include_usage": true});
    let mut stream = customer.client.chat().create_stream(chat(request)).await.expect("a stream");
    let (mut text, mut finished, mut usage) = (String::new(), None, None);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.expect("a chunk the client can read");
        for choice in &chunk.choices {
            text.push_str(choice.delta.content.as_deref().unwrap_or_default());
            finished = choice.finish_reason.or(finished);
        }
        usage = chunk.usage.or(usage);
    }
    assert_eq!(finished, Some(FinishReason::Stop));
    let usage = usage.expect("a last chunk with the usage");
    assert_eq!(usage.completion_tokens, 20);
    assert!(!text.is_empty());
    customer.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_is_called_and_its_result_taken() {
    let customer = Customer::on(TierName::Pro).await;
    let tool = json!({"type": "function", "function": {"name": "weather", "description": "The weather at a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}}});
    let mut request = ask("[[call_tool]] How is the weather?");
    request["tools"] = json!([tool]);
    let answer = customer.client.chat().create(chat(request.clone())).await.expect("an answer");
    assert_eq!(answer.choices[0].finish_reason, Some(FinishReason::ToolCalls));
    let calls = answer.choices[0].message.tool_calls.clone().expect("tool calls");
    let ChatCompletionMessageToolCalls::Function(call) = &calls[0] else { panic!("{calls:?}") };
    assert_eq!(call.function.name, "weather");
    request["messages"] = json!([
        {"role": "user", "content": "How is the weather?"},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]);
    let answer = customer.client.chat().create(chat(request.clone())).await.expect("an answer");
    assert_eq!(answer.choices[0].finish_reason, Some(FinishReason::Stop));

    request["messages"] = json!([{"role": "user", "content": "[[call_tool]] How is the weather?"}]);
    let mut stream = customer.client.chat().create_stream(chat(request)).await.expect("a stream");
    let (mut name, mut arguments, mut finished) = (String::new(), String::new(), None);
    while let Some(chunk) = stream.next().await {
        for choice in chunk.expect("a chunk").choices {
            for call in choice.delta.tool_calls.into_iter().flatten() {
                let function = call.function.expect("a function");
                name.push_str(function.name.as_deref().unwrap_or_default());
                arguments.push_str(function.arguments.as_deref().unwrap_or_default());
            }
            finished = choice.finish_reason.or(finished);
        }
    }
    assert_eq!((name.as_str(), finished), ("weather", Some(FinishReason::ToolCalls)));
    serde_json::from_str::<Value>(&arguments).expect("arguments are JSON");
    customer.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_become_vectors() {
    let customer = Customer::on(TierName::Pro).await;
    let request = json!({"model": "text-embedding-3-small", "input": ["one", "two"]});
    let request: CreateEmbeddingRequest = serde_json::from_value(request).expect("a request");
    let answer = customer.client.embeddings().create(request.clone()).await.expect("vectors");
    assert_eq!(answer.data.len(), 2);
    assert!(!answer.data[0].embedding.is_empty() && answer.usage.total_tokens > 0);
    let packing = Some(async_openai::types::embeddings::EncodingFormat::Base64);
    let request = CreateEmbeddingRequest { encoding_format: packing, ..request };
    let packed = customer.client.embeddings().create_base64(request).await.expect("packed vectors");
    assert_eq!(packed.data.len(), 2);
    customer.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_models_a_key_may_use_are_listed() {
    let pro = Customer::on(TierName::Pro).await;
    let names = |list: async_openai::types::models::ListModelResponse| -> Vec<String> {
        list.data.into_iter().map(|model| model.id).collect()
    };
    let models = names(pro.client.models().list().await.expect("a list"));
    assert!(models.iter().any(|model| model == "gpt-4") && models.iter().any(|model| model == "llama3.2:3b"));
    for id in ["gpt-4", "llama3.2:3b"] {
        let model = pro.client.models().retrieve(id).await.expect("a model");
        assert_eq!((model.id.as_str(), model.object.as_str()), (id, "model"));
    }
    for id in ["gpt-99", "hf.co/somebody/model:Q4"] {
        let (status, _, code) = refusal(pro.client.models().retrieve(id).await);
        assert_eq!((status, code.as_str()), (404, "model_not_found"), "{id}");
    }
    let body = json!({"name": "narrow", "models": ["gpt-4"]});
    let path = format!("/api/tenants/{}/keys", pro.who.tenant_id);
    let narrow = Answer::of(pro.app.post(&path, &body).bearer_auth(&pro.who.token)).await.expect(201);
    let narrow = client(&pro.app, narrow.body["key"].as_str().expect("a key"));
    assert_eq!(names(narrow.models().list().await.expect("a list")), ["gpt-4"]);
    assert_eq!(refusal(narrow.models().retrieve("gpt-4o").await).0, 404);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_class_of_error_is_the_object_the_client_knows() {
    let pro = Customer::on(TierName::Pro).await;
    let wrong = client(&pro.app, &format!("{}x", pro.key));
    let (status, _, code) = refusal(wrong.chat().create(chat(ask("hi"))).await);
    assert_eq!((status, code.as_str()), (401, "invalid_api_key"));
    let (status, kind, _) = pro.refused(json!({"model": "gpt-4", "messages": []})).await;
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
    let (status, _, code) = pro.refused(json!({"model": "gpt-99", "messages": ask("hi")["messages"]})).await;
    assert_eq!((status, code.as_str()), (404, "model_not_found"));
    let (status, kind, code) =
        pro.refused(json!({"model": "gpt-4", "n": 100, "max_tokens": 8_000, "messages": ask("hi")["messages"]})).await;
    assert_eq!((status, kind.as_str(), code.as_str()), (402, "insufficient_quota", "insufficient_quota"));

    let path = format!("/api/tenants/{}/keys", pro.who.tenant_id);
    let limits = json!({"name": "two", "limits": {"perMinute": 2, "perHour": 2, "perDay": 2}});
    let two = Answer::of(pro.app.post(&path, &limits).bearer_auth(&pro.who.token)).await.expect(201);
    let two = client(&pro.app, two.body["key"].as_str().expect("a key"));
    for _ in 0..2 {
        two.chat().create(chat(ask("hi"))).await.expect("an answer");
    }
    // The client knows that a rate limit passes, and waits as long as it is told to before it asks again.
    let third = tokio::time::timeout(Duration::from_secs(3), two.chat().create(chat(ask("hi")))).await;
    assert!(third.is_err(), "it was answered or gave up: {third:?}");

    let elsewhere = json!({"name": "listing", "endpoints": ["/v1/models"]});
    let elsewhere = Answer::of(pro.app.post(&path, &elsewhere).bearer_auth(&pro.who.token)).await.expect(201);
    let elsewhere = client(&pro.app, elsewhere.body["key"].as_str().expect("a key"));
    assert_eq!(refusal(elsewhere.chat().create(chat(ask("hi"))).await).0, 403);
    // It repeats what a server failed at, takes no error object from there, and keeps the status alone.
    assert_eq!(pro.refused(ask("[[fail_with=503]]")).await.0, 503);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_is_an_error_and_no_end() {
    let pro = Customer::on(TierName::Pro).await;
    let request = chat(ask("[[error_after_tokens=5]] [[answer_tokens=40]] go on"));
    let mut stream = pro.client.chat().create_stream(request).await.expect("a stream");
    let mut failures = 0;
    while let Some(chunk) = stream.next().await {
        failures += u32::from(chunk.is_err());
    }
    assert_eq!(failures, 1);
    pro.app.stop().await;
}
