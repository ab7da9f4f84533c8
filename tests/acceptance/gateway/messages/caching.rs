//! Anthropic's cache, thinking, and who leaves in the middle: each token at its own price.

use calos_api::cli::TierName;
use calos_tests::app::Answer;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::super::{TRIAL_MICROS, Tenant};
use super::{CLAUDE, asking, message_events, pro_message, streaming};

fn cached(ttl: &str, question: &str) -> Value {
    let mut body = asking(CLAUDE, question);
    let words = format!("{ttl} {}", "word ".repeat(200));
    body["system"] = json!([{"type": "text", "text": words, "cache_control": {"type": "ephemeral", "ttl": ttl}}]);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_to_the_cache_and_read_from_it_has_a_price_of_its_own() {
    let pro = Tenant::start(TierName::Pro).await;
    let mut charged = 0;
    for (ttl, written) in [("5m", "ephemeral_5m_input_tokens"), ("1h", "ephemeral_1h_input_tokens")] {
        let first = Answer::of(pro.message(&cached(ttl, "one"))).await.expect(200);
        assert_eq!(first.body["usage"]["cache_creation"][written], 201, "{}", first.text);
        let second = Answer::of(pro.message(&cached(ttl, "two"))).await.expect(200);
        assert_eq!(second.body["usage"]["cache_read_input_tokens"], 201, "{}", second.text);
        let totals = [&first, &second].map(|answer| {
            let total = pro_message(CLAUDE, &answer.body["usage"]);
            assert_eq!(answer.body["billing"]["total_cost_micros"], total, "{}", answer.text);
            total
        });
        assert!(totals[0] > totals[1] * 3, "{totals:?}");
        charged += totals.iter().sum::<i64>();
    }
    let (usage, balance) = pro.settled(4).await;
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - charged);
    assert!(usage.iter().all(|usage| usage["promptTokens"].as_i64().is_some_and(|tokens| tokens > 201)), "{usage:?}");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_charges_what_its_first_event_says_of_the_cache() {
    let pro = Tenant::start(TierName::Pro).await;
    Answer::of(pro.message(&cached("1h", "one"))).await.expect(200);
    let events = message_events(pro.message(&streaming(cached("1h", "two")))).await;
    let mut usage = events[0]["message"]["usage"].clone();
    assert_eq!(usage["cache_read_input_tokens"], 201);
    let delta = events.iter().find(|event| event["type"] == "message_delta").expect("a delta");
    usage["output_tokens"] = delta["usage"]["output_tokens"].clone();
    assert_eq!(events.last().expect("an end")["billing"]["total_cost_micros"], pro_message(CLAUDE, &usage));
    // The same in OpenAI's words: what was cached is part of the prompt there.
    let body = json!({"model": CLAUDE, "max_tokens": 100, "messages": [
        {"role": "system", "content": cached("1h", "")["system"]}, {"role": "user", "content": "three"}]});
    let answer = Answer::of(pro.chat(&body)).await.expect(200);
    let details = &answer.body["usage"]["prompt_tokens_details"];
    assert_eq!(
        (&details["cached_tokens"], &details["cache_creation_tokens"]),
        (&json!(201), &json!(0)),
        "{}",
        answer.text
    );
    let tokens = |field: &str| answer.body["usage"][field].as_i64().expect("tokens");
    let shown = json!({"input_tokens": tokens("prompt_tokens") - 201, "cache_read_input_tokens": 201,
        "output_tokens": tokens("completion_tokens")});
    assert_eq!(answer.body["billing"]["total_cost_micros"], pro_message(CLAUDE, &shown));
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thinking_is_shown_signed_or_as_reasoning() {
    let pro = Tenant::start(TierName::Pro).await;
    let mut body = asking(CLAUDE, "Why?");
    body["max_tokens"] = json!(2_000);
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 1_024});
    let answer = Answer::of(pro.message(&body)).await.expect(200);
    let thought = &answer.body["content"][0];
    assert_eq!((&thought["type"], &thought["thinking"]), (&json!("thinking"), &json!("Let me think of it.")));
    assert!(thought["signature"].as_str().is_some_and(|signature| !signature.is_empty()));
    // The thought goes back with its signature, and is taken.
    let messages = body["messages"].as_array_mut().expect("messages");
    messages.push(json!({"role": "assistant", "content": answer.body["content"]}));
    messages.push(json!({"role": "user", "content": "And?"}));
    Answer::of(pro.message(&body)).await.expect(200);
    let answer = Answer::of(pro.chat(&json!({"model": CLAUDE, "max_tokens": 2_000, "thinking": body["thinking"],
        "messages": [{"role": "user", "content": "Why?"}]})))
    .await
    .expect(200);
    let message = &answer.body["choices"][0]["message"];
    assert_eq!(message["reasoning_content"], "Let me think of it.", "{}", answer.text);
    assert_eq!(message["content"], "[simulated] You said: Why?");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_message_pays_for_the_prompt_as_reported_and_for_what_was_written() {
    let pro = Tenant::start(TierName::Pro).await;
    let body = streaming(asking(CLAUDE, "[[answer_tokens=400]] [[token_delay_ms=10]] go on and on"));
    let mut stream = pro.message(&body).send().await.expect("an answer").bytes_stream();
    let mut seen = String::new();
    while seen.matches("word").count() < 5 {
        seen.push_str(&String::from_utf8_lossy(&stream.next().await.expect("more to come").expect("a piece")));
    }
    drop(stream);
    let (usage, balance) = pro.settled(1).await;
    let tally = pro.app.running.simulated().expect("simulated providers").produced()[&format!("anthropic/{CLAUDE}")];
    assert_eq!((tally.calls, tally.broken_off), (1, 1));
    assert_eq!(usage[0]["promptTokens"], tally.prompt_tokens);
    let produced = usage[0]["completionTokens"].as_i64().expect("tokens");
    assert!((5..300).contains(&produced), "{produced}");
    let shown = json!({"input_tokens": tally.prompt_tokens, "output_tokens": produced});
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - pro_message(CLAUDE, &shown));
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_message_that_is_thought_about_pays_what_it_came_to() {
    let pro = Tenant::start(TierName::Pro).await;
    let mut body = streaming(asking(CLAUDE, "[[answer_tokens=60]] [[token_delay_ms=5]] go on"));
    body["max_tokens"] = json!(2_000);
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 1_024});
    let mut stream = pro.message(&body).send().await.expect("an answer").bytes_stream();
    stream.next().await.expect("a beginning").expect("a piece");
    drop(stream);
    let (usage, balance) = pro.settled(1).await;
    let shown = json!({"input_tokens": usage[0]["promptTokens"], "output_tokens": 65});
    assert_eq!(usage[0]["completionTokens"], 65, "{usage:?}");
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - pro_message(CLAUDE, &shown));
    pro.app.stop().await;
}
