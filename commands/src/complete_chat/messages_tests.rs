use serde_json::{Value, json};

use super::*;
use crate::tokens::IMAGE_ABOUT_TOKENS;

fn read(body: &Value) -> Result<ChatCall, BadRequest> {
    ChatCall::read_messages(serde_json::from_str(&body.to_string()).unwrap())
}

fn with(field: &str, value: Value) -> Value {
    let mut body = json!({"model": "claude-sonnet-4-20250514", "max_tokens": 2_000,
        "messages": [{"role": "user", "content": "hello"}]});
    body[field] = value;
    body
}

fn said(content: &Value) -> Value {
    with("messages", json!([{"role": "user", "content": content}]))
}

fn blamed(field: &str, value: Value) -> String {
    read(&with(field, value)).unwrap_err().param.into_owned()
}

fn bound(body: &Value) -> u64 {
    read(body).unwrap().prompt_max_tokens
}

#[test]
fn what_calos_decides_is_taken_out_and_the_rest_is_kept() {
    let mut body = with("stream", json!(true));
    body["system"] = json!([{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]);
    body["future_field"] = json!([1]);
    body["service_tier"] = json!("auto");
    let call = read(&body).unwrap();
    assert_eq!((call.dialect, call.streaming, call.choices), (Dialect::Anthropic, true, 1));
    assert_eq!(call.model.as_deref(), Some("claude-sonnet-4-20250514"));
    assert_eq!(call.max_tokens, Some((2_000, MaxTokensField::MaxTokens)));
    let kept: Vec<&str> = call.fields.fields().map(|(name, _)| name).collect();
    assert_eq!(kept.len(), 4, "{kept:?}");
    assert!(["messages", "system", "future_field", "service_tier"].iter().all(|field| kept.contains(field)));
}

#[test]
fn every_wrong_field_is_named() {
    for (field, value) in [
        ("max_tokens", Value::Null),
        ("max_tokens", json!(0)),
        ("max_tokens", json!("5")),
        ("model", json!(7)),
        ("messages", json!([])),
        ("messages", json!("hi")),
        ("messages", Value::Null),
        ("stream", json!("yes")),
        ("temperature", json!(1.5)),
        ("top_p", json!("a")),
        ("top_k", json!(-1)),
        ("stop_sequences", json!("END")),
        ("metadata", json!("u")),
        ("tool_choice", json!("auto")),
        ("system", json!(7)),
        ("tools", json!({})),
        ("thinking", json!(true)),
    ] {
        assert_eq!(blamed(field, value.clone()), field, "{field}: {value}");
    }
    assert_eq!(blamed("messages", json!([7])), "messages[0]");
    assert_eq!(blamed("messages", json!([{"content": "x"}])), "messages[0].role");
    assert_eq!(blamed("messages", json!([{"role": "tool", "content": "x"}])), "messages[0].role");
    assert_eq!(blamed("messages", json!([{"role": "user"}])), "messages[0].content");
    assert_eq!(blamed("messages", json!([{"role": "user", "content": 7}])), "messages[0].content");
    let block = |block: Value| read(&said(&json!([block]))).unwrap_err().param.into_owned();
    assert_eq!(block(json!({"type": "text"})), "messages[0].content[0].text");
    assert_eq!(block(json!({"text": "x"})), "messages[0].content[0]");
    assert_eq!(block(json!({"type": "image"})), "messages[0].content[0].source");
    assert_eq!(blamed("tools", json!([{"description": "x"}])), "tools[0].name");
}

#[test]
fn thinking_is_part_of_the_answer() {
    let thinking = |budget: Value| with("thinking", json!({"type": "enabled", "budget_tokens": budget}));
    assert!(read(&thinking(json!(1_024))).is_ok());
    for budget in [Value::Null, json!(1_023), json!(2_000)] {
        assert_eq!(read(&thinking(budget)).unwrap_err().param, "thinking.budget_tokens");
    }
    assert!(read(&with("thinking", json!({"type": "adaptive"}))).unwrap().asks_to_think());
    assert!(!read(&with("thinking", json!({"type": "disabled"}))).unwrap().asks_to_think());
    assert!(!read(&with("top_k", json!(1))).unwrap().asks_to_think());
}

#[test]
fn what_has_no_price_is_refused_and_says_so() {
    for (field, value) in [
        ("service_tier", json!("priority")),
        ("speed", json!("fast")),
        ("mcp_servers", json!([{"type": "url"}])),
        ("container", json!("container_1")),
        ("context_management", json!({"edits": [{"type": "compact_20260112"}]})),
        ("inference_geo", json!("us")),
        ("diagnostics", json!({"previous_message_id": "msg_1"})),
        ("tools", json!([{"type": "web_search_20250305", "name": "web_search"}])),
        ("tools", json!([{"type": "code_execution_20250825", "name": "code_execution"}])),
        ("tools", json!([{"type": "web_fetch_20250910", "name": "web_fetch"}])),
        ("system", json!([{"type": "image", "source": {"type": "url", "url": "https://example.com"}}])),
    ] {
        let refused = read(&with(field, value)).unwrap_err();
        assert!(refused.unsupported, "{field}");
        assert!(refused.param.starts_with(field), "{field}: {}", refused.param);
    }
    for block in [
        json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}),
        json!({"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}),
        json!({"type": "document", "source": {"type": "file", "file_id": "file_1"}}),
        json!({"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": true}}),
        json!({"type": "image", "source": {"type": "file", "file_id": "file_1"}}),
        json!({"type": "container_upload", "file_id": "file_1"}),
        json!({"type": "server_tool_use", "id": "x"}),
        json!({"type": "tool_result", "tool_use_id": "x", "content": [{"type": "tool_reference"}]}),
    ] {
        assert!(read(&said(&json!([block]))).unwrap_err().unsupported, "{block}");
    }
}

