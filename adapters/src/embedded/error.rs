//! Why there is no embedded PostgreSQL, in words that say what to do.

use std::path::{Path, PathBuf};

/// Why the embedded PostgreSQL could not be found, made, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No PostgreSQL on this machine.
    #[error(
        "no PostgreSQL server programs (postgres, initdb) of version {minimum} or later were found in PATH, \
         /usr/lib/postgresql/*/bin or by pg_config: install them (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf \
         install postgresql-server; macOS: brew install postgresql@17) or set DATABASE_URL"
    )]
    NoBinaries {
        /// The oldest major version that serves.
        minimum: u32,
    },
    /// The cluster was made by another major version than the ones installed.
    #[error(
        "the cluster in {} was made by PostgreSQL {wanted}, and this machine has only {found}: install PostgreSQL {wanted} or \
         move the data over with pg_upgrade",
        folder.display()
    )]
    OtherVersion {
        /// The cluster.
        folder: PathBuf,
        /// The version that made it.
        wanted: u32,
        /// What is installed.
        found: String,
    },
    /// Run as root, there is no user to run PostgreSQL as.
    #[error(
        "PostgreSQL refuses to run as root, and this machine has neither a user `postgres` nor `nobody`: create one"
    )]
    NoAccount,
    /// The place of an existing cluster cannot be used any more.
    #[error("the cluster in {} cannot be used by the system user {user}: {why}", folder.display())]
    Unreachable {
        /// The cluster.
        folder: PathBuf,
        /// Who should reach it.
        user: String,
        /// What to do.
        why: String,
    },
    /// A program of PostgreSQL failed.
    #[error("{program} failed: {output}")]
    Program {
        /// The program.
        program: &'static str,
        /// What it said.
        output: String,
    },
    /// PostgreSQL ended before it was ready.
    #[error("PostgreSQL did not start; the end of {} says: {tail}", log.display())]
    DidNotStart {
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// PostgreSQL did not get ready, or did not stop, in time.
    #[error("PostgreSQL (process {pid}) did not {what} within {seconds} s; see {}", log.display())]
    TooSlow {
        /// Its process.
        pid: i32,
        /// What it did not do.
        what: &'static str,
        /// The bound.
        seconds: u64,
        /// Its log.
        log: PathBuf,
    },
    /// Somebody else's PostgreSQL serves the same folder.
    #[error(
        "a PostgreSQL whose processes cannot be seen from here, such as one in another container, serves {}: stop it, or set \
         CALOS_DATA_DIR to another folder",
        folder.display()
    )]
    Elsewhere {
        /// The cluster.
        folder: PathBuf,
    },
    /// Another process held the cluster's lock for too long.
    #[error("another process has held {} for {seconds} s", path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
        /// The bound.
        seconds: u64,
    },
    /// A file or folder could not be used.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done, such as `creating`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The process is ending and no longer runs what blocks.
    #[error("interrupted: {0}")]
    Interrupted(String),
}

/// Says what was being done to which path when the system refused.
pub(super) trait Doing<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, ClusterError>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, ClusterError> {
        self.map_err(|source| ClusterError::Io { doing, path: path.to_owned(), source })
    }
}
