//! What is measured: `calos-replay rebuild`, through the same library the operator's tool is made of.

use std::time::{Duration, Instant};

use calos_adapters::postgres::{self, PgLog};
use calos_projections::checkpoint::ensure_registered;
use calos_projections::registry;
use calos_replay::ReadModel;
use calos_replay::diff::diff;
use calos_replay::operation::run_by;
use calos_replay::progress::{Progress, Show, Watch};
use calos_replay::rebuild::{RebuildOptions, RebuildReport, rebuild_watched};
use calos_replay::write_guard::{Assent, confirm};
use sqlx::PgPool;

use crate::arena::{Arena, Fresh};
use crate::calos::CalosLog;
use crate::error::BenchError;
use crate::live::{Foretold, Looking};
use crate::machine;
use crate::stats::Run;

/// Connections of the pool the rebuild is given; it opens more beside it.
const OWNER_CONNECTIONS_MAX: u32 = 4;

/// Differing rows that are listed: none should be there to be.
const LISTED_ROWS: i64 = 5;

/// Read models rebuilt from one reading of the log.
pub struct Rebuilt {
    /// The whole of it, comparison and switch included; operations are events.
    pub run: Run,
    /// Until every row and every key stood, before the comparison and the switch.
    pub build: Duration,
    /// Rows that stand now, in all their tables.
    pub rows: u64,
    /// What was said of the time it would take.
    pub foretold: Vec<Foretold>,
    /// What it did after it had read, and since when.
    pub steps: Vec<(String, Duration)>,
    /// The most memory this process held beyond what it held before, in MiB; none where the system does not say.
    pub added_mib: Option<u64>,
}

impl Rebuilt {
    /// What it did when, how rightly its end was foretold, and what memory it took.
    pub fn noted(&self, what: &str) -> String {
        let step = |(step, at): &(String, Duration)| format!("{step} from {:.1} s", at.as_secs_f64());
        let steps: Vec<String> = self.steps.iter().map(step).collect();
        let (steps, whole) = (steps.join(", "), self.run.elapsed.as_secs_f64());
        let said = |foretold: &Foretold| {
            let Foretold { at_percent, after_seconds, said_seconds, whole_error_percent, .. } = foretold;
            format!("for {:.1} s at {at_percent} % ({whole_error_percent:.1} % off)", after_seconds + said_seconds)
        };
        let said: Vec<String> = self.foretold.iter().map(said).collect();
        let memory = self.added_mib.map_or_else(String::new, |added| format!("; at most {added} MiB more than before"));
        format!("{what}: {steps}, ended at {whole:.1} s; the end was foretold {}{memory}.", said.join(", "))
    }
}

/// Read models rebuilt while others write.
pub struct Live {
    /// One each.
    pub reports: Vec<RebuildReport>,
    /// From the beginning until the last one had taken its place; operations are events.
    pub rebuild: Run,
    /// What was said of the time it would take.
    pub foretold: Vec<Foretold>,
    /// When it began.
    pub begun: Instant,
    /// What it did after it had read, and since when.
    pub steps: Vec<(String, Duration)>,
}

/// The balances: a row per wallet and asset.
pub fn wallet_balance() -> Result<ReadModel, BenchError> {
    find("wallet_balance")
}

/// The views with a row per event: the ledger's lines and the metered uses.
pub fn row_views() -> Result<[ReadModel; 2], BenchError> {
    Ok([find("wallet_ledger")?, find("usage_log")?])
}

