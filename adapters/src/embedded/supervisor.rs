//! Watches PostgreSQL for a holder of a lease and starts it again when it died. A thread of its own: it must work while the
//! runtime is busy, blocked or gone.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Shared;
use super::error::ClusterError;

/// How often the process is looked at.
const INTERVAL: Duration = Duration::from_millis(200);
/// The longest pause between two attempts to start it again.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The watching thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Supervisor {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    pub(super) fn spawn(shared: Arc<Shared>) -> Result<Self, ClusterError> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("postgres-watch".to_owned())
            .spawn(move || watch(&shared, &stopped))
            .map_err(|error| ClusterError::Interrupted(error.to_string()))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches PostgreSQL had panicked");
        }
    }
}

fn watch(shared: &Shared, stopped: &Receiver<()>) {
    let mut pause = INTERVAL;
    while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        if shared.postmaster.running_pid().is_some() {
            pause = INTERVAL;
            continue;
        }
        tracing::warn!("the embedded PostgreSQL is gone; starting it again");
        match shared.ensure_running() {
            Ok(()) => {
                tracing::info!("the embedded PostgreSQL runs again");
                pause = INTERVAL;
            }
            Err(error) => {
                tracing::error!(%error, "the embedded PostgreSQL could not be started again");
                pause = (pause * 2).min(BACKOFF_MAX);
            }
        }
    }
}
