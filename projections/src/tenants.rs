//! `read.tenants` and `read.tenant_members`: who pays, and who may act for them.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row};
use uuid::Uuid;

use calos_domain::tenant::{MemberRole, TenantCreated, TenantEvent};
use calos_domain::{Record, TenantId, Timestamp, UserId};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::{fact, stream_uuid};
use crate::kind::Kind;
use crate::moment::Moment;
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Index, Schema, TableSpec, column_names};

/// The projection.
#[derive(Debug)]
pub struct Tenants;

const TENANT_COLUMNS: [Column; 7] = [
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("partition", ColumnType::Integer),
    Column::new("name", ColumnType::Text),
    Column::new("personal", ColumnType::Boolean),
    Column::new("created_by", ColumnType::Uuid),
    Column::new("created_at", ColumnType::Timestamp),
    Column::new("strict_models", ColumnType::Boolean),
];

const MEMBERS: &str = "tenant_members";

const MEMBER_COLUMNS: [Column; 5] = [
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("user_id", ColumnType::Uuid),
    Column::new("partition", ColumnType::Integer),
    Column::new("role", ColumnType::Text),
    Column::new("added_at", ColumnType::Timestamp),
];

const TABLES: &[TableSpec] = &[
    TableSpec {
        name: Tenants::NAME,
        columns: &TENANT_COLUMNS,
        column_names: &column_names(&TENANT_COLUMNS),
        key: &["tenant_id", "partition"],
        indexes: &[],
        fillfactor: 90,
    },
    TableSpec {
        name: MEMBERS,
        columns: &MEMBER_COLUMNS,
        column_names: &column_names(&MEMBER_COLUMNS),
        key: &["tenant_id", "user_id", "partition"],
        indexes: &[Index { name: "tenant_members_user", columns: "user_id", only: None }],
        fillfactor: 90,
    },
];

/// What happened to each tenant and to each membership: the latest of each thing that can change.
#[derive(Default, Debug)]
pub struct Changes {
    tenants: HashMap<Uuid, TenantChange>,
    members: HashMap<MemberKey, MemberChange>,
}

/// Tenant and user.
type MemberKey = (Uuid, Uuid);

/// The partition, and what the membership is now: none once it has ended.
type MemberChange = (i32, Option<Member>);

#[derive(Default, Debug)]
struct TenantChange {
    partition: i32,
    created: Option<Box<TenantCreated>>,
    name: Option<String>,
    strict_models: Option<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    role: MemberRole,
    added_at: Timestamp,
}

const fn role_name(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Member => "member",
        MemberRole::Admin => "admin",
        MemberRole::Owner => "owner",
    }
}

impl Projection for Tenants {
    const NAME: &'static str = "tenants";
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
        let partition = record.partition;
        match event {
            TenantEvent::TenantCreated(event) => {
                let change = changes.tenants.entry(tenant).or_default();
                change.partition = partition;
                change.created = Some(Box::new(event));
            }
            TenantEvent::StrictModelsSet(event) => {
                let change = changes.tenants.entry(tenant).or_default();
                change.partition = partition;
                change.strict_models = Some(event.strict);
            }
            TenantEvent::TenantRenamed(event) => {
                let change = changes.tenants.entry(tenant).or_default();
                change.partition = partition;
                change.name = Some(event.name);
            }
            TenantEvent::MemberAdded(event) => {
                let member = Member { role: event.role, added_at: event.added_at };
                changes.members.insert((tenant, event.user_id.0), (partition, Some(member)));
            }
            TenantEvent::MemberRemoved(event) => {
                changes.members.insert((tenant, event.user_id.0), (partition, None));
            }
            // These are `read.provider_keys`' affair.
            TenantEvent::ProviderKeyAdded(_) | TenantEvent::ProviderKeyRemoved(_) | TenantEvent::ApiKeyCounted(_) => {}
        }
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let Changes { tenants, members } = changes;
        store_tenants(&sorted(tenants), schema, &mut *connection).await?;
        store_members(&sorted(members), schema, connection).await
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for (tenant, row) in sorted(changes.tenants) {
            let Some(created) = row.created.as_deref() else { continue };
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(tenant),
                    Value::I32(row.partition),
                    Value::Text(row.name.as_deref().unwrap_or(&created.name)),
                    Value::Bool(created.personal),
                    Value::Uuid(created.owner.0),
                    Value::Time(created.created_at),
                    Value::Bool(row.strict_models.unwrap_or(false)),
                ],
            )?;
        }
        for ((tenant, user), (partition, member)) in sorted(changes.members) {
            let Some(member) = member else { continue };
            sink.row(
                MEMBERS,
                &[
                    Value::Uuid(tenant),
                    Value::Uuid(user),
                    Value::I32(partition),
                    Value::Text(role_name(member.role)),
                    Value::Time(member.added_at),
                ],
            )?;
        }
        Ok(())
    }
}

