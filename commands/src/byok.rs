//! Keys that tenants bring for providers ("bring your own key"): checked against the provider, sealed in the keyring,
//! and known to the log by nothing but the entry that holds them and their last four characters.
//!
//! The entry is written before the event and deleted after it, so that an event never names an entry that is not
//! there; an entry without an event opens nothing, and [`sweep`] removes it.

use std::collections::BTreeMap;

use async_trait::async_trait;

use calos_domain::pricing::Provider;
use calos_domain::tenant::{
    LAST_CHARACTERS_MAX, MemberRole, ProviderKeyAdded, Tenant, TenantCommand, TenantRefusal, takes_own_key,
};
use calos_domain::{KeyringEntryId, TenantId, Timestamp, UserId};

use crate::accounts::looking;
use crate::fault::{Fault, Never};
use crate::log::{Done, EventLog, Failed, LogError, Plan, Request, Unit};
use crate::ports::{SecretText, World};
use crate::provider::{ChatProvider, ProviderError};
use crate::tenants::{membership, tenant_stream};

/// The shortest key: of a shorter one the last four characters would tell too much.
pub const KEY_MIN_CHARACTERS: usize = 16;

/// The longest key.
pub const KEY_MAX_CHARACTERS: usize = 512;

/// Where a secret stands in the keyring. It opens as this and nothing else: moved to another tenant, another provider or
/// another entry, it stays shut.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyringEntry {
    /// Whose.
    pub tenant_id: TenantId,
    /// For which provider.
    pub provider: Provider,
    /// Which.
    pub entry_id: KeyringEntryId,
}

/// Why the keyring could not keep or give a secret. Never carries any of it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyringError {
    /// There is no such entry: it was removed.
    #[error("the keyring has no entry {0}")]
    NotThere(KeyringEntryId),
    /// What is stored is not what was sealed for this tenant, provider and entry.
    #[error("the keyring's entry {0} does not open: it was tampered with, or belongs elsewhere")]
    Tampered(KeyringEntryId),
    /// Its key was wrapped by a master key this process does not have.
    #[error("the keyring's key {0} was wrapped by another master key; set CALOS_MASTER_KEY_PREVIOUS while rotating")]
    AnotherMasterKey(i32),
    /// The keyring cannot be reached.
    #[error("the keyring cannot be reached: {0}")]
    Unavailable(String),
}

/// Keeps tenants' provider keys, sealed.
#[async_trait]
pub trait ProviderKeys: Send + Sync {
    /// Seals a secret and keeps it; durable before it answers.
    async fn store(&self, entry: KeyringEntry, secret: &SecretText) -> Result<(), KeyringError>;

    /// Opens a secret.
    async fn open(&self, entry: KeyringEntry) -> Result<SecretText, KeyringError>;

    /// Deletes a secret for good; one that is gone already is left so.
    async fn delete(&self, entry_id: KeyringEntryId) -> Result<(), KeyringError>;
}

