//! The keyring: tenants' own provider keys, sealed, in the table `keyring`.
//!
//! Each entry is sealed under a keyring key of some version, bound to its tenant, its provider and its own id. The
//! keyring keys stand in `keyring_keys`, wrapped by the master key: changing the master key wraps those few rows anew,
//! and no entry and no event is touched. [`Keyring::rotate`] brings in a new keyring key and seals every entry anew.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use zeroize::Zeroizing;

use calos_commands::byok::{KeyringEntry, KeyringError, ProviderKeys};
use calos_commands::ports::SecretText;
use calos_domain::{KeyringEntryId, TenantId};

use super::SecretsError;
use super::aead;
use super::master_key::{DerivedKey, KeyLabel, derive, version};
use crate::config::MasterKey;

/// Opened secrets kept in memory at a time.
const CACHE_MAX_SECRETS: u64 = 10_000;

/// How long an opened secret is kept. A removed one is not used for so long: its tenant no longer names its entry.
const CACHE_SECONDS: u64 = 300;

/// Entries sealed anew, or looked at by a sweep, at a time.
const PAGE_MAX_ENTRIES: i64 = 200;

/// How old an entry is before it may be swept: its event may be on its way.
const SWEEP_AFTER_SECONDS: i32 = 600;

/// PostgreSQL's code for a row that names another one that is not there.
const FOREIGN_KEY_VIOLATION: &str = "23503";

const KEY_BYTES: usize = 32;

type KeyringKey = Arc<Zeroizing<[u8; KEY_BYTES]>>;

/// One master key, as far as the keyring's keys go.
struct Wrapping {
    version: i32,
    key: DerivedKey,
}

impl Wrapping {
    fn of(master: &MasterKey) -> Self {
        Self { version: version(master), key: derive(master.expose(), KeyLabel::KeyringWrapping) }
    }
}

/// Tenants' own provider keys.
pub struct Keyring {
    pool: PgPool,
    current: Wrapping,
    previous: Option<Wrapping>,
    /// The keyring's keys by version; the last one seals.
    keys: RwLock<BTreeMap<i32, KeyringKey>>,
    /// What an entry was opened as, beside its secret: asked for as anything else, it stays shut here too.
    opened: Cache<KeyringEntryId, (KeyringEntry, SecretText)>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("opened", &self.opened.entry_count()).finish_non_exhaustive()
    }
}

/// What a rotation did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rotated {
    /// The keyring key in force now.
    pub version: i32,
    /// Entries that were sealed anew.
    pub resealed: u64,
    /// Entries that do not open, and were left as they are.
    pub unopenable: u64,
}

/// Parts, each behind its length, so that none can be shifted into the next.
fn bound(parts: &[&[u8]]) -> Vec<u8> {
    let mut bound = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bound.extend_from_slice(part);
    }
    bound
}

/// What a sealed entry is bound to.
fn entry_binding(entry: &KeyringEntry, key_version: i32) -> Vec<u8> {
    bound(&[
        b"calos/keyring/v1",
        entry.tenant_id.0.as_bytes(),
        entry.provider.as_str().as_bytes(),
        entry.entry_id.0.as_bytes(),
        &key_version.to_be_bytes(),
    ])
}

/// What a wrapped keyring key is bound to.
fn key_binding(key_version: i32, master_version: i32) -> Vec<u8> {
    bound(&[b"calos/keyring-key/v1", &key_version.to_be_bytes(), &master_version.to_be_bytes()])
}

#[expect(clippy::needless_pass_by_value, reason = "it is used as `map_err(unavailable)`")]
fn unavailable(error: sqlx::Error) -> KeyringError {
    KeyringError::Unavailable(error.to_string())
}

fn names_a_missing_key(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == FOREIGN_KEY_VIOLATION)
}

impl Keyring {
    /// The keyring of this database; a new one gets its first key. Keys the previous master key wrapped are wrapped anew
    /// by the current one, so that the previous one is needed for one start alone.
    ///
    /// # Errors
    /// [`SecretsError::AnotherMasterKey`] when neither master key opens a keyring key; the database's.
    pub async fn open(pool: PgPool, master: &MasterKey, previous: Option<&MasterKey>) -> Result<Self, SecretsError> {
        let opened =
            Cache::builder().max_capacity(CACHE_MAX_SECRETS).time_to_live(Duration::from_secs(CACHE_SECONDS)).build();
        let (current, previous) = (Wrapping::of(master), previous.map(Wrapping::of));
        let keyring = Self { pool, current, previous, keys: RwLock::default(), opened };
        let known = sqlx::query_scalar("SELECT EXISTS (SELECT FROM keyring_keys)").fetch_one(&keyring.pool);
        let known: bool = known.await?;
        if !known {
            // Of two processes that start at once, one inserts; both go on with what is there then.
            keyring.add_key(1).await.map_err(started)?;
        }
        keyring.load().await.map_err(started)?;
        Ok(keyring)
    }

