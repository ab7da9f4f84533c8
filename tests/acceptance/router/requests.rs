//! Who may ask, what a request looks like, pieces, repetitions and tools.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_a_session_ask_alike_and_a_stranger_not_at_all() {
    let app = TestApp::start().await;
    let person = Person::with(&app, TRIAL_MICROS).await;
    let key = app.issue_key(&person.who).await;
    let body = json!({"prompt": "Hello", "taskType": "code", "maxTokens": 20});
    let by_session = person.ask(&body).await.expect(200);
    let by_key = Answer::of(app.post("/api/chat/complete", &body).bearer_auth(&key)).await.expect(200);
    for field in ["text", "provider", "model", "usage", "cost_micros"] {
        assert_eq!(by_session.body[field], by_key.body[field], "{field}");
    }
    for answer in [&by_session, &by_key] {
        assert!(!answer.header("calos-position").is_empty());
        assert_eq!(answer.header("x-ratelimit-limit-requests"), "60");
    }
    let stranger = Answer::of(app.post("/api/chat/complete", &body)).await.expect(401);
    assert_eq!(stranger.body["code"], "unauthenticated");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_held_to_some_models_gets_the_first_of_them() {
    let app = TestApp::start().await;
    let person = Person::with(&app, TRIAL_MICROS).await;
    let path = format!("/api/tenants/{}/keys", person.who.tenant_id);
    let issued =
        app.post(&path, &json!({"models": ["llama3.2:3b", "codellama:latest"]})).bearer_auth(&person.who.token);
    let issued = Answer::of(issued).await.expect(201);
    let ask = |task: &str| {
        let body = json!({"prompt": "Hello", "taskType": task, "maxTokens": 20});
        Answer::of(app.post("/api/chat/complete", &body).bearer_auth(issued.body["key"].as_str().expect("a key")))
    };
    assert_eq!(served(&ask("code").await.expect(200)), ("ollama", "codellama"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_again_is_answered_again_and_paid_once() {
    let app = TestApp::start().await;
    let person = Person::with(&app, TRIAL_MICROS).await;
    let body = json!({"prompt": "Hello", "taskType": "code", "maxTokens": 20});
    let ask = |body: &Value| Answer::of(person.request(body).header("idempotency-key", "poem-1"));
    let (first, again) = (ask(&body).await.expect(200), ask(&body).await.expect(200));
    assert_eq!(
        (first.text.as_str(), first.header("calos-position")),
        (again.text.as_str(), again.header("calos-position"))
    );
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(person.usage(first.header("calos-position")).await.len(), 1);
    let other = json!({"prompt": "Hello!", "taskType": "code", "maxTokens": 20});
    assert_eq!(ask(&other).await.expect(409).body["code"], "idempotency_key_reused");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_pieces_says_the_same_and_ends_with_everything_about_it() {
    let app = TestApp::start().await;
    let person = Person::with(&app, TRIAL_MICROS).await;
    let mut body = json!({"prompt": "Tell me more", "taskType": "code", "maxTokens": 50});
    let whole_answer = person.ask(&body).await.expect(200);
    body["stream"] = json!(true);
    for (omit, estimated) in [("", None), (" [[omit_usage=1]]", Some(true))] {
        body["prompt"] = json!(format!("Tell me more{omit}"));
        let answer = person.ask(&body).await.expect(200);
        assert_eq!(answer.header("content-type"), "text/event-stream");
        let events: Vec<Value> = answer
            .text
            .split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "))
            .map(|event| serde_json::from_str(event).expect("an event is JSON"))
            .collect();
        let (last, pieces) = events.split_last().expect("events");
        assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece["delta"].is_string()), "{}", answer.text);
        let text: String = pieces.iter().filter_map(|piece| piece["delta"].as_str()).collect();
        if omit.is_empty() {
            assert_eq!(text, whole_answer.body["text"]);
            for field in ["provider", "model", "usage", "cost_micros", "cost_cents", "finish_reason"] {
                assert_eq!(last[field], whole_answer.body[field], "{field}");
            }
        }
        assert_eq!(last["usage"]["estimated"].as_bool(), estimated);
        assert_eq!(
            last["usage"]["total_tokens"],
            whole(&last["usage"]["prompt_tokens"]) + whole(&last["usage"]["completion_tokens"])
        );
        assert!(
            last["route"]["reason"].as_str().is_some_and(|reason| reason.contains("code"))
                && last["usage_id"].is_string()
        );
    }
    let keyed = Answer::of(person.request(&body).header("idempotency-key", "s-1")).await.expect(400);
    assert_eq!(keyed.body["param"], "idempotency-key");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_ends_with_an_error_and_what_it_cost() {
    let app = TestApp::start().await;
    let person = Person::with(&app, TRIAL_MICROS).await;
    let prompt = "[[answer_tokens=40]] [[drop_after_tokens=5]] Hi";
    let body = json!({"prompt": prompt, "taskType": "code", "maxTokens": 50, "stream": true});
    let answer = person.ask(&body).await.expect(200);
    let last = answer.text.trim_end().rsplit("data: ").next().unwrap_or_default();
    let last: Value = serde_json::from_str(last).expect("an event is JSON");
    assert!(last["error"].is_string() && last["code"].is_string(), "{last}");
    assert!(whole(&last["billing"]["total_cost_micros"]) > 0, "{last}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_and_a_system_prompt_go_along() {
    let app = TestApp::start().await;
    let person = Person::with(&app, 50 * CENT).await;
    let tokens = |answer: &Answer| whole(&answer.body["usage"]["prompt_tokens"]);
    let plain = person.ask(&json!({"prompt": "And now?"})).await.expect(200);
    let body = json!({"systemPrompt": "You are a news summarizer. Be concise.", "messages": [
        {"role": "user", "content": "What was there?"}, {"role": "assistant", "content": "A mountain."},
        {"role": "user", "content": "And now?"}], "taskType": "summarization", "temperature": 0.2});
    let long = person.ask(&body).await.expect(200);
    assert_eq!(served(&long), ("ollama", "deathtodata"));
    assert!(tokens(&long) > tokens(&plain) + 10, "{} {}", plain.text, long.text);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_the_callers_own_tools_are_handed_over() {
    let app = TestApp::start().await;
    let person = Person::with(&app, TRIAL_MICROS).await;
    let tools = json!([{"name": "look_up", "description": "Looks a word up", "parameters": {"word": "string"}}]);
    let mut body =
        json!({"prompt": "[[call_tool=1]] What is a ledger?", "tools": tools, "taskType": "code", "maxTokens": 50});
    let answer = person.ask(&body).await.expect(200);
    assert_eq!((answer.body["text"].as_str(), answer.body["finish_reason"].as_str()), (Some(""), Some("tool_calls")));
    let call = &answer.body["toolCalls"][0];
    assert_eq!(call["name"], "look_up");
    assert!(call["parameters"].is_object() && call["id"].is_string(), "{call}");
    body["stream"] = json!(true);
    let streamed = person.ask(&body).await.expect(200);
    let last: Value =
        serde_json::from_str(streamed.text.trim_end().rsplit("data: ").next().unwrap_or_default()).expect("JSON");
    assert_eq!(
        (&last["toolCalls"][0]["name"], &last["toolCalls"][0]["parameters"]),
        (&call["name"], &call["parameters"])
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_may_not_be_fetched_is_told_to_the_model_and_every_round_is_charged() {
    let app = TestApp::start().await;
    let person = Person::with(&app, TRIAL_MICROS).await;
    let tools =
        json!([{"name": "fetch_web", "description": "Fetch content from a URL", "parameters": {"url": "string"}}]);
    let prompt = "[[fetch=http://127.0.0.1:9/secret]] Fetch latest design trends";
    let body = json!({"prompt": prompt, "tools": tools, "taskType": "code", "maxTokens": 100});
    let answer = person.ask(&body).await.expect(200);
    let rounds = answer.body["rounds"].as_array().expect("rounds");
    assert!(rounds.len() > 1, "{}", answer.text);
    assert!(rounds[0]["fetched"][0]["refused"].is_string(), "{}", answer.text);
    let cost: i64 = rounds.iter().map(|round| whole(&round["costMicros"])).sum();
    assert!(cost > 0 && whole(&answer.body["cost_micros"]) == cost, "{}", answer.text);
    assert_eq!(person.balance(answer.header("calos-position")).await, (TRIAL_MICROS - cost, 0));
    assert_eq!(person.usage(answer.header("calos-position")).await.len(), rounds.len());
    let streamed = json!({"prompt": "Hi", "tools": body["tools"], "stream": true});
    assert_eq!(person.ask(&streamed).await.expect(400).body["param"], "stream");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_may_be_about_any_character_as_under_v1() {
    let app = TestApp::start().await;
    let person = Person::with(&app, TRIAL_MICROS).await;
    let body = json!({"prompt": "What is \0? [[answer_tokens=5]]", "maxTokens": 10});
    let answer = person.ask(&body).await.expect(200);
    assert_eq!(person.usage(answer.header("calos-position")).await.len(), 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_refused_by_the_name_of_its_field() {
    let app = TestApp::start().await;
    let person = Person::with(&app, TRIAL_MICROS).await;
    for (body, status, param) in [
        (json!({}), 400, "prompt"),
        (json!({"prompt": ""}), 400, "prompt"),
        (json!({"prompt": 7}), 400, "prompt"),
        (json!({"prompt": "Hi", "messages": []}), 400, "prompt"),
        (json!({"messages": []}), 400, "messages"),
        (json!({"messages": [{"role": "robot", "content": "Hi"}]}), 400, "messages[0].role"),
        (json!({"prompt": "Hi", "taskType": "cooking"}), 400, "taskType"),
        (json!({"prompt": "Hi", "preferredProvider": "google"}), 400, "preferredProvider"),
        (json!({"prompt": "Hi", "persona": "nobody"}), 400, "persona"),
        (json!({"prompt": "Hi", "strategy": "random"}), 400, "strategy"),
        (json!({"prompt": "Hi", "maxTokens": 0}), 400, "maxTokens"),
        (json!({"prompt": "Hi", "maxTokens": -1}), 400, "maxTokens"),
        (json!({"prompt": "Hi", "temperature": 9}), 400, "temperature"),
        (json!({"prompt": "Hi", "tools": [7]}), 400, "tools[0]"),
        (json!({"prompt": "Hi", "model": "gpt-4", "preferredProvider": "ollama"}), 400, "model"),
        (json!({"prompt": "Hi", "model": "gpt-99"}), 404, "model"),
        (json!({"prompt": "Hi", "model": "gpt-4\0"}), 400, "model"),
        (json!({"prompt": "Hi", "model": "text-embedding-3-small"}), 400, "model"),
    ] {
        let refused = person.ask(&body).await.expect(status);
        assert_eq!(refused.body["param"], param, "{body}: {}", refused.text);
        assert!(refused.body["error"].is_string() && refused.body["code"].is_string(), "{}", refused.text);
    }
    let unknown = person.ask(&json!({"prompt": "Hi", "max_tokens": 5})).await.expect(400);
    assert!(unknown.body["error"].as_str().is_some_and(|error| error.contains("max_tokens")), "{}", unknown.text);
    assert!(person.usage("").await.is_empty());
    app.stop().await;
}
