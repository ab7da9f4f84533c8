use std::sync::Arc;

use calos_commands::provider::MaxTokensField;
use serde_json::{Value, json};

use super::*;

/// The documented stream of an answer that thinks, speaks and calls two tools.
const EVENTS: &[&str] = &[
    r#"{"type":"message_start","message":{"id":"msg_01","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":472,"cache_creation_input_tokens":20,"cache_read_input_tokens":8,"cache_creation":{"ephemeral_5m_input_tokens":5,"ephemeral_1h_input_tokens":15},"output_tokens":2}}}"#,
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
    r#"{"type": "ping"}"#,
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm."}}"#,
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQBCgIYAhIM"}}"#,
    r#"{"type":"content_block_stop","index":0}"#,
    r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#,
    r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Okay"}}"#,
    r#"{"type":"something_new","delta":7,"index":"x"}"#,
    r#"{"type":"content_block_stop","index":1}"#,
    r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"get_weather","input":{}}}"#,
    r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}"#,
    r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"location\":"}}"#,
    r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":" \"Oslo\"}"}}"#,
    r#"{"type":"content_block_stop","index":2}"#,
    r#"{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_2","name":"now","input":{}}}"#,
    r#"{"type":"content_block_stop","index":3}"#,
    r#"{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":89}}"#,
    r#"{"type":"message_stop"}"#,
];

fn telling(dialect: Dialect, show_usage: bool) -> Telling {
    Telling::new(&ChatRequest {
        answer_id: "chatcmpl-7".to_owned(),
        dialect,
        key: None,
        model: "claude-sonnet-4-5-20250929".to_owned(),
        fields: Arc::default(),
        betas: None,
        max_tokens: 1_000,
        max_tokens_field: MaxTokensField::MaxTokens,
        show_usage,
        prompt_estimate_tokens: 10,
        transcript: calos_commands::provider::Transcript::default(),
    })
}

fn told(dialect: Dialect, show_usage: bool, events: &[&str]) -> Vec<Chunk> {
    let (mut telling, mut ready) = (telling(dialect, show_usage), VecDeque::new());
    for (place, event) in events.iter().enumerate() {
        let last = telling.event(event.as_bytes().to_vec(), &mut ready).unwrap();
        assert_eq!(last, place + 1 == EVENTS.len(), "{event}");
    }
    ready.into()
}

fn json_of(chunk: &Chunk) -> Value {
    serde_json::from_slice(chunk.json.as_ref().unwrap()).unwrap()
}

#[test]
fn events_come_back_as_they_came_in_their_own_dialect() {
    let chunks = told(Dialect::Anthropic, false, EVENTS);
    let texts: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.json.as_deref().unwrap()).collect();
    assert_eq!(texts, EVENTS.iter().map(|event| event.as_bytes()).collect::<Vec<_>>());
    let [.., delta, stop] = &chunks[..] else { panic!("no end") };
    assert_eq!((delta.kind, stop.kind), (ChunkKind::Finish, ChunkKind::Usage));
    assert!(chunks[..chunks.len() - 2].iter().all(|chunk| chunk.kind == ChunkKind::Content));
    assert_eq!(chunks[0].model.as_deref(), Some("claude-sonnet-4-5-20250929"));
}

#[test]
fn the_prompt_is_reported_first_and_the_answer_is_counted_until_it_is_reported() {
    for dialect in [Dialect::Anthropic, Dialect::OpenAi] {
        let chunks = told(dialect, false, EVENTS);
        let first = chunks[0].usage.unwrap();
        assert_eq!((first.prompt_tokens, first.completion_tokens, first.estimated), (500, 2, false));
        assert_eq!((first.cached_tokens, first.cache_write_tokens, first.cache_write_hour_tokens), (8, 5, 15));
        let leaving = chunks.iter().take_while(|chunk| chunk.kind == ChunkKind::Content);
        let leaving = leaving.filter_map(|chunk| chunk.usage).last().unwrap();
        assert_eq!((leaving.prompt_tokens, leaving.estimated), (500, true));
        assert!((7..40).contains(&leaving.completion_tokens), "{leaving:?}");
        let last = chunks.iter().filter_map(|chunk| chunk.usage).last().unwrap();
        assert_eq!((last.prompt_tokens, last.completion_tokens, last.estimated), (500, 89, false));
        let produced = chunks.iter().fold(Produced::default(), |mut all, chunk| {
            all.add(chunk.produced);
            all
        });
        assert_eq!(produced.bytes, 3 + 4 + 11 + 20 + 3);
    }
}

