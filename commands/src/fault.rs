//! Why a use case did not do what it was asked: a rule refused it, or the world could not carry it out.

use crate::log::{Failed, LogError};
use crate::ports::{HashError, NoToken, SealError};

/// A use case that did not happen. Only [`Self::Refused`] is the caller's affair.
#[derive(Debug, thiserror::Error)]
pub enum Fault<E> {
    /// The rules refuse it; nothing changed.
    #[error("{0}")]
    Refused(E),
    /// The log could not take it.
    #[error(transparent)]
    Log(LogError),
    /// Personal data could not be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A password or key could not be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// A session token could not be signed.
    #[error(transparent)]
    Token(#[from] NoToken),
}

impl<E> From<Failed<E>> for Fault<E> {
    fn from(failed: Failed<E>) -> Self {
        match failed {
            Failed::Refused(refusal) => Self::Refused(refusal),
            Failed::Log(error) => Self::Log(error),
        }
    }
}

impl<E> From<LogError> for Fault<E> {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl<E> Fault<E> {
    /// The same fault under another use case's refusal.
    pub fn map<F>(self, refusal: impl FnOnce(E) -> F) -> Fault<F> {
        match self {
            Self::Refused(refused) => Fault::Refused(refusal(refused)),
            Self::Log(error) => Fault::Log(error),
            Self::Seal(error) => Fault::Seal(error),
            Self::Hash(error) => Fault::Hash(error),
            Self::Token(error) => Fault::Token(error),
        }
    }

    /// Whether it is certain that nothing was appended, so that what was prepared for it may be thrown away.
    #[must_use]
    pub fn certainly_absent(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Seal(_) | Self::Hash(_) | Self::Token(_) => true,
            Self::Log(error) => match error {
                LogError::Overloaded | LogError::Contended { .. } | LogError::Claimed => true,
                LogError::Unavailable(_) | LogError::Unresolved | LogError::Corrupt(_) => false,
            },
        }
    }
}

/// A refusal of a use case that only looks: it has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Never {}
