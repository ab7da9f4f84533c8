//! bcrypt on few threads, with a short queue: hashing burns a core for a tenth of a second, and a storm of logins must
//! neither slow a chat down nor pile up.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;

use calos_commands::ports::HashError;

/// Hashings that may wait for their turn; one more is turned away.
pub(super) const QUEUE_MAX_HASHINGS: usize = 256;

/// A bounded place to hash in.
pub(super) struct BcryptPool {
    working: Arc<Semaphore>,
    waiting: Semaphore,
    cost: u32,
}

impl fmt::Debug for BcryptPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BcryptPool").field("cost", &self.cost).finish_non_exhaustive()
    }
}

impl BcryptPool {
    /// A pool that hashes with 2^`cost` rounds on half of the machine's cores, one at least.
    pub(super) fn new(cost: u32) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            working: Arc::new(Semaphore::new((cores / 2).max(1))),
            waiting: Semaphore::new(QUEUE_MAX_HASHINGS),
            cost,
        }
    }

    /// Hashes at most 72 bytes; longer ones are an error rather than cut short.
    pub(super) async fn hash(&self, secret: impl AsRef<[u8]> + Send + 'static) -> Result<String, HashError> {
        let cost = self.cost;
        self.run(move || bcrypt::non_truncating_hash(secret, cost)).await
    }

    /// Whether a secret is the one behind a hash.
    pub(super) async fn verify(
        &self,
        secret: impl AsRef<[u8]> + Send + 'static,
        hash: String,
    ) -> Result<bool, HashError> {
        self.run(move || bcrypt::non_truncating_verify(secret, &hash)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, bcrypt::BcryptError> + Send + 'static,
    ) -> Result<T, HashError> {
        let _queued = self.waiting.try_acquire().map_err(|_| HashError::Busy)?;
        let working = Arc::clone(&self.working).acquire_owned().await.map_err(|_| HashError::Busy)?;
        let hashing = tokio::task::spawn_blocking(move || {
            // Held by the thread, not by whoever asked: a caller who goes away does not make room for another.
            let _working = working;
            work()
        });
        match hashing.await {
            Ok(outcome) => outcome.map_err(|error| HashError::Failed(error.to_string())),
            Err(error) => Err(HashError::Failed(error.to_string())),
        }
    }
}
