//! Baseline: a balance view rebuilt by `QueryReplay` of `cqrs-es` into a `GenericQuery` over `postgres-es`.
//!
//! It loads and stores the view once per event, each in a transaction of its own, so a small fixed sample is enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use calos_domain::Units;
use calos_domain::wallet::WalletEvent;
use cqrs_es::persist::{GenericQuery, QueryReplay};
use cqrs_es::{EventEnvelope, View};
use postgres_es::{PostgresEventRepository, PostgresViewRepository};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, Executor};

use crate::arena::Arena;
use crate::error::BenchError;
use crate::postgres_es_baseline::{SmallWallet, TABLES, opening_grant, store_events};
use crate::stats::Run;
use crate::workload::{self, EVENTS_PER_CHARGE, OPENING_MICROS};

/// What is replayed: charges of some wallets in turn.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Events altogether.
    pub events: usize,
    /// Wallets they are spread over.
    pub wallets: usize,
}

/// The view table as in `db/init.sql` of `postgres-es` 0.5.
const VIEW_TABLE: &str = "
    CREATE TABLE wallet_balance (
        view_id text                        NOT NULL,
        version bigint CHECK (version >= 0) NOT NULL,
        payload json                        NOT NULL,
        PRIMARY KEY (view_id)
    );";

/// What is left on a wallet, and what went in and out.
#[derive(Default, Debug, Serialize, Deserialize)]
struct BalanceView {
    granted: i64,
    spent: i64,
    available: i64,
    events: u64,
}

impl View<SmallWallet> for BalanceView {
    fn update(&mut self, event: &EventEnvelope<SmallWallet>) {
        self.events += 1;
        match &event.payload.0 {
            WalletEvent::CreditsGranted(granted) => {
                self.granted += granted.amount.get();
                self.available = granted.available_after.get();
            }
            WalletEvent::CreditsDeducted(deducted) => {
                self.spent += deducted.amount.get();
                self.available = deducted.available_after.get();
            }
            _ => {}
        }
    }
}

type Rows = PostgresViewRepository<BalanceView, SmallWallet>;

/// Replays a sample once, in a database of its own; operations are events.
pub async fn run(arena: &Arena, size: Sample, connections: u32) -> Result<Run, BenchError> {
    let fresh = arena.empty("query_replay").await?;
    let mut owner = fresh.connect().await?;
    owner.execute(TABLES).await?;
    owner.execute(VIEW_TABLE).await?;
    let sample = sample(size);
    store_events(&mut owner, &sample).await?;
    owner.execute("VACUUM ANALYZE events").await?;

    let pool = fresh.pool(connections).await?;
    let failures = Arc::new(AtomicU64::new(0));
    let count_failure = |failures: &Arc<AtomicU64>| {
        let failures = Arc::clone(failures);
        Box::new(move |_| {
            failures.fetch_add(1, Ordering::Relaxed);
        })
    };
    let mut query = GenericQuery::new(Arc::new(Rows::new("wallet_balance", pool.clone())));
    query.use_error_handler(count_failure(&failures));
    let mut replay: QueryReplay<PostgresEventRepository, GenericQuery<Rows, BalanceView, SmallWallet>, SmallWallet> =
        QueryReplay::new(PostgresEventRepository::new(pool.clone()), query);
    replay.use_error_handler(count_failure(&failures));

    arena.settle().await?;
    let cpu_before = arena.meter.read();
    let started = Instant::now();
    replay.replay_all().await.map_err(|error| BenchError::Check(format!("QueryReplay: {error}")))?;
    let (elapsed, cpu) = (started.elapsed(), arena.meter.since(cpu_before));
    pool.close().await;

    // A replay that lost its connection reports success, so what it wrote is counted.
    let (seen, granted): (i64, i64) = sqlx::query_as(
        "SELECT sum((payload->>'events')::bigint)::bigint, sum((payload->>'granted')::numeric / $1)::bigint
         FROM wallet_balance",
    )
    .bind(OPENING_MICROS)
    .fetch_one(&mut owner)
    .await?;
    let wallets = size.wallets.min(sample.len());
    let complete = usize::try_from(seen) == Ok(sample.len()) && usize::try_from(granted) == Ok(wallets);
    if !complete || failures.load(Ordering::Relaxed) > 0 {
        return Err(BenchError::Check(format!("QueryReplay took {seen} of {} events", sample.len())));
    }
    owner.close().await?;
    arena.drop_database(fresh).await?;
    Run::bulk(u64::try_from(sample.len()).unwrap_or(u64::MAX), elapsed, cpu)
}

/// Wallets that are granted credit and charged in turn: `(aggregate_id, sequence, event)`.
fn sample(Sample { events, wallets }: Sample) -> Vec<(String, i64, WalletEvent)> {
    let mut random = SmallRng::seed_from_u64(1);
    let payers = workload::payers(wallets.min(events));
    let mut rows: Vec<_> = payers.iter().map(|payer| (payer.tenant.to_string(), 1, opening_grant(*payer))).collect();
    let mut available = Units::new(OPENING_MICROS);
    let mut sequence = 2;
    while rows.len() < events {
        for payer in &payers {
            let charge = workload::charge_events(workload::usage(&mut random), payer.grant, available);
            for (event, offset) in charge.into_iter().zip(0..) {
                if rows.len() < events {
                    rows.push((payer.tenant.to_string(), sequence + offset, event));
                }
            }
        }
        available = available.minus(Units::new(1)).unwrap_or_default();
        sequence += i64::from(EVENTS_PER_CHARGE);
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Sample, sample};

    #[test]
    fn the_sample_has_the_asked_size_and_gapless_streams() {
        for (events, wallets) in [(1, 50), (49, 50), (50, 50), (51, 50), (333, 50), (1_000, 1), (1_000, 50)] {
            let rows = sample(Sample { events, wallets });
            assert_eq!(rows.len(), events);
            let mut last: HashMap<String, i64> = HashMap::new();
            for (id, sequence, _) in rows {
                let before = last.insert(id, sequence).unwrap_or_default();
                assert_eq!(sequence, before + 1);
            }
        }
    }
}
