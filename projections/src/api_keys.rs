//! `read.api_keys`: the keys of each tenant as people see them. Neither secrets nor their hashes are here: whether a key
//! may call is decided on its aggregate.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor, Row};
use uuid::Uuid;

use calos_domain::api_key::{ApiKeyEvent, ApiKeyIssued, ApiKeyRevoked};
use calos_domain::{Record, TenantId, Timestamp, UserId};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::{fact, stream_uuid_and_rest};
use crate::kind::Kind;
use crate::moment::Moment;
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Schema, TableSpec, column_names};

/// The projection.
#[derive(Debug)]
pub struct ApiKeys;

const COLUMNS: [Column; 16] = [
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
    issued: Option<Box<Issued>>,
    revoked: Option<ApiKeyRevoked>,
}

#[derive(Debug)]
struct Issued {
    event: ApiKeyIssued,
    /// Endpoints, models and networks the key is restricted to, as JSON.
    lists: [Option<String>; 3],
}

impl Issued {
    fn new(event: ApiKeyIssued) -> Result<Self, ProjectError> {
        let json = |list: &Option<Vec<String>>| {
            let text = list.as_ref().map(serde_json::to_string).transpose();
            text.map_err(|error| ProjectError::Payload(error.to_string()))
        };
        let lists = [json(&event.endpoints)?, json(&event.models)?, json(&event.ip_allowlist)?];
        Ok(Self { event, lists })
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
            | Kind::Operation => return Ok(()),
        }
        let event: ApiKeyEvent = fact(record, ApiKeyEvent::CATALOGUE)?;
        let (tenant, key_id) = stream_uuid_and_rest(record)?;
        let key = (tenant, key_id.to_owned());
        match event {
            ApiKeyEvent::ApiKeyIssued(event) => {
                let issued = Issued::new(event)?;
                let change = changes.keys.entry(key).or_default();
                change.partition = record.partition;
                change.issued = Some(Box::new(issued));
            }
            ApiKeyEvent::ApiKeyRevoked(event) => {
                let change = changes.keys.entry(key).or_default();
                change.partition = record.partition;
                change.revoked = Some(event);
            }
        }
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let rows = changes.sorted();
        let new: Vec<_> = rows.iter().filter_map(|(key, row)| Some((key, row, row.issued.as_deref()?))).collect();
        if !new.is_empty() {
            let list = |index: usize| new.iter().map(|(.., issued)| issued.lists[index].as_deref()).collect::<Vec<_>>();
            let limit = |of: fn(&ApiKeyIssued) -> u32| {
                new.iter().map(|(.., issued)| i64::from(of(&issued.event))).collect::<Vec<_>>()
            };
            let statement = schema.sql(INSERT);
            sqlx::query(&statement)
                .bind(new.iter().map(|(key, ..)| key.0).collect::<Vec<_>>())
                .bind(new.iter().map(|(key, ..)| key.1.as_str()).collect::<Vec<_>>())
                .bind(new.iter().map(|(_, row, _)| row.partition).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., issued)| issued.event.name.as_deref()).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., issued)| issued.event.last_four.as_str()).collect::<Vec<_>>())
                .bind(list(0))
                .bind(list(1))
                .bind(list(2))
                .bind(limit(|event| event.limits.per_minute))
                .bind(limit(|event| event.limits.per_hour))
                .bind(limit(|event| event.limits.per_day))
                .bind(new.iter().map(|(.., issued)| issued.event.expires_at.map(Moment)).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., issued)| issued.event.issued_by.0).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., issued)| Moment(issued.event.issued_at)).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
        }
        let gone: Vec<_> = rows.iter().filter_map(|(key, row)| Some((key, row, row.revoked.as_ref()?))).collect();
        if !gone.is_empty() {
            let statement = schema.sql(REVOKE);
            sqlx::query(&statement)
                .bind(gone.iter().map(|(key, ..)| key.0).collect::<Vec<_>>())
                .bind(gone.iter().map(|(key, ..)| key.1.as_str()).collect::<Vec<_>>())
                .bind(gone.iter().map(|(_, row, _)| row.partition).collect::<Vec<_>>())
                .bind(gone.iter().map(|(.., event)| event.revoked_by.0).collect::<Vec<_>>())
                .bind(gone.iter().map(|(.., event)| Moment(event.revoked_at)).collect::<Vec<_>>())
                .execute(connection)
                .await?;
        }
        Ok(())
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for ((tenant, key_id), row) in changes.sorted() {
            let Some(Issued { event, lists }) = row.issued.as_deref() else { continue };
            let list = |index: usize| Value::optional(lists[index].as_deref(), Value::Jsonb);
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(tenant),
                    Value::Text(&key_id),
                    Value::I32(row.partition),
                    Value::optional(event.name.as_deref(), Value::Text),
                    Value::Text(&event.last_four),
                    list(0),
                    list(1),
                    list(2),
                    Value::I64(i64::from(event.limits.per_minute)),
                    Value::I64(i64::from(event.limits.per_hour)),
                    Value::I64(i64::from(event.limits.per_day)),
                    Value::optional(event.expires_at, Value::Time),
                    Value::Uuid(event.issued_by.0),
                    Value::Time(event.issued_at),
                    Value::optional(row.revoked.as_ref(), |event| Value::Uuid(event.revoked_by.0)),
                    Value::optional(row.revoked.as_ref(), |event| Value::Time(event.revoked_at)),
                ],
            )?;
        }
        Ok(())
    }
}

const INSERT: &str = "
INSERT INTO {schema}.api_keys (tenant_id, key_id, partition, name, last_four, endpoints, models, ip_allowlist, per_minute,
    per_hour, per_day, expires_at, issued_by, issued_at)
SELECT u.tenant_id, u.key_id, u.partition, u.name, u.last_four, u.endpoints::jsonb, u.models::jsonb,
    u.ip_allowlist::jsonb, u.per_minute, u.per_hour, u.per_day, u.expires_at, u.issued_by, u.issued_at
FROM unnest($1::uuid[], $2::text[], $3::int4[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int8[],
    $10::int8[], $11::int8[], $12::timestamptz[], $13::uuid[], $14::timestamptz[])
    AS u (tenant_id, key_id, partition, name, last_four, endpoints, models, ip_allowlist, per_minute, per_hour, per_day,
        expires_at, issued_by, issued_at)";

const REVOKE: &str = "
UPDATE {schema}.api_keys AS k SET revoked_by = u.revoked_by, revoked_at = u.revoked_at
FROM unnest($1::uuid[], $2::text[], $3::int4[], $4::uuid[], $5::timestamptz[])
    AS u (tenant_id, key_id, partition, revoked_by, revoked_at)
WHERE k.tenant_id = u.tenant_id AND k.key_id = u.key_id AND k.partition = u.partition";

impl Changes {
    fn sorted(self) -> Vec<((Uuid, String), Change)> {
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
}

/// The most keys listed at once.
pub const LIST_MAX_KEYS: i64 = 1_000;

/// A tenant's keys, revoked ones included, newest first.
///
/// # Errors
/// The database's.
pub async fn of_tenant(executor: impl PgExecutor<'_>, tenant: TenantId) -> Result<Vec<ApiKey>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT tenant_id, key_id, name, last_four, endpoints, models, ip_allowlist, per_minute, per_hour, per_day,
             expires_at, issued_by, issued_at, revoked_at
         FROM read.api_keys WHERE tenant_id = $1 ORDER BY issued_at DESC, key_id LIMIT $2",
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
    })
}
