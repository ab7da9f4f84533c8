//! A circuit breaker: who fails again and again is left alone for a while, then tried with one call.
//!
//! Pure: it is told what time it is. One stands for each provider and model, since a provider may have lost one model
//! and serve the others.

use std::time::{Duration, Instant};

/// Failures in a row after which nothing more is sent.
pub const OPEN_AFTER_FAILURES: u32 = 5;

/// Failures further apart than this are not in a row.
const ROW_MAX_PAUSE: Duration = Duration::from_secs(60);

/// How long a circuit stays open the first time; each failed trial doubles it up to [`PAUSE_MAX`].
pub const PAUSE_FIRST: Duration = Duration::from_secs(2);

/// The longest time between two trials.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A trial that has not told its end by then is taken for lost, and another one begins.
const TRIAL_MAX: Duration = Duration::from_secs(30);

/// What a circuit lets through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Everything.
    Closed { failures: u32, last_failure: Option<Instant> },
    /// Nothing until then.
    Open { until: Instant, pause: Duration },
    /// Nothing but the trial that is under way.
    Trial { since: Instant, pause: Duration },
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
        Self(State::Closed { failures: 0, last_failure: None })
    }
}

impl Breaker {
    /// Whether a call may be made now; when not, how long nothing is sent.
    pub(super) fn enter(&mut self, now: Instant) -> Result<(), Duration> {
        match self.0 {
            State::Closed { .. } => Ok(()),
            State::Open { until, .. } if now < until => Err(until - now),
            State::Open { pause, .. } => {
                self.0 = State::Trial { since: now, pause };
                Ok(())
            }
            State::Trial { since, pause } if now.duration_since(since) >= TRIAL_MAX => {
                self.0 = State::Trial { since: now, pause };
                Ok(())
            }
            State::Trial { .. } => Err(PAUSE_FIRST),
        }
    }

    /// A call was answered.
    pub(super) fn succeeded(&mut self) {
        self.0 = State::Closed { failures: 0, last_failure: None };
    }

    /// A call failed in a way that speaks against the provider.
    pub(super) fn failed(&mut self, now: Instant) {
        self.0 = match self.0 {
            State::Closed { failures, last_failure } => {
                let in_a_row = last_failure.is_some_and(|last| now.duration_since(last) < ROW_MAX_PAUSE);
                let failures = if in_a_row { failures + 1 } else { 1 };
                if failures >= OPEN_AFTER_FAILURES {
                    State::Open { until: now + PAUSE_FIRST, pause: PAUSE_FIRST }
                } else {
                    State::Closed { failures, last_failure: Some(now) }
                }
            }
            // Calls that had begun before it opened say nothing new.
            State::Open { until, pause } => State::Open { until, pause },
            State::Trial { pause, .. } => {
                let pause = pause.saturating_mul(2).min(PAUSE_MAX);
                State::Open { until: now + pause, pause }
            }
        };
    }

    /// A call was given up before it could tell anything: should it have been the trial, the next one is.
    pub(super) fn given_up(&mut self, now: Instant) {
        if let State::Trial { pause, .. } = self.0 {
            self.0 = State::Open { until: now, pause };
        }
    }

    pub(super) fn state(&self, now: Instant) -> CircuitState {
        match self.0 {
            State::Closed { .. } => CircuitState::Closed,
            State::Open { until, .. } if now < until => CircuitState::Open,
            State::Open { .. } | State::Trial { .. } => CircuitState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..OPEN_AFTER_FAILURES {
            breaker.enter(now).unwrap();
            breaker.failed(now);
        }
        breaker
    }

    #[test]
    fn a_row_of_failures_opens_it_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 1..OPEN_AFTER_FAILURES {
            breaker.failed(now);
        }
        breaker.succeeded();
        breaker.failed(now);
        assert_eq!(breaker.enter(now), Ok(()));
        assert_eq!(open(now).enter(now), Err(PAUSE_FIRST));
    }

    #[test]
    fn failures_far_apart_are_no_row() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..3 * OPEN_AFTER_FAILURES {
            breaker.failed(now);
            now += ROW_MAX_PAUSE;
        }
        assert_eq!(breaker.enter(now), Ok(()));
    }

    #[test]
    fn one_call_tries_it_and_its_success_closes_it() {
        let now = Instant::now();
        let mut breaker = open(now);
        let later = now + PAUSE_FIRST;
        assert_eq!(breaker.state(now), CircuitState::Open);
        assert_eq!(breaker.enter(later), Ok(()));
        assert!(breaker.enter(later).is_err(), "only one at a time");
        assert_eq!(breaker.state(later), CircuitState::HalfOpen);
        breaker.succeeded();
        assert_eq!(breaker.enter(later), Ok(()));
        assert_eq!(breaker.state(later), CircuitState::Closed);
    }

    #[test]
    fn each_failed_trial_doubles_the_pause_up_to_a_bound() {
        let mut now = Instant::now();
        let mut breaker = open(now);
        let mut pause = PAUSE_FIRST;
        for _ in 0..10 {
            now += pause;
            assert_eq!(breaker.enter(now), Ok(()));
            breaker.failed(now);
            pause = (pause * 2).min(PAUSE_MAX);
            assert_eq!(breaker.enter(now), Err(pause));
        }
        assert_eq!(pause, PAUSE_MAX);
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
