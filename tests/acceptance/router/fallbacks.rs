//! What happens when the first choice does not answer.

use calos_commands::complete_chat::OPEN_AFTER_FAILURES;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_first_choice_that_is_down_is_tried_told_and_not_charged() {
    let app = TestApp::start().await;
    let person = Person::with(&app, 850 * CENT).await;
    // Both paid models of the chain refuse the platform's key, the local one answers.
    let body =
        json!({"prompt": "[[fail_with=401]] [[fail_first=2]] Reverse a string", "taskType": "code", "maxTokens": 50});
    let answer = person.ask(&body).await.expect(200);
    assert_eq!(served(&answer), ("ollama", "codellama"));
    let tried = answer.body["route"]["tried"].as_array().expect("a list");
    let tried: Vec<_> =
        tried.iter().map(|attempt| (attempt["provider"].as_str(), attempt["failure"].as_str())).collect();
    assert_eq!(tried, [(Some("openai"), Some("status_401")), (Some("anthropic"), Some("status_401"))]);
    let reason = answer.body["route"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("ollama codellama took over when anthropic") && reason.contains("status_401"), "{reason}");
    let position = answer.header("calos-position");
    assert_eq!((answer.body["cost_micros"].as_i64(), person.balance(position).await), (Some(0), (850 * CENT, 0)));
    assert_eq!(person.usage(position).await.len(), 1);
    assert_eq!(recorded_attempts(&app, &answer).await, tried.len());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passing_failure_is_repeated_and_the_answer_charged_once() {
    let app = TestApp::start().await;
    let person = Person::with(&app, 850 * CENT).await;
    let body =
        json!({"prompt": "[[fail_with=503]] [[fail_first=1]] Reverse a string", "taskType": "code", "maxTokens": 50});
    let answer = person.ask(&body).await.expect(200);
    assert_eq!(served(&answer), ("openai", "gpt-4"));
    assert_eq!(
        answer.body["route"]["tried"],
        json!([{"provider": "openai", "model": "gpt-4", "failure": "status_503"}])
    );
    assert!(answer.body["route"]["reason"].as_str().is_some_and(|reason| reason.starts_with("the best open choice")));
    let cost = whole(&answer.body["cost_micros"]);
    assert_eq!(person.balance(answer.header("calos-position")).await, (850 * CENT - cost, 0));
    assert_eq!(person.usage(answer.header("calos-position")).await.len(), 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_answers_the_caller_reads_who_was_asked_and_pays_nothing() {
    let app = TestApp::start().await;
    let person = Person::with(&app, 850 * CENT).await;
    let refused =
        person.ask(&json!({"prompt": "[[fail_with=401]] Hi", "taskType": "code", "maxTokens": 50})).await.expect(503);
    assert_eq!(refused.body["code"], "provider_unavailable");
    assert!(
        refused.body["error"]
            .as_str()
            .is_some_and(|error| error.contains("no model answered: openai gpt-4, anthropic"))
    );
    let tried: Vec<_> =
        refused.body["tried"].as_array().expect("a list").iter().map(|attempt| &attempt["provider"]).collect();
    assert_eq!(tried, ["openai", "anthropic", "ollama"]);
    assert!(!refused.header("retry-after").is_empty() && !refused.text.contains("sk-"), "{}", refused.text);
    // A mistake of the request is told as one, by the first who finds it.
    let mistake =
        person.ask(&json!({"prompt": "[[fail_with=400]] Hi", "taskType": "code", "maxTokens": 50})).await.expect(400);
    assert_eq!(mistake.body["tried"].as_array().map(Vec::len), Some(1), "{}", mistake.text);
    let alone = person.ask(&json!({"prompt": "[[fail_with=401]] Hi", "preferredProvider": "ollama"})).await.expect(503);
    assert_eq!(alone.body["tried"].as_array().map(Vec::len), Some(1), "{}", alone.text);
    assert_eq!(person.settled().await, (850 * CENT, 0));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_whose_circuit_is_open_is_asked_behind_the_others() {
    let app = TestApp::start().await;
    let person = Person::with(&app, 850 * CENT).await;
    // Each call fails three times at its first choice, which counts once.
    for call in 1..=OPEN_AFTER_FAILURES {
        let prompt = format!("[[fail_with=503]] [[fail_first=3]] [[answer_tokens={call}]] Hi");
        let answer = person.ask(&json!({"prompt": prompt, "model": "gpt-4o", "maxTokens": 50})).await.expect(200);
        assert_ne!(served(&answer), ("openai", "gpt-4o"));
        assert_eq!(answer.body["route"]["tried"].as_array().map(Vec::len), Some(3), "{}", answer.text);
    }
    let answer = person.ask(&json!({"prompt": "Hi", "model": "gpt-4o", "maxTokens": 50})).await.expect(200);
    assert_ne!(served(&answer), ("openai", "gpt-4o"));
    let considered = &answer.body["route"]["considered"][0];
    assert_eq!((considered["provider"].as_str(), considered["model"].as_str()), (Some("openai"), Some("gpt-4o")));
    assert_eq!(answer.body["route"]["tried"], json!([]), "nobody waited for it");
    app.stop().await;
}

/// How many failed attempts stand in the use's event.
async fn recorded_attempts(app: &TestApp, answer: &Answer) -> usize {
    let usage_id = answer.body["usage_id"].as_str().expect("a use");
    let query = "SELECT payload FROM events WHERE event_type = 'usage_recorded'";
    let payloads: Vec<Value> = sqlx::query_scalar(query).fetch_all(&app.database.pool).await.expect("events");
    let recorded = payloads.iter().map(|payload| payload.get("usage_recorded").unwrap_or(payload));
    let mine = recorded.into_iter().find(|usage| usage["usage_id"] == usage_id).expect("the use is recorded");
    mine["failed_attempts"].as_array().map_or(0, Vec::len)
}
