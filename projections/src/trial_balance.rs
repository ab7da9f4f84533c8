//! `read.trial_balance`: what was posted to each class of account, summed by when it counts and when it was recorded, in
//! stretches of three widths: see [`crate::as_of`], which reads it.
//!
//! Every entry is in one row of each width per class of account it touches.

use std::collections::HashMap;

use sqlx::PgConnection;

use calos_domain::book::AccountClass;
use calos_domain::{Asset, Record, Timestamp};

use crate::book::{amount, booked};
use crate::bucket::Level;
use crate::copy_in::{CopyError, CopySink, Value};
use crate::moment::Moment;
use crate::projection::{Pace, ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Index, Schema, TableSpec, column_names};

/// The projection.
#[derive(Debug)]
pub struct TrialBalance;

const COLUMNS: [Column; 8] = [
    Column::new("level", ColumnType::Text),
    Column::new("effective_from", ColumnType::Timestamp),
    Column::new("recorded_from", ColumnType::Timestamp),
    Column::new("account", ColumnType::Text),
    Column::new("asset", ColumnType::Text),
    Column::new("partition", ColumnType::Integer),
    Column::new("debit", ColumnType::Bigint),
    Column::new("credit", ColumnType::Bigint),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: TrialBalance::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["level", "effective_from", "recorded_from", "account", "asset", "partition"],
    indexes: &[Index { name: "trial_balance_recorded_from", columns: "level, recorded_from", only: None }],
    fillfactor: 70,
}];

/// Stretch of effective dates, stretch of recorded dates, class, asset and partition, at the finest level.
type Key = (Timestamp, Timestamp, AccountClass, Asset, i32);

/// What was posted.
#[derive(Clone, Copy, Default, Debug)]
struct Sums {
    debit: i64,
    credit: i64,
}

impl Sums {
    fn plus(self, other: Self) -> Option<Self> {
        Some(Self { debit: self.debit.checked_add(other.debit)?, credit: self.credit.checked_add(other.credit)? })
    }
}

/// What was posted in each of the finest stretches; the wider ones are sums of them.
#[derive(Default, Debug)]
pub struct Changes {
    posted: HashMap<Key, Sums>,
}

#[derive(Debug)]
struct Line {
    level: Level,
    effective_from: Timestamp,
    recorded_from: Timestamp,
    account: String,
    asset: Asset,
    partition: i32,
    sums: Sums,
}

impl Changes {
    /// Every level, in the order of the key, so that two writers never wait for each other crosswise. None when a sum
    /// leaves the range of a row.
    fn lines(self) -> Option<Vec<Line>> {
        let mut all: HashMap<(Level, Key), Sums> = HashMap::with_capacity(self.posted.len() * 2);
        for ((effective, recorded, class, asset, partition), sums) in self.posted {
            for level in Level::ALL {
                let key = (level.start(effective), level.start(recorded), class.clone(), asset, partition);
                let before = all.entry((level, key)).or_default();
                *before = before.plus(sums)?;
            }
        }
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let line = |((level, (effective_from, recorded_from, class, asset, partition)), sums)| Line {
            level,
            effective_from,
            recorded_from,
            account: AccountClass::to_string(&class),
            asset,
            partition,
            sums,
        };
        Some(all.into_iter().map(line).collect())
    }
}

impl Projection for TrialBalance {
    const NAME: &'static str = "trial_balance";
    const GROWTH: Growth = Growth::PerKey;
    const PACE: Pace = Pace::Relaxed;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        let Some(booked) = booked(record)? else { return Ok(()) };
        let effective_from = Level::TenMinutes.start(booked.effective_at);
        let recorded_from = Level::TenMinutes.start(record.recorded_at);
        // Checked to the end before anything is kept.
        let mut after: HashMap<Key, Sums> = HashMap::new();
        for entry in &booked.entries {
            for posting in &entry.postings {
                let key = (effective_from, recorded_from, posting.account.class(), entry.asset, record.partition);
                let amount = amount(posting.amount)?;
                let posted = if amount > 0 {
                    Sums { debit: amount, credit: 0 }
                } else {
                    let credit = amount.checked_neg();
                    Sums { debit: 0, credit: credit.ok_or(ProjectError::OutOfRange { figure: "a posting" })? }
                };
                let before = after.get(&key).or_else(|| changes.posted.get(&key)).copied().unwrap_or_default();
                let sums = before.plus(posted).ok_or(ProjectError::OutOfRange { figure: "what was posted" })?;
                after.insert(key, sums);
            }
        }
        changes.posted.extend(after);
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let lines = changes.lines().ok_or_else(|| sqlx::Error::Encode(TOO_MUCH.into()))?;
        if lines.is_empty() {
            return Ok(());
        }
        let statement = schema.sql(UPSERT);
        sqlx::query(&statement)
            .bind(lines.iter().map(|line| line.level.as_str()).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| Moment(line.effective_from)).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| Moment(line.recorded_from)).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.account.as_str()).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.asset.as_str()).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.partition).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.sums.debit).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.sums.credit).collect::<Vec<_>>())
            .execute(connection)
            .await
            .map(drop)
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        let lines = changes.lines().ok_or_else(|| CopyError::Database(sqlx::Error::Encode(TOO_MUCH.into())))?;
        for line in lines {
            sink.row(
                Self::NAME,
                &[
                    Value::Text(line.level.as_str()),
                    Value::Time(line.effective_from),
                    Value::Time(line.recorded_from),
                    Value::Text(&line.account),
                    Value::Text(line.asset.as_str()),
                    Value::I32(line.partition),
                    Value::I64(line.sums.debit),
                    Value::I64(line.sums.credit),
                ],
            )?;
        }
        Ok(())
    }
}

const TOO_MUCH: &str = "what was posted in one stretch of time leaves the range of a 64-bit integer";

const UPSERT: &str = "
INSERT INTO {schema}.trial_balance AS t (level, effective_from, recorded_from, account, asset, partition, debit, credit)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[], $6::int4[], $7::int8[],
    $8::int8[])
ON CONFLICT (level, effective_from, recorded_from, account, asset, partition) DO UPDATE SET
    debit = t.debit + EXCLUDED.debit,
    credit = t.credit + EXCLUDED.credit";
