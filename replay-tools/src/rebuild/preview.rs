//! `rebuild --dry-run` and `--until`: a version that is built and compared, and never goes live.
//!
//! It is built like any other, with its tables in the schema `read_next`, in parallel and with every key: so it says how long a
//! rebuild takes, what it could not take and what it would change. A dry run takes all of it away again. With a moment it is what
//! the read model said when the log ended there, and its tables stay to be asked, until the next rebuild takes their place; since
//! they are behind the live ones they are no version anybody reads or brings forward, so nothing but the tables stays.

use std::time::Instant;

use serde::Serialize;
use sqlx::{Connection, PgConnection, PgPool};

use calos_domain::Timestamp;
use calos_domain::operation::RunBy;
use calos_projections::Schema;

use super::{
    Building, Parity, REBUILD_WORKERS_MAX, RebuildOptions, begin, bound_locks, build, parity, progress, switch,
};
use crate::connections::{Connections, run_sql};
use crate::error::ToolError;
use crate::fold::ReadModel;
use crate::search::first_at;
use crate::time_text::show;
use crate::turn::{Deed, Reach, Turn};
use crate::versions::{Vector, heads_of, lag_events, positions, versions};

/// Stands where the fold of an unfinished rebuild is named: nobody goes on with a preview.
const PREVIEW: &str = "preview";

/// What a rebuild would come to.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// The projection.
    pub projection: &'static str,
    /// The version that is live, and stays so.
    pub live_version: i32,
    /// The moment at which the log was taken to end, RFC 3339; none when it was read to where the live version is.
    pub until: Option<String>,
    /// How far the log was folded.
    pub positions: Vector,
    /// Events that were folded.
    pub events: u64,
    /// How long that took, with whatever else was built from the same reading of the log.
    pub seconds: f64,
    /// Events the version could not take.
    pub dead_letters: i64,
    /// How the live rows compare with what was built. Built up to a moment, that is what has changed since.
    pub parity: Parity,
    /// The tables that were left for queries; none after a dry run.
    pub tables: Vec<String>,
}

/// Builds read models beside the live ones, as far as those have read or up to a moment, compares them, and puts none in its
/// place; records nothing. `run` only says who to others who find the read models taken.
///
/// # Errors
/// [`ToolError::Refused`] when a rebuild of one of them is unfinished, unless it is to be forgotten; [`ToolError::Busy`] while
/// somebody else works on one. The database's. Nothing is left behind, unless that fails too: [`clear`] takes it away then.
pub async fn preview(
    pool: &PgPool,
    models: &[ReadModel],
    run: &RunBy,
    until: Option<Timestamp>,
    keep_tables: bool,
    options: &RebuildOptions,
) -> Result<Vec<Preview>, ToolError> {
    let mut turn = Turn::take(pool, Deed::Rebuild, run, Reach::Models(models)).await?;
    let workers = options.workers.clamp(1, REBUILD_WORKERS_MAX);
    let connections =
        Connections::in_the_background(pool.connect_options().as_ref(), u32::try_from(workers + 1).unwrap_or(u32::MAX));
    if !options.restart {
        for model in models {
            nothing_unfinished(turn.connection(), *model).await?;
        }
    }
    let mut built = build_and_compare(&connections, turn.connection(), models, until, options).await;
    let keep = built.is_ok() && keep_tables;
    if let (Ok(previews), false) = (&mut built, keep) {
        previews.iter_mut().for_each(|preview| preview.tables.clear());
    }
    let mut taken_away = Ok(());
    for model in models {
        taken_away = taken_away.and(forget(turn.connection(), *model, keep).await);
    }
    // What went wrong first says more than that it could not be taken away afterwards.
    let previews = built?;
    taken_away?;
    turn.end().await?;
    connections.close().await;
    Ok(previews)
}

/// Takes away what a preview that was stopped left behind.
///
/// # Errors
/// [`ToolError::Busy`] while somebody works on one of them; the database's.
pub async fn clear(pool: &PgPool, models: &[ReadModel], run: &RunBy) -> Result<(), ToolError> {
    let mut turn = Turn::take(pool, Deed::Rebuild, run, Reach::Models(models)).await?;
    for model in models {
        if unfinished(turn.connection(), *model).await?.as_deref() == Some(PREVIEW) {
            forget(turn.connection(), *model, false).await?;
        }
    }
    turn.end().await
}

