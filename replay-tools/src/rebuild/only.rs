//! `rebuild --only`: the rows of one tenant or one stream put right in the live version, from a fold of those events alone.
//!
//! One transaction holds the partition's checkpoint, so the rows stand still; what is written is what a fresh fold of the log
//! gives at that position, and nobody else's row is touched. Rows that sum what several tenants did cannot be made this way,
//! and neither can rows that lack an event which is set aside: both are refused with what to do instead.

mod fold;

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use serde::Serialize;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use calos_adapters::postgres::partitioning::partition_of;
use calos_commands::log::EventLog;
use calos_domain::TenantId;
use calos_domain::operation::{OperationCommand, ProjectionRepaired, RebuildOnly, RunBy};
use calos_domain::stream::partition_key;
use calos_projections::scope::{Owner, Rows, Scope, scope};
use calos_projections::{Kind, Schema, TableSpec};

use super::{announce, bound_locks, hold};
use crate::connections::{Connections, run_sql};
use crate::differences::{Differences, compare_where};
use crate::error::ToolError;
use crate::fold::ReadModel;
use crate::operation::{self, now};
use crate::turn::{Deed, Reach, Turn};
use crate::versions::{Vector, at_most, heads, versions};
use crate::write_guard::Confirmed;

/// What `--only` names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Only(RebuildOnly);

impl Only {
    /// As it is recorded.
    #[must_use]
    pub fn fact(&self) -> &RebuildOnly {
        &self.0
    }

    /// The key of the streams it names.
    fn key(&self) -> String {
        match &self.0 {
            RebuildOnly::Tenant(tenant) => tenant.to_string(),
            RebuildOnly::Stream(stream) => {
                let id = stream.split_once('/').map_or("", |(_, id)| id);
                partition_key(id).to_owned()
            }
        }
    }
}

impl fmt::Display for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            RebuildOnly::Tenant(tenant) => write!(f, "tenant:{tenant}"),
            RebuildOnly::Stream(stream) => write!(f, "stream:{stream}"),
        }
    }
}

impl FromStr for Only {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected wallet:UUID, tenant:UUID or stream:KIND/ID".to_owned();
        let (what, name) = text.split_once(':').ok_or_else(expected)?;
        // Nobody's rows have the nil id, and are everybody's.
        let tenant = || Uuid::try_parse(name).ok().filter(|id| !id.is_nil()).ok_or_else(expected);
        match what {
            "tenant" => Ok(Self(RebuildOnly::Tenant(TenantId(tenant()?)))),
            "wallet" => Ok(Self(RebuildOnly::Stream(format!("wallet/{}", tenant()?)))),
            "stream" => {
                let (kind, id) = name.split_once('/').ok_or_else(expected)?;
                let known = Kind::of(kind).is_ok();
                if id.is_empty() || !known { Err(expected()) } else { Ok(Self(RebuildOnly::Stream(name.to_owned()))) }
            }
            _ => Err(expected()),
        }
    }
}

/// Which rows of one read model are put right, and from which streams.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Part {
    /// The aggregates whose streams are folded: all of these under the key.
    kinds: Vec<&'static str>,
    key: String,
    /// The rows, as a condition.
    condition: String,
    left_out: Option<&'static str>,
}

