//! Claude for clients that speak OpenAI's dialect.

use calos_api::cli::TierName;
use calos_tests::app::Answer;
use serde_json::{Value, json};

use super::super::{TRIAL_MICROS, Tenant, chunks, events, text_of};
use super::{CLAUDE, PICTURE, pro_message};

fn chatting(text: &str) -> Value {
    json!({"model": CLAUDE, "max_tokens": 500, "messages": [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": text}]})
}

/// What a call in OpenAI's words costs a pro tenant.
fn pro_chat(usage: &Value) -> i64 {
    pro_message(CLAUDE, &json!({"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}))
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_answers_in_openais_words_whole_and_in_chunks() {
    let pro = Tenant::start(TierName::Pro).await;
    let answer = Answer::of(pro.chat(&chatting("Tell me about ledgers."))).await.expect(200);
    assert_eq!((&answer.body["object"], &answer.body["provider"]), (&json!("chat.completion"), &json!("anthropic")));
    let choice = &answer.body["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(
        choice["message"],
        json!({"role": "assistant", "content": "[simulated] You said: Tell me about ledgers."})
    );
    let whole = pro_chat(&answer.body["usage"]);
    assert_eq!(answer.body["billing"]["total_cost_micros"], whole);

    let mut body = chatting("Tell me a story.");
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let events = events(pro.chat(&body)).await;
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let chunks = chunks(&events);
    assert_eq!(text_of(&chunks), "[simulated] You said: Tell me a story.");
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let ids: std::collections::BTreeSet<_> = chunks.iter().map(|chunk| chunk["id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
    let [.., finish, last] = &chunks[..] else { panic!("no end") };
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    let streamed = pro_chat(&last["usage"]);
    assert_eq!(last["billing"]["total_cost_micros"], streamed);
    let (_, balance) = pro.settled(2).await;
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - whole - streamed);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_calls_openais_tools_and_reads_their_results() {
    let pro = Tenant::start(TierName::Pro).await;
    let mut body = chatting("what is the weather?");
    body["tools"] = json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]);
    body["tool_choice"] = json!({"type": "function", "function": {"name": "weather"}});
    let answer = Answer::of(pro.chat(&body)).await.expect(200);
    let choice = answer.body["choices"][0].clone();
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("tool_calls"), &Value::Null));
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("weather")));
    let arguments = call["function"]["arguments"].as_str().expect("arguments are text");
    assert_eq!(serde_json::from_str::<Value>(arguments).expect("JSON"), json!({"simulated": true}));

    body["stream"] = json!(true);
    let pieces = chunks(&events(pro.chat(&body)).await);
    let calls: Vec<&Value> =
        pieces.iter().filter_map(|piece| piece["choices"][0]["delta"]["tool_calls"].get(0)).collect();
    assert!(calls.iter().all(|call| call["index"] == 0));
    assert_eq!((&calls[0]["function"]["name"], &calls[0]["type"]), (&json!("weather"), &json!("function")));
    let arguments: String = calls.iter().filter_map(|call| call["function"]["arguments"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&arguments).expect("JSON"), json!({"simulated": true}));

    body["stream"] = json!(false);
    body["tool_choice"] = json!("auto");
    let messages = body["messages"].as_array_mut().expect("messages");
    messages.push(choice["message"].clone());
    messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "rain"}));
    let answer = Answer::of(pro.chat(&body)).await.expect(200);
    assert_eq!(answer.body["choices"][0]["message"]["content"], "[simulated] You said: rain", "{}", answer.text);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_sees_pictures_and_is_told_only_what_it_understands() {
    let pro = Tenant::start(TierName::Pro).await;
    let picture = json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{PICTURE}")}});
    let content = json!([{"type": "text", "text": "what is this"}, picture]);
    // The simulated account refuses any field that is not Anthropic's.
    let mut body = json!({"model": CLAUDE, "max_completion_tokens": 100, "temperature": 1.5, "seed": 7, "user": "u-1",
        "presence_penalty": 0.5, "reasoning_effort": "low", "stop": ["END"], "store": false,
        "messages": [{"role": "user", "content": content}]});
    let answer = Answer::of(pro.chat(&body)).await.expect(200);
    assert!(
        answer.body["choices"][0]["message"]["content"].as_str().is_some_and(|text| text.ends_with("what is this"))
    );
    body["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}});
    Answer::of(pro.chat(&body)).await.expect(200);
    for (field, value) in
        [("n", json!(2)), ("logprobs", json!(true)), ("response_format", json!({"type": "json_object"}))]
    {
        let mut wrong = chatting("Hi");
        wrong[field] = value;
        let refused = Answer::of(pro.chat(&wrong)).await.expect(400);
        assert_eq!(refused.body["error"]["param"], field, "{}", refused.text);
    }
    pro.app.stop().await;
}
