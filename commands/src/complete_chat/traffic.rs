//! What is under way at each provider: the circuits of its models, and how many calls it may have at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use calos_domain::TenantId;
use calos_domain::pricing::Provider;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use super::breaker::{Blame, Breaker, CircuitState, Failure};
use super::circuits::{Circuit, Circuits, Line};
use crate::provider::ProviderError;

/// Calls under way at a paid provider, unless [`CallSlots`] says otherwise.
pub const PAID_MAX_CALLS: usize = 1_024;

/// Calls under way at the platform's own Ollama, which works on a few at a time and lets the others wait, unless
/// [`CallSlots`] says otherwise.
pub const LOCAL_MAX_CALLS: usize = 256;

/// The part of a provider's slots that one tenant may take: who opens streams and reads them slowly must leave room for
/// the others.
const TENANT_SHARE: usize = 2;

/// Tenants whose shares are remembered; those with nothing under way are forgotten beyond it.
const SHARES_MAX_COUNT: usize = 4_096;

/// How long a call waits for another to end, unless [`CallSlots`] says otherwise.
pub const SLOT_WAIT_MAX: Duration = Duration::from_secs(5);

/// How many calls may be under way at each provider at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallSlots {
    max_calls: BTreeMap<Provider, usize>,
    wait_max: Duration,
}

impl Default for CallSlots {
    fn default() -> Self {
        let most = |provider: &Provider| match provider {
            Provider::OpenAi | Provider::Anthropic | Provider::DeepSeek => (*provider, PAID_MAX_CALLS),
            Provider::Ollama => (*provider, LOCAL_MAX_CALLS),
        };
        Self { max_calls: Provider::ALL.iter().map(most).collect(), wait_max: SLOT_WAIT_MAX }
    }
}

impl CallSlots {
    /// The same, with so many at this provider; none at all turns every call away.
    #[must_use]
    pub fn at(mut self, provider: Provider, max_calls: usize) -> Self {
        self.max_calls.insert(provider, max_calls.min(Semaphore::MAX_PERMITS));
        self
    }

    /// The same, with a call waiting so long for another to end.
    #[must_use]
    pub fn waiting(self, wait_max: Duration) -> Self {
        Self { wait_max, ..self }
    }

    fn most(&self, provider: Provider) -> usize {
        self.max_calls.get(&provider).copied().unwrap_or(0)
    }
}

/// What is under way.
#[derive(Clone, Debug)]
pub(super) struct Traffic(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    circuits: Circuits,
    limits: CallSlots,
    slots: BTreeMap<Provider, Arc<Semaphore>>,
    shares: Mutex<BTreeMap<(Provider, TenantId), Arc<Semaphore>>>,
}

/// Leave to have one call under way: of the tenant's share, and of all there are.
#[derive(Debug)]
struct Slot {
    _share: OwnedSemaphorePermit,
    _slot: OwnedSemaphorePermit,
}

impl Traffic {
    pub(super) fn new(limits: CallSlots) -> Self {
        let slot = |(provider, most): (&Provider, &usize)| (*provider, Arc::new(Semaphore::new(*most)));
        let slots = limits.max_calls.iter().map(slot).collect();
        Self(Arc::new(Shared { circuits: Circuits::default(), limits, slots, shares: Mutex::default() }))
    }

    /// Waits for a slot, and for leave to call.
    ///
    /// # Errors
    /// [`ProviderError::CircuitOpen`] and [`ProviderError::Busy`]; nothing was sent then.
    pub(super) async fn enter(&self, line: Line, caller: TenantId) -> Result<Turn, ProviderError> {
        let slot = self.slot(line.provider, caller).await?;
        self.ask(&line, |breaker, now| breaker.enter(now)).map_err(|retry_after| is_open(&line, retry_after))?;
        Ok(Turn { traffic: self.clone(), line, caller, told: false, failure: None, slot: Some(slot) })
    }

    /// The circuits of the platform's own accounts that are, or were of late, in trouble.
    pub(super) fn platform_circuits(&self) -> Vec<Circuit> {
        self.0.circuits.those(Instant::now(), |account, _| account.is_none())
    }

    /// The circuits that are open, whosever the account.
    pub(super) fn open_circuits(&self) -> Vec<Circuit> {
        self.0.circuits.those(Instant::now(), |_, state| state == CircuitState::Open)
    }

