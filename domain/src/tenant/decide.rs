//! Which events a command on a tenant leads to.

use super::state::lives;
use super::{
    ApiKeyCounted, MemberAdded, MemberRemoved, MemberRole, ProviderKeyAdded, ProviderKeyRemoved, StrictModelsSet,
    Tenant, TenantCreated, TenantEvent, TenantRenamed,
};
use crate::pricing::Provider;
use crate::{Decider, KeyId, Timestamp, UserId};

/// The longest name of a tenant, in characters.
pub const TENANT_NAME_MAX_CHARACTERS: usize = 200;

/// The most members a tenant may have.
pub const MEMBERS_MAX: usize = 1_000;

/// The most live API keys a tenant may have.
pub const API_KEYS_LIVE_MAX: usize = 1_000;

/// The most characters of a provider's key that are shown and recorded.
pub const LAST_CHARACTERS_MAX: usize = 4;

/// What can be asked of a tenant. Who may ask is checked with [`Tenant::authorise`] before.
#[derive(Clone, PartialEq, Debug)]
pub enum TenantCommand {
    /// Create it; its creator becomes its owner.
    Create(TenantCreated),
    /// Let somebody in, or give them another role.
    AddMember {
        /// Who.
        user_id: UserId,
        /// As what.
        role: MemberRole,
        /// When.
        at: Timestamp,
    },
    /// Let somebody go.
    RemoveMember {
        /// Who.
        user_id: UserId,
        /// When.
        at: Timestamp,
    },
    /// Refuse models beyond the tier, or substitute them.
    SetStrictModels {
        /// Refuse.
        strict: bool,
        /// When.
        at: Timestamp,
    },
    /// Call it something else.
    Rename(TenantRenamed),
    /// Use the tenant's own key for a provider. The provider has taken it and the keyring holds it by then.
    AddProviderKey(ProviderKeyAdded),
    /// Count one of its API keys as live until `ends_at`; a moment that has come means it is live no more.
    CountApiKey {
        /// Which.
        key_id: KeyId,
        /// Until when; none for as long as nobody ends it.
        ends_at: Option<Timestamp>,
        /// When.
        at: Timestamp,
    },
    /// Use it no more.
    RemoveProviderKey {
        /// Whose account it opens.
        provider: Provider,
        /// Who says so.
        by: UserId,
        /// When.
        at: Timestamp,
    },
}

/// Why a tenant refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TenantRefusal {
    /// The id belongs to another tenant.
    #[error("this tenant exists already")]
    AlreadyCreated,
    /// There is no such tenant.
    #[error("there is no such tenant")]
    NotCreated,
    /// The name is empty or too long.
    #[error("a tenant's name has 1 to {TENANT_NAME_MAX_CHARACTERS} characters, this one has {characters}")]
    NameLength {
        /// How long it is.
        characters: usize,
    },
    /// The log keeps names for ever, and a personal tenant's would be a person's.
    #[error("a tenant that came with an account keeps its name; create another tenant to give it one")]
    PersonalKeepsName,
    /// The user does not belong to the tenant, or there is none.
    #[error("there is no such tenant among yours")]
    NotAMember,
    /// The user belongs to the tenant, but may not do this.
    #[error("this needs the role {needs:?}, yours is {has:?}")]
    RoleTooLow {
        /// What it takes.
        needs: MemberRole,
        /// What they have.
        has: MemberRole,
    },
    /// Somebody must stay responsible.
    #[error("the last owner cannot leave or step down; make somebody else an owner first")]
    LastOwner,
    /// The tenant is full.
    #[error("a tenant has {MEMBERS_MAX} members at most")]
    TooManyMembers,
    /// It has as many live keys as a tenant may have.
    #[error("a tenant has {API_KEYS_LIVE_MAX} live API keys at most; revoke one that is not needed")]
    TooManyApiKeys,
    /// The provider runs on the platform's own machines.
    #[error("{provider} takes no key of your own; bring one for openai, anthropic or deepseek")]
    TakesNoKey {
        /// Which.
        provider: Provider,
    },
    /// There is no key to remove.
    #[error("this tenant has no key of its own for {provider}")]
    NoProviderKey {
        /// Which.
        provider: Provider,
    },
}

/// Whether a tenant can bring a key of its own for a provider: the platform's own Ollama has no accounts.
///
/// # Errors
/// [`TenantRefusal::TakesNoKey`].
pub const fn takes_own_key(provider: Provider) -> Result<(), TenantRefusal> {
    match provider {
        Provider::OpenAi | Provider::Anthropic | Provider::DeepSeek => Ok(()),
        Provider::Ollama => Err(TenantRefusal::TakesNoKey { provider }),
    }
}

fn check_name(name: &str) -> Result<(), TenantRefusal> {
    let characters = name.chars().count();
    if name.trim().is_empty() || characters > TENANT_NAME_MAX_CHARACTERS {
        return Err(TenantRefusal::NameLength { characters });
    }
    Ok(())
}

impl Tenant {
    fn create(&self, created: TenantCreated) -> Result<Vec<TenantEvent>, TenantRefusal> {
        if let Some(known) = &self.name {
            let same = *known == created.name && self.members.get(&created.owner) == Some(&MemberRole::Owner);
            return if same { Ok(Vec::new()) } else { Err(TenantRefusal::AlreadyCreated) };
        }
        check_name(&created.name)?;
        let owner = MemberAdded { user_id: created.owner, role: MemberRole::Owner, added_at: created.created_at };
        Ok(vec![TenantEvent::TenantCreated(created), TenantEvent::MemberAdded(owner)])
    }

