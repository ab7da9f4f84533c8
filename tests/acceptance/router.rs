//! `/api/chat/complete`: who answers, for what reason, at what price, and what happens when they do not.

#![expect(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

mod fallbacks;
mod personas;
mod requests;
mod routes;

use std::time::Duration;

use calos_commands::log::{EventLog, Failed, Plan};
use calos_commands::metadata::{Actor, Metadata};
use calos_domain::wallet::{DebtCause, Meter, UsageOutcome, UsageRecorded, Wallet, WalletCommand, WalletRefusal};
use calos_domain::{Asset, MicroUsd, StreamId, TenantId, Timestamp, Units, UsageId};
use calos_tests::app::{Answer, Registered, TestApp};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How long what happens by itself may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a wallet begins with.
const TRIAL_MICROS: i64 = 10_000_000;

const CENT: i64 = 10_000;

/// A person with so much in the wallet.
struct Person<'a> {
    app: &'a TestApp,
    who: Registered,
    /// Where the log stood when the wallet had just that.
    position: String,
}

impl<'a> Person<'a> {
    async fn with(app: &'a TestApp, micros: i64) -> Self {
        let who = app.register().await;
        let position = match TRIAL_MICROS - micros {
            0 => who.position.clone(),
            spent => spend(app, who.tenant_id, spent).await,
        };
        Self { app, who, position }
    }

    fn request(&self, body: &Value) -> RequestBuilder {
        self.app.post("/api/chat/complete", body).bearer_auth(&self.who.token)
    }

    async fn ask(&self, body: &Value) -> Answer {
        Answer::of(self.request(body)).await
    }

    /// Available and held, as of a position.
    async fn balance(&self, position: &str) -> (i64, i64) {
        let request = self.app.get("/api/credits/balance").bearer_auth(&self.who.token);
        let position = if position.is_empty() { &self.position } else { position };
        let body = Answer::of(request.header("calos-after", position)).await.expect(200).body;
        (whole(&body["balance_micros"]), whole(&body["held_micros"]))
    }

    /// The usage log as of a position, without the use that set the balance.
    async fn usage(&self, position: &str) -> Vec<Value> {
        let request = self.app.get("/api/credits/usage").bearer_auth(&self.who.token);
        let position = if position.is_empty() { &self.position } else { position };
        let body = Answer::of(request.header("calos-after", position)).await.expect(200).body;
        let lines = body["usage"].as_array().expect("usage").iter();
        lines.filter(|line| line["taskType"] != "test").cloned().collect()
    }

    /// Waits until nothing is held any more, and answers what is available and how many uses there were.
    async fn settled(&self) -> (i64, usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (available, held) = self.balance("").await;
            if held == 0 && available > 0 {
                return (available, self.usage("").await.len());
            }
            assert!(Instant::now() < deadline, "{held} are still held");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn whole(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no whole number"))
}

/// Who answered.
fn served(answer: &Answer) -> (&str, &str) {
    let text = |field: &str| answer.body[field].as_str().unwrap_or_default();
    (text("provider"), text("model"))
}

/// Takes credit out of a wallet, as a use of it would, and says where that stands in the log.
async fn spend(app: &TestApp, tenant: Uuid, micros: i64) -> String {
    let log = &app.running.app().log;
    let at = Timestamp::from_micros(
        i64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000).expect("a moment"),
    );
    let usage = UsageRecorded {
        usage_id: UsageId(Uuid::now_v7()),
        meter: Meter::Chat,
        api_key_id: None,
        provider: "openai".to_owned(),
        model: "gpt-4".to_owned(),
        prompt_tokens: 1,
        completion_tokens: 1,
        cached_tokens: 0,
        cache_write_tokens: 0,
        cache_write_hour_tokens: 0,
        reasoning_tokens: 0,
        provider_cost: MicroUsd::new(micros),
        markup: MicroUsd::ZERO,
        total: MicroUsd::new(micros),
        byok: false,
        estimated: false,
        price_book_version: "test".to_owned(),
        latency_ms: 0,
        task_type: "test".to_owned(),
        outcome: UsageOutcome::Completed,
        failed_attempts: Vec::new(),
    };
    let mut plan = Plan::default();
    let wallet = plan.stream::<Wallet>(StreamId::key(TenantId(tenant)));
    let charge = WalletCommand::Charge {
        usage,
        asset: Asset::Usd,
        amount: Units::new(micros),
        debt_limit: Units::ZERO,
        debt_cause: DebtCause::Overrun,
        at,
    };
    let request = Metadata::new(Actor::System("test")).into();
    let charged: Result<_, Failed<WalletRefusal>> =
        log.execute(&plan, request, |unit| unit.decide(wallet, charge.clone()).map(drop)).await;
    charged.expect("the wallet is charged").positions.to_string()
}