    /// How many calls are under way at a provider.
    pub(super) fn under_way(&self, provider: Provider) -> usize {
        let free = self.0.slots.get(&provider).map_or(0, |slots| slots.available_permits());
        self.0.limits.most(provider).saturating_sub(free)
    }

    /// Waits for a slot of the tenant's share, then for one of all; whichever is missing in the end is the bound that is
    /// named.
    async fn slot(&self, provider: Provider, caller: TenantId) -> Result<Slot, ProviderError> {
        let most = self.0.limits.most(provider);
        let busy = |limit, of_tenant| ProviderError::Busy { provider: provider.as_str(), limit, of_tenant };
        let slots = Arc::clone(self.0.slots.get(&provider).ok_or_else(|| busy(most, false))?);
        let deadline = tokio::time::Instant::now() + self.0.limits.wait_max;
        let share = timeout_at(deadline, self.share(provider, caller).acquire_owned()).await;
        let share = share.ok().and_then(Result::ok).ok_or_else(|| busy(share_of(most), true))?;
        let slot = timeout_at(deadline, slots.acquire_owned()).await;
        let slot = slot.ok().and_then(Result::ok).ok_or_else(|| busy(most, false))?;
        Ok(Slot { _share: share, _slot: slot })
    }

    /// What this tenant may have under way at a provider.
    fn share(&self, provider: Provider, caller: TenantId) -> Arc<Semaphore> {
        let mut shares = self.0.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= SHARES_MAX_COUNT {
            // Permits and those who wait for one keep theirs alive.
            shares.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let most = share_of(self.0.limits.most(provider));
        Arc::clone(shares.entry((provider, caller)).or_insert_with(|| Arc::new(Semaphore::new(most))))
    }

    fn ask<T>(&self, line: &Line, ask: impl FnOnce(&mut Breaker, Instant) -> T) -> T {
        let now = Instant::now();
        self.0.circuits.with(line, now, |breaker| ask(breaker, now))
    }
}

/// How much of so many slots one tenant may take.
const fn share_of(most: usize) -> usize {
    most.div_ceil(TENANT_SHARE)
}

fn is_open(line: &Line, retry_after: Duration) -> ProviderError {
    ProviderError::CircuitOpen { provider: line.provider.as_str(), model: line.model.clone(), retry_after }
}

/// A call under way, its repetitions included. It keeps its slot until it rests or is dropped, and counts for its
/// circuit once, as what it ended with.
#[derive(Debug)]
pub(super) struct Turn {
    traffic: Traffic,
    line: Line,
    caller: TenantId,
    told: bool,
    failure: Option<Failure>,
    slot: Option<Slot>,
}

impl Turn {
    /// The provider has begun to answer: a trial is over, and what failed before it counts no more. The answer may still
    /// break off, so a row of failures goes on until one has succeeded.
    pub(super) fn answered(&mut self) {
        (self.told, self.failure) = (true, None);
        self.traffic.ask(&self.line, |breaker, _| breaker.answered());
    }

    /// The provider has answered to the end, or refused for a reason of the caller's.
    pub(super) fn succeeded(&mut self) {
        self.answered();
        self.traffic.ask(&self.line, |breaker, _| breaker.succeeded());
    }

    /// The provider has failed; it counts unless it answers after all.
    pub(super) fn failed(&mut self, blame: Blame) {
        self.failure = Some(Failure { caller: self.caller, blame });
    }

    /// Nothing is under way until it resumes.
    pub(super) fn rest(&mut self) {
        self.slot = None;
    }

    /// Waits for a slot once more.
    ///
    /// # Errors
    /// [`ProviderError::CircuitOpen`] when others' calls opened it meanwhile, and [`ProviderError::Busy`].
    pub(super) async fn resume(&mut self) -> Result<(), ProviderError> {
        let slot = self.traffic.slot(self.line.provider, self.caller).await?;
        let goes_on = self.traffic.ask(&self.line, |breaker, now| breaker.go_on(now));
        goes_on.map_err(|retry_after| is_open(&self.line, retry_after))?;
        self.slot = Some(slot);
        Ok(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        match self.failure {
            Some(failure) => self.traffic.ask(&self.line, |breaker, now| breaker.failed(failure, now)),
            None if self.told => {}
            None => self.traffic.ask(&self.line, Breaker::given_up),
        }
    }
}

#[cfg(test)]
mod tests {
    use calos_domain::KeyringEntryId;
    use uuid::Uuid;

