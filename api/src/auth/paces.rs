//! How often one person, one address or one tenant may do what costs something for good.

use std::net::IpAddr;

use calos_domain::{TenantId, UserId};

use super::attempts::{Attempts, Pace};
use crate::error::{ApiError, Code};

/// Changes by one person, each of them an event for ever: sixty at once, then one every two seconds.
const CHANGES_BY_PERSON: Pace = Pace { burst: 60, refill_seconds: 2 };

/// Keys of one's own that a provider is asked about, by one person, from one address or for one tenant: ten at once, then
/// one a minute. Whoever found keys elsewhere could learn here which of them open something.
const OFFERS: Pace = Pace { burst: 10, refill_seconds: 60 };

/// The same by everybody together: a hundred at once, then one every two seconds.
const OFFERS_BY_ALL: Pace = Pace { burst: 100, refill_seconds: 2 };

/// What changes tenants and keys, by who does it. Ending something has a pace of its own, so that nobody who changed too
/// much waits before they can revoke a key.
pub struct Changes {
    made: Attempts<UserId>,
    ended: Attempts<UserId>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { made: Attempts::new(CHANGES_BY_PERSON), ended: Attempts::new(CHANGES_BY_PERSON) }
    }
}

fn too_many(seconds: u64) -> ApiError {
    let message = "you changed too much in a short time; wait before the next change";
    ApiError::new(Code::TooManyAttempts, message).retry_after(seconds)
}

impl Changes {
    /// Counts something that is created or changed.
    ///
    /// # Errors
    /// 429 `too_many_attempts`.
    pub fn make(&self, person: UserId) -> Result<(), ApiError> {
        self.made.spend(&person).map_err(too_many)
    }

    /// Counts something that is removed or revoked.
    ///
    /// # Errors
    /// 429 `too_many_attempts`.
    pub fn end(&self, person: UserId) -> Result<(), ApiError> {
        self.ended.spend(&person).map_err(too_many)
    }
}

/// Keys of one's own that a provider is asked about.
pub struct Offers {
    by_person: Attempts<UserId>,
    by_address: Attempts<IpAddr>,
    by_tenant: Attempts<TenantId>,
    by_all: Attempts<()>,
}

impl Default for Offers {
    fn default() -> Self {
        Self {
            by_person: Attempts::new(OFFERS),
            by_address: Attempts::new(OFFERS),
            by_tenant: Attempts::new(OFFERS),
            by_all: Attempts::new(OFFERS_BY_ALL),
        }
    }
}

impl Offers {
    /// Counts one key a provider is about to be asked about; one that is refused counts nowhere. `address` is
    /// [`super::accountable`].
    ///
    /// # Errors
    /// 429 `too_many_attempts`.
    pub fn spend(&self, person: UserId, address: IpAddr, tenant: TenantId) -> Result<(), ApiError> {
        let refused = [
            self.by_person.check(&person),
            self.by_address.check(&address),
            self.by_tenant.check(&tenant),
            self.by_all.check(&()),
        ];
        if let Some(seconds) = refused.into_iter().filter_map(Result::err).max() {
            let message = "too many keys for providers were brought in a short time; wait before the next one";
            return Err(ApiError::new(Code::TooManyAttempts, message).retry_after(seconds));
        }
        self.by_person.failed(&person);
        self.by_address.failed(&address);
        self.by_tenant.failed(&tenant);
        self.by_all.failed(&());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn person(n: u128) -> UserId {
        UserId(Uuid::from_u128(n))
    }

    fn tenant(n: u128) -> TenantId {
        TenantId(Uuid::from_u128(n))
    }

    fn address(n: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, n])
    }

    #[test]
    fn whoever_changed_too_much_can_still_revoke_and_others_are_not_affected() {
        let changes = Changes::default();
        let made = (0..100).filter(|_| changes.make(person(1)).is_ok()).count();
        assert!((60..=61).contains(&made), "{made}");
        assert_eq!(changes.make(person(1)).unwrap_err().code(), Code::TooManyAttempts);
        assert!(changes.end(person(1)).is_ok() && changes.make(person(2)).is_ok());
        let ended = (0..100).filter(|_| changes.end(person(1)).is_ok()).count();
        assert!((59..=60).contains(&ended), "{ended}");
    }

    #[test]
    fn neither_another_account_nor_another_address_nor_another_tenant_alone_tests_more_keys() {
        let others: [fn(&Offers, u128) -> bool; 3] = [
            |offers, n| offers.spend(person(1), address(n as u8), tenant(n)).is_ok(),
            |offers, n| offers.spend(person(n), address(1), tenant(n)).is_ok(),
            |offers, n| offers.spend(person(n), address(n as u8), tenant(1)).is_ok(),
        ];
        for other in others {
            let offers = Offers::default();
            assert_eq!((1..=50).filter(|n| other(&offers, *n)).count(), 10);
        }
    }

    #[test]
    fn everybody_together_has_a_bound_and_a_refused_offer_counts_nowhere() {
        let offers = Offers::default();
        for _ in 0..50 {
            let _ = offers.spend(person(0), address(0), tenant(0));
        }
        let taken = (1..=200).filter(|n| offers.spend(person(*n), address(*n as u8), tenant(*n)).is_ok()).count();
        assert!((90..=91).contains(&taken), "{taken}");
    }
}
