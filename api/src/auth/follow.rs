//! Forgetting what another process ended: a session, a key, a person.

use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use calos_adapters::postgres::{ChangedStream, PgLog};
use calos_domain::account::Account;
use calos_domain::api_key::ApiKey;
use calos_domain::session::Session;
use calos_domain::{Decider, SubjectId};

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
            // Whoever was erased has no data key any more; who was not has theirs read again.
            ChangedStream::Stream { kind, id } if kind == Account::KIND => match id.parse() {
                Ok(user) => self.secrets.subject_keys().forget(SubjectId(user)),
                Err(_) => self.secrets.subject_keys().forget_all(),
            },
            ChangedStream::Stream { .. } => {}
            ChangedStream::Any => {
                self.sessions.forget_all();
                self.keys.forget_all();
                self.secrets.subject_keys().forget_all();
            }
        }
    }
}