/// Why a key was not added or removed.
#[derive(Debug, thiserror::Error)]
pub enum ByokFailure {
    /// Whoever asks may not, the provider takes no keys, or there is none to remove.
    #[error(transparent)]
    Tenant(#[from] TenantRefusal),
    /// No key looks like this.
    #[error("a provider's key has {KEY_MIN_CHARACTERS} to {KEY_MAX_CHARACTERS} visible ASCII characters and no spaces")]
    NoKey,
    /// The provider says that the key opens nothing.
    #[error("{provider} does not take this key: {message}")]
    Rejected {
        /// Who.
        provider: Provider,
        /// Their words, without the key.
        message: String,
    },
    /// The provider could not be asked; nothing was stored.
    #[error("{provider} could not be asked whether it takes this key")]
    Unchecked {
        /// Who.
        provider: Provider,
        /// Why.
        source: ProviderError,
    },
    /// This installation has no address for the provider.
    #[error("{provider} is not configured here")]
    NotConfigured {
        /// Who.
        provider: Provider,
    },
    /// The keyring could not carry it out.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The log could not take it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The world could not carry it out.
    #[error(transparent)]
    World(Fault<Never>),
}

impl From<Fault<TenantRefusal>> for ByokFailure {
    fn from(fault: Fault<TenantRefusal>) -> Self {
        match fault {
            Fault::Refused(refusal) => Self::Tenant(refusal),
            Fault::Log(error) => Self::Log(error),
            Fault::Seal(error) => Self::World(Fault::Seal(error)),
            Fault::Hash(error) => Self::World(Fault::Hash(error)),
            Fault::Token(error) => Self::World(Fault::Token(error)),
        }
    }
}

/// What somebody brings.
#[derive(Clone, Debug)]
pub struct KeyOffer {
    /// For which tenant.
    pub tenant_id: TenantId,
    /// Who brings it.
    pub user_id: UserId,
    /// For which provider.
    pub provider: Provider,
    /// The key.
    pub key: SecretText,
}

/// A key that looks like one, of somebody who may bring it; the provider was not asked yet.
#[derive(Clone, Debug)]
pub struct VettedOffer(KeyOffer);

/// A key the provider takes; nothing is stored or recorded yet.
#[derive(Clone, Debug)]
pub struct NewProviderKey {
    tenant_id: TenantId,
    key: SecretText,
    added: ProviderKeyAdded,
}

/// Checks that the user may bring keys and that this looks like one, before anybody is asked about it.
///
/// # Errors
/// [`ByokFailure`].
pub async fn vet<L: EventLog>(log: &L, offer: KeyOffer) -> Result<VettedOffer, ByokFailure> {
    membership(log, offer.tenant_id, offer.user_id, MemberRole::Admin).await?;
    takes_own_key(offer.provider)?;
    let text = offer.key.expose();
    let sized = (KEY_MIN_CHARACTERS..=KEY_MAX_CHARACTERS).contains(&text.len());
    if !sized || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ByokFailure::NoKey);
    }
    Ok(VettedOffer(offer))
}

/// Asks the provider whether it takes the key: `adapter` is how this installation reaches it, if it does.
///
/// # Errors
/// [`ByokFailure`]; nothing is stored.
pub async fn prepare(
    world: &World,
    adapter: Option<&dyn ChatProvider>,
    VettedOffer(offer): VettedOffer,
) -> Result<NewProviderKey, ByokFailure> {
    let KeyOffer { tenant_id, user_id, provider, key } = offer;
    let adapter = adapter.ok_or(ByokFailure::NotConfigured { provider })?;
    adapter.check_key(&key).await.map_err(|error| unchecked(provider, error.without(&key)))?;
    let text = key.expose();
    let last_four = text[text.len() - LAST_CHARACTERS_MAX..].to_owned();
    let entry_id = KeyringEntryId(world.randomness.ordered_id());
    let added = ProviderKeyAdded { provider, entry_id, last_four, added_by: user_id, added_at: world.clock.now() };
    Ok(NewProviderKey { tenant_id, key, added })
}

fn unchecked(provider: Provider, error: ProviderError) -> ByokFailure {
    match error {
        ProviderError::Status { status: 401 | 403, message, .. } => ByokFailure::Rejected { provider, message },
        ProviderError::Unsupported { .. } => ByokFailure::Tenant(TenantRefusal::TakesNoKey { provider }),
        source @ (ProviderError::Status { .. }
        | ProviderError::Unreachable { .. }
        | ProviderError::Timeout { .. }
        | ProviderError::BadAnswer { .. }
        | ProviderError::CircuitOpen { .. }
        | ProviderError::Busy { .. }
        | ProviderError::KeyUnavailable { .. }) => ByokFailure::Unchecked { provider, source },
    }
}

impl NewProviderKey {
    /// What will be recorded.
    #[must_use]
    pub fn added(&self) -> &ProviderKeyAdded {
        &self.added
    }

