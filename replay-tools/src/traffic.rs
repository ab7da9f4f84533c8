//! Whether others write to the log at the moment: long work then leaves them half of the cores and is done in
//! small pieces.

use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::error::ToolError;
use crate::progress::Progress;
use crate::versions::{Vector, heads_of, lag_events};

/// From so many events a second on, those who write are to be left alone.
pub(crate) const WRITTEN_EVENTS_PER_SECOND: f64 = 100.0;

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

struct Seen {
    at: Instant,
    heads: Vector,
    /// None before there is anything to compare.
    busy: Option<bool>,
}

impl Traffic {
    /// Looks for the first time; what has been heard of the log's growth before is believed until the next look.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn watch(pool: PgPool, progress: Progress) -> Result<Self, ToolError> {
        let heads = heads_of(&pool).await?;
        let busy = progress.growth().map(|growth| is_much(growth, Duration::from_secs(1)));
        let seen = Mutex::new(Seen { at: Instant::now(), heads, busy });
        Ok(Self { pool, progress, seen })
    }

    /// Whether others write, so that work is to be done in small pieces; also as long as nothing is known.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn is_there(&self) -> Result<bool, ToolError> {
        Ok(self.look().await? != Some(false))
    }

    /// Whether worker `number`, counted from 0, may begin with something; it asks again after [`LOOK_EVERY`] otherwise. The
    /// first may always, the others not before it is known.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn leaves_room_for(&self, number: usize) -> Result<bool, ToolError> {
        let cores = available_parallelism().map_or(1, usize::from);
        if number < beside_writers(cores) {
            return Ok(true);
        }
        let mut busy = self.look().await?;
        if busy.is_none() {
            tokio::time::sleep(FIRST_LOOK_AFTER).await;
            busy = self.look().await?;
        }
        Ok(busy == Some(false))
    }

    /// Whether others write, as of a moment ago; none before there is anything to compare.
    async fn look(&self) -> Result<Option<bool>, ToolError> {
        let mut seen = self.seen.lock().await;
        let next = if seen.busy.is_some() { LOOK_EVERY } else { FIRST_LOOK_AFTER };
        if seen.at.elapsed() < next {
            return Ok(seen.busy);
        }
        let heads = heads_of(&self.pool).await?;
        let written = lag_events(&seen.heads, &heads);
        let within = seen.at.elapsed();
        let busy = is_much(written, within);
        self.progress.grows(written as f64 / within.as_secs_f64().max(f64::MIN_POSITIVE));
        *seen = Seen { at: Instant::now(), heads, busy: Some(busy) };
        Ok(Some(busy))
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
