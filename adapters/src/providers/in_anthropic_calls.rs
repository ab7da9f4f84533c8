//! Calls of tools that are written before it is their turn to be told.

use std::collections::{BTreeMap, BTreeSet};

use calos_commands::provider::ProviderError;

use super::in_anthropic_answer::Call;

/// The most calls of one answer.
const CALLS_MAX: usize = 1_024;

/// How much of calls may wait.
const WAITING_MAX_BYTES: usize = 8 * 1024 * 1024;

/// A call as far as it has come.
#[derive(Default, Debug)]
pub(super) struct WaitingCall {
    pub(super) id: Option<String>,
    pub(super) name: String,
    pub(super) arguments: String,
}

/// The calls that wait, in their order, and those that are over.
#[derive(Default, Debug)]
pub(super) struct WaitingCalls {
    waiting: BTreeMap<u64, WaitingCall>,
    over: BTreeSet<u64>,
    bytes: usize,
}

impl WaitingCalls {
    /// Adds a piece to its call.
    ///
    /// # Errors
    /// `BadAnswer` for more of a call that is over, and for more than may wait.
    pub(super) fn keep(&mut self, provider: &'static str, piece: Call) -> Result<(), ProviderError> {
        let bad = |detail: &str| ProviderError::BadAnswer { provider, detail: detail.to_owned() };
        let function = piece.function.unwrap_or_default();
        let (name, arguments) = (function.name.unwrap_or_default(), function.arguments.unwrap_or_default());
        if self.over.contains(&piece.index) {
            // Some backends close a call with an empty piece.
            return if arguments.trim().is_empty() {
                Ok(())
            } else {
                Err(bad("a call of a tool goes on after its end"))
            };
        }
        self.bytes = self.bytes.saturating_add(name.len()).saturating_add(arguments.len());
        if self.bytes > WAITING_MAX_BYTES || self.waiting.len() + self.over.len() >= CALLS_MAX {
            return Err(bad("more calls of tools than an answer may have"));
        }
        let call = self.waiting.entry(piece.index).or_default();
        call.id = call.id.take().or(piece.id);
        call.name.push_str(&name);
        call.arguments.push_str(&arguments);
        Ok(())
    }

    /// The call of that number, to be told now.
    pub(super) fn take(&mut self, index: u64) -> Option<WaitingCall> {
        let call = self.waiting.remove(&index)?;
        self.bytes = self.bytes.saturating_sub(call.name.len() + call.arguments.len());
        Some(call)
    }

    /// The first of them, to be told now.
    pub(super) fn take_first(&mut self) -> Option<(u64, WaitingCall)> {
        let index = *self.waiting.keys().next()?;
        Some((index, self.take(index)?))
    }

    /// Nothing more of that call may come.
    pub(super) fn end(&mut self, index: u64) {
        self.over.insert(index);
    }
}

#[cfg(test)]
mod tests {
    use super::super::in_anthropic_answer::Function;
    use super::*;

    fn piece(index: u64, arguments: &str) -> Call {
        let function = Some(Function { name: None, arguments: Some(arguments.to_owned()) });
        Call { index, id: None, function }
    }

    #[test]
    fn what_waits_is_bounded_and_leaves_in_its_order() {
        let mut calls = WaitingCalls::default();
        for (index, arguments) in [(2, "c"), (1, "b"), (2, "d")] {
            calls.keep("openai", piece(index, arguments)).unwrap();
        }
        assert!(calls.keep("openai", piece(3, &"x".repeat(WAITING_MAX_BYTES))).is_err());
        assert_eq!(calls.take_first().map(|(index, call)| (index, call.arguments)), Some((1, "b".to_owned())));
        assert_eq!(calls.take(2).map(|call| call.arguments).as_deref(), Some("cd"));
        assert!(calls.take_first().is_none());
    }

    #[test]
    fn a_call_that_is_over_may_only_be_closed_again() {
        let mut calls = WaitingCalls::default();
        calls.end(0);
        calls.keep("openai", piece(0, "")).unwrap();
        assert!(calls.take(0).is_none());
        assert!(matches!(calls.keep("openai", piece(0, "x")), Err(ProviderError::BadAnswer { .. })));
    }
}
