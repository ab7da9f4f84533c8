//! A circuit breaker: who fails again and again is left alone for a while, then tried with one call.
//!
//! Pure: it is told what time it is. A request may be such that its provider stumbles over it, so what one caller meets
//! proves nothing about the others' calls: only a row of failures of the way there, or one that several callers met,
//! opens a circuit.

use std::time::{Duration, Instant};

use calos_domain::TenantId;

/// Failed calls in a row after which nothing more is sent.
pub const OPEN_AFTER_FAILURES: u32 = 5;

/// Failures further apart than this are not in a row.
const ROW_MAX_PAUSE: Duration = Duration::from_secs(60);

/// How long a circuit stays open the first time; each failed trial doubles it up to [`PAUSE_MAX`].
pub const PAUSE_FIRST: Duration = Duration::from_secs(2);

/// The longest time between two trials.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A trial that has not told its end by then is taken for lost, and another one begins.
const TRIAL_MAX: Duration = Duration::from_secs(30);

/// What has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Blame {
    /// The way there, or whoever answers for it: no connection, no time, no server. The request had no part in it.
    Transport,
    /// The answer: an error of the provider's own, or something unreadable. The request may have brought it about.
    Answer,
}

/// A call that failed in a way that speaks against the provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    /// Whose call.
    pub(super) caller: TenantId,
    /// What failed.
    pub(super) blame: Blame,
}

/// Failures without a success between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Row {
    failures: u32,
    /// Of them, those of the way there.
    of_transport: u32,
    last: Instant,
    caller: TenantId,
    /// Whether anybody else met one, too.
    met_by_others: bool,
}

impl Row {
    fn first(failure: Failure, now: Instant) -> Self {
        let none = Self { failures: 0, of_transport: 0, last: now, caller: failure.caller, met_by_others: false };
        none.and(failure, now)
    }

    fn and(self, failure: Failure, now: Instant) -> Self {
        Self {
            failures: self.failures.saturating_add(1),
            of_transport: self.of_transport.saturating_add(u32::from(failure.blame == Blame::Transport)),
            last: now,
            caller: self.caller,
            met_by_others: self.met_by_others || failure.caller != self.caller,
        }
    }

    const fn is_proof(&self) -> bool {
        self.of_transport >= OPEN_AFTER_FAILURES || self.met_by_others && self.failures >= OPEN_AFTER_FAILURES
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.last) >= ROW_MAX_PAUSE
    }
}

/// What a circuit lets through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Everything.
    Closed(Option<Row>),
    /// Nothing until then. The last failure that counted was this caller's.
    Open { until: Instant, pause: Duration, caller: TenantId },
    /// Nothing but the trial that is under way.
    Trial { since: Instant, pause: Duration, caller: TenantId },
}

/// How a circuit looks from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CircuitState {
    /// Calls go through.
    Closed,
    /// Calls are refused.
    Open,
    /// One call is let through to see.
    HalfOpen,
}

impl CircuitState {
    /// The name in answers and figures.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// One circuit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Breaker(State);

impl Default for Breaker {
    fn default() -> Self {
        Self(State::Closed(None))
    }
}

impl Breaker {
    /// Whether a call may be made now; when not, how long nothing is sent.
    pub(super) fn enter(&mut self, now: Instant) -> Result<(), Duration> {
        match self.0 {
            State::Closed(_) => Ok(()),
            State::Open { until, .. } if now < until => Err(until - now),
            State::Open { pause, caller, .. } => {
                self.0 = State::Trial { since: now, pause, caller };
                Ok(())
            }
            State::Trial { since, pause, caller } if now.duration_since(since) >= TRIAL_MAX => {
                self.0 = State::Trial { since: now, pause, caller };
                Ok(())
            }
            State::Trial { .. } => Err(PAUSE_FIRST),
        }
    }

    /// Whether a call that has entered may be tried once more; when not, how long nothing is sent.
    pub(super) fn go_on(&self, now: Instant) -> Result<(), Duration> {
        match self.0 {
            State::Open { until, .. } if now < until => Err(until - now),
            State::Open { .. } | State::Closed(_) | State::Trial { .. } => Ok(()),
        }
    }

