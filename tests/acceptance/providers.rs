//! The provider adapters over real HTTP: the simulated providers, and servers that misbehave in other ways.

#![expect(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

use std::sync::Arc;
use std::time::Duration;

use calos_adapters::providers::{HttpSettings, Ollama, OpenAi, ProviderHttp};
use calos_api::simulated::SimulatedProviders;
use calos_api::simulated::produced::Tally;
use calos_api::simulated::switches::Switches;
use calos_commands::provider::{
    ChatProvider, ChatRequest, ChunkKind, MaxTokensField, Phase, ProviderError, TokenUsage,
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SHORT: HttpSettings = HttpSettings {
    first_byte: Duration::from_millis(400),
    idle: Duration::from_millis(200),
    whole: Duration::from_secs(2),
};

fn http(settings: HttpSettings) -> ProviderHttp {
    ProviderHttp::new(settings).expect("a client")
}

fn openai(simulated: &SimulatedProviders, settings: HttpSettings) -> OpenAi {
    OpenAi::new(http(settings), &simulated.openai_url(), "sk-test").expect("a key")
}

fn both(simulated: &SimulatedProviders) -> [(Arc<dyn ChatProvider>, &'static str); 2] {
    let ollama = Ollama::new(http(HttpSettings::default()), &simulated.ollama_url());
    [(Arc::new(openai(simulated, HttpSettings::default())), "gpt-4"), (Arc::new(ollama), "llama3.2:3b")]
}

pub(crate) fn request(model: &str, text: &str) -> ChatRequest {
    let fields = json!({"messages": [{"role": "user", "content": text}]}).to_string();
    ChatRequest {
        dialect: calos_commands::provider::Dialect::OpenAi,
        key: None,
        answer_id: "chatcmpl-test".to_owned(),
        model: model.to_owned(),
        fields: Arc::new(serde_json::from_str(&fields).expect("fields")),
        betas: None,
        max_tokens: 100,
        max_tokens_field: MaxTokensField::MaxTokens,
        show_usage: true,
        prompt_estimate_tokens: 9,
        transcript: calos_commands::provider::Transcript::default(),
    }
}

async fn tally(simulated: &SimulatedProviders, name: &str) -> Tally {
    for _ in 0..200 {
        if let Some(tally) = simulated.produced().get(name) {
            return *tally;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} has produced nothing: {:?}", simulated.produced());
}

/// Everything of a stream until it ends or fails: its text, its last usage, and why it failed.
async fn told(provider: &dyn ChatProvider, asked: &ChatRequest) -> (String, Option<TokenUsage>, Option<ProviderError>) {
    let mut chunks = match provider.stream(asked).await {
        Ok(chunks) => chunks,
        Err(error) => return (String::new(), None, Some(error)),
    };
    let (mut text, mut usage) = (String::new(), None);
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => {
                let json: Value = serde_json::from_slice(&chunk.json.expect("usage is shown")).expect("JSON");
                assert_eq!(json["object"], "chat.completion.chunk");
                text.push_str(json["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
                usage = chunk.usage.or(usage);
                assert_eq!(chunk.kind == ChunkKind::Usage, json["usage"].is_object());
            }
            Err(error) => return (text, usage, Some(error)),
        }
    }
    (text, usage, None)
}

#[tokio::test]
async fn whole_and_streamed_answers_say_and_count_the_same() {
    let simulated = SimulatedProviders::start().await.expect("simulated providers");
    for (provider, model) in both(&simulated) {
        let asked = request(model, "What is a ledger?");
        let whole = provider.complete(&asked).await.expect("an answer");
        let body = serde_json::to_value(&whole.body).expect("JSON");
        let (text, usage, failed) = told(provider.as_ref(), &asked).await;
        assert_eq!(failed, None);
        assert_eq!(body["choices"][0]["message"]["content"], text);
        assert_eq!(text, "[simulated] You said: What is a ledger?");
        assert_eq!(whole.usage, usage);
        assert_eq!((whole.model.as_str(), body["object"].as_str()), (model, Some("chat.completion")));
        let usage = usage.expect("usage");
        let tally = tally(&simulated, &format!("{}/{model}", provider.name())).await;
        assert_eq!((tally.calls, tally.completed), (2, 2));
        assert_eq!(
            (tally.prompt_tokens, tally.completion_tokens),
            (2 * usage.prompt_tokens, 2 * usage.completion_tokens)
        );
        assert!(provider.models().await.expect("models").iter().any(|listed| listed.id == model));
    }
}

#[tokio::test]
async fn dropping_a_stream_stops_the_provider() {
    let simulated = SimulatedProviders::start().await.expect("simulated providers");
    for (provider, model) in both(&simulated) {
        let mut asked = request(model, "[[answer_tokens=5000]] [[token_delay_ms=5]]");
        asked.max_tokens = 5_000;
        let mut chunks = provider.stream(&asked).await.expect("a stream");
        for _ in 0..3 {
            chunks.next().await.expect("more").expect("a chunk");
        }
        drop(chunks);
        let tally = tally(&simulated, &format!("{}/{model}", provider.name())).await;
        assert_eq!((tally.broken_off, tally.completed), (1, 0));
        assert!(tally.completion_tokens < 100, "{tally:?}");
    }
}

#[tokio::test]
async fn a_provider_that_falls_silent_is_given_up() {
    let simulated = SimulatedProviders::start().await.expect("simulated providers");
    let openai = openai(&simulated, SHORT);
    let late = told(&openai, &request("gpt-4", "[[first_byte_delay_ms=5000]]")).await.2;
    assert!(matches!(late, Some(ProviderError::Timeout { phase: Phase::FirstByte, .. })), "{late:?}");
    let silent = told(&openai, &request("gpt-4", "[[token_delay_ms=5000]]")).await.2;
    assert!(matches!(silent, Some(ProviderError::Timeout { phase: Phase::Idle, .. })), "{silent:?}");
    let slow = told(&openai, &request("gpt-4", "[[answer_tokens=90]] [[token_delay_ms=100]]")).await;
    assert!(matches!(slow.2, Some(ProviderError::Timeout { phase: Phase::Whole, .. })), "{slow:?}");
    assert!(slow.0.starts_with("[simulated] word"), "{slow:?}");
    let whole = openai.complete(&request("gpt-4", "[[first_byte_delay_ms=5000]]")).await;
    assert!(matches!(whole, Err(ProviderError::Timeout { phase: Phase::Whole, .. })), "{whole:?}");
}

/// A server that answers every request with these bytes, then goes on with `more` every 50 ms for ever.
async fn server(head: &'static str, more: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = [0_u8; 4096];
                let _read = connection.read(&mut seen).await;
                let mut sent = connection.write_all(head.as_bytes()).await;
                while sent.is_ok() && !more.is_empty() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    sent = connection.write_all(more.as_bytes()).await;
                }
            });
        }
    });
    format!("http://{address}")
}

