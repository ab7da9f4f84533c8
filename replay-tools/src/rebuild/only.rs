//! `rebuild --only`: the rows of one tenant or one stream put right in the live version, from a fold of those events alone.
//!
//! One transaction holds the partition's checkpoint, so the rows stand still; what is written is what a fresh fold of the log
//! gives at that position, and nobody else's row is touched. Rows that sum what several tenants did cannot be made this way,
//! and neither can rows that lack an event which is set aside: both are refused with what to do instead.

mod fold;
mod part;

use std::time::Instant;

use serde::Serialize;
use sqlx::{Connection, PgConnection, PgPool};

use calos_adapters::postgres::partitioning::partition_of;
use calos_commands::log::EventLog;
use calos_domain::operation::{OperationCommand, ProjectionRepaired, RebuildOnly, RunBy};
use calos_projections::{Schema, TableSpec};

use super::{announce, bound_locks, hold};
use crate::connections::{Connections, run_sql};
use crate::differences::{Differences, compare_where};
use crate::error::ToolError;
use crate::fold::ReadModel;
use crate::operation::{self, now};
use crate::turn::{Deed, Reach, Turn};
use crate::versions::{Vector, at_most, heads, versions};
use crate::write_guard::Confirmed;

pub use part::Only;
use part::{Part, part};

/// What was put right in one read model.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OnlyReport {
    /// The projection.
    pub projection: &'static str,
    /// The live version, which stays.
    pub version: i32,
    /// The one partition, and the position in it at which the rows are what the log gives.
    pub positions: Vector,
    /// Events folded.
    pub events: u64,
    /// How long that took.
    pub seconds: f64,
    /// The rows that were wrong, and are right now.
    pub differences: Differences,
    /// What of it is about several tenants, and stays as it is.
    pub left_as_is: Option<&'static str>,
}

/// A read model nothing was done to, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// The projection.
    pub projection: &'static str,
    /// Why.
    pub why: String,
}

/// What `--only` did.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OnlyReports {
    /// What was put right.
    pub repaired: Vec<OnlyReport>,
    /// Read models of which no rows belong to what was named.
    pub left_out: Vec<LeftOut>,
}

/// Puts right what belongs to one tenant or stream, in the live versions, and records that; without a confirmation it only
/// says what is wrong. Of several read models those that have no such rows are left out; of one that is refused.
///
/// # Errors
/// [`ToolError::Refused`] when nothing can be put right this way, with what to do instead; nothing was changed then.
/// [`ToolError::Busy`] while somebody else works on one of them. After any other error each read model is either as it was
/// or put right and recorded as begun.
pub async fn repair_only<L: EventLog>(
    pool: &PgPool,
    log: &L,
    models: &[ReadModel],
    only: &Only,
    run: &RunBy,
    confirmed: Option<&Confirmed>,
    listed_rows: i64,
) -> Result<OnlyReports, ToolError> {
    let (mut parts, mut left_out) = (Vec::new(), Vec::new());
    for &model in models {
        match part(model, only) {
            Ok(part) => parts.push((model, part)),
            Err(why) => left_out.push(LeftOut { projection: model.name(), why }),
        }
    }
    if parts.is_empty() {
        let why: Vec<String> = left_out.iter().map(|left| format!("{}: {}", left.projection, left.why)).collect();
        return Err(ToolError::Refused(format!("nothing can be put right for {only} alone. {}", why.join("; "))));
    }
    let affected: Vec<ReadModel> = parts.iter().map(|(model, _)| *model).collect();
    let mut turn = Turn::take(pool, Deed::Rebuild, run, Reach::Models(&affected)).await?;
    let connections = Connections::beside(pool, 1);
    let partition = partition(&connections, only).await?;
    let mut repaired = Vec::with_capacity(parts.len());
    for (model, part) in &parts {
        let mut transaction = turn.connection().begin().await?;
        let place = Place { model: *model, part, partition };
        let report = compare(&connections, &mut transaction, &place, listed_rows).await?;
        if confirmed.is_none() {
            transaction.rollback().await?;
            repaired.push(report);
            continue;
        }
        // Once it is known that something can be put right, and before it is.
        if repaired.is_empty() {
            announce(log, run, models, Some(&only.0)).await?;
        }
        put_right(&mut transaction, &place).await?;
        transaction.commit().await?;
        let fact = ProjectionRepaired {
            run: run.clone(),
            projection: model.name().to_owned(),
            version: report.version,
            positions: operation::positions(&report.positions),
            differences: u64::try_from(report.differences.count).unwrap_or_default(),
            only: Some(only.0.clone()),
            repaired_at: now(),
        };
        operation::record(log, run, OperationCommand::RecordRepaired(fact)).await?;
        repaired.push(report);
    }
    turn.end().await?;
    connections.close().await;
    Ok(OnlyReports { repaired, left_out })
}

