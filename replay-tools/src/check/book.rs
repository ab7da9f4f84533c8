//! The book: whether it balances, whether a wallet is below nothing, whether holds end.

use std::collections::BTreeMap;

use sqlx::PgPool;

use calos_domain::Asset;
use calos_projections::as_of::AsOf;

use super::{Line, dollars};
use crate::error::ToolError;

/// A hold that has been over for longer than this was missed by the server that releases such holds, in seconds.
const OVERDUE_SECONDS: i64 = 300;

/// A wallet with less than this can pay for nothing, in micro-dollars.
const TOO_LITTLE_MICROS: i64 = 100_000;

/// Every asset sums to nothing over all accounts.
pub(super) async fn trial_balance(pool: &PgPool) -> Result<Line, ToolError> {
    let now = AsOf { effective: None, recorded: None };
    let balance = crate::trial_balance::trial_balance(pool, now, None).await?;
    let mut totals: BTreeMap<Asset, i64> = BTreeMap::new();
    for line in &balance.lines {
        *totals.entry(line.asset).or_default() += line.balance;
    }
    let wrong: Vec<String> = (totals.iter().filter(|(_, total)| **total != 0))
        .map(|(asset, total)| format!("{} is off by {total}", asset.as_str()))
        .collect();
    Ok(if wrong.is_empty() {
        Line::ok("book", format!("{} accounts sum to nothing in each asset", balance.lines.len()))
    } else {
        Line::fail("book", format!("{}; see E.4 in docs/runbook.md", wrong.join(", ")))
    })
}

/// No wallet is below nothing.
pub(super) async fn wallets(pool: &PgPool) -> Result<Line, ToolError> {
    let (wallets, below, low, held): (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE available < 0),
             count(*) FILTER (WHERE available BETWEEN 0 AND $1 - 1), coalesce(sum(held), 0)::bigint
         FROM read.wallet_balance WHERE asset = 'USD'",
    )
    .bind(TOO_LITTLE_MICROS)
    .fetch_one(pool)
    .await?;
    let detail = format!("{wallets}, {low} with less than {}, {} held", dollars(TOO_LITTLE_MICROS), dollars(held));
    Ok(if below == 0 {
        Line::ok("wallets", detail)
    } else {
        Line::fail("wallets", format!("{detail}; {below} below nothing: calos-replay diff wallet_balance"))
    })
}

/// Every hold ends by its deadline.
pub(super) async fn holds(pool: &PgPool) -> Result<Line, ToolError> {
    let (open, overdue): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE expires_at < now() - $1 * interval '1 second') FROM read.open_holds",
    )
    .bind(OVERDUE_SECONDS)
    .fetch_one(pool)
    .await?;
    Ok(if overdue == 0 {
        Line::ok("holds", format!("{open} open, none overdue"))
    } else {
        Line::fail("holds", format!("{open} open, {overdue} overdue: a running server releases them; is there one?"))
    })
}
