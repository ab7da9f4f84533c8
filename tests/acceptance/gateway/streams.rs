//! A stream shows what it should, and ends with its bill.

use calos_api::cli::TierName;
use serde_json::json;

use super::{TRIAL_MICROS, Tenant, chunks, events, pro_gpt_4, question, text_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_bill() {
    let pro = Tenant::start(TierName::Pro).await;
    let events = events(pro.chat(&question("Tell me a story.", true))).await;
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let chunks = chunks(&events);
    assert!(text_of(&chunks).starts_with("[simulated] You said: Tell me a story."), "{}", text_of(&chunks));
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let ids: std::collections::BTreeSet<_> = chunks.iter().map(|chunk| chunk["id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
    // Nobody asked for the usage, so it is not shown; the bill stands in the chunk that says why it ended.
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()), "{chunks:?}");
    let (last, before) = chunks.split_last().expect("chunks");
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert_eq!(last["provider"], "openai");
    assert!(before.iter().all(|chunk| chunk.get("billing").is_none()));

    let (usage, balance) = pro.settled(1).await;
    assert_eq!(last["billing"]["usage_id"], usage[0]["usageId"]);
    let counted = json!({"prompt_tokens": usage[0]["promptTokens"], "completion_tokens": usage[0]["completionTokens"]});
    let (_, total) = pro_gpt_4(&counted);
    assert_eq!(last["billing"]["total_cost_micros"], total);
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - total);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_its_usage_to_who_asks_for_it() {
    for (tier, provider) in [(TierName::Pro, "openai"), (TierName::Free, "ollama")] {
        let tenant = Tenant::start(tier).await;
        let mut body = question("Tell me a story.", true);
        body["stream_options"] = json!({"include_usage": true});
        let chunks = chunks(&events(tenant.chat(&body)).await);
        let (last, before) = chunks.split_last().expect("chunks");
        assert!(before.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()), "{provider}");
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["provider"], provider);
        let spoken = before
            .iter()
            .filter(|chunk| chunk["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(last["usage"]["completion_tokens"].as_u64(), Some(spoken.count() as u64), "{provider}");
        assert!(last["billing"]["usage_id"].is_string());
        assert_eq!(before.last().expect("a finish")["choices"][0]["finish_reason"], "stop");
        tenant.app.stop().await;
    }
}