    use super::super::blame::weigh;
    use super::super::breaker::{OPEN_AFTER_FAILURES, PAUSE_FIRST};
    use super::*;
    use crate::provider::Phase;

    fn traffic() -> Traffic {
        Traffic::new(CallSlots::default())
    }

    fn gpt_4() -> Line {
        Line { provider: Provider::OpenAi, model: "gpt-4".to_owned(), account: None }
    }

    fn somebody(number: u128) -> TenantId {
        TenantId(Uuid::from_u128(number))
    }

    async fn fails(traffic: &Traffic, line: Line, caller: u128, blame: Blame) {
        traffic.enter(line, somebody(caller)).await.unwrap().failed(blame);
    }

    #[tokio::test]
    async fn a_broken_model_leaves_the_others_alone() {
        let traffic = traffic();
        for _ in 0..OPEN_AFTER_FAILURES {
            fails(&traffic, gpt_4(), 1, Blame::Transport).await;
        }
        let refused = traffic.enter(gpt_4(), somebody(2)).await.unwrap_err();
        assert!(matches!(refused, ProviderError::CircuitOpen { .. }), "{refused}");
        let other = Line { model: "gpt-4o".to_owned(), ..gpt_4() };
        traffic.enter(other, somebody(2)).await.unwrap().succeeded();
        let own = Line { account: Some(KeyringEntryId(Uuid::nil())), ..gpt_4() };
        traffic.enter(own, somebody(2)).await.unwrap().succeeded();
        let states: Vec<_> =
            traffic.platform_circuits().into_iter().map(|circuit| (circuit.model, circuit.state)).collect();
        assert_eq!(states, [("gpt-4".to_owned(), CircuitState::Open)]);
    }

    #[tokio::test]
    async fn streams_that_all_break_off_open_a_circuit_and_one_that_ends_well_forgives_them() {
        let traffic = traffic();
        let breaks_off = async |count: u32| {
            for _ in 0..count {
                let mut turn = traffic.enter(gpt_4(), somebody(1)).await.unwrap();
                turn.answered();
                turn.failed(Blame::Transport);
            }
        };
        breaks_off(OPEN_AFTER_FAILURES - 1).await;
        let mut turn = traffic.enter(gpt_4(), somebody(1)).await.unwrap();
        turn.answered();
        turn.succeeded();
        drop(turn);
        breaks_off(OPEN_AFTER_FAILURES - 1).await;
        // Whoever leaves in the middle says nothing of how it would have ended.
        traffic.enter(gpt_4(), somebody(1)).await.unwrap().answered();
        breaks_off(1).await;
        let refused = traffic.enter(gpt_4(), somebody(2)).await.unwrap_err();
        assert!(matches!(refused, ProviderError::CircuitOpen { .. }), "{refused}");
    }

    #[tokio::test]
    async fn an_answer_that_takes_too_long_as_a_whole_neither_blames_nor_forgives() {
        let traffic = traffic();
        let too_long = || {
            let limit = Duration::from_secs(300);
            ProviderError::Timeout { provider: "openai", phase: Phase::Whole, limit }
        };
        for _ in 1..OPEN_AFTER_FAILURES {
            fails(&traffic, gpt_4(), 1, Blame::Transport).await;
        }
        weigh(&mut traffic.enter(gpt_4(), somebody(1)).await.unwrap(), &too_long());
        assert_eq!(traffic.platform_circuits()[0].state, CircuitState::Closed);
        fails(&traffic, gpt_4(), 1, Blame::Transport).await;
        assert!(traffic.enter(gpt_4(), somebody(2)).await.is_err(), "the failures before it still count");

        // One that opened a while ago lets a single call try it.
        let Some(then) = Instant::now().checked_sub(PAUSE_FIRST) else { panic!("this machine has only just begun") };
        let line = Line { model: "gpt-4o".to_owned(), ..gpt_4() };
        let failure = Failure { caller: somebody(1), blame: Blame::Transport };
        for _ in 0..OPEN_AFTER_FAILURES {
            traffic.0.circuits.with(&line, then, |breaker| breaker.failed(failure, then));
        }
        let mut trial = traffic.enter(line.clone(), somebody(1)).await.unwrap();
        weigh(&mut trial, &too_long());
        drop(trial);
        let state = |model: &str| {
            traffic.platform_circuits().into_iter().find(|circuit| circuit.model == model).map(|circuit| circuit.state)
        };
        assert_eq!(state("gpt-4o"), Some(CircuitState::HalfOpen), "another one is to try it");
        let refused = ProviderError::Status {
            provider: "openai",
            status: 400,
            message: "x".to_owned(),
            code: None,
            param: None,
            retry_after: None,
        };
        weigh(&mut traffic.enter(line, somebody(1)).await.unwrap(), &refused);
        assert_eq!(state("gpt-4o"), None, "a refusal is an answer");
    }