/// What of a read model belongs to what was named.
fn part(model: ReadModel, only: &Only) -> Result<Part, String> {
    let rows = match scope(model.name()) {
        Scope::Whole(why) => return Err(format!("{why}; rebuild it as a whole")),
        Scope::Rows(rows) => rows,
    };
    let Rows { owner, kinds, key, own, left_out } = rows;
    let mut conditions = Vec::new();
    match &only.0 {
        RebuildOnly::Tenant(tenant) => match (owner, key) {
            (Owner::Tenant, Some(column)) => conditions.push(equals(column, &tenant.to_string())),
            (Owner::Tenant, None) | (Owner::Person | Owner::Nobody, _) => {
                let instead = own.map_or("", |own| own.kind.as_str());
                return Err(format!("its rows are no tenant's; name a stream: --only stream:{instead}/ID"));
            }
        },
        RebuildOnly::Stream(stream) => {
            let (kind, id) = stream.split_once('/').ok_or_else(|| format!("{stream} is no stream"))?;
            let Some(own) = own else {
                return Err("its rows are made of several streams of a tenant; use --only tenant:ID".to_owned());
            };
            if own.kind.as_str() != kind {
                return Err(format!("none of its rows is a {kind}'s; they are made of {} streams", own.kind.as_str()));
            }
            let (first, rest) = id.split_once('/').map_or((id, None), |(first, rest)| (first, Some(rest)));
            if let Some(column) = key {
                // What is compared with a uuid has to be one, and nobody's rows are everybody's.
                let uuid = Uuid::try_parse(first).ok().filter(|id| !id.is_nil());
                conditions.push(equals(column, &uuid.ok_or_else(|| not_an_id(id, kind))?.to_string()));
            }
            match (own.rest, rest) {
                (None, None) => {}
                (Some(column), Some(rest)) if !rest.is_empty() => {
                    if is_uuid(model, column) && Uuid::try_parse(rest).is_err() {
                        return Err(not_an_id(id, kind));
                    }
                    conditions.push(equals(column, rest));
                }
                (Some(_), _) | (None, Some(_)) => return Err(not_an_id(id, kind)),
            }
        }
    }
    let kinds = kinds.iter().map(|kind| kind.as_str()).collect();
    Ok(Part { kinds, key: only.key(), condition: conditions.join(" AND "), left_out })
}

fn not_an_id(id: &str, kind: &str) -> String {
    format!("{id} is no id of a {kind}")
}

fn is_uuid(model: ReadModel, column: &str) -> bool {
    let mut columns = model.tables().iter().flat_map(|table| table.columns);
    columns.any(|known| known.name == column && known.of == calos_projections::ColumnType::Uuid)
}

fn equals(column: &str, value: &str) -> String {
    format!("{column} = '{}'", value.replace('\'', "''"))
}

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
    if confirmed.is_some() {
        announce(log, run, models, Some(&only.0)).await?;
    }
    let mut repaired = Vec::with_capacity(parts.len());
    for (model, part) in &parts {
        let place = Place { model: *model, part, partition, change: confirmed.is_some() };
        let report = put_right(&connections, turn.connection(), &place, listed_rows).await?;
        if confirmed.is_none() {
            repaired.push(report);
            continue;
        }
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

/// Where rows are put right, or only compared.
struct Place<'a> {
    model: ReadModel,
    part: &'a Part,
    partition: i32,
    change: bool,
}