    /// Keeps the key and records that it is there; one that was there before is deleted.
    ///
    /// # Errors
    /// [`ByokFailure`].
    pub async fn append<L: EventLog>(
        &self,
        log: &L,
        keyring: &dyn ProviderKeys,
        request: Request,
    ) -> Result<Done<()>, ByokFailure> {
        let (tenant_id, added) = (self.tenant_id, &self.added);
        let (provider, entry_id) = (added.provider, added.entry_id);
        keyring.store(KeyringEntry { tenant_id, provider, entry_id }, &self.key).await?;
        let mut plan = Plan::default();
        let tenant = plan.stream::<Tenant>(tenant_stream(tenant_id));
        let recorded = log.execute(&plan, request, |unit: &mut Unit<'_>| {
            unit.with(tenant, |tenant| tenant.authorise(added.added_by, MemberRole::Admin))?;
            let replaced = unit.with(tenant, |tenant| tenant.provider_key(provider));
            unit.decide(tenant, TenantCommand::AddProviderKey(added.clone()))?;
            Ok::<_, TenantRefusal>(replaced.filter(|replaced| *replaced != entry_id))
        });
        match recorded.await {
            Ok(done) => {
                if let Some(replaced) = done.answer {
                    discard(keyring, replaced).await;
                }
                Ok(Done { answer: (), positions: done.positions })
            }
            Err(failed) => {
                let fault = Fault::from(failed);
                if fault.certainly_absent() {
                    discard(keyring, entry_id).await;
                }
                Err(fault.into())
            }
        }
    }
}

/// Removes a tenant's key for a provider: no call uses it from the next one on, and the secret itself is deleted.
///
/// # Errors
/// [`ByokFailure::Tenant`] when there is none or the user may not; the log's.
pub async fn remove<L: EventLog>(
    log: &L,
    keyring: &dyn ProviderKeys,
    tenant_id: TenantId,
    provider: Provider,
    (by, at): (UserId, Timestamp),
    request: Request,
) -> Result<Done<()>, ByokFailure> {
    let mut plan = Plan::default();
    let tenant = plan.stream::<Tenant>(tenant_stream(tenant_id));
    let removed = log.execute(&plan, request, |unit: &mut Unit<'_>| {
        unit.with(tenant, |tenant| tenant.authorise(by, MemberRole::Admin))?;
        let entry_id = unit.with(tenant, |tenant| tenant.provider_key(provider));
        unit.decide(tenant, TenantCommand::RemoveProviderKey { provider, by, at })?;
        Ok::<_, TenantRefusal>(entry_id)
    });
    let done = removed.await.map_err(Fault::from)?;
    if let Some(entry_id) = done.answer {
        discard(keyring, entry_id).await;
    }
    Ok(Done { answer: (), positions: done.positions })
}

/// Deletes an entry no event names any more. Should the keyring not answer, the sweep deletes it later.
async fn discard(keyring: &dyn ProviderKeys, entry_id: KeyringEntryId) {
    if let Err(error) = keyring.delete(entry_id).await {
        tracing::warn!(entry = %entry_id, %error, "an entry of the keyring is left for the sweep");
    }
}

/// Deletes those of the entries that their tenant does not use: left by an addition that came to nothing, or by a removal
/// that was interrupted. Whoever names candidates leaves out those so young that their event may be on its way; the
/// tenant alone decides. Answers how many were deleted.
///
/// # Errors
/// The log's and the keyring's; what was deleted before stays so.
pub async fn sweep<L: EventLog>(
    log: &L,
    keyring: &dyn ProviderKeys,
    candidates: &[KeyringEntry],
) -> Result<usize, ByokFailure> {
    let mut by_tenant: BTreeMap<TenantId, Vec<KeyringEntry>> = BTreeMap::new();
    for entry in candidates {
        by_tenant.entry(entry.tenant_id).or_default().push(*entry);
    }
    let mut deleted = 0;
    for (tenant_id, entries) in by_tenant {
        let mut plan = Plan::default();
        let tenant = plan.stream::<Tenant>(tenant_stream(tenant_id));
        let looked = log.execute(&plan, looking().into(), |unit: &mut Unit<'_>| {
            let unused = |tenant: &Tenant| {
                let unused = entries.iter().filter(|entry| tenant.provider_key(entry.provider) != Some(entry.entry_id));
                unused.map(|entry| entry.entry_id).collect::<Vec<_>>()
            };
            Ok::<_, Never>(unit.with(tenant, unused))
        });
        let unused = match looked.await {
            Ok(done) => done.answer,
            Err(Failed::Refused(never)) => match never {},
            Err(Failed::Log(error)) => return Err(error.into()),
        };
        for entry_id in unused {
            keyring.delete(entry_id).await?;
            deleted += 1;
        }
    }
    Ok(deleted)
}
