//! How often something may fail: a burst, then a slow refill. Refused before anything costly is done.

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

/// Failures, by some key. Cloning is not needed: share it.
pub struct Attempts<K> {
    pace: Pace,
    buckets: Cache<K, Arc<Mutex<Bucket>>>,
}

#[derive(Debug)]
struct Bucket {
    spent: f64,
    at: Instant,
}

/// One attempt that is under way. It counts as failed unless [`Self::succeeded`].
#[must_use = "an attempt counts as failed unless it is told to have succeeded"]
pub struct Attempt(Arc<Mutex<Bucket>>);

impl Attempt {
    /// Gives the attempt back.
    pub fn succeeded(self) {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.spent = (bucket.spent - 1.0).max(0.0);
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Attempts<K> {
    /// Nothing failed yet.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        let full_again = Duration::from_secs(u64::from(pace.burst) * u64::from(pace.refill_seconds));
        let buckets = Cache::builder().max_capacity(REMEMBERED_MAX_KEYS).time_to_idle(full_again).build();
        Self { pace, buckets }
    }

    /// Takes one attempt, or says in how many seconds there is one.
    ///
    /// # Errors
    /// Seconds to wait, at least 1.
    pub fn take(&self, key: &K) -> Result<Attempt, u64> {
        self.take_at(key, Instant::now())
    }

    fn take_at(&self, key: &K, now: Instant) -> Result<Attempt, u64> {
        let shared = self.buckets.get_with_by_ref(key, || Arc::new(Mutex::new(Bucket { spent: 0.0, at: now })));
        let mut bucket = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let refill_seconds = f64::from(self.pace.refill_seconds);
        let refilled = now.saturating_duration_since(bucket.at).as_secs_f64() / refill_seconds;
        bucket.spent = (bucket.spent - refilled).max(0.0);
        bucket.at = now;
        let missing = bucket.spent + 1.0 - f64::from(self.pace.burst);
        if missing > 0.0 {
            // At most one refill and the rounding: it fits.
            return Err(Duration::from_secs_f64(missing * refill_seconds).as_secs().saturating_add(1));
        }
        bucket.spent += 1.0;
        drop(bucket);
        Ok(Attempt(shared))
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
    fn failures_are_refused_after_the_burst_and_allowed_again_one_by_one() {
        let attempts = attempts();
        let start = Instant::now();
        let failed = |at: Instant| attempts.take_at(&1, at).map(drop);
        for _ in 0..3 {
            assert_eq!(failed(start), Ok(()));
        }
        assert_eq!(failed(start), Err(11));
        assert!(failed(start + Duration::from_secs(9)).is_err());
        assert_eq!(failed(start + Duration::from_secs(10)), Ok(()));
        assert!(failed(start + Duration::from_secs(10)).is_err());
    }

    #[test]
    fn successes_cost_nothing_and_others_are_not_affected() {
        let attempts = attempts();
        let start = Instant::now();
        for _ in 0..100 {
            attempts.take_at(&1, start).ok().unwrap().succeeded();
        }
        for _ in 0..3 {
            assert!(attempts.take_at(&1, start).is_ok());
        }
        assert!(attempts.take_at(&1, start).is_err());
        assert!(attempts.take_at(&2, start).is_ok());
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
