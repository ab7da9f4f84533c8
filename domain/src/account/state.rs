//! What a decision about an account needs to remember.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{AccountEvent, StaffRole};
use crate::sealed::Sealed;
use crate::{TenantId, Timestamp, UserId};

/// An account, folded from its events.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Account {
    /// Who it is; none while nobody has registered under this id, and none once they were erased.
    pub profile: Option<Profile>,
    /// What they may do for CALOS itself.
    pub staff_roles: BTreeSet<StaffRole>,
    /// The tenants they created beside their personal one.
    pub founded: BTreeSet<TenantId>,
    /// That they were erased, once they were.
    pub erased: Option<Erased>,
}

/// What is left of somebody who was erased.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Erased {
    /// When.
    pub erased_at: Timestamp,
    /// The tenant created with the account: its books outlive the person.
    pub personal_tenant_id: Option<TenantId>,
}

/// A registered person. Everything personal is sealed under their own key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// The person.
    pub user_id: UserId,
    /// Label `email`.
    pub email: Sealed,
    /// The email claim this account holds.
    pub email_hash: String,
    /// Label `display_name`.
    pub display_name: Option<Sealed>,
    /// Label `password_hash`.
    pub password_hash: Sealed,
    /// The tenant created with the account.
    pub personal_tenant_id: TenantId,
}

impl Account {
    pub(super) fn fold(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::AccountRegistered(registered) => {
                self.profile = Some(Profile {
                    user_id: registered.user_id,
                    email: registered.email.clone(),
                    email_hash: registered.email_hash.clone(),
                    display_name: registered.display_name.clone(),
                    password_hash: registered.password_hash.clone(),
                    personal_tenant_id: registered.personal_tenant_id,
                });
            }
            AccountEvent::PasswordChanged(changed) => {
                if let Some(profile) = &mut self.profile {
                    profile.password_hash = changed.password_hash.clone();
                }
            }
            AccountEvent::StaffRoleGranted(granted) => {
                self.staff_roles.insert(granted.role);
            }
            AccountEvent::StaffRoleRevoked(revoked) => {
                self.staff_roles.remove(&revoked.role);
            }
            AccountEvent::TenantFounded(founded) => {
                self.founded.insert(founded.tenant_id);
            }
            AccountEvent::AccountErased(erased) => {
                let personal_tenant_id = self.profile.take().map(|profile| profile.personal_tenant_id);
                self.erased = Some(Erased { erased_at: erased.erased_at, personal_tenant_id });
                self.staff_roles.clear();
            }
        }
    }
}
