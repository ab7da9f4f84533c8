//! Waiting until a read model has passed a position: what `calos-after` asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::checkpoint;
use crate::progress::Progress;

/// The longest a reader waits.
pub const WAIT_MAX: Duration = Duration::from_secs(2);

/// How often the database is asked, in case another process does the work.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A read model had not passed a position in time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{projection} is behind: partition {partition} stands at {at}, {wanted} is wanted")]
pub struct Behind {
    /// The projection.
    pub projection: String,
    /// The partition.
    pub partition: i32,
    /// Where it stands.
    pub at: i64,
    /// Where it should be.
    pub wanted: i64,
}

/// Waits until a projection has taken every position of `wanted` (by partition), until `deadline` at the latest.
///
/// Rounds of this process wake it at once; those of other processes are found by asking the database now and then.
///
/// # Errors
/// [`Behind`] at the deadline, also when the database could not be asked until then.
pub async fn wait_until(
    pool: &PgPool,
    progress: &watch::Receiver<Progress>,
    projection: &str,
    wanted: &BTreeMap<i32, i64>,
    deadline: Instant,
) -> Result<(), Behind> {
    let mut progress = progress.clone();
    let mut asked = BTreeMap::new();
    let mut poll = Instant::now() + POLL_INTERVAL;
    loop {
        let (partition, at) = {
            let known = progress.borrow_and_update();
            match first_behind(&known, &asked, projection, wanted) {
                None => return Ok(()),
                Some(behind) => behind,
            }
        };
        if Instant::now() >= deadline {
            let position = wanted.get(&partition).copied().unwrap_or_default();
            return Err(Behind { projection: projection.to_owned(), partition, at, wanted: position });
        }
        tokio::select! {
            // A runner that has stopped says nothing more; others may go on.
            changed = progress.changed() => if changed.is_err() { sleep_until(poll.min(deadline)).await },
            () = sleep_until(poll.min(deadline)) => {}
        }
        if Instant::now() >= poll {
            match timeout_at(deadline, checkpoint::positions(pool, projection)).await {
                Ok(Ok(positions)) => asked = positions,
                Ok(Err(error)) => tracing::debug!(%error, projection, "could not ask where a projection stands"),
                Err(_) => {}
            }
            poll = Instant::now() + POLL_INTERVAL;
        }
    }
}

fn first_behind(
    known: &Progress,
    asked: &BTreeMap<i32, i64>,
    projection: &str,
    wanted: &BTreeMap<i32, i64>,
) -> Option<(i32, i64)> {
    wanted.iter().find_map(|(partition, position)| {
        let at = known.position(projection, *partition).unwrap_or(0).max(asked.get(partition).copied().unwrap_or(0));
        (at < *position).then_some((*partition, at))
    })
}