#[test]
fn every_block_is_held_for() {
    let bare = bound(&said(&json!([])));
    let words = "word ".repeat(200);
    for block in [
        json!({"type": "text", "text": words}),
        json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": words}}),
        json!({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": words}]}}),
        json!({"type": "document", "title": words, "source": {"type": "content", "content": "x"}}),
        json!({"type": "tool_use", "id": "x", "name": "f", "input": {"a": words}}),
        json!({"type": "tool_result", "tool_use_id": "x", "content": words}),
        json!({"type": "tool_result", "tool_use_id": "x", "content": [{"type": "text", "text": words}]}),
        json!({"type": "thinking", "thinking": words, "signature": "s"}),
        json!({"type": "thinking", "thinking": "t", "signature": words}),
        json!({"type": "redacted_thinking", "data": words}),
    ] {
        assert!(bound(&said(&json!([block]))) >= bare + 1_000, "{block}");
    }
    assert!(bound(&with("system", json!(words))) >= bare + 1_000);
    assert!(bound(&with("system", json!([{"type": "text", "text": words}]))) >= bare + 1_000);
}

#[test]
fn pictures_count_as_pictures_wherever_they_stand() {
    let image =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A".repeat(9_000)}});
    let result = json!({"type": "tool_result", "tool_use_id": "x", "content": [image]});
    let call = read(&said(&json!([image, result]))).unwrap();
    assert_eq!(call.images, 2);
    assert!(call.prompt_max_tokens < 50 && call.prompt_about_tokens >= 2 * IMAGE_ABOUT_TOKENS, "{call:?}");
}

#[test]
fn what_the_provider_says_about_tools_is_held_for() {
    let bare = bound(&said(&json!("hello")));
    let own = bound(&with("tools", json!([{"name": "f", "input_schema": {"type": "object"}}])));
    assert!(own >= bare + TOOLS_FRAME_MAX_TOKENS);
    let described = bound(&with("tools", json!([{"type": "bash_20250124", "name": "bash"}])));
    assert!(described >= bare + 2 * TOOLS_FRAME_MAX_TOKENS);
    let schema = json!({"format": {"type": "json_schema", "schema": {"type": "object"}}});
    assert!(bound(&with("output_config", schema)) >= bare + TOOLS_FRAME_MAX_TOKENS);
}

#[test]
fn tokens_are_counted_without_a_limit() {
    let body = json!({"model": "x", "messages": [{"role": "user", "content": "word ".repeat(100)}]});
    let body: RawObject = serde_json::from_str(&body.to_string()).unwrap();
    let counted = about_message_tokens(&body).unwrap();
    assert!((100..200).contains(&counted), "{counted}");
    assert!(ChatCall::read_messages(body).is_err());
}

#[test]
fn a_context_may_be_cleared() {
    let edits = json!({"edits": [{"type": "clear_tool_uses_20250919", "keep": {"type": "tool_uses", "value": 3}}]});
    let call = read(&with("context_management", edits)).unwrap();
    assert!(call.fields.given("context_management").is_some_and(|text| text.contains("tool_uses")));
    assert_eq!(read(&with("context_management", json!("clear"))).unwrap_err().param, "context_management");
}

#[test]
fn the_limit_goes_upstream_under_the_name_the_model_takes() {
    let call = read(&said(&json!("hello"))).unwrap();
    assert_eq!(call.max_tokens_field("gpt-4"), MaxTokensField::MaxTokens);
    assert_eq!(call.max_tokens_field("gpt-5-mini"), MaxTokensField::MaxCompletionTokens);
}
