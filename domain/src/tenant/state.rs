//! What a decision about a tenant needs to remember.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MemberRole, TenantEvent, TenantRefusal};
use crate::pricing::Provider;
use crate::{KeyId, KeyringEntryId, Timestamp, UserId};

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
    /// The keys it brought, by provider.
    pub provider_keys: BTreeMap<Provider, ProviderKeyRef>,
    /// Its live API keys, each with its end if it has one.
    pub api_keys: BTreeMap<KeyId, Option<Timestamp>>,
}

/// A tenant's own key for a provider, as far as the log knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProviderKeyRef {
    /// Which entry of the keyring holds it.
    pub entry_id: KeyringEntryId,
    /// Its last four characters.
    pub last_four: String,
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

    /// The entry of the keyring that holds the tenant's own key for a provider, if it brought one.
    #[must_use]
    pub fn provider_key(&self, provider: Provider) -> Option<KeyringEntryId> {
        self.provider_keys.get(&provider).map(|key| key.entry_id)
    }

    pub(super) fn live_keys(&self, at: Timestamp) -> usize {
        self.api_keys.values().filter(|ends_at| lives(**ends_at, at)).count()
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
            TenantEvent::TenantRenamed(renamed) => self.name = Some(renamed.name.clone()),
            TenantEvent::ProviderKeyAdded(added) => {
                let key = ProviderKeyRef { entry_id: added.entry_id, last_four: added.last_four.clone() };
                self.provider_keys.insert(added.provider, key);
            }
            TenantEvent::ProviderKeyRemoved(removed) => {
                self.provider_keys.remove(&removed.provider);
            }
            TenantEvent::ApiKeyCounted(counted) => {
                self.api_keys.insert(counted.key_id.clone(), counted.ends_at);
                self.api_keys.retain(|_, ends_at| lives(*ends_at, counted.counted_at));
            }
        }
    }
}

/// Whether a key with this end counts at `at`.
pub(super) fn lives(ends_at: Option<Timestamp>, at: Timestamp) -> bool {
    ends_at.is_none_or(|ends_at| ends_at > at)
}
