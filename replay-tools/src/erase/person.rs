//! Whom an erasure is about: found by id or address, and what is signed in or switched on for them.

use std::collections::BTreeSet;
use std::str::FromStr;

use uuid::Uuid;

use calos_commands::accounts::{account_of, holder_of};
use calos_commands::api_keys;
use calos_commands::byok;
use calos_commands::erasure::{self, ENDED_MAX_STREAMS, Left, SignedIn};
use calos_commands::ports::{PersonalData, label};
use calos_domain::account::Account;
use calos_domain::device::Device;
use calos_domain::email_claim::EmailAddress;
use calos_domain::session::Session;
use calos_domain::tenant::Tenant;
use calos_domain::{Decider, DeviceId, SessionId, TenantId, UserId};

use super::{Erased, Eraser, of_fault, of_seal};
use crate::error::ToolError;
use crate::operation::now;

/// Names shorter than this are looked for in no reason: too many words would be one.
const NAME_MIN_CHARACTERS: usize = 3;

/// Whom the operator means.
#[derive(Clone, Debug)]
pub enum Who {
    /// By the user's id.
    User(UserId),
    /// By the address they registered with.
    Email(EmailAddress),
}

impl FromStr for Who {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match (text.trim().parse(), text.parse()) {
            (Ok(user), _) => Ok(Self::User(user)),
            (Err(_), Ok(email)) => Ok(Self::Email(email)),
            (Err(_), Err(_)) => Err("expected a user's id or the address they registered with".to_owned()),
        }
    }
}

/// Somebody who registered, as an operator sees them before they go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Person {
    /// Who.
    pub user_id: UserId,
    /// Whether they were erased before.
    pub erased: bool,
    /// Sessions they ever began.
    pub sessions: usize,
    /// Devices they ever used.
    pub devices: usize,
    /// Tenants that came with them or that they created.
    pub tenants: Vec<TenantId>,
}