/// The read model of that name.
pub fn find(name: &str) -> Result<ReadModel, BenchError> {
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
        live.call(models, RebuildOptions { in_place: true, ..RebuildOptions::default() }).await?;
        Ok(live)
    }

    /// Some read models whose live versions have read the whole log, and whose rows were lost: a rebuild then restores them,
    /// and there is nothing beside it that takes room.
    pub async fn lost(fresh: &Fresh, log: PgLog, models: &[ReadModel]) -> Result<Self, BenchError> {
        let pool = postgres::connect_owner(&fresh.url(), OWNER_CONNECTIONS_MAX).await?;
        ensure_registered(&pool, models).await?;
        let lost = Self { pool, log };
        lost.at_the_head(models).await?;
        Ok(lost)
    }

    /// Says of some read models that they have read the whole log. What a rebuild records of itself is no part of the book.
    pub async fn at_the_head(&self, models: &[ReadModel]) -> Result<(), BenchError> {
        let names: Vec<&str> = models.iter().map(|model| model.name()).collect();
        let moved = sqlx::query(
            "UPDATE checkpoints c SET position = h.last_position, recorded_at = h.last_recorded_at
             FROM partitions h, projections p WHERE h.partition = c.partition AND p.name = c.projection
                 AND p.live_version = c.version AND c.projection = ANY($1)",
        );
        moved.bind(names).execute(&self.pool).await?;
        Ok(())
    }

    /// Restores read models that were lost, from one reading of the log; operations are events, and the time is until every
    /// row and every key stood. Processor time is that of the whole, the statistics and the switch included.
    pub async fn restore(&self, arena: &Arena, models: &[ReadModel]) -> Result<Run, BenchError> {
        let cpu_before = arena.meter.read();
        let reports = self.call(models, RebuildOptions::default()).await?;
        let (mut events, mut build_seconds) = (0, 0.0_f64);
        for report in &reports {
            if report.dead_letters > 0 {
                let (name, aside) = (report.projection, report.dead_letters);
                return Err(BenchError::Check(format!("{name} was rebuilt with {aside} dead letters")));
            }
            events = events.max(report.events);
            build_seconds = build_seconds.max(report.build_seconds);
        }
        Run::bulk(events, Duration::from_secs_f64(build_seconds), arena.meter.since(cpu_before))
    }

    /// Builds the next version of some read models from one reading of the log, compares them with the live ones, and puts
    /// them in their place.
    pub async fn rebuild(&self, arena: &Arena, models: &[ReadModel]) -> Result<Rebuilt, BenchError> {
        let held = machine::forget_peak_memory().then(machine::peak_memory_mib).flatten();
        let (watch, cpu_before) = (Watch::default(), arena.meter.read());
        let looking = Looking::begin(watch.clone());
        let reports = self.watched(models, RebuildOptions::default(), &watch).await;
        let foretold = looking.end();
        let (reports, cpu) = (reports?, arena.meter.since(cpu_before));
        let steps = watch.progress().map(Progress::steps).unwrap_or_default();
        let added_mib = held.zip(machine::peak_memory_mib()).map(|(held, peak)| peak.saturating_sub(held));
        // One run made all of them: each report counts its events and its time from the beginning of that run.
        let (mut events, mut seconds, mut build_seconds, mut rows) = (0, 0.0_f64, 0.0_f64, 0);
        for report in &reports {
            let differing = report.parity.differing_rows();
            if differing > 0 || report.dead_letters > 0 {
                return Err(BenchError::Check(format!(
                    "{} was rebuilt with {differing} differing rows and {} dead letters",
                    report.projection, report.dead_letters
                )));
            }
            events = events.max(report.events);
            seconds = seconds.max(report.seconds);
            build_seconds = build_seconds.max(report.build_seconds);
        }
        for &model in models {
            rows += self.rows(model).await?;
        }
        let run = Run::bulk(events, Duration::from_secs_f64(seconds), cpu)?;
        Ok(Rebuilt { run, build: Duration::from_secs_f64(build_seconds), rows, foretold, steps, added_mib })
    }

    /// Builds the next version of some read models while others write, and looks at what it says of the time it will take.
    pub async fn beside_writers(&self, models: &[ReadModel], workers: usize) -> Result<Live, BenchError> {
        let (begun, watch) = (Instant::now(), Watch::default());
        let looking = Looking::begin(watch.clone());
        let reports = self.watched(models, RebuildOptions { workers, ..RebuildOptions::default() }, &watch).await;
        let (elapsed, foretold) = (begun.elapsed(), looking.end());
        let steps = watch.progress().map(Progress::steps).unwrap_or_default();
        let reports = reports?;
        let events = reports.iter().map(|report| report.events).max().unwrap_or_default();
        Ok(Live { reports, rebuild: Run::bulk(events, elapsed, None)?, foretold, begun, steps })
    }

    /// In how many rows a live read model differs from a fresh fold.
    pub async fn differences(&self, model: ReadModel) -> Result<u64, BenchError> {
        let compared = diff(&self.pool, model, LISTED_ROWS, Show::Silent).await;
        let compared = compared.map_err(|error| BenchError::Check(format!("{}: {error}", model.name())))?;
        Ok(u64::try_from(compared.differences.count).unwrap_or_default())
    }

    async fn call(&self, models: &[ReadModel], options: RebuildOptions) -> Result<Vec<RebuildReport>, BenchError> {
        self.watched(models, options, &Watch::default()).await
    }

    async fn watched(
        &self,
        models: &[ReadModel],
        options: RebuildOptions,
        watch: &Watch,
    ) -> Result<Vec<RebuildReport>, BenchError> {
        let names: Vec<&str> = models.iter().map(|model| model.name()).collect();
        let names = names.join(", ");
        let failed = |error| BenchError::Check(format!("the rebuild of {names} failed: {error}"));
        let confirmed = confirm(Assent::Given, &format!("rebuild {names}")).map_err(failed)?;
        let run = run_by(Some("calos-bench".to_owned()), Some("measured".to_owned()));
        rebuild_watched(&self.pool, &self.log, models, &run, &confirmed, &options, watch).await.map_err(failed)
    }

    /// Rows of a live read model, in all its tables.
    pub async fn rows(&self, model: ReadModel) -> Result<u64, BenchError> {
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
