//! The story, step by step.

use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use calos_adapters::anchors;
use calos_adapters::config::Config;
use calos_commands::log::Positions;
use calos_replay::diff::{DiffReport, diff};
use calos_replay::operation::run_by;
use calos_replay::progress::Show;
use calos_replay::rebuild::{RebuildOptions, rebuild};
use calos_replay::verify::{Anchors, VerifyOptions, verify};
use calos_replay::write_guard::{Assent, confirm};
use calos_replay::{ReadModel, ToolError};

use crate::admin;
use crate::cli::{AdminCommand, CliError, TierName, say};
use crate::run::Running;

use super::client::{DemoClient, answer, stream};

/// What everybody begins with, in micro-dollars and phone credits.
const TRIAL_MICROS: i64 = 10_000_000;
const TRIAL_CREDITS: i64 = 100;

/// The price book's gpt-4, in micro-dollars a token, and what `pro` adds.
const GPT_4_INPUT_MICROS: i64 = 30;
const GPT_4_OUTPUT_MICROS: i64 = 60;
const PRO_MARKUP_PERCENT: i64 = 30;

/// What somebody gives themselves by hand.
const THEFT_MICROS: i64 = 1_000_000_000;

/// Rows a comparison lists.
const LISTED_ROWS: i64 = 10;

const READ_MODEL: &str = "wallet_balance";

pub(super) struct Story<'a> {
    config: &'a Config,
    running: &'a Running,
    owner: PgPool,
    client: DemoClient,
    step: u32,
    tenant: Uuid,
    session: String,
    key: String,
    charges: Vec<i64>,
}

impl<'a> Story<'a> {
    pub(super) fn new(config: &'a Config, running: &'a Running, owner: PgPool) -> Result<Self, CliError> {
        Ok(Self {
            config,
            running,
            owner,
            client: DemoClient::new(running.address())?,
            step: 0,
            tenant: Uuid::nil(),
            session: String::new(),
            key: String::new(),
            charges: Vec::new(),
        })
    }

    pub(super) async fn tell(&mut self) -> Result<(), CliError> {
        say(&format!("CALOS listens on http://{}", self.running.address()))?;
        if let Some(simulated) = self.running.simulated() {
            say(&format!("simulated providers: {simulated} (no real model is called)"))?;
        }
        self.register().await?;
        self.move_to_pro().await?;
        self.issue_key().await?;
        self.chat().await?;
        self.chat_streaming().await?;
        let true_balance = self.read_the_books().await?;
        self.corrupt(true_balance).await?;
        self.detect().await?;
        self.rebuild().await?;
        self.prove_equal(true_balance).await?;
        self.verify().await
    }

    async fn register(&mut self) -> Result<(), CliError> {
        self.begin("Ada registers")?;
        let body = json!({"email": "ada@example.com", "password": "analytical engine no. 1", "displayName": "Ada"});
        let registered = answer(self.client.post("/api/auth/register", &body)).await?;
        self.tenant = uuid_at(&registered.body, "tenantId")?;
        self.session = text_at(&registered.body["session"], "token")?;
        let balance = self.balance(registered.position.as_deref()).await?;
        self.check(
            balance["balance_micros"] == TRIAL_MICROS && balance["credits_remaining"] == TRIAL_CREDITS,
            &format!("tenant {} begins with $10.00 and 100 phone credits", self.tenant),
        )
    }