    fn rename(&self, renamed: TenantRenamed) -> Result<Vec<TenantEvent>, TenantRefusal> {
        if self.name.as_deref() == Some(renamed.name.as_str()) {
            return Ok(Vec::new());
        }
        if self.personal {
            return Err(TenantRefusal::PersonalKeepsName);
        }
        check_name(&renamed.name)?;
        Ok(vec![TenantEvent::TenantRenamed(renamed)])
    }

    fn add(&self, user_id: UserId, role: MemberRole, at: Timestamp) -> Result<Vec<TenantEvent>, TenantRefusal> {
        match self.members.get(&user_id) {
            Some(known) if *known == role => return Ok(Vec::new()),
            Some(MemberRole::Owner) if self.owners() == 1 => return Err(TenantRefusal::LastOwner),
            None if self.members.len() >= MEMBERS_MAX => return Err(TenantRefusal::TooManyMembers),
            Some(_) | None => {}
        }
        Ok(vec![TenantEvent::MemberAdded(MemberAdded { user_id, role, added_at: at })])
    }

    fn remove(&self, user_id: UserId, at: Timestamp) -> Result<Vec<TenantEvent>, TenantRefusal> {
        match self.members.get(&user_id) {
            None => Ok(Vec::new()),
            Some(MemberRole::Owner) if self.owners() == 1 => Err(TenantRefusal::LastOwner),
            Some(_) => Ok(vec![TenantEvent::MemberRemoved(MemberRemoved { user_id, removed_at: at })]),
        }
    }
}

impl Tenant {
    fn add_key(&self, mut added: ProviderKeyAdded) -> Result<Vec<TenantEvent>, TenantRefusal> {
        takes_own_key(added.provider)?;
        if self.provider_key(added.provider) == Some(added.entry_id) {
            return Ok(Vec::new());
        }
        // Whoever calls may have taken too much; what stands in an event stands there for ever.
        if let Some((start, _)) = added.last_four.char_indices().rev().nth(LAST_CHARACTERS_MAX - 1) {
            added.last_four.drain(..start);
        }
        Ok(vec![TenantEvent::ProviderKeyAdded(added)])
    }

    fn count_api_key(
        &self,
        key_id: KeyId,
        ends_at: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<Vec<TenantEvent>, TenantRefusal> {
        match self.api_keys.get(&key_id) {
            Some(known) if *known == ends_at => return Ok(Vec::new()),
            Some(_) => {}
            // One that was never counted, or counts no more.
            None if !lives(ends_at, at) => return Ok(Vec::new()),
            None if self.live_keys(at) >= API_KEYS_LIVE_MAX => return Err(TenantRefusal::TooManyApiKeys),
            None => {}
        }
        Ok(vec![TenantEvent::ApiKeyCounted(ApiKeyCounted { key_id, ends_at, counted_at: at })])
    }

    fn remove_key(&self, provider: Provider, by: UserId, at: Timestamp) -> Result<Vec<TenantEvent>, TenantRefusal> {
        let entry_id = self.provider_key(provider).ok_or(TenantRefusal::NoProviderKey { provider })?;
        let removed = ProviderKeyRemoved { provider, entry_id, removed_by: by, removed_at: at };
        Ok(vec![TenantEvent::ProviderKeyRemoved(removed)])
    }
}

impl Decider for Tenant {
    const KIND: &'static str = "tenant";
    const SNAPSHOT_VERSION: i32 = 3;
    type Command = TenantCommand;
    type Event = TenantEvent;
    type Refusal = TenantRefusal;

    fn decide(&self, command: TenantCommand) -> Result<Vec<TenantEvent>, TenantRefusal> {
        if let TenantCommand::Create(created) = command {
            return self.create(created);
        }
        if self.name.is_none() {
            return Err(TenantRefusal::NotCreated);
        }
        match command {
            TenantCommand::Create(created) => self.create(created),
            TenantCommand::AddMember { user_id, role, at } => self.add(user_id, role, at),
            TenantCommand::RemoveMember { user_id, at } => self.remove(user_id, at),
            TenantCommand::SetStrictModels { strict, .. } if strict == self.strict_models => Ok(Vec::new()),
            TenantCommand::SetStrictModels { strict, at } => {
                Ok(vec![TenantEvent::StrictModelsSet(StrictModelsSet { strict, set_at: at })])
            }
            TenantCommand::Rename(renamed) => self.rename(renamed),
            TenantCommand::AddProviderKey(added) => self.add_key(added),
            TenantCommand::CountApiKey { key_id, ends_at, at } => self.count_api_key(key_id, ends_at, at),
            TenantCommand::RemoveProviderKey { provider, by, at } => self.remove_key(provider, by, at),
        }
    }

    fn evolve(&mut self, event: &TenantEvent) {
        self.fold(event);
    }

    fn weight_bytes(&self) -> usize {
        const MEMBER_BYTES: usize = 48;
        const PROVIDER_KEY_BYTES: usize = 96;
        const API_KEY_BYTES: usize = 48;
        std::mem::size_of::<Self>()
            + self.name.as_ref().map_or(0, String::len)
            + self.members.len() * MEMBER_BYTES
            + self.provider_keys.len() * PROVIDER_KEY_BYTES
            + self.api_keys.len() * API_KEY_BYTES
    }
}
