//! The circuits: one for each provider, model and account, since a provider may have lost one model and serve the others,
//! and an account may be in trouble that nobody else shares.
//!
//! Only those with something to say are kept: one that is not here lets everything through.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use calos_domain::KeyringEntryId;
use calos_domain::pricing::Provider;

use super::admit::Candidate;
use super::breaker::{Breaker, CircuitState};

/// Circuits of tenants' own accounts that are kept. Those of the platform's are as few as its models.
const OWN_MAX_CIRCUITS: usize = 4_096;

/// Which circuit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Line {
    pub(super) provider: Provider,
    pub(super) model: String,
    /// The tenant's own key; none for the platform's account.
    pub(super) account: Option<KeyringEntryId>,
}

impl Line {
    /// The one a candidate is called over.
    pub(super) fn of(candidate: &Candidate) -> Self {
        Self {
            provider: candidate.route.provider,
            model: candidate.route.model.clone(),
            account: candidate.own_key.map(|entry| entry.entry_id),
        }
    }
}

/// One circuit that is, or was of late, in trouble.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Circuit {
    /// Who.
    pub provider: Provider,
    /// With which model.
    pub model: String,
    /// Under which of the tenants' own keys; none for the platform's account.
    pub account: Option<KeyringEntryId>,
    /// What it lets through.
    pub state: CircuitState,
}

type Account = (Provider, Option<KeyringEntryId>);

/// The circuits, by account and model.
#[derive(Debug, Default)]
pub(super) struct Circuits(Mutex<BTreeMap<Account, BTreeMap<String, Breaker>>>);

impl Circuits {
    /// Asks one, and keeps what has become of it.
    pub(super) fn with<T>(&self, line: &Line, now: Instant, ask: impl FnOnce(&mut Breaker) -> T) -> T {
        let account = (line.provider, line.account);
        let mut circuits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = circuits.get(&account).and_then(|models| models.get(&line.model)).copied();
        let mut breaker = known.unwrap_or_default();
        let answer = ask(&mut breaker);
        match (known.is_some(), breaker.is_idle(now)) {
            (false, true) => {}
            (true, true) => {
                if let Some(models) = circuits.get_mut(&account) {
                    models.remove(&line.model);
                    if models.is_empty() {
                        circuits.remove(&account);
                    }
                }
            }
            (is_known, false) => {
                if is_known || line.account.is_none() || has_room(&mut circuits, now) {
                    circuits.entry(account).or_default().insert(line.model.clone(), breaker);
                }
            }
        }
        answer
    }

    /// Those of the kept ones that are wanted, by account and state: thousands may be kept, so no others are copied.
    pub(super) fn those(
        &self,
        now: Instant,
        wanted: impl Fn(Option<KeyringEntryId>, CircuitState) -> bool,
    ) -> Vec<Circuit> {
        let circuits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut those = Vec::new();
        for ((provider, account), models) in circuits.iter() {
            for (model, breaker) in models {
                let (account, state) = (*account, breaker.state(now));
                if wanted(account, state) {
                    those.push(Circuit { provider: *provider, model: model.clone(), account, state });
                }
            }
        }
        those
    }
}

/// Whether one more of a tenant's own is kept, once those that have nothing to say any more are gone.
fn has_room(circuits: &mut BTreeMap<Account, BTreeMap<String, Breaker>>, now: Instant) -> bool {
    let own = |circuits: &BTreeMap<Account, BTreeMap<String, Breaker>>| {
        let own = circuits.iter().filter(|((_, account), _)| account.is_some());
        own.map(|(_, models)| models.len()).sum::<usize>()
    };
    if own(circuits) < OWN_MAX_CIRCUITS {
        return true;
    }
    circuits.retain(|_, models| {
        models.retain(|_, breaker| !breaker.is_idle(now));
        !models.is_empty()
    });
    own(circuits) < OWN_MAX_CIRCUITS
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use calos_domain::TenantId;
    use uuid::Uuid;

    use super::super::breaker::{Blame, Failure, OPEN_AFTER_FAILURES};
    use super::*;

    fn line(model: &str, account: Option<u128>) -> Line {
        let account = account.map(|number| KeyringEntryId(Uuid::from_u128(number)));
        Line { provider: Provider::OpenAi, model: model.to_owned(), account }
    }

    fn all(circuits: &Circuits, now: Instant) -> Vec<Circuit> {
        circuits.those(now, |_, _| true)
    }

    fn fail(circuits: &Circuits, line: &Line, now: Instant) {
        let failure = Failure { caller: TenantId(Uuid::from_u128(1)), blame: Blame::Transport };
        circuits.with(line, now, |breaker| breaker.failed(failure, now));
    }

    #[test]
    fn an_account_in_trouble_leaves_the_others_alone() {
        let (circuits, now) = (Circuits::default(), Instant::now());
        let own = line("gpt-4", Some(1));
        for _ in 0..OPEN_AFTER_FAILURES {
            fail(&circuits, &own, now);
        }
        let enter = |line: &Line| circuits.with(line, now, |breaker| breaker.enter(now));
        assert!(enter(&own).is_err());
        for line in [line("gpt-4", None), line("gpt-4", Some(2)), line("gpt-4o", Some(1))] {
            assert_eq!(enter(&line), Ok(()), "{line:?}");
        }
        assert_eq!(all(&circuits, now).len(), 1);
    }

    #[test]
    fn what_has_nothing_to_say_is_not_kept() {
        let (circuits, now) = (Circuits::default(), Instant::now());
        let line = line("gpt-4", None);
        circuits.with(&line, now, |breaker| breaker.enter(now)).unwrap();
        assert!(all(&circuits, now).is_empty());
        fail(&circuits, &line, now);
        assert_eq!(all(&circuits, now).len(), 1);
        circuits.with(&line, now, Breaker::succeeded);
        assert!(all(&circuits, now).is_empty() && circuits.0.lock().unwrap().is_empty());
    }

    #[test]
    fn tenants_own_accounts_take_a_bounded_room_and_none_of_the_platforms() {
        let (circuits, now) = (Circuits::default(), Instant::now());
        let most = OWN_MAX_CIRCUITS as u128;
        for number in 0..most + 10 {
            fail(&circuits, &line("gpt-4", Some(number)), now);
        }
        assert_eq!(all(&circuits, now).len(), OWN_MAX_CIRCUITS);
        fail(&circuits, &line("gpt-4", None), now);
        assert_eq!(all(&circuits, now).len(), OWN_MAX_CIRCUITS + 1);
        // Later the old ones make room.
        let later = now + Duration::from_secs(60);
        fail(&circuits, &line("gpt-4", Some(most)), later);
        assert_eq!(all(&circuits, later).len(), 1);
    }
}
