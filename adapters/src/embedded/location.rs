//! Where the cluster lives: in the data folder, or, when PostgreSQL's user cannot reach that, under `/var/lib/calos`.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::OWNER_ROLE;
use super::account::Account;
use super::error::{ClusterError, Doing as _};
use super::files::{create_dir, read_if_there, write_whole};
use crate::config::create_data_dir;

/// Where clusters go whose data folder is closed to PostgreSQL's user.
const SYSTEM_FOLDER: &str = "/var/lib/calos";
/// In the data folder, names the cluster's folder when that is elsewhere.
const POINTER_FILE: &str = "postgres-location";
/// The longest path of a socket that every platform takes, in bytes.
const SOCKET_PATH_MAX_BYTES: usize = 100;
/// The port is only a part of the socket's name: nothing listens on the network.
pub(super) const SOCKET_PORT: u16 = 5432;

/// The folder of a cluster and who runs it.
#[derive(Debug, Clone)]
pub(super) struct Location {
    folder: PathBuf,
    socket_dir: PathBuf,
    pub account: Account,
}

impl Location {
    /// Finds the folder of the data folder's cluster, or chooses and prepares one. Doing so twice, or in two processes at
    /// once, gives the same.
    pub(super) fn resolve(data_dir: &Path, account: Account) -> Result<Self, ClusterError> {
        create_data_dir(data_dir).doing("creating", data_dir)?;
        let data_dir = &data_dir.canonicalize().doing("resolving", data_dir)?;
        let inside = data_dir.join("postgres");
        let pointer = data_dir.join(POINTER_FILE);
        let folder = if let Some(elsewhere) = read_if_there(&pointer)? {
            let elsewhere = PathBuf::from(elsewhere.trim());
            if !elsewhere.join("data").exists() && !elsewhere.exists() {
                return Err(ClusterError::Unreachable {
                    folder: elsewhere,
                    user: account.name,
                    why: format!("it is gone; bring it back, or remove {} to begin anew", pointer.display()),
                });
            }
            elsewhere
        } else if inside.join("data").exists() || (account.can_enter(data_dir) && prepare(&inside, &account)?) {
            inside
        } else {
            let elsewhere = Path::new(SYSTEM_FOLDER).join(folder_name(data_dir));
            create_system_folder()?;
            if !prepare(&elsewhere, &account)? {
                return Err(ClusterError::Unreachable {
                    folder: elsewhere,
                    user: account.name,
                    why: "it can reach neither this folder nor the data folder; set CALOS_DATA_DIR to one it can reach"
                        .into(),
                });
            }
            write_whole(&pointer, 0o644, &format!("{}\n", elsewhere.display()))?;
            elsewhere
        };
        if !prepare(&folder, &account)? {
            return Err(ClusterError::Unreachable {
                why: "let it enter every folder above (chmod o+x)".to_owned(),
                user: account.name,
                folder,
            });
        }
        let folder = folder.canonicalize().doing("resolving", &folder)?;
        let socket_dir = socket_dir(&folder, &account)?;
        Ok(Self { folder, socket_dir, account })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn lock_file(&self) -> PathBuf {
        self.folder.join("lock")
    }

    pub(super) fn leases_dir(&self) -> PathBuf {
        self.folder.join("leases")
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    pub(super) fn settings_file(&self) -> PathBuf {
        self.folder.join("calos.conf")
    }

    pub(super) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    pub(super) fn socket_file(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{SOCKET_PORT}"))
    }

    pub(super) fn socket_lock_file(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{SOCKET_PORT}.lock"))
    }

    pub(super) fn url(&self, database: &str) -> String {
        let mut socket_dir = String::new();
        for byte in self.socket_dir.as_os_str().as_encoded_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                    socket_dir.push(char::from(*byte))
                }
                // Writing to a String cannot fail.
                other => drop(write!(socket_dir, "%{other:02X}")),
            }
        }
        format!("postgres:///{database}?host={socket_dir}&port={SOCKET_PORT}&user={OWNER_ROLE}")
    }
}

fn create_system_folder() -> Result<(), ClusterError> {
    let folder = Path::new(SYSTEM_FOLDER);
    if let Some(parent) = folder.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).doing("creating", parent)?;
    }
    create_dir(folder, 0o711).map(|_| ())
}

/// Creates the folder of a cluster with what CALOS keeps in it and the folder of the socket, which PostgreSQL's user gets;
/// whether that user can use it.
fn prepare(folder: &Path, account: &Account) -> Result<bool, ClusterError> {
    create_dir(folder, if account.is_other() { 0o711 } else { 0o700 })?;
    create_dir(&folder.join("leases"), 0o700)?;
    let socket = folder.join("socket");
    create_dir(&socket, 0o700)?;
    // A mounted folder may refuse a change of owner: then it is of no use, which the question below finds out.
    if account.own(&socket).is_err() {
        return Ok(false);
    }
    Ok(account.can_use(&socket))
}

/// The folder of the socket: the cluster's own, or a short one of the same owner where that path would be too long.
fn socket_dir(folder: &Path, account: &Account) -> Result<PathBuf, ClusterError> {
    let own = folder.join("socket");
    let file_name_bytes = format!("/.s.PGSQL.{SOCKET_PORT}.lock").len();
    if own.as_os_str().len() + file_name_bytes <= SOCKET_PATH_MAX_BYTES {
        return Ok(own);
    }
    let short = Path::new("/tmp").join(format!("calos-{}", digest(folder)));
    create_dir(&short, 0o700)?;
    let metadata = fs::symlink_metadata(&short).doing("reading", &short)?;
    // Anybody may create a folder of this name first: one that is not ours is refused, never used.
    let ours = [account.user_id(), rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    if !metadata.is_dir() || !ours {
        return Err(std::io::Error::from(ErrorKind::PermissionDenied)).doing("using the socket folder", &short);
    }
    account.own(&short)?;
    Ok(short)
}

/// A name that says which data folder it is and differs for every path.
fn folder_name(data_dir: &Path) -> String {
    let readable: String = data_dir
        .to_string_lossy()
        .trim_matches('/')
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || letter == '.' || letter == '_' { letter } else { '-' })
        .collect();
    let start = readable.len().saturating_sub(40);
    format!("{}-{}", readable[start..].trim_matches(['-', '.']), digest(data_dir))
}

fn digest(path: &Path) -> String {
    hex::encode(&Sha256::digest(path.as_os_str().as_encoded_bytes())[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_data_folders_with_the_same_letters_have_different_names() {
        let one = folder_name(Path::new("/home/ann/calos/.calos"));
        let other = folder_name(Path::new("/home/ann-calos/.calos"));
        assert_ne!(one, other);
        assert!(one.starts_with("home-ann-calos-.calos-"), "{one}");
        assert!(folder_name(&Path::new("/").join("x".repeat(300))).len() < 60);
    }
}
