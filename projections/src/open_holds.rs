//! `read.open_holds`: the reservations that have not ended, for the sweep that gives expired ones back.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row};
use uuid::Uuid;

use calos_domain::{Asset, HoldId, Record, TenantId, Timestamp};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::{payload, stream_uuid};
use crate::moment::Moment;
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Schema, TableSpec, column_names};
use crate::wallet_facts::{Deducted, Held, HoldEnded, WalletFact};

/// The projection.
#[derive(Debug)]
pub struct OpenHolds;

const COLUMNS: [Column; 8] = [
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("hold_id", ColumnType::Uuid),
    Column::new("partition", ColumnType::Integer),
    Column::new("asset", ColumnType::Text),
    Column::new("amount", ColumnType::Bigint),
    Column::new("usage_id", ColumnType::Uuid),
    Column::new("placed_at", ColumnType::Timestamp),
    Column::new("expires_at", ColumnType::Timestamp),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: OpenHolds::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["tenant_id", "hold_id", "partition"],
    // None on the expiry: rows come and go with every call, and the sweep reads the few that are there now and then.
    indexes: &[],
    fillfactor: 100,
}];

#[derive(Clone, Copy, Debug)]
struct Hold {
    asset: Asset,
    amount: i64,
    usage_id: Uuid,
    placed_at: Timestamp,
    expires_at: Timestamp,
}

/// What became of each hold: placed and still open, or ended after it was placed in an earlier batch. A hold that was
/// placed and ended within the batch leaves no trace.
#[derive(Default, Debug)]
pub struct Changes {
    holds: HashMap<(Uuid, Uuid), (i32, Option<Hold>)>,
}

impl Changes {
    fn end(&mut self, key: (Uuid, Uuid), partition: i32) {
        if !matches!(self.holds.remove(&key), Some((_, Some(_)))) {
            self.holds.insert(key, (partition, None));
        }
    }

    fn sorted(self) -> Vec<((Uuid, Uuid), i32, Option<Hold>)> {
        let mut rows: Vec<_> = self.holds.into_iter().map(|(key, (partition, hold))| (key, partition, hold)).collect();
        rows.sort_unstable_by_key(|row| row.0);
        rows
    }
}

impl Projection for OpenHolds {
    const NAME: &'static str = "open_holds";
    const GROWTH: Growth = Growth::PerKey;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        let Some(fact) = WalletFact::of(record)? else { return Ok(()) };
        match fact {
            WalletFact::HoldPlaced => {
                let event: Held<'_> = payload(record)?;
                let hold = Hold {
                    asset: event.asset,
                    amount: event.amount,
                    usage_id: event.usage_id,
                    placed_at: Timestamp::from_micros(event.admitted_at),
                    expires_at: Timestamp::from_micros(event.expires_at),
                };
                changes.holds.insert((stream_uuid(record)?, event.hold_id), (record.partition, Some(hold)));
            }
            WalletFact::CreditsDeducted => {
                let event: Deducted = payload(record)?;
                if let Some(hold_id) = event.hold_id {
                    changes.end((stream_uuid(record)?, hold_id), record.partition);
                }
            }
            WalletFact::HoldReleased => {
                let event: HoldEnded = payload(record)?;
                changes.end((stream_uuid(record)?, event.hold_id), record.partition);
            }
            WalletFact::WalletOpened
            | WalletFact::CreditsGranted
            | WalletFact::UsageRecorded
            | WalletFact::DeductionReversed
            | WalletFact::GrantExpired
            | WalletFact::GrantVoided
            | WalletFact::GrantRestored
            | WalletFact::CreditsTaken
            | WalletFact::DebtIncurred
            | WalletFact::DebtRepaid
            | WalletFact::WalletFrozen
            | WalletFact::WalletThawed => {}
        }
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let rows = changes.sorted();
        let ended: Vec<_> = rows.iter().filter(|row| row.2.is_none()).collect();
        if !ended.is_empty() {
            let statement = schema.sql(DELETE);
            sqlx::query(&statement)
                .bind(ended.iter().map(|row| row.0.0).collect::<Vec<_>>())
                .bind(ended.iter().map(|row| row.0.1).collect::<Vec<_>>())
                .bind(ended.iter().map(|row| row.1).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
        }
        let open: Vec<_> = rows.iter().filter_map(|row| row.2.map(|hold| (row.0, row.1, hold))).collect();
        if !open.is_empty() {
            let statement = schema.sql(INSERT);
            sqlx::query(&statement)
                .bind(open.iter().map(|row| row.0.0).collect::<Vec<_>>())
                .bind(open.iter().map(|row| row.0.1).collect::<Vec<_>>())
                .bind(open.iter().map(|row| row.1).collect::<Vec<_>>())
                .bind(open.iter().map(|row| row.2.asset.as_str()).collect::<Vec<_>>())
                .bind(open.iter().map(|row| row.2.amount).collect::<Vec<_>>())
                .bind(open.iter().map(|row| row.2.usage_id).collect::<Vec<_>>())
                .bind(open.iter().map(|row| Moment(row.2.placed_at)).collect::<Vec<_>>())
                .bind(open.iter().map(|row| Moment(row.2.expires_at)).collect::<Vec<_>>())
                .execute(connection)
                .await?;
        }
        Ok(())
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for ((tenant, hold_id), partition, hold) in changes.sorted() {
            // A hold that ended is no row, and before a rebuild there are no rows to take away.
            let Some(hold) = hold else { continue };
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(tenant),
                    Value::Uuid(hold_id),
                    Value::I32(partition),
                    Value::Text(hold.asset.as_str()),
                    Value::I64(hold.amount),
                    Value::Uuid(hold.usage_id),
                    Value::Time(hold.placed_at),
                    Value::Time(hold.expires_at),
                ],
            )?;
        }
        Ok(())
    }
}

