use std::sync::Arc;

use calos_commands::provider::MaxTokensField;
use serde_json::{Value, json};

use super::*;

/// The documented answer to a first request, with a cache and a tool.
const MESSAGE: &str = r#"{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant",
  "model":"claude-sonnet-4-5-20250929","content":[
    {"type":"thinking","thinking":"Let me see.","signature":"EqQBCgIYAhIM"},
    {"type":"redacted_thinking","data":"EmwKAhgB"},
    {"type":"text","text":"I'll check "},{"type":"text","text":"the weather."},
    {"type":"tool_use","id":"toolu_01A09q90qw90lq917835lq9","name":"get_weather","input":{"location":"Oslo", "unit":"celsius"}},
    {"type":"tool_use","id":"toolu_02","name":"now","input":{}}],
  "stop_reason":"tool_use","stop_sequence":null,
  "usage":{"input_tokens":21,"cache_creation_input_tokens":188,"cache_read_input_tokens":1000,
    "cache_creation":{"ephemeral_5m_input_tokens":88,"ephemeral_1h_input_tokens":100},
    "output_tokens":393,"output_tokens_details":{"thinking_tokens":40},"service_tier":"standard"}}"#;

fn request(dialect: Dialect) -> ChatRequest {
    ChatRequest {
        answer_id: "chatcmpl-7".to_owned(),
        dialect,
        key: None,
        model: "claude-sonnet-4-5-20250929".to_owned(),
        fields: Arc::default(),
        betas: None,
        max_tokens: 1_000,
        max_tokens_field: MaxTokensField::MaxTokens,
        show_usage: false,
        prompt_estimate_tokens: 10,
        transcript: calos_commands::provider::Transcript::default(),
    }
}

fn usage(json: &Value) -> Option<TokenUsage> {
    let mut reported = Reported::default();
    reported.take(serde_json::from_value(json.clone()).unwrap());
    reported.usage()
}

#[test]
fn a_message_comes_back_as_it_came_in_its_own_dialect() {
    let billed = MESSAGE.replacen('{', r#"{"billing":{"total":0},"#, 1);
    let completion = read_message(&request(Dialect::Anthropic), billed.as_bytes()).unwrap();
    assert_eq!(serde_json::to_value(&completion.body).unwrap(), serde_json::from_str::<Value>(MESSAGE).unwrap());
    assert_eq!(completion.model, "claude-sonnet-4-5-20250929");
    let usage = completion.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens), (1_209, 393, 1_000));
    assert_eq!((usage.cache_write_tokens, usage.cache_write_hour_tokens, usage.reasoning_tokens), (88, 100, 40));
    assert_eq!(completion.produced.pieces, 5);
}

#[test]
fn a_message_is_told_in_openais_words() {
    let completion = read_message(&request(Dialect::OpenAi), MESSAGE.as_bytes()).unwrap();
    let body = serde_json::to_value(&completion.body).unwrap();
    assert_eq!((&body["object"], &body["id"]), (&json!("chat.completion"), &json!("msg_01XFDUDYJgAACzvnptvVoYEL")));
    assert_eq!(
        body["choices"],
        json!([{"index": 0, "finish_reason": "tool_calls", "logprobs": null, "message": {
        "role": "assistant", "content": "I'll check the weather.", "reasoning_content": "Let me see.",
        "thinking_blocks": [{"type": "thinking", "thinking": "Let me see.", "signature": "EqQBCgIYAhIM"},
            {"type": "redacted_thinking", "data": "EmwKAhgB"}],
        "tool_calls": [
            {"id": "toolu_01A09q90qw90lq917835lq9", "type": "function", "function": {
                "name": "get_weather", "arguments": r#"{"location":"Oslo", "unit":"celsius"}"#}},
            {"id": "toolu_02", "type": "function", "function": {"name": "now", "arguments": "{}"}}
        ]}}])
    );
    assert_eq!(
        body["usage"],
        json!({"prompt_tokens": 1_209, "completion_tokens": 393, "total_tokens": 1_602,
            "prompt_tokens_details": {"cached_tokens": 1_000, "cache_creation_tokens": 188},
            "completion_tokens_details": {"reasoning_tokens": 40}})
    );
}

#[test]
fn every_stop_reason_has_its_name() {
    for (theirs, ours) in [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("something_new", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
    ] {
        assert_eq!(finish_reason(Some(theirs)), ours);
    }
}

#[test]
fn what_was_written_to_the_cache_is_for_minutes_unless_it_says_otherwise() {
    let only_total = usage(&json!({"input_tokens": 5, "output_tokens": 1, "cache_creation_input_tokens": 7})).unwrap();
    assert_eq!(
        (only_total.prompt_tokens, only_total.cache_write_tokens, only_total.cache_write_hour_tokens),
        (12, 7, 0)
    );
    let only_kinds = usage(&json!({"input_tokens": 5, "output_tokens": 1,
        "cache_creation": {"ephemeral_1h_input_tokens": 3, "ephemeral_5m_input_tokens": 2}}))
    .unwrap();
    assert_eq!(
        (only_kinds.prompt_tokens, only_kinds.cache_write_tokens, only_kinds.cache_write_hour_tokens),
        (10, 2, 3)
    );
    let nulls = usage(&json!({"input_tokens": 5, "output_tokens": 1, "cache_creation": null,
        "cache_creation_input_tokens": null, "cache_read_input_tokens": null, "server_tool_use": null}));
    assert_eq!(nulls, TokenUsage::reported(5, 1, 0, 0));
    assert_eq!(usage(&json!({"input_tokens": 5})), None);
}

#[test]
fn an_answer_that_is_none_is_named() {
    for text in ["", "[]", "{}", r#"{"type":"message"}"#, r#"{"content":7}"#] {
        let error = read_message(&request(Dialect::OpenAi), text.as_bytes()).unwrap_err();
        assert!(matches!(error, ProviderError::BadAnswer { .. }), "{text}: {error}");
    }
    let strange = r#"{"content":[],"usage":{"input_tokens":-1,"output_tokens":2}}"#;
    assert_eq!(read_message(&request(Dialect::OpenAi), strange.as_bytes()).unwrap().usage, None);
}

#[test]
fn an_error_has_the_status_its_type_stands_for() {
    let error = |kind: &str| {
        let text = json!({"type": "error", "error": {"type": kind, "message": "words"}, "request_id": "req_1"});
        match read_message(&request(Dialect::Anthropic), text.to_string().as_bytes()).unwrap_err() {
            ProviderError::Status { status, message, code, .. } => (status, message, code),
            other => panic!("{other}"),
        }
    };
    assert_eq!(error("overloaded_error"), (529, "words".to_owned(), Some("overloaded_error".to_owned())));
    for (kind, status) in [("rate_limit_error", 429), ("api_error", 500), ("timeout_error", 504), ("new", 500)] {
        assert_eq!(error(kind).0, status);
    }
}

#[test]
fn an_account_without_credit_is_not_the_requests_mistake() {
    let broke = ProviderError::Status {
        provider: NAME,
        status: 400,
        message: "Your credit balance is too low to access the Anthropic API.".to_owned(),
        code: Some("invalid_request_error".to_owned()),
        param: None,
        retry_after: None,
    };
    assert!(matches!(account_error(broke), ProviderError::Status { status: 402, .. }));
    let wrong = status_error(
        NAME,
        400,
        None,
        br#"{"error":{"type":"invalid_request_error","message":"max_tokens: required"}}"#,
    );
    assert!(matches!(account_error(wrong), ProviderError::Status { status: 400, .. }));
}
