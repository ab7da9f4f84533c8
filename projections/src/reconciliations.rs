//! `read.reconciliations` and `read.reconciliation_exceptions`: what the books and somebody else's did not agree on, who
//! looks after it, and what became of it.

mod reading;

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;
use uuid::Uuid;

use calos_domain::reconciliation::{
    Exception, ExceptionAssigned, ExceptionResolved, ReconciliationEvent, ReconciliationRun,
};
use calos_domain::{Record, Timestamp};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::fact;
use crate::kind::Kind;
use crate::moment::Moment;
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Index, Schema, TableSpec, column_names};

pub use reading::{ExceptionRow, ReconciliationRow, exceptions, find, page};

/// The projection.
#[derive(Debug)]
pub struct Reconciliations;

const RUN_COLUMNS: [Column; 11] = [
    Column::new("reconciliation_id", ColumnType::Uuid),
    Column::new("partition", ColumnType::Integer),
    Column::new("source", ColumnType::Text),
    Column::new("from_at", ColumnType::Timestamp),
    Column::new("to_at", ColumnType::Timestamp),
    Column::new("matched", ColumnType::Bigint),
    Column::new("found", ColumnType::Bigint),
    Column::new("outside", ColumnType::Bigint),
    Column::new("statement_hash", ColumnType::Text),
    Column::new("run_by", ColumnType::Uuid),
    Column::new("run_at", ColumnType::Timestamp),
];

const EXCEPTIONS: &str = "reconciliation_exceptions";

const EXCEPTION_COLUMNS: [Column; 18] = [
    Column::new("reconciliation_id", ColumnType::Uuid),
    Column::new("number", ColumnType::Bigint),
    Column::new("partition", ColumnType::Integer),
    Column::new("kind", ColumnType::Text),
    Column::new("reference", ColumnType::Text),
    Column::nullable("ours_amount", ColumnType::Bigint),
    Column::nullable("ours_fee", ColumnType::Bigint),
    Column::nullable("ours_at", ColumnType::Timestamp),
    Column::nullable("theirs_amount", ColumnType::Bigint),
    Column::nullable("theirs_fee", ColumnType::Bigint),
    Column::nullable("theirs_at", ColumnType::Timestamp),
    Column::nullable("owner", ColumnType::Uuid),
    Column::nullable("assigned_by", ColumnType::Uuid),
    Column::nullable("assigned_at", ColumnType::Timestamp),
    Column::nullable("resolution", ColumnType::Text),
    Column::nullable("note", ColumnType::Text),
    Column::nullable("resolved_by", ColumnType::Uuid),
    Column::nullable("resolved_at", ColumnType::Timestamp),
];

const TABLES: &[TableSpec] = &[
    TableSpec {
        name: Reconciliations::NAME,
        columns: &RUN_COLUMNS,
        column_names: &column_names(&RUN_COLUMNS),
        key: &["reconciliation_id", "partition"],
        indexes: &[],
        fillfactor: 100,
    },
    TableSpec {
        name: EXCEPTIONS,
        columns: &EXCEPTION_COLUMNS,
        column_names: &column_names(&EXCEPTION_COLUMNS),
        key: &["reconciliation_id", "number", "partition"],
        indexes: &[Index {
            name: "reconciliation_exceptions_open",
            columns: "reconciliation_id, number",
            only: Some("resolution IS NULL"),
        }],
        fillfactor: 80,
    },
];

/// What happened to each run.
#[derive(Default, Debug)]
pub struct Changes {
    runs: HashMap<Uuid, Change>,
}

#[derive(Default, Debug)]
struct Change {
    partition: i32,
    run: Option<Box<ReconciliationRun>>,
    /// The last of each, by exception.
    assigned: BTreeMap<u32, ExceptionAssigned>,
    resolved: BTreeMap<u32, ExceptionResolved>,
}

impl Changes {
    /// In the order of the key, so that two writers never wait for each other crosswise.
    fn sorted(self) -> Vec<(Uuid, Change)> {
        let mut rows: Vec<_> = self.runs.into_iter().collect();
        rows.sort_unstable_by_key(|row| row.0);
        rows
    }
}

/// The run of a stream `reconciliation/<id>`.
fn run_id(record: &Record<'_>) -> Result<Uuid, ProjectError> {
    let id = record.aggregate_id.split_once('/').and_then(|(_, id)| Uuid::try_parse(id).ok());
    id.ok_or_else(|| ProjectError::StreamId(record.aggregate_id.to_owned()))
}

