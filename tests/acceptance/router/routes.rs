//! The worked examples, the thresholds, and what the caller prefers.

use super::*;

/// What gpt-4 costs without a markup.
fn gpt_4(usage: &Value) -> i64 {
    whole(&usage["prompt_tokens"]) * 30 + whole(&usage["completion_tokens"]) * 60
}

#[tokio::test(flavor = "multi_thread")]
async fn code_goes_to_gpt_4_with_eight_dollars_fifty() {
    let app = TestApp::start().await;
    let person = Person::with(&app, 850 * CENT).await;
    let body = json!({"prompt": "Write a Python function to reverse a string", "taskType": "code", "maxTokens": 500});
    let answer = person.ask(&body).await.expect(200);
    assert_eq!(served(&answer), ("openai", "gpt-4"));
    assert!(answer.body["text"].as_str().is_some_and(|text| text.contains("reverse a string")), "{}", answer.text);
    let usage = &answer.body["usage"];
    let total = whole(&usage["prompt_tokens"]) + whole(&usage["completion_tokens"]);
    assert!(total > 0 && whole(&usage["total_tokens"]) == total, "{usage}");
    let cost = gpt_4(usage);
    assert_eq!(whole(&answer.body["cost_micros"]), cost);
    assert_eq!(whole(&answer.body["cost_cents"]), (cost + CENT / 2) / CENT);
    assert!(answer.body["latency_ms"].is_u64(), "{}", answer.text);
    let reason = "the best open choice for the task code; it needs $5.00 available, the wallet has $8.50";
    assert_eq!(answer.body["route"], json!({"reason": reason, "tried": [], "considered": []}));
    assert_eq!(person.balance(answer.header("calos-position")).await, (850 * CENT - cost, 0));
    let log = person.usage(answer.header("calos-position")).await;
    assert_eq!((log.len(), log[0]["taskType"].as_str(), whole(&log[0]["totalMicros"])), (1, Some("code"), cost));
    assert_eq!(log[0]["usageId"], answer.body["usage_id"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poem_with_forty_five_cents_is_soulfras() {
    let app = TestApp::start().await;
    let person = Person::with(&app, 45 * CENT).await;
    let body = json!({"prompt": "Write a poem about mountains", "taskType": "creative", "maxTokens": 300});
    let answer = person.ask(&body).await.expect(200);
    assert_eq!((served(&answer), answer.body["persona"].as_str()), (("ollama", "soulfra"), Some("soulfra")));
    assert_eq!((whole(&answer.body["cost_cents"]), whole(&answer.body["cost_micros"])), (0, 0));
    assert!(whole(&answer.body["usage"]["total_tokens"]) > 0);
    let considered = answer.body["route"]["considered"].as_array().expect("a list");
    let anthropic = considered.iter().find(|over| over["provider"] == "anthropic").expect("Claude was considered");
    assert_eq!(anthropic["reason"], "anthropic needs $5.00 available, the wallet has $0.45");
    assert_eq!(person.balance(answer.header("calos-position")).await, (45 * CENT, 0));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn soulfra_by_name_is_soulfra_and_free_with_any_wallet() {
    let app = TestApp::start().await;
    let body = json!({"prompt": "Generate CSS for a purple gradient button", "preferredProvider": "ollama",
        "model": "soulfra", "maxTokens": 200});
    for micros in [TRIAL_MICROS, 45 * CENT, 0] {
        let person = Person::with(&app, micros).await;
        let answer = person.ask(&body).await.expect(200);
        assert_eq!(served(&answer), ("ollama", "soulfra"));
        assert_eq!(answer.body["cost_cents"], 0);
        assert!(answer.body["route"]["reason"].as_str().is_some_and(|reason| reason.starts_with("the model soulfra")));
        assert_eq!(person.balance(answer.header("calos-position")).await, (micros, 0));
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_balance_decides_to_the_micro_dollar() {
    let app = TestApp::start().await;
    let gpt = ("openai", "gpt-4");
    let deepseek = ("deepseek", "deepseek-chat");
    let local = ("ollama", "llama3.2:3b");
    for (micros, expected) in [
        (5_000_000, Some(gpt)),
        (4_999_999, Some(deepseek)),
        (1_000_000, Some(deepseek)),
        (999_999, Some(local)),
        (100_000, Some(local)),
        (99_999, None),
    ] {
        let person = Person::with(&app, micros).await;
        let answer = person.ask(&json!({"prompt": "Hello", "maxTokens": 20})).await;
        match expected {
            Some(expected) => {
                let answer = answer.expect(200);
                assert_eq!(served(&answer), expected, "{micros}");
                let cost = whole(&answer.body["cost_micros"]);
                assert_eq!(cost > 0, expected != local, "{}", answer.text);
                assert_eq!(person.balance(answer.header("calos-position")).await, (micros - cost, 0));
            }
            None => assert_eq!(answer.expect(402).body["code"], "insufficient_credits"),
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_next_to_nothing_is_told_what_to_do_and_can_still_ask_for_what_is_free() {
    let app = TestApp::start().await;
    let person = Person::with(&app, 9 * CENT + 9_999).await;
    let refused = person.ask(&json!({"prompt": "Hello", "taskType": "code"})).await.expect(402);
    let body = &refused.body;
    assert_eq!(
        (body["error"].as_str(), body["code"].as_str()),
        (Some("Insufficient credits"), Some("insufficient_credits"))
    );
    assert_eq!((whole(&body["balance"]), body["message"].as_str()), (9, Some("Purchase more credits to continue")));
    assert_eq!((whole(&body["needed_micros"]), whole(&body["available_micros"])), (100_000, 99_999));
    assert!(person.usage("").await.is_empty());
    let free =
        person.ask(&json!({"prompt": "Hello", "taskType": "code", "preferredProvider": "ollama"})).await.expect(200);
    assert_eq!((served(&free), free.body["cost_micros"].as_i64()), (("ollama", "codellama"), Some(0)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_preferred_answers_where_the_wallet_reaches() {
    let app = TestApp::start().await;
    let rich = Person::with(&app, TRIAL_MICROS).await;
    let poor = Person::with(&app, 45 * CENT).await;
    for provider in ["openai", "anthropic", "deepseek", "ollama"] {
        let body = json!({"prompt": "Hello", "taskType": "fact", "preferredProvider": provider, "maxTokens": 20});
        assert_eq!(served(&rich.ask(&body).await.expect(200)).0, provider);
        let answer = poor.ask(&body).await.expect(200);
        assert_eq!(served(&answer), ("ollama", "llama3.2:3b"), "{provider}");
    }
    let cheapest = json!({"prompt": "Hello", "taskType": "code", "strategy": "cheapest", "maxTokens": 20});
    assert_eq!(served(&rich.ask(&cheapest).await.expect(200)), ("ollama", "codellama"));
    let another = json!({"prompt": "Hello", "model": "gpt-4o-mini", "maxTokens": 20});
    assert_eq!(served(&rich.ask(&another).await.expect(200)), ("openai", "gpt-4o-mini"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_choice_the_wallet_cannot_hold_for_gives_way_to_what_it_can() {
    let app = TestApp::start().await;
    let person = Person::with(&app, 500 * CENT).await;
    // A prompt that may have more tokens than five dollars buy at gpt-4; at Claude they buy more.
    let prompt = "word ".repeat(34_000);
    let body = json!({"prompt": format!("{prompt}[[answer_tokens=5]]"), "taskType": "code", "maxTokens": 10});
    let answer = person.ask(&body).await.expect(200);
    assert_eq!(served(&answer).0, "anthropic");
    let considered = &answer.body["route"]["considered"][0];
    assert_eq!((considered["provider"].as_str(), considered["model"].as_str()), (Some("openai"), Some("gpt-4")));
    assert_eq!(considered["reason"], "its worst case is more than what the call may cost");
    let reason = answer.body["route"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("took its place, which the call may cost"), "{reason}");
    let cost = whole(&answer.body["cost_micros"]);
    assert_eq!(person.balance(answer.header("calos-position")).await, (500 * CENT - cost, 0));
    app.stop().await;
}
