//! `read.usage_log`: every metered use, one row each: who served it, how much of it there was, what it cost.

use std::borrow::Cow;

use serde::Deserialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row};
use uuid::Uuid;

use calos_domain::{Record, TenantId, Timestamp};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::{payload, stream_uuid};
use crate::moment::Moment;
use crate::page::{Page, page_rows};
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Schema, TableSpec, column_names};
use crate::text::{Text, Texts};
use crate::wallet_facts::WalletFact;

/// The projection.
#[derive(Debug)]
pub struct UsageLog;

const COLUMNS: [Column; 23] = [
    Column::new("partition", ColumnType::Integer),
    Column::new("position", ColumnType::Bigint),
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("usage_id", ColumnType::Uuid),
    Column::new("at", ColumnType::Timestamp),
    Column::new("meter", ColumnType::Text),
    Column::nullable("api_key_id", ColumnType::Text),
    Column::new("provider", ColumnType::Text),
    Column::new("model", ColumnType::Text),
    Column::new("prompt_tokens", ColumnType::Bigint),
    Column::new("completion_tokens", ColumnType::Bigint),
    Column::new("cached_tokens", ColumnType::Bigint),
    Column::new("cache_write_tokens", ColumnType::Bigint),
    Column::new("reasoning_tokens", ColumnType::Bigint),
    Column::new("provider_cost", ColumnType::Bigint),
    Column::new("markup", ColumnType::Bigint),
    Column::new("total", ColumnType::Bigint),
    Column::new("byok", ColumnType::Boolean),
    Column::new("estimated", ColumnType::Boolean),
    Column::new("price_book_version", ColumnType::Text),
    Column::new("latency_ms", ColumnType::Bigint),
    Column::new("task_type", ColumnType::Text),
    Column::new("outcome", ColumnType::Text),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: UsageLog::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    // Tenant first: one index is both the key and the order in which a tenant's pages are read.
    key: &["tenant_id", "position", "partition"],
    indexes: &[],
    fillfactor: 100,
}];

/// Of `usage_recorded`.
#[derive(Deserialize)]
struct Used<'a> {
    usage_id: Uuid,
    #[serde(borrow)]
    meter: &'a str,
    #[serde(borrow, default)]
    api_key_id: Option<&'a str>,
    #[serde(borrow)]
    provider: Cow<'a, str>,
    #[serde(borrow)]
    model: Cow<'a, str>,
    prompt_tokens: i64,
    completion_tokens: i64,
    cached_tokens: i64,
    #[serde(default)]
    cache_write_tokens: i64,
    reasoning_tokens: i64,
    provider_cost: i64,
    markup: i64,
    total: i64,
    byok: bool,
    estimated: bool,
    #[serde(borrow)]
    price_book_version: Cow<'a, str>,
    latency_ms: i64,
    #[serde(borrow)]
    task_type: Cow<'a, str>,
    #[serde(borrow)]
    outcome: &'a str,
}

/// The uses of a batch.
#[derive(Default, Debug)]
pub struct Changes {
    uses: Vec<Use>,
    texts: Texts,
}

#[derive(Debug)]
struct Use {
    partition: i32,
    position: i64,
    tenant: Uuid,
    usage_id: Uuid,
    at: Timestamp,
    meter: Text,
    api_key_id: Option<Text>,
    provider: Text,
    model: Text,
    tokens: [i64; 5],
    costs: [i64; 3],
    byok: bool,
    estimated: bool,
    price_book_version: Text,
    latency_ms: i64,
    task_type: Text,
    outcome: Text,
}

