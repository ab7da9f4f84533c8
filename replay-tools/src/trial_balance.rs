//! `trial-balance`: every account class at some moment, and what became known between two.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::PgPool;

use calos_domain::{Asset, Timestamp};
use calos_projections::as_of::{self, AsOf};

use crate::error::ToolError;
use crate::time_text::show;

/// The book at some moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialBalance {
    /// By effective time, if asked for.
    pub as_of: Option<String>,
    /// By recorded time, if asked for.
    pub as_known_at: Option<String>,
    /// Another recorded time, if asked for: then only the lines that differ are here.
    pub compared_with: Option<String>,
    /// Each account class and asset.
    pub lines: Vec<Line>,
}

/// One account class in one asset, in its smallest unit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The account class.
    pub account: String,
    /// The asset.
    pub asset: Asset,
    /// Everything debited.
    pub debit: i64,
    /// Everything credited.
    pub credit: i64,
    /// Debit less credit.
    pub balance: i64,
    /// The balance at the other recorded time, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared: Option<i64>,
}

/// Reads the trial balance; with `compared_with` the lines whose balance is another at that recorded time.
///
/// # Errors
/// The database's.
pub async fn trial_balance(
    pool: &PgPool,
    at: AsOf,
    compared_with: Option<Timestamp>,
) -> Result<TrialBalance, ToolError> {
    let mut lines = read(pool, at).await?;
    if let Some(recorded) = compared_with {
        let other = read(pool, AsOf { effective: at.effective, recorded: Some(recorded) }).await?;
        lines = differing(lines, other);
    }
    Ok(TrialBalance {
        as_of: at.effective.map(show),
        as_known_at: at.recorded.map(show),
        compared_with: compared_with.map(show),
        lines,
    })
}

async fn read(pool: &PgPool, at: AsOf) -> Result<Vec<Line>, ToolError> {
    let lines = as_of::trial_balance(pool, at).await?;
    let line = |line: as_of::TrialLine| Line {
        balance: line.debit - line.credit,
        account: line.account,
        asset: line.asset,
        debit: line.debit,
        credit: line.credit,
        compared: None,
    };
    Ok(lines.into_iter().map(line).collect())
}

/// The lines of the first with their balance in the second, where that is another; what only the second has is zero in
/// the first.
fn differing(lines: Vec<Line>, other: Vec<Line>) -> Vec<Line> {
    let mut balances: BTreeMap<(String, Asset), i64> =
        other.into_iter().map(|line| ((line.account, line.asset), line.balance)).collect();
    let mut differing = Vec::new();
    for mut line in lines {
        let compared = balances.remove(&(line.account.clone(), line.asset)).unwrap_or_default();
        line.compared = Some(compared);
        if line.balance != compared {
            differing.push(line);
        }
    }
    let missing = balances.into_iter().filter(|(_, balance)| *balance != 0);
    differing.extend(missing.map(|((account, asset), compared)| {
        let compared = Some(compared);
        Line { account, asset, debit: 0, credit: 0, balance: 0, compared }
    }));
    differing.sort_by(|one, other| (one.asset, &one.account).cmp(&(other.asset, &other.account)));
    differing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(account: &str, balance: i64) -> Line {
        let (debit, credit) = (balance.max(0), (-balance).max(0));
        Line { account: account.to_owned(), asset: Asset::Usd, debit, credit, balance, compared: None }
    }

    #[test]
    fn only_what_differs_between_two_moments_is_left_whichever_side_has_it() {
        let left = vec![line("Assets:Bank", 5), line("Equity:Voided", 7), line("Income:Breakage", -12)];
        let right = vec![line("Assets:Bank", 5), line("Equity:Voided", 6), line("Expenses:StripeFees", 1)];
        let differing = differing(left, right);
        let seen: Vec<_> = differing.iter().map(|line| (line.account.as_str(), line.balance, line.compared)).collect();
        let expected =
            [("Equity:Voided", 7, Some(6)), ("Expenses:StripeFees", 0, Some(1)), ("Income:Breakage", -12, Some(0))];
        assert_eq!(seen, expected);
    }
}
