use std::sync::Arc;

use calos_commands::provider::MaxTokensField;
use serde_json::json;

use super::*;

fn request(fields: &Value) -> ChatRequest {
    ChatRequest {
        answer_id: "chatcmpl-test".to_owned(),
        dialect: calos_commands::provider::Dialect::OpenAi,
        key: None,
        model: "llama3.2:3b".to_owned(),
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
    serde_json::to_value(translate(&request(fields), true).unwrap()).unwrap()
}

fn refused(fields: &Value) -> &'static str {
    match translate(&request(fields), true).unwrap_err() {
        ProviderError::Unsupported { param, .. } => param,
        other => panic!("{other}"),
    }
}

#[test]
fn options_move_to_their_place_and_get_their_names() {
    let body = translated(&json!({
        "messages": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hi"}],
        "temperature": 0.5, "stop": "END", "seed": 7, "response_format": {"type": "json_object"}, "user": "u"
    }));
    assert_eq!(
        body,
        json!({
            "model": "llama3.2:3b", "stream": true, "format": "json",
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
            "options": {"num_predict": 64, "temperature": 0.5, "seed": 7, "stop": ["END"]}
        })
    );
}

#[test]
fn tool_calls_and_their_results_find_each_other() {
    let body = translated(&json!({"messages": [
        {"role": "assistant", "content": null, "tool_calls":
            [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
    ]}));
    assert_eq!(
        body["messages"],
        json!([
            {"role": "assistant", "content": "", "tool_calls":
                [{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}]},
            {"role": "tool", "content": "rain", "tool_name": "weather"}
        ])
    );
}

#[test]
fn parts_become_text_and_pictures() {
    let body = translated(&json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "what is "}, {"type": "text", "text": "this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    ]}]}));
    assert_eq!(body["messages"][0], json!({"role": "user", "content": "what is this?", "images": ["AAAA"]}));
}

#[test]
fn a_long_prompt_gets_a_context_it_fits_in() {
    let mut long = request(&json!({"messages": []}));
    long.prompt_estimate_tokens = 5_000;
    let body = serde_json::to_value(translate(&long, false).unwrap()).unwrap();
    assert_eq!(body["options"]["num_ctx"], 16_384);
    long.prompt_estimate_tokens = 30_000;
    let body = serde_json::to_value(translate(&long, false).unwrap()).unwrap();
    assert_eq!(body["options"]["num_ctx"], CONTEXT_MAX_TOKENS);
    long.prompt_estimate_tokens = u64::MAX;
    let refused = translate(&long, false).unwrap_err();
    assert!(matches!(refused, ProviderError::Unsupported { param: "messages", .. }), "{refused}");
}

#[test]
fn no_client_takes_more_of_the_machine_than_its_share() {
    let mut greedy = request(&json!({"messages": [], "options": {"num_ctx": 1_000_000, "num_gpu": 99},
        "num_ctx": 1_000_000, "keep_alive": "999h"}));
    greedy.max_tokens = 10_000_000;
    let body = serde_json::to_value(translate(&greedy, true).unwrap()).unwrap();
    assert_eq!(body["options"], json!({"num_predict": CONTEXT_MAX_TOKENS - 10, "num_ctx": CONTEXT_MAX_TOKENS}));
    assert_eq!((body.get("keep_alive"), body.get("num_ctx")), (None, None));
}

#[test]
fn thinking_goes_both_ways() {
    let body = translated(&json!({"think": true, "messages": [
        {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}]}));
    assert_eq!(body["think"], true);
    assert_eq!(body["messages"][0], json!({"role": "assistant", "content": "4", "thinking": "2 and 2"}));
}

#[test]
fn only_models_with_levels_are_told_one_and_the_others_think_when_asked_in_so_many_words() {
    let think = |model: &str, fields: &Value| {
        let mut request = request(fields);
        request.model = model.to_owned();
        serde_json::to_value(translate(&request, true).unwrap()).unwrap().get("think").cloned()
    };
    let effort = |effort: &str| json!({"messages": [], "reasoning_effort": effort});
    for (said, level) in [("minimal", "low"), ("medium", "medium"), ("xhigh", "high"), ("none", "low")] {
        assert_eq!(think("gpt-oss:20b", &effort(said)), Some(json!(level)), "{said}");
    }
    for model in ["llama3.2:3b", "qwen3:8b", "deepseek-r1:8b"] {
        assert_eq!(think(model, &effort("high")), None, "{model}");
        assert_eq!(think(model, &effort("none")), Some(json!(false)), "{model}");
        assert_eq!(think(model, &json!({"messages": []})), None, "{model}");
        assert_eq!(think(model, &json!({"messages": [], "think": "high"})), Some(json!(true)), "{model}");
        let thinking = |kind: &str| json!({"messages": [], "reasoning_effort": "low", "thinking": {"type": kind}});
        assert_eq!(think(model, &thinking("enabled")), Some(json!(true)), "{model}");
        assert_eq!(think(model, &thinking("disabled")), Some(json!(false)), "{model}");
    }
    assert_eq!(think("registry.example/gpt-oss", &json!({"messages": [], "think": "high"})), Some(json!("high")));
    assert_eq!(refused(&json!({"reasoning_effort": "lots"})), "reasoning_effort");
    assert_eq!(refused(&json!({"think": "lots"})), "think");
}

#[test]
fn what_ollama_cannot_do_is_refused_by_name() {
    assert_eq!(refused(&json!({"n": 2})), "n");
    assert_eq!(refused(&json!({"logprobs": true})), "logprobs");
    assert_eq!(refused(&json!({"logit_bias": {"50256": -100}})), "logit_bias");
    assert_eq!(refused(&json!({"tool_choice": "required"})), "tool_choice");
    assert_eq!(refused(&json!({"tool_choice": "sometimes"})), "tool_choice");
    assert_eq!(refused(&json!({"functions": []})), "functions");
    assert_eq!(refused(&json!({"response_format": {"type": "xml"}})), "response_format");
    let remote = json!({"messages": [{"role": "user", "content":
        [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]}]});
    assert_eq!(refused(&remote), "messages");
    assert_eq!(refused(&json!({"messages": [{"role": 7}]})), "messages");
}

#[test]
fn no_tool_is_offered_when_none_may_be_called() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    assert_eq!(translated(&json!({"tools": tools}))["tools"], tools);
    assert_eq!(translated(&json!({"tools": tools, "tool_choice": "none"})).get("tools"), None);
}

#[test]
fn a_tool_that_has_to_be_called_is_asked_for_and_one_by_its_name_is_offered_alone() {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    let asked = |choice: Value, messages: Value| {
        translated(&json!({"tools": [tool("f"), tool("g")], "tool_choice": choice, "messages": messages}))
    };
    let named = |name: &str| json!({"type": "function", "function": {"name": name}});
    let body = asked(json!("required"), json!([{"role": "user", "content": "hi"}]));
    assert_eq!(body["tools"], json!([tool("f"), tool("g")]));
    assert_eq!(
        body["messages"],
        json!([{"role": "user", "content": "hi"}, {"role": "system", "content": CALL_A_TOOL}])
    );
    let body = asked(named("g"), json!([{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]));
    assert_eq!(body["tools"], json!([tool("g")]));
    assert_eq!(body["messages"][0]["content"], format!("be brief\n\n{CALL_A_TOOL}"));
    assert_eq!(body["messages"].as_array().unwrap().len(), 2);
    assert_eq!(refused(&json!({"tools": [tool("f")], "tool_choice": named("h")})), "tool_choice");
}
