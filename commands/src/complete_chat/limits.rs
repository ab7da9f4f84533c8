//! Where a caller stands with its limits: what an answer's headers say.

use calos_domain::Timestamp;
use calos_domain::api_key::{ApiKey, KeyDenial, KeyLimits};
use calos_domain::licence::Licence;
use calos_domain::wallet::{CallTerms, Caller, WindowStatus};

use super::ChatCaller;
use crate::metadata::Actor;

/// Where a caller stands with its limits once its call was let in, or refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitStatus {
    /// The window of calls that is nearest to being used up; none for a caller without limits.
    pub calls: Option<WindowStatus>,
    /// The licence's tokens; none without a limit.
    pub tokens: Option<TokenStatus>,
    /// As of when.
    pub at: Timestamp,
}

/// Where a licence stands with its tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenStatus {
    /// Tokens one period allows.
    pub limit: u64,
    /// Tokens left in this one, calls in flight not counted yet.
    pub remaining: u64,
    /// When the next period begins.
    pub reset_at: Timestamp,
}

impl TokenStatus {
    /// Where a licence stands at `at`.
    pub(super) fn of(licence: &Licence, at: Timestamp) -> Option<Self> {
        let (limit, period) = (licence.token_limit()?, licence.period_at(at)?);
        Some(Self { limit, remaining: limit.saturating_sub(licence.tokens_used_in(at)), reset_at: period.end })
    }
}

/// Who calls, as far as limits go: the key, or else the person in the session.
pub(super) fn limited(caller: &ChatCaller) -> Option<Caller> {
    match (&caller.key_id, &caller.metadata.actor) {
        (Some(key), _) => Some(Caller::Key(key.clone())),
        (None, Actor::User(user)) => Some(Caller::User(*user)),
        (None, Actor::Key(..) | Actor::System(_) | Actor::Console(_) | Actor::Webhook(_) | Actor::Anonymous) => None,
    }
}

/// What a key is held to, if it still opens anything at `at`.
pub(super) fn terms_of_key(key: &ApiKey, at: Timestamp) -> Result<CallTerms, KeyDenial> {
    let key = key.standing(at)?;
    Ok(CallTerms { limits: Some(key.limits), budgets: key.budgets, line: Some(key.counted_as().clone()) })
}

/// What a person in a session is held to: what every key begins with.
pub(super) fn terms_of_person() -> CallTerms {
    CallTerms { limits: Some(KeyLimits::default()), ..CallTerms::default() }
}
