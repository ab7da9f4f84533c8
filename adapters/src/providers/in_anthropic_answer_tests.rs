use std::sync::Arc;

use calos_commands::provider::{Dialect, MaxTokensField, Produced};

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
        show_usage: false,
        prompt_estimate_tokens: 10,
        transcript: calos_commands::provider::Transcript::default(),
    }
}

fn told(choice: &Value, usage: Option<TokenUsage>) -> Value {
    let body = serde_json::from_str(&json!({"id": "x", "choices": [choice]}).to_string()).unwrap();
    let completion = Completion { body, model: "gpt-4o".to_owned(), usage, produced: Produced::piece(40) };
    serde_json::to_value(told_whole("openai", &request(), completion).unwrap().body).unwrap()
}

#[test]
fn an_answer_is_told_as_a_message() {
    let choice = json!({"index": 0, "finish_reason": "tool_calls", "message": {
        "role": "assistant", "content": "I'll look.", "reasoning_content": "Hm.", "refusal": null,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}},
            {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": ""}},
            {"id": "call_3", "type": "function", "function": {"name": "odd", "arguments": "{broken"}}]}});
    let usage = TokenUsage::reported(100, 9, 60, 4).map(|usage| usage.with_cache_writes(10, 5));
    assert_eq!(
        told(&choice, usage),
        json!({
            "id": "msg_7", "type": "message", "role": "assistant", "model": "gpt-4o",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "text", "text": "I'll look."},
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}},
                {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
                {"type": "tool_use", "id": "call_3", "name": "odd", "input": {"arguments": "{broken"}}],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": 25, "cache_creation_input_tokens": 15, "cache_read_input_tokens": 60,
                "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}}
        })
    );
}

#[test]
fn an_answer_without_a_count_shows_ours() {
    let message = told(&json!({"message": {"content": "hello"}, "finish_reason": "length"}), None);
    assert_eq!((&message["usage"]["input_tokens"], &message["usage"]["output_tokens"]), (&json!(10), &json!(10)));
    assert_eq!(message["stop_reason"], "max_tokens");
}

#[test]
fn every_finish_reason_has_its_name() {
    for (theirs, ours) in [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("function_call", "tool_use"),
        ("content_filter", "refusal"),
        ("insufficient_system_resource", "end_turn"),
    ] {
        assert_eq!(stop_reason(Some(theirs)), ours);
    }
    let refusal = told(&json!({"message": {"content": null, "refusal": "No."}, "finish_reason": "stop"}), None);
    assert_eq!(refusal["content"], json!([{"type": "text", "text": "No."}]));
}
