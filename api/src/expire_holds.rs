//! Expires holds whose owner died, now and then: see [`calos_commands::processes::expire_holds`].

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use calos_adapters::postgres::PgLog;
use calos_commands::processes::expire_holds::{DueHold, due_until, expire_holds};
use calos_projections::open_holds;

use crate::metrics::Metrics;
use crate::request::now;

/// How often due holds are looked for.
pub const EXPIRY_SECONDS: u64 = 10;

/// The most holds expired in one go.
const BATCH_MAX_HOLDS: u32 = 500;

/// Looks for due holds until `stop`.
#[must_use]
pub fn spawn(pool: PgPool, log: PgLog, metrics: Arc<Metrics>, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(EXPIRY_SECONDS)) => {}
            }
            let swept = log.pulse().unless_lost(sweep(&pool, &log)).await;
            match swept.unwrap_or_else(|| Err("the database does not answer".into())) {
                Ok(0) => {}
                Ok(ended) => {
                    metrics.holds_expired.add(u64::try_from(ended).unwrap_or_default());
                    tracing::info!(ended, "holds were expired whose owner is gone");
                }
                Err(error) => tracing::warn!(%error, "due holds could not be expired; they will be looked for again"),
            }
        }
    })
}

/// Expires what is due now, and answers how many holds that were.
///
/// # Errors
/// The database's and the log's, in words.
pub async fn sweep(pool: &PgPool, log: &PgLog) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
    let now = now();
    let found = open_holds::expired(pool, due_until(now), BATCH_MAX_HOLDS).await?;
    let due: Vec<DueHold> =
        found.iter().map(|hold| DueHold { tenant_id: hold.tenant_id, hold_id: hold.hold_id }).collect();
    Ok(expire_holds(log, &due, now).await?)
}
