//! A data key for each subject, wrapped by the master key: what makes personal data in an append-only log erasable.
//!
//! Destroying a subject's key makes everything sealed under it unreadable, here and in every backup of the log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use moka::sync::Cache;
use sqlx::{PgPool, Row};
use zeroize::Zeroizing;

use calos_commands::ports::{PersonalData, SealError};
use calos_domain::SubjectId;
use calos_domain::sealed::Sealed;

use super::aead;
use super::master_key::{DerivedKey, KeyLabel, derive, version};
use crate::config::MasterKey;

/// Data keys kept in memory at a time.
const CACHE_MAX_KEYS: u64 = 100_000;

/// How long an unwrapped key is kept: the longest an erasure in another process can go unnoticed here.
const CACHE_SECONDS: u64 = 60;

/// Bytes of a data key.
const KEY_BYTES: usize = 32;

type DataKey = Arc<Zeroizing<[u8; KEY_BYTES]>>;

/// One master key, as far as wrapping goes.
struct Wrapping {
    version: i32,
    key: DerivedKey,
}

impl Wrapping {
    fn of(master: &MasterKey) -> Self {
        Self { version: version(master), key: derive(master.expose(), KeyLabel::Wrapping) }
    }
}

/// The subjects' keys, in the table `subject_keys`.
pub struct SubjectKeys {
    pool: PgPool,
    current: Wrapping,
    previous: Option<Wrapping>,
    cache: Cache<SubjectId, DataKey>,
}

impl fmt::Debug for SubjectKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectKeys").field("cached", &self.cache.entry_count()).finish_non_exhaustive()
    }
}

/// What a wrapped key is bound to: moved to another subject's row, it does not open.
fn wrap_binding(subject: SubjectId, version: i32) -> Vec<u8> {
    [b"calos/subject-key/v1\0".as_slice(), subject.0.as_bytes(), &version.to_be_bytes()].concat()
}

/// What a sealed text is bound to: moved to another subject or another field, it does not open.
fn text_binding(subject: SubjectId, label: &str) -> Vec<u8> {
    [b"calos/sealed/v1\0".as_slice(), subject.0.as_bytes(), label.as_bytes()].concat()
}

#[expect(clippy::needless_pass_by_value, reason = "it is used as `map_err(unavailable)`")]
fn unavailable(error: sqlx::Error) -> SealError {
    SealError::Unavailable(error.to_string())
}

fn unsealable(subject: SubjectId, label: &'static str) -> impl Fn(aead::Unopenable) -> SealError {
    move |_| SealError::Tampered { subject, label }
}

impl SubjectKeys {
    /// Keys in this database, wrapped by this master key or, while rotating, by the one before.
    #[must_use]
    pub fn new(pool: PgPool, master: &MasterKey, previous: Option<&MasterKey>) -> Self {
        Self {
            pool,
            current: Wrapping::of(master),
            previous: previous.map(Wrapping::of),
            cache: Cache::builder()
                .max_capacity(CACHE_MAX_KEYS)
                .time_to_live(Duration::from_secs(CACHE_SECONDS))
                .build(),
        }
    }

