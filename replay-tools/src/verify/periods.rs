//! Closed months: each carries the hash of its own figures and of the month before, and nobody recomputes them later.

use serde_json::Value;
use sqlx::PgConnection;

use calos_commands::periods::hash_of;
use calos_domain::Decider;
use calos_domain::period::{PERIODS_STREAM, PeriodClosed, PeriodEvent, Periods};
use calos_domain::upcast::{self, Label};

use super::{Check, Finding};
use crate::error::ToolError;

/// Recomputes the hash of every closed month, and holds each against the month before.
pub(super) async fn check(connection: &mut PgConnection) -> Result<Check, ToolError> {
    let mut check = Check::new("periods");
    let rows: Vec<(i32, i64, String, String, Value)> = sqlx::query_as(
        "SELECT partition, position, event_type, event_version, payload FROM events \
         WHERE aggregate_type = $1 AND aggregate_id = $2 ORDER BY sequence",
    )
    .bind(Periods::KIND)
    .bind(PERIODS_STREAM)
    .fetch_all(connection)
    .await?;
    let mut last: Option<PeriodClosed> = None;
    let mut months = 0_u64;
    for (partition, position, event_type, event_version, payload) in rows {
        let label = Label { aggregate_type: Periods::KIND, event_type: &event_type, event_version: &event_version };
        match upcast::decode_value::<PeriodEvent>(label, payload) {
            Ok(PeriodEvent::PeriodClosed(closed)) => {
                months += 1;
                for what in wrong(&closed, last.as_ref()) {
                    check.found(Finding::at(partition, position, what));
                }
                last = Some(closed);
            }
            Err(error) => check.found(Finding::at(partition, position, error.to_string())),
        }
    }
    check.looked_at = format!("{months} closed months, each with the hash of its figures and of the month before");
    Ok(check)
}

/// What of a closed month does not fit its figures, or the month before.
fn wrong(closed: &PeriodClosed, before: Option<&PeriodClosed>) -> Vec<String> {
    let month = closed.month;
    let mut wrong = Vec::new();
    let hash = hash_of(closed);
    if hash != closed.hash {
        wrong.push(format!("{month} carries the hash {}, its figures give {hash}", closed.hash));
    }
    if let Some(before) = before.filter(|before| before.month.next() != month) {
        wrong.push(format!("{month} was closed after {}", before.month));
    }
    if closed.previous_hash.as_deref() != before.map(|before| before.hash.as_str()) {
        let carries = closed.previous_hash.as_deref().unwrap_or("none");
        wrong.push(match before {
            Some(before) => format!("{month} is chained to {carries}, {} carries {}", before.month, before.hash),
            None => format!("{month} is chained to {carries}, and no month was closed before it"),
        });
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use calos_domain::{Timestamp, UserId};
    use uuid::Uuid;

    fn closed(month: &str, previous_hash: Option<String>) -> PeriodClosed {
        let (closed_by, at) = (UserId(Uuid::nil()), Timestamp::from_micros(0));
        let (heads, lines) = (Vec::new(), Vec::new());
        let month = month.parse().unwrap();
        let hash = String::new();
        let closed =
            PeriodClosed { month, closed_by, closed_at: at, as_known_at: at, heads, lines, hash, previous_hash };
        PeriodClosed { hash: hash_of(&closed), ..closed }
    }

    #[test]
    fn a_month_that_is_left_out_or_chained_elsewhere_is_named() {
        let first = closed("2026-08", None);
        let second = closed("2026-09", Some(first.hash.clone()));
        assert_eq!((wrong(&first, None), wrong(&second, Some(&first))), (Vec::new(), Vec::new()));
        let third = closed("2026-10", Some(first.hash.clone()));
        assert_eq!(wrong(&third, Some(&first)), ["2026-10 was closed after 2026-08"]);
        let elsewhere = wrong(&third, Some(&second));
        let expected = format!("2026-10 is chained to {}, 2026-09 carries {}", first.hash, second.hash);
        assert_eq!(elsewhere, [expected]);
        assert!(wrong(&second, None)[0].ends_with("no month was closed before it"));
        assert_eq!(wrong(&closed("2026-09", None), Some(&first)).len(), 1);
        let altered = PeriodClosed { as_known_at: Timestamp::from_micros(1), ..second };
        assert!(wrong(&altered, Some(&first))[0].starts_with("2026-09 carries the hash "));
    }
}
