//! DeepSeek: its own words for caches, thoughts and want of room, and its keep-alives.

use std::time::Duration;

use calos_adapters::providers::{HttpSettings, ProviderHttp, deepseek};
use calos_api::cli::TierName;
use calos_commands::provider::{ChatProvider, Phase, ProviderError};
use calos_tests::app::Answer;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{TRIAL_MICROS, Tenant, chunks, events, text_of};

fn question(text: &str, stream: bool) -> Value {
    json!({"model": "deepseek-chat", "max_tokens": 100, "stream": stream,
        "messages": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": text}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_charged_at_the_contracts_price() {
    let pro = Tenant::start(TierName::Pro).await;
    let answer = Answer::of(pro.chat(&question("[[answer_tokens=20]] go on", false))).await.expect(200);
    assert_eq!((&answer.body["provider"], &answer.body["model"]), (&json!("deepseek"), &json!("deepseek-chat")));
    let usage = &answer.body["usage"];
    let tokens =
        usage["prompt_tokens"].as_i64().expect("tokens") + usage["completion_tokens"].as_i64().expect("tokens");
    // One micro-dollar a token either way, and 30 percent.
    let total = (tokens * 130 + 50) / 100;
    assert_eq!(answer.body["billing"]["total_cost_micros"], total, "{}", answer.text);
    let (_, balance) = pro.settled(1).await;
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - total);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thoughts_and_cached_tokens_come_through_and_are_recorded() {
    let pro = Tenant::start(TierName::Pro).await;
    let text = "[[answer_tokens=5]] [[reasoning_tokens=7]] [[cached_tokens=4]] think";
    let whole = Answer::of(pro.chat(&question(text, false))).await.expect(200);
    let message = &whole.body["choices"][0]["message"];
    assert!(message["reasoning_content"].as_str().is_some_and(|thoughts| thoughts.contains("thought6")), "{message}");
    assert_eq!(whole.body["usage"]["completion_tokens"], 12);
    let chunks = chunks(&events(pro.chat(&question(text, true))).await);
    let thoughts = chunks.iter().filter(|chunk| chunk["choices"][0]["delta"]["reasoning_content"].is_string());
    assert_eq!(thoughts.count(), 7);
    assert!(text_of(&chunks).starts_with("[simulated]"), "{}", text_of(&chunks));
    pro.settled(2).await;
    let recorded = sqlx::query_scalar::<_, Value>(
        "SELECT payload::jsonb -> 'usage_recorded' FROM events WHERE payload::jsonb ? 'usage_recorded'",
    );
    for usage in recorded.fetch_all(&pro.app.database.pool).await.expect("the uses") {
        assert_eq!((&usage["cached_tokens"], &usage["reasoning_tokens"]), (&json!(4), &json!(7)), "{usage}");
    }
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_cut_off_for_want_of_room_is_one_sdks_can_read() {
    let pro = Tenant::start(TierName::Pro).await;
    let text = "[[answer_tokens=5]] [[out_of_room]] go on";
    let whole = Answer::of(pro.chat(&question(text, false))).await.expect(200);
    assert_eq!(whole.body["choices"][0]["finish_reason"], "length");
    let chunks = chunks(&events(pro.chat(&question(text, true))).await);
    let reasons = chunks.iter().filter_map(|chunk| chunk["choices"][0]["finish_reason"].as_str());
    assert_eq!(reasons.collect::<Vec<_>>(), ["length"]);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_account_there_is_not_the_tenants_bill() {
    let pro = Tenant::start(TierName::Pro).await;
    let answer = Answer::of(pro.chat(&question("[[fail_with=402]]", false))).await.expect(503);
    assert_eq!(answer.body["error"]["code"], "provider_unavailable");
    let (usage, balance) = pro.settled(0).await;
    assert_eq!((usage.len(), &balance["balance_micros"]), (0, &json!(TRIAL_MICROS)));
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alives_are_no_signs_of_life() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.expect("a caller");
        let _request = connection.read(&mut [0; 8_192]).await.expect("a request");
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        connection.write_all(head).await.expect("a head");
        let first = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
        connection.write_all(first).await.expect("a piece");
        // The caller hangs up in between.
        while connection.write_all(b": keep-alive\n\n\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let limits = HttpSettings {
        first_byte: Duration::from_secs(5),
        idle: Duration::from_millis(300),
        whole: Duration::from_secs(10),
    };
    let http = ProviderHttp::new(limits).expect("a client");
    let account = deepseek::account(http, &base, Some("sk-test")).expect("a key");
    let request = crate::providers::request("deepseek-chat", "hi");
    let chunks = account.stream(&request).await.expect("a stream").collect::<Vec<_>>().await;
    assert_eq!(chunks.len(), 2);
    let last = chunks.into_iter().next_back().expect("an end");
    assert!(matches!(last, Err(ProviderError::Timeout { phase: Phase::Idle, .. })), "{last:?}");
    tokio::time::timeout(Duration::from_secs(5), server).await.expect("the caller hung up").expect("the server ends");
}
