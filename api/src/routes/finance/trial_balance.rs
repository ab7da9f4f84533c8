//! The trial balance: what stands on every account, as of one date and as known at another.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use calos_domain::Asset;
use calos_domain::period::{ClosedLine, Month, PERIODS_STREAM, PeriodClosed};
use calos_projections::as_of::{self, AsOf, TrialLine};
use calos_projections::journal::Journal;
use calos_projections::periods::Periods;
use calos_projections::trial_balance::TrialBalance;
use calos_projections::{Projection, dead_letters, periods};

use super::span;
use crate::auth::FinanceReader;
use crate::calendar;
use crate::error::ApiError;
use crate::ledger::{Cut, closing_of, closings};
use crate::moment::rfc3339;
use crate::openapi::ErrorBody;
use crate::position::After;
use crate::request::Query;
use crate::wiring::App;

/// As of when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub struct TrialQuery {
    /// Only what takes effect up to and with this moment (RFC 3339) or day; everything when left out.
    as_of: Option<String>,
    /// Only what was recorded up to and with this moment or day; everything when left out.
    as_known_at: Option<String>,
    /// A month such as `2026-10`, in place of both: as of its end, and as known when it was closed if it is.
    period: Option<String>,
    /// Another `asKnownAt` to compare with.
    compare_as_known_at: Option<String>,
}

/// The trial balance. Micro-dollars for `USD`, whole credits for `CREDIT`; a balance is debit minus credit.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrialAnswer {
    /// Up to and with which effective moment, RFC 3339; null for everything.
    as_of: Option<String>,
    /// Up to and with which recorded moment, RFC 3339; null for everything.
    as_known_at: Option<String>,
    /// The closing that fixed the month that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    closing: Option<ClosingLine>,
    /// One line per account and asset.
    lines: Vec<TrialBalanceLine>,
    /// The sum of all balances per asset: always 0.
    totals: BTreeMap<&'static str, i64>,
    /// Events that are set aside and so not in these figures; 0 as it should be.
    incomplete: i64,
    /// With what it was compared, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared_as_known_at: Option<String>,
    /// The lines in which the two differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    differences: Option<Vec<TrialDifference>>,
}

/// A line of the trial balance.
#[derive(Serialize, ToSchema)]
pub struct TrialBalanceLine {
    /// The account, with tenants, grants and holds left out.
    account: String,
    /// `USD` or `CREDIT`.
    asset: &'static str,
    /// The sum of its debits.
    debit: i64,
    /// The sum of its credits.
    credit: i64,
    /// Debit minus credit.
    balance: i64,
}

/// A line in which two trial balances differ.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrialDifference {
    /// The account.
    account: String,
    /// `USD` or `CREDIT`.
    asset: &'static str,
    /// Its balance.
    balance: i64,
    /// Its balance as known at `comparedAsKnownAt`.
    compared: i64,
    /// What `balance` has more than `compared`.
    difference: i64,
}

/// What a closed month was fixed with.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClosingLine {
    /// The month that was closed: the one asked for, or the first closed one after it.
    month: String,
    /// When, RFC 3339.
    closed_at: String,
    /// Who closed it.
    closed_by: Uuid,
    /// The hash of its figures, hexadecimal.
    hash: String,
    /// Whether the figures here are those it was closed with; null where the closing is a later month's.
    agrees: Option<bool>,
}