    /// Whether the table holds a key that neither master key opens.
    ///
    /// # Errors
    /// The database's.
    pub async fn holds_unopenable(&self) -> Result<bool, sqlx::Error> {
        let mut known = vec![self.current.version];
        known.extend(self.previous.as_ref().map(|previous| previous.version));
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM subject_keys WHERE master_version <> ALL($1))")
            .bind(known)
            .fetch_one(&self.pool)
            .await
    }

    /// Wraps the subject's key with the current master key, if it was wrapped by the previous one.
    async fn rewrap(&self, subject: SubjectId, key: &DataKey, found: i32) -> Result<(), SealError> {
        let wrapped = self.wrap(subject, key)?;
        // Only what was read is replaced: a key destroyed or wrapped anew in the meantime stays as it is.
        sqlx::query(
            "UPDATE subject_keys SET wrapped_key = $2, master_version = $3 WHERE subject = $1 AND master_version = $4",
        )
        .bind(subject.0)
        .bind(wrapped)
        .bind(self.current.version)
        .bind(found)
        .execute(&self.pool)
        .await
        .map_err(unavailable)?;
        Ok(())
    }

    fn wrap(&self, subject: SubjectId, key: &DataKey) -> Result<Vec<u8>, SealError> {
        let Wrapping { version, key: wrapping } = &self.current;
        aead::seal(wrapping.bytes(), key.as_slice(), &wrap_binding(subject, *version))
            .map_err(unsealable(subject, "data key"))
    }

    fn unwrap_key(&self, subject: SubjectId, wrapped: &[u8], found: i32) -> Result<DataKey, SealError> {
        let mut wrappings = std::iter::once(&self.current).chain(&self.previous);
        let wrapping =
            wrappings.find(|wrapping| wrapping.version == found).ok_or(SealError::AnotherMasterKey(subject))?;
        let tampered = || SealError::Tampered { subject, label: "data key" };
        let key = aead::open(wrapping.key.bytes(), wrapped, &wrap_binding(subject, found)).map_err(|_| tampered())?;
        let key: [u8; KEY_BYTES] = key.as_slice().try_into().map_err(|_| tampered())?;
        Ok(Arc::new(Zeroizing::new(key)))
    }

    async fn key(&self, subject: SubjectId) -> Result<DataKey, SealError> {
        if let Some(key) = self.cache.get(&subject) {
            return Ok(key);
        }
        let row = sqlx::query("SELECT wrapped_key, master_version FROM subject_keys WHERE subject = $1")
            .bind(subject.0)
            .fetch_optional(&self.pool)
            .await
            .map_err(unavailable)?
            .ok_or(SealError::Erased(subject))?;
        let wrapped: Vec<u8> = row.try_get("wrapped_key").map_err(unavailable)?;
        let found: i32 = row.try_get("master_version").map_err(unavailable)?;
        let key = self.unwrap_key(subject, &wrapped, found)?;
        if found != self.current.version {
            self.rewrap(subject, &key, found).await?;
        }
        self.cache.insert(subject, Arc::clone(&key));
        Ok(key)
    }
}

#[async_trait]
impl PersonalData for SubjectKeys {
    async fn create_key(&self, subject: SubjectId) -> Result<(), SealError> {
        let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
        aead::fill(key.as_mut_slice()).map_err(unsealable(subject, "data key"))?;
        let key: DataKey = Arc::new(key);
        let created = sqlx::query(
            "INSERT INTO subject_keys (subject, wrapped_key, master_version) VALUES ($1, $2, $3)
             ON CONFLICT (subject) DO NOTHING",
        )
        .bind(subject.0)
        .bind(self.wrap(subject, &key)?)
        .bind(self.current.version)
        .execute(&self.pool)
        .await
        .map_err(unavailable)?;
        if created.rows_affected() == 1 {
            self.cache.insert(subject, key);
        }
        Ok(())
    }

    async fn destroy_key(&self, subject: SubjectId) -> Result<(), SealError> {
        let destroy = sqlx::query("DELETE FROM subject_keys WHERE subject = $1").bind(subject.0);
        let destroyed = destroy.execute(&self.pool).await.map_err(unavailable);
        // Forgotten in memory either way; if the database did not answer, the caller has to try again.
        self.cache.invalidate(&subject);
        destroyed.map(drop)
    }

    async fn seal(&self, subject: SubjectId, label: &'static str, text: &str) -> Result<Sealed, SealError> {
        let key = self.key(subject).await?;
        let sealed = aead::seal(&key, text.as_bytes(), &text_binding(subject, label));
        let ciphertext = STANDARD.encode(sealed.map_err(unsealable(subject, label))?);
        Ok(Sealed { subject, ciphertext })
    }

    async fn open(&self, sealed: &Sealed, label: &'static str) -> Result<String, SealError> {
        let subject = sealed.subject;
        let tampered = || SealError::Tampered { subject, label };
        let key = self.key(subject).await?;
        let bytes = STANDARD.decode(&sealed.ciphertext).map_err(|_| tampered())?;
        let plain = aead::open(&key, &bytes, &text_binding(subject, label)).map_err(unsealable(subject, label))?;
        std::str::from_utf8(&plain).map(str::to_owned).map_err(|_| tampered())
    }
}
