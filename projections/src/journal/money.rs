//! The entries behind real money: payments, what followed them, and payouts.

use sqlx::PgExecutor;

use calos_domain::Timestamp;

use super::reading::{COLUMNS, Entry, read_entry};
use crate::kind::Kind;
use crate::moment::Moment;

/// Entries in dollars of payments and payouts that count from `from` or later and before `to`, oldest first, at most
/// `limit`.
///
/// The log's own index finds them by what they are about: however many uses were charged meanwhile, none is looked at.
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
         WHERE e.aggregate_type = ANY($1) AND j.asset = 'USD' AND j.effective_at >= $2 AND j.effective_at < $3
         ORDER BY j.effective_at, j.partition, j.position LIMIT $4"
    );
    let rows = sqlx::query(&statement)
        .bind([Kind::Payment.as_str(), Kind::Payout.as_str()].as_slice())
        .bind(Moment(from))
        .bind(Moment(to))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(executor)
        .await?;
    rows.iter().map(read_entry).collect()
}