    /// Brings in a new keyring key, seals every entry anew under it, and deletes the keys nothing is sealed under any
    /// more. Works beside running servers; one that was broken off is finished by the next.
    ///
    /// # Errors
    /// [`KeyringError`]; what was sealed anew before stays so.
    pub async fn rotate(&self) -> Result<Rotated, KeyringError> {
        self.load().await?;
        let latest = self.sealing_version()?;
        // Whoever rotates at the same time inserts the same number, and both go on with what is there then.
        self.add_key(latest + 1).await?;
        self.load().await?;
        let version = self.sealing_version()?;
        let mut rotated = Rotated { version, resealed: 0, unopenable: 0 };
        let mut after = uuid::Uuid::nil();
        loop {
            let rows = sqlx::query(
                "SELECT id, tenant_id, provider, key_version, sealed FROM keyring
                 WHERE key_version < $1 AND id > $2 ORDER BY id LIMIT $3",
            );
            let rows = rows.bind(version).bind(after).bind(PAGE_MAX_ENTRIES);
            let rows = rows.fetch_all(&self.pool).await.map_err(unavailable)?;
            let Some(last) = rows.last() else { break };
            after = last.try_get("id").map_err(unavailable)?;
            for row in &rows {
                match self.reseal(row, version).await {
                    Ok(()) => rotated.resealed += 1,
                    Err(error @ KeyringError::Unavailable(_)) => return Err(error),
                    Err(error) => {
                        tracing::error!(%error, "an entry of the keyring cannot be sealed anew");
                        rotated.unopenable += 1;
                    }
                }
            }
        }
        self.retire(version).await?;
        Ok(rotated)
    }

