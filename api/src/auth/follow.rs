//! Forgetting what another process ended: a session, a key.

use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use calos_adapters::postgres::{ChangedStream, PgLog};
use calos_domain::Decider;
use calos_domain::api_key::ApiKey;
use calos_domain::session::Session;

use super::Auth;

impl Auth {
    /// Follows what other processes write, until stopped. Take it before the first request is served.
    #[must_use]
    pub fn follow(&self, log: &PgLog, stop: CancellationToken) -> JoinHandle<()> {
        let mut changes = log.foreign_changes();
        let auth = self.clone();
        tokio::spawn(async move {
            loop {
                let change = tokio::select! {
                    () = stop.cancelled() => return,
                    change = changes.recv() => change,
                };
                match change {
                    Ok(change) => auth.take_in(&change),
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(
                            missed,
                            "changes by other processes came too fast; everything remembered is forgotten"
                        );
                        auth.take_in(&ChangedStream::Any);
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        })
    }

    fn take_in(&self, change: &ChangedStream) {
        match change {
            ChangedStream::Stream { kind, id } if kind == Session::KIND => self.sessions.forget_stream(id),
            ChangedStream::Stream { kind, id } if kind == ApiKey::KIND => self.keys.forget_stream(id),
            ChangedStream::Stream { .. } => {}
            ChangedStream::Any => {
                self.sessions.forget_all();
                self.keys.forget_all();
            }
        }
    }
}
