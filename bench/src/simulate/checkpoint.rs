//! The full check: from zero, from a snapshot and the tail, warm, and in the read models, a wallet is the same.

use std::time::{Duration, Instant};

use calos_adapters::postgres::PgLog;
use calos_commands::log::{EventLog, Failed, Plan, Request};
use calos_commands::metadata::{Actor, Metadata};
use calos_domain::wallet::{Wallet, WalletEvent};
use calos_domain::{Asset, Decider, StreamId, TenantId};
use calos_projections::checkpoint::positions;
use calos_projections::wallet_balance::figures;
use calos_projections::{Runner, RunnerOptions};
use sqlx::Executor;

use super::Fault;
use super::driver::Driver;
use super::figures::Sum;
use super::model::Model;
use super::process::Process;

/// How long the read models may take to come to the head of the log.
const CATCH_UP_MAX: Duration = Duration::from_secs(120);

/// A wallet folded from zero, and the state at some event on the way.
struct Folded {
    whole: Wallet,
    cut: Wallet,
    cut_sequence: i64,
}

impl Driver {
    /// Checks everything, with no server running beside; the next step starts one.
    pub(super) async fn checkpoint(&mut self) -> Result<(), Fault> {
        self.suspect = None;
        let ids: Vec<TenantId> = self.tenants.iter().map(|tenant| tenant.id).collect();
        self.ledger.check_common(self.tenants.iter().map(|tenant| &tenant.model))?;
        let mut from_zero = Vec::with_capacity(ids.len());
        for (place, tenant) in ids.iter().enumerate() {
            self.suspect = Some(*tenant);
            let folded = self.fold(*tenant).await?;
            compare(&folded.whole, &self.tenants[place].model)?;
            from_zero.push(folded);
        }
        self.suspect = None;
        // Warm, as the server that still runs has it.
        self.states_are("warm", &ids, &from_zero).await?;
        self.crash("checkpoint");
        for (tenant, folded) in ids.iter().zip(&from_zero) {
            self.store_snapshot(*tenant, folded).await?;
        }
        self.process = Some(Process::start(&self.url, false).await?);
        self.states_are("from a snapshot and the tail", &ids, &from_zero).await?;
        self.crash("checkpoint");
        self.owner.execute("DELETE FROM snapshots").await?;
        self.process = Some(Process::start(&self.url, false).await?);
        self.states_are("without a snapshot", &ids, &from_zero).await?;
        self.catch_up().await?;
        for (place, tenant) in ids.iter().enumerate() {
            self.suspect = Some(*tenant);
            self.read_model_is(place).await?;
        }
        self.suspect = None;
        self.known_figures_stand().await?;
        self.crash("checkpoint");
        self.suspect = None;
        self.summary.checkpoints += 1;
        Ok(())
    }

    async fn fold(&mut self, tenant: TenantId) -> Result<Folded, Fault> {
        let payloads: Vec<String> = sqlx::query_scalar(
            "SELECT payload::text FROM events WHERE aggregate_type = $1 AND aggregate_id = $2 ORDER BY sequence",
        )
        .bind(Wallet::KIND)
        .bind(tenant.to_string())
        .fetch_all(&mut self.owner)
        .await?;
        let cut_at = self.chance.below(payloads.len());
        let mut folded = Folded { whole: Wallet::default(), cut: Wallet::default(), cut_sequence: 0 };
        for (place, payload) in payloads.iter().enumerate() {
            let event: WalletEvent = serde_json::from_str(payload).map_err(|error| format!("{payload}: {error}"))?;
            folded.whole.evolve(&event);
            if place == cut_at {
                folded.cut = folded.whole.clone();
                folded.cut_sequence = i64::try_from(place).unwrap_or(i64::MAX) + 1;
            }
        }
        Ok(folded)
    }

    async fn store_snapshot(&mut self, tenant: TenantId, folded: &Folded) -> Result<(), Fault> {
        if folded.cut_sequence == 0 {
            return Ok(());
        }
        let partition: i32 = sqlx::query_scalar(
            "SELECT partition FROM events WHERE aggregate_type = $1 AND aggregate_id = $2 ORDER BY sequence LIMIT 1",
        )
        .bind(Wallet::KIND)
        .bind(tenant.to_string())
        .fetch_one(&mut self.owner)
        .await?;
        sqlx::query(
            "INSERT INTO snapshots (aggregate_type, aggregate_id, partition, last_sequence, snapshot_version, payload)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (aggregate_type, aggregate_id, partition) DO UPDATE
             SET last_sequence = excluded.last_sequence, snapshot_version = excluded.snapshot_version,
                 payload = excluded.payload",
        )
        .bind(Wallet::KIND)
        .bind(tenant.to_string())
        .bind(partition)
        .bind(folded.cut_sequence)
        .bind(Wallet::SNAPSHOT_VERSION)
        .bind(json(&folded.cut)?)
        .execute(&mut self.owner)
        .await?;
        Ok(())
    }

