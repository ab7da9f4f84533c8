//! Why a chat call has no answer.

use calos_domain::api_key::KeyDenial;
use calos_domain::licence::LicenceRefusal;
use calos_domain::pricing::PriceRefusal;
use calos_domain::routing::RouteRefusal;
use calos_domain::routing::task::shown_model;
use calos_domain::wallet::{BudgetPeriod, FailedAttempt, WalletRefusal};
use calos_domain::{MicroUsd, Timestamp};

use super::ChatCall;
use super::admit::Candidate;
use super::attempts::in_vain;
use super::limits::LimitStatus;
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
    /// The caller has called too often; a call that is not let in counts for nothing.
    #[error("{}", too_often(.0))]
    RateLimited(LimitStatus),
    /// The key's budget cannot carry the worst case.
    #[error(
        "this call needs {needed} micro-dollars at most; of the key's {budget} a {} {spent} are spent and {held} held",
        period.as_str()
    )]
    BudgetExceeded {
        /// Which budget.
        period: BudgetPeriod,
        /// How much it is.
        budget: MicroUsd,
        /// What the key's calls have cost in the period.
        spent: MicroUsd,
        /// What its calls in flight keep.
        held: MicroUsd,
        /// What the worst case costs.
        needed: MicroUsd,
        /// When the next period begins.
        ends_at: Timestamp,
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
    /// The provider refused, or broke off, a call with the tenant's own key: its words are about the tenant's account.
    #[error("with the tenant's own key: {0}")]
    OwnAccount(ProviderError),
    /// Nobody of the chain gave an answer.
    #[error("nobody answered: {}; the last: {last}", in_words(tried))]
    NobodyAnswered {
        /// Who was asked, repetitions included, in order; never empty.
        tried: Vec<FailedAttempt>,
        /// What the last one's failure means.
        last: Box<ChatFailure>,
    },
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
            Self::BudgetExceeded { budget, spent, needed, .. } => {
                spent.get().saturating_add(needed.get()) <= budget.get()
            }
            Self::Wallet(WalletRefusal::TooManyHolds { .. }) => true,
            Self::Key(_)
            | Self::ModelNotAllowed { .. }
            | Self::Licence(_)
            | Self::Route(_)
            | Self::Price(_)
            | Self::RateLimited(_)
            | Self::Wallet(_)
            | Self::Log(_)
            | Self::Provider(_)
            | Self::OwnAccount(_)
            | Self::NobodyAnswered { .. }
            | Self::Lost(_) => false,
        }
    }
}

impl ChatFailure {
    /// What a candidate's failure means: whose account the provider's words are about.
    pub(super) fn of(used: &Candidate, error: ProviderError) -> Self {
        if used.own_key.is_some() { Self::OwnAccount(error) } else { Self::Provider(error) }
    }
}

impl ChatFailure {
    /// What the end of a chain means, for a call that tells what was tried, or whose client named none of the models.
    pub(super) fn of_chain(
        call: &ChatCall,
        used: &Candidate,
        mut tried: Vec<FailedAttempt>,
        error: ProviderError,
    ) -> Self {
        tried.push(in_vain(used, &error));
        let last = Self::of(used, error);
        if !call.routing.has_fallbacks() && tried.iter().all(|attempt| attempt.model == used.route.model) {
            return last;
        }
        for attempt in &mut tried {
            attempt.model = shown_model(&attempt.model).to_owned();
        }
        Self::NobodyAnswered { tried, last: Box::new(last) }
    }
}

fn in_words(tried: &[FailedAttempt]) -> String {
    let attempts: Vec<_> = tried.iter().map(|attempt| (&attempt.provider, &attempt.model, &attempt.failure)).collect();
    let words = attempts.iter().enumerate().filter(|(place, attempt)| *place == 0 || attempts[place - 1] != **attempt);
    let words = words.map(|(_, (provider, model, failure))| format!("{provider} {model} ({failure})"));
    words.collect::<Vec<_>>().join(", ")
}

fn too_often(status: &LimitStatus) -> String {
    match status.calls {
        Some(calls) => format!(
            "rate limit reached: {} calls a {} are allowed and {} were made",
            calls.limit,
            calls.window.as_str(),
            calls.used
        ),
        None => "rate limit reached".to_owned(),
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
            WalletRefusal::BudgetExceeded { period, budget, spent, held, needed, ends_at } => {
                Self::BudgetExceeded { period, budget, spent, held, needed, ends_at }
            }
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
        let budget = |spent, held| ChatFailure::BudgetExceeded {
            period: BudgetPeriod::Day,
            budget: MicroUsd::new(10),
            spent: MicroUsd::new(spent),
            held: MicroUsd::new(held),
            needed: MicroUsd::new(4),
            ends_at: Timestamp::default(),
        };
        assert!(budget(6, 1).waits_for_holds());
        assert!(!budget(7, 0).waits_for_holds());
    }
}
