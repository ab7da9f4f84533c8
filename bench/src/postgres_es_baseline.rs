//! Baseline: `postgres-es` as its documentation shows it, one command per append, without a view.
//!
//! Its own table with its own key, an aggregate that decides almost nothing, and the same two events with the same
//! payloads and metadata as the wallet writes. The plain event store is used, because the snapshot and aggregate stores
//! of `cqrs-es` 0.5 apply every new event twice.

use std::collections::HashMap;
use std::sync::Arc;

use calos_commands::sourced::Recorded;
use calos_domain::wallet::{CreditsGranted, GrantKind, UsageRecorded, WalletEvent};
use calos_domain::{Asset, GrantId, MicroUsd, Timestamp, Units};
use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::PersistedEventStore;
use cqrs_es::{Aggregate, AggregateError, CqrsFramework};
use postgres_es::{PostgresCqrs, PostgresEventRepository};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

use crate::arena::{Arena, Fresh};
use crate::drive::{Caller, Window, drive};
use crate::error::BenchError;
use crate::stats::Run;
use crate::workload::{self, OPENING_MICROS, Payer, Spread};

/// How often a command that lost a race is tried again before it counts as an error.
const RETRIES_MAX_ATTEMPTS: u32 = 1_000;

/// `events` as in `db/init.sql` of `postgres-es` 0.5.
pub const TABLES: &str = "
    CREATE TABLE events (
        aggregate_type text                         NOT NULL,
        aggregate_id   text                         NOT NULL,
        sequence       bigint CHECK (sequence >= 0) NOT NULL,
        event_type     text                         NOT NULL,
        event_version  text                         NOT NULL,
        payload        json                         NOT NULL,
        metadata       json                         NOT NULL,
        PRIMARY KEY (aggregate_type, aggregate_id, sequence)
    );";

/// The smallest wallet that can be charged.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct SmallWallet {
    grant: Option<GrantId>,
    available: Units,
}

/// Charge it for a use.
pub struct ChargeSmallWallet(UsageRecorded);

/// Why it cannot be charged.
#[derive(Debug, thiserror::Error)]
#[error("needs {needed}, has {available}")]
pub struct TooLittle {
    needed: Units,
    available: Units,
}

impl Aggregate for SmallWallet {
    const TYPE: &'static str = "wallet";
    type Command = ChargeSmallWallet;
    type Event = Recorded<WalletEvent>;
    type Error = TooLittle;
    type Services = ();

