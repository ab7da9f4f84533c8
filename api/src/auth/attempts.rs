//! How often something costly may be tried or may fail: a burst, then a slow refill. Refused before anything is done.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;

/// Keys remembered at a time; beyond that the least used are forgotten.
const REMEMBERED_MAX_KEYS: u64 = 100_000;

/// A burst and how fast it fills up again.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Failures allowed at once.
    pub burst: u32,
    /// Seconds until one more is allowed.
    pub refill_seconds: u32,
}

/// Failures, by some key.
pub struct Attempts<K> {
    pace: Pace,
    buckets: Cache<K, Arc<Mutex<Bucket>>>,
}

#[derive(Debug)]
struct Bucket {
    failures: f64,
    at: Instant,
}

impl Bucket {
    /// Failures are forgiven one by one as time goes by.
    fn forgive(&mut self, pace: Pace, now: Instant) {
        let forgiven = now.saturating_duration_since(self.at).as_secs_f64() / f64::from(pace.refill_seconds);
        self.failures = (self.failures - forgiven).max(0.0);
        self.at = now;
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Attempts<K> {
    /// Nothing failed yet.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        let all_forgiven = Duration::from_secs(u64::from(pace.burst) * u64::from(pace.refill_seconds));
        let buckets = Cache::builder().max_capacity(REMEMBERED_MAX_KEYS).time_to_idle(all_forgiven).build();
        Self { pace, buckets }
    }

    /// Whether one more may be tried.
    ///
    /// # Errors
    /// Seconds to wait, at least 1.
    pub fn check(&self, key: &K) -> Result<(), u64> {
        self.check_at(key, Instant::now())
    }

    /// One failed.
    pub fn failed(&self, key: &K) {
        self.failed_at(key, Instant::now());
    }

    /// Tries one where each try counts, however it ends. Those that are refused do not.
    ///
    /// # Errors
    /// Seconds to wait, at least 1.
    pub fn spend(&self, key: &K) -> Result<(), u64> {
        let now = Instant::now();
        self.check_at(key, now).inspect(|()| self.failed_at(key, now))
    }

    fn check_at(&self, key: &K, now: Instant) -> Result<(), u64> {
        let Some(shared) = self.buckets.get(key) else { return Ok(()) };
        let mut bucket = shared.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.forgive(self.pace, now);
        let missing = bucket.failures + 1.0 - f64::from(self.pace.burst);
        if missing <= 0.0 {
            return Ok(());
        }
        Err(Duration::from_secs_f64(missing * f64::from(self.pace.refill_seconds)).as_secs().saturating_add(1))
    }

    fn failed_at(&self, key: &K, now: Instant) {
        let new = || Arc::new(Mutex::new(Bucket { failures: 0.0, at: now }));
        let shared = self.buckets.get_with_by_ref(key, new);
        let mut bucket = shared.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.forgive(self.pace, now);
        bucket.failures += 1.0;
    }
}

/// Whose attempts an address's are: an IPv6 customer has a whole /64 to call from.
#[must_use]
pub fn accountable(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts() -> Attempts<u8> {
        Attempts::new(Pace { burst: 3, refill_seconds: 10 })
    }

    #[test]
    fn failures_are_refused_after_the_burst_and_forgiven_one_by_one() {
        let attempts = attempts();
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        for _ in 0..3 {
            assert_eq!(attempts.check_at(&1, start), Ok(()));
            attempts.failed_at(&1, start);
        }
        assert_eq!(attempts.check_at(&1, start), Err(11));
        assert!(attempts.check_at(&1, later(9)).is_err());
        assert_eq!(attempts.check_at(&1, later(10)), Ok(()));
        attempts.failed_at(&1, later(10));
        assert!(attempts.check_at(&1, later(10)).is_err());
        assert_eq!(attempts.check_at(&1, later(40)), Ok(()));
    }

    #[test]
    fn successes_cost_nothing_and_others_are_not_affected() {
        let attempts = attempts();
        let start = Instant::now();
        for _ in 0..100 {
            assert_eq!(attempts.check_at(&1, start), Ok(()));
        }
        for _ in 0..9 {
            attempts.failed_at(&1, start);
        }
        assert!(attempts.check_at(&1, start + Duration::from_secs(60)).is_err(), "failures beyond the burst count too");
        assert_eq!(attempts.check_at(&2, start), Ok(()));
    }

    #[test]
    fn where_each_try_counts_a_refused_one_does_not_lengthen_the_wait() {
        let attempts = attempts();
        assert!((0..3).all(|_| attempts.spend(&1).is_ok()));
        let waits: Vec<_> = (0..50).map(|_| attempts.spend(&1)).collect();
        assert!(waits.iter().all(|wait| matches!(wait, Err(..=11))), "{waits:?}");
        assert_eq!(attempts.spend(&2), Ok(()));
    }

    #[test]
    fn all_of_a_v6_customers_addresses_are_one() {
        let address = |text: &str| accountable(text.parse().unwrap());
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff::9"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:203.0.113.9"), address("203.0.113.9"));
        assert_ne!(address("203.0.113.9"), address("203.0.113.10"));
    }
}
