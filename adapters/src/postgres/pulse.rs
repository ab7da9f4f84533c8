//! Whether the database answers: asked several times a second over a connection of its own, so that everybody else learns
//! of a database that has gone silent without waiting for it.
//!
//! A database that refuses says so by itself. One that swallows everything (a stopped machine, a cut cable) says nothing, and
//! over TCP nothing is heard of it for a quarter of an hour; what waits for it is given up once the pulse says it is lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often the database is asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long it may take to answer, connecting anew included, before it counts as away.
const LOOK_TIMEOUT: Duration = Duration::from_millis(800);

/// How long it may be away before it counts as lost and nobody waits for it any longer. What is shorter (a restart, a
/// connection that was ended) is bridged. With [`LOOK_INTERVAL`] it leaves a third of the two seconds within which a request
/// is refused to a machine that is busy.
pub const LOST_AFTER: Duration = Duration::from_millis(1_200);

/// How many pulses of this process find their database away.
static AWAY: AtomicUsize = AtomicUsize::new(0);

/// What the last look found. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Pulse(watch::Receiver<Option<Instant>>);

impl Pulse {
    /// Looks until every clone is gone or the task is aborted. The database counts as there until a look failed.
    #[must_use]
    pub(super) fn start(options: PgConnectOptions) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = watch::channel(None);
        let look = async move {
            let mut looker = Looker { options, connection: None, counted: Counted(false) };
            loop {
                let began = Instant::now();
                let answers = looker.answers().await;
                looker.counted.set(!answers);
                sender.send_if_modified(|away_since| {
                    let changed = away_since.is_none() != answers;
                    if changed {
                        *away_since = (!answers).then_some(began);
                        if answers {
                            tracing::info!("the database answers again");
                        } else {
                            tracing::error!("the database does not answer");
                        }
                    }
                    changed
                });
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(LOOK_INTERVAL) => {}
                }
            }
        };
        (Self(receiver), tokio::spawn(look))
    }

    /// A pulse of a database that is always there: for a log without one.
    #[cfg(test)]
    pub(super) fn steady() -> (watch::Sender<Option<Instant>>, Self) {
        let (sender, receiver) = watch::channel(None);
        (sender, Self(receiver))
    }

    /// Whether the database answered at the last look.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.borrow().is_none()
    }

    /// Since when it has not answered, as long as it does not.
    #[must_use]
    pub fn away_since(&self) -> Option<Instant> {
        *self.0.borrow()
    }

    /// What the looks find, for whoever cannot know this type.
    #[must_use]
    pub fn watched(&self) -> watch::Receiver<Option<Instant>> {
        self.0.clone()
    }

    /// Resolves at once while the database is away, and otherwise when it next is.
    pub async fn away(&self) {
        let mut away_since = self.0.clone();
        // A pulse that has ended finds nothing any more.
        if away_since.wait_for(Option::is_some).await.is_err() {
            std::future::pending().await
        }
    }

    /// Resolves once the database has been away for [`LOST_AFTER`]; at once when it has.
    pub async fn lost(&self) {
        loop {
            self.away().await;
            let Some(since) = self.away_since() else { continue };
            tokio::time::sleep_until((since + LOST_AFTER).into()).await;
            if self.away_since() == Some(since) {
                return;
            }
        }
    }

    /// What work comes to, or nothing when the database is lost before it comes to anything. The work is dropped then.
    pub async fn unless_lost<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.lost() => None,
        }
    }
}

/// Whether a connection that is given back now may be one that nobody hears any more: see [`super::connect()`].
pub(super) fn is_any_database_away() -> bool {
    AWAY.load(Ordering::Relaxed) > 0
}

/// Whether this pulse is among those that find their database away; no longer once dropped.
struct Counted(bool);

impl Counted {
    fn set(&mut self, away: bool) {
        if away && !self.0 {
            AWAY.fetch_add(1, Ordering::Relaxed);
        } else if !away && self.0 {
            AWAY.fetch_sub(1, Ordering::Relaxed);
        }
        self.0 = away;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(false);
    }
}

struct Looker {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    counted: Counted,
}

impl Looker {
    async fn answers(&mut self) -> bool {
        let answered = tokio::time::timeout(LOOK_TIMEOUT, self.ask()).await;
        let answers = matches!(answered, Ok(Ok(())));
        if !answers {
            // What is left of it is in an unknown state, or swallows everything.
            self.connection = None;
        }
        answers
    }

    /// Over the connection that is there, and when that one was ended over a new one.
    async fn ask(&mut self) -> Result<(), sqlx::Error> {
        if let Some(connection) = &mut self.connection {
            if ask(connection).await.is_ok() {
                return Ok(());
            }
            self.connection = None;
        }
        let connection = self.connection.insert(self.options.connect().await?);
        ask(connection).await
    }
}

async fn ask(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT 1").persistent(false).execute(connection).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_is_lost_only_after_it_has_been_away_for_a_while() {
        let (sender, pulse) = Pulse::steady();
        assert!(pulse.is_connected() && pulse.unless_lost(async { 7 }).await == Some(7));
        let waiting = tokio::spawn({
            let pulse = pulse.clone();
            async move { pulse.unless_lost(std::future::pending::<()>()).await }
        });
        let now = || tokio::time::Instant::now().into_std();
        sender.send_replace(Some(now()));
        tokio::time::sleep(LOST_AFTER / 2).await;
        // It comes back in time, and goes away again.
        sender.send_replace(None);
        tokio::time::sleep(LOST_AFTER).await;
        assert!(!waiting.is_finished(), "a short absence is bridged");
        sender.send_replace(Some(now()));
        tokio::time::sleep(LOST_AFTER + Duration::from_millis(1)).await;
        assert_eq!(waiting.await.unwrap(), None);
        assert!(pulse.unless_lost(std::future::pending::<()>()).await.is_none(), "and nobody waits any longer");
    }
}
