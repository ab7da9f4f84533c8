//! `read.provider_keys`: which providers a tenant brought a key of its own for. The keys themselves stand in no event
//! and so in no read model.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row};
use uuid::Uuid;

use calos_domain::pricing::Provider;
use calos_domain::tenant::{ProviderKeyAdded, TenantEvent};
use calos_domain::{KeyringEntryId, Record, TenantId, Timestamp, UserId};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::{fact, stream_uuid};
use crate::kind::Kind;
use crate::moment::Moment;
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Schema, TableSpec, column_names};

/// The projection.
#[derive(Debug)]
pub struct ProviderKeys;

const COLUMNS: [Column; 7] = [
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("provider", ColumnType::Text),
    Column::new("partition", ColumnType::Integer),
    Column::new("entry_id", ColumnType::Uuid),
    Column::new("last_four", ColumnType::Text),
    Column::new("added_by", ColumnType::Uuid),
    Column::new("added_at", ColumnType::Timestamp),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: ProviderKeys::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["tenant_id", "provider", "partition"],
    indexes: &[],
    fillfactor: 90,
}];

/// What each tenant's key for each provider is now; none once it was removed.
#[derive(Default, Debug)]
pub struct Changes {
    keys: BTreeMap<(Uuid, Provider), (i32, Option<ProviderKeyAdded>)>,
}

impl Projection for ProviderKeys {
    const NAME: &'static str = "provider_keys";
    const GROWTH: Growth = Growth::PerKey;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        match Kind::of(record.aggregate_type)? {
            Kind::Tenant => {}
            Kind::Wallet
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
            | Kind::Reconciliation
            | Kind::LedgerAccess => return Ok(()),
        }
        let event: TenantEvent = fact(record)?;
        let tenant = stream_uuid(record)?;
        match event {
            TenantEvent::ProviderKeyAdded(event) => {
                changes.keys.insert((tenant, event.provider), (record.partition, Some(event)));
            }
            TenantEvent::ProviderKeyRemoved(event) => {
                changes.keys.insert((tenant, event.provider), (record.partition, None));
            }
            TenantEvent::TenantCreated(_)
            | TenantEvent::MemberAdded(_)
            | TenantEvent::MemberRemoved(_)
            | TenantEvent::StrictModelsSet(_)
            | TenantEvent::TenantRenamed(_)
            | TenantEvent::ApiKeyCounted(_) => {}
        }
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let rows: Vec<_> = changes.keys.into_iter().collect();
        let gone: Vec<_> = rows.iter().filter(|(_, (_, key))| key.is_none()).collect();
        if !gone.is_empty() {
            let statement = schema.sql(DELETE);
            sqlx::query(&statement)
                .bind(gone.iter().map(|((tenant, _), _)| *tenant).collect::<Vec<_>>())
                .bind(gone.iter().map(|((_, provider), _)| provider.as_str()).collect::<Vec<_>>())
                .bind(gone.iter().map(|(_, (partition, _))| *partition).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
        }
        let there: Vec<_> =
            rows.iter().filter_map(|(key, (partition, row))| Some((key, *partition, row.as_ref()?))).collect();
        if !there.is_empty() {
            let statement = schema.sql(UPSERT);
            sqlx::query(&statement)
                .bind(there.iter().map(|((tenant, _), ..)| *tenant).collect::<Vec<_>>())
                .bind(there.iter().map(|((_, provider), ..)| provider.as_str()).collect::<Vec<_>>())
                .bind(there.iter().map(|(_, partition, _)| *partition).collect::<Vec<_>>())
                .bind(there.iter().map(|(.., row)| row.entry_id.0).collect::<Vec<_>>())
                .bind(there.iter().map(|(.., row)| row.last_four.as_str()).collect::<Vec<_>>())
                .bind(there.iter().map(|(.., row)| row.added_by.0).collect::<Vec<_>>())
                .bind(there.iter().map(|(.., row)| Moment(row.added_at)).collect::<Vec<_>>())
                .execute(connection)
                .await?;
        }
        Ok(())
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for ((tenant, provider), (partition, key)) in changes.keys {
            let Some(key) = key else { continue };
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(tenant),
                    Value::Text(provider.as_str()),
                    Value::I32(partition),
                    Value::Uuid(key.entry_id.0),
                    Value::Text(&key.last_four),
                    Value::Uuid(key.added_by.0),
                    Value::Time(key.added_at),
                ],
            )?;
        }
        Ok(())
    }
}

