//! Which events a command on a claim leads to.

use super::{EmailClaim, EmailClaimEvent, EmailClaimed, EmailReleased};
use crate::{Decider, Timestamp, UserId};

/// What can be asked of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EmailClaimCommand {
    /// Hold the address.
    Claim {
        /// For whom.
        user_id: UserId,
        /// When.
        at: Timestamp,
    },
    /// Let it go.
    Release {
        /// Who lets go.
        user_id: UserId,
        /// When.
        at: Timestamp,
    },
}

/// Why a claim refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EmailClaimRefusal {
    /// Somebody else holds the address.
    #[error("this email address belongs to an account already; sign in instead")]
    Taken,
    /// Somebody else holds the address, so this user cannot let it go.
    #[error("this email address belongs to another account")]
    NotTheHolder,
}

impl Decider for EmailClaim {
    const KIND: &'static str = "email_claim";
    const SNAPSHOT_VERSION: i32 = 1;
    type Command = EmailClaimCommand;
    type Event = EmailClaimEvent;
    type Refusal = EmailClaimRefusal;

    fn decide(&self, command: EmailClaimCommand) -> Result<Vec<EmailClaimEvent>, EmailClaimRefusal> {
        match (command, self.holder) {
            (EmailClaimCommand::Claim { user_id, at }, None) => {
                Ok(vec![EmailClaimEvent::EmailClaimed(EmailClaimed { user_id, claimed_at: at })])
            }
            (EmailClaimCommand::Claim { user_id, .. }, Some(holder)) if holder == user_id => Ok(Vec::new()),
            (EmailClaimCommand::Claim { .. }, Some(_)) => Err(EmailClaimRefusal::Taken),
            (EmailClaimCommand::Release { .. }, None) => Ok(Vec::new()),
            (EmailClaimCommand::Release { user_id, at }, Some(holder)) if holder == user_id => {
                Ok(vec![EmailClaimEvent::EmailReleased(EmailReleased { user_id, released_at: at })])
            }
            (EmailClaimCommand::Release { .. }, Some(_)) => Err(EmailClaimRefusal::NotTheHolder),
        }
    }

    fn evolve(&mut self, event: &EmailClaimEvent) {
        self.fold(event);
    }
}
