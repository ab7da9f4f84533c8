//! What decisions about an adjustment remember.

use serde::{Deserialize, Serialize};

use crate::{Decider, GrantId, Timestamp, UserId};

use super::{AdjustmentCommand, AdjustmentEvent, AdjustmentProposed, AdjustmentRefusal, decide};

/// One adjustment, folded from its events.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Adjustment {
    pub(super) proposed: Option<AdjustmentProposed>,
    /// Who approved it, in order.
    pub(super) approvals: Vec<UserId>,
    pub(super) status: AdjustmentStatus,
}

/// How far an adjustment is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdjustmentStatus {
    /// Waits for approvals.
    #[default]
    Open,
    /// The wallet was put right.
    Applied {
        /// When.
        at: Timestamp,
        /// The grant it became; none where credit was taken.
        grant_id: Option<GrantId>,
    },
    /// It was turned down or withdrawn.
    Rejected {
        /// By whom.
        by: UserId,
        /// When.
        at: Timestamp,
    },
    /// Nobody decided in time.
    Lapsed {
        /// When that was recorded.
        at: Timestamp,
    },
}

impl Decider for Adjustment {
    const KIND: &'static str = "adjustment";
    const SNAPSHOT_VERSION: i32 = 1;

    type Command = AdjustmentCommand;
    type Event = AdjustmentEvent;
    type Refusal = AdjustmentRefusal;

    fn decide(&self, command: AdjustmentCommand) -> Result<Vec<AdjustmentEvent>, AdjustmentRefusal> {
        decide::decide(self, command)
    }

    fn evolve(&mut self, event: &AdjustmentEvent) {
        match event {
            AdjustmentEvent::AdjustmentProposed(proposed) => self.proposed = Some(proposed.clone()),
            AdjustmentEvent::AdjustmentApproved(approved) => self.approvals.push(approved.by),
            AdjustmentEvent::AdjustmentRejected(rejected) => {
                self.status = AdjustmentStatus::Rejected { by: rejected.by, at: rejected.at };
            }
            AdjustmentEvent::AdjustmentApplied(applied) => {
                self.status = AdjustmentStatus::Applied { at: applied.at, grant_id: applied.grant_id };
            }
            AdjustmentEvent::AdjustmentLapsed(lapsed) => self.status = AdjustmentStatus::Lapsed { at: lapsed.at },
        }
    }

    fn weight_bytes(&self) -> usize {
        std::mem::size_of::<Self>()
            + self.proposed.as_ref().map_or(0, |proposed| proposed.evidence.len())
            + self.approvals.len() * std::mem::size_of::<UserId>()
    }
}

/// What others may ask an adjustment's state.
impl Adjustment {
    /// What was proposed; none where nothing was.
    #[must_use]
    pub const fn proposal(&self) -> Option<&AdjustmentProposed> {
        self.proposed.as_ref()
    }

    /// Who approved it so far, in order.
    #[must_use]
    pub fn approvals(&self) -> &[UserId] {
        &self.approvals
    }

    /// How far it is.
    #[must_use]
    pub const fn status(&self) -> AdjustmentStatus {
        self.status
    }

    /// What was proposed, once everybody it takes has approved it and nothing came of it yet.
    #[must_use]
    pub fn ready(&self) -> Option<&AdjustmentProposed> {
        let proposed = self.proposed.as_ref()?;
        let approved = self.approvals.len() >= usize::from(proposed.approvals_needed);
        (approved && self.status == AdjustmentStatus::Open).then_some(proposed)
    }
}
