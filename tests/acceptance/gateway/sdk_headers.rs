//! What the SDKs of both dialects read beside an answer: whether to ask again, where they stand, how a request is called.

use calos_api::cli::TierName;
use calos_tests::app::Answer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Tenant, question};

const CLAUDE: &str = "claude-sonnet-4-6";

fn message(text: &str) -> Value {
    json!({"model": CLAUDE, "max_tokens": 100, "messages": [{"role": "user", "content": text}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropics_clients_read_limits_and_the_requests_name_where_they_look_for_them() {
    let pro = Tenant::start(TierName::Pro).await;
    let ask = |body: &Value| {
        let request = pro.app.post("/v1/messages", body).header("x-api-key", &pro.key);
        request.header("anthropic-version", "2023-06-01")
    };
    let answer = Answer::of(ask(&message("Hi"))).await.expect(200);
    let limit = |name: &str| answer.header(&format!("anthropic-ratelimit-requests-{name}")).to_owned();
    assert_eq!(limit("limit"), answer.header("x-ratelimit-limit-requests"));
    assert_eq!(limit("remaining"), answer.header("x-ratelimit-remaining-requests"));
    assert!(limit("reset").ends_with('Z'), "{}", limit("reset"));

    let refused = Answer::of(ask(&json!({"model": CLAUDE})).header("x-request-id", "mine-7")).await.expect(400);
    assert_eq!((&refused.body["request_id"], refused.header("request-id")), (&json!("mine-7"), "mine-7"));
    let plain = Answer::of(pro.chat(&question("Hi", false))).await.expect(200);
    assert!(!plain.headers.contains_key("anthropic-ratelimit-requests-limit"));
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sdk_is_told_in_its_own_words_that_it_may_not_see_the_models() {
    let pro = Tenant::start(TierName::Pro).await;
    for path in ["/v1/models", "/v1/models/gpt-4"] {
        let asked = || pro.app.get(path).bearer_auth("sk-tenant-nonsense");
        let openai = Answer::of(asked()).await.expect(401);
        assert_eq!(openai.body["error"]["code"], "invalid_api_key");
        let anthropic = Answer::of(asked().header("anthropic-version", "2023-06-01")).await.expect(401);
        assert_eq!(
            (&anthropic.body["type"], &anthropic.body["error"]["type"]),
            (&json!("error"), &json!("authentication_error"))
        );
    }
    let unknown = pro.app.get("/v1/models/claude-99").header("x-api-key", &pro.key);
    let unknown = Answer::of(unknown.header("anthropic-version", "2023-06-01")).await.expect(404);
    assert_eq!(unknown.body["error"]["type"], "not_found_error");
    let known = pro.app.get(&format!("/v1/models/{CLAUDE}")).header("x-api-key", &pro.key);
    let known = Answer::of(known.header("anthropic-version", "2023-06-01")).await.expect(200);
    assert_eq!((&known.body["id"], &known.body["type"]), (&json!(CLAUDE), &json!("model")));
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_whether_asking_again_can_help() {
    let pro = Tenant::start(TierName::Pro).await;
    let mut dear = question("Hi", false);
    dear["n"] = json!(100);
    dear["max_tokens"] = json!(8_000);
    let broke = Answer::of(pro.chat(&dear)).await.expect(402);
    assert_eq!(broke.header("x-should-retry"), "false");
    let keyed = |text: &str| pro.chat(&question(text, false)).header("idempotency-key", "one");
    Answer::of(keyed("Hi")).await.expect(200);
    let reused = Answer::of(keyed("Something else")).await.expect(409);
    assert_eq!(reused.header("x-should-retry"), "false");
    let away = Answer::of(pro.chat(&question("[[fail_with=503]]", false))).await.expect(503);
    assert_eq!(away.header("x-should-retry"), "true");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_may_be_large_once_its_key_is_known_and_not_before() {
    let pro = Tenant::start(TierName::Pro).await;
    let picture = format!("data:image/png;base64,{}", "A".repeat(12 * 1024 * 1024));
    let parts = json!([{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": picture}}]);
    let body = json!({"model": "gpt-4o", "max_tokens": 20, "messages": [{"role": "user", "content": parts}]});
    Answer::of(pro.chat(&body)).await.expect(200);
    drop(body);

    // Of a body that nobody answers for, not a byte is waited for.
    let mut stream = tokio::net::TcpStream::connect(pro.app.address).await.expect("a connection");
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 33000000\r\n\
                authorization: Bearer sk-tenant-nonsense\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("the head is sent");
    let mut answer = [0; 512];
    let read = tokio::time::timeout(std::time::Duration::from_secs(5), stream.read(&mut answer)).await;
    let read = read.expect("an answer before the body").expect("bytes");
    assert!(answer[..read].starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&answer[..read]));
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_is_too_large_to_keep_is_refused_before_it_is_paid_for() {
    let pro = Tenant::start(TierName::Pro).await;
    let batch = |texts: usize| json!({"model": "text-embedding-3-small", "input": vec!["word"; texts]});
    let keyed = |texts: usize| {
        let request = pro.app.post("/v1/embeddings", &batch(texts)).bearer_auth(&pro.key);
        request.header("idempotency-key", format!("batch-{texts}"))
    };
    let events = pro.app.event_count().await;
    let refused = Answer::of(keyed(200)).await.expect(400);
    assert_eq!(refused.body["error"]["param"], "idempotency-key");
    assert_eq!(pro.app.event_count().await, events);
    // More than the megabyte that was once kept.
    let first = Answer::of(keyed(150)).await.expect(200);
    assert!(first.text.len() > 1024 * 1024, "{}", first.text.len());
    let events = pro.app.event_count().await;
    let again = Answer::of(keyed(150)).await.expect(200);
    assert_eq!((again.header("idempotent-replayed"), again.text == first.text), ("true", true));
    assert_eq!(pro.app.event_count().await, events, "it was paid once");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_and_not_guessed_from_the_length() {
    let pro = Tenant::start(TierName::Pro).await;
    let count = |text: &str| {
        let body = json!({"model": CLAUDE, "messages": [{"role": "user", "content": text}]});
        pro.app.post("/v1/messages/count_tokens", &body).header("x-api-key", &pro.key)
    };
    let counted = Answer::of(count(&"internationalization ".repeat(100))).await.expect(200);
    let tokens = counted.body["input_tokens"].as_u64().expect("a number");
    // 2,100 bytes would be guessed to be 525 tokens.
    assert!((100..=330).contains(&tokens), "{tokens}");
    pro.app.stop().await;
}
