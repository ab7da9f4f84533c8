//! The read models: whether they follow the log, and whether anything is missing from them.

use sqlx::PgPool;

use super::Line;
use crate::error::ToolError;
use crate::status::status;

/// A read model whose oldest waiting event is older than this does not follow, in seconds; so says `/readyz`.
const LAG_FAIL_SECONDS: f64 = 30.0;

/// And one that is older than this wants to be looked at.
const LAG_WARN_SECONDS: f64 = 5.0;

/// The lines about read models.
pub(super) async fn lines(pool: &PgPool) -> Vec<Line> {
    let status = match status(pool).await {
        Ok(status) => status,
        Err(error) => return vec![Line::of("read models", Err::<Line, ToolError>(error))],
    };
    let halted: Vec<&str> = (status.projections.iter())
        .filter(|model| model.partitions.iter().any(|partition| partition.halted.is_some()))
        .map(|model| model.name.as_str())
        .collect();
    let behind = status.projections.iter().map(|model| model.lag_seconds).fold(0.0, f64::max);
    let events: i64 = status.projections.iter().map(|model| model.lag_events).sum();
    let detail =
        format!("{} read models, {events} events behind, the oldest for {behind:.1} s", status.projections.len());
    let following = if !halted.is_empty() {
        Line::fail("read models", format!("halted: {}; calos-replay rebuild <projection>", halted.join(", ")))
    } else if behind > LAG_FAIL_SECONDS {
        Line::fail("read models", detail)
    } else if behind > LAG_WARN_SECONDS {
        Line::warn("read models", detail)
    } else {
        Line::ok("read models", detail)
    };
    let aside: Vec<String> = (status.projections.iter().filter(|model| model.dead_letters > 0))
        .map(|model| format!("{} {}", model.name, model.dead_letters))
        .collect();
    let letters = if aside.is_empty() {
        Line::ok("dead letters", "none")
    } else {
        Line::fail("dead letters", format!("{}; calos-replay dead-letters list", aside.join(", ")))
    };
    vec![following, letters]
}
