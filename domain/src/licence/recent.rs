//! The last metered uses, so that a repetition is not counted twice.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::UsageId;

/// Uses a licence remembers. Tokens are recorded in the same append as the wallet's settlement, which refuses ids too
/// old to be told apart, so nothing older comes here again.
pub const USAGES_REMEMBERED_MAX_COUNT: usize = 4_096;

/// The last uses and their tokens, oldest first.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
#[serde(into = "Vec<(UsageId, u64)>", from = "Vec<(UsageId, u64)>")]
pub(super) struct Recent {
    order: VecDeque<UsageId>,
    tokens: HashMap<UsageId, u64>,
}

impl Recent {
    pub(super) fn tokens_of(&self, usage_id: UsageId) -> Option<u64> {
        self.tokens.get(&usage_id).copied()
    }

    pub(super) fn remember(&mut self, usage_id: UsageId, tokens: u64) {
        if self.tokens.insert(usage_id, tokens).is_none() {
            self.order.push_back(usage_id);
        }
        while self.order.len() > USAGES_REMEMBERED_MAX_COUNT {
            if let Some(forgotten) = self.order.pop_front() {
                self.tokens.remove(&forgotten);
            }
        }
    }

    /// Roughly the bytes held, without walking anything.
    pub(super) fn weight_bytes(&self) -> usize {
        self.order.len() * (2 * std::mem::size_of::<UsageId>() + 2 * std::mem::size_of::<u64>())
    }
}

impl From<Vec<(UsageId, u64)>> for Recent {
    fn from(pairs: Vec<(UsageId, u64)>) -> Self {
        let mut recent = Self::default();
        for (usage_id, tokens) in pairs {
            recent.remember(usage_id, tokens);
        }
        recent
    }
}

impl From<Recent> for Vec<(UsageId, u64)> {
    fn from(recent: Recent) -> Self {
        let tokens = recent.tokens;
        recent.order.into_iter().map(|id| (id, tokens.get(&id).copied().unwrap_or_default())).collect()
    }
}
