//! The three secrets CALOS cannot run without: taken from the environment, or drawn once and kept in the data folder while
//! developing.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use super::values::{MASTER_KEY_BYTES, MasterKey, Secret};
use super::vars::{ConfigError, Vars};
use super::{Environment, create_data_dir};

/// The shortest secret production accepts, in characters.
pub const SECRET_MIN_CHARS: usize = 32;

const GENERATED_BYTES: usize = 48;
const MASTER_KEY_EXPECTATION: &str = "base64 of exactly 32 bytes (openssl rand -base64 32)";

/// How what people leave in place of a secret begins, in lower case and without punctuation.
const PLACEHOLDER_BEGINNINGS: [&str; 8] = [
    "random32charstring",
    "changeme",
    "changethis",
    "replaceme",
    "yoursecret",
    "yourjwt",
    "yoursession",
    "placeholder",
];

/// The secrets everything else is derived from or signed with.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// `JWT_SECRET`: signs session tokens.
    pub jwt: Secret,
    /// `SESSION_SECRET`: signs and seals cookies and short-lived state.
    pub session: Secret,
    /// `CALOS_MASTER_KEY`: wraps every stored secret.
    pub master_key: MasterKey,
    /// `CALOS_MASTER_KEY_PREVIOUS`: still unwraps, while a rotation is under way.
    pub master_key_previous: Option<MasterKey>,
}

impl Secrets {
    /// Takes each secret from `vars`; in development one that is missing is drawn and kept under `data_dir` with mode 0600.
    pub(super) fn resolve(vars: &Vars, environment: Environment, data_dir: &Path) -> Result<Self, ConfigError> {
        let store = SecretFolder { path: data_dir.join("secrets") };
        Ok(Self {
            jwt: signing_secret("JWT_SECRET", vars, environment, &store)?,
            session: signing_secret("SESSION_SECRET", vars, environment, &store)?,
            master_key: master_key(vars, environment, &store)?,
            master_key_previous: given_master_key("CALOS_MASTER_KEY_PREVIOUS", vars)?,
        })
    }
}

fn signing_secret(
    name: &'static str,
    vars: &Vars,
    environment: Environment,
    store: &SecretFolder,
) -> Result<Secret, ConfigError> {
    const NEEDS: &str = "one of its own of at least 32 characters (openssl rand -base64 48)";
    let Some(given) = vars.get(name) else {
        return match environment {
            Environment::Production => Err(ConfigError::Missing {
                name,
                why: "CALOS_ENV=production needs one of its own of at least 32 characters (openssl rand -base64 48)",
            }),
            Environment::Development => {
                store.get_or_draw(name, || draw().map(|bytes| encode_url_safe(bytes.as_slice())))
            }
        };
    };
    if environment == Environment::Production {
        if is_placeholder(given) {
            return Err(ConfigError::Weak { name, problem: "is a default everybody knows", needs: NEEDS });
        }
        if given.chars().count() < SECRET_MIN_CHARS {
            return Err(ConfigError::Weak { name, problem: "is too short", needs: NEEDS });
        }
    }
    Ok(Secret::new(given))
}

fn master_key(vars: &Vars, environment: Environment, store: &SecretFolder) -> Result<MasterKey, ConfigError> {
    const NAME: &str = "CALOS_MASTER_KEY";
    match given_master_key(NAME, vars)? {
        Some(key) if environment == Environment::Production && key.is_trivial() => Err(ConfigError::Weak {
            name: NAME,
            problem: "is one byte repeated",
            needs: "32 random bytes in base64 (openssl rand -base64 32)",
        }),
        Some(key) => Ok(key),
        None if environment == Environment::Production => Err(ConfigError::Missing {
            name: NAME,
            why: "CALOS_ENV=production needs 32 random bytes in base64 (openssl rand -base64 32)",
        }),
        None => {
            let text = store.get_or_draw(NAME, || {
                let bytes = draw()?;
                Ok(Zeroizing::new(STANDARD.encode(&bytes[..MASTER_KEY_BYTES])))
            })?;
            MasterKey::from_base64(text.expose())
                .ok_or(ConfigError::InvalidSecret { name: NAME, expected: MASTER_KEY_EXPECTATION })
        }
    }
}

fn given_master_key(name: &'static str, vars: &Vars) -> Result<Option<MasterKey>, ConfigError> {
    let Some(text) = vars.get(name) else { return Ok(None) };
    MasterKey::from_base64(text).map(Some).ok_or(ConfigError::InvalidSecret { name, expected: MASTER_KEY_EXPECTATION })
}

/// Whether `text` is what people leave in place of a secret, or one character repeated.
fn is_placeholder(text: &str) -> bool {
    let letters: String =
        text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    let first = text.chars().next();
    PLACEHOLDER_BEGINNINGS.iter().any(|beginning| letters.starts_with(beginning))
        || text.chars().all(|character| Some(character) == first)
}

fn draw() -> Result<Zeroizing<[u8; GENERATED_BYTES]>, ConfigError> {
    let mut bytes = Zeroizing::new([0; GENERATED_BYTES]);
    OsRng.try_fill_bytes(bytes.as_mut_slice()).map_err(|error| ConfigError::Io {
        doing: "drawing a secret from",
        path: PathBuf::from("the system's random numbers"),
        source: std::io::Error::other(error),
    })?;
    Ok(bytes)
}

fn encode_url_safe(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes))
}

/// The folder, of mode 0700, that keeps one file per drawn secret, of mode 0600.
struct SecretFolder {
    path: PathBuf,
}

impl SecretFolder {
    /// The kept secret, or a new one. Two processes that start at once end with the same: the file appears whole, by a link
    /// that fails when it is there already.
    fn get_or_draw(
        &self,
        name: &str,
        draw: impl FnOnce() -> Result<Zeroizing<String>, ConfigError>,
    ) -> Result<Secret, ConfigError> {
        let file = self.path.join(name.to_ascii_lowercase());
        if let Some(kept) = read(&file)? {
            return Ok(kept);
        }
        if let Some(data_dir) = self.path.parent() {
            create_data_dir(data_dir).map_err(|source| ConfigError::Io {
                doing: "creating",
                path: data_dir.to_owned(),
                source,
            })?;
        }
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Err(source) if source.kind() != ErrorKind::AlreadyExists => {
                return Err(ConfigError::Io { doing: "creating", path: self.path.clone(), source });
            }
            Ok(()) | Err(_) => {}
        }
        let draft = self.path.join(format!(".{}.{}", name.to_ascii_lowercase(), uuid::Uuid::new_v4()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| {
                file.write_all(draw_text(draw)?.as_bytes())?;
                file.write_all(b"\n")?;
                file.sync_all()
            })
            .and_then(|()| match fs::hard_link(&draft, &file) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                other => other,
            });
        let removed = fs::remove_file(&draft);
        written.and(removed).map_err(|source| ConfigError::Io { doing: "writing", path: file.clone(), source })?;
        read(&file)?.ok_or_else(|| ConfigError::Io {
            doing: "reading",
            path: file.clone(),
            source: std::io::Error::new(ErrorKind::UnexpectedEof, "the file is empty; remove it to have one drawn"),
        })
    }
}

fn draw_text(draw: impl FnOnce() -> Result<Zeroizing<String>, ConfigError>) -> std::io::Result<Zeroizing<String>> {
    draw().map_err(std::io::Error::other)
}

fn read(file: &Path) -> Result<Option<Secret>, ConfigError> {
    match fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(Secret::new(Zeroizing::new(text).trim()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Io { doing: "reading", path: file.to_owned(), source }),
    }
}