const DELETE: &str = "
DELETE FROM {schema}.provider_keys AS k
USING unnest($1::uuid[], $2::text[], $3::int4[]) AS u (tenant_id, provider, partition)
WHERE k.tenant_id = u.tenant_id AND k.provider = u.provider AND k.partition = u.partition";

const UPSERT: &str = "
INSERT INTO {schema}.provider_keys (tenant_id, provider, partition, entry_id, last_four, added_by, added_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::int4[], $4::uuid[], $5::text[], $6::uuid[], $7::timestamptz[])
ON CONFLICT (tenant_id, provider, partition) DO UPDATE SET entry_id = EXCLUDED.entry_id,
    last_four = EXCLUDED.last_four, added_by = EXCLUDED.added_by, added_at = EXCLUDED.added_at";

/// A tenant's own key for a provider, as people see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnKey {
    /// The provider, by its stored name.
    pub provider: String,
    /// Which entry of the keyring holds it.
    pub entry_id: KeyringEntryId,
    /// Its last four characters.
    pub last_four: String,
    /// Who added it.
    pub added_by: UserId,
    /// When.
    pub added_at: Timestamp,
}

/// The keys a tenant brought, by provider: at most one for each.
///
/// # Errors
/// The database's.
pub async fn of_tenant(executor: impl PgExecutor<'_>, tenant: TenantId) -> Result<Vec<OwnKey>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT provider, entry_id, last_four, added_by, added_at FROM read.provider_keys
         WHERE tenant_id = $1 ORDER BY provider",
    )
    .bind(tenant.0)
    .fetch_all(executor)
    .await?;
    rows.iter().map(own_key).collect()
}

fn own_key(row: &PgRow) -> Result<OwnKey, sqlx::Error> {
    Ok(OwnKey {
        provider: row.try_get(0)?,
        entry_id: KeyringEntryId(row.try_get(1)?),
        last_four: row.try_get(2)?,
        added_by: UserId(row.try_get(3)?),
        added_at: row.try_get::<Moment, _>(4)?.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{Sample, TENANT, fold};

    fn tenant(event_type: &'static str, inner: &str) -> Sample {
        Sample { aggregate_type: "tenant", event_type, payload: format!("{{\"{event_type}\":{inner}}}") }
    }

    fn added(entry: &str) -> Sample {
        let inner = format!(
            r#"{{"provider":"openai","entry_id":"{entry}","last_four":"wxyz","added_by":"{TENANT}","added_at":5}}"#
        );
        tenant("provider_key_added", &inner)
    }

    #[test]
    fn the_latest_key_stands_and_a_removed_one_does_not() {
        const OTHER: &str = "00000000-0000-0000-0000-0000000000bb";
        let key = |history: &[Sample]| {
            let mut keys = fold::<ProviderKeys>(history).unwrap().keys;
            let (_, (partition, key)) = keys.pop_first().unwrap();
            assert!(keys.is_empty() && partition == 3);
            key.map(|key| key.entry_id.to_string())
        };
        assert_eq!(key(&[added(TENANT)]).as_deref(), Some(TENANT));
        assert_eq!(key(&[added(TENANT), added(OTHER)]).as_deref(), Some(OTHER));
        let inner = format!(r#"{{"provider":"openai","entry_id":"{TENANT}","removed_by":"{TENANT}","removed_at":6}}"#);
        let removed = || tenant("provider_key_removed", &inner);
        assert_eq!(key(&[added(TENANT), removed()]), None);
        assert_eq!(key(&[added(TENANT), removed(), added(OTHER)]).as_deref(), Some(OTHER));
    }

    #[test]
    fn what_else_happens_to_a_tenant_is_none_of_its_rows() {
        let changes = fold::<ProviderKeys>(&[tenant("strict_models_set", r#"{"strict":true,"set_at":5}"#)]).unwrap();
        assert!(changes.keys.is_empty());
    }
}
