//! What is measured: `calos-replay rebuild`, through the same library the operator's tool is made of.

use std::time::Duration;

use calos_adapters::postgres::{self, PgLog};
use calos_projections::checkpoint::ensure_registered;
use calos_projections::registry;
use calos_replay::ReadModel;
use calos_replay::operation::run_by;
use calos_replay::rebuild::{RebuildOptions, RebuildReport, rebuild};
use calos_replay::write_guard::{Assent, confirm};
use sqlx::PgPool;

use crate::arena::Arena;
use crate::calos::CalosLog;
use crate::error::BenchError;
use crate::stats::Run;

/// Connections of the pool the rebuild is given; it opens more beside it.
const OWNER_CONNECTIONS_MAX: u32 = 4;

/// A rebuilt read model.
pub struct Rebuilt {
    /// The whole of it, comparison and switch included; operations are events.
    pub run: Run,
    /// Until every row and every key stood, before the comparison and the switch.
    pub build: Duration,
    /// Rows that stand now, in all its tables.
    pub rows: u64,
}

/// The balances: a row per wallet and asset.
pub fn wallet_balance() -> Result<ReadModel, BenchError> {
    find("wallet_balance")
}

/// The views with a row per event: the ledger's lines and the metered uses.
pub fn row_views() -> Result<[ReadModel; 2], BenchError> {
    Ok([find("wallet_ledger")?, find("usage_log")?])
}

fn find(name: &str) -> Result<ReadModel, BenchError> {
    registry::find(name).ok_or_else(|| BenchError::Check(format!("there is no read model {name}")))
}

/// The read models of one database, each with a live version that has read the whole log.
pub struct Models {
    pool: PgPool,
    log: PgLog,
}

impl Models {
    /// Fills the live versions of some read models, so that a rebuild has something to stand beside.
    pub async fn live(log: &CalosLog, models: &[ReadModel]) -> Result<Self, BenchError> {
        let pool = postgres::connect_owner(&log.fresh.url(), OWNER_CONNECTIONS_MAX).await?;
        ensure_registered(&pool, models).await?;
        let live = Self { pool, log: log.log() };
        for &model in models {
            live.call(model, RebuildOptions { in_place: true, ..RebuildOptions::default() }).await?;
        }
        Ok(live)
    }

    /// Builds the next version of a read model, compares it with the live one, and puts it in its place.
    pub async fn rebuild(&self, arena: &Arena, model: ReadModel) -> Result<Rebuilt, BenchError> {
        let cpu_before = arena.meter.read();
        let report = self.call(model, RebuildOptions::default()).await?;
        let cpu = arena.meter.since(cpu_before);
        let differing = report.parity.differing_rows();
        if differing > 0 || report.dead_letters > 0 {
            return Err(BenchError::Check(format!(
                "{} was rebuilt with {differing} differing rows and {} dead letters",
                model.name(),
                report.dead_letters
            )));
        }
        let run = Run::bulk(report.events, Duration::from_secs_f64(report.seconds), cpu)?;
        let build = Duration::from_secs_f64(report.build_seconds);
        Ok(Rebuilt { run, build, rows: self.rows(model).await? })
    }

    async fn call(&self, model: ReadModel, options: RebuildOptions) -> Result<RebuildReport, BenchError> {
        let failed = |error| BenchError::Check(format!("the rebuild of {} failed: {error}", model.name()));
        let confirmed = confirm(Assent::Given, &format!("rebuild {}", model.name())).map_err(failed)?;
        let run = run_by(Some("calos-bench".to_owned()), Some("measured".to_owned()));
        rebuild(&self.pool, &self.log, model, &run, &confirmed, &options).await.map_err(failed)
    }

    async fn rows(&self, model: ReadModel) -> Result<u64, BenchError> {
        let mut rows = 0;
        for table in model.tables() {
            let count: i64 =
                sqlx::query_scalar(&format!("SELECT count(*) FROM read.{}", table.name)).fetch_one(&self.pool).await?;
            rows += u64::try_from(count).unwrap_or_default();
        }
        Ok(rows)
    }

    /// Ends the connections.
    pub async fn close(self) {
        self.pool.close().await;
    }
}
