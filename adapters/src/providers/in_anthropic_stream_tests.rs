use std::sync::Arc;

use calos_commands::provider::{Dialect, MaxTokensField};

use futures_util::stream;

use super::super::chunks::read_chunk;
use super::*;

fn request() -> ChatRequest {
    ChatRequest {
        answer_id: "chatcmpl-7".to_owned(),
        dialect: Dialect::Anthropic,
        key: None,
        model: "gpt-4o".to_owned(),
        fields: Arc::default(),
        betas: None,
        max_tokens: 64,
        max_tokens_field: MaxTokensField::MaxTokens,
        show_usage: true,
        prompt_estimate_tokens: 10,
        transcript: calos_commands::provider::Transcript::default(),
    }
}

fn delta(delta: &Value) -> String {
    json!({"id": "c", "model": "gpt-4o-2024", "choices": [{"index": 0, "delta": delta, "finish_reason": null}], "usage": null})
        .to_string()
}

fn finish(reason: &str) -> String {
    json!({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": null}).to_string()
}

const USAGE: &str = r#"{"id":"c","choices":[],"usage":{"prompt_tokens":20,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":4}}}"#;

fn lost() -> ProviderError {
    ProviderError::Unreachable { provider: "openai", detail: "gone".to_owned() }
}

async fn told(chunks: &[String], breaks: bool) -> Vec<Result<Chunk, ProviderError>> {
    let transcript = calos_commands::provider::Transcript::default();
    let read = chunks.iter().map(|text| read_chunk("openai", text.as_bytes().to_vec(), true, &transcript));
    let mut items: Vec<_> = read.collect();
    items.extend(breaks.then(|| Err(lost())));
    event_stream("openai", &request(), Box::pin(stream::iter(items))).collect().await
}

fn shown(items: &[Result<Chunk, ProviderError>]) -> Vec<Value> {
    let chunks = items.iter().filter_map(|item| item.as_ref().ok()).filter_map(|chunk| chunk.json.as_ref());
    chunks.map(|json| serde_json::from_slice(json).unwrap()).collect()
}

fn story() -> Vec<String> {
    let call = |more: Value| delta(&json!({"tool_calls": [more]}));
    vec![
        delta(&json!({"role": "assistant", "content": ""})),
        delta(&json!({"reasoning_content": "Hm."})),
        delta(&json!({"content": "Let me"})),
        delta(&json!({"content": " see."})),
        call(json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}})),
        call(json!({"index": 0, "function": {"arguments": "{\"city\":"}})),
        call(json!({"index": 0, "function": {"arguments": "\"Oslo\"}"}})),
        call(json!({"index": 1, "id": "call_2", "type": "function", "function": {"name": "now", "arguments": "{}"}})),
        finish("tool_calls"),
        USAGE.to_owned(),
    ]
}

