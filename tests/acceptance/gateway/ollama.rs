//! Local models: personas on hosts of their own, what is installed, what is away, and counts nobody reports.

use std::time::Duration;

use calos_adapters::database::Database;
use calos_api::cli::TierName;
use calos_api::run::Running;
use calos_api::simulated::SimulatedProviders;
use calos_tests::app::{Answer, config};
use calos_tests::database::TestDatabase;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, TRIAL_MICROS, Tenant, events, question};

const PERSONAS: [&str; 5] = ["soulfra", "deathtodata", "saveorsink", "roughsparks", "codellama"];

fn model<'a>(listed: &'a Value, name: &str) -> &'a Value {
    let models = listed["models"].as_array().expect("models");
    models.iter().find(|model| model["name"] == name).unwrap_or_else(|| panic!("{name} in {listed}"))
}

/// Asks until the answer is as wanted: the providers are asked for their models in the background.
async fn once(url: &str, wanted: impl Fn(&Value) -> bool) -> Answer {
    let client = reqwest::Client::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = Answer::of(client.get(url)).await;
        if wanted(&answer.body) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{}", answer.text);
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_persona_is_listed_with_whether_it_can_be_asked() {
    let free = Tenant::start(TierName::Free).await;
    let listed = once(&free.app.url("/api/ollama/models"), |body| body["available"] == true).await.expect(200);
    for persona in PERSONAS {
        let persona = model(&listed.body, &format!("{persona}:latest"));
        assert_eq!((&persona["available"], &persona["host"]), (&json!(true), &json!("primary")), "{persona}");
        assert_eq!((&persona["circuit"], &persona["purpose"]), (&json!("closed"), &json!("chat")), "{persona}");
    }
    assert_eq!(model(&listed.body, "nomic-embed-text:latest")["purpose"], "embeddings");
    free.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persona_is_asked_on_its_own_host_and_one_provider_away_leaves_the_others_ready() {
    let shared = SimulatedProviders::start().await.expect("simulated providers");
    let own = SimulatedProviders::start().await.expect("simulated providers");
    let database = TestDatabase::create().await;
    let data_dir = tempfile::tempdir().expect("a folder");
    let (ollama, persona) = (shared.ollama_url(), format!("soulfra={}", own.ollama_url()));
    let settings = [
        ("OLLAMA_URL", ollama.as_str()),
        ("OLLAMA_PERSONA_URLS", persona.as_str()),
        ("OPENAI_API_KEY", "sk-test"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:9"),
    ];
    let config = config(&database.url, &data_dir, &settings);
    let opened = Database::open(&config).await.expect("a database");
    let running = Running::start(config, opened, false).await.expect("CALOS starts");
    let url = |path: &str| format!("http://{}{path}", running.address());

    let listed = once(&url("/api/ollama/models"), |body| body["available"] == true).await;
    assert_eq!(model(&listed.body, "soulfra:latest")["host"], "soulfra");
    assert_eq!(model(&listed.body, "deathtodata:latest")["host"], "primary");
    let soulfras = listed.body["models"].as_array().expect("models").iter();
    assert_eq!(soulfras.filter(|model| model["persona"] == "soulfra").count(), 1);

    let is_away = |body: &Value| body["checks"]["providers"]["detail"].to_string().contains("openai does not answer");
    let ready = once(&url("/readyz"), is_away).await.expect(200);
    let check = &ready.body["checks"]["providers"];
    assert_eq!((&ready.body["ready"], &check["ok"]), (&json!(true), &json!(true)), "{}", ready.text);
    assert!(check["detail"].to_string().contains("ollama"), "{check}");

    let client = reqwest::Client::new();
    let who = json!({"email": "ada@example.com", "password": calos_tests::app::PASSWORD});
    let who = Answer::of(client.post(url("/api/auth/register")).json(&who)).await.expect(201);
    let token = who.body["session"]["token"].as_str().expect("a token");
    let keys = format!("/api/tenants/{}/keys", who.body["tenantId"].as_str().expect("a tenant"));
    let key = Answer::of(client.post(url(&keys)).json(&json!({"name": "test"})).bearer_auth(token)).await.expect(201);
    let key = key.body["key"].as_str().expect("a key");
    for model in ["soulfra", "deathtodata"] {
        let mut body = question("hi", false);
        body["model"] = json!(model);
        let call = client.post(url("/v1/chat/completions")).json(&body).bearer_auth(key);
        Answer::of(call).await.expect(200);
    }
    let asked = |providers: &SimulatedProviders| providers.produced().keys().cloned().collect::<Vec<_>>();
    assert_eq!(asked(&own), ["ollama/soulfra:latest"]);
    assert_eq!(asked(&shared), ["ollama/deathtodata:latest"]);
    running.stop(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_fetched_for_nobody() {
    let free = Tenant::start(TierName::Free).await;
    let picture = |url: &str| {
        json!({"model": "llama3.2:3b", "max_tokens": 20, "messages": [{"role": "user", "content":
            [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": url}}]}]})
    };
    Answer::of(free.chat(&picture("data:image/png;base64,iVBORw0KGgo="))).await.expect(200);
    for url in ["http://169.254.169.254/latest/meta-data", "https://example.com/a.png", "file:///etc/passwd"] {
        let refused = Answer::of(free.chat(&picture(url))).await.expect(400);
        assert!(refused.text.contains("base64"), "{}", refused.text);
    }
    let long = question(&"word ".repeat(30_000), false);
    let refused = Answer::of(free.chat(&long)).await.expect(400);
    assert!(refused.text.contains("send less"), "{}", refused.text);
    free.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_provider_reports_the_models_tokenizer_counts() {
    let pro = Tenant::start(TierName::Pro).await;
    let text = "[[omit_usage]] [[answer_tokens=4]] The quick brown fox jumps over the lazy dog.";
    for stream in [false, true] {
        let body = question(text, stream);
        if stream {
            events(pro.chat(&body)).await;
        } else {
            Answer::of(pro.chat(&body)).await.expect(200);
        }
    }
    let (usage, balance) = pro.settled(2).await;
    for use_ in &usage {
        // Ten tokens of the fox, ten of the switches, seven around one message.
        assert_eq!(use_["promptTokens"], 27, "{use_}");
        assert_eq!(use_["completionTokens"], 4, "{use_}");
    }
    let total: i64 = usage.iter().filter_map(|use_| use_["totalMicros"].as_i64()).sum();
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - total);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_model_that_thinks_unseen_pays_what_it_reports() {
    use futures_util::StreamExt;

    let pro = Tenant::start(TierName::Pro).await;
    let mut body = question("[[answer_tokens=60]] [[token_delay_ms=10]] [[reasoning_tokens=300]] go on", true);
    body["model"] = json!("o3");
    let mut stream = pro.chat(&body).send().await.expect("an answer").bytes_stream();
    stream.next().await.expect("a beginning").expect("a piece");
    drop(stream);
    let (usage, _) = pro.settled(1).await;
    assert_eq!(usage[0]["completionTokens"], 360, "{usage:?}");
    let tally = pro.app.running.simulated().expect("simulated providers").produced()["openai/o3"];
    assert_eq!((tally.completed, tally.completion_tokens), (1, 360));
    pro.app.stop().await;
}
