//! Whether the database answers, looked at once a second, so that `/health` costs nothing.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the database is asked.
const PULSE_SECONDS: u64 = 1;

/// How long it may take to answer before it counts as away.
const PULSE_MAX_SECONDS: u64 = 2;

/// What the last look found.
#[derive(Clone, Debug)]
pub struct Pulse {
    started: Instant,
    connected: watch::Receiver<bool>,
}

impl Pulse {
    /// Looks once, then goes on looking until `stop`.
    pub async fn start(pool: PgPool, stop: CancellationToken) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, connected) = watch::channel(answers(&pool).await);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(PULSE_SECONDS)) => {}
                }
                let now = answers(&pool).await;
                sender.send_if_modified(|before| {
                    let changed = *before != now;
                    if changed && now {
                        tracing::info!("the database answers again");
                    } else if changed {
                        tracing::error!("the database does not answer");
                    }
                    *before = now;
                    changed
                });
            }
        });
        (Self { started: Instant::now(), connected }, task)
    }

    /// Whether the database answered at the last look.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// Whole seconds since the start.
    #[must_use]
    pub fn uptime_seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

async fn answers(pool: &PgPool) -> bool {
    let ask = sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(pool);
    matches!(tokio::time::timeout(Duration::from_secs(PULSE_MAX_SECONDS), ask).await, Ok(Ok(1)))
}