async fn build_and_compare(
    connections: &Connections,
    operator: &mut PgConnection,
    models: &[ReadModel],
    until: Option<Timestamp>,
    options: &RebuildOptions,
) -> Result<Vec<Preview>, ToolError> {
    let begun = Instant::now();
    let target = match until {
        Some(at) => Some(recorded_by(connections.readers(), at).await?),
        None => None,
    };
    let mut buildings = Vec::with_capacity(models.len());
    for model in models {
        buildings.push(begin_preview(operator, *model).await?);
    }
    let progress = progress(operator, &buildings, target.as_ref(), options.show).await?;
    let workers = options.workers.clamp(1, REBUILD_WORKERS_MAX);
    build::load_all(connections, operator, &buildings, target.as_ref(), workers, &progress).await?;
    build::complete(connections, operator, &buildings, target.as_ref(), workers, &progress).await?;
    let mut previews = Vec::with_capacity(buildings.len());
    for building in &buildings {
        let parity = match &target {
            None => parity::compare(connections, building, options.listed_rows, &progress).await?,
            Some(_) => compare_as_is(connections, building, options.listed_rows).await?,
        };
        let (name, tables) = (building.model.name(), building.model.tables());
        let positions = positions(operator, name, building.version).await?;
        previews.push(Preview {
            projection: name,
            live_version: building.live,
            until: until.map(show),
            events: lag_events(&Vector::new(), &positions),
            positions,
            seconds: begun.elapsed().as_secs_f64(),
            dead_letters: switch::dead_letters(operator, name, building.version).await?,
            parity,
            tables: tables.iter().map(|table| format!("{}.{}", Schema::Next, table.name)).collect(),
        });
    }
    progress.finish();
    Ok(previews)
}

/// The last position of each partition that was recorded by a moment.
async fn recorded_by(pool: &PgPool, at: Timestamp) -> Result<Vector, ToolError> {
    let mut positions = Vector::new();
    let next = Timestamp::from_micros(at.micros().saturating_add(1));
    for (partition, head) in heads_of(pool).await? {
        positions.insert(partition, first_at(pool, partition, head, next).await? - 1);
    }
    Ok(positions)
}

async fn begin_preview(operator: &mut PgConnection, model: ReadModel) -> Result<Building, ToolError> {
    let mut transaction = operator.begin().await?;
    bound_locks(&mut transaction).await?;
    let known = versions(&mut transaction, model.name(), true).await?;
    let building = begin::start(&mut transaction, model, known, PREVIEW).await?;
    transaction.commit().await?;
    Ok(building)
}

/// The live rows, wherever they are, against what was built up to a moment.
async fn compare_as_is(connections: &Connections, building: &Building, listed_rows: i64) -> Result<Parity, ToolError> {
    let mut reader = connections.connect().await?;
    let mut snapshot = reader.begin().await?;
    run_sql(&mut snapshot, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let live = positions(&mut snapshot, building.model.name(), building.live).await?;
    Parity::of(&mut snapshot, building.model, Schema::Live, Schema::Next, live, listed_rows).await
}

/// By which fold an unfinished version was begun; none when there is no such version.
async fn unfinished(connection: &mut PgConnection, model: ReadModel) -> Result<Option<String>, ToolError> {
    let fold: Option<Option<String>> = sqlx::query_scalar(
        "SELECT coalesce(building_fold, '') FROM projections WHERE name = $1 AND building_version IS NOT NULL",
    )
    .bind(model.name())
    .fetch_optional(connection)
    .await?;
    Ok(fold.flatten())
}

async fn nothing_unfinished(connection: &mut PgConnection, model: ReadModel) -> Result<(), ToolError> {
    match unfinished(connection, model).await? {
        Some(fold) if fold != PREVIEW => Err(ToolError::Refused(format!(
            "a rebuild of {} is unfinished: go on with it, or forget it with --restart. Nothing was changed",
            model.name()
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Takes the version under construction away, its tables too unless they are kept.
async fn forget(operator: &mut PgConnection, model: ReadModel, keep_tables: bool) -> Result<(), ToolError> {
    let name = model.name();
    let mut transaction = operator.begin().await?;
    bound_locks(&mut transaction).await?;
    let known = versions(&mut transaction, name, true).await?;
    if !keep_tables {
        for table in model.tables() {
            run_sql(&mut transaction, &format!("DROP TABLE IF EXISTS {}.{}", Schema::Next, table.name)).await?;
        }
    }
    for statement in [
        "DELETE FROM checkpoints WHERE projection = $1 AND version = $2",
        "DELETE FROM dead_letters WHERE projection = $1 AND version = $2",
    ] {
        sqlx::query(statement).bind(name).bind(known.building).execute(&mut *transaction).await?;
    }
    sqlx::query("UPDATE projections SET building_version = NULL, building_fold = NULL WHERE name = $1")
        .bind(name)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}
