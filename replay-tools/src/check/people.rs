//! Who is signed in, who may do what, which keys stand.

use sqlx::PgPool;

use super::Line;
use crate::error::ToolError;

/// A session that has stood for longer than this wants to be looked at, in days.
const OLD_SESSION_DAYS: i32 = 30;

/// A key without an end that is older than this wants to be rotated, in days.
const OLD_KEY_DAYS: i32 = 365;

/// Sign-ins of the last week, and of the one before.
pub(super) async fn sign_ins(pool: &PgPool) -> Result<Line, ToolError> {
    let (now, people, before): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE started_at >= now() - interval '7 days'),
             count(DISTINCT user_id) FILTER (WHERE started_at >= now() - interval '7 days'),
             count(*) FILTER (WHERE started_at < now() - interval '7 days')
         FROM read.sessions WHERE started_at >= now() - interval '14 days'",
    )
    .fetch_one(pool)
    .await?;
    let detail = format!("{now} in a week by {people} people ({before} the week before)");
    // From many to none is what a broken sign-in looks like.
    Ok(if now == 0 && before > 0 { Line::warn("sign-ins", detail) } else { Line::ok("sign-ins", detail) })
}

/// Sessions and the devices they stand on.
pub(super) async fn sessions(pool: &PgPool) -> Result<Line, ToolError> {
    let (standing, people, devices, old): (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT user_id), count(DISTINCT device_id),
             count(*) FILTER (WHERE started_at < now() - $1 * interval '1 day')
         FROM read.sessions WHERE ended_at IS NULL AND expires_at > now()",
    )
    .bind(OLD_SESSION_DAYS)
    .fetch_one(pool)
    .await?;
    let detail = format!(
        "{standing} stand, of {people} people on {devices} devices; {old} for longer than {OLD_SESSION_DAYS} days"
    );
    Ok(if old == 0 { Line::ok("sessions", detail) } else { Line::warn("sessions", detail) })
}

/// Who may see or change what is everybody's.
pub(super) async fn staff(pool: &PgPool) -> Result<Line, ToolError> {
    let (operators, finance, moderators): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE is_operator), count(*) FILTER (WHERE is_finance),
             count(*) FILTER (WHERE is_moderator) FROM read.accounts",
    )
    .fetch_one(pool)
    .await?;
    let detail = format!("{operators} operators, {finance} for finance, {moderators} moderators");
    // An adjustment takes two operators.
    let enough = operators != 1;
    Ok(if enough { Line::ok("staff", detail) } else { Line::warn("staff", format!("{detail}; four eyes take two")) })
}

/// Keys that stand.
pub(super) async fn keys(pool: &PgPool) -> Result<Line, ToolError> {
    let (standing, endless, old): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE expires_at IS NULL),
             count(*) FILTER (WHERE expires_at IS NULL AND issued_at < now() - $1 * interval '1 day')
         FROM read.api_keys WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
    )
    .bind(OLD_KEY_DAYS)
    .fetch_one(pool)
    .await?;
    let detail = format!("{standing} stand, {endless} without an end, {old} of these older than {OLD_KEY_DAYS} days");
    Ok(if old == 0 { Line::ok("keys", detail) } else { Line::warn("keys", detail) })
}
