//! What can happen to a person's account.

use serde::{Deserialize, Serialize};

use crate::sealed::Sealed;
use crate::{OperationId, SubjectId, TenantId, Timestamp, UserId};

/// Everything that changes an account. Stored as `{"<name>": {…}}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountEvent {
    /// Somebody signed up.
    AccountRegistered(AccountRegistered),
    /// The password is another one now.
    PasswordChanged(PasswordChanged),
    /// The person works for CALOS in this role.
    StaffRoleGranted(StaffRoleGranted),
    /// The person no longer works for CALOS in this role.
    StaffRoleRevoked(StaffRoleRevoked),
    /// The person created a tenant beside their personal one; written beside what the tenant begins with.
    TenantFounded(TenantFounded),
    /// The person was erased: the account is closed for ever, and their data key is destroyed.
    AccountErased(AccountErased),
}

crate::facts!(AccountEvent {
    AccountRegistered => "account_registered" v "1",
    PasswordChanged => "password_changed" v "1",
    StaffRoleGranted => "staff_role_granted" v "1",
    StaffRoleRevoked => "staff_role_revoked" v "1",
    TenantFounded => "tenant_founded" v "1",
    AccountErased => "account_erased" v "1",
});

/// What somebody may do for CALOS itself, beside what their tenants allow them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StaffRole {
    /// Watches the system, replays projections.
    Operator,
    /// Audits ledgers, closes months.
    Finance,
    /// Decides on reported posts.
    Moderator,
}

/// See [`AccountEvent::AccountRegistered`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccountRegistered {
    /// The person.
    pub user_id: UserId,
    /// The address as typed, label `email`, under the user's key.
    pub email: Sealed,
    /// The email claim this account holds: the hex keyed hash that names the claim's stream.
    pub email_hash: String,
    /// What they want to be called, label `display_name`, under the user's key; absent when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Sealed>,
    /// The bcrypt hash, label `password_hash`, under the user's key.
    pub password_hash: Sealed,
    /// The tenant created with the account.
    pub personal_tenant_id: TenantId,
    /// Whose referral code was given, when one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referred_by: Option<UserId>,
    /// When.
    pub registered_at: Timestamp,
}

/// See [`AccountEvent::PasswordChanged`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PasswordChanged {
    /// The bcrypt hash, label `password_hash`, under the user's key.
    pub password_hash: Sealed,
    /// When.
    pub changed_at: Timestamp,
}

/// See [`AccountEvent::StaffRoleGranted`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StaffRoleGranted {
    /// Which role.
    pub role: StaffRole,
    /// When.
    pub granted_at: Timestamp,
}

/// See [`AccountEvent::StaffRoleRevoked`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StaffRoleRevoked {
    /// Which role.
    pub role: StaffRole,
    /// When.
    pub revoked_at: Timestamp,
}

/// See [`AccountEvent::TenantFounded`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TenantFounded {
    /// The tenant.
    pub tenant_id: TenantId,
    /// When.
    pub founded_at: Timestamp,
}

/// See [`AccountEvent::AccountErased`]. Who erased them, and why, is a fact of the operation, in the same append.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccountErased {
    /// Whose key is destroyed.
    pub subject: SubjectId,
    /// The run that did it.
    pub operation_id: OperationId,
    /// When.
    pub erased_at: Timestamp,
}