/// The partition of what was named; refused when the log holds nothing of it, which is a typing error.
async fn partition(connections: &Connections, only: &Only) -> Result<i32, ToolError> {
    let partitions: i32 = sqlx::query_scalar("SELECT partitions FROM log").fetch_one(connections.readers()).await?;
    let partitions = u16::try_from(partitions)
        .map_err(|_| ToolError::Corrupt(format!("a log cannot have {partitions} partitions")))?;
    let partition = partition_of(&only.key(), partitions);
    let (kinds, id) = match &only.0 {
        // A tenant without a wallet has been founded all the same, and the other way round in an old log.
        RebuildOnly::Tenant(tenant) => (vec!["tenant", "wallet"], tenant.to_string()),
        RebuildOnly::Stream(stream) => {
            let (kind, id) = stream.split_once('/').unwrap_or((stream, ""));
            (vec![kind], id.to_owned())
        }
    };
    let exists = "SELECT EXISTS (SELECT FROM events WHERE aggregate_type = ANY($1) AND aggregate_id = $2)";
    let exists: bool = sqlx::query_scalar(exists).bind(&kinds).bind(&id).fetch_one(connections.readers()).await?;
    if exists {
        return Ok(partition);
    }
    Err(ToolError::Refused(format!("the log has no {} {id}; nothing was changed", kinds.join(" or "))))
}

/// Where rows are compared and put right.
struct Place<'a> {
    model: ReadModel,
    part: &'a Part,
    partition: i32,
}

impl Place<'_> {
    /// The rows, as a condition.
    fn condition(&self) -> String {
        format!("partition = {} AND {}", self.partition, self.part.condition)
    }
}

/// Holds the partition's checkpoint until the transaction ends, folds the streams up to it into scratch tables and compares.
async fn compare(
    connections: &Connections,
    transaction: &mut PgConnection,
    place: &Place<'_>,
    listed_rows: i64,
) -> Result<OnlyReport, ToolError> {
    let Place { model, part, partition } = *place;
    let (name, begun) = (model.name(), Instant::now());
    bound_locks(transaction).await?;
    let version = versions(transaction, name, true).await?.live;
    let held = hold_one(transaction, name, version, partition).await?;
    let through = at_most(&held, &heads(transaction).await?).get(&partition).copied().unwrap_or_default();
    nothing_set_aside(transaction, name, version, partition, part).await?;
    for table in model.tables() {
        run_sql(transaction, &table.create_table(Schema::Scratch)).await?;
    }
    let streams = fold::Streams { kinds: &part.kinds, key: &part.key, partition, through };
    let events = fold::load(connections.readers(), transaction, model, &streams).await?;
    for table in model.tables() {
        if let Some(key) = table.create_keys(Schema::Scratch).first() {
            run_sql(transaction, key).await?;
        }
    }
    let (live, log) = (Schema::Live, Schema::Scratch);
    let differences = compare_where(transaction, model.tables(), live, log, &place.condition(), listed_rows).await?;
    Ok(OnlyReport {
        projection: name,
        version,
        positions: Vector::from([(partition, through)]),
        events,
        seconds: begun.elapsed().as_secs_f64(),
        differences,
        left_as_is: part.left_out,
    })
}