const DELETE: &str = "
DELETE FROM {schema}.open_holds AS h USING unnest($1::uuid[], $2::uuid[], $3::int4[]) AS u (tenant_id, hold_id, partition)
WHERE h.tenant_id = u.tenant_id AND h.hold_id = u.hold_id AND h.partition = u.partition";

const INSERT: &str = "
INSERT INTO {schema}.open_holds (tenant_id, hold_id, partition, asset, amount, usage_id, placed_at, expires_at)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int4[], $4::text[], $5::int8[], $6::uuid[], $7::timestamptz[],
    $8::timestamptz[])";

/// A hold whose time has run out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpiredHold {
    /// Whose wallet.
    pub tenant_id: TenantId,
    /// The hold.
    pub hold_id: HoldId,
    /// When it ran out.
    pub expires_at: Timestamp,
}

/// Holds that expired at `now` or before, oldest first, at most `limit`.
///
/// # Errors
/// The database's.
pub async fn expired(
    executor: impl PgExecutor<'_>,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<ExpiredHold>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT tenant_id, hold_id, expires_at FROM read.open_holds WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2",
    )
    .bind(Moment(now))
    .bind(i64::from(limit))
    .fetch_all(executor)
    .await?;
    rows.iter().map(expired_hold).collect()
}

/// How many holds are open, and how many of them expired at `due` or before.
///
/// # Errors
/// The database's.
pub async fn count(executor: impl PgExecutor<'_>, due: Timestamp) -> Result<(i64, i64), sqlx::Error> {
    let counted =
        sqlx::query("SELECT count(*), count(*) FILTER (WHERE expires_at <= $1) FROM read.open_holds").bind(Moment(due));
    let row = counted.fetch_one(executor).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

fn expired_hold(row: &PgRow) -> Result<ExpiredHold, sqlx::Error> {
    Ok(ExpiredHold {
        tenant_id: TenantId(row.try_get(0)?),
        hold_id: HoldId(row.try_get(1)?),
        expires_at: row.try_get::<Moment, _>(2)?.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{Sample, fold, wallet};

    const ID: &str = "00000000-0000-0000-0000-000000000001";

    fn placed() -> Sample {
        let inner = format!(
            r#"{{"hold_id":"{ID}","asset":"USD","amount":5,"usage_id":"{ID}","admitted_at":1,"expires_at":2}}"#
        );
        wallet("hold_placed", &inner)
    }

    fn released() -> Sample {
        wallet("hold_released", &format!(r#"{{"hold_id":"{ID}"}}"#))
    }

    #[test]
    fn a_hold_that_begins_and_ends_within_a_batch_leaves_no_trace() {
        assert_eq!(fold::<OpenHolds>(&[placed(), released()]).unwrap().holds.len(), 0);
    }

    #[test]
    fn a_hold_of_an_earlier_batch_is_taken_away_and_one_that_stays_is_kept() {
        let ended = fold::<OpenHolds>(&[released()]).unwrap().sorted();
        assert!(matches!(ended[..], [(_, 3, None)]), "{ended:?}");
        let open = fold::<OpenHolds>(&[placed()]).unwrap().sorted();
        assert!(matches!(open[..], [(_, 3, Some(Hold { amount: 5, .. }))]), "{open:?}");
    }
}
