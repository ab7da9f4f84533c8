//! What a decision about a device needs to remember.

use serde::{Deserialize, Serialize};

use super::{DeviceEvent, TrustLevel};
use crate::UserId;
use crate::sealed::Sealed;

/// A device, folded from its events.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Device {
    /// What is known of it; none before its first login.
    pub known: Option<Known>,
    /// How far it is trusted; none for a device nobody has vouched for.
    pub trust: Option<TrustLevel>,
}

/// A device that has signed in at least once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Known {
    /// Whose.
    pub user_id: UserId,
    /// Hex SHA-256 of the random secret the device keeps.
    pub fingerprint: String,
    /// Label `nickname`.
    pub nickname: Sealed,
    /// The platform it says it runs.
    pub platform: String,
}

impl Device {
    pub(super) fn fold(&mut self, event: &DeviceEvent) {
        match event {
            DeviceEvent::DeviceTrusted(trusted) => {
                self.known = Some(Known {
                    user_id: trusted.user_id,
                    fingerprint: trusted.fingerprint.clone(),
                    nickname: trusted.nickname.clone(),
                    platform: trusted.platform.clone(),
                });
                self.trust = Some(trusted.trust_level);
            }
            DeviceEvent::DeviceSeen(seen) => {
                self.known = Some(Known {
                    user_id: seen.user_id,
                    fingerprint: seen.fingerprint.clone(),
                    nickname: seen.nickname.clone(),
                    platform: seen.platform.clone(),
                });
            }
            DeviceEvent::DeviceRevoked(_) => self.trust = None,
        }
    }
}