    #[tokio::test]
    async fn one_tenants_requests_do_not_take_a_model_from_the_others() {
        let traffic = traffic();
        for _ in 0..10 * OPEN_AFTER_FAILURES {
            fails(&traffic, gpt_4(), 1, Blame::Answer).await;
        }
        assert!(traffic.enter(gpt_4(), somebody(2)).await.is_ok());
    }

    #[tokio::test]
    async fn a_call_counts_once_however_often_it_is_repeated() {
        let traffic = traffic();
        for _ in 1..OPEN_AFTER_FAILURES {
            let mut turn = traffic.enter(gpt_4(), somebody(1)).await.unwrap();
            for _ in 0..3 {
                turn.failed(Blame::Transport);
                turn.rest();
                turn.resume().await.unwrap();
            }
        }
        // What is answered in the end has not failed.
        let mut turn = traffic.enter(gpt_4(), somebody(1)).await.unwrap();
        turn.failed(Blame::Transport);
        turn.succeeded();
        drop(turn);
        assert!(traffic.platform_circuits().is_empty());
    }

    #[tokio::test]
    async fn who_finds_no_slot_in_time_is_told_so() {
        let local = || Line { provider: Provider::Ollama, model: "llama3.2:3b".to_owned(), account: None };
        let traffic = Traffic::new(CallSlots::default().at(Provider::Ollama, 2).waiting(Duration::from_millis(1)));
        let mut first = traffic.enter(local(), somebody(1)).await.unwrap();
        let second = traffic.enter(local(), somebody(2)).await.unwrap();
        let refused = traffic.enter(local(), somebody(3)).await.unwrap_err();
        assert_eq!(refused, ProviderError::Busy { provider: "ollama", limit: 2, of_tenant: false });
        drop(second);
        assert!(traffic.enter(local(), somebody(2)).await.is_ok());
        // Whoever rests is nobody's burden.
        let second = traffic.enter(local(), somebody(2)).await.unwrap();
        first.rest();
        let third = traffic.enter(local(), somebody(3)).await.unwrap();
        assert!(first.resume().await.is_err());
        drop((second, third));
        assert!(first.resume().await.is_ok());
        let paid = Line { provider: Provider::OpenAi, ..local() };
        assert!(traffic.enter(paid, somebody(1)).await.is_ok(), "each provider has its own");
    }

    #[tokio::test]
    async fn one_tenant_leaves_room_for_the_others() {
        let local = || Line { provider: Provider::Ollama, model: "llama3.2:3b".to_owned(), account: None };
        let traffic = Traffic::new(CallSlots::default().at(Provider::Ollama, 4).waiting(Duration::from_millis(1)));
        let mut turns = Vec::new();
        for _ in 0..2 {
            turns.push(traffic.enter(local(), somebody(1)).await.unwrap());
        }
        let refused = traffic.enter(local(), somebody(1)).await.unwrap_err();
        let of_tenant = ProviderError::Busy { provider: "ollama", limit: 2, of_tenant: true };
        assert_eq!(refused, of_tenant, "half of them is the most");
        for _ in 0..2 {
            turns.push(traffic.enter(local(), somebody(2)).await.unwrap());
        }
        drop(turns);
        assert!(traffic.enter(local(), somebody(1)).await.is_ok());
    }
}