    async fn move_to_pro(&mut self) -> Result<(), CliError> {
        self.begin("the console moves her tenant to pro (calos admin tier)")?;
        let command = AdminCommand::Tier { tenant: self.tenant, tier: TierName::Pro };
        admin::run(self.config.clone(), command).await?;
        // Another process wrote this; the server learns of it from the log.
        for _ in 0..100 {
            if self.balance(None).await?["subscription_tier"] == "pro" {
                return self.check(true, "the running server knows the new tier");
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        self.check(false, "the running server knows the new tier")
    }

    async fn issue_key(&mut self) -> Result<(), CliError> {
        self.begin("she issues an API key")?;
        let path = format!("/api/tenants/{}/keys", self.tenant);
        let issued = answer(self.client.post(&path, &json!({"name": "demo"})).bearer_auth(&self.session)).await?;
        self.key = text_at(&issued.body, "key")?;
        let prefix = format!("sk-tenant-{}-", self.tenant);
        self.check(self.key.starts_with(&prefix), &format!("{prefix}… is shown once; only its hash is kept"))
    }

    async fn chat(&mut self) -> Result<(), CliError> {
        self.begin("an OpenAI client asks gpt-4")?;
        let body = json!({"model": "gpt-4", "max_tokens": 60,
            "messages": [{"role": "user", "content": "Why is an immutable ledger easier to trust?"}]});
        let chat = answer(self.client.post("/v1/chat/completions", &body).bearer_auth(&self.key)).await?;
        let text = chat.body["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        say(&format!("      {} answers: {text:?}", chat.body["provider"].as_str().unwrap_or("nobody")))?;
        self.check_charge(&chat.body["usage"], &chat.body["billing"])
    }

    async fn chat_streaming(&mut self) -> Result<(), CliError> {
        self.begin("and again, streaming")?;
        let body = json!({"model": "gpt-4", "max_tokens": 60, "stream": true, "stream_options": {"include_usage": true},
            "messages": [{"role": "user", "content": "And in ten words?"}]});
        let streamed = stream(self.client.post("/v1/chat/completions", &body).bearer_auth(&self.key)).await?;
        say(&format!("      {} chunks: {:?}", streamed.chunks, streamed.text))?;
        self.check(streamed.is_done && streamed.chunks > 2, "the stream came in pieces and ended with [DONE]")?;
        self.check_charge(&streamed.last["usage"], &streamed.last["billing"])
    }

    /// The bill, counted again from the tokens.
    fn check_charge(&mut self, usage: &Value, billing: &Value) -> Result<(), CliError> {
        let prompt = int_at(usage, "prompt_tokens")?;
        let completion = int_at(usage, "completion_tokens")?;
        let charged = int_at(billing, "total_cost_micros")?;
        let provider = prompt * GPT_4_INPUT_MICROS + completion * GPT_4_OUTPUT_MICROS;
        let total = provider + (provider * PRO_MARKUP_PERCENT + 50) / 100;
        self.charges.push(charged);
        self.check(
            charged == total,
            &format!(
                "{prompt} tokens in, {completion} out: {provider} micro-dollars plus {PRO_MARKUP_PERCENT} % is {total}, \
                 charged were {charged}"
            ),
        )
    }

    /// Balance, ledger and usage, read after everything so far; answers the balance in micro-dollars.
    async fn read_the_books(&mut self) -> Result<i64, CliError> {
        self.begin("the books")?;
        let after = self.everything_so_far();
        let balance = self.balance(Some(&after)).await?;
        let available = int_at(&balance, "balance_micros")?;
        let spent: i64 = self.charges.iter().sum();
        self.check(
            available == TRIAL_MICROS - spent && balance["held_micros"] == 0,
            &format!("{TRIAL_MICROS} granted - {spent} spent = {available} micro-dollars, nothing held"),
        )?;
        let ledger = self.read("/api/credits/ledger?limit=50", &after).await?;
        let entries = ledger["entries"].as_array().cloned().unwrap_or_default();
        for entry in entries.iter().rev() {
            say(&format!(
                "      {}:{:<3} {:<18} {:>9} {:<6} balance {:>9}",
                entry["partition"],
                entry["position"].to_string(),
                entry["type"].as_str().unwrap_or_default(),
                entry["amount"].to_string(),
                entry["asset"].as_str().unwrap_or_default(),
                entry["balanceAfter"].to_string(),
            ))?;
        }
        let in_usd = entries.iter().filter(|entry| entry["asset"] == "USD");
        let sum: i64 = in_usd.map(|entry| entry["amount"].as_i64().unwrap_or_default()).sum();
        self.check(sum == available, "the ledger's lines add up to the balance")?;
        let usage = self.read("/api/credits/usage", &after).await?;
        let uses = usage["usage"].as_array().cloned().unwrap_or_default();
        let metered: i64 = uses.iter().map(|line| line["totalMicros"].as_i64().unwrap_or_default()).sum();
        self.check(uses.len() == self.charges.len() && metered == spent, "the usage log shows the same charges")?;
        Ok(available)
    }

    async fn corrupt(&mut self, true_balance: i64) -> Result<(), CliError> {
        self.begin("somebody corrupts the balance table by hand")?;
        const THEFT: &str = "UPDATE read.wallet_balance SET available = available + $2, granted = granted + $2
                             WHERE tenant_id = $1 AND asset = 'USD'";
        let theft =
            sqlx::query(THEFT).bind(self.tenant).bind(THEFT_MICROS).execute(&self.owner).await.map_err(broken)?;
        let shown = int_at(&self.balance(None).await?, "balance_micros")?;
        self.check(
            theft.rows_affected() == 1 && shown == true_balance + THEFT_MICROS,
            &format!("the balance now shows {shown} micro-dollars"),
        )
    }

    async fn diff(&self) -> Result<DiffReport, CliError> {
        diff(&self.owner, read_model()?, LISTED_ROWS, Show::Silent).await.map_err(|error| tool(&error))
    }

    async fn detect(&mut self) -> Result<(), CliError> {
        self.begin("calos-replay diff compares the table with a fold of the log")?;
        let report = self.diff().await?;
        for difference in &report.differences.listed {
            let shown = |row: &Option<serde_json::Map<String, Value>>| {
                row.as_ref().map_or_else(|| "nothing".to_owned(), |row| row["available"].to_string())
            };
            say(&format!(
                "      available: the table says {}, the log says {}",
                shown(&difference.live),
                shown(&difference.log)
            ))?;
        }
        self.check(report.differences.count == 1, "exactly one row differs, and it is named")
    }

    async fn rebuild(&mut self) -> Result<(), CliError> {
        self.begin("calos-replay rebuild builds it anew from the log and switches")?;
        let confirmed = confirm(Assent::Given, &format!("rebuild {READ_MODEL}")).map_err(|error| tool(&error))?;
        let run = run_by(Some("demo".to_owned()), Some("the balance was corrupted by hand".to_owned()));
        let log = &self.running.app().log;
        let options = RebuildOptions::default();
        let report =
            rebuild(&self.owner, log, read_model()?, &run, &confirmed, &options).await.map_err(|error| tool(&error))?;
        self.check(
            report.parity.differing_rows() == 1 && report.to_version == report.from_version + 1,
            &format!(
                "{} events folded into version {}; the parity report names the corrupted row",
                report.events, report.to_version
            ),
        )
    }

    async fn prove_equal(&mut self, true_balance: i64) -> Result<(), CliError> {
        self.begin("proof that the rebuilt table is the log's")?;
        let after = self.everything_so_far();
        let shown = int_at(&self.balance(Some(&after)).await?, "balance_micros")?;
        self.check(shown == true_balance, &format!("the balance shows {shown} micro-dollars again"))?;
        let report = self.diff().await?;
        self.check(report.differences.count == 0, "no row differs from a fold of the log")
    }

    async fn verify(&mut self) -> Result<(), CliError> {
        self.begin("calos-replay verify: the seal, the anchors, every payload, every read model")?;
        let signing = self.running.app().secrets.ledger_signing_key();
        let anchor = anchors::take(&self.owner, signing).await.map_err(|error| CliError::Refused(error.to_string()))?;
        let kept = anchors::keep(&self.owner, &self.config.anchor_dir, &anchor).await;
        kept.map_err(|error| CliError::Refused(error.to_string()))?;
        let key = signing.verifying_key();
        let anchors = Some(Anchors { directory: self.config.anchor_dir.clone(), key });
        let models = calos_projections::registry::ALL;
        let options = VerifyOptions { chain_only: false, anchors, models, show: Show::Silent };
        let report = verify(&self.owner, &options).await.map_err(|error| tool(&error))?;
        for check in &report.checks {
            say(&format!("      {check}"))?;
        }
        self.check(report.passed, &format!("{} events verified", report.events))
    }

    /// Every head of the log, as `calos-after` takes it.
    fn everything_so_far(&self) -> String {
        let heads = self.running.app().log.heads().borrow().clone();
        let heads = heads.into_iter().enumerate().filter(|(_, position)| *position > 0);
        let pairs = heads.filter_map(|(partition, position)| Some((i32::try_from(partition).ok()?, position)));
        Positions(pairs.collect()).to_string()
    }

    async fn balance(&self, after: Option<&str>) -> Result<Value, CliError> {
        let mut request = self.client.get("/api/credits/balance").bearer_auth(&self.session);
        if let Some(after) = after {
            request = request.header("calos-after", after);
        }
        Ok(answer(request).await?.body)
    }

    async fn read(&self, path: &str, after: &str) -> Result<Value, CliError> {
        let request = self.client.get(path).bearer_auth(&self.session).header("calos-after", after);
        Ok(answer(request).await?.body)
    }

    fn begin(&mut self, title: &str) -> Result<(), CliError> {
        self.step += 1;
        say(&format!("\n{:>2}. {title}", self.step))
    }

    fn check(&self, holds: bool, what: &str) -> Result<(), CliError> {
        if holds {
            return say(&format!("  ok  {what}"));
        }
        say(&format!("FAIL  {what}"))?;
        Err(CliError::Refused(format!("step {} does not hold: {what}", self.step)))
    }
}

fn read_model() -> Result<ReadModel, CliError> {
    calos_projections::registry::find(READ_MODEL)
        .ok_or_else(|| CliError::Refused(format!("there is no read model {READ_MODEL}")))
}

fn broken(error: sqlx::Error) -> CliError {
    CliError::Database(error.into())
}

fn tool(error: &ToolError) -> CliError {
    CliError::Refused(error.to_string())
}

fn text_at(value: &Value, name: &str) -> Result<String, CliError> {
    let text = value[name].as_str().map(str::to_owned);
    text.ok_or_else(|| CliError::Refused(format!("the answer has no text {name}: {value}")))
}

fn uuid_at(value: &Value, name: &str) -> Result<Uuid, CliError> {
    text_at(value, name)?.parse().map_err(|error| CliError::Refused(format!("{name}: {error}: {value}")))
}

fn int_at(value: &Value, name: &str) -> Result<i64, CliError> {
    value[name].as_i64().ok_or_else(|| CliError::Refused(format!("the answer has no number {name}: {value}")))
}
