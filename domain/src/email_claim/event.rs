//! What can happen to the claim on one email address.

use serde::{Deserialize, Serialize};

use crate::{Timestamp, UserId};

/// Everything that changes who holds an address. Stored as `{"<name>": {…}}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmailClaimEvent {
    /// An account holds the address.
    EmailClaimed(EmailClaimed),
    /// Nobody holds it any more.
    EmailReleased(EmailReleased),
}

crate::facts!(EmailClaimEvent {
    EmailClaimed => "email_claimed" v "1",
    EmailReleased => "email_released" v "1",
});

/// See [`EmailClaimEvent::EmailClaimed`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EmailClaimed {
    /// Whose address it is.
    pub user_id: UserId,
    /// When.
    pub claimed_at: Timestamp,
}

/// See [`EmailClaimEvent::EmailReleased`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EmailReleased {
    /// Whose address it was.
    pub user_id: UserId,
    /// When.
    pub released_at: Timestamp,
}
