//! Passwords: which are taken, how they are hashed, and how they are compared.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use calos_commands::ports::{
    HashError, PASSWORD_MAX_CHARACTERS, PASSWORD_MIN_CHARACTERS, PasswordHasher, SecretText, WeakPassword,
};

use super::bcrypt_pool::{BcryptPool, HashingCores};
use super::common_passwords::is_common;
use super::master_key::DerivedKey;

/// bcrypt over a keyed hash of the password: bcrypt reads 72 bytes and stops at a NUL, its input here is always 44
/// characters of base64, so that every character of a long password counts. Without the pepper, which stands in no
/// database, a stolen hash cannot even be guessed at.
pub struct Passwords {
    pepper: DerivedKey,
    pool: BcryptPool,
    decoy: String,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl Passwords {
    /// Hashes with this pepper and 2^`cost` rounds on these cores. Hashes once itself: the decoy that unknown accounts are compared with.
    ///
    /// # Errors
    /// A cost bcrypt does not know.
    pub fn new(pepper: DerivedKey, cost: u32, cores: &HashingCores) -> Result<Self, HashError> {
        let nobody = peppered(&pepper, "nobody's password");
        let decoy = bcrypt::hash(nobody.as_bytes(), cost).map_err(|error| HashError::Failed(error.to_string()))?;
        Ok(Self { pool: BcryptPool::new(cost, cores), pepper, decoy })
    }
}

fn peppered(pepper: &DerivedKey, password: &str) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(pepper.hash(&[password.as_bytes()])))
}

/// What bcrypt is given: wiped when the hashing thread is done with it.
struct Peppered(Zeroizing<String>);

impl AsRef<[u8]> for Peppered {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[async_trait]
impl PasswordHasher for Passwords {
    fn check(&self, password: &str) -> Result<(), WeakPassword> {
        // Counted no further than needed: a body may hold megabytes.
        let characters = password.chars().count();
        if characters < PASSWORD_MIN_CHARACTERS {
            return Err(WeakPassword::TooShort { characters });
        }
        if characters > PASSWORD_MAX_CHARACTERS {
            return Err(WeakPassword::TooLong { characters });
        }
        if is_common(password) { Err(WeakPassword::Common) } else { Ok(()) }
    }

    async fn hash(&self, password: &str) -> Result<SecretText, HashError> {
        self.pool.hash(Peppered(peppered(&self.pepper, password))).await.map(SecretText::new)
    }

    async fn verify(&self, password: &str, hash: Option<&SecretText>) -> Result<bool, HashError> {
        let compared = hash.map_or(self.decoy.as_str(), SecretText::expose).to_owned();
        let same = self.pool.verify(Peppered(peppered(&self.pepper, password)), compared).await?;
        Ok(same && hash.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::{KeyLabel, derive};

    /// As cheap as bcrypt goes.
    const COST: u32 = 4;

    fn passwords(byte: u8) -> Passwords {
        Passwords::new(derive(&[byte; 32], KeyLabel::Pepper), COST, &HashingCores::of_machine()).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_recognised_and_another_is_not() {
        let passwords = passwords(1);
        let hash = passwords.hash("SecurePass123!").await.unwrap();
        assert!(hash.expose().starts_with("$2b$04$"));
        assert!(passwords.verify("SecurePass123!", Some(&hash)).await.unwrap());
        assert!(!passwords.verify("SecurePass123?", Some(&hash)).await.unwrap());
    }

    #[tokio::test]
    async fn every_character_of_a_long_password_counts_and_a_nul_hides_nothing() {
        let passwords = passwords(1);
        let long = "x".repeat(200);
        let hash = passwords.hash(&format!("{long}a")).await.unwrap();
        assert!(!passwords.verify(&format!("{long}b"), Some(&hash)).await.unwrap());
        let hash = passwords.hash("before\0after").await.unwrap();
        assert!(!passwords.verify("before\0other", Some(&hash)).await.unwrap());
    }

    #[tokio::test]
    async fn a_hash_is_worth_nothing_under_another_pepper() {
        let hash = passwords(1).hash("SecurePass123!").await.unwrap();
        assert!(!passwords(2).verify("SecurePass123!", Some(&hash)).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_signs_in_to_an_unknown_account_not_even_with_the_decoys_password() {
        assert!(!passwords(1).verify("nobody's password", None).await.unwrap());
        assert!(!passwords(1).verify("SecurePass123!", None).await.unwrap());
    }

    #[test]
    fn short_long_and_common_passwords_are_refused_with_the_reason() {
        let passwords = passwords(1);
        assert_eq!(passwords.check("test123"), Err(WeakPassword::TooShort { characters: 7 }));
        assert_eq!(passwords.check(&"ü".repeat(257)), Err(WeakPassword::TooLong { characters: 257 }));
        assert_eq!(passwords.check(&"ü".repeat(256)), Ok(()));
        assert_eq!(passwords.check("Password1"), Err(WeakPassword::Common));
        assert_eq!(passwords.check("SecurePass123!"), Ok(()));
    }

    #[test]
    fn passwords_do_not_show_their_pepper() {
        assert!(!format!("{:?}", passwords(1)).contains("pepper"));
    }
}
