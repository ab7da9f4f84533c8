//! `read.api_keys`: the keys of each tenant as people see them. Neither secrets nor their hashes are here: whether a key
//! may call is decided on its aggregate.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor, Row};
use uuid::Uuid;

use calos_domain::api_key::{ApiKeyEvent, ApiKeyIssued, ApiKeyRevoked, ApiKeyRotated, KeySettings};
use calos_domain::{KeyId, Record, TenantId, Timestamp, UserId};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::{fact, stream_uuid_and_rest};
use crate::kind::Kind;
use crate::moment::Moment;
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Schema, TableSpec, column_names};

/// The projection.
#[derive(Debug)]
pub struct ApiKeys;

const COLUMNS: [Column; 20] = [
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("key_id", ColumnType::Text),
    Column::new("partition", ColumnType::Integer),
    Column::nullable("name", ColumnType::Text),
    Column::new("last_four", ColumnType::Text),
    Column::nullable("endpoints", ColumnType::Jsonb),
    Column::nullable("models", ColumnType::Jsonb),
    Column::nullable("ip_allowlist", ColumnType::Jsonb),
    Column::new("per_minute", ColumnType::Bigint),
    Column::new("per_hour", ColumnType::Bigint),
    Column::new("per_day", ColumnType::Bigint),
    Column::nullable("expires_at", ColumnType::Timestamp),
    Column::new("issued_by", ColumnType::Uuid),
    Column::new("issued_at", ColumnType::Timestamp),
    Column::nullable("revoked_by", ColumnType::Uuid),
    Column::nullable("revoked_at", ColumnType::Timestamp),
    Column::nullable("budget_per_day", ColumnType::Bigint),
    Column::nullable("budget_per_month", ColumnType::Bigint),
    Column::nullable("replaces", ColumnType::Text),
    Column::nullable("replaced_by", ColumnType::Text),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: ApiKeys::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["tenant_id", "key_id", "partition"],
    indexes: &[],
    fillfactor: 90,
}];

/// What happened to each key.
#[derive(Default, Debug)]
pub struct Changes {
    keys: HashMap<(Uuid, String), Change>,
}

#[derive(Default, Debug)]
struct Change {
    partition: i32,
    issued: Option<Box<ApiKeyIssued>>,
    /// The latest settings, when there were any in this batch.
    settings: Option<Box<Settings>>,
    rotated: Option<ApiKeyRotated>,
    revoked: Option<ApiKeyRevoked>,
}

/// A key's settings as a row has them.
#[derive(Debug)]
struct Settings {
    of: KeySettings,
    /// Endpoints, models and networks the key is restricted to, as JSON.
    lists: [Option<String>; 3],
}

impl Settings {
    fn new(of: KeySettings) -> Result<Box<Self>, ProjectError> {
        let json = |list: &Option<Vec<String>>| {
            let text = list.as_ref().map(serde_json::to_string).transpose();
            text.map_err(|error| ProjectError::Payload(error.to_string()))
        };
        let lists = [json(&of.endpoints)?, json(&of.models)?, json(&of.ip_allowlist)?];
        Ok(Box::new(Self { of, lists }))
    }

    /// When the key ends, with the end a rotation gave it.
    fn ends_at(&self, rotated: Option<&ApiKeyRotated>) -> Option<Timestamp> {
        let own = self.of.expires_at;
        rotated.map_or(own, |rotated| Some(own.map_or(rotated.ends_at, |own| own.min(rotated.ends_at))))
    }

    fn limits(&self) -> [i64; 3] {
        [self.of.limits.per_minute, self.of.limits.per_hour, self.of.limits.per_day].map(i64::from)
    }

    fn budgets(&self) -> [Option<i64>; 2] {
        [self.of.budgets.per_day, self.of.budgets.per_month].map(|budget| budget.map(calos_domain::MicroUsd::get))
    }
}

