//! What a call costs: exact to the micro-dollar, and never more than the wallet has.

use calos_api::cli::TierName;
use calos_api::simulated::switches::Switches;
use calos_tests::app::Answer;
use serde_json::json;

use super::{TRIAL_MICROS, Tenant, chunks, events, pro_gpt_4, question};

#[tokio::test(flavor = "multi_thread")]
async fn a_pro_call_is_charged_to_the_micro_dollar() {
    let pro = Tenant::start(TierName::Pro).await;
    let answer = pro.ask("Tell me about event sourcing, please.").await.expect(200);
    assert_eq!(answer.body["provider"], "openai");
    assert_eq!(answer.body["model"], "gpt-4");
    assert_eq!(answer.body["object"], "chat.completion");
    let text = answer.body["choices"][0]["message"]["content"].as_str().expect("an answer");
    assert!(text.starts_with("[simulated]"), "{text}");
    let (provider, total) = pro_gpt_4(&answer.body["usage"]);
    let billing = &answer.body["billing"];
    assert_eq!(billing["total_cost_micros"], total);
    assert_eq!(billing["total_cost_cents"], (total + 5_000) / 10_000);
    assert_eq!(billing["provider_cost_cents"], (provider + 5_000) / 10_000);
    assert_eq!(billing["markup_cost_cents"], (total - provider + 5_000) / 10_000);

    let balance = pro.balance(answer.header("calos-position")).await;
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - total);
    assert_eq!(balance["held_micros"], 0);
    let (usage, _) = pro.settled(1).await;
    assert_eq!(usage[0]["usageId"], billing["usage_id"]);
    assert_eq!(usage[0]["totalMicros"], total);
    assert_eq!(usage[0]["providerCostMicros"], provider);
    assert_eq!(usage[0]["promptTokens"], answer.body["usage"]["prompt_tokens"]);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_tenant_gets_the_local_model_for_nothing_and_is_told_so() {
    let free = Tenant::start(TierName::Free).await;
    let answer = free.ask("Hello there.").await.expect(200);
    assert_eq!(answer.header("x-calos-substituted-for"), "gpt-4");
    assert_eq!(answer.body["provider"], "ollama");
    assert_eq!(answer.body["model"], "llama3.2:3b");
    assert_eq!(answer.body["billing"]["total_cost_micros"], 0);
    assert!(answer.body["usage"]["prompt_tokens"].as_i64().is_some_and(|tokens| tokens > 0));
    let own = Answer::of(free.chat(&json!({"messages": [{"role": "user", "content": "Hi"}]}))).await.expect(200);
    assert_eq!(own.header("x-calos-substituted-for"), "");
    let (usage, balance) = free.settled(2).await;
    assert_eq!(balance["balance_micros"], TRIAL_MICROS);
    assert!(usage.iter().all(|usage| usage["provider"] == "ollama" && usage["totalMicros"] == 0));
    free.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_count_is_counted() {
    let pro = Tenant::start(TierName::Pro).await;
    pro.switch(Switches { omit_usage: true, ..Switches::default() });
    pro.ask("How much is it?").await.expect(200);
    let chunks = chunks(&events(pro.chat(&question("How much is it?", true))).await);
    assert!(chunks.last().expect("a bill")["billing"]["total_cost_micros"].as_i64().is_some_and(|total| total > 0));
    let (usage, balance) = pro.settled(2).await;
    let totals: Vec<i64> = usage.iter().filter_map(|usage| usage["totalMicros"].as_i64()).collect();
    assert!(totals.iter().all(|total| *total > 0), "{totals:?}");
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - totals.iter().sum::<i64>());
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_answers_are_held_for_and_paid() {
    let pro = Tenant::start(TierName::Pro).await;
    let mut body = question("[[answer_tokens=20]]", false);
    body["n"] = json!(3);
    let answer = Answer::of(pro.chat(&body)).await.expect(200);
    assert_eq!(answer.body["choices"].as_array().map(Vec::len), Some(3));
    assert_eq!(answer.body["usage"]["completion_tokens"], 60);
    assert_eq!(answer.body["billing"]["total_cost_micros"], pro_gpt_4(&answer.body["usage"]).1);
    // 3 x 8192 tokens cost more than the wallet has.
    body["max_tokens"] = json!(8_192);
    body["n"] = json!(100);
    let refused = Answer::of(pro.chat(&body)).await.expect(402);
    assert_eq!(refused.body["error"]["code"], "insufficient_quota");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_at_once_never_spend_more_than_the_wallet_has() {
    let pro = Tenant::start(TierName::Pro).await;
    pro.app.lift_limits(&pro.who, &pro.key).await;
    // Each costs 197,808 micro-dollars or a little more, so the trial pays for fifty.
    let text = "[[answer_tokens=2530]] go";
    let body = json!({"model": "gpt-4", "max_tokens": 2_530, "messages": [{"role": "user", "content": text}]});
    let calls = (0..200).map(|_| Answer::of(pro.chat(&body)));
    let answers: Vec<Answer> = futures_util::future::join_all(calls).await;
    let mut charged = 0;
    let mut paid = 0;
    for answer in &answers {
        match answer.status.as_u16() {
            200 => {
                let (_, total) = pro_gpt_4(&answer.body["usage"]);
                assert_eq!(answer.body["billing"]["total_cost_micros"], total);
                charged += total;
                paid += 1;
            }
            402 => assert_eq!(answer.body["error"]["code"], "insufficient_quota"),
            429 => {
                assert_eq!(answer.body["error"]["code"], "in_flight_budget_exhausted");
                assert!(!answer.header("retry-after").is_empty());
            }
            other => panic!("{other}: {}", answer.text),
        }
    }
    assert!((40..=50).contains(&paid), "{paid} calls were paid for");
    let (usage, balance) = pro.settled(paid).await;
    assert_eq!(usage.len().min(50), paid);
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - charged);
    pro.app.stop().await;
}