/// Replaces the rows that differ from the scratch tables', and drops those.
async fn put_right(transaction: &mut PgConnection, place: &Place<'_>) -> Result<(), ToolError> {
    for table in place.model.tables() {
        replace(transaction, table, &place.condition()).await?;
        run_sql(transaction, &format!("DROP TABLE {}.{}", Schema::Scratch, table.name)).await?;
    }
    Ok(())
}

/// Holds one partition's checkpoint, and with it that partition's rows.
async fn hold_one(
    connection: &mut PgConnection,
    projection: &str,
    version: i32,
    partition: i32,
) -> Result<Vector, ToolError> {
    let lock = "SELECT position FROM checkpoints WHERE projection = $1 AND version = $2 AND partition = $3 FOR UPDATE";
    let position: Option<i64> = sqlx::query_scalar(lock)
        .bind(projection)
        .bind(version)
        .bind(partition)
        .fetch_optional(&mut *connection)
        .await?;
    match position {
        Some(position) => Ok(Vector::from([(partition, position)])),
        // Says what is wrong with the version.
        None => hold(connection, projection, version).await,
    }
}

/// Rows that lack an event cannot be what a fold gives: that is put right by taking the event up, or leaving it out.
async fn nothing_set_aside(
    connection: &mut PgConnection,
    projection: &str,
    version: i32,
    partition: i32,
    part: &Part,
) -> Result<(), ToolError> {
    let first: Option<i64> = sqlx::query_scalar(
        "SELECT min(position) FROM dead_letters WHERE projection = $1 AND version = $2 AND partition = $3
             AND aggregate_type = ANY($4) AND split_part(aggregate_id, '/', 1) = $5",
    )
    .bind(projection)
    .bind(version)
    .bind(partition)
    .bind(&part.kinds)
    .bind(&part.key)
    .fetch_one(connection)
    .await?;
    let Some(position) = first else { return Ok(()) };
    Err(ToolError::Refused(format!(
        "{projection} has set aside {partition}:{position}, which these rows lack; take it up with `calos-replay \
         dead-letters retry {projection}`, or leave it out with `dead-letters skip`. Nothing was changed in it"
    )))
}

/// Replaces the rows that are not as the fold gives them; those that are stay untouched.
async fn replace(connection: &mut PgConnection, table: &TableSpec, condition: &str) -> Result<(), ToolError> {
    let (name, live, log, columns) = (table.name, Schema::Live, Schema::Scratch, table.column_list());
    let same = |names: &mut dyn Iterator<Item = &str>, one: &str| {
        names.map(|column| format!("{one}.{column}")).collect::<Vec<_>>().join(", ")
    };
    let key = |side: &str| same(&mut table.key.iter().copied(), side);
    let row = |side: &str| same(&mut table.column_names.iter().copied(), side);
    let delete = format!(
        "DELETE FROM {live}.{name} AS l WHERE {condition} AND NOT EXISTS (SELECT FROM {log}.{name} AS f \
         WHERE ({}) = ({}) AND ROW({}) IS NOT DISTINCT FROM ROW({}))",
        key("f"),
        key("l"),
        row("f"),
        row("l")
    );
    let insert = format!(
        "INSERT INTO {live}.{name} ({columns}) SELECT {columns} FROM {log}.{name} AS f WHERE {condition} \
         AND NOT EXISTS (SELECT FROM {live}.{name} AS l WHERE ({}) = ({}))",
        key("l"),
        key("f")
    );
    run_sql(connection, &delete).await?;
    run_sql(connection, &insert).await?;
    Ok(())
}