    /// A call has begun to be answered: should it have been the trial, others may call too. It may still break off.
    pub(super) fn answered(&mut self) {
        if let State::Trial { .. } = self.0 {
            self.0 = State::Closed(None);
        }
    }

    /// A call was answered to its end.
    pub(super) fn succeeded(&mut self) {
        self.0 = match self.0 {
            State::Closed(_) => State::Closed(None),
            // Answers that had begun before it opened end long after, and say nothing of how calls fare now.
            State::Open { .. } | State::Trial { .. } => self.0,
        };
    }

    /// A call failed, its repetitions included.
    pub(super) fn failed(&mut self, failure: Failure, now: Instant) {
        self.0 = match self.0 {
            State::Closed(row) => {
                let row = match row.filter(|row| !row.is_over(now)) {
                    Some(row) => row.and(failure, now),
                    None => Row::first(failure, now),
                };
                if row.is_proof() {
                    State::Open { until: now + PAUSE_FIRST, pause: PAUSE_FIRST, caller: failure.caller }
                } else {
                    State::Closed(Some(row))
                }
            }
            // Calls that had begun before it opened say nothing new.
            State::Open { .. } => self.0,
            // Nor does an answer the same caller has met already: somebody else's call may tell.
            State::Trial { pause, caller, .. } if failure.blame == Blame::Answer && failure.caller == caller => {
                State::Open { until: now, pause, caller }
            }
            State::Trial { pause, .. } => {
                let pause = pause.saturating_mul(2).min(PAUSE_MAX);
                State::Open { until: now + pause, pause, caller: failure.caller }
            }
        };
    }

    /// A call was given up before it could tell anything: should it have been the trial, the next one is.
    pub(super) fn given_up(&mut self, now: Instant) {
        if let State::Trial { pause, caller, .. } = self.0 {
            self.0 = State::Open { until: now, pause, caller };
        }
    }

