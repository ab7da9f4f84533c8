//! A data key for each subject, wrapped by the master key: what makes personal data in an append-only log erasable.
//!
//! Destroying a subject's key makes everything sealed under it unreadable, here and in every backup of the log. That a key
//! is gone on purpose stands in the log (`account_erased`): from then on none is opened for the subject and none is made,
//! whatever the table says. A key that is missing without that is a fault, and is called one.

mod rewrap;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

pub use rewrap::{REWRAP_PAGE_MAX_KEYS, Rewrapped};

/// Data keys kept in memory at a time.
const CACHE_MAX_KEYS: u64 = 100_000;

/// How long an unwrapped key is kept, unless it is forgotten before: whoever follows the log forgets the key of somebody
/// who was erased within a second.
const CACHE_SECONDS: u64 = 60;

/// How long an erasure waits for those who are making keys.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '15s'";

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
    /// How often anything was forgotten: a look-up that began before does not put it back.
    forgotten: AtomicU64,
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
            forgotten: AtomicU64::new(0),
        }
    }

    /// Whether the table holds a key that neither master key opens.
    ///
    /// # Errors
    /// The database's.
    pub async fn holds_unopenable(&self) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM subject_keys WHERE master_version <> ALL($1))")
            .bind(self.known())
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
        let begun = self.forgotten.load(Ordering::SeqCst);
        let row = sqlx::query(
            "SELECT k.wrapped_key, k.master_version, EXISTS (SELECT FROM events
                 WHERE aggregate_type = 'account' AND aggregate_id = $1::uuid::text AND event_type = 'account_erased') AS erased
             FROM (VALUES ($1::uuid)) AS s (subject) LEFT JOIN subject_keys k USING (subject)",
        )
        .bind(subject.0)
        .fetch_one(&self.pool)
        .await
        .map_err(unavailable)?;
        if row.try_get("erased").map_err(unavailable)? {
            return Err(SealError::Erased(subject));
        }
        let wrapped: Option<Vec<u8>> = row.try_get("wrapped_key").map_err(unavailable)?;
        let found: Option<i32> = row.try_get("master_version").map_err(unavailable)?;
        let (Some(wrapped), Some(found)) = (wrapped, found) else { return Err(SealError::Missing(subject)) };
        let key = self.unwrap_key(subject, &wrapped, found)?;
        if found != self.current.version {
            self.rewrap(subject, &key, found).await?;
        }
        self.remember(begun, subject, Arc::clone(&key));
        Ok(key)
    }

    /// Keeps a key, unless anything was forgotten since its look-up began.
    fn remember(&self, begun: u64, subject: SubjectId, key: DataKey) {
        self.cache.insert(subject, key);
        // Whoever forgets raises the count before it removes: either it is seen here, or it removes what was inserted.
        if self.forgotten.load(Ordering::SeqCst) != begun {
            self.cache.invalidate(&subject);
        }
    }

    /// Reads the subject's key anew when it is next needed.
    pub fn forget(&self, subject: SubjectId) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.cache.invalidate(&subject);
    }

    /// Reads every key anew when it is next needed.
    pub fn forget_all(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.cache.invalidate_all();
    }

    /// Destroys the key of a subject that the log says was erased; answers whether there was one. Whoever is making a key
    /// right now has made it before, or does not make it: none is left behind.
    ///
    /// # Errors
    /// [`SealError::Unavailable`], with the key as it was.
    pub async fn erase(&self, subject: SubjectId) -> Result<bool, SealError> {
        let erase = async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
            sqlx::query("LOCK TABLE subject_keys IN SHARE ROW EXCLUSIVE MODE").execute(&mut *transaction).await?;
            let destroy = sqlx::query("DELETE FROM subject_keys WHERE subject = $1").bind(subject.0);
            let destroyed = destroy.execute(&mut *transaction).await?.rows_affected();
            transaction.commit().await?;
            Ok(destroyed > 0)
        };
        let erased = erase.await.map_err(unavailable);
        self.forget(subject);
        erased
    }
}

#[async_trait]
impl PersonalData for SubjectKeys {
    async fn create_key(&self, subject: SubjectId) -> Result<(), SealError> {
        let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
        aead::fill(key.as_mut_slice()).map_err(unsealable(subject, "data key"))?;
        let key: DataKey = Arc::new(key);
        let begun = self.forgotten.load(Ordering::SeqCst);
        let created = sqlx::query(
            "INSERT INTO subject_keys (subject, wrapped_key, master_version) SELECT $1::uuid, $2, $3
             WHERE NOT EXISTS (SELECT FROM events WHERE aggregate_type = 'account' AND aggregate_id = $1::uuid::text
                 AND event_type = 'account_erased')
             ON CONFLICT (subject) DO NOTHING",
        )
        .bind(subject.0)
        .bind(self.wrap(subject, &key)?)
        .bind(self.current.version)
        .execute(&self.pool)
        .await
        .map_err(unavailable)?;
        if created.rows_affected() == 1 {
            self.remember(begun, subject, key);
            return Ok(());
        }
        // It has one, or must not have one.
        self.key(subject).await.map(drop)
    }

    async fn destroy_key(&self, subject: SubjectId) -> Result<(), SealError> {
        let destroy = sqlx::query("DELETE FROM subject_keys WHERE subject = $1").bind(subject.0);
        let destroyed = destroy.execute(&self.pool).await.map_err(unavailable);
        // Forgotten in memory either way; if the database did not answer, the caller has to try again.
        self.forget(subject);
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
