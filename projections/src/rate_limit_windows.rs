//! `read.rate_limit_windows`: how many requests each API key was let in for, per minute, hour and day.
//!
//! A request counts in the minute, hour and day it was admitted in, whatever became of it. Requests without a key count
//! under the empty key id. The live limiter seeds itself from here, so a restart forgets nothing.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row};
use uuid::Uuid;

use calos_domain::time::MICROS_PER_SECOND;
use calos_domain::{Record, TenantId, Timestamp};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::{payload, stream_uuid};
use crate::moment::Moment;
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Index, Schema, TableSpec, column_names};
use crate::wallet_facts::{Held, WalletFact};

/// The projection.
#[derive(Debug)]
pub struct RateLimitWindows;

const COLUMNS: [Column; 6] = [
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("api_key_id", ColumnType::Text),
    Column::new("window_kind", ColumnType::Text),
    Column::new("window_start", ColumnType::Timestamp),
    Column::new("partition", ColumnType::Integer),
    Column::new("requests", ColumnType::Bigint),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: RateLimitWindows::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["tenant_id", "api_key_id", "window_kind", "window_start", "partition"],
    indexes: &[Index { name: "rate_limit_windows_start", columns: "window_kind, window_start", only: None }],
    fillfactor: 70,
}];

/// The lengths a request is counted in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WindowKind {
    /// 60 seconds.
    Minute,
    /// 3,600 seconds.
    Hour,
    /// 86,400 seconds, from midnight UTC.
    Day,
}

impl WindowKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// How long it is.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    /// When the window began that holds this moment.
    #[must_use]
    pub const fn start_of(self, at: Timestamp) -> Timestamp {
        let length = self.seconds() * MICROS_PER_SECOND;
        Timestamp::from_micros(at.micros().saturating_sub(at.micros().rem_euclid(length)))
    }
}

type Key = (Uuid, String, WindowKind, Timestamp);

/// How many requests each window gained.
#[derive(Default, Debug)]
pub struct Changes {
    gained: HashMap<Key, (i32, i64)>,
}

impl Changes {
    fn sorted(self) -> Vec<(Key, i32, i64)> {
        let mut rows: Vec<_> = self.gained.into_iter().map(|(key, (partition, n))| (key, partition, n)).collect();
        rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        rows
    }
}

impl Projection for RateLimitWindows {
    const NAME: &'static str = "rate_limit_windows";
    const GROWTH: Growth = Growth::PerKey;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        let Some(fact) = WalletFact::of(record)? else { return Ok(()) };
        match fact {
            WalletFact::HoldPlaced => {}
            WalletFact::WalletOpened
            | WalletFact::CreditsGranted
            | WalletFact::UsageRecorded
            | WalletFact::CreditsDeducted
            | WalletFact::HoldReleased
            | WalletFact::DeductionReversed
            | WalletFact::GrantExpired
            | WalletFact::GrantVoided
            | WalletFact::DebtIncurred
            | WalletFact::DebtRepaid
            | WalletFact::WalletFrozen
            | WalletFact::WalletThawed => return Ok(()),
        }
        let event: Held<'_> = payload(record)?;
        let tenant = stream_uuid(record)?;
        let admitted_at = Timestamp::from_micros(event.admitted_at);
        for kind in WindowKind::ALL {
            let key = (tenant, event.api_key_id.unwrap_or_default().to_owned(), kind, kind.start_of(admitted_at));
            // One batch holds far fewer requests than an i64 counts.
            changes.gained.entry(key).or_insert((record.partition, 0)).1 += 1;
        }
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if changes.gained.is_empty() {
            return Ok(());
        }
        let rows = changes.sorted();
        let statement = schema.sql(UPSERT);
        sqlx::query(&statement)
            .bind(rows.iter().map(|row| row.0.0).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.0.1.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.0.2.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| Moment(row.0.3)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.1).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.2).collect::<Vec<_>>())
            .execute(connection)
            .await
            .map(drop)
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for ((tenant, key, kind, start), partition, requests) in changes.sorted() {
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(tenant),
                    Value::Text(&key),
                    Value::Text(kind.as_str()),
                    Value::Time(start),
                    Value::I32(partition),
                    Value::I64(requests),
                ],
            )?;
        }
        Ok(())
    }
}

const UPSERT: &str = "
INSERT INTO {schema}.rate_limit_windows AS w (tenant_id, api_key_id, window_kind, window_start, partition, requests)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::int4[], $6::int8[])
ON CONFLICT (tenant_id, api_key_id, window_kind, window_start, partition)
DO UPDATE SET requests = w.requests + EXCLUDED.requests";

/// The requests of one key in one window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Window {
    /// Whose.
    pub tenant_id: TenantId,
    /// The key; empty for requests without one.
    pub api_key_id: String,
    /// When the window began.
    pub start: Timestamp,
    /// How many were admitted.
    pub requests: i64,
}

/// The most windows read at once.
pub const SEED_MAX_WINDOWS: i64 = 1_000_000;

/// Every window of a kind that began at `since` or later, oldest first: what a live limiter seeds itself from.
///
/// # Errors
/// The database's.
pub async fn since(
    executor: impl PgExecutor<'_>,
    kind: WindowKind,
    since: Timestamp,
) -> Result<Vec<Window>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT tenant_id, api_key_id, window_start, requests FROM read.rate_limit_windows
         WHERE window_kind = $1 AND window_start >= $2 ORDER BY window_start LIMIT $3",
    )
    .bind(kind.as_str())
    .bind(Moment(since))
    .bind(SEED_MAX_WINDOWS)
    .fetch_all(executor)
    .await?;
    rows.iter().map(window).collect()
}

fn window(row: &PgRow) -> Result<Window, sqlx::Error> {
    Ok(Window {
        tenant_id: TenantId(row.try_get(0)?),
        api_key_id: row.try_get(1)?,
        start: row.try_get::<Moment, _>(2)?.0,
        requests: row.try_get(3)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{fold, wallet};

    fn admitted(key: &str, second: i64) -> crate::samples::Sample {
        let id = "00000000-0000-0000-0000-000000000001";
        let inner = format!(
            r#"{{"hold_id":"{id}","asset":"USD","amount":0,{key}"usage_id":"{id}","admitted_at":{},"expires_at":0}}"#,
            second * MICROS_PER_SECOND
        );
        wallet("hold_placed", &inner)
    }

    #[test]
    fn a_request_counts_in_the_minute_the_hour_and_the_day_it_was_admitted_in() {
        let history = [
            admitted(r#""api_key_id":"abcdefgh","#, 3_599),
            admitted(r#""api_key_id":"abcdefgh","#, 3_600),
            admitted(r#""api_key_id":"abcdefgh","#, 3_659),
            admitted("", 86_400),
        ];
        let rows = fold::<RateLimitWindows>(&history).unwrap().sorted();
        let shown: Vec<_> = rows
            .iter()
            .map(|((_, key, kind, start), _, n)| (key.as_str(), kind.as_str(), start.micros() / MICROS_PER_SECOND, *n))
            .collect();
        assert_eq!(
            shown,
            [
                ("", "minute", 86_400, 1),
                ("", "hour", 86_400, 1),
                ("", "day", 86_400, 1),
                ("abcdefgh", "minute", 3_540, 1),
                ("abcdefgh", "minute", 3_600, 2),
                ("abcdefgh", "hour", 0, 1),
                ("abcdefgh", "hour", 3_600, 2),
                ("abcdefgh", "day", 0, 3),
            ]
        );
    }
}
