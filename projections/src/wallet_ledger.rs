//! `read.wallet_ledger`: every movement of a wallet's credit, one line each.
//!
//! A line's `amount` is what the event did to the wallet's credit: grants and reversals add, deductions, expiries, voids
//! and repaid debt take. Holds are no lines: they only set credit aside. So the amounts of a wallet's lines add up to
//! its available and held credit. `balance_after` is the available balance as the event recorded it, credit under open
//! holds already taken off. A line that only makes the tenant owe (`debt_incurred`) moves no credit: its amount is zero, it
//! has no balance, and `debt` and `debt_after` say what is owed.

mod movement;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row};
use uuid::Uuid;

use calos_domain::{Asset, Record, TenantId, Timestamp};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::stream_uuid;
use crate::moment::Moment;
use crate::page::{Page, page_rows};
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Schema, TableSpec, column_names};
use crate::text::{Text, Texts};
use crate::wallet_facts::WalletFact;

use movement::movement;

/// The projection.
#[derive(Debug)]
pub struct WalletLedger;

const COLUMNS: [Column; 16] = [
    Column::new("partition", ColumnType::Integer),
    Column::new("position", ColumnType::Bigint),
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("recorded_at", ColumnType::Timestamp),
    Column::new("effective_at", ColumnType::Timestamp),
    Column::new("type", ColumnType::Text),
    Column::new("asset", ColumnType::Text),
    Column::new("amount", ColumnType::Bigint),
    Column::nullable("balance_after", ColumnType::Bigint),
    Column::new("debt", ColumnType::Bigint),
    Column::nullable("debt_after", ColumnType::Bigint),
    Column::nullable("usage_id", ColumnType::Uuid),
    Column::nullable("hold_id", ColumnType::Uuid),
    Column::nullable("grant_id", ColumnType::Uuid),
    Column::new("reason", ColumnType::Text),
    Column::nullable("source_ref", ColumnType::Text),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: WalletLedger::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    // Tenant first: one index is both the key and the order in which a tenant's pages are read.
    key: &["tenant_id", "position", "partition"],
    indexes: &[],
    fillfactor: 100,
}];

/// The lines of a batch.
#[derive(Default, Debug)]
pub struct Changes {
    lines: Vec<Line>,
    texts: Texts,
}

#[derive(Debug)]
struct Line {
    partition: i32,
    position: i64,
    tenant: Uuid,
    recorded_at: Timestamp,
    effective_at: Timestamp,
    event: &'static str,
    asset: Asset,
    amount: i64,
    balance_after: Option<i64>,
    debt: i64,
    debt_after: Option<i64>,
    usage_id: Option<Uuid>,
    hold_id: Option<Uuid>,
    grant_id: Option<Uuid>,
    reason: Text,
    source_ref: Option<Text>,
}

impl Projection for WalletLedger {
    const NAME: &'static str = "wallet_ledger";
    const GROWTH: Growth = Growth::PerEvent;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        let Some(fact) = WalletFact::of(record)? else { return Ok(()) };
        let Some(movement) = movement(fact, record)? else { return Ok(()) };
        let tenant = stream_uuid(record)?;
        let too_long = ProjectError::OutOfRange { figure: "the text of a batch" };
        let reason = changes.texts.keep(&movement.reason).ok_or_else(|| too_long.clone())?;
        let source_ref = match &movement.source_ref {
            Some(text) => Some(changes.texts.keep(text).ok_or(too_long)?),
            None => None,
        };
        changes.lines.push(Line {
            partition: record.partition,
            position: record.position,
            tenant,
            recorded_at: record.recorded_at,
            effective_at: movement.effective_at.map_or(record.recorded_at, Timestamp::from_micros),
            event: movement.event,
            asset: movement.asset,
            amount: movement.amount,
            balance_after: movement.balance_after,
            debt: movement.debt,
            debt_after: movement.debt_after,
            usage_id: movement.usage_id,
            hold_id: movement.hold_id,
            grant_id: movement.grant_id,
            reason,
            source_ref,
        });
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let Changes { lines, texts } = changes;
        if lines.is_empty() {
            return Ok(());
        }
        let statement = schema.sql(INSERT);
        sqlx::query(&statement)
            .bind(lines.iter().map(|line| line.partition).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.position).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.tenant).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| Moment(line.recorded_at)).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| Moment(line.effective_at)).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.event).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.asset.as_str()).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.amount).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.balance_after).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.debt).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.debt_after).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.usage_id).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.hold_id).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.grant_id).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| texts.get(line.reason)).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.source_ref.map(|text| texts.get(text))).collect::<Vec<_>>())
            .execute(connection)
            .await
            .map(drop)
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        let Changes { lines, texts } = changes;
        for line in lines {
            sink.row(
                Self::NAME,
                &[
                    Value::I32(line.partition),
                    Value::I64(line.position),
                    Value::Uuid(line.tenant),
                    Value::Time(line.recorded_at),
                    Value::Time(line.effective_at),
                    Value::Text(line.event),
                    Value::Text(line.asset.as_str()),
                    Value::I64(line.amount),
                    Value::optional(line.balance_after, Value::I64),
                    Value::I64(line.debt),
                    Value::optional(line.debt_after, Value::I64),
                    Value::optional(line.usage_id, Value::Uuid),
                    Value::optional(line.hold_id, Value::Uuid),
                    Value::optional(line.grant_id, Value::Uuid),
                    Value::Text(texts.get(line.reason)),
                    Value::optional(line.source_ref.map(|text| texts.get(text)), Value::Text),
                ],
            )?;
        }
        Ok(())
    }
}

