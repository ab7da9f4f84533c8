//! How much of the fetcher one tenant gets, so that nobody reads so much that nobody else can.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use calos_domain::TenantId;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How many pages of one tenant are fetched at a time; another one waits within its conversation's time.
pub const TENANT_MAX_FETCHES: usize = 4;

/// How many pages one tenant may ask for in [`SHARE_WINDOW`].
pub const TENANT_MAX_PAGES: usize = 60;

/// The time that [`TENANT_MAX_PAGES`] are counted in; it begins with the first of them.
pub const SHARE_WINDOW: Duration = Duration::from_secs(60);

/// How many tenants are remembered, a hundred-odd bytes each. One more is told to come back, until another one's minute
/// is over.
const TENANTS_MAX: usize = 16_384;

/// One tenant's.
struct Share {
    fetching: Arc<Semaphore>,
    begun: Instant,
    pages: usize,
}

impl Share {
    fn new(now: Instant) -> Self {
        Self { fetching: Arc::new(Semaphore::new(TENANT_MAX_FETCHES)), begun: now, pages: 0 }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.begun) >= SHARE_WINDOW
    }

    /// Whether forgetting it changes nothing: its minute is over, and nobody fetches or waits.
    fn is_idle(&self, now: Instant) -> bool {
        self.is_over(now) && Arc::strong_count(&self.fetching) == 1
    }
}

/// Why a tenant gets no page now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoShare {
    /// It asked for [`TENANT_MAX_PAGES`].
    Spent,
    /// Too many others are reading.
    Full,
}

/// Everybody's.
#[derive(Default)]
pub(super) struct Shares(Mutex<HashMap<TenantId, Share>>);

impl Shares {
    /// Counts a page of `tenant` at `now`, and gives what it has to be fetched under a permit of.
    pub(super) fn take(&self, tenant: TenantId, now: Instant) -> Result<Arc<Semaphore>, NoShare> {
        // Whoever panicked while holding the lock left counters behind that are right or one too low.
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= TENANTS_MAX && !shares.contains_key(&tenant) {
            shares.retain(|_, share| !share.is_idle(now));
            if shares.len() >= TENANTS_MAX {
                return Err(NoShare::Full);
            }
        }
        let share = shares.entry(tenant).or_insert_with(|| Share::new(now));
        if share.is_over(now) {
            (share.begun, share.pages) = (now, 0);
        }
        if share.pages >= TENANT_MAX_PAGES {
            return Err(NoShare::Spent);
        }
        share.pages += 1;
        Ok(Arc::clone(&share.fetching))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn tenant(number: usize) -> TenantId {
        TenantId(Uuid::from_u128(number as u128))
    }

    #[test]
    fn a_tenant_has_so_many_pages_a_minute_and_others_have_theirs() {
        let (shares, now) = (Shares::default(), Instant::now());
        for _page in 0..TENANT_MAX_PAGES {
            assert!(shares.take(tenant(1), now).is_ok());
        }
        let late = now + SHARE_WINDOW - Duration::from_millis(1);
        assert_eq!(shares.take(tenant(1), late).unwrap_err(), NoShare::Spent);
        assert!(shares.take(tenant(2), late).is_ok());
        assert!(shares.take(tenant(1), now + SHARE_WINDOW).is_ok(), "the next minute is another one");
    }

    #[test]
    fn no_more_tenants_are_remembered_than_there_is_room_for() {
        let (shares, now) = (Shares::default(), Instant::now());
        let held = shares.take(tenant(0), now).unwrap();
        for number in 1..TENANTS_MAX {
            assert!(shares.take(tenant(number), now).is_ok());
        }
        assert_eq!(shares.take(tenant(TENANTS_MAX), now).unwrap_err(), NoShare::Full);
        assert!(shares.take(tenant(1), now).is_ok(), "who is remembered reads on");
        assert!(shares.take(tenant(TENANTS_MAX), now + SHARE_WINDOW).is_ok());
        let left: Vec<TenantId> = shares.0.lock().unwrap().keys().copied().collect();
        assert_eq!(left.len(), 2, "who still fetches is not forgotten: {left:?}");
        assert!(left.contains(&tenant(0)));
        drop(held);
    }
}
