//! Rebuilds begun over HTTP: one at a time, in the background, cancellable, each with who and why in the log.

use tokio_util::sync::CancellationToken;

use calos_commands::log::{Positions, Request};
use calos_domain::operation::{OperationCommand, RebuildCancelled, RebuildScope, RebuildStarted, RunBy};
use calos_domain::{Timestamp, UserId};
use calos_replay::operation::{record, record_as};
use calos_replay::progress::{Progress, Watch};
use calos_replay::rebuild::{RebuildOptions, RebuildReport, rebuild_watched};
use calos_replay::write_guard::{Assent, confirm};
use calos_replay::{ReadModel, ToolError};

use crate::one_at_a_time::{OneAtATime, Turn};
use crate::request::now;
use crate::wiring::App;

/// The rebuilds of this process. Cloning shares them.
#[derive(Clone, Default)]
pub struct Rebuilds(OneAtATime<Running, Vec<RebuildReport>>);

#[derive(Clone)]
struct Running {
    begun: Begun,
    cancel: CancellationToken,
    watch: Watch,
}

/// A rebuild that was begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Begun {
    /// The projection's name, or `all`.
    pub projection: String,
    /// Who.
    pub by: UserId,
    /// Who and why, as it stands in the log.
    pub run: RunBy,
    /// When.
    pub at: Timestamp,
}

/// A rebuild that ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Ended {
    /// The rebuild.
    pub begun: Begun,
    /// When it ended.
    pub at: Timestamp,
    /// What it did, or why it broke off.
    pub outcome: Result<Vec<RebuildReport>, String>,
}

/// Why none was begun.
#[derive(Debug)]
pub enum NotBegun {
    /// One is running.
    Running(Box<Begun>),
    /// It could not be recorded.
    Failed(ToolError),
}

impl Rebuilds {
    /// The running rebuild, and the last one that ended since this process began.
    #[must_use]
    pub fn look(&self) -> (Option<Begun>, Option<Ended>) {
        let (running, last) = self.0.look();
        let last = last.map(|ended| Ended { begun: ended.ran.begun, at: ended.at, outcome: ended.outcome });
        (running.map(|running| running.begun), last)
    }

    /// How far the running rebuild is; none when none is running, or it has only just begun.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.0.look().0.and_then(|running| running.watch.progress().cloned())
    }

    /// Records that a rebuild begins, in the envelope of its request, and begins it in the background.
    ///
    /// # Errors
    /// The one that is running, since there is one at a time; or that it could not be recorded: then none was begun.
    pub async fn begin(
        &self,
        app: &App,
        begun: Begun,
        models: Vec<ReadModel>,
        request: Request,
    ) -> Result<Positions, NotBegun> {
        let (cancel, watch) = (CancellationToken::new(), Watch::default());
        let running = Running { begun: begun.clone(), cancel: cancel.clone(), watch: watch.clone() };
        let turn = self.enter(running).map_err(NotBegun::Running)?;
        let (run, scope) = (begun.run.clone(), RebuildScope::named(&begun.projection));
        let fact = RebuildStarted { run, scope, only: None, until: None, started_at: begun.at };
        let recorded = record_as(&app.log, &begun.run, request, OperationCommand::RecordRebuildStarted(fact)).await;
        let positions = match recorded {
            Ok(positions) => positions,
            Err(error) => {
                turn.end(Err(error.to_string()));
                return Err(NotBegun::Failed(error));
            }
        };
        let app = app.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                () = app.stopping.cancelled() => Err("the server was stopped; a rebuild begun again goes on".to_owned()),
                () = cancel.cancelled() => Err("it was cancelled; a rebuild begun again goes on".to_owned()),
                outcome = rebuild(&app, &begun.run, &models, &watch) => outcome,
            };
            turn.end(outcome);
        });
        Ok(positions)
    }

    /// Stops the running rebuild and records that under its own run; none when none is running.
    ///
    /// # Errors
    /// It could not be recorded; it is stopped all the same.
    pub async fn cancel(&self, app: &App, run: RunBy) -> Result<Option<Begun>, ToolError> {
        let Some(Running { begun, cancel, .. }) = self.0.look().0 else { return Ok(None) };
        cancel.cancel();
        let fact = RebuildCancelled { run: run.clone(), projection: begun.projection.clone(), cancelled_at: now() };
        record(&app.log, &run, OperationCommand::RecordRebuildCancelled(fact)).await?;
        Ok(Some(begun))
    }

    fn enter(&self, running: Running) -> Result<Turn<Running, Vec<RebuildReport>>, Box<Begun>> {
        self.0.enter(running, |ran, outcome| tell(&ran.begun, outcome)).map_err(|running| Box::new(running.begun))
    }
}

fn tell(begun: &Begun, outcome: &Result<Vec<RebuildReport>, String>) {
    match outcome {
        Ok(_) => tracing::info!(projection = begun.projection, "a rebuild has ended"),
        Err(why) => tracing::warn!(projection = begun.projection, why, "a rebuild broke off"),
    }
}

/// The tools log in for themselves, as the tables' owner.
async fn rebuild(app: &App, run: &RunBy, models: &[ReadModel], watch: &Watch) -> Result<Vec<RebuildReport>, String> {
    let confirmed = confirm(Assent::Given, "rebuild").map_err(|error| error.to_string())?;
    let options = RebuildOptions { announced: true, ..RebuildOptions::default() };
    let rebuilt = rebuild_watched(&app.pool, &app.log, models, run, &confirmed, &options, watch).await;
    rebuilt.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use calos_replay::operation::run_by;
    use uuid::Uuid;

    use super::*;

    fn begun(projection: &str) -> Begun {
        let run = run_by(Some("ada".to_owned()), Some("it looked wrong".to_owned()));
        Begun { projection: projection.to_owned(), by: UserId(Uuid::from_u128(1)), run, at: Timestamp::from_micros(7) }
    }

    fn running(begun: Begun) -> Running {
        Running { begun, cancel: CancellationToken::new(), watch: Watch::default() }
    }

    #[test]
    fn there_is_one_rebuild_at_a_time_and_the_last_one_is_remembered() {
        let (rebuilds, first) = (Rebuilds::default(), begun("usage_log"));
        let turn = rebuilds.enter(running(first.clone())).ok().unwrap();
        assert_eq!(rebuilds.enter(running(begun("tenants"))).err().as_deref(), Some(&first));
        assert_eq!(rebuilds.look().0, Some(first));
        assert!(rebuilds.progress().is_none(), "it has only just begun");
        turn.end(Ok(Vec::new()));
        let (running, last) = rebuilds.look();
        assert_eq!((running, last.unwrap().outcome), (None, Ok(Vec::new())));
    }
}
