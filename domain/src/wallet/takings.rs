//! The adjustments that took credit of late, so that none of them takes twice.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::AdjustmentId;

use super::uses::id_millis;
use super::{CreditsTaken, prints};

/// Takings a wallet remembers. An adjustment whose millisecond is at or before the newest forgotten one is refused.
pub const TAKINGS_REMEMBERED_MAX_COUNT: usize = 1_024;

/// The last takings, oldest first, each with the fingerprint of its content.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub(super) struct Takings {
    #[serde(rename = "l")]
    last: VecDeque<(AdjustmentId, u64)>,
    /// The newest millisecond among forgotten ids.
    #[serde(rename = "f")]
    forgotten_ms: u64,
}

impl Takings {
    /// The content of what this adjustment took, as long as it is remembered.
    pub(super) fn get(&self, adjustment_id: AdjustmentId) -> Option<u64> {
        self.last.iter().find(|(id, _)| *id == adjustment_id).map(|(_, print)| *print)
    }

    pub(super) const fn forgotten_ms(&self) -> u64 {
        self.forgotten_ms
    }

    pub(super) fn remember(&mut self, taken: &CreditsTaken) {
        let print = prints::of_taking(taken.asset, taken.amount, taken.reason, taken.effective_at);
        self.last.push_back((taken.adjustment_id, print));
        while self.last.len() > TAKINGS_REMEMBERED_MAX_COUNT {
            if let Some((forgotten, _)) = self.last.pop_front() {
                self.forgotten_ms = self.forgotten_ms.max(id_millis(forgotten.0));
            }
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        self.last.len() * std::mem::size_of::<(AdjustmentId, u64)>()
    }
}
