//! What can happen to a tenant: whoever pays.

use serde::{Deserialize, Serialize};

use crate::pricing::Provider;
use crate::{KeyId, KeyringEntryId, TenantId, Timestamp, UserId};

/// Everything that changes a tenant. Stored as `{"<name>": {…}}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantEvent {
    /// The tenant exists; its owner joins by the `member_added` that follows at once.
    TenantCreated(TenantCreated),
    /// Somebody belongs to it, or now belongs to it in another role.
    MemberAdded(MemberAdded),
    /// Somebody no longer belongs to it.
    MemberRemoved(MemberRemoved),
    /// Whether a model beyond the tier is refused rather than substituted.
    StrictModelsSet(StrictModelsSet),
    /// People call it something else from now on.
    TenantRenamed(TenantRenamed),
    /// The tenant brought a key of its own for a provider; it takes the place of one it brought before.
    ProviderKeyAdded(ProviderKeyAdded),
    /// The tenant's own key for a provider is used no more.
    ProviderKeyRemoved(ProviderKeyRemoved),
    /// One of its API keys counts as live until another moment than before; written beside what happened to the key.
    ApiKeyCounted(ApiKeyCounted),
}

crate::facts!(TenantEvent {
    TenantCreated => "tenant_created" v "1",
    MemberAdded => "member_added" v "1",
    MemberRemoved => "member_removed" v "1",
    StrictModelsSet => "strict_models_set" v "1",
    TenantRenamed => "tenant_renamed" v "1",
    ProviderKeyAdded => "provider_key_added" v "1",
    ProviderKeyRemoved => "provider_key_removed" v "1",
    ApiKeyCounted => "api_key_counted" v "1",
});

/// What a member may do for the tenant. Later ones may do everything earlier ones may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// Spends its credit, reads its figures.
    Member,
    /// Issues and revokes keys, changes settings, adds and removes members.
    Admin,
    /// The last one cannot leave.
    Owner,
}

/// See [`TenantEvent::TenantCreated`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TenantCreated {
    /// The tenant.
    pub tenant_id: TenantId,
    /// What people call it. A personal tenant is called `Personal`, so that no person's name stands here.
    pub name: String,
    /// Whether it came with an account.
    pub personal: bool,
    /// Who created it.
    pub owner: UserId,
    /// When.
    pub created_at: Timestamp,
}

/// See [`TenantEvent::MemberAdded`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberAdded {
    /// Who.
    pub user_id: UserId,
    /// As what.
    pub role: MemberRole,
    /// When.
    pub added_at: Timestamp,
}

/// See [`TenantEvent::MemberRemoved`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberRemoved {
    /// Who.
    pub user_id: UserId,
    /// When.
    pub removed_at: Timestamp,
}

/// See [`TenantEvent::StrictModelsSet`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StrictModelsSet {
    /// Refuse with 403 instead of answering with the tier's model.
    pub strict: bool,
    /// When.
    pub set_at: Timestamp,
}

/// See [`TenantEvent::TenantRenamed`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TenantRenamed {
    /// What people call it now.
    pub name: String,
    /// Who said so.
    pub renamed_by: UserId,
    /// When.
    pub renamed_at: Timestamp,
}

/// See [`TenantEvent::ProviderKeyAdded`]. The key itself stands in the keyring, sealed, and in no event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProviderKeyAdded {
    /// Whose account it opens.
    pub provider: Provider,
    /// Which entry of the keyring holds it.
    pub entry_id: KeyringEntryId,
    /// Its last four characters, so that people can tell their keys apart.
    pub last_four: String,
    /// Who added it.
    pub added_by: UserId,
    /// When.
    pub added_at: Timestamp,
}

/// See [`TenantEvent::ProviderKeyRemoved`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProviderKeyRemoved {
    /// Whose account it opened.
    pub provider: Provider,
    /// Which entry of the keyring is to go.
    pub entry_id: KeyringEntryId,
    /// Who removed it.
    pub removed_by: UserId,
    /// When.
    pub removed_at: Timestamp,
}

/// See [`TenantEvent::ApiKeyCounted`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApiKeyCounted {
    /// Which key.
    pub key_id: KeyId,
    /// Until when it counts; none for as long as nobody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// When this was decided.
    pub counted_at: Timestamp,
}
