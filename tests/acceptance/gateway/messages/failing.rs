//! What goes wrong is told in Anthropic's words, and costs nothing that was not given.

use calos_api::cli::TierName;
use calos_tests::app::Answer;
use serde_json::{Value, json};

use super::super::{TRIAL_MICROS, Tenant};
use super::{CLAUDE, asking, message_events, streaming};

fn kind(answer: &Answer) -> &str {
    assert_eq!(answer.body["type"], "error", "{}", answer.text);
    assert!(answer.body["error"]["message"].is_string(), "{}", answer.text);
    assert!(!answer.header("request-id").is_empty());
    answer.body["error"]["type"].as_str().expect("a type")
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_anthropics_shape() {
    let pro = Tenant::start(TierName::Pro).await;
    let body = asking(CLAUDE, "Hi");
    let nobody = Answer::of(pro.app.post("/v1/messages", &body)).await.expect(401);
    assert_eq!(kind(&nobody), "authentication_error");
    let wrong = pro.app.post("/v1/messages", &body).header("x-api-key", format!("{}x", pro.key));
    assert_eq!(kind(&Answer::of(wrong).await.expect(401)), "authentication_error");
    let bearer = pro.app.post("/v1/messages", &body).bearer_auth(&pro.key);
    Answer::of(bearer).await.expect(200);
    let unknown = Answer::of(pro.message(&asking("claude-99", "Hi"))).await.expect(404);
    assert_eq!(kind(&unknown), "not_found_error");
    for (field, value) in [
        ("max_tokens", Value::Null),
        ("messages", json!([])),
        ("tools", json!([{"type": "web_search_20250305", "name": "web_search"}])),
        ("mcp_servers", json!([{"type": "url", "url": "https://example.com"}])),
        ("thinking", json!({"type": "enabled", "budget_tokens": 500})),
        ("service_tier", json!("priority")),
    ] {
        let mut body = asking(CLAUDE, "Hi");
        body[field] = value;
        let refused = Answer::of(pro.message(&body)).await.expect(400);
        assert_eq!(kind(&refused), "invalid_request_error");
        assert!(refused.body["error"]["message"].as_str().is_some_and(|text| text.contains(field)), "{}", refused.text);
    }
    // A field that only Anthropic can judge goes there, and comes back in its words.
    let mut body = asking(CLAUDE, "Hi");
    body["future_field"] = json!(1);
    let judged = Answer::of(pro.message(&body)).await.expect(400);
    assert_eq!(judged.body["error"]["message"], "future_field: Extra inputs are not permitted");
    let mut dear = asking(CLAUDE, "Hi ".repeat(1_000_000));
    dear["max_tokens"] = json!(64_000);
    assert_eq!(kind(&Answer::of(pro.message(&dear)).await.expect(402)), "billing_error");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_gives_nothing_costs_nothing() {
    let pro = Tenant::start(TierName::Pro).await;
    // A model each: one that fails too often is left alone for a while.
    for (whole, streamed, switch, status, expected) in [
        ("claude-opus-4-5-20251101", "claude-opus-4-6", "[[fail_with=529]]", 503, "overloaded_error"),
        ("claude-opus-4-7", "claude-opus-4-8", "[[fail_with=500]]", 502, "api_error"),
        (CLAUDE, CLAUDE, "[[fail_with=401]]", 503, "overloaded_error"),
        (CLAUDE, CLAUDE, "[[fail_with=429]]", 429, "rate_limit_error"),
        (CLAUDE, CLAUDE, "[[fail_with=400]]", 400, "invalid_request_error"),
        (CLAUDE, CLAUDE, "[[fail_with=413]]", 400, "invalid_request_error"),
    ] {
        for body in [asking(whole, switch), streaming(asking(streamed, switch))] {
            let answer = Answer::of(pro.message(&body)).await.expect(status);
            assert_eq!(kind(&answer), expected, "{switch}");
            assert_eq!(answer.header("retry-after").is_empty(), !matches!(status, 429 | 503), "{switch}");
        }
    }
    let broken = Answer::of(pro.message(&asking(CLAUDE, "[[drop_after_tokens=3]]"))).await.expect(503);
    assert_eq!(kind(&broken), "overloaded_error");
    let (usage, balance) = pro.settled(0).await;
    assert!(usage.is_empty(), "{usage:?}");
    assert_eq!(balance["balance_micros"], TRIAL_MICROS);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_ends_in_an_error_event_with_what_was_charged() {
    for model in [CLAUDE, "gpt-4o"] {
        for switch in ["[[drop_after_tokens=7]]", "[[error_after_tokens=7]]"] {
            let pro = Tenant::start(TierName::Pro).await;
            let body = streaming(asking(model, format!("{switch} [[answer_tokens=40]]")));
            let events = message_events(pro.message(&body)).await;
            let last = events.last().expect("an error");
            assert_eq!(last["type"], "error", "{model} {switch} {last}");
            assert!(last["error"]["message"].is_string() && last["error"]["type"].is_string());
            let (usage, balance) = pro.settled(1).await;
            let total = usage[0]["totalMicros"].as_i64().expect("a total");
            assert!(
                usage[0]["completionTokens"].as_i64().is_some_and(|tokens| (7..=20).contains(&tokens)),
                "{usage:?}"
            );
            assert_eq!(last["billing"]["total_cost_micros"], total, "{model} {switch} {last}");
            assert_eq!(balance["balance_micros"], TRIAL_MICROS - total);
            pro.app.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_before_its_first_word_costs_nothing() {
    for (model, switch) in [
        (CLAUDE, "[[error_after_tokens=0]]"),
        (CLAUDE, "[[drop_after_tokens=0]]"),
        ("gpt-4o", "[[error_after_tokens=0]]"),
    ] {
        let pro = Tenant::start(TierName::Pro).await;
        let events = message_events(pro.message(&streaming(asking(model, switch)))).await;
        let last = events.last().expect("an error");
        assert_eq!((&last["type"], last.get("billing")), (&json!("error"), None), "{last}");
        let (usage, balance) = pro.settled(0).await;
        assert!(usage.is_empty(), "{usage:?}");
        assert_eq!(balance["balance_micros"], TRIAL_MICROS);
        pro.app.stop().await;
    }
}
