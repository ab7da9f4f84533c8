//! The log: whether the database keeps it as it is, whether it is vouched for outside, whether there is a backup.

use sqlx::PgPool;

use calos_adapters::anchors::{Anchor, read_file};
use calos_adapters::postgres::Timestamptz;
use calos_projections::registry;

use super::{Line, List};
use crate::environment::Environment;
use crate::error::ToolError;
use crate::operation::now;
use crate::progress::Show;
use crate::time_text::show;
use crate::verify::{Check, VerifyOptions, verify};

/// How often an interval may pass without an anchor although the log grew.
const INTERVALS_MAX: u64 = 3;

/// A backup older than this wants to be looked at, in hours: one a day, and two to spare.
const BACKUP_WARN_HOURS: i64 = 26;

/// A backup older than this has been forgotten, in hours.
const BACKUP_FAIL_HOURS: i64 = 8 * 24;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// The database itself refuses to change the log.
pub(super) async fn append_only(pool: &PgPool) -> Result<Line, ToolError> {
    const NAME: &str = "append-only";
    let (role, may_change, triggers): (bool, bool, i64) = sqlx::query_as(
        "SELECT r.there, r.there AND has_table_privilege((SELECT oid FROM pg_roles WHERE rolname = 'calos_app'),
                 'events'::regclass, 'UPDATE, DELETE, TRUNCATE'),
             (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'events'::regclass AND tgenabled = 'A')
         FROM (SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'calos_app') AS there) r",
    )
    .fetch_one(pool)
    .await?;
    Ok(match (role && !may_change, triggers >= 2) {
        (true, true) => {
            Line::ok(NAME, "the server's role has no right to change events, and triggers refuse the owner")
        }
        (false, true) => {
            Line::warn(NAME, "it rests on triggers alone: the role calos_app is missing or may change events")
        }
        (true, false) => Line::fail(NAME, "its triggers are missing or disabled"),
        (false, false) => Line::fail(NAME, "nothing protects the log"),
    })
}

/// The last anchor outside the database: whose it is, how old, and that the log still has what it says.
pub(super) async fn anchors(environment: &Environment) -> Result<Line, ToolError> {
    const NAME: &str = "anchors";
    let (pool, source) = (&environment.owner, environment.anchors().await?);
    let kept = read_file(&source.directory).map_err(|error| ToolError::Environment(error.to_string()))?;
    let (written, last_recorded): (i64, Timestamptz) =
        sqlx::query_as("SELECT coalesce(sum(last_position), 0)::bigint, max(last_recorded_at) FROM heads")
            .fetch_one(pool)
            .await?;
    let Some(last) = kept.anchors.last() else {
        return Ok(if written == 0 {
            Line::ok(NAME, "none, and nothing to vouch for")
        } else {
            Line::fail(NAME, format!("none in {}: calos-replay anchor", source.directory.display()))
        });
    };
    if let Err(error) = last.verify(&source.key) {
        return Ok(Line::fail(NAME, error.to_string()));
    }
    if let Some(wrong) = first_missing(pool, last).await? {
        return Ok(Line::fail(NAME, format!("{wrong}; run calos-replay verify --chain")));
    }
    let anchored: i64 = last.heads.iter().map(|head| head.position).sum();
    let since = (last_recorded.0.micros() - last.anchored_at.micros()) / MICROS_PER_SECOND;
    let bound = environment.config().anchor_interval.as_secs() * INTERVALS_MAX;
    let detail = format!("the last of {}, {} of {written} events vouched for", show(last.anchored_at), anchored);
    let late = anchored < written && since > 0 && since.unsigned_abs() > bound;
    let torn = kept.torn.len() + kept.unreadable.len();
    Ok(if late {
        Line::fail(NAME, format!("{detail}, and the log went on for {since} s; calos-replay anchor"))
    } else if torn > 0 {
        Line::warn(NAME, format!("{detail}; {torn} lines of the file cannot be read"))
    } else {
        Line::ok(NAME, detail)
    })
}

/// The first head of an anchor that the log does not have any more.
async fn first_missing(pool: &PgPool, anchor: &Anchor) -> Result<Option<String>, ToolError> {
    for head in anchor.heads.iter().filter(|head| head.position > 0) {
        let hash: Option<String> =
            sqlx::query_scalar("SELECT encode(hash, 'hex') FROM events WHERE partition = $1 AND position = $2")
                .bind(head.partition)
                .bind(head.position)
                .fetch_optional(pool)
                .await?;
        if hash.as_ref() != Some(&head.hash) {
            let (partition, position) = (head.partition, head.position);
            return Ok(Some(format!("partition {partition} no longer has what was anchored at position {position}")));
        }
    }
    Ok(None)
}

/// When the log was last written down elsewhere; the weekly list wants that to have happened.
pub(super) async fn backup(pool: &PgPool, list: List) -> Result<Line, ToolError> {
    const NAME: &str = "backup";
    let last: Option<Timestamptz> = sqlx::query_scalar(
        "SELECT max(recorded_at) FROM events WHERE aggregate_type = 'operation' AND event_type = 'backup_taken'",
    )
    .fetch_one(pool)
    .await?;
    let Some(last) = last else {
        let none = "none was ever taken: calos-replay backup --output DIR";
        return Ok(if list == List::Daily { Line::warn(NAME, none) } else { Line::fail(NAME, none) });
    };
    let hours = (now().micros() - last.0.micros()) / MICROS_PER_SECOND / 3_600;
    let detail = format!("the last of {}, {hours} hours ago", show(last.0));
    Ok(if hours >= BACKUP_FAIL_HOURS {
        Line::fail(NAME, detail)
    } else if hours >= BACKUP_WARN_HOURS {
        Line::warn(NAME, detail)
    } else {
        Line::ok(NAME, detail)
    })
}

/// The seal recomputed from the first event on; with `everything` also what is shown, folded afresh.
pub(super) async fn seal(environment: &Environment, everything: bool) -> Vec<Line> {
    const NAME: &str = "seal";
    let anchors = match environment.anchors().await {
        Ok(anchors) => anchors,
        Err(error) => return vec![Line::of(NAME, Err(error))],
    };
    let models = if everything { registry::ALL } else { &[] };
    let options = VerifyOptions { chain_only: !everything, anchors: Some(anchors), models, show: Show::Silent };
    let report = match verify(&environment.owner, &options).await {
        Ok(report) => report,
        Err(error) => return vec![Line::of(NAME, Err(error))],
    };
    let wrong = report.checks.iter().filter(|check| check.findings > 0);
    let mut lines: Vec<Line> = wrong.map(|check: &Check| Line::fail(NAME, check.to_string())).collect();
    if lines.is_empty() {
        let (checks, events) = (report.checks.len(), report.events);
        let what = if everything { "and every read model folded afresh" } else { "from the first event on" };
        lines.push(Line::ok(NAME, format!("{checks} checks over {events} events, {what}")));
    }
    lines
}
