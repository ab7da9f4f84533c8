//! `read.account_balances`: what stands on every account of the book, under its full name.
//!
//! Accounts of nobody in particular (`Income:Usage:chat`) have a row per partition, to be summed; a tenant's accounts lie
//! in one. An account that keeps a hold goes when the hold has ended: its balance is zero then, for good.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, PgPool, Postgres, QueryBuilder, Row};
use uuid::Uuid;

use calos_domain::book::{Account, AccountClass};
use calos_domain::{Asset, GrantId, Record, TenantId};

use crate::book::{NOBODY, amount, booked};
use crate::copy_in::{CopyError, CopySink, Value};
use crate::page::{Page, page_rows};
use crate::projection::{Pace, ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Index, Schema, TableSpec, column_names};

/// The projection.
#[derive(Debug)]
pub struct AccountBalances;

const COLUMNS: [Column; 6] = [
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("account", ColumnType::Text),
    Column::new("asset", ColumnType::Text),
    Column::new("partition", ColumnType::Integer),
    Column::new("balance", ColumnType::Bigint),
    Column::new("entries", ColumnType::Bigint),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: AccountBalances::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["tenant_id", "account", "asset", "partition"],
    // Byte by byte: what begins alike lies together, whatever the database's language is.
    indexes: &[Index { name: "account_balances_account", columns: "account COLLATE \"C\", asset", only: None }],
    fillfactor: 70,
}];

/// How far each account moved.
#[derive(Default, Debug)]
pub struct Changes {
    moved: HashMap<(Account, Asset, i32), Moved>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Moved {
    balance: i64,
    entries: i64,
}

/// A row's key and what moved, with the account's name spelled out.
#[derive(Debug)]
struct Line {
    tenant: Uuid,
    account: String,
    asset: Asset,
    partition: i32,
    moved: Moved,
    /// Whether the row goes when nothing is left on it.
    passing: bool,
}

impl Changes {
    /// In the order of the key, so that two writers never wait for each other crosswise.
    fn lines(self) -> Vec<Line> {
        let mut lines: Vec<Line> = self
            .moved
            .into_iter()
            .map(|((account, asset, partition), moved)| Line {
                tenant: account.tenant().unwrap_or(NOBODY).0,
                passing: account.class() == AccountClass::Held,
                account: account.to_string(),
                asset,
                partition,
                moved,
            })
            .collect();
        lines.sort_unstable_by(|a, b| {
            (a.tenant, &a.account, a.asset, a.partition).cmp(&(b.tenant, &b.account, b.asset, b.partition))
        });
        lines
    }
}

impl Projection for AccountBalances {
    const NAME: &'static str = "account_balances";
    const GROWTH: Growth = Growth::PerKey;
    const PACE: Pace = Pace::Relaxed;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        let Some(booked) = booked(record)? else { return Ok(()) };
        // Checked to the end before anything is kept.
        let mut after = Vec::new();
        for entry in &booked.entries {
            for posting in &entry.postings {
                let key = (posting.account.clone(), entry.asset, record.partition);
                let before = changes.moved.get(&key).copied().unwrap_or_default();
                let balance = before.balance.checked_add(amount(posting.amount)?);
                let balance = balance.ok_or(ProjectError::OutOfRange { figure: "an account's balance" })?;
                // One batch holds far fewer entries than an i64 counts.
                after.push((key, Moved { balance, entries: before.entries + 1 }));
            }
        }
        for (key, moved) in after {
            // A hold that began and ended leaves no trace: a fold of a whole log keeps no more than those still open.
            if moved.balance == 0 && key.0.class() == AccountClass::Held {
                changes.moved.remove(&key);
            } else {
                changes.moved.insert(key, moved);
            }
        }
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let lines = changes.lines();
        if lines.is_empty() {
            return Ok(());
        }
        let statement = schema.sql(STORE);
        sqlx::query(&statement)
            .bind(lines.iter().map(|line| line.tenant).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.account.as_str()).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.asset.as_str()).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.partition).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.moved.balance).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.moved.entries).collect::<Vec<_>>())
            .bind(lines.iter().map(|line| line.passing).collect::<Vec<_>>())
            .execute(connection)
            .await
            .map(drop)
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for line in changes.lines() {
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(line.tenant),
                    Value::Text(&line.account),
                    Value::Text(line.asset.as_str()),
                    Value::I32(line.partition),
                    Value::I64(line.moved.balance),
                    Value::I64(line.moved.entries),
                ],
            )?;
        }
        Ok(())
    }
}

