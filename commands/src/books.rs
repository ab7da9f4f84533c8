//! What closing a month and reconciling an account need to know of the books: a port over their read models.

use async_trait::async_trait;

use calos_domain::Timestamp;
use calos_domain::operation::PartitionPosition;
use calos_domain::period::ClosedLine;
use calos_domain::reconciliation::Movement;

use crate::fault::Fault;
use crate::log::LogError;

/// Why the books could not say.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BooksError {
    /// They had not taken everything in time; later they will have.
    #[error("the books have not taken everything yet: {0}; try again in a moment")]
    Behind(String),
    /// They cannot be asked.
    #[error("the books cannot be asked: {0}")]
    Unavailable(String),
    /// They hold what cannot be read.
    #[error("the books cannot be read: {0}")]
    Corrupt(String),
    /// More was asked for than is answered at once.
    #[error("the books hold more than {limit} movements of that span; take a shorter one")]
    TooMuch {
        /// The bound.
        limit: usize,
    },
}

impl BooksError {
    /// As a use case's fault: what time or a shorter question mends is its refusal, everything else is the log's.
    pub(crate) fn fault<E: From<Self>>(self) -> Fault<E> {
        match self {
            Self::Behind(_) | Self::TooMuch { .. } => Fault::Refused(self.into()),
            Self::Unavailable(text) => Fault::Log(LogError::Unavailable(text)),
            Self::Corrupt(text) => Fault::Log(LogError::Corrupt(text)),
        }
    }
}

/// The books, as use cases see them.
#[async_trait]
pub trait Books: Send + Sync {
    /// Sees to it that nothing recorded at `at` or before can still appear in the log, and answers how far each
    /// partition is then, ascending.
    ///
    /// # Errors
    /// The log's.
    async fn fence(&self, at: Timestamp) -> Result<Vec<PartitionPosition>, LogError>;

    /// Waits, within bounds, until every read model of the books has passed these positions.
    ///
    /// # Errors
    /// [`BooksError::Behind`].
    async fn wait_for(&self, heads: &[PartitionPosition]) -> Result<(), BooksError>;

    /// How many events are set aside and so missing from the books.
    ///
    /// # Errors
    /// [`BooksError::Unavailable`].
    async fn open_dead_letters(&self) -> Result<u64, BooksError>;

    /// The trial balance of everything effective at `effective` or before, as far as it was recorded at `recorded` or
    /// before.
    ///
    /// # Errors
    /// [`BooksError::Unavailable`], [`BooksError::Corrupt`].
    async fn trial_balance(&self, effective: Timestamp, recorded: Timestamp) -> Result<Vec<ClosedLine>, BooksError>;

    /// What moved on the account with Stripe, effective at `from` or after and before `to`, with everything that was in
    /// the log when this was asked; at most `limit` movements.
    ///
    /// # Errors
    /// Any [`BooksError`].
    async fn stripe_movements(&self, from: Timestamp, to: Timestamp, limit: usize)
    -> Result<Vec<Movement>, BooksError>;
}
