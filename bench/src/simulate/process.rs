//! One life of the simulated server: the log, its writer and the projections' runner on a runtime of their own, so that a
//! crash ends all of them wherever they are, without a word to PostgreSQL.

use std::future::Future;

use calos_adapters::postgres;
use calos_adapters::postgres::log::{LogOptions, PgLog};
use calos_projections::{Progress, Runner, RunnerHandle, RunnerOptions};
use sqlx::PgPool;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Fault;

/// Connections of one life.
const CONNECTIONS_MAX: u32 = 6;

/// A running server, without HTTP.
pub struct Process {
    runtime: Option<Runtime>,
    /// Its log.
    pub log: PgLog,
    /// Its connections.
    pub pool: PgPool,
    runner: Option<RunnerHandle>,
}

impl Process {
    /// Starts over what the database holds; without a runner nothing moves the projections.
    ///
    /// # Errors
    /// The database's and the log's.
    pub async fn start(url: &str, with_runner: bool) -> Result<Self, Fault> {
        // One thread, so that what is asked for together is decided in the order it was asked for.
        let built = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = built.map_err(|error| Fault::Environment(error.to_string()))?;
        let url = url.to_owned();
        let started = runtime.spawn(async move {
            let pool = postgres::connect(&url, CONNECTIONS_MAX).await?;
            let log = PgLog::open(pool.clone(), LogOptions::default()).await?;
            let runner = match with_runner {
                true => Some(Runner::start(pool.clone(), log.heads(), RunnerOptions::default()).await?),
                false => None,
            };
            Ok::<_, Fault>((pool, log, runner))
        });
        match started.await {
            Ok(Ok((pool, log, runner))) => Ok(Self { runtime: Some(runtime), log, pool, runner }),
            Ok(Err(fault)) => {
                runtime.shutdown_background();
                Err(fault)
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(Fault::Environment(format!("the simulated server did not start: {error}")))
            }
        }
    }

    /// Starts work of this life; a crash ends it.
    ///
    /// # Errors
    /// This life is over.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<JoinHandle<T>, Fault> {
        let runtime = self.runtime.as_ref();
        runtime.map(|runtime| runtime.spawn(work)).ok_or_else(|| Fault::Environment("a crashed server".to_owned()))
    }

    /// How far the runner has come.
    pub fn progress(&self) -> Option<watch::Receiver<Progress>> {
        self.runner.as_ref().map(RunnerHandle::progress)
    }

    /// Ends this life wherever it is.
    pub fn crash(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
