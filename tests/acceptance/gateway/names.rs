//! By which names models are asked for: aliases and dated snapshots, names without a price, and no name at all.

use calos_api::cli::TierName;
use calos_api::simulated::openai::PREVIEW_MODEL;
use calos_tests::app::Answer;
use serde_json::{Value, json};

use super::{Tenant, question};

/// A key as OpenAI issues them.
const OWN_KEY: &str = "sk-proj-0123456789abcdefghijklmnop-wxyz";

/// How the platform's key at the simulated providers ends.
const PLATFORM_KEY_ENDING: &str = "ated";

fn by_name(model: &str) -> Value {
    let mut body = question("Say hello.", false);
    body["model"] = json!(model);
    body
}

fn by_no_name(text: &str) -> Value {
    let mut body = question(text, false);
    body.as_object_mut().expect("an object").remove("model");
    body
}

fn calls_with(tenant: &Tenant, ending: &str) -> u64 {
    let accounts = tenant.app.running.simulated().expect("simulated providers").accounts();
    accounts.get(ending).copied().unwrap_or_default()
}

/// What a pro tenant pays at these prices of a token in and one out.
fn pro_pays(answer: &Answer, input: i64, output: i64) -> i64 {
    let tokens = |field: &str| answer.body["usage"][field].as_i64().expect("a count");
    ((tokens("prompt_tokens") * input + tokens("completion_tokens") * output) * 130 + 50) / 100
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_is_answered_by_its_model_at_its_price_under_its_own_name() {
    let pro = Tenant::start(TierName::Pro).await;
    for (alias, provider, input, output) in [
        ("claude-sonnet-4-5", "anthropic", 3, 15),
        ("claude-3-5-sonnet-latest", "anthropic", 3, 15),
        ("gpt-4.1-2025-04-14", "openai", 2, 8),
        ("gpt-4o-2024-05-13", "openai", 5, 15),
    ] {
        let answer = Answer::of(pro.chat(&by_name(alias))).await.expect(200);
        assert_eq!((&answer.body["provider"], &answer.body["model"]), (&json!(provider), &json!(alias)));
        assert_eq!(answer.body["billing"]["total_cost_micros"], pro_pays(&answer, input, output), "{alias}");
    }
    let before = calls_with(&pro, PLATFORM_KEY_ENDING);
    for unknown in ["gpt-99", "claude-next", PREVIEW_MODEL] {
        let refused = Answer::of(pro.chat(&by_name(unknown))).await.expect(404);
        assert_eq!(
            (&refused.body["error"]["code"], &refused.body["error"]["param"]),
            (&json!("model_not_found"), &json!("model"))
        );
    }
    assert_eq!(
        calls_with(&pro, PLATFORM_KEY_ENDING),
        before,
        "what has no price is not asked on the platform's account"
    );
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ones_own_key_asks_for_whatever_its_account_has() {
    let free = Tenant::start(TierName::Free).await;
    let bring = json!({"provider": "openai", "apiKey": OWN_KEY});
    Answer::of(free.app.post("/api/byok/add", &bring).bearer_auth(&free.who.token)).await.expect(201);
    for name in ["gpt-4.1-2025-04-14", PREVIEW_MODEL] {
        let mut body = by_name(name);
        body["max_tokens"] = json!(200_000);
        let answer = Answer::of(free.chat(&body)).await.expect(200);
        assert_eq!((&answer.body["provider"], &answer.body["model"]), (&json!("openai"), &json!(name)));
        assert_eq!(
            (&answer.body["billing"]["total_cost_micros"], answer.header("x-calos-substituted-for")),
            (&json!(0), "")
        );
    }
    // What its account does not have is for the provider to say, and to nobody else's cost.
    let refused = Answer::of(free.chat(&by_name("gpt-99"))).await.expect(404);
    assert_eq!(refused.body["error"]["code"], "model_not_found");
    assert!(refused.text.contains("gpt-99"), "{}", refused.text);
    assert_eq!((calls_with(&free, "wxyz"), calls_with(&free, PLATFORM_KEY_ENDING)), (3, 0));
    Answer::of(free.chat(&by_name("claude-next"))).await.expect(404);
    let (usage, balance) = free.settled(2).await;
    assert_eq!((usage.len(), &balance["balance_micros"]), (2, &json!(super::TRIAL_MICROS)));
    free.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_some_models_takes_them_by_all_their_names() {
    let pro = Tenant::start(TierName::Pro).await;
    let path = format!("/api/tenants/{}/keys", pro.who.tenant_id);
    let models = json!({"name": "narrow", "models": ["claude-haiku-4-5-20251001", "gpt-4.1-2025-04-14"]});
    let narrow = Answer::of(pro.app.post(&path, &models).bearer_auth(&pro.who.token)).await.expect(201);
    let narrow = narrow.body["key"].as_str().expect("a key").to_owned();
    let ask = |model: &str| pro.app.post("/v1/chat/completions", &by_name(model)).bearer_auth(&narrow);
    for model in ["claude-haiku-4-5", "claude-haiku-4-5-20251001", "gpt-4.1", "gpt-4.1-2025-04-14"] {
        assert_eq!(Answer::of(ask(model)).await.expect(200).body["model"], model);
    }
    assert_eq!(Answer::of(ask("gpt-4o")).await.expect(403).body["error"]["code"], "model_not_allowed");
    let listed = Answer::of(pro.app.get("/v1/models").bearer_auth(&narrow)).await.expect(200);
    let listed = listed.body["data"].as_array().expect("models").clone();
    let ids: Vec<_> = listed.iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(ids, ["gpt-4.1", "claude-haiku-4-5-20251001"], "each model once");
    for (asked, named) in [("gpt-4.1-2025-04-14", "gpt-4.1"), ("claude-haiku-4-5", "claude-haiku-4-5-20251001")] {
        let one = pro.app.get(&format!("/v1/models/{asked}")).bearer_auth(&narrow);
        assert_eq!(Answer::of(one).await.expect(200).body["id"], named);
    }
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_that_is_gone_is_succeeded_and_told_of() {
    let pro = Tenant::start(TierName::Pro).await;
    let first = Answer::of(pro.chat(&by_no_name("Say hello."))).await.expect(200);
    assert_eq!(first.body["model"], "gpt-4");
    let gone = Answer::of(pro.chat(&by_no_name("[[fail_with=404]] [[fail_first=1]] Hi"))).await.expect(200);
    assert_eq!((&gone.body["model"], gone.header("x-calos-substituted-for")), (&json!("gpt-4o"), ""));
    let tokens = |field: &str| gone.body["usage"][field].as_i64().expect("a count");
    let exact = (tokens("prompt_tokens") * 25 + tokens("completion_tokens") * 100) * 130;
    assert_eq!(gone.body["billing"]["total_cost_micros"], (exact + 500) / 1_000);
    let (usage, balance) = pro.settled(2).await;
    assert!(usage.iter().any(|line| line["model"] == "gpt-4o"), "{usage:?}");
    assert_eq!(balance["held_micros"], 0);

    // A model that was named is not exchanged, and neither is a default that is merely out of order.
    let mut named = by_no_name("[[fail_with=404]] Hello again");
    named["model"] = json!("gpt-4");
    assert_eq!(Answer::of(pro.chat(&named)).await.expect(404).body["error"]["code"], "model_not_found");
    let before = calls_with(&pro, PLATFORM_KEY_ENDING);
    Answer::of(pro.chat(&by_no_name("[[fail_with=401]] Hi"))).await.expect(503);
    assert_eq!(calls_with(&pro, PLATFORM_KEY_ENDING) - before, 1);
    let neither = Answer::of(pro.chat(&by_no_name("[[fail_with=404]] Hi"))).await.expect(503);
    assert!(neither.text.contains("openai gpt-4, openai gpt-4o"), "{}", neither.text);
    pro.app.stop().await;
}
