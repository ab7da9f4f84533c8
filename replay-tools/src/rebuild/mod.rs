//! `rebuild`: a new version of a read model, built from the log beside the live one, compared with it, and put in its
//! place while reads and writes go on.
//!
//! The order is the safety: every partition's rows commit together with their checkpoint, so a rebuild that dies leaves
//! whole partitions and nothing else, and the same command goes on from there; the comparison happens with both versions
//! at the same positions; and the switch is one transaction that holds both versions' checkpoints.

mod begin;
mod build;
mod catch_up;
mod fingerprint;
mod in_place;
pub mod only;
mod parity;
pub mod preview;
mod record;
mod sweep;
mod switch;

use serde::Serialize;
use sqlx::{Connection, PgConnection, PgPool};

use calos_commands::log::EventLog;
use calos_domain::Timestamp;
use calos_domain::operation::{OperationCommand, ProjectionRebuilt, ProjectionSwitched, RunBy};
use calos_projections::{Schema, TableSpec, registry};

use crate::connections::{Connections, run_sql};
use crate::differences::DIFFERENCES_LISTED_ROWS;
use crate::error::ToolError;
use crate::fold::{ReadModel, VersionAt};
use crate::operation::{self, now};
use crate::progress::estimate::Afterwards;
use crate::progress::{Progress, Show, Watch};
use crate::turn::{Deed, Reach, Turn};
use crate::versions::{Vector, heads, lag_events, lock_positions};
use crate::write_guard::Confirmed;

pub use parity::Parity;
pub use record::record_cancelled;
use record::{announce, repaired};

/// Partitions folded at the same time unless somebody asks for another number.
pub const REBUILD_WORKERS: usize = 3;

/// The most partitions that can be folded at the same time.
pub const REBUILD_WORKERS_MAX: usize = 16;

/// Locks that would make readers queue are given up after this long; the rebuild can then be repeated.
const LOCK_TIMEOUT_SECONDS: u64 = 15;

/// How a rebuild is done.
#[derive(Clone, Copy, Debug)]
pub struct RebuildOptions {
    /// Partitions folded at the same time at most; fewer while others write, who keep half of the cores.
    pub workers: usize,
    /// Replace the rows of the live version in one transaction, while its readers wait.
    pub in_place: bool,
    /// Forget an unfinished rebuild instead of going on with it.
    pub restart: bool,
    /// The caller has recorded already that it begins.
    pub announced: bool,
    /// How many differing rows the parity report lists.
    pub listed_rows: i64,
    /// Where progress is shown.
    pub show: Show,
}

impl Default for RebuildOptions {
    fn default() -> Self {
        Self {
            workers: REBUILD_WORKERS,
            in_place: false,
            restart: false,
            announced: false,
            listed_rows: DIFFERENCES_LISTED_ROWS,
            show: Show::Silent,
        }
    }
}

/// What a rebuild did.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RebuildReport {
    /// The projection.
    pub projection: &'static str,
    /// The version that was live before.
    pub from_version: i32,
    /// The version that is live now.
    pub to_version: i32,
    /// How far the log had been folded when the work was done.
    pub positions: Vector,
    /// Events folded by this run.
    pub events: u64,
    /// How long that took, with whatever else was rebuilt from the same reading of the log.
    pub seconds: f64,
    /// Of it: until every row and every key stood, before they were compared and took their place.
    pub build_seconds: f64,
    /// Partitions a run before this one had folded, beside others perhaps not to their end.
    pub resumed_partitions: usize,
    /// Events the new version could not take.
    pub dead_letters: i64,
    /// How the rows that stood compare with the rows the log gives.
    pub parity: Parity,
}

/// Rebuilds one read model and records that in the log. `pool` has to log in as the owner of the tables.
///
/// # Errors
/// As [`rebuild_all`].
pub async fn rebuild<L: EventLog>(
    pool: &PgPool,
    log: &L,
    model: ReadModel,
    run: &RunBy,
    confirmed: &Confirmed,
    options: &RebuildOptions,
) -> Result<RebuildReport, ToolError> {
    let report = rebuild_all(pool, log, &[model], run, confirmed, options).await?.pop();
    report.ok_or_else(|| ToolError::Corrupt(format!("{} was not rebuilt", model.name())))
}