/// What stands on every account.
#[utoipa::path(get, path = "/api/finance/trial-balance", tag = "finance",
    params(TrialQuery, ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = TrialAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn trial_balance(
    State(app): State<App>,
    _reader: FinanceReader,
    after: After,
    Query(query): Query<TrialQuery>,
) -> Result<Json<TrialAnswer>, ApiError> {
    let (at, period) = asked(&app, &query).await?;
    let compared = match &query.compare_as_known_at {
        Some(text) => Some(calendar::moment_or_day("compareAsKnownAt", text)?),
        None => None,
    };
    after.wait(&app, TrialBalance::NAME).await?;
    after.wait(&app, Journal::NAME).await?;
    let lines = as_of::trial_balance(&app.pool, at).await?;
    let differences = match compared {
        None => None,
        Some(recorded) => {
            let other = AsOf { recorded: Some(recorded), ..at };
            Some(differences(&lines, &as_of::trial_balance(&app.pool, other).await?)?)
        }
    };
    let closing = match period {
        Some((month, closed)) => closed.map(|closed| closing_line(month, &closed, &lines)).transpose()?,
        None => None,
    };
    let shown = lines.into_iter().map(|line| {
        let balance = difference(line.debit, line.credit)?;
        Ok(TrialBalanceLine {
            account: line.account,
            asset: line.asset.as_str(),
            debit: line.debit,
            credit: line.credit,
            balance,
        })
    });
    let lines = shown.collect::<Result<Vec<_>, ApiError>>()?;
    let (as_of, as_known_at) = (span::shown(at.effective)?, span::shown(at.recorded)?);
    let incomplete = dead_letters::open(&app.pool, &[TrialBalance::NAME]).await?;
    let compared_as_known_at = span::shown(compared)?;
    let totals = totals(&lines)?;
    Ok(Json(TrialAnswer { as_of, as_known_at, closing, lines, totals, incomplete, compared_as_known_at, differences }))
}

/// The dates that were asked for, and with a month its closing.
async fn asked(app: &App, query: &TrialQuery) -> Result<(AsOf, Option<(Month, Option<PeriodClosed>)>), ApiError> {
    let Some(period) = &query.period else {
        return Ok((span::as_of(query.as_of.as_deref(), query.as_known_at.as_deref())?, None));
    };
    let month = calendar::month("period", period)?;
    if query.as_of.is_some() || query.as_known_at.is_some() {
        return Err(ApiError::field("period", "stands in place of asOf and asKnownAt; send either"));
    }
    let closings = closings(app).await?;
    let fixed = closing_of(&closings, month);
    let at = AsOf { effective: Some(month.last_moment()), recorded: fixed.map(|closed| closed.as_known_at) };
    let closed = match fixed {
        Some(closed) => Some(figures(app, closed.month).await?),
        None => None,
    };
    Ok((at, Some((month, closed))))
}

/// What a month was closed with. That it was is known; the read model that has the figures may have to be waited for.
async fn figures(app: &App, month: Month) -> Result<PeriodClosed, ApiError> {
    if let Some(closed) = periods::find(&app.pool, month).await? {
        return Ok(closed);
    }
    Cut::of_key(app, PERIODS_STREAM).await?.seen_by(app, &[Periods::NAME]).await?;
    let found = periods::find(&app.pool, month).await?;
    found.ok_or_else(|| ApiError::internal(format_args!("{month} is closed and not among the closed months")))
}

fn closing_line(month: Month, closed: &PeriodClosed, lines: &[TrialLine]) -> Result<ClosingLine, ApiError> {
    Ok(ClosingLine {
        month: closed.month.to_string(),
        closed_at: rfc3339(closed.closed_at)?,
        closed_by: closed.closed_by.0,
        hash: closed.hash.clone(),
        agrees: (closed.month == month).then(|| agrees(&closed.lines, lines)),
    })
}

/// Whether the figures are those a month was closed with, line by line.
fn agrees(closed: &[ClosedLine], lines: &[TrialLine]) -> bool {
    let fixed: BTreeMap<_, _> =
        closed.iter().map(|line| ((line.account.as_str(), line.asset), (line.debit, line.credit))).collect();
    let now: BTreeMap<_, _> =
        lines.iter().map(|line| ((line.account.as_str(), line.asset), (line.debit, line.credit))).collect();
    fixed == now
}

fn totals(lines: &[TrialBalanceLine]) -> Result<BTreeMap<&'static str, i64>, ApiError> {
    let mut totals: BTreeMap<&'static str, i128> = Asset::ALL.iter().map(|asset| (asset.as_str(), 0)).collect();
    for line in lines {
        *totals.entry(line.asset).or_default() += i128::from(line.balance);
    }
    totals.into_iter().map(|(asset, sum)| Ok((asset, i64::try_from(sum).map_err(ApiError::internal)?))).collect()
}

fn differences(lines: &[TrialLine], compared: &[TrialLine]) -> Result<Vec<TrialDifference>, ApiError> {
    let mut both: BTreeMap<(&str, &'static str), (i64, i64)> = BTreeMap::new();
    for line in lines {
        both.entry((&line.account, line.asset.as_str())).or_default().0 = difference(line.debit, line.credit)?;
    }
    for line in compared {
        both.entry((&line.account, line.asset.as_str())).or_default().1 = difference(line.debit, line.credit)?;
    }
    let differing = both.into_iter().filter(|(_, (balance, compared))| balance != compared);
    differing
        .map(|((account, asset), (balance, compared))| {
            let difference = difference(balance, compared)?;
            Ok(TrialDifference { account: account.to_owned(), asset, balance, compared, difference })
        })
        .collect()
}

fn difference(one: i64, other: i64) -> Result<i64, ApiError> {
    one.checked_sub(other).ok_or_else(|| ApiError::internal("a balance of the book is beyond its range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(account: &str, asset: Asset, debit: i64, credit: i64) -> TrialLine {
        TrialLine { account: account.to_owned(), asset, debit, credit }
    }

    #[test]
    fn two_trial_balances_differ_where_a_balance_does() {
        let now = [line("A", Asset::Usd, 10, 3), line("B", Asset::Usd, 0, 7), line("C", Asset::Credit, 5, 0)];
        let then = [line("A", Asset::Usd, 7, 0), line("B", Asset::Usd, 0, 5), line("D", Asset::Credit, 1, 0)];
        let found = differences(&now, &then).ok().unwrap();
        let found: Vec<_> =
            found.iter().map(|one| (one.account.as_str(), one.balance, one.compared, one.difference)).collect();
        assert_eq!(found, [("B", -7, -5, -2), ("C", 5, 0, 5), ("D", 0, 1, -1)]);
        assert!(differences(&now, &now).ok().unwrap().is_empty());
    }

    #[test]
    fn a_closed_month_agrees_when_every_figure_does() {
        let closed = |debit| ClosedLine { account: "A".to_owned(), asset: Asset::Usd, debit, credit: 3 };
        assert!(agrees(&[closed(10)], &[line("A", Asset::Usd, 10, 3)]));
        assert!(!agrees(&[closed(11)], &[line("A", Asset::Usd, 10, 3)]));
        assert!(!agrees(&[], &[line("A", Asset::Usd, 10, 3)]));
    }
}