const INSERT: &str = "
INSERT INTO {schema}.wallet_ledger (partition, position, tenant_id, recorded_at, effective_at, type, asset, amount,
    balance_after, debt, debt_after, usage_id, hold_id, grant_id, reason, source_ref)
SELECT * FROM unnest($1::int4[], $2::int8[], $3::uuid[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::text[],
    $8::int8[], $9::int8[], $10::int8[], $11::int8[], $12::uuid[], $13::uuid[], $14::uuid[], $15::text[], $16::text[])";

/// One line of a wallet's ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LedgerEntry {
    /// The partition of the event behind it.
    pub partition: i32,
    /// The position of the event behind it.
    pub position: i64,
    /// When the log took it.
    pub recorded_at: Timestamp,
    /// When it counts from.
    pub effective_at: Timestamp,
    /// The event's stored name.
    pub event: String,
    /// `USD` or `CREDIT`.
    pub asset: String,
    /// What it added, or took when negative, in the asset's smallest unit.
    pub amount: i64,
    /// The available balance afterwards; none where the balance was not moved.
    pub balance_after: Option<i64>,
    /// How much more, or less when negative, is owed.
    pub debt: i64,
    /// What is owed afterwards, where that moved.
    pub debt_after: Option<i64>,
    /// The use it belongs to.
    pub usage_id: Option<Uuid>,
    /// The hold it settled.
    pub hold_id: Option<Uuid>,
    /// The grant it belongs to.
    pub grant_id: Option<Uuid>,
    /// Why: a grant's kind, a debt's cause, the words of a reversal.
    pub reason: String,
    /// What it refers to outside the wallet.
    pub source_ref: Option<String>,
}

/// A tenant's ledger, newest line first. `before` is the cursor of the page before; a page holds at most
/// [`PAGE_MAX_ROWS`](crate::page::PAGE_MAX_ROWS) lines.
///
/// # Errors
/// The database's.
pub async fn page(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    before: Option<i64>,
    limit: usize,
) -> Result<Page<LedgerEntry>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT partition, position, recorded_at, effective_at, type, asset, amount, balance_after, debt, debt_after,
             usage_id, hold_id, grant_id, reason, source_ref
         FROM read.wallet_ledger WHERE tenant_id = $1 AND position < $2 ORDER BY position DESC LIMIT $3",
    )
    .bind(tenant.0)
    .bind(before.unwrap_or(i64::MAX))
    .bind(page_rows(limit))
    .fetch_all(executor)
    .await?;
    let entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::new(entries, limit, |entry| entry.position))
}

fn entry(row: &PgRow) -> Result<LedgerEntry, sqlx::Error> {
    Ok(LedgerEntry {
        partition: row.try_get(0)?,
        position: row.try_get(1)?,
        recorded_at: row.try_get::<Moment, _>(2)?.0,
        effective_at: row.try_get::<Moment, _>(3)?.0,
        event: row.try_get(4)?,
        asset: row.try_get(5)?,
        amount: row.try_get(6)?,
        balance_after: row.try_get(7)?,
        debt: row.try_get(8)?,
        debt_after: row.try_get(9)?,
        usage_id: row.try_get(10)?,
        hold_id: row.try_get(11)?,
        grant_id: row.try_get(12)?,
        reason: row.try_get(13)?,
        source_ref: row.try_get(14)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{fold, wallet};

    #[test]
    fn lines_are_signed_and_holds_are_none() {
        let id = "00000000-0000-0000-0000-000000000001";
        let history = [
            wallet(
                "credits_granted",
                &format!(
                    r#"{{"grant_id":"{id}","asset":"USD","kind":"trial","amount":900,"effective_at":5,"source_ref":"a","available_after":900}}"#
                ),
            ),
            wallet("hold_placed", "{}"),
            wallet(
                "credits_deducted",
                &format!(
                    r#"{{"usage_id":"{id}","hold_id":"{id}","asset":"USD","amount":40,"held":50,"available_after":860}}"#
                ),
            ),
            wallet("debt_incurred", r#"{"asset":"USD","amount":9,"cause":"overrun","source_ref":"b","debt_after":9}"#),
        ];
        let Changes { lines, texts } = fold::<WalletLedger>(&history).unwrap();
        let shown: Vec<_> = lines
            .iter()
            .map(|line| (line.position, line.event, line.amount, line.balance_after, line.debt, texts.get(line.reason)))
            .collect();
        assert_eq!(
            shown,
            [
                (1, "credits_granted", 900, Some(900), 0, "trial"),
                (3, "credits_deducted", -40, Some(860), 0, "usage"),
                (4, "debt_incurred", 0, None, 9, "overrun"),
            ]
        );
        assert_eq!(lines[0].effective_at.micros(), 5);
        assert_eq!(lines[1].effective_at, lines[1].recorded_at);
    }
}
