//! The gateway: every charge exact to the micro-dollar, no answer unpaid, no credit lost, whoever breaks off.

#![expect(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

mod breaking_off;
mod charges;
mod churn;
mod deepseek;
mod embeddings;
mod leaving;
mod messages;
mod models;
mod names;
mod ollama;
mod sdk_headers;
mod streams;

use std::time::Duration;

use calos_api::cli::TierName;
use calos_api::simulated::switches::Switches;
use calos_tests::app::{Answer, Registered, TestApp};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// What a wallet begins with.
const TRIAL_MICROS: i64 = 10_000_000;

/// How long something that happens by itself may take.
const PATIENCE: Duration = Duration::from_secs(10);

struct Tenant {
    app: TestApp,
    who: Registered,
    key: String,
}

impl Tenant {
    async fn start(tier: TierName) -> Self {
        let app = TestApp::start().await;
        let who = app.register().await;
        if !matches!(tier, TierName::Free) {
            app.admin_tier(who.tenant_id, tier).await;
        }
        let key = app.issue_key(&who).await;
        Self { app, who, key }
    }

    fn chat(&self, body: &Value) -> RequestBuilder {
        self.app.post("/v1/chat/completions", body).bearer_auth(&self.key)
    }

    async fn ask(&self, text: &str) -> Answer {
        Answer::of(self.chat(&question(text, false))).await
    }

    /// Balance and usage, once the read models have seen `position`.
    async fn balance(&self, position: &str) -> Value {
        let request = self.app.get("/api/credits/balance").bearer_auth(&self.who.token);
        let request = if position.is_empty() { request } else { request.header("calos-after", position) };
        Answer::of(request).await.expect(200).body
    }

    async fn usage(&self) -> Vec<Value> {
        let usage = self.app.get("/api/credits/usage").bearer_auth(&self.who.token);
        let usage = Answer::of(usage).await.expect(200);
        usage.body["usage"].as_array().expect("usage").clone()
    }

    /// Waits until so many uses stand in the usage log and nothing is held any more.
    async fn settled(&self, uses: usize) -> (Vec<Value>, Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (usage, balance) = (self.usage().await, self.balance("").await);
            if usage.len() >= uses && balance["held_micros"] == 0 {
                return (usage, balance);
            }
            assert!(Instant::now() < deadline, "not settled: {usage:?} {balance}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn switch(&self, switches: Switches) {
        self.app.running.simulated().expect("simulated providers").switch(switches);
    }
}

fn question(text: &str, stream: bool) -> Value {
    json!({"model": "gpt-4", "max_tokens": 500, "stream": stream, "messages": [{"role": "user", "content": text}]})
}

/// What gpt-4 costs a pro tenant: 30 and 60 micro-dollars a token, and 30 percent, rounded half up once.
fn pro_gpt_4(usage: &Value) -> (i64, i64) {
    let tokens = |field: &str| usage[field].as_i64().unwrap_or_else(|| panic!("{field} in {usage}"));
    let provider = tokens("prompt_tokens") * 30 + tokens("completion_tokens") * 60;
    (provider, (provider * 130 + 50) / 100)
}

/// The data of every event of a stream, read to its end.
async fn events(request: RequestBuilder) -> Vec<String> {
    let answer = Answer::of(request).await.expect(200);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let events = answer.text.split("\n\n").filter(|event| !event.is_empty());
    events.map(|event| event.strip_prefix("data: ").expect("a data event").to_owned()).collect()
}

fn chunks(events: &[String]) -> Vec<Value> {
    let data = events.iter().filter(|event| *event != "[DONE]");
    data.map(|event| serde_json::from_str(event).expect("a chunk is JSON")).collect()
}

fn text_of(chunks: &[Value]) -> String {
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
}
