//! What a decision about a claim needs to remember.

use serde::{Deserialize, Serialize};

use super::EmailClaimEvent;
use crate::UserId;

/// Who holds one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EmailClaim {
    /// The holder, while there is one.
    pub holder: Option<UserId>,
}

impl EmailClaim {
    pub(super) fn fold(&mut self, event: &EmailClaimEvent) {
        match event {
            EmailClaimEvent::EmailClaimed(claimed) => self.holder = Some(claimed.user_id),
            EmailClaimEvent::EmailReleased(_) => self.holder = None,
        }
    }
}