/// One transaction: the partition's checkpoint is held, the streams are folded up to it, and rows that differ are replaced.
async fn put_right(
    connections: &Connections,
    operator: &mut PgConnection,
    place: &Place<'_>,
    listed_rows: i64,
) -> Result<OnlyReport, ToolError> {
    let Place { model, part, partition, change } = *place;
    let (name, begun) = (model.name(), Instant::now());
    let mut transaction = operator.begin().await?;
    bound_locks(&mut transaction).await?;
    let version = versions(&mut transaction, name, true).await?.live;
    let held = hold_one(&mut transaction, name, version, partition).await?;
    let through = at_most(&held, &heads(&mut transaction).await?).get(&partition).copied().unwrap_or_default();
    nothing_set_aside(&mut transaction, name, version, partition, part).await?;
    for table in model.tables() {
        run_sql(&mut transaction, &table.create_table(Schema::Scratch)).await?;
    }
    let streams = fold::Streams { kinds: &part.kinds, key: &part.key, partition, through };
    let events = fold::load(connections.readers(), &mut transaction, model, &streams).await?;
    for table in model.tables() {
        if let Some(key) = table.create_keys(Schema::Scratch).first() {
            run_sql(&mut transaction, key).await?;
        }
    }
    let (live, log) = (Schema::Live, Schema::Scratch);
    let condition = format!("partition = {partition} AND {}", part.condition);
    let differences = compare_where(&mut transaction, model.tables(), live, log, &condition, listed_rows).await?;
    if change {
        for table in model.tables() {
            replace(&mut transaction, table, &condition).await?;
            run_sql(&mut transaction, &format!("DROP TABLE {log}.{}", table.name)).await?;
        }
        transaction.commit().await?;
    } else {
        transaction.rollback().await?;
    }
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

#[cfg(test)]
mod tests {
    use calos_projections::registry;

    use super::*;

    const ID: &str = "0193a5c8-1111-7222-8333-444455556666";

    fn named(text: &str) -> Only {
        text.parse().unwrap()
    }

    fn part_of(projection: &str, only: &str) -> Result<String, String> {
        part(registry::find(projection).unwrap(), &named(only)).map(|part| part.condition)
    }

    #[test]
    fn a_wallet_a_tenant_or_a_stream_is_named_and_nobody_is_not() {
        assert_eq!(named(&format!("wallet:{ID}")).to_string(), format!("stream:wallet/{ID}"));
        assert_eq!(named(&format!("tenant:{ID}")).to_string(), format!("tenant:{ID}"));
        assert_eq!(named("stream:api_key/1/2").key(), "1");
        let nil = Uuid::nil();
        for wrong in [
            ID,
            "wallet:",
            "tenant:x",
            "stream:wallet",
            "stream:wallet/",
            "stream:walet/1",
            "user:1",
            &format!("tenant:{nil}"),
        ] {
            assert!(wrong.parse::<Only>().is_err(), "{wrong}");
        }
        assert!(part_of("wallet_balance", &format!("stream:wallet/{nil}")).is_err());
    }

    #[test]
    fn the_rows_of_a_stream_are_found_by_its_id_and_nothing_of_it_is_taken_as_a_statement() {
        let tenant = format!("tenant_id = '{ID}'");
        assert_eq!(part_of("wallet_ledger", &format!("wallet:{ID}")), Ok(tenant.clone()));
        assert_eq!(part_of("journal", &format!("tenant:{ID}")), Ok(tenant.clone()));
        assert_eq!(part_of("api_keys", &format!("tenant:{ID}")), Ok(tenant.clone()));
        let key = part_of("api_keys", &format!("stream:api_key/{ID}/a'b"));
        assert_eq!(key, Ok(format!("{tenant} AND key_id = 'a''b'")));
        let session = part_of("sessions", &format!("stream:session/{ID}/{ID}"));
        assert_eq!(session, Ok(format!("user_id = '{ID}' AND session_id = '{ID}'")));
        for (projection, only) in [
            ("wallet_ledger", format!("stream:wallet/{ID}/more")),
            ("sessions", format!("stream:session/{ID}")),
            ("sessions", format!("stream:session/{ID}/x")),
            ("sessions", format!("stream:account/{ID}")),
        ] {
            assert!(part_of(projection, &only).is_err(), "{projection} {only}");
        }
    }

    #[test]
    fn sums_over_tenants_are_refused_with_what_to_do_instead() {
        let why = |projection, only: String| part_of(projection, &only).unwrap_err();
        assert!(why("trial_balance", format!("tenant:{ID}")).contains("rebuild it as a whole"));
        assert!(why("journal", format!("wallet:{ID}")).contains("--only tenant:"));
        assert!(why("sessions", format!("tenant:{ID}")).contains("--only stream:session/"));
        assert!(why("periods", format!("tenant:{ID}")).contains("rebuild it as a whole"));
        let left = part(registry::find("account_balances").unwrap(), &named(&format!("tenant:{ID}"))).unwrap();
        assert!(left.left_out.unwrap().contains("every tenant"));
    }
}
