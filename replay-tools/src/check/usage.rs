//! What was used, and what it cost, beside the time before.

use sqlx::PgPool;

use super::{Line, dollars};
use crate::error::ToolError;

/// More calls than one in this many that did not complete want to be looked at.
const INCOMPLETE_WARN_ONE_IN: i64 = 10;

/// A provider that costs more than the week before by this factor wants to be looked at, in percent.
const GROWTH_WARN_PERCENT: i64 = 200;

/// Less than this is not worth a warning, in micro-dollars.
const GROWTH_IGNORED_MICROS: i64 = 1_000_000;

/// Calls, tokens and money of the last day, and of the one before.
pub(super) async fn of_a_day(pool: &PgPool) -> Result<Line, ToolError> {
    let (calls, incomplete, tokens, total, before): (i64, i64, i64, i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE recent),
             count(*) FILTER (WHERE recent AND outcome <> 'completed'),
             coalesce(sum(prompt_tokens + completion_tokens) FILTER (WHERE recent), 0)::bigint,
             coalesce(sum(total) FILTER (WHERE recent), 0)::bigint, count(*) FILTER (WHERE NOT recent)
         FROM (SELECT *, at >= now() - interval '1 day' AS recent FROM read.usage_log
               WHERE at >= now() - interval '2 days') u",
    )
    .fetch_one(pool)
    .await?;
    let detail = format!(
        "{calls} calls in a day ({before} the day before), {incomplete} not completed, {tokens} tokens, {}",
        dollars(total)
    );
    let warn = incomplete > 0 && incomplete * INCOMPLETE_WARN_ONE_IN > calls;
    Ok(if warn { Line::warn("usage", detail) } else { Line::ok("usage", detail) })
}

/// What each provider cost in the last week, and in the one before.
pub(super) async fn costs_of_a_week(pool: &PgPool) -> Result<Line, ToolError> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT provider, coalesce(sum(provider_cost) FILTER (WHERE at >= now() - interval '7 days'), 0)::bigint,
             coalesce(sum(provider_cost) FILTER (WHERE at < now() - interval '7 days'), 0)::bigint
         FROM read.usage_log WHERE at >= now() - interval '14 days' AND NOT byok GROUP BY 1 ORDER BY 2 DESC",
    )
    .fetch_all(pool)
    .await?;
    let texts: Vec<String> = (rows.iter())
        .map(|(provider, now, before)| format!("{provider} {} (before {})", dollars(*now), dollars(*before)))
        .collect();
    let grown = |&(_, now, before): &(String, i64, i64)| {
        now > GROWTH_IGNORED_MICROS && i128::from(now) * 100 > i128::from(before) * i128::from(GROWTH_WARN_PERCENT)
    };
    let detail = if texts.is_empty() { "none in two weeks".to_owned() } else { texts.join(", ") };
    Ok(if rows.iter().any(grown) { Line::warn("costs", detail) } else { Line::ok("costs", detail) })
}

/// How many tenants used anything in a month, and in the one before.
pub(super) async fn of_a_month(pool: &PgPool) -> Result<Line, ToolError> {
    let (now, before): (i64, i64) = sqlx::query_as(
        "SELECT count(DISTINCT tenant_id) FILTER (WHERE at >= now() - interval '30 days'),
             count(DISTINCT tenant_id) FILTER (WHERE at < now() - interval '30 days')
         FROM read.usage_log WHERE at >= now() - interval '60 days'",
    )
    .fetch_one(pool)
    .await?;
    let tenants: i64 = sqlx::query_scalar("SELECT count(*) FROM read.tenants").fetch_one(pool).await?;
    Ok(Line::ok("tenants", format!("{tenants}; {now} used something in 30 days, {before} in the 30 before")))
}
