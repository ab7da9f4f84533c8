//! The entries behind real money: payments, what followed them, and payouts.

use sqlx::PgExecutor;

use calos_domain::Timestamp;
use calos_domain::wallet::CLOCK_SKEW_MAX_SECONDS;

use super::reading::{COLUMNS, Entry, read_entry};
use crate::kind::Kind;
use crate::moment::Moment;

/// How long before the moment it counts from a payment may be recorded: the clock of whoever tells of it may lead the one
/// that decides, and that one the log's.
const RECORDED_BEFORE_MAX_SECONDS: i64 = 2 * CLOCK_SKEW_MAX_SECONDS;

/// Entries in dollars of payments and payouts that count from `from` or later and before `to`, oldest first, at most
/// `limit`.
///
/// The log's own index finds them by what they are about: however many uses were charged meanwhile, none is looked at. What
/// was recorded before `from` cannot count from then on, but for clocks that disagree, and is left out of the journal.
///
/// # Errors
/// As [`super::page`].
pub async fn money(
    executor: impl PgExecutor<'_>,
    from: Timestamp,
    to: Timestamp,
    limit: usize,
) -> Result<Vec<Entry>, sqlx::Error> {
    let statement = format!(
        "SELECT {COLUMNS} FROM events e
         JOIN read.journal j ON j.recorded_at = e.recorded_at AND j.partition = e.partition AND j.position = e.position
         WHERE e.aggregate_type = ANY($1) AND e.recorded_at >= $5 AND j.asset = 'USD'
             AND j.effective_at >= $2 AND j.effective_at < $3
         ORDER BY j.effective_at, j.partition, j.position LIMIT $4"
    );
    let rows = sqlx::query(&statement)
        .bind([Kind::Payment.as_str(), Kind::Payout.as_str()].as_slice())
        .bind(Moment(from))
        .bind(Moment(to))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(Moment(from.plus_seconds(-RECORDED_BEFORE_MAX_SECONDS)))
        .fetch_all(executor)
        .await?;
    rows.iter().map(read_entry).collect()
}
