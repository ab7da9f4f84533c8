//! `read.periods`: the months that are closed, with their trial balances.

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor, Row};

use calos_domain::operation::PartitionPosition;
use calos_domain::period::{ClosedLine, Month, PeriodClosed, PeriodEvent};
use calos_domain::{Record, UserId};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::fact;
use crate::kind::Kind;
use crate::moment::Moment;
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Schema, TableSpec, column_names};

/// The projection.
#[derive(Debug)]
pub struct Periods;

const COLUMNS: [Column; 9] = [
    Column::new("month", ColumnType::Text),
    Column::new("partition", ColumnType::Integer),
    Column::new("closed_by", ColumnType::Uuid),
    Column::new("closed_at", ColumnType::Timestamp),
    Column::new("as_known_at", ColumnType::Timestamp),
    Column::new("heads", ColumnType::Jsonb),
    Column::new("lines", ColumnType::Jsonb),
    Column::new("hash", ColumnType::Text),
    Column::nullable("previous_hash", ColumnType::Text),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: Periods::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["month", "partition"],
    indexes: &[],
    fillfactor: 100,
}];

/// The months closed in a batch.
#[derive(Default, Debug)]
pub struct Changes {
    closed: Vec<Closed>,
}

#[derive(Debug)]
struct Closed {
    partition: i32,
    month: String,
    heads: String,
    lines: String,
    event: PeriodClosed,
}

impl Projection for Periods {
    const NAME: &'static str = "periods";
    // A month is closed once, and its row never changes.
    const GROWTH: Growth = Growth::PerEvent;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        match Kind::of(record.aggregate_type)? {
            Kind::Period => {}
            Kind::Wallet
            | Kind::Tenant
            | Kind::Licence
            | Kind::ApiKey
            | Kind::Account
            | Kind::Session
            | Kind::Device
            | Kind::EmailClaim
            | Kind::Operation
            | Kind::Payment
            | Kind::Payout
            | Kind::Adjustment
            | Kind::Reconciliation
            | Kind::LedgerAccess => return Ok(()),
        }
        let PeriodEvent::PeriodClosed(event) = fact(record)?;
        let unwritable = |error: serde_json::Error| ProjectError::Payload(error.to_string());
        changes.closed.push(Closed {
            partition: record.partition,
            month: event.month.to_string(),
            heads: serde_json::to_string(&event.heads).map_err(unwritable)?,
            lines: serde_json::to_string(&event.lines).map_err(unwritable)?,
            event,
        });
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let rows = changes.closed;
        if rows.is_empty() {
            return Ok(());
        }
        let statement = schema.sql(INSERT);
        sqlx::query(&statement)
            .bind(rows.iter().map(|row| row.month.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.partition).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.event.closed_by.0).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| Moment(row.event.closed_at)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| Moment(row.event.as_known_at)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.heads.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.lines.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.event.hash.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.event.previous_hash.as_deref()).collect::<Vec<_>>())
            .execute(connection)
            .await
            .map(drop)
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for row in changes.closed {
            sink.row(
                Self::NAME,
                &[
                    Value::Text(&row.month),
                    Value::I32(row.partition),
                    Value::Uuid(row.event.closed_by.0),
                    Value::Time(row.event.closed_at),
                    Value::Time(row.event.as_known_at),
                    Value::Jsonb(&row.heads),
                    Value::Jsonb(&row.lines),
                    Value::Text(&row.event.hash),
                    Value::optional(row.event.previous_hash.as_deref(), Value::Text),
                ],
            )?;
        }
        Ok(())
    }
}

const INSERT: &str = "
INSERT INTO {schema}.periods (month, partition, closed_by, closed_at, as_known_at, heads, lines, hash, previous_hash)
SELECT month, partition, closed_by, closed_at, as_known_at, heads::jsonb, lines::jsonb, hash, previous_hash
FROM unnest($1::text[], $2::int4[], $3::uuid[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::text[], $8::text[],
        $9::text[])
    AS u (month, partition, closed_by, closed_at, as_known_at, heads, lines, hash, previous_hash)";

/// The most months listed at once: two hundred and fifty years.
const LIST_MAX_ROWS: i64 = 3_000;

const SELECT: &str =
    "SELECT month, closed_by, closed_at, as_known_at, heads, hash, previous_hash, lines FROM read.periods";

/// The closed months, newest first, their trial balances left out.
///
/// # Errors
/// The database's, or a row that cannot be read.
pub async fn list(executor: impl PgExecutor<'_>) -> Result<Vec<PeriodClosed>, sqlx::Error> {
    let statement = SELECT.replace(", lines FROM", ", '[]'::jsonb FROM") + " ORDER BY month DESC LIMIT $1";
    let rows = sqlx::query(&statement).bind(LIST_MAX_ROWS).fetch_all(executor).await?;
    rows.iter().map(period).collect()
}

/// A closed month with its trial balance; none while it is open.
///
/// # Errors
/// As [`list`].
pub async fn find(executor: impl PgExecutor<'_>, month: Month) -> Result<Option<PeriodClosed>, sqlx::Error> {
    let statement = format!("{SELECT} WHERE month = $1");
    let row = sqlx::query(&statement).bind(month.to_string()).fetch_optional(executor).await?;
    row.as_ref().map(period).transpose()
}

fn period(row: &PgRow) -> Result<PeriodClosed, sqlx::Error> {
    let month: &str = row.try_get(0)?;
    Ok(PeriodClosed {
        month: month.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        closed_by: UserId(row.try_get(1)?),
        closed_at: row.try_get::<Moment, _>(2)?.0,
        as_known_at: row.try_get::<Moment, _>(3)?.0,
        heads: row.try_get::<Json<Vec<PartitionPosition>>, _>(4)?.0,
        hash: row.try_get(5)?,
        previous_hash: row.try_get(6)?,
        lines: row.try_get::<Json<Vec<ClosedLine>>, _>(7)?.0,
    })
}
