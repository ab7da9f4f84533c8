//! What a decision about a tenant needs to remember.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MemberRole, TenantEvent, TenantRefusal};
use crate::UserId;

/// A tenant, folded from its events.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tenant {
    /// What people call it; none while it does not exist.
    pub name: Option<String>,
    /// Whether it came with an account.
    pub personal: bool,
    /// Who belongs to it, as what.
    pub members: BTreeMap<UserId, MemberRole>,
    /// Whether a model beyond the tier is refused rather than substituted.
    pub strict_models: bool,
}

impl Tenant {
    /// The role in which a user may act, if it is at least `needs`.
    ///
    /// # Errors
    /// [`TenantRefusal::NotAMember`], also when the tenant does not exist, so that nobody learns which tenants do;
    /// [`TenantRefusal::RoleTooLow`].
    pub fn authorise(&self, user_id: UserId, needs: MemberRole) -> Result<MemberRole, TenantRefusal> {
        let has = *self.members.get(&user_id).ok_or(TenantRefusal::NotAMember)?;
        if has >= needs { Ok(has) } else { Err(TenantRefusal::RoleTooLow { needs, has }) }
    }

    pub(super) fn owners(&self) -> usize {
        self.members.values().filter(|role| **role == MemberRole::Owner).count()
    }

    pub(super) fn fold(&mut self, event: &TenantEvent) {
        match event {
            TenantEvent::TenantCreated(created) => {
                self.name = Some(created.name.clone());
                self.personal = created.personal;
            }
            TenantEvent::MemberAdded(added) => {
                self.members.insert(added.user_id, added.role);
            }
            TenantEvent::MemberRemoved(removed) => {
                self.members.remove(&removed.user_id);
            }
            TenantEvent::StrictModelsSet(set) => self.strict_models = set.strict,
        }
    }
}
