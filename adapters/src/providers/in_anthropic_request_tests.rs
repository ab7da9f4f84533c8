use std::sync::Arc;

use calos_commands::provider::{Dialect, MaxTokensField};

use super::*;

fn request(fields: &Value) -> ChatRequest {
    ChatRequest {
        answer_id: "chatcmpl-test".to_owned(),
        dialect: Dialect::Anthropic,
        key: None,
        model: "gpt-4o".to_owned(),
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
    serde_json::to_value(translate("openai", &request(fields)).unwrap()).unwrap()
}

fn refused(fields: &Value) -> &'static str {
    match translate("openai", &request(fields)).unwrap_err() {
        ProviderError::Unsupported { param, .. } => param,
        other => panic!("{other}"),
    }
}

#[test]
fn a_conversation_with_tools_keeps_its_order_and_its_words() {
    let body = translated(&json!({
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "and kind"}],
        "messages": [
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "Let me "}, {"type": "text", "text": "see."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": false, "content": [
                    {"type": "text", "text": "rain"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]},
                {"type": "text", "text": "so?"}]}
        ]
    }));
    assert_eq!(
        body["messages"],
        json!([
            {"role": "system", "content": [{"type": "text", "text": "be brief"}, {"type": "text", "text": "and kind"}]},
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": "Let me see.", "reasoning_content": "hm", "tool_calls": [
                {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}}]},
            {"role": "tool", "tool_call_id": "toolu_1", "content": "rain"},
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "text", "text": "so?"}]}
        ])
    );
}

#[test]
fn pictures_and_documents_are_said_in_parts() {
    let body = translated(&json!({"messages": [{"role": "user", "content": [
        {"type": "document", "title": "Notes", "source": {"type": "text", "media_type": "text/plain", "data": "one"}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "two"}]}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    ]}]}));
    let text = |text: &str| json!({"type": "text", "text": text});
    let image = json!({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}});
    assert_eq!(body["messages"][0]["content"], json!([text("Notes"), text("one"), text("two"), image]));
}

#[test]
fn tools_choices_and_sampling_get_openais_names() {
    let mut fields = json!({
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"name": "weather", "description": "d", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
        "temperature": 0.5, "top_p": 0.9, "top_k": 5, "stop_sequences": ["END"], "metadata": {"user_id": "u-1"},
        "thinking": {"type": "enabled", "budget_tokens": 2000}, "service_tier": "auto", "future": 1,
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"}
    });
    assert_eq!(
        translated(&fields),
        json!({
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}],
            "temperature": 0.5, "top_p": 0.9, "stop": ["END"], "user": "u-1",
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
        })
    );
    for (choice, expected) in [
        (json!({"type": "auto"}), json!("auto")),
        (json!({"type": "any"}), json!("required")),
        (json!({"type": "none"}), json!("none")),
        (json!({"type": "tool", "name": "f"}), json!({"type": "function", "function": {"name": "f"}})),
    ] {
        fields["tool_choice"] = choice;
        assert_eq!(translated(&fields)["tool_choice"], expected);
    }
    fields["tool_choice"] = json!({"type": "auto", "disable_parallel_tool_use": true});
    assert_eq!(translated(&fields)["parallel_tool_calls"], false);
}

#[test]
fn what_cannot_be_said_is_refused_by_name() {
    let said = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    assert_eq!(refused(&said(json!({"type": "search_result"}))), "messages");
    assert_eq!(refused(&said(json!({"type": "image", "source": {"type": "file"}}))), "messages");
    assert_eq!(refused(&json!({"messages": 7})), "messages");
    assert_eq!(refused(&json!({"tools": [{"type": "bash_20250124", "name": "bash"}]})), "tools");
    assert_eq!(refused(&json!({"tools": [{"name": "f"}], "tool_choice": {"type": "x"}})), "tool_choice");
}

#[test]
fn several_texts_stay_apart_where_they_may_and_are_lines_where_they_may_not() {
    let asked = request(&json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]}));
    let content = |provider| {
        let body = serde_json::to_value(translate(provider, &asked).unwrap()).unwrap();
        body["messages"][0]["content"].clone()
    };
    assert_eq!(content("openai"), json!([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]));
    assert_eq!(content("deepseek"), "one\ntwo");
}

#[test]
fn a_failed_result_says_so() {
    let result = |content: Value| {
        let block = json!({"type": "tool_result", "tool_use_id": "a", "is_error": true, "content": content});
        translated(&json!({"messages": [{"role": "user", "content": [block]}]}))["messages"][0]["content"].clone()
    };
    assert_eq!(result(json!("no such city")), "Error: no such city");
    assert_eq!(result(json!([])), "Error:");
    let texts = result(json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]));
    assert_eq!(texts, json!([{"type": "text", "text": "Error: a"}, {"type": "text", "text": "b"}]));
}

#[test]
fn a_user_is_named_as_providers_take_it_or_by_a_hash() {
    let user = |id: &str| translated(&json!({"messages": [], "metadata": {"user_id": id}}))["user"].clone();
    let plain = "a-B_9".repeat(12);
    assert_eq!(user(&plain), plain);
    for id in ["a".repeat(65), "ada@example.com".to_owned(), "\u{e9}".to_owned()] {
        let told = user(&id);
        let told = told.as_str().unwrap();
        assert!(told.len() == 64 && told.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}: {told}");
    }
    assert_eq!(user("ada@example.com"), user("ada@example.com"));
}

#[test]
fn ollama_alone_is_told_to_think() {
    let asked = request(&json!({"messages": [], "thinking": {"type": "enabled", "budget_tokens": 2000}}));
    let thinking = |provider| translate(provider, &asked).unwrap().given("thinking").is_some();
    assert!(thinking("ollama") && !thinking("openai") && !thinking("deepseek"));
}
