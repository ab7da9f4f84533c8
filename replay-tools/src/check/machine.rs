//! The machine and the database under everything: room, sizes, slow statements, versions.

use std::path::Path;

use rustix::fs::statvfs;
use sqlx::PgPool;

use calos_adapters::postgres::MIGRATOR;

use super::Line;
use crate::error::ToolError;

/// Less room than this wants to be looked at, in percent.
const ROOM_WARN_PERCENT: u64 = 20;

/// Less than this is an incident, in percent.
const ROOM_FAIL_PERCENT: u64 = 5;

/// A statement that takes longer than this on average is slow, in milliseconds.
const SLOW_STATEMENT_MS: f64 = 200.0;

/// Statements listed.
const SLOW_STATEMENTS_LISTED: i64 = 3;

/// Tables listed.
const TABLES_LISTED: i64 = 5;

/// The oldest PostgreSQL that CALOS is tried with, as `server_version_num` has it.
const POSTGRES_MIN: i32 = 140_000;

/// Room on the disk of a folder, or of the nearest folder above it that is there.
pub(super) fn disk(name: &'static str, folder: &Path) -> Line {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or_else(|| Path::new("/"));
    match statvfs(there) {
        Err(error) => Line::fail(name, format!("{}: {error}", there.display())),
        Ok(about) => {
            let free = about.f_bavail.saturating_mul(about.f_frsize);
            let used = about.f_blocks.saturating_sub(about.f_bfree).saturating_mul(about.f_frsize);
            // Of what may be used at all, as `df` counts it: some is kept for others.
            let percent = free.saturating_mul(100) / free.saturating_add(used).max(1);
            let detail = format!("{percent} % free, {} MiB, at {}", free / (1024 * 1024), there.display());
            if percent < ROOM_FAIL_PERCENT {
                Line::fail(name, format!("{detail}; see \"The disk is full\" in docs/runbook.md"))
            } else if percent < ROOM_WARN_PERCENT {
                Line::warn(name, detail)
            } else {
                Line::ok(name, detail)
            }
        }
    }
}

/// The database's size, and its largest tables.
pub(super) async fn tables(pool: &PgPool) -> Result<Line, ToolError> {
    let all: String =
        sqlx::query_scalar("SELECT pg_size_pretty(pg_database_size(current_database()))").fetch_one(pool).await?;
    let largest: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT schemaname || '.' || relname, pg_size_pretty(pg_total_relation_size(relid)), n_dead_tup
         FROM pg_stat_user_tables ORDER BY pg_total_relation_size(relid) DESC LIMIT $1",
    )
    .bind(TABLES_LISTED)
    .fetch_all(pool)
    .await?;
    let texts: Vec<String> =
        largest.iter().map(|(name, size, dead)| format!("{name} {size} ({dead} dead rows)")).collect();
    Ok(Line::ok("tables", format!("{all} in all; {}", texts.join(", "))))
}

/// Statements that are slow on average, where PostgreSQL counts them; no line where it does not.
pub(super) async fn slow_statements(pool: &PgPool) -> Option<Line> {
    const NAME: &str = "slow statements";
    let counted = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements')";
    match sqlx::query_scalar::<_, bool>(counted).fetch_one(pool).await {
        Ok(true) => Some(Line::of(NAME, slowest(pool).await)),
        Ok(false) => None,
        Err(error) => Some(Line::of(NAME, Err(error.into()))),
    }
}

async fn slowest(pool: &PgPool) -> Result<Line, ToolError> {
    let rows: Vec<(String, i64, f64)> = sqlx::query_as(
        "SELECT left(regexp_replace(query, '\\s+', ' ', 'g'), 80), calls, mean_exec_time FROM pg_stat_statements
         WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND mean_exec_time > $1
         ORDER BY total_exec_time DESC LIMIT $2",
    )
    .bind(SLOW_STATEMENT_MS)
    .bind(SLOW_STATEMENTS_LISTED)
    .fetch_all(pool)
    .await?;
    let texts: Vec<String> =
        rows.iter().map(|(query, calls, mean)| format!("{mean:.0} ms over {calls} calls: {query}")).collect();
    Ok(if texts.is_empty() {
        Line::ok("slow statements", format!("none takes {SLOW_STATEMENT_MS} ms on average"))
    } else {
        Line::warn("slow statements", texts.join("; "))
    })
}

/// This program, its schema, and PostgreSQL.
pub(super) async fn versions(pool: &PgPool) -> Result<Line, ToolError> {
    let (text, number): (String, i32) =
        sqlx::query_as("SELECT current_setting('server_version'), current_setting('server_version_num')::int")
            .fetch_one(pool)
            .await?;
    let applied: i64 =
        sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success").fetch_one(pool).await?;
    let (wanted, calos) = (MIGRATOR.iter().count(), env!("CARGO_PKG_VERSION"));
    let detail = format!("calos {calos}, {applied} of {wanted} migrations, PostgreSQL {text}");
    Ok(if number < POSTGRES_MIN || usize::try_from(applied).ok() != Some(wanted) {
        Line::fail("versions", detail)
    } else {
        Line::ok("versions", detail)
    })
}