// A row that goes and one that stays are never the same, so both statements may be one.
const STORE: &str = "
WITH moved AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int4[], $5::int8[], $6::int8[], $7::bool[])
        AS u (tenant_id, account, asset, partition, balance, entries, passing)
), gone AS (
    DELETE FROM {schema}.account_balances AS b USING moved AS u
    WHERE u.passing AND b.tenant_id = u.tenant_id AND b.account = u.account AND b.asset = u.asset
        AND b.partition = u.partition AND b.balance + u.balance = 0
    RETURNING b.tenant_id, b.account, b.asset, b.partition
)
INSERT INTO {schema}.account_balances AS b (tenant_id, account, asset, partition, balance, entries)
SELECT u.tenant_id, u.account, u.asset, u.partition, u.balance, u.entries FROM moved AS u
WHERE NOT EXISTS (SELECT FROM gone AS g WHERE g.tenant_id = u.tenant_id AND g.account = u.account
    AND g.asset = u.asset AND g.partition = u.partition)
ON CONFLICT (tenant_id, account, asset, partition) DO UPDATE SET
    balance = b.balance + EXCLUDED.balance,
    entries = b.entries + EXCLUDED.entries";

/// What stands on an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountBalance {
    /// Its full name.
    pub account: String,
    /// In which asset.
    pub asset: Asset,
    /// A debit is positive.
    pub balance: i64,
    /// How many entries moved it.
    pub entries: i64,
}

/// The place of the last row of a page: account and asset.
pub type AccountCursor = (String, Asset);

/// Accounts whose name begins with `prefix` (all of them when it is empty), by name, after the one at `cursor`.
///
/// # Errors
/// The database's; a sum that leaves the range of a 64-bit integer is one.
pub async fn page(
    pool: &PgPool,
    prefix: &str,
    cursor: Option<&AccountCursor>,
    limit: usize,
) -> Result<Page<AccountBalance, AccountCursor>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new(
        "SELECT account COLLATE \"C\", asset, sum(balance)::int8, sum(entries)::int8 FROM read.account_balances
         WHERE true",
    );
    if !prefix.is_empty() {
        query.push(" AND account COLLATE \"C\" >= ").push_bind(prefix);
    }
    if let Some(end) = end_of(prefix) {
        query.push(" AND account COLLATE \"C\" < ").push_bind(end);
    }
    if let Some((account, asset)) = cursor {
        query.push(" AND (account COLLATE \"C\", asset) > (").push_bind(account);
        query.push(", ").push_bind(asset.as_str()).push(")");
    }
    query.push(" GROUP BY account COLLATE \"C\", asset ORDER BY account COLLATE \"C\", asset LIMIT ");
    let rows = query.push_bind(page_rows(limit)).build().fetch_all(pool).await?;
    let rows = rows.iter().map(balance).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::new(rows, limit, |row| (row.account.clone(), row.asset)))
}

/// The first text, byte by byte, that is beyond everything that begins with `prefix`. None when there is no such text.
fn end_of(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    // Of the characters that have a next one, the last is raised.
    while let Some(last) = end.pop() {
        if let Some(next) = char::from_u32(u32::from(last) + 1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// What stands on one account in an asset; none when nothing was ever posted there, or its hold has ended.
///
/// # Errors
/// As [`page`].
pub async fn find(
    executor: impl PgExecutor<'_>,
    account: &Account,
    asset: Asset,
) -> Result<Option<AccountBalance>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT account, asset, sum(balance)::int8, sum(entries)::int8 FROM read.account_balances
         WHERE tenant_id = $1 AND account = $2 AND asset = $3 GROUP BY account, asset",
    )
    .bind(account.tenant().unwrap_or(NOBODY).0)
    .bind(account.to_string())
    .bind(asset.as_str())
    .fetch_optional(executor)
    .await?;
    row.as_ref().map(balance).transpose()
}

/// What a tenant can still spend of each of these grants, as far as the book knows; those nothing was posted to are left
/// out.
///
/// # Errors
/// As [`page`].
pub(crate) async fn of_grants(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    grants: &[GrantId],
) -> Result<Vec<(GrantId, Asset, i64)>, sqlx::Error> {
    let names: HashMap<String, GrantId> =
        grants.iter().map(|grant| (Account::Available(tenant, *grant).to_string(), *grant)).collect();
    let rows = sqlx::query(
        "SELECT account, asset, balance, entries FROM read.account_balances WHERE tenant_id = $1 AND account = ANY($2)",
    )
    .bind(tenant.0)
    .bind(names.keys().map(String::as_str).collect::<Vec<_>>())
    .fetch_all(executor)
    .await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        let row = balance(row)?;
        // It is a liability: what can be spent stands there as a credit.
        let available =
            row.balance.checked_neg().ok_or_else(|| sqlx::Error::Decode("a balance out of range".into()))?;
        all.extend(names.get(&row.account).map(|grant| (*grant, row.asset, available)));
    }
    Ok(all)
}

fn balance(row: &PgRow) -> Result<AccountBalance, sqlx::Error> {
    let asset = row.try_get::<&str, _>(1)?.parse();
    Ok(AccountBalance {
        account: row.try_get(0)?,
        asset: asset.map_err(|_| sqlx::Error::Decode("read.account_balances holds an unknown asset".into()))?,
        balance: row.try_get(2)?,
        entries: row.try_get(3)?,
    })
}
