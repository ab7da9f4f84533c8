//! How far the read models are behind, as this process knows it from memory: the heads its writer publishes, and the
//! [`Progress`] of its runner. Nothing here asks the database.

use std::collections::BTreeMap;
use std::time::Instant;

use calos_domain::Timestamp;

use crate::progress::Progress;

/// How far one read model is behind, over all partitions.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Lag {
    /// Events it has not taken.
    pub events: i64,
    /// About how long the oldest of them has been waiting, in seconds.
    pub seconds: f64,
}

/// Where a read model stood when it was first seen behind, and when that was.
#[derive(Clone, Copy, Debug)]
struct Behind {
    since: Instant,
    from: i64,
    /// It is behind in everything up to here since then.
    head: i64,
}

/// Watches over time how far the read models are behind; look every second or so.
#[derive(Default, Debug)]
pub struct LagWatch {
    behind: BTreeMap<(String, i32), Behind>,
    /// What other processes took, as the database told last.
    elsewhere: BTreeMap<(String, i32), i64>,
}

impl LagWatch {
    /// Takes note of a position that was read from the database: another process may have moved it.
    pub fn learn(&mut self, projection: &str, partition: i32, position: i64) {
        self.elsewhere.insert((projection.to_owned(), partition), position);
    }

    /// How far each read model is behind now. `heads` are the log's last positions by partition number.
    pub fn look(
        &mut self,
        heads: &[i64],
        progress: &Progress,
        now: Instant,
        clock: Timestamp,
    ) -> BTreeMap<String, Lag> {
        let mut lags = BTreeMap::new();
        for name in progress.projections() {
            let lag: &mut Lag = lags.entry(name.to_owned()).or_default();
            for (partition, head) in (0..).zip(heads) {
                let key = (name.to_owned(), partition);
                let at = progress.position(name, partition).unwrap_or(0);
                let at = at.max(self.elsewhere.get(&key).copied().unwrap_or(0));
                if at >= *head {
                    self.behind.remove(&key);
                    continue;
                }
                let known = self.behind.entry(key).or_insert(Behind { since: now, from: at, head: *head });
                if at >= known.head {
                    *known = Behind { since: now, from: at, head: *head };
                }
                lag.events += head - at;
                lag.seconds = lag.seconds.max(waited(*known, at, progress.recorded_at(name, partition), now, clock));
            }
        }
        lags
    }
}

/// How long the first event behind `at` has been waiting: since it was seen, while nothing was taken; while a backlog is
/// worked off, about as long as the last event that was taken.
fn waited(known: Behind, at: i64, taken: Option<Timestamp>, now: Instant, clock: Timestamp) -> f64 {
    let seen = now.saturating_duration_since(known.since).as_secs_f64();
    match taken {
        Some(taken) if at > known.from => seen.max((clock.micros() - taken.micros()).max(0) as f64 / 1e6),
        Some(_) | None => seen,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NAME: &str = "wallet_balance";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn who_stands_still_is_behind_for_as_long_as_that_was_seen() {
        let (mut watch, mut progress, start) = (LagWatch::default(), Progress::default(), Instant::now());
        // The last event was taken an hour ago, and the next one has only just come.
        progress.set(NAME, 0, 10, Some(at(0)));
        assert_eq!(watch.look(&[10], &progress, start, at(3_600))[NAME], Lag::default());
        assert_eq!(watch.look(&[12], &progress, start, at(3_600))[NAME], Lag { events: 2, seconds: 0.0 });
        let later = start + Duration::from_secs(7);
        assert_eq!(watch.look(&[15], &progress, later, at(3_607))[NAME], Lag { events: 5, seconds: 7.0 });
        progress.set(NAME, 0, 15, Some(at(3_607)));
        assert_eq!(watch.look(&[15], &progress, later, at(3_607))[NAME], Lag::default());
    }

    #[test]
    fn a_backlog_is_as_old_as_the_event_that_was_taken_last() {
        let (mut watch, mut progress, start) = (LagWatch::default(), Progress::default(), Instant::now());
        progress.set(NAME, 0, 0, None);
        watch.look(&[1_000], &progress, start, at(3_600));
        progress.set(NAME, 0, 400, Some(at(600)));
        let lag = watch.look(&[1_000], &progress, start + Duration::from_secs(1), at(3_601))[NAME];
        assert_eq!(lag, Lag { events: 600, seconds: 3_001.0 });
    }

    #[test]
    fn under_steady_load_what_was_seen_first_does_not_count_for_ever() {
        let (mut watch, mut progress, start) = (LagWatch::default(), Progress::default(), Instant::now());
        for second in 0_u32..60 {
            let head = i64::from(second) * 10 + 10;
            progress.set(NAME, 0, head - 5, Some(at(i64::from(second))));
            let now = start + Duration::from_secs(u64::from(second));
            let lag = watch.look(&[head], &progress, now, at(i64::from(second)))[NAME];
            assert!(lag.seconds <= 1.0, "{lag:?} after {second} s");
        }
    }

    #[test]
    fn what_another_process_took_is_not_behind() {
        let (mut watch, mut progress, now) = (LagWatch::default(), Progress::default(), Instant::now());
        progress.set(NAME, 0, 0, None);
        assert_eq!(watch.look(&[5, 3], &progress, now, at(0))[NAME].events, 8);
        watch.learn(NAME, 0, 5);
        assert_eq!(watch.look(&[5, 3], &progress, now, at(0))[NAME].events, 3);
    }
}
