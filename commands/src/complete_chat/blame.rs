//! What a failure tells of whoever was asked, and so what becomes of their circuit.

use super::breaker::Blame;
use super::traffic::Turn;
use crate::provider::{Phase, ProviderError};

/// What is to blame when the failure is the provider's own; none for everything else.
pub(super) const fn blame(error: &ProviderError) -> Option<Blame> {
    match error {
        // A whole answer may be as long as it was asked to be.
        ProviderError::Timeout { phase: Phase::Whole, .. } => None,
        ProviderError::Unreachable { .. } | ProviderError::Timeout { .. } => Some(Blame::Transport),
        ProviderError::Status { status: 502 | 503 | 504 | 529, .. } => Some(Blame::Transport),
        ProviderError::Status { status: 500.., .. } | ProviderError::BadAnswer { .. } => Some(Blame::Answer),
        ProviderError::Status { .. }
        | ProviderError::CircuitOpen { .. }
        | ProviderError::Busy { .. }
        | ProviderError::KeyUnavailable { .. }
        | ProviderError::Unsupported { .. } => None,
    }
}

/// Whether nothing was heard of the provider: what was never sent, or not answered by the time the caller gives an answer
/// as a whole, holds nothing against it and forgives nothing either. A trial that ends so leaves the word to another.
const fn tells_nothing(error: &ProviderError) -> bool {
    matches!(error, ProviderError::Unsupported { .. } | ProviderError::Timeout { phase: Phase::Whole, .. })
}

/// Lets a call's turn count as what it failed with.
pub(super) fn weigh(turn: &mut Turn, error: &ProviderError) {
    match blame(error) {
        Some(blame) => turn.failed(blame),
        None if tells_nothing(error) => {}
        // It has answered, though with a refusal of the caller's own making.
        None => turn.succeeded(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn status(status: u16) -> ProviderError {
        let (provider, message) = ("openai", "x".to_owned());
        ProviderError::Status { provider, status, message, code: None, param: None, retry_after: None }
    }

    #[test]
    fn the_callers_mistakes_are_held_against_nobody() {
        for code in [400, 401, 403, 404, 413, 422] {
            assert!(blame(&status(code)).is_none(), "{code}");
        }
    }

    #[test]
    fn what_a_request_may_have_brought_about_is_told_from_what_it_cannot() {
        let provider = "openai";
        for code in [502, 503, 504, 529] {
            assert_eq!(blame(&status(code)), Some(Blame::Transport), "{code}");
        }
        let limit = Duration::from_secs(1);
        let late = ProviderError::Timeout { provider, phase: Phase::FirstByte, limit };
        let lost = ProviderError::Unreachable { provider, detail: String::new() };
        assert_eq!((blame(&late), blame(&lost)), (Some(Blame::Transport), Some(Blame::Transport)));
        let garbled = ProviderError::BadAnswer { provider, detail: String::new() };
        assert_eq!((blame(&garbled), blame(&status(500))), (Some(Blame::Answer), Some(Blame::Answer)));
    }
}