const EVENT_STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
    data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\r\n\r\n";

#[tokio::test]
async fn keep_alive_comments_do_not_keep_a_dead_answer_alive() {
    let base = server(EVENT_STREAM, ": keep-alive\r\n\r\n").await;
    let openai = OpenAi::new(http(SHORT), &base, "sk-test").expect("a key");
    let mut chunks = openai.stream(&request("gpt-4", "x")).await.expect("a stream");
    assert!(chunks.next().await.expect("a chunk").is_ok());
    let failed = chunks.next().await.expect("an end").expect_err("a timeout");
    assert!(matches!(failed, ProviderError::Timeout { phase: Phase::Idle, .. }), "{failed}");
    assert!(chunks.next().await.is_none(), "nothing follows an error");
}

#[tokio::test]
async fn a_stream_that_ends_without_its_end_mark_is_broken() {
    let openai = OpenAi::new(http(SHORT), &server(EVENT_STREAM, "").await, "sk-test").expect("a key");
    let mut chunks = openai.stream(&request("gpt-4", "x")).await.expect("a stream");
    assert!(chunks.next().await.expect("a chunk").is_ok());
    let failed = chunks.next().await.expect("an end").expect_err("an error");
    assert!(matches!(failed, ProviderError::BadAnswer { .. } | ProviderError::Unreachable { .. }), "{failed}");

    let lines = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n\
        {\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"a\"},\"done\":false}\n";
    let ollama = Ollama::new(http(SHORT), &server(lines, "").await);
    let (_, _, failed) = told(&ollama, &request("m", "x")).await;
    assert!(matches!(failed, Some(ProviderError::BadAnswer { .. } | ProviderError::Unreachable { .. })), "{failed:?}");
}

#[tokio::test]
async fn a_redirect_takes_no_key_anywhere() {
    let target = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "").await;
    let answer = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n");
    let openai = OpenAi::new(http(SHORT), &server(answer.leak(), "").await, "sk-test").expect("a key");
    let failed = openai.complete(&request("gpt-4", "x")).await.expect_err("a refusal");
    assert!(matches!(failed, ProviderError::Status { status: 307, .. }), "{failed}");
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_named_without_its_key() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let openai = OpenAi::new(http(SHORT), &base, "sk-secret").expect("a key");
    let failed = openai.complete(&request("gpt-4", "x")).await.expect_err("no connection");
    assert!(matches!(failed, ProviderError::Unreachable { provider: "openai", .. }), "{failed}");
    assert!(!failed.to_string().contains("secret") && !failed.to_string().contains("http://"), "{failed}");
}