/// Rebuilds several read models, reading the log once for all of them, and records that in the log.
///
/// # Errors
/// [`ToolError::Busy`] while another operator rebuilds one of them; otherwise whatever stopped it. Nothing the live
/// versions show has changed then, but for those whose switch was recorded, and the same call goes on where this one
/// stopped. Dropping the future stops it too.
pub async fn rebuild_all<L: EventLog>(
    pool: &PgPool,
    log: &L,
    models: &[ReadModel],
    run: &RunBy,
    confirmed: &Confirmed,
    options: &RebuildOptions,
) -> Result<Vec<RebuildReport>, ToolError> {
    rebuild_watched(pool, log, models, run, confirmed, options, &Watch::default()).await
}

/// As [`rebuild_all`], seen by whoever has the watch.
///
/// # Errors
/// As [`rebuild_all`].
pub async fn rebuild_watched<L: EventLog>(
    pool: &PgPool,
    log: &L,
    models: &[ReadModel],
    run: &RunBy,
    _confirmed: &Confirmed,
    options: &RebuildOptions,
    watch: &Watch,
) -> Result<Vec<RebuildReport>, ToolError> {
    let mut turn = Turn::take(pool, Deed::Rebuild, run, Reach::Models(models)).await?;
    let workers = options.workers.clamp(1, REBUILD_WORKERS_MAX);
    let readers = u32::try_from(workers + 1).unwrap_or(u32::MAX);
    // In place, everybody waits until it is done.
    let connections = if options.in_place {
        Connections::beside(pool, readers)
    } else {
        Connections::in_the_background(pool.connect_options().as_ref(), readers)
    };
    if !options.announced {
        announce(log, run, models, None).await?;
    }
    let operator = turn.connection();
    let mut reports = Vec::with_capacity(models.len());
    if options.in_place {
        for &model in models {
            let report = in_place::rebuild(&connections, operator, model, options).await?;
            operation::record(log, run, OperationCommand::RecordRepaired(repaired(&report, run))).await?;
            reports.push(report);
        }
    } else {
        let mut buildings = Vec::with_capacity(models.len());
        for &model in models {
            buildings.push(begin::begin(operator, model, options.restart).await?);
        }
        let progress = progress(operator, &buildings, None, options.show).await?;
        watch.see(&progress);
        build::load_all(&connections, operator, &buildings, None, workers, &progress).await?;
        let site = Site { connections: &connections, run, options, progress: &progress, started_at: now() };
        for together in buildings.chunks(build::at_once(&connections, buildings.len(), &progress).await?) {
            let stood = build::complete(&connections, operator, together, None, workers, &progress).await?;
            for building in together {
                reports.push(site.take_over(operator, log, building, stood.as_secs_f64()).await?);
            }
        }
        progress.finish();
    }
    turn.end().await?;
    connections.close().await;
    Ok(reports)
}

/// Makes every read model from a log that was just read in, in place and without a trace of its own: what brought the log
/// records that, and has the log to itself. Answers how many there are.
pub(crate) async fn replay_all(pool: &PgPool, show: Show) -> Result<usize, ToolError> {
    let connections = Connections::beside(pool, u32::try_from(REBUILD_WORKERS).unwrap_or(u32::MAX));
    let mut operator = connections.connect().await?;
    let options = RebuildOptions { in_place: true, show, ..RebuildOptions::default() };
    for model in registry::ALL {
        in_place::rebuild(&connections, &mut operator, *model, &options).await?;
    }
    operator.close().await?;
    connections.close().await;
    Ok(registry::ALL.len())
}

/// What every read model of one run shares.
struct Site<'a> {
    connections: &'a Connections,
    run: &'a RunBy,
    options: &'a RebuildOptions,
    progress: &'a Progress,
    started_at: Timestamp,
}

