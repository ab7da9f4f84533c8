use std::sync::Arc;

use calos_commands::provider::{Dialect, MaxTokensField};
use serde_json::json;

use super::*;

fn request(fields: &Value) -> ChatRequest {
    ChatRequest {
        answer_id: "chatcmpl-test".to_owned(),
        dialect: Dialect::OpenAi,
        key: None,
        model: "claude-sonnet-4-5-20250929".to_owned(),
        fields: Arc::new(serde_json::from_str(&fields.to_string()).unwrap()),
        betas: None,
        max_tokens: 64,
        max_tokens_field: MaxTokensField::MaxTokens,
        show_usage: false,
        prompt_estimate_tokens: 10,
        transcript: calos_commands::provider::Transcript::default(),
    }
}

fn translated(fields: &Value) -> Value {
    serde_json::to_value(translate(&request(fields)).unwrap()).unwrap()
}

fn with(field: &str, value: Value) -> Value {
    let mut fields = json!({"messages": [{"role": "user", "content": "hi"}]});
    fields[field] = value;
    fields
}

fn refused(fields: &Value) -> &'static str {
    match translate(&request(fields)).unwrap_err() {
        ProviderError::Unsupported { param, .. } => param,
        other => panic!("{other}"),
    }
}

#[test]
fn system_and_developer_stand_above_the_conversation_and_same_roles_are_one_message() {
    let body = translated(&json!({"messages": [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "a"},
        {"role": "developer", "content": [{"type": "text", "text": "and kind"}]},
        {"role": "user", "content": [{"type": "text", "text": "b"}]}, {"role": "user", "content": ""},
        {"role": "assistant", "content": "c"}, {"role": "user", "content": "d"}
    ]}));
    assert_eq!(
        body,
        json!({
            "system": [{"type": "text", "text": "be brief"}, {"type": "text", "text": "and kind"}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "c"}]},
                {"role": "user", "content": [{"type": "text", "text": "d"}]}
            ]
        })
    );
}

#[test]
fn calls_and_their_results_are_blocks_and_results_are_said_by_the_user() {
    let call = |id: &str, city: &str| {
        json!({"id": id, "type": "function",
            "function": {"name": "weather", "arguments": json!({"city": city}).to_string()}})
    };
    let body = translated(&json!({"messages": [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": null, "tool_calls": [call("call_1", "Oslo"), call("call.2", "Rome")]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "tool", "tool_call_id": "call.2", "content": [{"type": "text", "text": "sun"}]},
        {"role": "user", "content": "so?"}
    ]}));
    assert_eq!(
        body["messages"],
        json!([
            {"role": "user", "content": [{"type": "text", "text": "weather?"}]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}},
                {"type": "tool_use", "id": "call_2", "name": "weather", "input": {"city": "Rome"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "tool_result", "tool_use_id": "call_2", "content": [{"type": "text", "text": "sun"}]},
                {"type": "text", "text": "so?"}]}
        ])
    );
}

#[test]
fn pictures_go_on_inside_or_by_their_address_and_caching_is_kept() {
    let body = translated(&json!({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "text", "text": "what?", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]}]}));
    assert_eq!(
        body["messages"][0]["content"],
        json!([
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
            {"type": "text", "text": "what?", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
        ])
    );
}

#[test]
fn tools_and_choices_get_anthropics_names() {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tools = json!([
        {"type": "function", "function": {"name": "weather", "description": "d", "parameters": parameters, "strict": true}},
        {"type": "function", "function": {"name": "now"}}
    ]);
    let mut fields = with("tools", tools);
    let body = translated(&fields);
    assert_eq!(
        body["tools"],
        json!([{"name": "weather", "description": "d", "input_schema": parameters},
            {"name": "now", "input_schema": {"type": "object"}}])
    );
    assert_eq!(body.get("tool_choice"), None);
    let alone = json!(true);
    for (choice, parallel, expected) in [
        (json!("auto"), Value::Null, json!({"type": "auto"})),
        (json!("none"), json!(false), json!({"type": "none"})),
        (json!("required"), Value::Null, json!({"type": "any"})),
        (Value::Null, json!(false), json!({"type": "auto", "disable_parallel_tool_use": alone})),
        (
            json!({"type": "function", "function": {"name": "now"}}),
            json!(false),
            json!({"type": "tool", "name": "now", "disable_parallel_tool_use": alone}),
        ),
    ] {
        fields["tool_choice"] = choice;
        fields["parallel_tool_calls"] = parallel;
        assert_eq!(translated(&fields)["tool_choice"], expected);
    }
    fields["tool_choice"] = json!({"type": "allowed_tools"});
    assert_eq!(refused(&fields), "tool_choice");
}

