//! Seal checks: the whole chain recomputed and held against the anchors, one at a time, beside what the server does.

use calos_domain::{Timestamp, UserId};
use calos_replay::progress::{Progress, Show};
use calos_replay::verify::{Anchors, VerifyOptions, VerifyReport, verify_watched};

use crate::one_at_a_time::{OneAtATime, Turn};
use crate::request::now;
use crate::wiring::App;

/// The seal checks of this process. Cloning shares them.
#[derive(Clone, Default)]
pub struct SealChecks(OneAtATime<Running, VerifyReport>);

#[derive(Clone)]
struct Running {
    begun: Begun,
    progress: Option<Progress>,
}

/// Who began a check, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Begun {
    /// Who.
    pub by: UserId,
    /// When.
    pub at: Timestamp,
}

/// How far a running check is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Underway {
    /// Who began it, and when.
    pub begun: Begun,
    /// Events checked so far.
    pub events: u64,
    /// Events to check in all; none while the heads are being read.
    pub of_events: Option<u64>,
}

/// A check that ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Who began it, and when.
    pub begun: Begun,
    /// When it ended.
    pub at: Timestamp,
    /// What it found, or why it broke off.
    pub outcome: Result<VerifyReport, String>,
}

impl SealChecks {
    /// The running check, and the last one that ended since this process began.
    #[must_use]
    pub fn look(&self) -> (Option<Underway>, Option<Ended>) {
        let (running, last) = self.0.look();
        let underway = running.map(|running| Underway {
            begun: running.begun,
            events: running.progress.as_ref().map_or(0, Progress::events),
            of_events: running.progress.as_ref().map(Progress::total),
        });
        (underway, last.map(|ended| Ended { begun: ended.ran.begun, at: ended.at, outcome: ended.outcome }))
    }

    /// Begins a check in the background.
    ///
    /// # Errors
    /// The one that is running: there is one at a time.
    pub fn begin(&self, app: &App, by: UserId) -> Result<Begun, Begun> {
        let begun = Begun { by, at: now() };
        let turn = self.enter(begun)?;
        let app = app.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                () = app.stopping.cancelled() => Err("the server was stopped".to_owned()),
                outcome = check(&app, &turn) => outcome,
            };
            turn.end(outcome);
        });
        Ok(begun)
    }

    fn enter(&self, begun: Begun) -> Result<Turn<Running, VerifyReport>, Begun> {
        self.0.enter(Running { begun, progress: None }, |_, outcome| tell(outcome)).map_err(|running| running.begun)
    }
}

fn tell(outcome: &Result<VerifyReport, String>) {
    match outcome {
        Ok(report) if report.passed => tracing::info!(events = report.events, "the seal holds"),
        Ok(report) => tracing::error!(first = ?report.first(), "the seal is broken"),
        Err(why) => tracing::warn!(why, "a seal check broke off"),
    }
}

async fn check(app: &App, turn: &Turn<Running, VerifyReport>) -> Result<VerifyReport, String> {
    let key = app.secrets.ledger_signing_key().verifying_key();
    let anchors = Some(Anchors { directory: app.config.anchor_dir.clone(), key });
    let options = VerifyOptions { chain_only: true, anchors, models: &[], show: Show::Silent };
    let watch = |progress: &Progress| turn.say(|running| running.progress = Some(progress.clone()));
    verify_watched(&app.pool, &options, watch).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn begun(n: u128) -> Begun {
        Begun { by: UserId(Uuid::from_u128(n)), at: Timestamp::from_micros(7) }
    }

    #[test]
    fn a_check_says_how_far_it_is_and_what_it_found() {
        let checks = SealChecks::default();
        let turn = checks.enter(begun(1)).ok().unwrap();
        assert_eq!(checks.enter(begun(2)).err(), Some(begun(1)));
        turn.say(|running| running.progress = Some(Progress::new(Show::Silent, "verify", 40)));
        let underway = Underway { begun: begun(1), events: 0, of_events: Some(40) };
        assert_eq!(checks.look(), (Some(underway), None));
        let report = VerifyReport { passed: true, events: 40, read_ms: 0, events_per_second: 0, checks: Vec::new() };
        turn.end(Ok(report.clone()));
        let (running, last) = checks.look();
        let last = last.unwrap();
        assert_eq!((running, last.begun, last.outcome), (None, begun(1), Ok(report)));
    }
}
