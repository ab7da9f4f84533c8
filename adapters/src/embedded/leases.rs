//! Who uses the cluster: a locked file per user. The system gives the lock of a dead process back, so a lease cannot outlive
//! its holder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::{ClusterError, Doing as _};

/// How long the cluster's lock is waited for, in seconds: a first start with a slow disk fits well within it.
const LOCK_TIMEOUT_SECONDS: u64 = 180;
const LOCK_POLL: Duration = Duration::from_millis(10);

/// A lock between processes, by a file.
pub(super) struct LockFile {
    path: PathBuf,
}

/// The lock while it is held.
pub(super) struct Held {
    file: File,
}

impl LockFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn acquire(&self) -> Result<Held, ClusterError> {
        let file = open(&self.path)?;
        lock(&file, &self.path)?;
        Ok(Held { file })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Unlocking, not closing alone: a child between fork and exec holds a copy of the open file for a moment.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the cluster's lock could not be given back");
        }
    }
}

/// One user's lease. Given back explicitly, or by the system when the process ends.
#[derive(Debug)]
pub(super) struct Lease {
    path: PathBuf,
    file: File,
}

impl Lease {
    /// Takes a new lease; the caller holds the cluster's lock. The file's name begins with the process id and ends in chance:
    /// two containers that share the folder count their processes from one.
    pub(super) fn take(leases_dir: &Path) -> Result<Self, ClusterError> {
        Self::take_named(leases_dir.join(format!("{}-{:016x}", std::process::id(), rand::random::<u64>())))
    }

    fn take_named(path: PathBuf) -> Result<Self, ClusterError> {
        let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).clone();
        let file = options.open(&path).doing("creating", &path)?;
        lock(&file, &path)?;
        Ok(Self { path, file })
    }

    /// Gives the lease back; the caller holds the cluster's lock.
    pub(super) fn give_back(self) -> Result<(), ClusterError> {
        remove(&self.path)?;
        self.file.unlock().doing("unlocking", &self.path)
    }
}

/// Whether anybody holds a lease; those of dead processes are removed. The caller holds the cluster's lock.
pub(super) fn any_held(leases_dir: &Path) -> Result<bool, ClusterError> {
    let mut any = false;
    for entry in fs::read_dir(leases_dir).doing("reading", leases_dir)? {
        let path = entry.doing("reading", leases_dir)?.path();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).doing("opening", &path),
        };
        match file.try_lock() {
            Ok(()) => remove(&path)?,
            Err(TryLockError::WouldBlock) => any = true,
            Err(TryLockError::Error(error)) => return Err(error).doing("locking", &path),
        }
    }
    Ok(any)
}

fn open(path: &Path) -> Result<File, ClusterError> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
    options.open(path).doing("opening", path)
}

fn lock(file: &File, path: &Path) -> Result<(), ClusterError> {
    let deadline = Instant::now() + Duration::from_secs(LOCK_TIMEOUT_SECONDS);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => {
                return Err(ClusterError::Locked { path: path.to_owned(), seconds: LOCK_TIMEOUT_SECONDS });
            }
            Err(TryLockError::Error(error)) => return Err(error).doing("locking", path),
        }
    }
}

fn remove(path: &Path) -> Result<(), ClusterError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).doing("removing", path),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_until_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!any_held(folder.path()).unwrap());
        let lease = Lease::take(folder.path()).unwrap();
        let second = Lease::take(folder.path()).unwrap();
        assert!(any_held(folder.path()).unwrap());
        lease.give_back().unwrap();
        assert!(any_held(folder.path()).unwrap());
        second.give_back().unwrap();
        assert!(!any_held(folder.path()).unwrap());
    }

    #[test]
    fn a_lease_is_never_somebody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let lease = Lease::take(folder.path()).unwrap();
        assert!(Lease::take_named(lease.path.clone()).is_err());
        let process = format!("{}-", std::process::id());
        let name = lease.path.file_name().unwrap().to_str().unwrap().to_owned();
        let chance = name.strip_prefix(&process).unwrap();
        assert!(chance.len() == 16 && chance != "0".repeat(16), "{name}");
        lease.give_back().unwrap();
    }

    #[test]
    fn the_lease_of_a_dead_process_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("999999-0"), "").unwrap();
        assert!(!any_held(folder.path()).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
