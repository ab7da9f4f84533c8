//! `read.journal`: the book, one row per event and asset, with its postings.
//!
//! Rows are written once and never changed. What is kept in sums elsewhere (`trial_balance`, `wallet_days`,
//! `account_balances`) are sums over these rows.

mod money;
mod reading;

use sqlx::PgConnection;
use uuid::Uuid;

use calos_domain::{Asset, Record, Timestamp};

use crate::book::{WalletMove, amount, booked, wallet_move, write_postings};
use crate::bucket::shifted;
use crate::copy_in::{CopyError, CopySink, Value};
use crate::moment::Moment;
use crate::projection::{Pace, ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Index, Schema, TableSpec, column_names};
use crate::text::{Text, Texts};

pub use money::money;
pub use reading::{Cursor, Entry, JournalFilter, NoCursor, entry, forward, page};

/// The projection.
#[derive(Debug)]
pub struct Journal;

const COLUMNS: [Column; 15] = [
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("recorded_at", ColumnType::Timestamp),
    Column::new("position", ColumnType::Bigint),
    Column::new("partition", ColumnType::Integer),
    Column::new("asset", ColumnType::Text),
    Column::new("effective_at", ColumnType::Timestamp),
    Column::new("shifted", ColumnType::Boolean),
    Column::new("type", ColumnType::Text),
    Column::new("amount", ColumnType::Bigint),
    Column::new("available", ColumnType::Bigint),
    Column::new("held", ColumnType::Bigint),
    Column::new("debt", ColumnType::Bigint),
    Column::new("postings", ColumnType::Text),
    Column::nullable("usage_id", ColumnType::Uuid),
    Column::nullable("source_ref", ColumnType::Text),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: Journal::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    // Tenant first: one index is both the key and the order in which a tenant's pages are read.
    key: &["tenant_id", "recorded_at", "position", "partition", "asset"],
    indexes: &[
        Index { name: "journal_recorded_at", columns: "recorded_at, partition, position", only: None },
        // What took effect when it was recorded, nearly all of it, is found by its recorded date.
        Index { name: "journal_effective_at", columns: "effective_at", only: Some("shifted") },
        Index { name: "journal_tenant_effective_at", columns: "tenant_id, effective_at", only: Some("shifted") },
    ],
    fillfactor: 100,
}];

/// The rows of a batch.
#[derive(Default, Debug)]
pub struct Changes {
    rows: Vec<Row>,
    texts: Texts,
}

#[derive(Debug)]
struct Row {
    tenant: Uuid,
    recorded_at: Timestamp,
    position: i64,
    partition: i32,
    asset: Asset,
    effective_at: Timestamp,
    event_type: Text,
    amount: i64,
    wallet: WalletMove,
    postings: Text,
    usage_id: Option<Uuid>,
    source_ref: Option<Text>,
}

impl Projection for Journal {
    const NAME: &'static str = "journal";
    const GROWTH: Growth = Growth::PerEvent;
    const PACE: Pace = Pace::Relaxed;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        let Some(booked) = booked(record)? else { return Ok(()) };
        let mut rows = Vec::with_capacity(booked.entries.len());
        for entry in &booked.entries {
            let keep = |text: &str, texts: &mut Texts| {
                texts.keep(text).ok_or(ProjectError::OutOfRange { figure: "the text of a batch" })
            };
            let postings = write_postings(booked.tenant, &entry.postings)?;
            rows.push(Row {
                tenant: booked.tenant.0,
                recorded_at: record.recorded_at,
                position: record.position,
                partition: record.partition,
                asset: entry.asset,
                effective_at: booked.effective_at,
                event_type: keep(record.event_type, &mut changes.texts)?,
                amount: amount(entry.amount())?,
                wallet: wallet_move(booked.tenant, entry)?.unwrap_or_default(),
                postings: keep(&postings, &mut changes.texts)?,
                usage_id: booked.usage_id,
                source_ref: booked.source_ref.as_deref().map(|text| keep(text, &mut changes.texts)).transpose()?,
            });
        }
        changes.rows.append(&mut rows);
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let Changes { rows, texts } = changes;
        if rows.is_empty() {
            return Ok(());
        }
        let statement = schema.sql(INSERT);
        sqlx::query(&statement)
            .bind(rows.iter().map(|row| row.tenant).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| Moment(row.recorded_at)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.position).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.partition).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.asset.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| Moment(row.effective_at)).collect::<Vec<_>>())
            .bind(rows.iter().map(Row::shifted).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| texts.get(row.event_type)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.amount).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.wallet.available).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.wallet.held).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.wallet.debt).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| texts.get(row.postings)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.usage_id).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.source_ref.map(|text| texts.get(text))).collect::<Vec<_>>())
            .execute(connection)
            .await
            .map(drop)
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        let Changes { rows, texts } = changes;
        for row in rows {
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(row.tenant),
                    Value::Time(row.recorded_at),
                    Value::I64(row.position),
                    Value::I32(row.partition),
                    Value::Text(row.asset.as_str()),
                    Value::Time(row.effective_at),
                    Value::Bool(row.shifted()),
                    Value::Text(texts.get(row.event_type)),
                    Value::I64(row.amount),
                    Value::I64(row.wallet.available),
                    Value::I64(row.wallet.held),
                    Value::I64(row.wallet.debt),
                    Value::Text(texts.get(row.postings)),
                    Value::optional(row.usage_id, Value::Uuid),
                    Value::optional(row.source_ref, |text| Value::Text(texts.get(text))),
                ],
            )?;
        }
        Ok(())
    }
}

impl Row {
    fn shifted(&self) -> bool {
        shifted(self.effective_at, self.recorded_at)
    }
}

const INSERT: &str = "
INSERT INTO {schema}.journal (tenant_id, recorded_at, position, partition, asset, effective_at, shifted, type, amount,
    available, held, debt, postings, usage_id, source_ref)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::int8[], $4::int4[], $5::text[], $6::timestamptz[], $7::bool[],
    $8::text[], $9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::text[], $14::uuid[], $15::text[])";
