//! What a decision about a session needs to remember.

use serde::{Deserialize, Serialize};

use super::{SessionEndCause, SessionEvent, SessionRefusal};
use crate::{DeviceId, SessionId, TenantId, Timestamp, UserId};

/// A session, folded from its events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Session {
    /// How it started; none while it has not.
    pub started: Option<Started>,
    /// Why it ended before its time, once it has.
    pub ended: Option<SessionEndCause>,
}

/// What stands fixed from a session's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Started {
    /// The session.
    pub session_id: SessionId,
    /// Who.
    pub user_id: UserId,
    /// For which tenant.
    pub tenant_id: TenantId,
    /// On which device.
    pub device_id: DeviceId,
    /// When.
    pub started_at: Timestamp,
    /// Until when, at the latest.
    pub expires_at: Timestamp,
}

impl Session {
    /// The session's facts, if it still stands at `now`.
    ///
    /// # Errors
    /// [`SessionRefusal::NotStarted`], [`SessionRefusal::Ended`] or [`SessionRefusal::Expired`].
    pub fn standing(&self, now: Timestamp) -> Result<Started, SessionRefusal> {
        let started = self.started.ok_or(SessionRefusal::NotStarted)?;
        if let Some(cause) = self.ended {
            return Err(SessionRefusal::Ended { cause });
        }
        if now >= started.expires_at {
            return Err(SessionRefusal::Expired { expired_at: started.expires_at });
        }
        Ok(started)
    }

    pub(super) fn fold(&mut self, event: &SessionEvent) {
        match event {
            SessionEvent::SessionStarted(started) => {
                self.started = Some(Started {
                    session_id: started.session_id,
                    user_id: started.user_id,
                    tenant_id: started.tenant_id,
                    device_id: started.device_id,
                    started_at: started.started_at,
                    expires_at: started.expires_at,
                });
            }
            SessionEvent::SessionEnded(ended) => self.ended = Some(ended.cause),
        }
    }
}