    async fn handle(&mut self, command: ChargeSmallWallet, _: &(), sink: &EventSink<Self>) -> Result<(), TooLittle> {
        let ChargeSmallWallet(usage) = command;
        let (needed, available) = (Units::from(usage.total), self.available);
        let grant = self.grant.filter(|_| needed <= available).ok_or(TooLittle { needed, available })?;
        for event in workload::charge_events(usage, grant, available) {
            sink.write(Recorded(event), self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: Recorded<WalletEvent>) {
        match event.0 {
            WalletEvent::CreditsGranted(granted) => {
                self.grant = Some(granted.grant_id);
                self.available = granted.available_after;
            }
            WalletEvent::CreditsDeducted(deducted) => self.available = deducted.available_after,
            _ => {}
        }
    }
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct PostgresEsRun {
    /// Concurrent callers.
    pub callers: usize,
    /// Connections of the pool.
    pub connections: u32,
    /// How long.
    pub window: Window,
}

struct PostgresEsCaller {
    cqrs: Arc<PostgresCqrs<SmallWallet>>,
    payers: Arc<Vec<Payer>>,
    random: SmallRng,
}

impl Caller for PostgresEsCaller {
    async fn call(&mut self) -> Result<u32, BenchError> {
        let payer = self.payers[Spread::Uniform.pick(self.payers.len(), &mut self.random)];
        let id = payer.tenant.to_string();
        let usage = workload::usage(&mut self.random);
        let metadata = metadata_map()?;
        for attempt in 0..RETRIES_MAX_ATTEMPTS {
            let command = ChargeSmallWallet(usage.clone());
            match self.cqrs.execute_with_metadata(&id, command, metadata.clone()).await {
                Ok(()) => return Ok(attempt),
                Err(AggregateError::AggregateConflict) => {}
                Err(error) => return Err(BenchError::Check(format!("postgres-es: {error}"))),
            }
        }
        Err(BenchError::Check(format!("postgres-es gave a conflict {RETRIES_MAX_ATTEMPTS} times in a row")))
    }
}

/// The metadata of one command as `cqrs-es` takes it: strings by name.
pub fn metadata_map() -> Result<HashMap<String, String>, serde_json::Error> {
    serde_json::from_value(serde_json::to_value(workload::stored_metadata())?)
}

/// The event that gives a small wallet something to spend.
pub fn opening_grant(payer: Payer) -> WalletEvent {
    WalletEvent::CreditsGranted(CreditsGranted {
        grant_id: payer.grant,
        asset: Asset::Usd,
        kind: GrantKind::Purchase,
        amount: Units::new(OPENING_MICROS),
        priority: 0,
        effective_at: Timestamp::default(),
        expires_at: None,
        cost_basis: MicroUsd::ZERO,
        source_ref: "calos-bench".to_owned(),
        reason: None,
        available_after: Units::new(OPENING_MICROS),
    })
}

/// Writes rows of `postgres-es` in one statement; each is `(aggregate_id, sequence, event)`.
pub async fn store_events(
    connection: &mut PgConnection,
    rows: &[(String, i64, WalletEvent)],
) -> Result<(), BenchError> {
    let metadata = serde_json::to_string(&workload::stored_metadata())?;
    let mut payloads = Vec::with_capacity(rows.len());
    for (_, _, event) in rows {
        payloads.push(serde_json::to_string(event)?);
    }
    let ids: Vec<&str> = rows.iter().map(|(id, _, _)| id.as_str()).collect();
    let sequences: Vec<i64> = rows.iter().map(|(_, sequence, _)| *sequence).collect();
    let names: Vec<&str> = rows.iter().map(|(_, _, event)| calos_domain::Fact::name(event)).collect();
    sqlx::query(
        "INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata)
         SELECT $1, id, sequence, name, '1', payload::json, $2::json
         FROM unnest($3::text[], $4::bigint[], $5::text[], $6::text[]) AS row (id, sequence, name, payload)",
    )
    .bind(SmallWallet::TYPE)
    .bind(metadata)
    .bind(ids)
    .bind(sequences)
    .bind(names)
    .bind(payloads)
    .execute(connection)
    .await?;
    Ok(())
}

/// The tables of `postgres-es` in a database of their own, with aggregates that have something to spend.
pub struct PostgresEsTables {
    fresh: Fresh,
    owner: PgConnection,
    payers: Arc<Vec<Payer>>,
    answered: u64,
}

impl PostgresEsTables {
    /// Creates them with `wallets` aggregates of one event each.
    pub async fn create(arena: &Arena, wallets: usize) -> Result<Self, BenchError> {
        let fresh = arena.empty("postgres_es").await?;
        let mut owner = fresh.connect().await?;
        owner.execute(TABLES).await?;
        let payers = Arc::new(workload::payers(wallets));
        let rows: Vec<_> = payers.iter().map(|payer| (payer.tenant.to_string(), 1, opening_grant(*payer))).collect();
        store_events(&mut owner, &rows).await?;
        owner.execute("VACUUM ANALYZE events").await?;
        Ok(Self { fresh, owner, payers, answered: 0 })
    }

    /// Lets callers charge for a while.
    pub async fn run(&mut self, arena: &Arena, what: PostgresEsRun) -> Result<Run, BenchError> {
        let pool = self.fresh.pool(what.connections).await?;
        let store = PersistedEventStore::new_event_store(PostgresEventRepository::new(pool.clone()));
        let cqrs = Arc::new(CqrsFramework::new(store, Vec::new(), ()));
        let callers = (0..what.callers)
            .map(|caller| PostgresEsCaller {
                cqrs: Arc::clone(&cqrs),
                payers: Arc::clone(&self.payers),
                random: SmallRng::seed_from_u64(u64::try_from(caller).unwrap_or_default()),
            })
            .collect();
        arena.settle().await?;
        let driven = drive(callers, what.window, &arena.meter).await?;
        pool.close().await;
        self.answered += driven.answered;
        Ok(driven.run)
    }

    /// Asks the database whether it holds exactly what was acknowledged, and drops it.
    pub async fn finish(mut self, arena: &Arena) -> Result<(), BenchError> {
        let stored: i64 =
            sqlx::query_scalar("SELECT count(*) FROM events WHERE sequence > 1").fetch_one(&mut self.owner).await?;
        let expected = self.answered.saturating_mul(u64::from(workload::EVENTS_PER_CHARGE));
        if u64::try_from(stored) != Ok(expected) {
            return Err(BenchError::Check(format!("postgres-es acknowledged {expected} events and stored {stored}")));
        }
        self.owner.close().await?;
        arena.drop_database(self.fresh).await
    }
}