    /// What the server has in memory is what a fold from zero gives, byte for byte.
    async fn states_are(&mut self, how: &str, ids: &[TenantId], from_zero: &[Folded]) -> Result<(), Fault> {
        for (tenant, folded) in ids.iter().zip(from_zero) {
            let process = self.process().await?;
            let reading = process.spawn(state_of(process.log.clone(), *tenant))?;
            let state = match reading.await {
                Ok(state) => state?,
                Err(error) => return Err(Fault::Environment(format!("a reading was lost: {error}"))),
            };
            if state != json(&folded.whole)? {
                self.suspect = Some(*tenant);
                return Err(Fault::Violation(format!(
                    "the wallet {how} is {state}, from zero it is {}",
                    json(&folded.whole)?
                )));
            }
        }
        Ok(())
    }

    /// Brings every read model to the head of the log. A server that was killed may hold some of them for a moment.
    async fn catch_up(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + CATCH_UP_MAX;
        let options = RunnerOptions::default();
        loop {
            let process = self.process().await?;
            let (pool, running) = (process.pool.clone(), options.clone());
            let caught_up = process.spawn(async move { Runner::catch_up(pool, running).await })?;
            match caught_up.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(Fault::Violation(format!("the read models: {error}"))),
                Err(error) => return Err(Fault::Environment(format!("catching up was lost: {error}"))),
            }
            if self.stand_at_the_head(&options).await? {
                break;
            }
            if Instant::now() > deadline {
                return Err(Fault::Violation("the read models do not come to the head of the log".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let dead: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters").fetch_one(&mut self.owner).await?;
        if dead == 0 { Ok(()) } else { Err(Fault::Violation(format!("{dead} events are dead letters"))) }
    }

    async fn stand_at_the_head(&mut self, options: &RunnerOptions) -> Result<bool, Fault> {
        let heads = self.cursor.0.clone();
        let process = self.process().await?;
        let (pool, options) = (process.pool.clone(), options.clone());
        let asked = process.spawn(async move {
            for projection in &options.projections {
                let at = positions(&pool, projection.name()).await?;
                if heads.iter().any(|(partition, head)| at.get(partition).copied().unwrap_or_default() < *head) {
                    return Ok(false);
                }
            }
            Ok::<_, sqlx::Error>(true)
        })?;
        match asked.await {
            Ok(answer) => Ok(answer?),
            Err(error) => Err(Fault::Environment(format!("asking was lost: {error}"))),
        }
    }

    /// The balances that are shown are the model's.
    async fn read_model_is(&mut self, place: usize) -> Result<(), Fault> {
        let tenant = self.tenants[place].id;
        for asset in Asset::ALL {
            let shown = match figures(&mut self.owner, tenant, asset).await {
                Ok(shown) => shown,
                Err(error) => return Err(error.into()),
            };
            let model = &self.tenants[place].model.figures;
            let shown = [shown.available, shown.held, shown.debt].map(Sum::from);
            let expected = [model.available(asset), model.held(asset), model.debt(asset)];
            if shown != expected {
                return Err(Fault::Violation(format!(
                    "{asset}: available, held and owed are shown as {shown:?}, the model has {expected:?}"
                )));
            }
        }
        Ok(())
    }
}

/// The state of a wallet as the server decides on it.
async fn state_of(log: PgLog, tenant: TenantId) -> Result<String, Fault> {
    let mut plan = Plan::default();
    let wallet = plan.stream::<Wallet>(StreamId::key(tenant));
    let request = Request::from(Metadata::new(Actor::System("simulation")));
    let read = log.execute(&plan, request, |unit| unit.with(wallet, |state: &Wallet| Ok::<_, Fault>(json(state))));
    match read.await {
        Ok(done) => done.answer,
        Err(Failed::Refused(fault)) => Err(fault),
        Err(Failed::Log(error)) => Err(error.into()),
    }
}

fn json(wallet: &Wallet) -> Result<String, Fault> {
    serde_json::to_string(wallet).map_err(|error| Fault::Violation(error.to_string()))
}

/// The domain's own state says of every grant and every sum what the model says.
fn compare(wallet: &Wallet, model: &Model) -> Result<(), Fault> {
    for asset in Asset::ALL {
        let state = [wallet.available(asset), wallet.held(asset), wallet.debt(asset)].map(|sum| Sum::from(sum.get()));
        let figures = &model.figures;
        let expected = [figures.available(asset), figures.held(asset), figures.debt(asset)];
        if state != expected {
            return Err(Fault::Violation(format!("{asset}: the wallet has {state:?}, the model {expected:?}")));
        }
    }
    for (grant_id, line) in &model.figures.lines {
        let Some(grant) = wallet.grant(grant_id) else {
            return Err(Fault::Violation(format!("grant {grant_id} is forgotten")));
        };
        let state =
            [grant.amount, grant.available, grant.held, grant.spent(), grant.expired, grant.voided, grant.taken];
        let state = state.map(|part| Sum::from(part.get()));
        let expected = [line.granted, line.available, line.held, line.spent, line.expired, line.voided, line.taken];
        if state != expected {
            return Err(Fault::Violation(format!(
                "grant {grant_id}: the wallet has {state:?}, the model {expected:?}"
            )));
        }
    }
    Ok(())
}
