//! `read.open_grants`: the grants that end at a date, as long as their end is not recorded, for the sweep that records it.

use std::collections::HashMap;

use sqlx::{PgConnection, PgExecutor, Row};
use uuid::Uuid;

use calos_domain::{Asset, GrantId, Record, TenantId, Timestamp};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::{payload, stream_uuid};
use crate::moment::Moment;
use crate::projection::{Pace, ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Index, Schema, TableSpec, column_names};
use crate::wallet_facts::{GrantEnded, Granted, WalletFact};

/// The projection.
#[derive(Debug)]
pub struct OpenGrants;

const COLUMNS: [Column; 5] = [
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("grant_id", ColumnType::Uuid),
    Column::new("partition", ColumnType::Integer),
    Column::new("asset", ColumnType::Text),
    Column::new("expires_at", ColumnType::Timestamp),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: OpenGrants::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["tenant_id", "grant_id", "partition"],
    indexes: &[Index { name: "open_grants_expires_at", columns: "expires_at", only: None }],
    fillfactor: 100,
}];

/// What became of each grant that ends at a date: given and still open, or ended after it was given in an earlier batch.
#[derive(Default, Debug)]
pub struct Changes {
    grants: HashMap<(Uuid, Uuid), (i32, Option<Open>)>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    asset: Asset,
    expires_at: Timestamp,
}

impl Changes {
    /// In the order of the key, so that two writers never wait for each other crosswise.
    fn sorted(self) -> Vec<((Uuid, Uuid), i32, Option<Open>)> {
        let mut rows: Vec<_> = self.grants.into_iter().map(|(key, (partition, open))| (key, partition, open)).collect();
        rows.sort_unstable_by_key(|row| row.0);
        rows
    }
}

impl Projection for OpenGrants {
    const NAME: &'static str = "open_grants";
    const GROWTH: Growth = Growth::PerKey;
    // In the rounds of the book, so that a grant's end is missing here as long as the book still has its credit.
    const PACE: Pace = Pace::Relaxed;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        let Some(fact) = WalletFact::of(record)? else { return Ok(()) };
        match fact {
            WalletFact::CreditsGranted => {
                let event: Granted<'_> = payload(record)?;
                let Some(expires_at) = event.expires_at else { return Ok(()) };
                let open = Open { asset: event.asset, expires_at: Timestamp::from_micros(expires_at) };
                changes.grants.insert((stream_uuid(record)?, event.grant_id), (record.partition, Some(open)));
            }
            WalletFact::GrantExpired => {
                let event: GrantEnded<'_> = payload(record)?;
                let key = (stream_uuid(record)?, event.grant_id);
                if !matches!(changes.grants.remove(&key), Some((_, Some(_)))) {
                    changes.grants.insert(key, (record.partition, None));
                }
            }
            // What was claimed of a grant may come back, and what is left of it ends at its date all the same.
            WalletFact::GrantVoided
            | WalletFact::GrantRestored
            | WalletFact::WalletOpened
            | WalletFact::HoldPlaced
            | WalletFact::UsageRecorded
            | WalletFact::CreditsDeducted
            | WalletFact::HoldReleased
            | WalletFact::DeductionReversed
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
        let open: Vec<_> = rows.iter().filter_map(|row| row.2.map(|open| (row.0, row.1, open))).collect();
        if !open.is_empty() {
            let statement = schema.sql(INSERT);
            sqlx::query(&statement)
                .bind(open.iter().map(|row| row.0.0).collect::<Vec<_>>())
                .bind(open.iter().map(|row| row.0.1).collect::<Vec<_>>())
                .bind(open.iter().map(|row| row.1).collect::<Vec<_>>())
                .bind(open.iter().map(|row| row.2.asset.as_str()).collect::<Vec<_>>())
                .bind(open.iter().map(|row| Moment(row.2.expires_at)).collect::<Vec<_>>())
                .execute(connection)
                .await?;
        }
        Ok(())
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for ((tenant, grant), partition, open) in changes.sorted() {
            // A grant that ended is no row, and before a rebuild there are no rows to take away.
            let Some(open) = open else { continue };
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(tenant),
                    Value::Uuid(grant),
                    Value::I32(partition),
                    Value::Text(open.asset.as_str()),
                    Value::Time(open.expires_at),
                ],
            )?;
        }
        Ok(())
    }
}

const DELETE: &str = "
DELETE FROM {schema}.open_grants AS g USING unnest($1::uuid[], $2::uuid[], $3::int4[]) AS u (tenant_id, grant_id, partition)
WHERE g.tenant_id = u.tenant_id AND g.grant_id = u.grant_id AND g.partition = u.partition";

const INSERT: &str = "
INSERT INTO {schema}.open_grants (tenant_id, grant_id, partition, asset, expires_at)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int4[], $4::text[], $5::timestamptz[])";

/// Grants whose time is over at `at` and whose end nobody has recorded, oldest first, at most `limit`.
///
/// # Errors
/// The database's.
pub async fn due(
    executor: impl PgExecutor<'_>,
    at: Timestamp,
    limit: u32,
) -> Result<Vec<(TenantId, GrantId)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT tenant_id, grant_id FROM read.open_grants WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2",
    )
    .bind(Moment(at))
    .bind(i64::from(limit))
    .fetch_all(executor)
    .await?;
    rows.iter().map(|row| Ok((TenantId(row.try_get(0)?), GrantId(row.try_get(1)?)))).collect()
}

/// A tenant's grants whose time is over at `at` and whose end nobody has recorded.
///
/// # Errors
/// The database's.
pub(crate) async fn lapsed(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    at: Timestamp,
) -> Result<Vec<GrantId>, sqlx::Error> {
    let rows = sqlx::query("SELECT grant_id FROM read.open_grants WHERE tenant_id = $1 AND expires_at <= $2")
        .bind(tenant.0)
        .bind(Moment(at))
        .fetch_all(executor)
        .await?;
    rows.iter().map(|row| Ok(GrantId(row.try_get(0)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{Sample, fold, wallet};

    const ID: &str = "00000000-0000-0000-0000-000000000001";

    fn granted(more: &str) -> Sample {
        let inner = format!(
            r#"{{"grant_id":"{ID}","asset":"USD","kind":"trial","amount":5,"effective_at":1,"source_ref":"a",
                "available_after":5{more}}}"#
        );
        wallet("credits_granted", &inner)
    }

    fn expired() -> Sample {
        wallet("grant_expired", &format!(r#"{{"grant_id":"{ID}","asset":"USD","amount":0,"available_after":0}}"#))
    }

    #[test]
    fn only_grants_that_end_at_a_date_are_kept_and_only_until_their_end_is_recorded() {
        let open = |history: &[Sample]| fold::<OpenGrants>(history).unwrap().sorted();
        assert!(open(&[granted("")]).is_empty());
        assert!(matches!(open(&[granted(r#","expires_at":9"#)])[..], [(_, 3, Some(_))]));
        assert!(open(&[granted(r#","expires_at":9"#), expired()]).is_empty());
        assert!(matches!(open(&[expired()])[..], [(_, 3, None)]));
    }
}