impl Projection for ApiKeys {
    const NAME: &'static str = "api_keys";
    const GROWTH: Growth = Growth::PerKey;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        match Kind::of(record.aggregate_type)? {
            Kind::ApiKey => {}
            Kind::Wallet
            | Kind::Tenant
            | Kind::Licence
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
        let event: ApiKeyEvent = fact(record)?;
        let (tenant, key_id) = stream_uuid_and_rest(record)?;
        let key = (tenant, key_id.to_owned());
        let settings = match &event {
            ApiKeyEvent::ApiKeyIssued(event) => Some(Settings::new(event.settings())?),
            ApiKeyEvent::ApiKeyChanged(event) => Some(Settings::new(event.settings.clone())?),
            ApiKeyEvent::ApiKeyRotated(_) | ApiKeyEvent::ApiKeyRevoked(_) => None,
        };
        let change = changes.keys.entry(key).or_default();
        change.partition = record.partition;
        change.settings = settings.or(change.settings.take());
        match event {
            ApiKeyEvent::ApiKeyIssued(event) => change.issued = Some(Box::new(event)),
            ApiKeyEvent::ApiKeyChanged(_) => {}
            ApiKeyEvent::ApiKeyRotated(event) => change.rotated = Some(event),
            ApiKeyEvent::ApiKeyRevoked(event) => change.revoked = Some(event),
        }
        Ok(())
    }

    /// New keys, then changes, then ends: no order within a batch matters beyond that, since a key in whose place
    /// another stands cannot be made to end later than their overlap.
    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let rows = changes.sorted();
        insert(&rows, schema, connection).await?;
        change(&rows, schema, connection).await?;
        rotate(&rows, schema, connection).await?;
        revoke(&rows, schema, connection).await
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for ((tenant, key_id), row) in changes.sorted() {
            let (Some(issued), Some(settings)) = (row.issued.as_deref(), row.settings.as_deref()) else { continue };
            let list = |index: usize| Value::optional(settings.lists[index].as_deref(), Value::Jsonb);
            let [per_minute, per_hour, per_day] = settings.limits().map(Value::I64);
            let [budget_per_day, budget_per_month] =
                settings.budgets().map(|budget| Value::optional(budget, Value::I64));
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(tenant),
                    Value::Text(&key_id),
                    Value::I32(row.partition),
                    Value::optional(settings.of.name.as_deref(), Value::Text),
                    Value::Text(&issued.last_four),
                    list(0),
                    list(1),
                    list(2),
                    per_minute,
                    per_hour,
                    per_day,
                    Value::optional(settings.ends_at(row.rotated.as_ref()), Value::Time),
                    Value::Uuid(issued.issued_by.0),
                    Value::Time(issued.issued_at),
                    Value::optional(row.revoked.as_ref(), |event| Value::Uuid(event.revoked_by.0)),
                    Value::optional(row.revoked.as_ref(), |event| Value::Time(event.revoked_at)),
                    budget_per_day,
                    budget_per_month,
                    Value::optional(issued.replaces.as_ref(), |key| Value::Text(key.as_str())),
                    Value::optional(row.rotated.as_ref(), |event| Value::Text(event.replaced_by.as_str())),
                ],
            )?;
        }
        Ok(())
    }
}

type Keyed = ((Uuid, String), Change);

/// Binds the settings of these rows, in the order in which [`INSERT`] and [`CHANGE`] name them.
macro_rules! bind_settings {
    ($query:expr, $rows:expr) => {{
        let rows = $rows;
        let list =
            |index: usize| rows.iter().map(|(.., settings)| settings.lists[index].as_deref()).collect::<Vec<_>>();
        let limit = |index: usize| rows.iter().map(|(.., settings)| settings.limits()[index]).collect::<Vec<_>>();
        let budget = |index: usize| rows.iter().map(|(.., settings)| settings.budgets()[index]).collect::<Vec<_>>();
        $query
            .bind(rows.iter().map(|(key, ..)| key.0).collect::<Vec<_>>())
            .bind(rows.iter().map(|(key, ..)| key.1.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|(_, row, ..)| row.partition).collect::<Vec<_>>())
            .bind(rows.iter().map(|(.., settings)| settings.of.name.as_deref()).collect::<Vec<_>>())
            .bind(list(0))
            .bind(list(1))
            .bind(list(2))
            .bind(limit(0))
            .bind(limit(1))
            .bind(limit(2))
            .bind(rows.iter().map(|(.., settings)| settings.of.expires_at.map(Moment)).collect::<Vec<_>>())
            .bind(budget(0))
            .bind(budget(1))
    }};
}

async fn insert(rows: &[Keyed], schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let new: Vec<_> = rows
        .iter()
        .filter_map(|(key, row)| Some((key, row, row.issued.as_deref()?, row.settings.as_deref()?)))
        .collect();
    if new.is_empty() {
        return Ok(());
    }
    let statement = schema.sql(INSERT);
    bind_settings!(sqlx::query(&statement), &new)
        .bind(new.iter().map(|(_, _, issued, _)| issued.last_four.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, _, issued, _)| issued.issued_by.0).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, _, issued, _)| Moment(issued.issued_at)).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, _, issued, _)| issued.replaces.as_ref().map(KeyId::as_str)).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map(drop)
}

