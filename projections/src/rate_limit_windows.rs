//! `read.rate_limit_windows`: how many calls each caller was let in for, minute by minute.
//!
//! A call counts in the minute it was admitted in, whatever became of it; hours and days are sums. A caller is a tenant
//! key by its id, a person in a session by theirs, or empty for calls of nobody in particular. Limits are decided on the
//! wallet, which counts the same events in memory; this is what an operator can query, and what that count is held against.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use calos_domain::time::MICROS_PER_SECOND;
use calos_domain::{Record, Timestamp};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::{payload, stream_uuid};
use crate::moment::Moment;
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Schema, TableSpec, column_names};
use crate::wallet_facts::{Held, WalletFact};

/// The projection.
#[derive(Debug)]
pub struct RateLimitWindows;

const COLUMNS: [Column; 5] = [
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("caller", ColumnType::Text),
    Column::new("minute", ColumnType::Timestamp),
    Column::new("partition", ColumnType::Integer),
    Column::new("requests", ColumnType::Bigint),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: RateLimitWindows::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["tenant_id", "caller", "minute", "partition"],
    indexes: &[],
    fillfactor: 70,
}];

const MINUTE_MICROS: i64 = 60 * MICROS_PER_SECOND;

/// When the minute began that holds this moment.
const fn minute_of(at_micros: i64) -> Timestamp {
    Timestamp::from_micros(at_micros.saturating_sub(at_micros.rem_euclid(MINUTE_MICROS)))
}

type Key = (Uuid, String, Timestamp);

/// How many calls each minute gained.
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
            | WalletFact::GrantRestored
            | WalletFact::CreditsTaken
            | WalletFact::DebtIncurred
            | WalletFact::DebtRepaid
            | WalletFact::WalletFrozen
            | WalletFact::WalletThawed => return Ok(()),
        }
        let event: Held<'_> = payload(record)?;
        let tenant = stream_uuid(record)?;
        let caller = match (event.api_key_id, event.user_id) {
            (Some(key), _) => key.to_owned(),
            (None, Some(user)) => user.to_string(),
            (None, None) => String::new(),
        };
        let key = (tenant, caller, minute_of(event.admitted_at));
        // One batch holds far fewer calls than an i64 counts.
        changes.gained.entry(key).or_insert((record.partition, 0)).1 += 1;
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
            .bind(rows.iter().map(|row| Moment(row.0.2)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.1).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.2).collect::<Vec<_>>())
            .execute(connection)
            .await
            .map(drop)
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for ((tenant, caller, minute), partition, requests) in changes.sorted() {
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(tenant),
                    Value::Text(&caller),
                    Value::Time(minute),
                    Value::I32(partition),
                    Value::I64(requests),
                ],
            )?;
        }
        Ok(())
    }
}

const UPSERT: &str = "
INSERT INTO {schema}.rate_limit_windows AS w (tenant_id, caller, minute, partition, requests)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::int4[], $5::int8[])
ON CONFLICT (tenant_id, caller, minute, partition) DO UPDATE SET requests = w.requests + EXCLUDED.requests";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{fold, wallet};

    fn admitted(caller: &str, second: i64) -> crate::samples::Sample {
        let id = "00000000-0000-0000-0000-000000000001";
        let inner = format!(
            r#"{{"hold_id":"{id}","asset":"USD","amount":0,{caller}"usage_id":"{id}","admitted_at":{},"expires_at":0}}"#,
            second * MICROS_PER_SECOND
        );
        wallet("hold_placed", &inner)
    }

    #[test]
    fn a_call_counts_once_in_the_minute_it_was_admitted_in() {
        let person = "00000000-0000-0000-0000-00000000000b";
        let history = [
            admitted(r#""api_key_id":"abcdefgh","#, 3_599),
            admitted(r#""api_key_id":"abcdefgh","#, 3_600),
            admitted(r#""api_key_id":"abcdefgh","#, 3_659),
            admitted(&format!(r#""user_id":"{person}","#), 3_660),
            admitted("", 86_400),
        ];
        let rows = fold::<RateLimitWindows>(&history).unwrap().sorted();
        let shown: Vec<_> = rows
            .iter()
            .map(|((_, caller, minute), _, n)| (caller.as_str(), minute.micros() / MICROS_PER_SECOND, *n))
            .collect();
        assert_eq!(shown, [("", 86_400, 1), (person, 3_660, 1), ("abcdefgh", 3_540, 1), ("abcdefgh", 3_600, 2)]);
    }
}