impl Site<'_> {
    /// Compares a finished version with the live one and puts it in its place.
    async fn take_over<L: EventLog>(
        &self,
        operator: &mut PgConnection,
        log: &L,
        building: &Building,
        build_seconds: f64,
    ) -> Result<RebuildReport, ToolError> {
        let Self { connections, run, options, progress, started_at } = *self;
        let projection = building.model.name();
        let parity = parity::compare(connections, building, options.listed_rows, progress).await?;
        let rebuilt = ProjectionRebuilt {
            run: run.clone(),
            projection: projection.to_owned(),
            live_version: building.live,
            built_version: building.version,
            positions: operation::positions(&parity.positions),
            events: lag_events(&Vector::new(), &parity.positions),
            rows: u64::try_from(parity.rows).unwrap_or_default(),
            differences: parity.differing_rows(),
            started_at,
            finished_at: now(),
        };
        // Before the switch: a version must not go live without a trace of where it came from.
        operation::record(log, run, OperationCommand::RecordRebuilt(rebuilt)).await?;
        let switched = switch::switch(connections, operator, building, progress).await?;
        let fact = ProjectionSwitched {
            run: run.clone(),
            projection: projection.to_owned(),
            from_version: building.live,
            to_version: building.version,
            positions: operation::positions(&switched.positions),
            switched_at: now(),
        };
        operation::record(log, run, OperationCommand::RecordSwitched(fact)).await?;
        Ok(RebuildReport {
            projection,
            from_version: building.live,
            to_version: building.version,
            events: lag_events(&building.reached, &switched.positions),
            positions: switched.positions,
            seconds: progress.elapsed().as_secs_f64(),
            build_seconds,
            resumed_partitions: building.resumed_partitions(),
            dead_letters: switched.dead_letters,
            parity,
        })
    }
}

/// The events that are left to read for the version that has come least far: up to `until`, or to the heads.
async fn progress(
    operator: &mut PgConnection,
    buildings: &[Building],
    until: Option<&Vector>,
    show: Show,
) -> Result<Progress, ToolError> {
    let heads = match until {
        Some(until) => until.clone(),
        None => heads(operator).await?,
    };
    let left = buildings.iter().map(|building| lag_events(&building.reached, &heads)).max().unwrap_or_default();
    let title = match buildings {
        [only] => only.model.name().to_owned(),
        several => format!("{} read models", several.len()),
    };
    let progress = Progress::new(show, &title, left);
    let mut afterwards = Afterwards::default();
    for model in buildings.iter().map(|building| building.model) {
        for table in model.tables() {
            let rows = expected_rows(operator, table).await?;
            let compared = if fingerprint::is_for(model) { &mut afterwards.summed } else { &mut afterwards.compared };
            *compared += rows;
            // One over some of the rows costs little.
            let whole = table.indexes.iter().filter(|index| index.only.is_none()).count();
            afterwards.keys += rows * (1 + whole) as f64;
        }
    }
    progress.then(afterwards);
    Ok(progress)
}

/// About how many rows a table will have: as many as the live one, which is there to be looked at or not.
async fn expected_rows(connection: &mut PgConnection, table: &TableSpec) -> Result<f64, ToolError> {
    let rows: Option<f32> = sqlx::query_scalar("SELECT reltuples FROM pg_class WHERE oid = to_regclass($1)")
        .bind(format!("{}.{}", Schema::Live, table.name))
        .fetch_optional(connection)
        .await?;
    Ok(rows.map_or(0.0, |rows| f64::from(rows.max(0.0))))
}

/// A version under construction.
#[derive(Clone)]
struct Building {
    model: ReadModel,
    live: i32,
    version: i32,
    /// How far each partition had been folded when this run began.
    reached: Vector,
}

impl Building {
    fn at(&self) -> VersionAt<'static> {
        VersionAt { projection: self.model.name(), version: self.version, schema: Schema::Next }
    }

    fn resumed_partitions(&self) -> usize {
        self.reached.values().filter(|&&position| position > 0).count()
    }
}

/// Bounds how long the current transaction waits for a lock.
async fn bound_locks(connection: &mut PgConnection) -> Result<(), ToolError> {
    run_sql(connection, &format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")).await?;
    Ok(())
}

/// Locks a version's checkpoints; a version without any is not one.
async fn hold(connection: &mut PgConnection, projection: &str, version: i32) -> Result<Vector, ToolError> {
    let held = lock_positions(connection, projection, version).await?;
    if held.is_empty() {
        return Err(ToolError::Corrupt(format!("{projection} version {version} has no checkpoints")));
    }
    Ok(held)
}
