//! What can happen to one browser or phone of a user.

use serde::{Deserialize, Serialize};

use crate::sealed::Sealed;
use crate::{DeviceId, Timestamp, UserId};

/// Everything that changes a device. Stored as `{"<name>": {…}}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceEvent {
    /// The device may act for its user.
    DeviceTrusted(DeviceTrusted),
    /// The right password came from a device nobody has vouched for yet.
    DeviceSeen(DeviceSeen),
    /// The device may act for its user no more.
    DeviceRevoked(DeviceRevoked),
}

crate::facts!(DeviceEvent {
    DeviceTrusted => "device_trusted" v "1",
    DeviceSeen => "device_seen" v "1",
    DeviceRevoked => "device_revoked" v "1",
});

/// How far a device is trusted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustLevel {
    /// Medium: its user proved a password on it.
    Password,
    /// High: its user proved a passkey on it.
    Biometric,
}

/// How a device came to be trusted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustPath {
    /// The account was registered on it.
    Registration,
    /// A trusted device let it in.
    Pairing,
    /// A passkey was used on it.
    Passkey,
    /// A code sent to the user's verified phone was typed on it.
    Phone,
}

/// See [`DeviceEvent::DeviceTrusted`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceTrusted {
    /// The device.
    pub device_id: DeviceId,
    /// Whose.
    pub user_id: UserId,
    /// Hex SHA-256 of the random secret the device keeps.
    pub fingerprint: String,
    /// What its user calls it, label `nickname`, under the user's key.
    pub nickname: Sealed,
    /// `iOS`, `Android`, `macOS`, `Windows`, `Linux` or `unknown`.
    pub platform: String,
    /// How far.
    pub trust_level: TrustLevel,
    /// By what.
    pub path: TrustPath,
    /// When.
    pub trusted_at: Timestamp,
}

/// See [`DeviceEvent::DeviceSeen`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceSeen {
    /// The device.
    pub device_id: DeviceId,
    /// Whose password was right.
    pub user_id: UserId,
    /// Hex SHA-256 of the random secret the device keeps.
    pub fingerprint: String,
    /// A first name for it, label `nickname`, under the user's key.
    pub nickname: Sealed,
    /// `iOS`, `Android`, `macOS`, `Windows`, `Linux` or `unknown`.
    pub platform: String,
    /// When first.
    pub seen_at: Timestamp,
}

/// See [`DeviceEvent::DeviceRevoked`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceRevoked {
    /// The device.
    pub device_id: DeviceId,
    /// When.
    pub revoked_at: Timestamp,
}
