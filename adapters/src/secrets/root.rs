//! The root secret: 32 bytes drawn once for each database, kept in it wrapped by the master key. What must outlive a
//! master key is derived from it, so that changing the master key means wrapping 32 bytes anew and nothing else.

use sqlx::{PgPool, Row};
use zeroize::Zeroizing;

use super::SecretsError;
use super::aead;
use super::master_key::{KeyLabel, derive, version};
use crate::config::MasterKey;

const ROOT_BYTES: usize = 32;

/// The secret that a database's lasting keys are derived from; wiped when dropped, never shown.
#[derive(Clone)]
pub struct RootSecret(Zeroizing<[u8; ROOT_BYTES]>);

impl std::fmt::Debug for RootSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootSecret(..)")
    }
}

/// What a wrapped root is bound to: it opens under the master key it names and as nothing else.
fn binding(version: i32) -> Vec<u8> {
    [b"calos/root-secret/v1\0".as_slice(), &version.to_be_bytes()].concat()
}

impl RootSecret {
    /// The bytes, for the key derivation.
    pub(super) fn expose(&self) -> &[u8; ROOT_BYTES] {
        &self.0
    }

    /// The root of this database, drawn now if it has none. One that the previous master key wrapped is wrapped anew by
    /// the current one, so that the previous one is needed for one start alone.
    ///
    /// # Errors
    /// [`SecretsError::AnotherMasterKey`] when neither key opens it; the database's.
    pub async fn open(pool: &PgPool, master: &MasterKey, previous: Option<&MasterKey>) -> Result<Self, SecretsError> {
        let current = version(master);
        let (wrapped, found) = match Self::kept(pool).await? {
            Some(kept) => kept,
            None => {
                let drawn = Self::draw()?.wrap(master)?;
                // Of two processes that start at once, one inserts; both go on with what is there then.
                sqlx::query(
                    "INSERT INTO secrets_root (wrapped, master_version) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                )
                .bind(drawn)
                .bind(current)
                .execute(pool)
                .await?;
                Self::kept(pool).await?.ok_or(sqlx::Error::RowNotFound)?
            }
        };
        if found == current {
            return Self::unwrap(&wrapped, master);
        }
        let previous = previous.filter(|key| version(key) == found).ok_or(SecretsError::AnotherMasterKey)?;
        let root = Self::unwrap(&wrapped, previous)?;
        // Only what was read is replaced: another process may have wrapped it anew in the meantime.
        sqlx::query("UPDATE secrets_root SET wrapped = $1, master_version = $2 WHERE master_version = $3")
            .bind(root.wrap(master)?)
            .bind(current)
            .bind(found)
            .execute(pool)
            .await?;
        tracing::info!("the root secret is wrapped by the new CALOS_MASTER_KEY from now on");
        Ok(root)
    }

    /// A root that stands elsewhere, such as in a backup, wrapped by either key.
    ///
    /// # Errors
    /// [`SecretsError::AnotherMasterKey`] when neither opens it.
    pub fn from_wrapped(
        wrapped: &[u8],
        found: i32,
        master: &MasterKey,
        previous: Option<&MasterKey>,
    ) -> Result<Self, SecretsError> {
        let mut keys = std::iter::once(master).chain(previous);
        let key = keys.find(|key| version(key) == found).ok_or(SecretsError::AnotherMasterKey)?;
        Self::unwrap(wrapped, key)
    }

    /// The wrapped root and the number of the master key that wrapped it.
    async fn kept(pool: &PgPool) -> Result<Option<(Vec<u8>, i32)>, sqlx::Error> {
        let row = sqlx::query("SELECT wrapped, master_version FROM secrets_root").fetch_optional(pool).await?;
        row.map(|row| Ok((row.try_get("wrapped")?, row.try_get("master_version")?))).transpose()
    }

    fn draw() -> Result<Self, SecretsError> {
        let mut bytes = Zeroizing::new([0_u8; ROOT_BYTES]);
        aead::fill(bytes.as_mut_slice()).map_err(|_| SecretsError::Root)?;
        Ok(Self(bytes))
    }

    fn wrap(&self, master: &MasterKey) -> Result<Vec<u8>, SecretsError> {
        let key = derive(master.expose(), KeyLabel::RootWrapping);
        aead::seal(key.bytes(), self.0.as_slice(), &binding(version(master))).map_err(|_| SecretsError::Root)
    }

    fn unwrap(wrapped: &[u8], master: &MasterKey) -> Result<Self, SecretsError> {
        let key = derive(master.expose(), KeyLabel::RootWrapping);
        let bytes = aead::open(key.bytes(), wrapped, &binding(version(master)));
        let bytes = bytes.map_err(|_| SecretsError::AnotherMasterKey)?;
        let bytes: [u8; ROOT_BYTES] = bytes.as_slice().try_into().map_err(|_| SecretsError::AnotherMasterKey)?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}
