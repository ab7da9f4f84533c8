//! One operator at a time at the log itself: importing, restoring, backing up.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use crate::error::ToolError;

/// How long somebody else's turn is waited for: a tool that was killed holds it until the database notices.
const TURN_WAIT_MAX: Duration = Duration::from_secs(2);

/// How often it is asked for meanwhile.
const TURN_ASKED_EVERY: Duration = Duration::from_millis(50);

/// Takes the turn on this connection, with which it ends, whatever happens to the operator.
pub(crate) async fn take_log_turn(operator: &mut PgConnection) -> Result<(), ToolError> {
    let begun = Instant::now();
    loop {
        let lock = "SELECT pg_try_advisory_lock(hashtext('calos-replay log'), hashtext('log'))";
        if sqlx::query_scalar(lock).fetch_one(&mut *operator).await? {
            return Ok(());
        }
        if begun.elapsed() >= TURN_WAIT_MAX {
            return Err(ToolError::Environment(
                "another operator is importing, restoring or backing up this log right now; wait until that has ended"
                    .to_owned(),
            ));
        }
        tokio::time::sleep(TURN_ASKED_EVERY).await;
    }
}
