//! Whether a tenant key opens anything.
//!
//! Comparing a secret with its bcrypt hash costs a tenth of a second of a core on purpose. So a key found right is
//! remembered, a key found wrong is remembered briefly too, and how often one address may make us compare is limited:
//! whoever sends wrong keys is refused before anything is computed.

use std::net::IpAddr;
use std::sync::Arc;

use moka::sync::Cache;
use tokio::sync::{Mutex, Semaphore};

use calos_adapters::postgres::PgLog;
use calos_adapters::secrets::{KeyFingerprint, PresentedKey, Secrets};
use calos_commands::api_keys;
use calos_domain::api_key::{ApiKeyIssued, KeyDenial};
use calos_domain::{KeyId, TenantId};

use super::attempts::{Attempts, Pace, accountable};
use super::generation::Remembered;
use crate::error::{ApiError, Code};
use crate::request::{RequestContext, now};

/// Right keys remembered at a time.
const RIGHT_MAX_KEYS: u64 = 100_000;

/// How long a right key is remembered: five minutes, as the seeds have it.
const RIGHT_SECONDS: u64 = 300;

/// Wrong keys remembered at a time.
const WRONG_MAX_KEYS: u64 = 100_000;

/// How long a wrong key is remembered. A key that is issued a moment later has another secret, so nobody waits for it.
const WRONG_SECONDS: u64 = 30;

/// Wrong keys from one address: twenty at once, then one every three seconds.
const WRONG_BY_ADDRESS: Pace = Pace { burst: 20, refill_seconds: 3 };

/// Presented keys that are compared one after the other rather than at once, so that a hundred calls with one new key
/// cost one comparison.
const LANES: usize = 64;

/// Keys looked up and compared at a time.
const TURNS: usize = 4;

#[derive(Clone)]
struct Right {
    fingerprint: KeyFingerprint,
    key: Arc<ApiKeyIssued>,
}

/// Checks tenant keys.
pub struct KeyDesk {
    log: PgLog,
    secrets: Secrets,
    right: Remembered<(TenantId, KeyId), Right>,
    wrong: Cache<KeyFingerprint, ()>,
    attempts: Attempts<IpAddr>,
    lanes: [Mutex<()>; LANES],
    turns: Semaphore,
}

/// The one answer to every key that opens nothing: it does not say whether there ever was such a key. How long it takes
/// does, as an unknown key id costs no comparison; an id is no secret, it stands in every list of keys, and what guards
/// a key are the 190 bits behind it.
pub(super) fn invalid() -> ApiError {
    ApiError::new(
        Code::InvalidApiKey,
        "this API key is not valid: check it, or issue another one with POST /api/tenants/{id}/keys",
    )
}

/// A right key may still not call this path, or not from here.
pub(super) fn admit(key: &ApiKeyIssued, path: &str, context: &RequestContext) -> Result<(), ApiError> {
    // Whoever may list models may ask for one of them.
    let endpoint = if path.starts_with("/v1/models/") { "/v1/models" } else { path };
    key.admits(endpoint, context.address).map_err(|denial| {
        let code = match &denial {
            KeyDenial::Endpoint { .. } => Code::EndpointNotAllowed,
            KeyDenial::Address { .. } => Code::AddressNotAllowed,
            KeyDenial::Unknown | KeyDenial::Revoked | KeyDenial::Expired { .. } => Code::InvalidApiKey,
        };
        ApiError::new(code, format!("{denial}; issue one that may, or change where it is used"))
    })
}

impl KeyDesk {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(log: PgLog, secrets: Secrets) -> Self {
        Self {
            log,
            secrets,
            right: Remembered::new(RIGHT_MAX_KEYS, RIGHT_SECONDS),
            wrong: Cache::builder()
                .max_capacity(WRONG_MAX_KEYS)
                .time_to_live(std::time::Duration::from_secs(WRONG_SECONDS))
                .build(),
            attempts: Attempts::new(WRONG_BY_ADDRESS),
            lanes: std::array::from_fn(|_| Mutex::new(())),
            turns: Semaphore::new(TURNS),
        }
    }

    /// What a presented key is now, every change since it was issued included, if it is right and still opens anything.
    ///
    /// # Errors
    /// 401 `invalid_api_key`; 429 `too_many_attempts` after too many wrong ones from this address; 503 `overloaded`;
    /// what the log cannot carry out.
    pub async fn verify(&self, presented: &PresentedKey, address: IpAddr) -> Result<Arc<ApiKeyIssued>, ApiError> {
        let fingerprint = self.secrets.tenant_keys().fingerprint(presented);
        if let Some(known) = self.known(presented, fingerprint) {
            return known;
        }
        let lane = usize::from(fingerprint.0[0]) % LANES;
        let _in_turn = self.lanes[lane].lock().await;
        if let Some(known) = self.known(presented, fingerprint) {
            return known;
        }
        let address = accountable(address);
        // Looked at when it is one's turn: whoever sends a thousand wrong keys at once is refused from where they begin
        // to fail, and only a few of them were compared.
        let _turn = self.turns.acquire().await.map_err(ApiError::internal)?;
        self.attempts.check(&address).map_err(|seconds| {
            let message = "too many wrong API keys came from this address; wait, then send a right one";
            ApiError::new(Code::TooManyAttempts, message).retry_after(seconds)
        })?;
        let begun = self.right.begin();
        let key = api_keys::key_of(&self.log, presented.tenant_id, &presented.key_id).await?;
        let current = match key.standing(now()) {
            Ok(current) if self.secrets.tenant_keys().verify(presented, &current.secret_hash).await? => current,
            Ok(_) | Err(_) => {
                self.attempts.failed(&address);
                self.wrong.insert(fingerprint, ());
                return Err(invalid());
            }
        };
        let key = Arc::new(current.clone());
        let right = Right { fingerprint, key: Arc::clone(&key) };
        self.right.remember(begun, &(presented.tenant_id, presented.key_id.clone()), right);
        Ok(key)
    }

    fn known(
        &self,
        presented: &PresentedKey,
        fingerprint: KeyFingerprint,
    ) -> Option<Result<Arc<ApiKeyIssued>, ApiError>> {
        if let Some(right) = self.right.get(&(presented.tenant_id, presented.key_id.clone()))
            // A keyed hash: how much of it agrees says nothing about the key.
            && right.fingerprint == fingerprint
        {
            let over = right.key.expires_at.is_some_and(|expires_at| now() >= expires_at);
            return Some(if over { Err(invalid()) } else { Ok(right.key) });
        }
        self.wrong.get(&fingerprint).map(|()| Err(invalid()))
    }

    /// A key that was revoked or changed here.
    pub fn forget(&self, tenant_id: TenantId, key_id: &KeyId) {
        self.right.forget(&(tenant_id, key_id.clone()));
    }

    /// A key that was changed elsewhere, by its stream.
    pub(super) fn forget_stream(&self, id: &str) {
        let named = id.split_once('/').and_then(|(tenant, key)| Some((tenant.parse().ok()?, key.parse().ok()?)));
        match named {
            Some((tenant_id, key_id)) => self.forget(tenant_id, &key_id),
            None => self.forget_all(),
        }
    }

    /// Trust nothing that was remembered.
    pub(super) fn forget_all(&self) {
        self.right.forget_all();
        self.wrong.invalidate_all();
    }
}