    /// Entries that `read.provider_keys` does not know and that are old enough to be swept; `after` is the last one of
    /// the page before. An entry nobody can make sense of is left where it is and stands in the way of no other. None
    /// are left when the answer is empty.
    ///
    /// # Errors
    /// The database's.
    pub async fn unclaimed(&self, mut after: KeyringEntryId) -> Result<Vec<KeyringEntry>, KeyringError> {
        loop {
            let rows = sqlx::query(
                "SELECT id, tenant_id, provider FROM keyring e
                 WHERE id > $1 AND created_at < now() - make_interval(secs => $2) AND NOT EXISTS
                     (SELECT FROM read.provider_keys k WHERE k.tenant_id = e.tenant_id AND k.entry_id = e.id)
                 ORDER BY id LIMIT $3",
            );
            let rows = rows.bind(after.0).bind(f64::from(SWEEP_AFTER_SECONDS)).bind(PAGE_MAX_ENTRIES);
            let rows = rows.fetch_all(&self.pool).await.map_err(unavailable)?;
            let Some(last) = rows.last() else { return Ok(Vec::new()) };
            after = KeyringEntryId(last.try_get("id").map_err(unavailable)?);
            let mut entries = Vec::with_capacity(rows.len());
            for row in &rows {
                match entry_of(row) {
                    Ok(entry) => entries.push(entry),
                    Err(error @ KeyringError::Unavailable(_)) => return Err(error),
                    Err(error) => tracing::error!(%error, "an entry of the keyring cannot be read and is not swept"),
                }
            }
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
    }

    async fn reseal(&self, row: &PgRow, version: i32) -> Result<(), KeyringError> {
        let entry = entry_of(row)?;
        let found: i32 = row.try_get("key_version").map_err(unavailable)?;
        let sealed: Vec<u8> = row.try_get("sealed").map_err(unavailable)?;
        let secret = self.unseal(&entry, found, &sealed)?;
        let sealed = self.seal(&entry, version, &secret)?;
        // Only what was read is replaced: an entry deleted in the meantime stays deleted.
        sqlx::query("UPDATE keyring SET sealed = $2, key_version = $3 WHERE id = $1 AND key_version = $4")
            .bind(entry.entry_id.0)
            .bind(sealed)
            .bind(version)
            .bind(found)
            .execute(&self.pool)
            .await
            .map_err(unavailable)?;
        Ok(())
    }

    /// Deletes the keys before this one that nothing is sealed under.
    async fn retire(&self, version: i32) -> Result<(), KeyringError> {
        let retired = sqlx::query(
            "DELETE FROM keyring_keys k
             WHERE version < $1 AND NOT EXISTS (SELECT FROM keyring e WHERE e.key_version = k.version)",
        );
        match retired.bind(version).execute(&self.pool).await {
            // Another process is just sealing under an older one; the next rotation retires it.
            Err(error) if names_a_missing_key(&error) => {}
            done => {
                done.map_err(unavailable)?;
            }
        }
        self.load().await
    }

    /// Draws a key and keeps it under this version, unless there is one.
    async fn add_key(&self, key_version: i32) -> Result<(), KeyringError> {
        let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
        let no_numbers = |_| KeyringError::Unavailable("the system gives no random numbers".to_owned());
        aead::fill(key.as_mut_slice()).map_err(no_numbers)?;
        let wrapped = self.wrap(key_version, &key)?;
        sqlx::query(
            "INSERT INTO keyring_keys (version, wrapped, master_version) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(key_version)
        .bind(wrapped)
        .bind(self.current.version)
        .execute(&self.pool)
        .await
        .map_err(unavailable)?;
        Ok(())
    }

    /// Reads the keyring's keys, and wraps anew those the previous master key wrapped.
    async fn load(&self) -> Result<(), KeyringError> {
        let rows = sqlx::query("SELECT version, wrapped, master_version FROM keyring_keys ORDER BY version");
        let rows = rows.fetch_all(&self.pool).await.map_err(unavailable)?;
        let mut keys = BTreeMap::new();
        for row in &rows {
            let key_version: i32 = row.try_get("version").map_err(unavailable)?;
            let wrapped: Vec<u8> = row.try_get("wrapped").map_err(unavailable)?;
            let found: i32 = row.try_get("master_version").map_err(unavailable)?;
            let key = self.unwrap_key(key_version, &wrapped, found)?;
            if found != self.current.version {
                self.rewrap(key_version, &key, found).await?;
            }
            keys.insert(key_version, key);
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    async fn rewrap(&self, key_version: i32, key: &KeyringKey, found: i32) -> Result<(), KeyringError> {
        // Only what was read is replaced: another process may have wrapped it anew in the meantime.
        let update =
            "UPDATE keyring_keys SET wrapped = $2, master_version = $3 WHERE version = $1 AND master_version = $4";
        sqlx::query(update)
            .bind(key_version)
            .bind(self.wrap(key_version, key)?)
            .bind(self.current.version)
            .bind(found)
            .execute(&self.pool)
            .await
            .map_err(unavailable)?;
        tracing::info!(key_version, "a key of the keyring is wrapped by the new CALOS_MASTER_KEY from now on");
        Ok(())
    }

    fn wrap(&self, key_version: i32, key: &[u8; KEY_BYTES]) -> Result<Vec<u8>, KeyringError> {
        let Wrapping { version, key: wrapping } = &self.current;
        aead::seal(wrapping.bytes(), key, &key_binding(key_version, *version))
            .map_err(|error| KeyringError::Unavailable(error.to_string()))
    }

    fn unwrap_key(&self, key_version: i32, wrapped: &[u8], found: i32) -> Result<KeyringKey, KeyringError> {
        let another = || KeyringError::AnotherMasterKey(key_version);
        let mut wrappings = std::iter::once(&self.current).chain(&self.previous);
        let wrapping = wrappings.find(|wrapping| wrapping.version == found).ok_or_else(another)?;
        let key = aead::open(wrapping.key.bytes(), wrapped, &key_binding(key_version, found)).map_err(|_| another())?;
        let key: [u8; KEY_BYTES] = key.as_slice().try_into().map_err(|_| another())?;
        Ok(Arc::new(Zeroizing::new(key)))
    }

    /// The version of the latest key.
    fn sealing_version(&self) -> Result<i32, KeyringError> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let latest = keys.last_key_value().map(|(version, _)| *version);
        latest.ok_or_else(|| KeyringError::Unavailable("the keyring has no key".to_owned()))
    }

    fn key(&self, key_version: i32) -> Option<KeyringKey> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(&key_version).cloned()
    }

    fn seal(&self, entry: &KeyringEntry, key_version: i32, secret: &SecretText) -> Result<Vec<u8>, KeyringError> {
        let key = self.key(key_version).ok_or(KeyringError::AnotherMasterKey(key_version))?;
        aead::seal(&key, secret.expose().as_bytes(), &entry_binding(entry, key_version))
            .map_err(|error| KeyringError::Unavailable(error.to_string()))
    }

    fn unseal(&self, entry: &KeyringEntry, key_version: i32, sealed: &[u8]) -> Result<SecretText, KeyringError> {
        let tampered = || KeyringError::Tampered(entry.entry_id);
        let key = self.key(key_version).ok_or_else(tampered)?;
        let plain = aead::open(&key, sealed, &entry_binding(entry, key_version)).map_err(|_| tampered())?;
        std::str::from_utf8(&plain).map(SecretText::new).map_err(|_| tampered())
    }

    /// Seals a secret under the latest key and keeps it; answers no when that key is gone by now.
    async fn insert(&self, entry: &KeyringEntry, secret: &SecretText) -> Result<bool, KeyringError> {
        let key_version = self.sealing_version()?;
        let insert = "INSERT INTO keyring (id, tenant_id, provider, key_version, sealed) VALUES ($1, $2, $3, $4, $5)";
        let inserted = sqlx::query(insert)
            .bind(entry.entry_id.0)
            .bind(entry.tenant_id.0)
            .bind(entry.provider.as_str())
            .bind(key_version)
            .bind(self.seal(entry, key_version, secret)?)
            .execute(&self.pool)
            .await;
        match inserted {
            Ok(_) => Ok(true),
            Err(error) if names_a_missing_key(&error) => Ok(false),
            Err(error) => Err(unavailable(error)),
        }
    }
}

/// What the keyring cannot do at a start.
#[expect(clippy::needless_pass_by_value, reason = "it is used as `map_err(started)`")]
fn started(error: KeyringError) -> SecretsError {
    match error {
        KeyringError::AnotherMasterKey(_) | KeyringError::Tampered(_) => SecretsError::AnotherMasterKey,
        KeyringError::NotThere(_) | KeyringError::Unavailable(_) => {
            SecretsError::Database(sqlx::Error::Protocol(error.to_string()))
        }
    }
}

fn entry_of(row: &PgRow) -> Result<KeyringEntry, KeyringError> {
    let entry_id = KeyringEntryId(row.try_get("id").map_err(unavailable)?);
    let tenant_id = TenantId(row.try_get("tenant_id").map_err(unavailable)?);
    let provider: &str = row.try_get("provider").map_err(unavailable)?;
    let provider = provider.parse().map_err(|_| KeyringError::Tampered(entry_id))?;
    Ok(KeyringEntry { tenant_id, provider, entry_id })
}

#[async_trait]
impl ProviderKeys for Keyring {
    async fn store(&self, entry: KeyringEntry, secret: &SecretText) -> Result<(), KeyringError> {
        if self.insert(&entry, secret).await? {
            return Ok(());
        }
        // Another process rotated the keyring, and the key this one sealed with is gone.
        self.load().await?;
        if self.insert(&entry, secret).await? {
            Ok(())
        } else {
            Err(KeyringError::Unavailable("its key was rotated away twice in a row".to_owned()))
        }
    }

    async fn open(&self, entry: KeyringEntry) -> Result<SecretText, KeyringError> {
        if let Some((opened, secret)) = self.opened.get(&entry.entry_id) {
            return if opened == entry { Ok(secret) } else { Err(KeyringError::Tampered(entry.entry_id)) };
        }
        let row = sqlx::query("SELECT key_version, sealed FROM keyring WHERE id = $1").bind(entry.entry_id.0);
        let row = row.fetch_optional(&self.pool).await.map_err(unavailable)?;
        let row = row.ok_or(KeyringError::NotThere(entry.entry_id))?;
        let key_version: i32 = row.try_get("key_version").map_err(unavailable)?;
        let sealed: Vec<u8> = row.try_get("sealed").map_err(unavailable)?;
        if self.key(key_version).is_none() {
            self.load().await?;
        }
        let secret = self.unseal(&entry, key_version, &sealed)?;
        self.opened.insert(entry.entry_id, (entry, secret.clone()));
        Ok(secret)
    }

    async fn delete(&self, entry_id: KeyringEntryId) -> Result<(), KeyringError> {
        let deleted = sqlx::query("DELETE FROM keyring WHERE id = $1").bind(entry_id.0).execute(&self.pool).await;
        // Forgotten in memory either way; if the database did not answer, the caller or the sweep tries again.
        self.opened.invalidate(&entry_id);
        deleted.map_err(unavailable)?;
        Ok(())
    }
}