impl Projection for Reconciliations {
    const NAME: &'static str = "reconciliations";
    const GROWTH: Growth = Growth::PerKey;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        match Kind::of(record.aggregate_type)? {
            Kind::Reconciliation => {}
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
            | Kind::Period
            | Kind::LedgerAccess => return Ok(()),
        }
        let event: ReconciliationEvent = fact(record)?;
        let id = run_id(record)?;
        if let ReconciliationEvent::ReconciliationRun(event) = &event {
            for figure in [event.matched, event.found, event.outside] {
                i64::try_from(figure).map_err(|_| ProjectError::OutOfRange { figure: "a count of movements" })?;
            }
        }
        let change = changes.runs.entry(id).or_default();
        change.partition = record.partition;
        match event {
            ReconciliationEvent::ReconciliationRun(event) => change.run = Some(Box::new(event)),
            ReconciliationEvent::ExceptionAssigned(event) => {
                change.assigned.insert(event.number, event);
            }
            ReconciliationEvent::ExceptionResolved(event) => {
                change.resolved.insert(event.number, event);
            }
        }
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let rows = changes.sorted();
        store_runs(&rows, schema, &mut *connection).await?;
        store_exceptions(&rows, schema, &mut *connection).await?;
        store_assigned(&rows, schema, &mut *connection).await?;
        store_resolved(&rows, schema, connection).await
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for (id, row) in changes.sorted() {
            let Some(run) = row.run.as_deref() else { continue };
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(id),
                    Value::I32(row.partition),
                    Value::Text(&run.source),
                    Value::Time(run.from),
                    Value::Time(run.to),
                    Value::I64(count(run.matched)),
                    Value::I64(count(run.found)),
                    Value::I64(count(run.outside)),
                    Value::Text(&run.statement_hash),
                    Value::Uuid(run.run_by.0),
                    Value::Time(run.run_at),
                ],
            )?;
            for exception in &run.exceptions {
                copy_exception(id, &row, exception, sink)?;
            }
        }
        Ok(())
    }
}

/// A count that was checked when its event was taken.
fn count(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}

fn copy_exception(id: Uuid, row: &Change, exception: &Exception, sink: &mut CopySink) -> Result<(), CopyError> {
    let assigned = row.assigned.get(&exception.number);
    let resolved = row.resolved.get(&exception.number);
    let mut values = [Value::Null; EXCEPTION_COLUMNS.len()];
    values[..5].copy_from_slice(&[
        Value::Uuid(id),
        Value::I64(i64::from(exception.number)),
        Value::I32(row.partition),
        Value::Text(exception.kind.as_str()),
        Value::Text(&exception.reference),
    ]);
    for (first, side) in [(5, &exception.ours), (8, &exception.theirs)] {
        if let Some(side) = side {
            let shown = [Value::I64(side.amount.get()), Value::I64(side.fee.get()), Value::Time(side.at)];
            values[first..first + 3].copy_from_slice(&shown);
        }
    }
    if let Some(assigned) = assigned {
        let shown = [Value::Uuid(assigned.owner.0), Value::Uuid(assigned.by.0), Value::Time(assigned.at)];
        values[11..14].copy_from_slice(&shown);
    }
    if let Some(resolved) = resolved {
        values[14..].copy_from_slice(&[
            Value::Text(resolved.resolution.as_str()),
            Value::Text(&resolved.note),
            Value::Uuid(resolved.by.0),
            Value::Time(resolved.at),
        ]);
    }
    sink.row(EXCEPTIONS, &values)
}

async fn store_runs(rows: &[(Uuid, Change)], schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let new: Vec<_> = rows.iter().filter_map(|(id, row)| Some((*id, row.partition, row.run.as_deref()?))).collect();
    if new.is_empty() {
        return Ok(());
    }
    let statement = schema.sql(
        "INSERT INTO {schema}.reconciliations (reconciliation_id, partition, source, from_at, to_at, matched, found,
             outside, statement_hash, run_by, run_at)
         SELECT * FROM unnest($1::uuid[], $2::int4[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::int8[],
             $7::int8[], $8::int8[], $9::text[], $10::uuid[], $11::timestamptz[])",
    );
    sqlx::query(&statement)
        .bind(new.iter().map(|row| row.0).collect::<Vec<_>>())
        .bind(new.iter().map(|row| row.1).collect::<Vec<_>>())
        .bind(new.iter().map(|row| row.2.source.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|row| Moment(row.2.from)).collect::<Vec<_>>())
        .bind(new.iter().map(|row| Moment(row.2.to)).collect::<Vec<_>>())
        .bind(new.iter().map(|row| count(row.2.matched)).collect::<Vec<_>>())
        .bind(new.iter().map(|row| count(row.2.found)).collect::<Vec<_>>())
        .bind(new.iter().map(|row| count(row.2.outside)).collect::<Vec<_>>())
        .bind(new.iter().map(|row| row.2.statement_hash.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|row| row.2.run_by.0).collect::<Vec<_>>())
        .bind(new.iter().map(|row| Moment(row.2.run_at)).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map(drop)
}

async fn store_exceptions(
    rows: &[(Uuid, Change)],
    schema: Schema,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    let of = |(id, row): &'_ (Uuid, Change)| (*id, row.partition);
    let new: Vec<((Uuid, i32), &Exception)> = rows
        .iter()
        .flat_map(|row| row.1.run.iter().flat_map(|run| &run.exceptions).map(move |exception| (of(row), exception)))
        .collect();
    if new.is_empty() {
        return Ok(());
    }
    let ours = || new.iter().map(|row| row.1.ours);
    let theirs = || new.iter().map(|row| row.1.theirs);
    let statement = schema.sql(
        "INSERT INTO {schema}.reconciliation_exceptions (reconciliation_id, number, partition, kind, reference,
             ours_amount, ours_fee, ours_at, theirs_amount, theirs_fee, theirs_at)
         SELECT * FROM unnest($1::uuid[], $2::int8[], $3::int4[], $4::text[], $5::text[], $6::int8[], $7::int8[],
             $8::timestamptz[], $9::int8[], $10::int8[], $11::timestamptz[])",
    );
    sqlx::query(&statement)
        .bind(new.iter().map(|row| row.0.0).collect::<Vec<_>>())
        .bind(new.iter().map(|row| i64::from(row.1.number)).collect::<Vec<_>>())
        .bind(new.iter().map(|row| row.0.1).collect::<Vec<_>>())
        .bind(new.iter().map(|row| row.1.kind.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|row| row.1.reference.as_str()).collect::<Vec<_>>())
        .bind(ours().map(|side| side.map(|side| side.amount.get())).collect::<Vec<_>>())
        .bind(ours().map(|side| side.map(|side| side.fee.get())).collect::<Vec<_>>())
        .bind(ours().map(|side| side.map(|side| Moment(side.at))).collect::<Vec<_>>())
        .bind(theirs().map(|side| side.map(|side| side.amount.get())).collect::<Vec<_>>())
        .bind(theirs().map(|side| side.map(|side| side.fee.get())).collect::<Vec<_>>())
        .bind(theirs().map(|side| side.map(|side| Moment(side.at))).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map(drop)
}

/// Run, number and partition of something said about an exception.
type Said<'a, T> = Vec<(Uuid, i32, &'a T)>;