#[tokio::test]
async fn an_endless_error_is_cut_short() {
    let filler = "x".repeat(40_000);
    let answer = "HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\n\r\n";
    let openai = OpenAi::new(http(SHORT), &server(answer, filler.leak()).await, "sk-test").expect("a key");
    let failed = openai.complete(&request("gpt-4", "x")).await.expect_err("an error");
    let ProviderError::Status { status: 500, message, .. } = failed else { panic!("{failed}") };
    assert_eq!(message.len(), 2_000);
}

#[tokio::test]
async fn simulated_answers_are_labelled_and_can_be_controlled() {
    let simulated = SimulatedProviders::start().await.expect("simulated providers");
    let openai = openai(&simulated, HttpSettings::default());
    let client = reqwest::Client::new();
    for base in [simulated.openai_url(), simulated.ollama_url()] {
        let switches = format!("{base}/simulated/switches");
        let set = client.put(&switches).json(&json!({"fail_with": 503})).send().await.expect("an answer");
        assert_eq!(set.headers()["x-calos-simulated"], "true");
        let read: Switches = client.get(&switches).send().await.expect("an answer").json().await.expect("switches");
        assert_eq!(read.fail_with, Some(503));
        let unknown = client.put(&switches).json(&json!({"fail": 503})).send().await.expect("an answer");
        assert!(unknown.status().is_client_error());
    }
    for (provider, model) in both(&simulated) {
        let failed = provider.complete(&request(model, "x")).await.expect_err("switched to fail");
        assert!(matches!(failed, ProviderError::Status { status: 503, .. }), "{failed}");
    }
    simulated.switch(Switches::default());
    openai.complete(&request("gpt-4", "x")).await.expect("an answer");
    let produced = format!("{}/simulated/produced", simulated.ollama_url());
    let tallies: Value = client.get(&produced).send().await.expect("an answer").json().await.expect("tallies");
    assert_eq!(tallies["openai/gpt-4"]["completed"], 1);
    client.delete(&produced).send().await.expect("an answer");
    assert!(simulated.produced().is_empty());
    let unknown = openai.complete(&request("gpt-99", "x")).await.expect_err("no such model");
    assert!(matches!(unknown, ProviderError::Status { status: 404, .. }), "{unknown}");
}