impl Projection for UsageLog {
    const NAME: &'static str = "usage_log";
    const GROWTH: Growth = Growth::PerEvent;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        let Some(fact) = WalletFact::of(record)? else { return Ok(()) };
        match fact {
            WalletFact::UsageRecorded => {}
            WalletFact::WalletOpened
            | WalletFact::CreditsGranted
            | WalletFact::HoldPlaced
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
        let event: Used<'_> = payload(record)?;
        let tenant = stream_uuid(record)?;
        let texts = &mut changes.texts;
        let mut keep = |text: &str| texts.keep(text).ok_or(ProjectError::OutOfRange { figure: "the text of a batch" });
        let row = Use {
            partition: record.partition,
            position: record.position,
            tenant,
            usage_id: event.usage_id,
            at: record.recorded_at,
            meter: keep(event.meter)?,
            api_key_id: event.api_key_id.map(&mut keep).transpose()?,
            provider: keep(&event.provider)?,
            model: keep(&event.model)?,
            tokens: [
                event.prompt_tokens,
                event.completion_tokens,
                event.cached_tokens,
                event.cache_write_tokens,
                event.reasoning_tokens,
            ],
            costs: [event.provider_cost, event.markup, event.total],
            byok: event.byok,
            estimated: event.estimated,
            price_book_version: keep(&event.price_book_version)?,
            latency_ms: event.latency_ms,
            task_type: keep(&event.task_type)?,
            outcome: keep(event.outcome)?,
        };
        changes.uses.push(row);
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let Changes { uses, texts } = changes;
        if uses.is_empty() {
            return Ok(());
        }
        let statement = schema.sql(INSERT);
        let text = |of: fn(&Use) -> Text| uses.iter().map(|row| texts.get(of(row))).collect::<Vec<_>>();
        let tokens = |index: usize| uses.iter().map(|row| row.tokens[index]).collect::<Vec<_>>();
        let costs = |index: usize| uses.iter().map(|row| row.costs[index]).collect::<Vec<_>>();
        sqlx::query(&statement)
            .bind(uses.iter().map(|row| row.partition).collect::<Vec<_>>())
            .bind(uses.iter().map(|row| row.position).collect::<Vec<_>>())
            .bind(uses.iter().map(|row| row.tenant).collect::<Vec<_>>())
            .bind(uses.iter().map(|row| row.usage_id).collect::<Vec<_>>())
            .bind(uses.iter().map(|row| Moment(row.at)).collect::<Vec<_>>())
            .bind(text(|row| row.meter))
            .bind(uses.iter().map(|row| row.api_key_id.map(|key| texts.get(key))).collect::<Vec<_>>())
            .bind(text(|row| row.provider))
            .bind(text(|row| row.model))
            .bind(tokens(0))
            .bind(tokens(1))
            .bind(tokens(2))
            .bind(tokens(3))
            .bind(tokens(4))
            .bind(costs(0))
            .bind(costs(1))
            .bind(costs(2))
            .bind(uses.iter().map(|row| row.byok).collect::<Vec<_>>())
            .bind(uses.iter().map(|row| row.estimated).collect::<Vec<_>>())
            .bind(text(|row| row.price_book_version))
            .bind(uses.iter().map(|row| row.latency_ms).collect::<Vec<_>>())
            .bind(text(|row| row.task_type))
            .bind(text(|row| row.outcome))
            .execute(connection)
            .await
            .map(drop)
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        let Changes { uses, texts } = changes;
        for row in uses {
            let mut values = [Value::Null; COLUMNS.len()];
            values[..9].copy_from_slice(&[
                Value::I32(row.partition),
                Value::I64(row.position),
                Value::Uuid(row.tenant),
                Value::Uuid(row.usage_id),
                Value::Time(row.at),
                Value::Text(texts.get(row.meter)),
                Value::optional(row.api_key_id.map(|key| texts.get(key)), Value::Text),
                Value::Text(texts.get(row.provider)),
                Value::Text(texts.get(row.model)),
            ]);
            values[9..14].copy_from_slice(&row.tokens.map(Value::I64));
            values[14..17].copy_from_slice(&row.costs.map(Value::I64));
            values[17..].copy_from_slice(&[
                Value::Bool(row.byok),
                Value::Bool(row.estimated),
                Value::Text(texts.get(row.price_book_version)),
                Value::I64(row.latency_ms),
                Value::Text(texts.get(row.task_type)),
                Value::Text(texts.get(row.outcome)),
            ]);
            sink.row(Self::NAME, &values)?;
        }
        Ok(())
    }
}

const INSERT: &str = "
INSERT INTO {schema}.usage_log (partition, position, tenant_id, usage_id, at, meter, api_key_id, provider, model,
    prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, provider_cost, markup, total,
    byok, estimated, price_book_version, latency_ms, task_type, outcome)
SELECT * FROM unnest($1::int4[], $2::int8[], $3::uuid[], $4::uuid[], $5::timestamptz[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::int8[], $11::int8[], $12::int8[], $13::int8[], $14::int8[], $15::int8[], $16::int8[],
    $17::int8[], $18::bool[], $19::bool[], $20::text[], $21::int8[], $22::text[], $23::text[])";

/// One metered use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    /// The position of the event behind it.
    pub position: i64,
    /// The use.
    pub usage_id: Uuid,
    /// When it was recorded.
    pub at: Timestamp,
    /// `chat`, `embeddings`, `sms_outbound`, ….
    pub meter: String,
    /// The key that called, when a key called.
    pub api_key_id: Option<String>,
    /// Who served it.
    pub provider: String,
    /// The model that answered.
    pub model: String,
    /// Tokens in, cached ones included.
    pub prompt_tokens: i64,
    /// Tokens out, reasoning included.
    pub completion_tokens: i64,
    /// What the provider charges, in micro-dollars.
    pub provider_cost: i64,
    /// What CALOS adds, in micro-dollars.
    pub markup: i64,
    /// What the tenant pays, in micro-dollars.
    pub total: i64,
    /// Whether the tenant's own provider key was used.
    pub byok: bool,
    /// From admission to the last byte, in milliseconds.
    pub latency_ms: i64,
    /// The task the router was asked for.
    pub task_type: String,
    /// `completed`, `client_gone` or `provider_failed`.
    pub outcome: String,
}

/// A tenant's uses, newest first. `before` is the cursor of the page before; a page holds at most
/// [`PAGE_MAX_ROWS`](crate::page::PAGE_MAX_ROWS) rows.
///
/// # Errors
/// The database's.
pub async fn page(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    before: Option<i64>,
    limit: usize,
) -> Result<Page<Usage>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT position, usage_id, at, meter, api_key_id, provider, model, prompt_tokens, completion_tokens,
             provider_cost, markup, total, byok, latency_ms, task_type, outcome
         FROM read.usage_log WHERE tenant_id = $1 AND position < $2 ORDER BY position DESC LIMIT $3",
    )
    .bind(tenant.0)
    .bind(before.unwrap_or(i64::MAX))
    .bind(page_rows(limit))
    .fetch_all(executor)
    .await?;
    let uses = rows.iter().map(usage).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::new(uses, limit, |row| row.position))
}

fn usage(row: &PgRow) -> Result<Usage, sqlx::Error> {
    Ok(Usage {
        position: row.try_get(0)?,
        usage_id: row.try_get(1)?,
        at: row.try_get::<Moment, _>(2)?.0,
        meter: row.try_get(3)?,
        api_key_id: row.try_get(4)?,
        provider: row.try_get(5)?,
        model: row.try_get(6)?,
        prompt_tokens: row.try_get(7)?,
        completion_tokens: row.try_get(8)?,
        provider_cost: row.try_get(9)?,
        markup: row.try_get(10)?,
        total: row.try_get(11)?,
        byok: row.try_get(12)?,
        latency_ms: row.try_get(13)?,
        task_type: row.try_get(14)?,
        outcome: row.try_get(15)?,
    })
}
