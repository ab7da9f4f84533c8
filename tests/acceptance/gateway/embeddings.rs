//! Vectors: the same bill, hold and keeping as for words, whoever makes them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use calos_api::cli::TierName;
use calos_tests::app::Answer;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{TRIAL_MICROS, Tenant};

const SMALL: &str = "text-embedding-3-small";

fn embed(tenant: &Tenant, body: &Value) -> RequestBuilder {
    tenant.app.post("/v1/embeddings", body).bearer_auth(&tenant.key)
}

fn calls(tenant: &Tenant, name: &str) -> u64 {
    tenant.app.running.simulated().expect("simulated providers").produced().get(name).map_or(0, |tally| tally.calls)
}

fn words(count: usize) -> String {
    vec!["word"; count].join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_charged_to_the_micro_dollar_and_recorded_as_such() {
    let pro = Tenant::start(TierName::Pro).await;
    let body = json!({"model": SMALL, "input": [words(600), words(401)], "dimensions": 8});
    let answer = Answer::of(embed(&pro, &body)).await.expect(200);
    let data = answer.body["data"].as_array().expect("vectors");
    assert_eq!(data.len(), 2);
    for (index, vector) in data.iter().enumerate() {
        assert_eq!((&vector["object"], &vector["index"]), (&json!("embedding"), &json!(index)));
        assert_eq!(vector["embedding"].as_array().map(Vec::len), Some(8));
    }
    assert_eq!(answer.body["usage"], json!({"prompt_tokens": 1_001, "total_tokens": 1_001}));
    assert_eq!((&answer.body["provider"], &answer.body["model"]), (&json!("openai"), &json!(SMALL)));
    // 1,001 tokens at 0.02 micro-dollars are 20.02, and 26.026 with 30 percent on top.
    assert_eq!(answer.body["billing"]["total_cost_micros"], 26);
    let (usage, balance) = pro.settled(1).await;
    assert_eq!((&usage[0]["model"], &usage[0]["promptTokens"]), (&json!(SMALL), &json!(1_001)));
    assert_eq!((&usage[0]["completionTokens"], &usage[0]["totalMicros"]), (&json!(0), &json!(26)));
    assert_eq!(usage[0]["usageId"], answer.body["billing"]["usage_id"]);
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - 26);
    let meter = sqlx::query_scalar::<_, Value>(
        "SELECT payload::jsonb -> 'usage_recorded' -> 'meter' FROM events WHERE payload::jsonb ? 'usage_recorded'",
    );
    assert_eq!(meter.fetch_one(&pro.app.database.pool).await.expect("the use"), "embeddings");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn base64_holds_the_same_numbers_whoever_makes_them() {
    let pro = Tenant::start(TierName::Pro).await;
    for model in [SMALL, "nomic-embed-text"] {
        let mut body = json!({"model": model, "input": "the same text", "dimensions": 16});
        let plain = Answer::of(embed(&pro, &body)).await.expect(200);
        body["encoding_format"] = json!("base64");
        let packed = Answer::of(embed(&pro, &body)).await.expect(200);
        let numbers = plain.body["data"][0]["embedding"].as_array().expect("numbers").iter();
        let numbers: Vec<f64> = numbers.filter_map(Value::as_f64).collect();
        let bytes = BASE64_STANDARD.decode(packed.body["data"][0]["embedding"].as_str().expect("text"));
        let bytes = bytes.expect("base64");
        assert_eq!((numbers.len(), bytes.len()), (16, 64), "{model}");
        for (number, bytes) in numbers.iter().zip(bytes.chunks_exact(4)) {
            let packed = f32::from_le_bytes(bytes.try_into().expect("four bytes"));
            assert!((f64::from(packed) - number).abs() < 1e-6, "{model}: {packed} {number}");
        }
    }
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_tenant_gets_local_vectors_and_is_told_so() {
    let free = Tenant::start(TierName::Free).await;
    for (model, substituted) in [(None, ""), (Some(SMALL), SMALL), (Some("nomic-embed-text"), "")] {
        let mut body = json!({"input": ["one two", "three"]});
        if let Some(model) = model {
            body["model"] = json!(model);
        }
        let answer = Answer::of(embed(&free, &body)).await.expect(200);
        assert_eq!(answer.body["provider"], "ollama", "{}", answer.text);
        assert!(answer.body["model"].as_str().is_some_and(|model| model.starts_with("nomic-embed-text")));
        assert_eq!(answer.header("x-calos-substituted-for"), substituted);
        assert_eq!(answer.body["data"].as_array().map(Vec::len), Some(2));
        assert_eq!(answer.body["usage"]["prompt_tokens"], 3);
        assert_eq!(answer.body["billing"]["total_cost_micros"], 0);
    }
    let (usage, balance) = free.settled(3).await;
    assert_eq!((usage.len(), &balance["balance_micros"]), (3, &json!(TRIAL_MICROS)));
    free.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_model_is_sent_where_it_belongs() {
    let pro = Tenant::start(TierName::Pro).await;
    for (model, status) in [("gpt-4", 400), ("gpt-99", 404), ("llama3.2:3b", 400)] {
        let answer = Answer::of(embed(&pro, &json!({"model": model, "input": "hi"}))).await.expect(status);
        assert!(answer.body["error"]["message"].is_string(), "{}", answer.text);
    }
    let named = Answer::of(embed(&pro, &json!({"model": "gpt-4", "input": "hi"}))).await;
    assert_eq!(named.body["error"]["param"], "model");
    for model in [SMALL, "nomic-embed-text"] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
        let answer = Answer::of(pro.chat(&body)).await.expect(400);
        let message = answer.body["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("/v1/embeddings"), "{message}");
    }
    let tokens = json!({"model": "nomic-embed-text", "input": [1, 2, 3]});
    let refused = Answer::of(embed(&pro, &tokens)).await.expect(400);
    assert_eq!(refused.body["error"]["param"], "input", "{}", refused.text);
    let large = json!({"model": SMALL, "input": vec!["a"; 2_000]});
    let refused = Answer::of(embed(&pro, &large)).await.expect(400);
    assert!(refused.text.contains("base64"), "{}", refused.text);
    let (usage, balance) = pro.settled(0).await;
    assert_eq!((usage.len(), &balance["balance_micros"]), (0, &json!(TRIAL_MICROS)));
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_with_the_same_key_is_paid_once() {
    let pro = Tenant::start(TierName::Pro).await;
    let body = json!({"model": SMALL, "input": [[1, 2, 3], [4]], "dimensions": 4});
    let ask = || embed(&pro, &body).header("idempotency-key", "vectors");
    let first = Answer::of(ask()).await.expect(200);
    assert_eq!(first.body["usage"]["prompt_tokens"], 4);
    let again = Answer::of(ask()).await.expect(200);
    assert_eq!((again.header("idempotent-replayed"), &again.body), ("true", &first.body));
    assert_eq!(calls(&pro, "openai/text-embedding-3-small"), 1);
    let (usage, _) = pro.settled(1).await;
    assert_eq!(usage.len(), 1);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_without_a_report_are_counted_by_the_models_tokenizer() {
    let pro = Tenant::start(TierName::Pro).await;
    let text = "[[omit_usage]] The quick brown fox jumps over the lazy dog.";
    let answer = Answer::of(embed(&pro, &json!({"model": SMALL, "input": text, "dimensions": 4}))).await.expect(200);
    assert!(answer.body["billing"]["usage_id"].is_string());
    let (usage, _) = pro.settled(1).await;
    let tokens = usage[0]["promptTokens"].as_i64().expect("tokens");
    // Ten for the fox, and six or seven for the switch.
    assert!((14..=18).contains(&tokens), "{tokens}");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedding_models_are_listed_with_the_others() {
    let pro = Tenant::start(TierName::Pro).await;
    let listed = Answer::of(pro.app.get("/v1/models").bearer_auth(&pro.key)).await.expect(200);
    let data = listed.body["data"].as_array().expect("models").clone();
    let ids: Vec<&str> = data.iter().filter_map(|model| model["id"].as_str()).collect();
    for id in [SMALL, "nomic-embed-text:latest", "deepseek-chat", "claude-haiku-4-5-20251001", "gpt-4"] {
        assert!(ids.contains(&id), "{id}: {ids:?}");
    }
    pro.app.stop().await;
}
