//! Why a chat call has no answer.

use calos_domain::MicroUsd;
use calos_domain::api_key::KeyDenial;
use calos_domain::licence::LicenceRefusal;
use calos_domain::pricing::PriceRefusal;
use calos_domain::routing::RouteRefusal;
use calos_domain::wallet::WalletRefusal;

use crate::log::LogError;
use crate::provider::ProviderError;

/// Why a chat call has no answer. Unless it says otherwise, nothing was charged.
#[derive(Debug, thiserror::Error)]
pub enum ChatFailure {
    /// The key opens nothing any more.
    #[error(transparent)]
    Key(#[from] KeyDenial),
    /// The key may not use the model.
    #[error("this API key may not use the model {model}")]
    ModelNotAllowed {
        /// The model that would have answered.
        model: String,
    },
    /// The licence does not allow it.
    #[error(transparent)]
    Licence(#[from] LicenceRefusal),
    /// Nobody serves the model.
    #[error(transparent)]
    Route(#[from] RouteRefusal),
    /// The model has no price, or the request is beyond all money.
    #[error(transparent)]
    Price(#[from] PriceRefusal),
    /// The wallet cannot hold the worst case.
    #[error("this call needs {needed} micro-dollars at most; {available} are available and {held} are held")]
    CannotPay {
        /// What the worst case costs.
        needed: MicroUsd,
        /// What is available.
        available: MicroUsd,
        /// What open holds keep.
        held: MicroUsd,
    },
    /// The wallet refuses for another reason.
    #[error(transparent)]
    Wallet(WalletRefusal),
    /// The log could not take the hold, or the settlement of an answer that was made.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The provider gave no answer, or broke off.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The call ended without saying how; its hold is released.
    #[error("the call ended without an answer: {0}")]
    Lost(&'static str),
}

impl ChatFailure {
    /// Whether only open holds stand in the way of paying: then waiting helps.
    #[must_use]
    pub fn waits_for_holds(&self) -> bool {
        match self {
            Self::CannotPay { needed, available, held } => {
                available.get().saturating_add(held.get()) >= needed.get() && !held.is_zero()
            }
            Self::Wallet(WalletRefusal::TooManyHolds { .. }) => true,
            Self::Key(_)
            | Self::ModelNotAllowed { .. }
            | Self::Licence(_)
            | Self::Route(_)
            | Self::Price(_)
            | Self::Wallet(_)
            | Self::Log(_)
            | Self::Provider(_)
            | Self::Lost(_) => false,
        }
    }
}

impl From<WalletRefusal> for ChatFailure {
    fn from(refusal: WalletRefusal) -> Self {
        match refusal {
            WalletRefusal::InsufficientCredit { needed, available, held, .. } => Self::CannotPay {
                needed: MicroUsd::new(needed.get()),
                available: MicroUsd::new(available.get()),
                held: MicroUsd::new(held.get()),
            },
            other => Self::Wallet(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_helps_only_where_holds_stand_in_the_way() {
        let short = |needed, available, held| ChatFailure::CannotPay {
            needed: MicroUsd::new(needed),
            available: MicroUsd::new(available),
            held: MicroUsd::new(held),
        };
        assert!(short(10, 4, 6).waits_for_holds());
        assert!(!short(10, 4, 5).waits_for_holds());
        assert!(!short(10, 9, 0).waits_for_holds());
    }
}