#[test]
fn sampling_is_scaled_and_renamed_and_what_has_no_counterpart_is_left_out() {
    let body = translated(&json!({
        "messages": [{"role": "user", "content": "hi"}], "temperature": 1.7, "top_p": 0.90, "stop": ["END", " \n"],
        "user": "u-1", "seed": 7, "presence_penalty": 1, "frequency_penalty": 1, "reasoning_effort": "high",
        "store": true, "metadata": {"a": "b"}, "verbosity": "low", "logprobs": false, "n": 1, "future": 1,
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "top_k": 5
    }));
    assert_eq!(
        body,
        json!({
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "temperature": 1.0, "stop_sequences": ["END"], "metadata": {"user_id": "u-1"},
            "thinking": {"type": "enabled", "budget_tokens": 1024}, "top_k": 5
        })
    );
}

#[test]
fn a_model_is_sent_only_the_sampling_it_takes() {
    let sampling = |model: &str, fields: Value| {
        let mut request = request(&fields);
        request.model = model.to_owned();
        let body = serde_json::to_value(translate(&request).unwrap()).unwrap();
        ["temperature", "top_p", "top_k"].map(|field| body.get(field).is_some())
    };
    let mut both = with("temperature", json!(0.2));
    both["top_p"] = json!(0.9);
    both["top_k"] = json!(3);
    for model in [
        "claude-sonnet-4-5",
        "claude-sonnet-4-5-20250929",
        "claude-opus-4-20250514",
        "claude-3-5-haiku-20241022",
        "claude-opus-4-6",
    ] {
        assert_eq!(sampling(model, both.clone()), [true, false, true], "{model}");
        assert_eq!(sampling(model, with("top_p", json!(0.9))), [false, true, false], "{model}");
    }
    for model in ["claude-opus-4-7", "claude-opus-5", "claude-sonnet-5-5", "claude-something-new"] {
        assert_eq!(sampling(model, both.clone()), [false; 3], "{model}");
    }
}

#[test]
fn a_schema_becomes_an_output_format() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}});
    let body = translated(&with("response_format", format));
    assert_eq!(body["output_config"], json!({"format": {"type": "json_schema", "schema": schema}}));
    assert_eq!(translated(&with("response_format", json!({"type": "text"}))).get("output_config"), None);
    assert_eq!(refused(&with("response_format", json!({"type": "json_object"}))), "response_format");
}

#[test]
fn what_anthropic_cannot_do_is_refused_by_name() {
    assert_eq!(refused(&with("n", json!(2))), "n");
    assert_eq!(refused(&with("logprobs", json!(true))), "logprobs");
    assert_eq!(refused(&with("logit_bias", json!({"1": 2}))), "logit_bias");
    assert_eq!(refused(&with("functions", json!([]))), "functions");
    assert_eq!(refused(&with("tools", json!([{"type": "custom", "custom": {"name": "x"}}]))), "tools");
    for messages in [
        json!([{"role": "system", "content": "alone"}]),
        json!([{"role": "function", "name": "f", "content": "x"}]),
        json!([{"role": "tool", "content": "x"}]),
        json!([{"role": "user", "content": [{"type": "input_audio"}]}]),
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,AA"}}]}]),
        json!([{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[1]"}}]}]),
    ] {
        assert_eq!(refused(&json!({"messages": messages})), "messages", "{messages}");
    }
}

#[test]
fn signed_thoughts_go_back_before_the_calls_they_led_to() {
    let thoughts = json!([
        {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"}, {"type": "redacted_thinking", "data": "EmwK"},
        {"type": "thinking", "thinking": "unsigned", "signature": ""}, {"type": "something_new"}
    ]);
    let conversation = |thoughts: Value, kind: &str| {
        translated(&json!({"thinking": {"type": kind, "budget_tokens": 1024}, "messages": [
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": "Let me see.", "reasoning_content": "Hm.", "thinking_blocks": thoughts,
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "rain"}]}))
    };
    let body = conversation(thoughts, "enabled");
    assert_eq!(
        body["messages"][1]["content"],
        json!([
            {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"}, {"type": "redacted_thinking", "data": "EmwK"},
            {"type": "text", "text": "Let me see."}, {"type": "tool_use", "id": "a", "name": "f", "input": {}}
        ])
    );
    assert_eq!(body["thinking"]["type"], "enabled");
    assert_eq!(conversation(Value::Null, "enabled").get("thinking"), None, "refused there without the thoughts");
    assert_eq!(conversation(Value::Null, "adaptive")["thinking"]["type"], "adaptive");
}

#[test]
fn thinking_goes_on_after_a_turn_that_called_nothing() {
    let body = translated(&json!({"thinking": {"type": "enabled", "budget_tokens": 1024}, "messages": [
        {"role": "assistant", "content": null,
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "rain"}, {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": "and tomorrow?"}]}));
    assert_eq!(body["thinking"]["type"], "enabled");
}

#[test]
fn a_pictures_type_has_its_registered_name_and_no_parameters() {
    for (given, told) in
        [("image/jpg", "image/jpeg"), ("image/png;charset=utf-8", "image/png"), ("IMAGE/JPG;q=1", "image/jpeg")]
    {
        let url = format!("data:{given};base64,AAAA");
        let body = translated(&json!({"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": url}}]}]}));
        let source = json!({"type": "base64", "media_type": told, "data": "AAAA"});
        assert_eq!(body["messages"][0]["content"][0]["source"], source, "{given}");
    }
}