#[tokio::test]
async fn chunks_are_told_as_the_events_of_a_message() {
    let items = told(&story(), false).await;
    let start =
        |index: u64, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let more = |index: u64, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let stop = |index: u64| json!({"type": "content_block_stop", "index": index});
    let usage = |input: u64, read: u64, output: u64| {
        json!({"input_tokens": input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": read,
            "output_tokens": output, "output_tokens_details": {"thinking_tokens": 0}})
    };
    let expected = [
        json!({"type": "message_start", "message": {"id": "msg_7", "type": "message", "role": "assistant",
            "model": "gpt-4o-2024", "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage(10, 0, 0)}}),
        start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
        more(0, json!({"type": "thinking_delta", "thinking": "Hm."})),
        stop(0),
        start(1, json!({"type": "text", "text": ""})),
        more(1, json!({"type": "text_delta", "text": "Let me"})),
        more(1, json!({"type": "text_delta", "text": " see."})),
        stop(1),
        start(2, json!({"type": "tool_use", "id": "call_1", "name": "weather", "input": {}})),
        more(2, json!({"type": "input_json_delta", "partial_json": "{\"city\":"})),
        more(2, json!({"type": "input_json_delta", "partial_json": "\"Oslo\"}"})),
        stop(2),
        start(3, json!({"type": "tool_use", "id": "call_2", "name": "now", "input": {}})),
        more(3, json!({"type": "input_json_delta", "partial_json": "{}"})),
        stop(3),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": usage(16, 4, 9)}),
        json!({"type": "message_stop"}),
    ];
    assert_eq!(shown(&items), expected);
    let chunks: Vec<&Chunk> = items.iter().map(|item| item.as_ref().unwrap()).collect();
    let [.., delta, stop] = &chunks[..] else { panic!("no end") };
    assert_eq!((delta.kind, stop.kind), (ChunkKind::Finish, ChunkKind::Usage));
    let produced: u64 = chunks.iter().map(|chunk| chunk.produced.bytes).sum();
    assert_eq!(produced, 3 + 6 + 5 + 7 + 8 + 7 + 5);
    assert_eq!(chunks.iter().filter_map(|chunk| chunk.usage).next_back(), TokenUsage::reported(20, 9, 4, 0));
}

#[tokio::test]
async fn a_stream_that_lacks_only_its_end_mark_is_told_to_its_end() {
    let items = told(&story(), true).await;
    assert_eq!(shown(&items).last(), Some(&json!({"type": "message_stop"})));
    assert_eq!(items.last().unwrap().as_ref().unwrap_err(), &lost());
    let broken = told(&story()[..6], true).await;
    assert_eq!(shown(&broken).last().unwrap()["type"], "content_block_delta");
    assert_eq!(broken.last().unwrap().as_ref().unwrap_err(), &lost());
}

#[tokio::test]
async fn a_stream_without_a_count_shows_ours_and_reports_none() {
    let mut chunks = story();
    chunks.pop();
    let items = told(&chunks, false).await;
    let events = shown(&items);
    let [.., delta, _stop] = &events[..] else { panic!("no end") };
    assert_eq!(delta["usage"]["input_tokens"], 10);
    assert!(delta["usage"]["output_tokens"].as_u64().is_some_and(|tokens| tokens > 5));
    assert!(items.iter().all(|item| item.as_ref().unwrap().usage.is_none()));
}

#[tokio::test]
async fn an_empty_stream_stays_empty() {
    assert!(told(&[], false).await.is_empty());
}

#[tokio::test]
async fn calls_that_come_in_turns_are_told_one_after_the_other() {
    let call = |index: u64, id: Option<&str>, arguments: &str| {
        let mut call = json!({"index": index, "function": {"arguments": arguments}});
        if let Some(id) = id {
            call["id"] = json!(id);
            call["function"]["name"] = json!(format!("f{index}"));
        }
        delta(&json!({"tool_calls": [call]}))
    };
    let chunks = [
        call(0, Some("a"), "{\"x\":"),
        call(1, Some("b"), "{\"y\""),
        call(0, None, "{}"),
        call(1, None, ":2}"),
        call(0, None, "}"),
        call(2, Some("c"), "{}"),
        finish("tool_calls"),
        USAGE.to_owned(),
    ];
    let events = shown(&told(&chunks, false).await);
    let of = |block: u64| {
        let mut text = String::new();
        for event in events.iter().filter(|event| event["index"] == block) {
            text.push_str(event["content_block"]["id"].as_str().unwrap_or_default());
            text.push_str(event["delta"]["partial_json"].as_str().unwrap_or_default());
        }
        text
    };
    assert_eq!([of(0), of(1), of(2)], ["a{\"x\":{}}", "c{}", "b{\"y\":2}"]);
    let order: Vec<_> = events.iter().filter_map(|event| event["index"].as_u64()).collect();
    assert!(order.is_sorted(), "{order:?}");
    let started = events.iter().filter(|event| event["type"] == "content_block_start").count();
    let stopped = events.iter().filter(|event| event["type"] == "content_block_stop").count();
    assert_eq!((started, stopped), (3, 3));
}
