//! Whether others write to the log at the moment: long work then leaves them half of the cores.

use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::error::ToolError;
use crate::progress::Progress;
use crate::versions::{Vector, heads_of, lag_events};

/// From so many events a second on, those who write are to be left alone.
const WRITTEN_EVENTS_PER_SECOND: f64 = 100.0;

/// Between two looks at the log.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The first second look: nobody is to wait for it long.
const FIRST_LOOK_AFTER: Duration = Duration::from_millis(100);

/// What has been seen of others' writing.
pub(crate) struct Traffic {
    pool: PgPool,
    /// Who hears how fast the log grows.
    progress: Progress,
    seen: Mutex<Seen>,
}

/// What who asks does when nothing is known yet.
#[derive(Clone, Copy)]
enum Patience {
    Waits,
    GoesOn,
}

struct Seen {
    at: Instant,
    heads: Vector,
    /// None before there is anything to compare.
    busy: Option<bool>,
}

impl Traffic {
    /// Looks for the first time.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn watch(pool: PgPool, progress: Progress) -> Result<Self, ToolError> {
        let heads = heads_of(&pool).await?;
        let seen = Mutex::new(Seen { at: Instant::now(), heads, busy: None });
        Ok(Self { pool, progress, seen })
    }

    /// Whether worker `number`, counted from 0, may begin with something; it asks again after [`LOOK_EVERY`] otherwise. The
    /// first may always.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn leaves_room_for(&self, number: usize) -> Result<bool, ToolError> {
        let cores = available_parallelism().map_or(1, usize::from);
        if number >= beside_writers(cores) {
            return Ok(!self.is_busy(Patience::Waits).await?);
        }
        self.is_busy(Patience::GoesOn).await?;
        Ok(true)
    }

    /// Whether others write, as of a moment ago.
    async fn is_busy(&self, patience: Patience) -> Result<bool, ToolError> {
        let mut seen = self.seen.lock().await;
        let left = match seen.busy {
            Some(_) => LOOK_EVERY,
            None => FIRST_LOOK_AFTER,
        };
        let left = left.saturating_sub(seen.at.elapsed());
        if !left.is_zero() {
            match (seen.busy, patience) {
                (Some(busy), _) => return Ok(busy),
                (None, Patience::GoesOn) => return Ok(false),
                (None, Patience::Waits) => tokio::time::sleep(left).await,
            }
        }
        let heads = heads_of(&self.pool).await?;
        let written = lag_events(&seen.heads, &heads);
        let within = seen.at.elapsed();
        let busy = is_much(written, within);
        self.progress.grows(written as f64 / within.as_secs_f64().max(f64::MIN_POSITIVE));
        *seen = Seen { at: Instant::now(), heads, busy: Some(busy) };
        Ok(busy)
    }
}

fn is_much(events: u64, within: Duration) -> bool {
    events as f64 > WRITTEN_EVENTS_PER_SECOND * within.as_secs_f64()
}

/// Workers beside those who write, on so many cores.
const fn beside_writers(cores: usize) -> usize {
    if cores < 4 { 1 } else { cores / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_cores_are_left_to_those_who_write_and_one_worker_always_works() {
        let beside = [1, 2, 3, 4, 8, 9].map(beside_writers);
        assert_eq!(beside, [1, 1, 1, 2, 4, 4]);
        let half = Duration::from_millis(500);
        assert!(is_much(51, half) && !is_much(50, half) && !is_much(0, Duration::ZERO));
    }
}