async fn store_assigned(
    rows: &[(Uuid, Change)],
    schema: Schema,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    let said: Said<'_, ExceptionAssigned> =
        rows.iter().flat_map(|(id, row)| row.assigned.values().map(|event| (*id, row.partition, event))).collect();
    if said.is_empty() {
        return Ok(());
    }
    let statement = schema.sql(
        "UPDATE {schema}.reconciliation_exceptions AS e
         SET owner = u.owner, assigned_by = u.assigned_by, assigned_at = u.assigned_at
         FROM unnest($1::uuid[], $2::int8[], $3::int4[], $4::uuid[], $5::uuid[], $6::timestamptz[])
             AS u (reconciliation_id, number, partition, owner, assigned_by, assigned_at)
         WHERE e.reconciliation_id = u.reconciliation_id AND e.number = u.number AND e.partition = u.partition",
    );
    sqlx::query(&statement)
        .bind(said.iter().map(|row| row.0).collect::<Vec<_>>())
        .bind(said.iter().map(|row| i64::from(row.2.number)).collect::<Vec<_>>())
        .bind(said.iter().map(|row| row.1).collect::<Vec<_>>())
        .bind(said.iter().map(|row| row.2.owner.0).collect::<Vec<_>>())
        .bind(said.iter().map(|row| row.2.by.0).collect::<Vec<_>>())
        .bind(said.iter().map(|row| Moment(row.2.at)).collect::<Vec<Moment>>())
        .execute(connection)
        .await
        .map(drop)
}

async fn store_resolved(
    rows: &[(Uuid, Change)],
    schema: Schema,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    let said: Said<'_, ExceptionResolved> =
        rows.iter().flat_map(|(id, row)| row.resolved.values().map(|event| (*id, row.partition, event))).collect();
    if said.is_empty() {
        return Ok(());
    }
    let at = |row: &(Uuid, i32, &ExceptionResolved)| -> Timestamp { row.2.at };
    let statement = schema.sql(
        "UPDATE {schema}.reconciliation_exceptions AS e
         SET resolution = u.resolution, note = u.note, resolved_by = u.resolved_by, resolved_at = u.resolved_at
         FROM unnest($1::uuid[], $2::int8[], $3::int4[], $4::text[], $5::text[], $6::uuid[], $7::timestamptz[])
             AS u (reconciliation_id, number, partition, resolution, note, resolved_by, resolved_at)
         WHERE e.reconciliation_id = u.reconciliation_id AND e.number = u.number AND e.partition = u.partition",
    );
    sqlx::query(&statement)
        .bind(said.iter().map(|row| row.0).collect::<Vec<_>>())
        .bind(said.iter().map(|row| i64::from(row.2.number)).collect::<Vec<_>>())
        .bind(said.iter().map(|row| row.1).collect::<Vec<_>>())
        .bind(said.iter().map(|row| row.2.resolution.as_str()).collect::<Vec<_>>())
        .bind(said.iter().map(|row| row.2.note.as_str()).collect::<Vec<_>>())
        .bind(said.iter().map(|row| row.2.by.0).collect::<Vec<_>>())
        .bind(said.iter().map(|row| Moment(at(row))).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map(drop)
}
