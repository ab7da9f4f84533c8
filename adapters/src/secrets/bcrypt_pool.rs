//! bcrypt on few threads, with a short queue: hashing burns a core for a tenth of a second, and a storm of logins must
//! neither slow a chat down nor pile up.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;

use calos_commands::ports::HashError;

/// Hashings that may wait for their turn; one more is turned away.
pub(super) const QUEUE_MAX_HASHINGS: usize = 256;

/// The cores that hash: half of the machine's, one at least. Passwords and keys share them, so that both together leave
/// the other half to everything else.
#[derive(Clone, Debug)]
pub struct HashingCores(Arc<Semaphore>);

impl HashingCores {
    /// This machine's.
    #[must_use]
    pub fn of_machine() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Semaphore::new((cores / 2).max(1))))
    }
}

/// A bounded place to hash in.
pub(super) struct BcryptPool {
    cores: HashingCores,
    waiting: Semaphore,
    cost: u32,
}

impl fmt::Debug for BcryptPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BcryptPool").field("cost", &self.cost).finish_non_exhaustive()
    }
}

impl BcryptPool {
    /// A queue of its own that hashes with 2^`cost` rounds on these cores.
    pub(super) fn new(cost: u32, cores: &HashingCores) -> Self {
        Self { cores: cores.clone(), waiting: Semaphore::new(QUEUE_MAX_HASHINGS), cost }
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
        let working = Arc::clone(&self.cores.0).acquire_owned().await.map_err(|_| HashError::Busy)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_pools_together_hash_on_no_more_cores_than_one() {
        let cores = HashingCores(Arc::new(Semaphore::new(1)));
        let (passwords, keys) = (BcryptPool::new(4, &cores), BcryptPool::new(4, &cores));
        let held = Arc::clone(&cores.0).acquire_owned().await.unwrap();
        let both = async { tokio::join!(passwords.hash("a"), keys.hash("b")) };
        tokio::pin!(both);
        let early = tokio::time::timeout(std::time::Duration::from_millis(100), &mut both).await;
        assert!(early.is_err(), "one of them hashed on a core of its own");
        drop(held);
        let (one, other) = both.await;
        assert!(one.is_ok() && other.is_ok());
    }
}