impl Eraser<'_> {
    /// Finds a person, changing nothing.
    ///
    /// # Errors
    /// [`ToolError::Refused`] when nobody is meant by that; the log's.
    pub async fn find(&self, who: &Who) -> Result<Person, ToolError> {
        let user_id = match who {
            Who::User(user_id) => *user_id,
            Who::Email(email) => {
                let hash = self.secrets.world().digests.email(email);
                holder_of(self.log, &hash).await.map_err(of_fault)?.ok_or_else(|| {
                    ToolError::Refused(
                        "no account has this address; whoever was erased is known by their id alone. Nothing was changed"
                            .to_owned(),
                    )
                })?
            }
        };
        let account = self.registered(user_id).await?;
        let signed_in = self.signed_in(user_id).await?;
        let personal = account.profile.as_ref().map(|profile| profile.personal_tenant_id);
        let personal = personal.or_else(|| account.erased.and_then(|erased| erased.personal_tenant_id));
        Ok(Person {
            user_id,
            erased: account.erased.is_some(),
            sessions: signed_in.iter().map(|page| page.sessions.len()).sum(),
            devices: signed_in.iter().map(|page| page.devices.len()).sum(),
            tenants: personal.into_iter().chain(account.founded).collect(),
        })
    }

    /// Refuses words that would name the person in the log for ever: the reason and the operator of the run.
    ///
    /// # Errors
    /// [`ToolError::Usage`]; the key store's. Where the key is gone there is nothing to compare with.
    pub async fn check_words(&self, user_id: UserId) -> Result<(), ToolError> {
        let Some(profile) = self.account(user_id).await?.profile else { return Ok(()) };
        let keys = self.secrets.subject_keys();
        let mut names = Vec::new();
        for (sealed, label) in
            [(Some(&profile.email), label::EMAIL), (profile.display_name.as_ref(), label::DISPLAY_NAME)]
        {
            let Some(sealed) = sealed else { continue };
            match keys.open(sealed, label).await {
                Ok(text) => names.push(text.to_lowercase()),
                Err(calos_commands::ports::SealError::Erased(_) | calos_commands::ports::SealError::Missing(_)) => {}
                Err(error) => return Err(of_seal(&error)),
            }
        }
        let words = format!("{} {}", self.run.reason, self.run.operator).to_lowercase();
        let names_them = |name: &String| name.chars().count() >= NAME_MIN_CHARACTERS && contains_word(&words, name);
        if names.iter().any(names_them) {
            return Err(ToolError::Usage(
                "the reason names the person, and it stays in the log for ever; say it without their name or address"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Somebody who registered, erased or not.
    pub(super) async fn registered(&self, user_id: UserId) -> Result<Account, ToolError> {
        let account = self.account(user_id).await?;
        if account.profile.is_none() && account.erased.is_none() {
            return Err(ToolError::Refused(format!("there is no account {user_id}; nothing was changed")));
        }
        Ok(account)
    }

    pub(super) async fn account(&self, user_id: UserId) -> Result<Account, ToolError> {
        account_of(self.log, user_id).await.map_err(of_fault)
    }

    /// Every session and device the log has of a person, in pages that one append can end.
    pub(super) async fn signed_in(&self, user_id: UserId) -> Result<Vec<SignedIn>, ToolError> {
        let sessions = self.under(user_id, Session::KIND).await?.into_iter().map(SessionId);
        let devices = self.under(user_id, Device::KIND).await?.into_iter().map(DeviceId);
        let (sessions, devices): (Vec<_>, Vec<_>) = (sessions.collect(), devices.collect());
        let sessions = sessions.chunks(ENDED_MAX_STREAMS);
        let sessions = sessions.map(|ids| SignedIn { sessions: ids.to_vec(), devices: Vec::new() });
        let devices = devices.chunks(ENDED_MAX_STREAMS);
        let devices = devices.map(|ids| SignedIn { sessions: Vec::new(), devices: ids.to_vec() });
        Ok(sessions.chain(devices).collect())
    }

    /// The second half of the ids of a kind's streams under a person, newest first.
    async fn under(&self, user_id: UserId, kind: &str) -> Result<Vec<Uuid>, ToolError> {
        // '0' follows '/': between the two is every stream under the person and none of another's.
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT aggregate_id FROM events WHERE aggregate_type = $1 AND aggregate_id > $2 AND aggregate_id < $3
                 AND sequence = 1 ORDER BY aggregate_id DESC",
        )
        .bind(kind)
        .bind(format!("{user_id}/"))
        .bind(format!("{user_id}0"))
        .fetch_all(self.owner)
        .await?;
        let rest = |id: &String| id.split_once('/').and_then(|(_, rest)| rest.parse().ok());
        ids.iter()
            .map(|id| rest(id).ok_or_else(|| ToolError::Corrupt(format!("{kind}/{id} is no {kind}'s stream"))))
            .collect()
    }

    /// Ends what is still signed in, and switches off what nobody is left to tend to.
    ///
    /// # Errors
    /// The log's, the keyring's and the database's.
    pub async fn end_rest(&self, user_id: UserId, erased: &mut Erased) -> Result<(), ToolError> {
        for page in self.signed_in(user_id).await? {
            let ended = erasure::end_rest(self.log, user_id, &page, self.run, now()).await.map_err(of_fault)?.answer;
            erased.sessions_ended += ended.sessions;
            erased.devices_revoked += ended.devices;
        }
        for tenant_id in self.tenants(user_id).await? {
            match erasure::leave(self.log, tenant_id, user_id, self.run, now()).await.map_err(of_fault)? {
                Left::NotAMember => {}
                Left::ToOthers => erased.tenants_left += 1,
                Left::WithoutAnOwner => erased.tenants_without_owner.push(tenant_id.0),
                Left::Alone(tenant) => self.switch_off(tenant_id, user_id, &tenant, erased).await?,
            }
        }
        Ok(())
    }

    /// Every tenant they may belong to: their own by the account, others' by the read model.
    async fn tenants(&self, user_id: UserId) -> Result<BTreeSet<TenantId>, ToolError> {
        let member = sqlx::query_scalar("SELECT tenant_id FROM read.tenant_members WHERE user_id = $1");
        let member: Vec<Uuid> = member.bind(user_id.0).fetch_all(self.owner).await?;
        Ok(self.own_tenants(user_id).await?.into_iter().chain(member.into_iter().map(TenantId)).collect())
    }

    /// Keys of a tenant nobody else belongs to: nobody is left who could revoke them, and its provider keys are the
    /// person's own.
    async fn switch_off(
        &self,
        tenant_id: TenantId,
        user_id: UserId,
        tenant: &Tenant,
        erased: &mut Erased,
    ) -> Result<(), ToolError> {
        for key_id in tenant.api_keys.keys() {
            let request = erasure::envelope(self.run);
            let revoked = api_keys::revoke(self.log, tenant_id, key_id, user_id, now(), request).await;
            erased.api_keys_revoked += u64::from(!revoked.map_err(of_fault)?.positions.0.is_empty());
        }
        for provider in tenant.provider_keys.keys() {
            let (by, request) = ((user_id, now()), erasure::envelope(self.run));
            let keyring = &**self.secrets.keyring();
            let removed = byok::remove(self.log, keyring, tenant_id, *provider, by, request).await;
            removed.map_err(|error| ToolError::Environment(error.to_string()))?;
            erased.provider_keys_removed += 1;
        }
        Ok(())
    }
}

/// Whether a text has a name in it that is not a part of another word.
fn contains_word(text: &str, name: &str) -> bool {
    let apart = |neighbour: Option<char>| neighbour.is_none_or(|letter| !letter.is_alphanumeric());
    text.match_indices(name)
        .any(|(at, _)| apart(text[..at].chars().next_back()) && apart(text[at + name.len()..].chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_named_by_id_or_address() {
        let id = "0193a5c8-1111-7222-8333-444455556666";
        assert!(matches!(id.parse(), Ok(Who::User(user)) if user.to_string() == id));
        assert!(matches!("Ada@example.com".parse(), Ok(Who::Email(email)) if email.as_str() == "Ada@example.com"));
        assert!("ada".parse::<Who>().is_err());
    }

    #[test]
    fn a_name_is_found_as_a_word_and_not_within_one() {
        assert!(contains_word("asked for by ada lovelace.", "ada lovelace"));
        assert!(contains_word("ada@example.com wrote", "ada@example.com"));
        assert!(!contains_word("the adapter was replaced", "ada"));
    }
}