    /// Whether it may be forgotten: nothing has failed of late, or nobody has called for long.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        match self.0 {
            State::Closed(row) => row.is_none_or(|row| row.is_over(now)),
            State::Open { until, .. } => now >= until + PAUSE_MAX,
            State::Trial { since, .. } => now >= since + TRIAL_MAX + PAUSE_MAX,
        }
    }

    pub(super) fn state(&self, now: Instant) -> CircuitState {
        match self.0 {
            State::Closed(_) => CircuitState::Closed,
            State::Open { until, .. } if now < until => CircuitState::Open,
            State::Open { .. } | State::Trial { .. } => CircuitState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn caller(number: u128) -> TenantId {
        TenantId(uuid::Uuid::from_u128(number))
    }

    const fn of_transport() -> Failure {
        Failure { caller: caller(1), blame: Blame::Transport }
    }

    const fn met_by(number: u128) -> Failure {
        Failure { caller: caller(number), blame: Blame::Answer }
    }

    fn open(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..OPEN_AFTER_FAILURES {
            breaker.enter(now).unwrap();
            breaker.failed(of_transport(), now);
        }
        breaker
    }

    #[test]
    fn a_row_of_failures_opens_it_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 1..OPEN_AFTER_FAILURES {
            breaker.failed(of_transport(), now);
        }
        breaker.succeeded();
        breaker.failed(of_transport(), now);
        assert_eq!(breaker.enter(now), Ok(()));
        assert_eq!(open(now).enter(now), Err(PAUSE_FIRST));
    }

    #[test]
    fn what_one_caller_alone_meets_does_not_close_the_way_for_the_others() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..10 * OPEN_AFTER_FAILURES {
            breaker.failed(met_by(1), now);
        }
        assert_eq!(breaker.enter(now), Ok(()));
        // Another one who meets it, too, is proof.
        breaker.failed(met_by(2), now);
        assert_eq!(breaker.enter(now), Err(PAUSE_FIRST));
        // A few failures of the way are none in a row of another kind.
        let mut breaker = Breaker::default();
        for _ in 1..OPEN_AFTER_FAILURES {
            breaker.failed(of_transport(), now);
            breaker.failed(met_by(1), now);
        }
        assert_eq!(breaker.enter(now), Ok(()));
    }

    #[test]
    fn a_trial_that_tells_nothing_new_leaves_the_word_to_another() {
        let now = Instant::now();
        let mut breaker = open(now);
        let mut later = now + PAUSE_FIRST;
        for _ in 0..3 {
            assert_eq!(breaker.enter(later), Ok(()));
            breaker.failed(met_by(1), later);
        }
        assert_eq!(breaker.enter(later), Ok(()), "the next one may try at once");
        breaker.failed(met_by(2), later);
        assert_eq!(breaker.enter(later), Err(2 * PAUSE_FIRST));
        later += 2 * PAUSE_FIRST;
        assert_eq!(breaker.enter(later), Ok(()));
        breaker.failed(of_transport(), later);
        assert_eq!(breaker.enter(later), Err(4 * PAUSE_FIRST));
    }

    #[test]
    fn failures_far_apart_are_no_row() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..3 * OPEN_AFTER_FAILURES {
            breaker.failed(of_transport(), now);
            assert!(!breaker.is_idle(now));
            now += ROW_MAX_PAUSE;
            assert!(breaker.is_idle(now));
        }
        assert_eq!(breaker.enter(now), Ok(()));
    }

    #[test]
    fn one_call_tries_it_and_its_success_closes_it() {
        let now = Instant::now();
        let mut breaker = open(now);
        let later = now + PAUSE_FIRST;
        assert_eq!(breaker.state(now), CircuitState::Open);
        assert!(breaker.go_on(now).is_err());
        assert_eq!(breaker.enter(later), Ok(()));
        assert!(breaker.enter(later).is_err(), "only one at a time");
        assert_eq!(breaker.go_on(later), Ok(()), "but as often as one is repeated");
        assert_eq!(breaker.state(later), CircuitState::HalfOpen);
        breaker.answered();
        assert_eq!(breaker.enter(later), Ok(()));
        assert_eq!(breaker.state(later), CircuitState::Closed);
        assert!(breaker.is_idle(later));
    }

    #[test]
    fn an_answer_that_only_begins_forgives_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..OPEN_AFTER_FAILURES {
            assert_eq!(breaker.enter(now), Ok(()));
            breaker.answered();
            breaker.failed(of_transport(), now);
        }
        assert_eq!(breaker.enter(now), Err(PAUSE_FIRST));
    }

    #[test]
    fn an_answer_from_before_it_opened_does_not_close_it() {
        let now = Instant::now();
        let mut breaker = open(now);
        breaker.succeeded();
        assert_eq!(breaker.enter(now), Err(PAUSE_FIRST));
        let later = now + PAUSE_FIRST;
        assert_eq!(breaker.enter(later), Ok(()));
        breaker.succeeded();
        assert!(breaker.enter(later).is_err(), "the trial is still under way");
    }

    #[test]
    fn each_failed_trial_doubles_the_pause_up_to_a_bound() {
        let mut now = Instant::now();
        let mut breaker = open(now);
        let mut pause = PAUSE_FIRST;
        for _ in 0..10 {
            now += pause;
            assert_eq!(breaker.enter(now), Ok(()));
            breaker.failed(of_transport(), now);
            pause = (pause * 2).min(PAUSE_MAX);
            assert_eq!(breaker.enter(now), Err(pause));
        }
        assert_eq!(pause, PAUSE_MAX);
        assert!(!breaker.is_idle(now + pause) && breaker.is_idle(now + pause + PAUSE_MAX));
    }

    #[test]
    fn a_trial_that_is_given_up_or_lost_makes_room_for_another() {
        let now = Instant::now();
        let mut breaker = open(now);
        let later = now + PAUSE_FIRST;
        breaker.enter(later).unwrap();
        breaker.given_up(later);
        assert_eq!(breaker.enter(later), Ok(()));
        assert!(breaker.enter(later).is_err());
        assert_eq!(breaker.enter(later + TRIAL_MAX), Ok(()));
    }
}
