//! Calls that place no hold, so that no wallet counts them: how often one key may make them.
//!
//! They cost a little time and nothing else, so they are counted in memory, by each process for itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use calos_domain::{KeyId, TenantId};

use super::KeyCaller;
use crate::error::{ApiError, Code};

/// Keys remembered at a time; beyond that the least used are forgotten.
const REMEMBERED_MAX_KEYS: u64 = 100_000;

/// The stretch of time in which calls are counted.
const MINUTE: Duration = Duration::from_secs(60);

struct Minute {
    since: Instant,
    calls: u32,
}

/// Calls that no wallet counts, by key.
pub struct Unmetered(Cache<(TenantId, KeyId), Arc<Mutex<Minute>>>);

impl Default for Unmetered {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED_MAX_KEYS).time_to_idle(MINUTE).build())
    }
}

impl Unmetered {
    /// Counts a call, beside those the wallet counts: a key makes as many of these in a minute as it may make of those.
    ///
    /// # Errors
    /// 429 `rate_limit_exceeded`.
    pub fn spend(&self, caller: &KeyCaller) -> Result<(), ApiError> {
        let place = (caller.tenant_id(), caller.key.key_id.clone());
        let limit = caller.key.limits.per_minute;
        self.spend_at(place, limit, Instant::now()).map_err(|seconds| {
            let message = format!("this key may make {limit} such calls in a minute; wait before the next one");
            ApiError::new(Code::RateLimitExceeded, message).retry_after(seconds)
        })
    }

    fn spend_at(&self, place: (TenantId, KeyId), limit: u32, now: Instant) -> Result<(), u64> {
        let minute = self.0.get_with(place, || Arc::new(Mutex::new(Minute { since: now, calls: 0 })));
        let mut minute = minute.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(minute.since);
        if passed >= MINUTE {
            *minute = Minute { since: now, calls: 0 };
        }
        if minute.calls >= limit {
            return Err(MINUTE.saturating_sub(passed).as_secs().saturating_add(1));
        }
        minute.calls += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_key_makes_its_calls_a_minute_and_no_more() {
        let (unmetered, start) = (Unmetered::default(), Instant::now());
        let key = |id: &str| (TenantId(Uuid::nil()), id.parse::<KeyId>().unwrap());
        for _ in 0..3 {
            assert_eq!(unmetered.spend_at(key("aaaa0001"), 3, start), Ok(()));
        }
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(unmetered.spend_at(key("aaaa0001"), 3, later(10)), Err(51));
        assert_eq!(unmetered.spend_at(key("aaaa0002"), 3, later(10)), Ok(()), "another key is not affected");
        assert_eq!(unmetered.spend_at(key("aaaa0001"), 3, later(60)), Ok(()));
    }
}
