//! Which events a command on a device leads to.

use super::{Device, DeviceEvent, DeviceRevoked, DeviceSeen, DeviceTrusted, TrustLevel};
use crate::{Decider, DeviceId, Timestamp};

/// What can be asked of a device.
#[derive(Clone, PartialEq, Debug)]
pub enum DeviceCommand {
    /// Let it act for its user.
    Trust(DeviceTrusted),
    /// Record that the right password came from it. A device that is known already stays as it is.
    See(DeviceSeen),
    /// Let it act for its user no more. One that is not trusted stays as it is.
    Revoke {
        /// The device.
        device_id: DeviceId,
        /// When.
        at: Timestamp,
    },
}

/// Why a device refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeviceRefusal {
    /// The id belongs to another device.
    #[error("this device id belongs to a device with another fingerprint")]
    AnotherDevice,
    /// It is trusted at another level already.
    #[error("this device is trusted at level {level:?} already")]
    AlreadyTrusted {
        /// The level it has.
        level: TrustLevel,
    },
}

impl Decider for Device {
    const KIND: &'static str = "device";
    const SNAPSHOT_VERSION: i32 = 1;
    type Command = DeviceCommand;
    type Event = DeviceEvent;
    type Refusal = DeviceRefusal;

    fn decide(&self, command: DeviceCommand) -> Result<Vec<DeviceEvent>, DeviceRefusal> {
        let (user_id, fingerprint) = match &command {
            DeviceCommand::Trust(trusted) => (trusted.user_id, &trusted.fingerprint),
            DeviceCommand::See(seen) => (seen.user_id, &seen.fingerprint),
            DeviceCommand::Revoke { device_id, at } => {
                let revoked = DeviceRevoked { device_id: *device_id, revoked_at: *at };
                return Ok(self.trust.map(|_| DeviceEvent::DeviceRevoked(revoked)).into_iter().collect());
            }
        };
        let same = |known: &super::Known| known.user_id == user_id && known.fingerprint == *fingerprint;
        if self.known.as_ref().is_some_and(|known| !same(known)) {
            return Err(DeviceRefusal::AnotherDevice);
        }
        match (command, self.trust) {
            (DeviceCommand::Trust(trusted), None) => Ok(vec![DeviceEvent::DeviceTrusted(trusted)]),
            (DeviceCommand::Trust(trusted), Some(level)) if trusted.trust_level == level => Ok(Vec::new()),
            (DeviceCommand::Trust(_), Some(level)) => Err(DeviceRefusal::AlreadyTrusted { level }),
            (DeviceCommand::See(_), _) if self.known.is_some() => Ok(Vec::new()),
            (DeviceCommand::See(seen), _) => Ok(vec![DeviceEvent::DeviceSeen(seen)]),
            (DeviceCommand::Revoke { .. }, _) => Ok(Vec::new()),
        }
    }

    fn evolve(&mut self, event: &DeviceEvent) {
        self.fold(event);
    }

    fn weight_bytes(&self) -> usize {
        let known = self
            .known
            .as_ref()
            .map_or(0, |known| known.fingerprint.len() + known.nickname.ciphertext.len() + known.platform.len());
        std::mem::size_of::<Self>() + known
    }
}
