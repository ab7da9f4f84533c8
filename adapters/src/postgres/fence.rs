//! Fences: from a moment on, nothing recorded at or before it can appear in the log any more.

use calos_commands::log::LogError;
use calos_domain::Timestamp;
use calos_domain::wallet::CLOCK_SKEW_MAX_SECONDS;

use super::load::unavailable;
use super::log::PgLog;
use super::timestamp::Timestamptz;
use super::writer::now;

/// Raises every head's clock beyond a moment, whatever it stood at, and answers the heads as they are then.
///
/// An append carries the head's clock as the writer believed it to be, and moves the head only if it is still that: so
/// one that is on its way with an older clock finds the head moved, takes over the new clock and is stamped anew. Its
/// events are at least as late as the head's clock, which is why that has to lie a microsecond beyond the moment.
///
/// The rows' locks are taken in ascending order, as the append takes them, and all are held for the one statement: the
/// heads answered are one consistent cut through the log.
const FENCE: &str = "
WITH ordered AS MATERIALIZED (
    SELECT partition FROM partitions ORDER BY partition FOR UPDATE
)
UPDATE partitions AS head
SET last_recorded_at = greatest(head.last_recorded_at, $1::timestamptz + interval '1 microsecond')
FROM ordered
WHERE head.partition = ordered.partition
RETURNING head.partition, head.last_position";

impl PgLog {
    /// Sees to it that nothing recorded at `at` or before can still appear behind the positions this answers, one for
    /// each partition, ascending: neither from this process nor from any other. Appends that are under way then are
    /// stamped anew and lose nothing but the time for that.
    ///
    /// What stands up to those positions may be recorded later than `at`, where a clock was ahead.
    ///
    /// # Errors
    /// [`LogError::Unavailable`], also for a moment to come: it would set the log's clock ahead for everybody.
    pub async fn fence(&self, at: Timestamp) -> Result<Vec<(i32, i64)>, LogError> {
        if at > now().plus_seconds(CLOCK_SKEW_MAX_SECONDS) {
            let text = format!("the log cannot be fenced at {at:?}, a moment to come");
            return Err(LogError::Unavailable(text));
        }
        let mut heads: Vec<(i32, i64)> =
            sqlx::query_as(FENCE).bind(Timestamptz(at)).fetch_all(self.pool()).await.map_err(unavailable)?;
        heads.sort_unstable();
        Ok(heads)
    }
}
