//! What the simulated providers gave out, so that a bill can be compared with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::Stage;

/// What one model gave out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Calls that were accepted.
    pub calls: u64,
    /// Of them, those answered to the end.
    pub completed: u64,
    /// Of them, those broken off: by the caller, or by a switch.
    pub broken_off: u64,
    /// Tokens read, of all accepted calls.
    pub prompt_tokens: u64,
    /// Tokens written, of all accepted calls, broken off or not.
    pub completion_tokens: u64,
}

/// The tallies by `provider/model`.
#[derive(Debug, Default)]
pub(crate) struct Produced(Mutex<BTreeMap<String, Tally>>);

impl Produced {
    pub(crate) fn tallies(&self) -> BTreeMap<String, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn add(&self, name: &str, tally: Tally) {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = tallies.entry(name.to_owned()).or_default();
        sum.calls += tally.calls;
        sum.completed += tally.completed;
        sum.broken_off += tally.broken_off;
        sum.prompt_tokens += tally.prompt_tokens;
        sum.completion_tokens += tally.completion_tokens;
    }
}

/// One call on its way; counted when it ends, however it ends.
#[derive(Debug)]
pub(crate) struct Counted {
    stage: Arc<Stage>,
    name: String,
    prompt_tokens: u64,
    completion_tokens: u64,
    completed: bool,
}

impl Counted {
    pub(crate) fn new(stage: &Arc<Stage>, provider: &str, model: &str, prompt_tokens: u64) -> Self {
        let name = format!("{provider}/{model}");
        Self { stage: Arc::clone(stage), name, prompt_tokens, completion_tokens: 0, completed: false }
    }

    pub(crate) fn wrote(&mut self, tokens: u64) {
        self.completion_tokens += tokens;
    }

    pub(crate) fn complete(&mut self) {
        self.completed = true;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let tally = Tally {
            calls: 1,
            completed: u64::from(self.completed),
            broken_off: u64::from(!self.completed),
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
        };
        self.stage.produced.add(&self.name, tally);
    }
}