fn sorted<K: Ord + Copy, V>(rows: HashMap<K, V>) -> Vec<(K, V)> {
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_unstable_by_key(|row| row.0);
    rows
}

async fn store_tenants(
    rows: &[(Uuid, TenantChange)],
    schema: Schema,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    let new: Vec<_> = rows.iter().filter_map(|(id, row)| Some((*id, row.partition, row.created.as_deref()?))).collect();
    if !new.is_empty() {
        let statement = schema.sql(
            "INSERT INTO {schema}.tenants (tenant_id, partition, name, personal, created_by, created_at, strict_models)
             SELECT *, false FROM unnest($1::uuid[], $2::int4[], $3::text[], $4::bool[], $5::uuid[], $6::timestamptz[])",
        );
        sqlx::query(&statement)
            .bind(new.iter().map(|row| row.0).collect::<Vec<_>>())
            .bind(new.iter().map(|row| row.1).collect::<Vec<_>>())
            .bind(new.iter().map(|row| row.2.name.as_str()).collect::<Vec<_>>())
            .bind(new.iter().map(|row| row.2.personal).collect::<Vec<_>>())
            .bind(new.iter().map(|row| row.2.owner.0).collect::<Vec<_>>())
            .bind(new.iter().map(|row| Moment(row.2.created_at)).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
    }
    let set: Vec<_> = rows.iter().filter_map(|(id, row)| Some((*id, row.partition, row.strict_models?))).collect();
    if !set.is_empty() {
        let statement = schema.sql(
            "UPDATE {schema}.tenants AS t SET strict_models = u.strict_models
             FROM unnest($1::uuid[], $2::int4[], $3::bool[]) AS u (tenant_id, partition, strict_models)
             WHERE t.tenant_id = u.tenant_id AND t.partition = u.partition",
        );
        sqlx::query(&statement)
            .bind(set.iter().map(|row| row.0).collect::<Vec<_>>())
            .bind(set.iter().map(|row| row.1).collect::<Vec<_>>())
            .bind(set.iter().map(|row| row.2).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
    }
    let renamed: Vec<_> =
        rows.iter().filter_map(|(id, row)| Some((*id, row.partition, row.name.as_deref()?))).collect();
    if !renamed.is_empty() {
        let statement = schema.sql(
            "UPDATE {schema}.tenants AS t SET name = u.name
             FROM unnest($1::uuid[], $2::int4[], $3::text[]) AS u (tenant_id, partition, name)
             WHERE t.tenant_id = u.tenant_id AND t.partition = u.partition",
        );
        sqlx::query(&statement)
            .bind(renamed.iter().map(|row| row.0).collect::<Vec<_>>())
            .bind(renamed.iter().map(|row| row.1).collect::<Vec<_>>())
            .bind(renamed.iter().map(|row| row.2).collect::<Vec<_>>())
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn store_members(
    rows: &[(MemberKey, MemberChange)],
    schema: Schema,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    let gone: Vec<_> = rows.iter().filter(|(_, (_, member))| member.is_none()).collect();
    if !gone.is_empty() {
        let statement = schema.sql(
            "DELETE FROM {schema}.tenant_members AS m
             USING unnest($1::uuid[], $2::uuid[], $3::int4[]) AS u (tenant_id, user_id, partition)
             WHERE m.tenant_id = u.tenant_id AND m.user_id = u.user_id AND m.partition = u.partition",
        );
        sqlx::query(&statement)
            .bind(gone.iter().map(|row| row.0.0).collect::<Vec<_>>())
            .bind(gone.iter().map(|row| row.0.1).collect::<Vec<_>>())
            .bind(gone.iter().map(|row| row.1.0).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
    }
    let there: Vec<_> = rows.iter().filter_map(|(key, (partition, row))| Some((key, *partition, (*row)?))).collect();
    if !there.is_empty() {
        let statement = schema.sql(
            "INSERT INTO {schema}.tenant_members (tenant_id, user_id, partition, role, added_at)
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int4[], $4::text[], $5::timestamptz[])
             ON CONFLICT (tenant_id, user_id, partition) DO UPDATE SET role = EXCLUDED.role, added_at = EXCLUDED.added_at",
        );
        sqlx::query(&statement)
            .bind(there.iter().map(|row| row.0.0).collect::<Vec<_>>())
            .bind(there.iter().map(|row| row.0.1).collect::<Vec<_>>())
            .bind(there.iter().map(|row| row.1).collect::<Vec<_>>())
            .bind(there.iter().map(|row| role_name(row.2.role)).collect::<Vec<_>>())
            .bind(there.iter().map(|row| Moment(row.2.added_at)).collect::<Vec<_>>())
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// A tenant as one of its members sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    /// The tenant.
    pub tenant_id: TenantId,
    /// What people call it.
    pub name: String,
    /// Whether it came with an account.
    pub personal: bool,
    /// `member`, `admin` or `owner`.
    pub role: String,
    /// Whether a model beyond its tier is refused rather than substituted.
    pub strict_models: bool,
    /// When the tenant was created.
    pub created_at: Timestamp,
}

/// The most tenants or members listed at once.
pub const LIST_MAX_ROWS: i64 = 1_000;

/// The tenants somebody belongs to, oldest first.
///
/// # Errors
/// The database's.
pub async fn of_user(executor: impl PgExecutor<'_>, user: UserId) -> Result<Vec<Membership>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT t.tenant_id, t.name, t.personal, m.role, t.created_at, t.strict_models
         FROM read.tenant_members m JOIN read.tenants t ON t.tenant_id = m.tenant_id AND t.partition = m.partition
         WHERE m.user_id = $1 ORDER BY t.created_at, t.tenant_id LIMIT $2",
    )
    .bind(user.0)
    .bind(LIST_MAX_ROWS)
    .fetch_all(executor)
    .await?;
    rows.iter().map(membership).collect()
}

fn membership(row: &PgRow) -> Result<Membership, sqlx::Error> {
    Ok(Membership {
        tenant_id: TenantId(row.try_get(0)?),
        name: row.try_get(1)?,
        personal: row.try_get(2)?,
        role: row.try_get(3)?,
        created_at: row.try_get::<Moment, _>(4)?.0,
        strict_models: row.try_get(5)?,
    })
}

/// Somebody who belongs to a tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantMember {
    /// Who.
    pub user_id: UserId,
    /// `member`, `admin` or `owner`.
    pub role: String,
    /// Since when in this role.
    pub added_at: Timestamp,
}

/// Who belongs to a tenant, oldest first.
///
/// # Errors
/// The database's.
pub async fn members(executor: impl PgExecutor<'_>, tenant: TenantId) -> Result<Vec<TenantMember>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT user_id, role, added_at FROM read.tenant_members WHERE tenant_id = $1 ORDER BY added_at, user_id LIMIT $2",
    )
    .bind(tenant.0)
    .bind(LIST_MAX_ROWS)
    .fetch_all(executor)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(TenantMember {
                user_id: UserId(row.try_get(0)?),
                role: row.try_get(1)?,
                added_at: row.try_get::<Moment, _>(2)?.0,
            })
        })
        .collect()
}
