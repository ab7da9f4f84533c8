//! Which models a key sees, may use and is refused, and the tools they call.

use calos_api::cli::TierName;
use calos_tests::app::Answer;
use serde_json::{Value, json};

use super::{Tenant, chunks, events, question};

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_model_and_a_foreign_key_are_refused_as_openai_does() {
    let pro = Tenant::start(TierName::Pro).await;
    let mut body = question("Hi", false);
    body["model"] = json!("gpt-99");
    let unknown = Answer::of(pro.chat(&body)).await.expect(404);
    assert_eq!(unknown.body["error"]["code"], "model_not_found");
    assert_eq!(unknown.body["error"]["param"], "model");
    let nobody = Answer::of(pro.app.post("/v1/chat/completions", &body)).await.expect(401);
    assert!(nobody.body["error"]["message"].is_string());
    let wrong = pro.app.post("/v1/chat/completions", &body).bearer_auth(format!("{}x", pro.key));
    assert_eq!(Answer::of(wrong).await.expect(401).body["error"]["code"], "invalid_api_key");
    body["model"] = json!("gpt-4");
    body["service_tier"] = json!("priority");
    let unpriced = Answer::of(pro.chat(&body)).await.expect(400);
    assert_eq!(unpriced.body["error"]["param"], "service_tier");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_sees_and_uses_only_the_models_it_may() {
    let pro = Tenant::start(TierName::Pro).await;
    let path = format!("/api/tenants/{}/keys", pro.who.tenant_id);
    let request =
        pro.app.post(&path, &json!({"name": "narrow", "models": ["gpt-4o-mini"]})).bearer_auth(&pro.who.token);
    let narrow = Answer::of(request).await.expect(201).body["key"].as_str().expect("a key").to_owned();
    let models = |key: &str| pro.app.get("/v1/models").bearer_auth(key.to_owned());

    let all = Answer::of(models(&pro.key)).await.expect(200);
    let ids: Vec<&str> =
        all.body["data"].as_array().expect("models").iter().filter_map(|model| model["id"].as_str()).collect();
    assert!(ids.contains(&"gpt-4") && ids.contains(&"llama3.2:3b"), "{ids:?}");
    assert!(all.body["data"].as_array().expect("models").iter().all(|model| model["owned_by"] == "simulated"));

    let some = Answer::of(models(&narrow)).await.expect(200);
    assert_eq!(some.body["data"].as_array().map(Vec::len), Some(1));
    let refused = Answer::of(pro.app.post("/v1/chat/completions", &question("Hi", false)).bearer_auth(&narrow)).await;
    assert_eq!(refused.expect(403).body["error"]["code"], "model_not_allowed");

    let free = pro.app.register().await;
    let free_key = pro.app.issue_key(&free).await;
    let local = Answer::of(models(&free_key)).await.expect(200);
    let ids: Vec<&str> =
        local.body["data"].as_array().expect("models").iter().filter_map(|model| model["id"].as_str()).collect();
    assert!(!ids.contains(&"gpt-4") && ids.contains(&"llama3.2:3b"), "{ids:?}");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_called_in_openais_shape_whoever_answers() {
    for tier in [TierName::Pro, TierName::Free] {
        let tenant = Tenant::start(tier).await;
        let mut body = question("[[call_tool]] what is the weather?", false);
        body["tools"] =
            json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]);
        let answer = Answer::of(tenant.chat(&body)).await.expect(200);
        let choice = &answer.body["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls", "{}", answer.text);
        let call = &choice["message"]["tool_calls"][0];
        assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("weather")));
        let arguments = call["function"]["arguments"].as_str().expect("arguments are text");
        assert_eq!(serde_json::from_str::<Value>(arguments).expect("JSON"), json!({"simulated": true}));
        body["stream"] = json!(true);
        let chunks = chunks(&events(tenant.chat(&body)).await);
        let delta = chunks.iter().find_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0].as_object().cloned());
        let delta = delta.expect("a tool call");
        assert_eq!(delta["index"], 0);
        assert_eq!(delta["function"]["name"], "weather");
        tenant.app.stop().await;
    }
}
