//! Whose key each call to a simulated provider came with, and how a provider speaks of keys.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, header};

use super::switches::Switches;

/// The end of a key, by which it is told from others.
const ENDING_CHARACTERS: usize = 4;

/// Calls by the last four characters of the key they came with.
#[derive(Debug, Default)]
pub(crate) struct Accounts(Mutex<BTreeMap<String, u64>>);

impl Accounts {
    pub(crate) fn calls(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn count(&self, key: &str) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.entry(ending(key).to_owned()).or_default() += 1;
    }
}

fn ending(key: &str) -> &str {
    key.char_indices().rev().nth(ENDING_CHARACTERS - 1).map_or(key, |(start, _)| &key[start..])
}

/// The key a call came with, as OpenAI and DeepSeek take it.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    bearer.strip_prefix("Bearer ").map(str::trim).filter(|key| !key.is_empty())
}

impl Switches {
    /// Whether a key is to be refused.
    pub(crate) fn rejects(&self, key: &str) -> bool {
        self.rejected_key_ending.as_deref().is_some_and(|ending| key.ends_with(ending))
    }

    /// What is added to an error's message: the key, as careless providers do, if the switch says so.
    pub(crate) fn echo(&self, key: &str) -> String {
        if self.echo_key { format!(" Your key is {key}.") } else { String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_and_refused_by_their_end() {
        let accounts = Accounts::default();
        for key in ["sk-one-wxyz", "sk-two-wxyz", "ab"] {
            accounts.count(key);
        }
        assert_eq!(accounts.calls(), BTreeMap::from([("wxyz".to_owned(), 2), ("ab".to_owned(), 1)]));
        let switches = Switches { rejected_key_ending: Some("wxyz".to_owned()), ..Switches::default() };
        assert!(switches.rejects("sk-one-wxyz") && !switches.rejects("sk-one-wxyw"));
        assert!(!Switches::default().rejects("sk-one-wxyz"));
    }
}
