//! `read.wallet_days`: how far each wallet moved, by the day it counts and the day it was recorded: see
//! [`crate::as_of`], which reads it.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use calos_domain::{Asset, Record, Timestamp};

use crate::book::{WalletMove, booked, wallet_move};
use crate::bucket::Level;
use crate::copy_in::{CopyError, CopySink, Value};
use crate::moment::Moment;
use crate::projection::{Pace, ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Schema, TableSpec, column_names};

/// The projection.
#[derive(Debug)]
pub struct WalletDays;

const COLUMNS: [Column; 9] = [
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("asset", ColumnType::Text),
    Column::new("effective_day", ColumnType::Timestamp),
    Column::new("recorded_day", ColumnType::Timestamp),
    Column::new("partition", ColumnType::Integer),
    Column::new("available", ColumnType::Bigint),
    Column::new("held", ColumnType::Bigint),
    Column::new("debt", ColumnType::Bigint),
    Column::new("entries", ColumnType::Bigint),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: WalletDays::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["tenant_id", "asset", "effective_day", "recorded_day", "partition"],
    indexes: &[],
    fillfactor: 70,
}];

/// Tenant, asset, day of effect, day of record, partition.
type Key = (Uuid, Asset, Timestamp, Timestamp, i32);

/// How far each wallet moved on each day.
#[derive(Default, Debug)]
pub struct Changes {
    moved: HashMap<Key, Moved>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Moved {
    wallet: WalletMove,
    entries: i64,
}

impl Changes {
    /// In the order of the key, so that two writers never wait for each other crosswise.
    fn sorted(self) -> Vec<(Key, Moved)> {
        let mut rows: Vec<_> = self.moved.into_iter().collect();
        rows.sort_unstable_by_key(|row| row.0);
        rows
    }
}

impl Projection for WalletDays {
    const NAME: &'static str = "wallet_days";
    const GROWTH: Growth = Growth::PerKey;
    const PACE: Pace = Pace::Relaxed;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        let Some(booked) = booked(record)? else { return Ok(()) };
        let effective_day = Level::Day.start(booked.effective_at);
        let recorded_day = Level::Day.start(record.recorded_at);
        // At most one entry per asset, so no two of them are for one row; checked to the end before any is kept.
        let mut after = Vec::with_capacity(booked.entries.len());
        for entry in &booked.entries {
            let Some(moved) = wallet_move(booked.tenant, entry)? else { continue };
            let key = (booked.tenant.0, entry.asset, effective_day, recorded_day, record.partition);
            let before = changes.moved.get(&key).copied().unwrap_or_default();
            let wallet = before.wallet.plus(moved).ok_or(ProjectError::OutOfRange { figure: "what a wallet moved" })?;
            after.push((key, Moved { wallet, entries: before.entries + 1 }));
        }
        changes.moved.extend(after);
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let rows = changes.sorted();
        if rows.is_empty() {
            return Ok(());
        }
        let statement = schema.sql(UPSERT);
        sqlx::query(&statement)
            .bind(rows.iter().map(|row| row.0.0).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.0.1.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| Moment(row.0.2)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| Moment(row.0.3)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.0.4).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.1.wallet.available).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.1.wallet.held).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.1.wallet.debt).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.1.entries).collect::<Vec<_>>())
            .execute(connection)
            .await
            .map(drop)
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for ((tenant, asset, effective_day, recorded_day, partition), moved) in changes.sorted() {
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(tenant),
                    Value::Text(asset.as_str()),
                    Value::Time(effective_day),
                    Value::Time(recorded_day),
                    Value::I32(partition),
                    Value::I64(moved.wallet.available),
                    Value::I64(moved.wallet.held),
                    Value::I64(moved.wallet.debt),
                    Value::I64(moved.entries),
                ],
            )?;
        }
        Ok(())
    }
}

const UPSERT: &str = "
INSERT INTO {schema}.wallet_days AS w (tenant_id, asset, effective_day, recorded_day, partition, available, held, debt,
    entries)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::int4[], $6::int8[], $7::int8[],
    $8::int8[], $9::int8[])
ON CONFLICT (tenant_id, asset, effective_day, recorded_day, partition) DO UPDATE SET
    available = w.available + EXCLUDED.available,
    held = w.held + EXCLUDED.held,
    debt = w.debt + EXCLUDED.debt,
    entries = w.entries + EXCLUDED.entries";
