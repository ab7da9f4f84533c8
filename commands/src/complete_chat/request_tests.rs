use serde_json::{Value, json};

use super::*;

fn read(body: &Value) -> Result<ChatCall, BadRequest> {
    ChatCall::read(serde_json::from_str(&body.to_string()).unwrap())
}

fn with(field: &str, value: Value) -> Value {
    let mut body = json!({"model": "gpt-4", "messages": [{"role": "user", "content": "hello"}]});
    body[field] = value;
    body
}

fn blamed(field: &str, value: Value) -> String {
    read(&with(field, value)).unwrap_err().param.into_owned()
}

#[test]
fn what_calos_decides_is_taken_out_and_the_rest_is_kept() {
    let call = read(&json!({
        "model": "gpt-4", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "n": 2,
        "stream": true, "stream_options": {"include_usage": true}, "temperature": 0.2, "future_field": [1]
    }))
    .unwrap();
    assert_eq!(call.model.as_deref(), Some("gpt-4"));
    assert_eq!((call.streaming, call.include_usage, call.choices), (true, true, 2));
    assert_eq!(call.max_tokens, Some((5, MaxTokensField::MaxTokens)));
    let kept: Vec<&str> = call.fields.fields().map(|(name, _)| name).collect();
    assert_eq!(kept.len(), 5);
    assert!(
        ["messages", "n", "temperature", "future_field", "stream_options"].iter().all(|field| kept.contains(field))
    );
}

#[test]
fn null_is_the_same_as_left_out() {
    let call = read(&with("max_tokens", Value::Null)).unwrap();
    assert_eq!(call.max_tokens, None);
    assert_eq!(read(&with("model", Value::Null)).unwrap().model, None);
}

#[test]
fn every_wrong_field_is_named() {
    for (field, value) in [
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(0)),
        ("max_tokens", json!("5")),
        ("max_tokens", json!(1.5)),
        ("max_completion_tokens", json!(-1)),
        ("n", json!(0)),
        ("n", json!(129)),
        ("model", json!(7)),
        ("model", json!("")),
        ("messages", json!([])),
        ("messages", json!("hi")),
        ("messages", Value::Null),
        ("stream", json!("yes")),
        ("stream_options", json!({"include_usage": true})),
        ("temperature", json!(3)),
        ("top_p", json!("a")),
        ("stop", json!(["a", "b", "c", "d", "e"])),
        ("stop", json!(7)),
        ("seed", json!("x")),
        ("tools", json!({})),
        ("logit_bias", json!([])),
        ("user", json!(1)),
    ] {
        assert_eq!(blamed(field, value.clone()), field, "{field}: {value}");
    }
    assert_eq!(blamed("messages", json!([7])), "messages[0]");
    assert_eq!(blamed("messages", json!([{"content": "x"}])), "messages[0].role");
    assert_eq!(blamed("messages", json!([{"role": "robot", "content": "x"}])), "messages[0].role");
    assert_eq!(blamed("messages", json!([{"role": "user"}])), "messages[0].content");
    assert_eq!(blamed("messages", json!([{"role": "user", "content": 7}])), "messages[0].content");
    assert_eq!(blamed("messages", json!([{"role": "user", "content": null}])), "messages[0].content");
    assert_eq!(
        blamed("messages", json!([{"role": "user", "content": [{"type": "text"}]}])),
        "messages[0].content[0].text"
    );
    assert_eq!(blamed("tools", json!([{}])), "tools[0].type");
}

#[test]
fn both_limits_at_once_are_refused() {
    let mut body = with("max_tokens", json!(5));
    body["max_completion_tokens"] = json!(5);
    assert_eq!(read(&body).unwrap_err().param, "max_tokens");
}

#[test]
fn what_has_no_price_is_refused_and_says_so() {
    for (field, value) in [
        ("service_tier", json!("priority")),
        ("web_search_options", json!({})),
        ("modalities", json!(["text", "audio"])),
        ("audio", json!({"voice": "alloy"})),
        ("prediction", json!({"type": "content", "content": "x"})),
        ("tools", json!([{"type": "web_search"}])),
        ("messages", json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}])),
    ] {
        let refused = read(&with(field, value)).unwrap_err();
        assert!(refused.unsupported, "{field}");
        assert!(refused.param.starts_with(field), "{field}: {}", refused.param);
    }
    assert!(read(&with("service_tier", json!("default"))).is_ok());
}

#[test]
fn the_prompt_is_never_held_for_too_little() {
    let words = "word ".repeat(1_000);
    let call = read(&with("messages", json!([{"role": "user", "content": words}]))).unwrap();
    assert!(call.prompt_max_tokens >= 1_000 && call.prompt_max_tokens <= 5_100, "{}", call.prompt_max_tokens);
    assert!(call.prompt_about_tokens <= call.prompt_max_tokens);
    let hostile = "\u{1f600}".repeat(100);
    let call = read(&with("messages", json!([{"role": "user", "content": hostile}]))).unwrap();
    assert!(call.prompt_max_tokens >= 300);
}

#[test]
fn a_picture_counts_as_a_picture_and_not_as_its_bytes() {
    let url = format!("data:image/png;base64,{}", "A".repeat(1_000_000));
    let parts = json!([{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": url}}]);
    let call = read(&with("messages", json!([{"role": "user", "content": parts}]))).unwrap();
    assert!(call.prompt_max_tokens < 50, "{}", call.prompt_max_tokens);
    assert_eq!(call.images, 1);
    assert!((IMAGE_ABOUT_TOKENS..IMAGE_ABOUT_TOKENS + 50).contains(&call.prompt_about_tokens));
}

#[test]
fn a_refusal_of_before_is_part_of_the_prompt() {
    let said = |part: Value| with("messages", json!([{"role": "assistant", "content": [part]}]));
    let call = read(&said(json!({"type": "refusal", "refusal": "no ".repeat(1_000)}))).unwrap();
    assert!(call.prompt_max_tokens >= 3_000 && call.prompt_about_tokens >= 750, "{call:?}");
    for part in [json!({"type": "refusal"}), json!({"type": "refusal", "refusal": 7, "text": "x"})] {
        assert_eq!(read(&said(part)).unwrap_err().param, "messages[0].content[0].refusal");
    }
}

#[test]
fn tools_are_part_of_the_prompt() {
    let bare = read(&with("seed", json!(1))).unwrap().prompt_max_tokens;
    let tools = json!([{"type": "function", "function": {"name": "f", "description": "x".repeat(1_000)}}]);
    assert!(read(&with("tools", tools)).unwrap().prompt_max_tokens > bare + 450);
}

#[test]
fn the_limit_goes_upstream_under_the_name_the_model_takes() {
    let call = read(&with("seed", json!(1))).unwrap();
    assert_eq!(call.max_tokens_field("gpt-4"), MaxTokensField::MaxTokens);
    assert_eq!(call.max_tokens_field("o3-mini"), MaxTokensField::MaxCompletionTokens);
    assert_eq!(call.max_tokens_field("gpt-5-mini"), MaxTokensField::MaxCompletionTokens);
    assert_eq!(call.max_tokens_field("gpt-6-preview"), MaxTokensField::MaxCompletionTokens);
    assert_eq!(call.max_tokens_field("ft:o4-mini:acme::a1"), MaxTokensField::MaxCompletionTokens);
    assert_eq!(call.max_tokens_field("gpt-oss:20b"), MaxTokensField::MaxTokens);
    let asked = read(&with("max_tokens", json!(9))).unwrap();
    assert_eq!(asked.max_tokens_field("o3-mini"), MaxTokensField::MaxTokens);
}