#[test]
fn figures_of_the_end_take_the_place_of_those_of_the_beginning() {
    let (mut telling, mut ready) = (telling(Dialect::Anthropic, false), VecDeque::new());
    telling.event(EVENTS[0].as_bytes().to_vec(), &mut ready).unwrap();
    let delta = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":10682,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":510}}"#;
    telling.event(delta.as_bytes().to_vec(), &mut ready).unwrap();
    let usage = ready[1].usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (10_682, 510));
    assert_eq!((usage.cached_tokens, usage.cache_write_tokens, usage.cache_write_hour_tokens), (0, 0, 0));
}

#[test]
fn events_are_told_in_openais_words_each_call_under_its_own_number() {
    let chunks = told(Dialect::OpenAi, true, EVENTS);
    let shown: Vec<Value> = chunks.iter().filter(|chunk| chunk.json.is_some()).map(json_of).collect();
    assert!(shown.iter().all(|chunk| chunk["id"] == "msg_01" && chunk["object"] == "chat.completion.chunk"));
    let deltas: Vec<&Value> =
        shown.iter().map(|chunk| &chunk["choices"][0]["delta"]).filter(|delta| !delta.is_null()).collect();
    let call = |index: u64, more: Value| {
        let mut call = json!({"index": index});
        call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"tool_calls": [call]})
    };
    let opens =
        |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": ""}});
    let more = |text: &str| json!({"function": {"arguments": text}});
    assert_eq!(
        deltas,
        [
            &json!({"role": "assistant", "content": ""}),
            &json!({"reasoning_content": "Hm."}),
            &json!({"thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "EqQBCgIYAhIM"}]}),
            &json!({"content": "Okay"}),
            &call(0, opens("toolu_1", "get_weather")),
            &call(0, more("{\"location\":")),
            &call(0, more(" \"Oslo\"}")),
            &call(1, opens("toolu_2", "now")),
            &call(1, more("{}")),
            &json!({}),
        ]
    );
    let [.., finish, usage] = &shown[..] else { panic!("no end") };
    assert_eq!(finish["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!((&usage["choices"], &usage["usage"]["total_tokens"]), (&json!([]), &json!(589)));
    assert!(shown[..shown.len() - 1].iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
    let hidden = told(Dialect::OpenAi, false, EVENTS);
    assert!(hidden.last().unwrap().json.is_none());
    assert!(hidden.iter().filter(|chunk| chunk.json.is_some()).map(json_of).all(|chunk| chunk.get("usage").is_none()));
}

#[test]
fn an_error_event_is_an_error_with_its_status() {
    let (mut telling, mut ready) = (telling(Dialect::Anthropic, false), VecDeque::new());
    let event = br#"{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}"#;
    let error = telling.event(event.to_vec(), &mut ready).unwrap_err();
    assert!(matches!(error, ProviderError::Status { status: 529, .. }), "{error}");
    assert!(telling.event(b"[DONE]".to_vec(), &mut ready).is_err());
}

#[test]
fn a_bill_in_an_event_is_ours_alone() {
    let stop = br#"{"type":"message_stop","billing":{"total_cost_micros":0},"amazon":{"x":1}}"#;
    let (mut telling, mut ready) = (telling(Dialect::Anthropic, false), VecDeque::new());
    assert!(telling.event(stop.to_vec(), &mut ready).unwrap());
    assert_eq!(json_of(&ready[0]), json!({"type": "message_stop", "amazon": {"x": 1}}));
}

#[test]
fn thoughts_that_cannot_be_read_are_given_out_to_be_given_back_and_unsigned_ones_are_not() {
    let (mut telling, mut ready) = (telling(Dialect::OpenAi, false), VecDeque::new());
    for event in [
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"redacted_thinking","data":"EmwKAhgB"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"thinking","thinking":"a","signature":""}}"#,
        r#"{"type":"content_block_stop","index":1}"#,
    ] {
        telling.event(event.as_bytes().to_vec(), &mut ready).unwrap();
    }
    let deltas: Vec<Value> = ready.iter().map(|chunk| json_of(chunk)["choices"][0]["delta"].clone()).collect();
    let redacted = json!({"thinking_blocks": [{"type": "redacted_thinking", "data": "EmwKAhgB"}]});
    assert_eq!(deltas, [redacted, json!({"reasoning_content": "a"})]);
}