async fn change(rows: &[Keyed], schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let known = rows.iter().filter(|(_, row)| row.issued.is_none());
    let changed: Vec<_> = known.filter_map(|(key, row)| Some((key, row, row.settings.as_deref()?))).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let statement = schema.sql(CHANGE);
    bind_settings!(sqlx::query(&statement), &changed).execute(connection).await.map(drop)
}

async fn rotate(rows: &[Keyed], schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let rotated: Vec<_> = rows.iter().filter_map(|(key, row)| Some((key, row, row.rotated.as_ref()?))).collect();
    if rotated.is_empty() {
        return Ok(());
    }
    let statement = schema.sql(ROTATE);
    sqlx::query(&statement)
        .bind(rotated.iter().map(|(key, ..)| key.0).collect::<Vec<_>>())
        .bind(rotated.iter().map(|(key, ..)| key.1.as_str()).collect::<Vec<_>>())
        .bind(rotated.iter().map(|(_, row, _)| row.partition).collect::<Vec<_>>())
        .bind(rotated.iter().map(|(.., event)| event.replaced_by.as_str()).collect::<Vec<_>>())
        .bind(rotated.iter().map(|(.., event)| Moment(event.ends_at)).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map(drop)
}

async fn revoke(rows: &[Keyed], schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let gone: Vec<_> = rows.iter().filter_map(|(key, row)| Some((key, row, row.revoked.as_ref()?))).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let statement = schema.sql(REVOKE);
    sqlx::query(&statement)
        .bind(gone.iter().map(|(key, ..)| key.0).collect::<Vec<_>>())
        .bind(gone.iter().map(|(key, ..)| key.1.as_str()).collect::<Vec<_>>())
        .bind(gone.iter().map(|(_, row, _)| row.partition).collect::<Vec<_>>())
        .bind(gone.iter().map(|(.., event)| event.revoked_by.0).collect::<Vec<_>>())
        .bind(gone.iter().map(|(.., event)| Moment(event.revoked_at)).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map(drop)
}

const INSERT: &str = "
INSERT INTO {schema}.api_keys (tenant_id, key_id, partition, name, endpoints, models, ip_allowlist, per_minute,
    per_hour, per_day, expires_at, budget_per_day, budget_per_month, last_four, issued_by, issued_at, replaces)
SELECT u.tenant_id, u.key_id, u.partition, u.name, u.endpoints::jsonb, u.models::jsonb, u.ip_allowlist::jsonb,
    u.per_minute, u.per_hour, u.per_day, u.expires_at, u.budget_per_day, u.budget_per_month, u.last_four, u.issued_by,
    u.issued_at, u.replaces
FROM unnest($1::uuid[], $2::text[], $3::int4[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int8[],
    $9::int8[], $10::int8[], $11::timestamptz[], $12::int8[], $13::int8[], $14::text[], $15::uuid[],
    $16::timestamptz[], $17::text[])
    AS u (tenant_id, key_id, partition, name, endpoints, models, ip_allowlist, per_minute, per_hour, per_day,
        expires_at, budget_per_day, budget_per_month, last_four, issued_by, issued_at, replaces)";

const CHANGE: &str = "
UPDATE {schema}.api_keys AS k SET name = u.name, endpoints = u.endpoints::jsonb, models = u.models::jsonb,
    ip_allowlist = u.ip_allowlist::jsonb, per_minute = u.per_minute, per_hour = u.per_hour, per_day = u.per_day,
    expires_at = u.expires_at, budget_per_day = u.budget_per_day, budget_per_month = u.budget_per_month
FROM unnest($1::uuid[], $2::text[], $3::int4[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int8[],
    $9::int8[], $10::int8[], $11::timestamptz[], $12::int8[], $13::int8[])
    AS u (tenant_id, key_id, partition, name, endpoints, models, ip_allowlist, per_minute, per_hour, per_day,
        expires_at, budget_per_day, budget_per_month)
WHERE k.tenant_id = u.tenant_id AND k.key_id = u.key_id AND k.partition = u.partition";

const ROTATE: &str = "
UPDATE {schema}.api_keys AS k SET replaced_by = u.replaced_by, expires_at = least(k.expires_at, u.ends_at)
FROM unnest($1::uuid[], $2::text[], $3::int4[], $4::text[], $5::timestamptz[])
    AS u (tenant_id, key_id, partition, replaced_by, ends_at)
WHERE k.tenant_id = u.tenant_id AND k.key_id = u.key_id AND k.partition = u.partition";

const REVOKE: &str = "
UPDATE {schema}.api_keys AS k SET revoked_by = u.revoked_by, revoked_at = u.revoked_at
FROM unnest($1::uuid[], $2::text[], $3::int4[], $4::uuid[], $5::timestamptz[])
    AS u (tenant_id, key_id, partition, revoked_by, revoked_at)
WHERE k.tenant_id = u.tenant_id AND k.key_id = u.key_id AND k.partition = u.partition";

impl Changes {
    fn sorted(self) -> Vec<Keyed> {
        let mut rows: Vec<_> = self.keys.into_iter().collect();
        rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        rows
    }
}

/// A key as people see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiKey {
    /// Whose.
    pub tenant_id: TenantId,
    /// The half it is looked up by.
    pub key_id: String,
    /// What people call it.
    pub name: Option<String>,
    /// The secret's last four characters.
    pub last_four: String,
    /// The only paths it may call, when it is restricted.
    pub endpoints: Option<Vec<String>>,
    /// The only models it may name, when it is restricted.
    pub models: Option<Vec<String>>,
    /// The only networks it may call from, when it is restricted.
    pub ip_allowlist: Option<Vec<String>>,
    /// Calls per minute, hour and day.
    pub limits: [i64; 3],
    /// Until when, if not for ever.
    pub expires_at: Option<Timestamp>,
    /// Who issued it.
    pub issued_by: UserId,
    /// When.
    pub issued_at: Timestamp,
    /// Since when it opens nothing any more.
    pub revoked_at: Option<Timestamp>,
    /// What it may spend in a day and in a month, in micro-dollars, where there is a budget.
    pub budgets: [Option<i64>; 2],
    /// The key whose place it took.
    pub replaces: Option<String>,
    /// The key that took its place.
    pub replaced_by: Option<String>,
}

/// The most keys listed at once.
pub const LIST_MAX_KEYS: i64 = 1_000;

/// A tenant's keys: those that open something first, each kind newest first. A tenant has no more live ones than are
/// listed, so only ended ones can be left out.
///
/// # Errors
/// The database's.
pub async fn of_tenant(executor: impl PgExecutor<'_>, tenant: TenantId) -> Result<Vec<ApiKey>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT tenant_id, key_id, name, last_four, endpoints, models, ip_allowlist, per_minute, per_hour, per_day,
             expires_at, issued_by, issued_at, revoked_at, budget_per_day, budget_per_month, replaces, replaced_by
         FROM read.api_keys WHERE tenant_id = $1
         ORDER BY revoked_at IS NOT NULL OR coalesce(expires_at <= now(), false), issued_at DESC, key_id LIMIT $2",
    )
    .bind(tenant.0)
    .bind(LIST_MAX_KEYS)
    .fetch_all(executor)
    .await?;
    rows.iter().map(api_key).collect()
}

fn api_key(row: &PgRow) -> Result<ApiKey, sqlx::Error> {
    let list = |index: usize| {
        let json: Option<Json<Vec<String>>> = row.try_get(index)?;
        Ok::<_, sqlx::Error>(json.map(|Json(list)| list))
    };
    Ok(ApiKey {
        tenant_id: TenantId(row.try_get(0)?),
        key_id: row.try_get(1)?,
        name: row.try_get(2)?,
        last_four: row.try_get(3)?,
        endpoints: list(4)?,
        models: list(5)?,
        ip_allowlist: list(6)?,
        limits: [row.try_get(7)?, row.try_get(8)?, row.try_get(9)?],
        expires_at: row.try_get::<Option<Moment>, _>(10)?.map(|at| at.0),
        issued_by: UserId(row.try_get(11)?),
        issued_at: row.try_get::<Moment, _>(12)?.0,
        revoked_at: row.try_get::<Option<Moment>, _>(13)?.map(|at| at.0),
        budgets: [row.try_get(14)?, row.try_get(15)?],
        replaces: row.try_get(16)?,
        replaced_by: row.try_get(17)?,
    })
}
