//! The embedded PostgreSQL: a private cluster on this machine, shared by every CALOS process that uses the same data folder.
//!
//! A lease, a locked file per process, says who uses it. The first to join makes and starts the cluster, the last to leave
//! stops it, and whoever holds a lease restarts it when it dies. A process that was killed leaves PostgreSQL running; the
//! next one to join finds and uses it.
//!
//! The folder of a cluster, beside which nothing of it lives:
//!
//! | path | whose | what |
//! |---|---|---|
//! | `lock` | CALOS's | held while the cluster is made, started or stopped |
//! | `leases/` | CALOS's | one locked file per user of the cluster |
//! | `postgres.log` | CALOS's | what PostgreSQL says |
//! | `calos.conf` | CALOS's | the settings, written before every start |
//! | `data/`, `socket/` | PostgreSQL's | mode 0700 |
//!
//! PostgreSQL listens on a socket only, and lets in the two system users that can read its files anyway: the one CALOS runs
//! as and the one PostgreSQL runs as.

mod account;
mod binaries;
mod create;
mod error;
mod files;
mod leases;
mod location;
mod memory;
mod postmaster;
mod processes;
mod settings;
mod supervisor;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::ClusterError;
pub use settings::Durability;

use account::Account;
use binaries::Binaries;
use leases::{Lease, LockFile};
use location::Location;
use postmaster::Postmaster;
use supervisor::Supervisor;

/// The role that owns the cluster and its databases.
pub const OWNER_ROLE: &str = "calos";

/// How a process uses a cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The data folder that the cluster belongs to; the cluster is kept in it where PostgreSQL's user can reach it.
    pub data_dir: PathBuf,
    /// Whether a commit survives the machine's crash. Only tests can do without.
    pub durability: Durability,
    /// Leaves PostgreSQL running after the last lease is given back; whoever says so stops it by other means.
    pub keep_running: bool,
}

impl ClusterOptions {
    /// The options of the product: durable, stopped by the last to leave.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), durability: Durability::Full, keep_running: false }
    }
}

/// A lease on a running cluster. While it is held, PostgreSQL is restarted when it dies.
#[derive(Debug)]
pub struct Cluster {
    shared: Arc<Shared>,
    lease: Option<Lease>,
    supervisor: Option<Supervisor>,
}

/// What the handle and its supervisor have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    location: Location,
    postmaster: Postmaster,
    options: ClusterOptions,
}

impl Cluster {
    /// Takes a lease, making and starting the cluster when that is needed. Takes a few seconds the first time, some
    /// milliseconds when PostgreSQL runs already.
    pub async fn join(options: ClusterOptions) -> Result<Self, ClusterError> {
        blocking(move || Self::join_blocking(options)).await
    }

    /// The same for a thread that may block.
    pub fn join_blocking(options: ClusterOptions) -> Result<Self, ClusterError> {
        let account = Account::resolve()?;
        let location = Location::resolve(&options.data_dir, account)?;
        let lock = LockFile::at(location.lock_file()).acquire()?;
        // Asked for what it does beside answering: the leases of dead processes are swept.
        leases::any_held(&location.leases_dir())?;
        let lease = Lease::take(&location.leases_dir())?;
        let shared = match start(location, options) {
            Ok(shared) => Arc::new(shared),
            Err(error) => {
                lease.give_back()?;
                return Err(error);
            }
        };
        drop(lock);
        let supervisor = Supervisor::spawn(Arc::clone(&shared))?;
        Ok(Self { shared, lease: Some(lease), supervisor: Some(supervisor) })
    }

    /// The address of `database` in this cluster, with the owner's rights.
    pub fn url(&self, database: &str) -> String {
        self.shared.location.url(database)
    }

    /// The folder that holds the cluster.
    pub fn folder(&self) -> &Path {
        self.shared.location.folder()
    }

    /// The process id of the running PostgreSQL, if it runs.
    pub fn postmaster_pid(&self) -> Option<i32> {
        self.shared.postmaster.running_pid()
    }

    /// Whether PostgreSQL runs and accepts connections.
    pub fn is_ready(&self) -> bool {
        self.shared.postmaster.is_ready()
    }

    /// Starts PostgreSQL unless it runs, and returns once it accepts connections. The supervisor does so by itself within a
    /// second or two; this is for who cannot wait.
    pub async fn ensure_running(&self) -> Result<(), ClusterError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.ensure_running()).await
    }

    /// Gives the lease back; the last to do so stops PostgreSQL and returns once it has stopped.
    pub async fn leave(self) -> Result<(), ClusterError> {
        blocking(move || self.leave_blocking()).await
    }

    /// The same for a thread that may block.
    pub fn leave_blocking(mut self) -> Result<(), ClusterError> {
        self.release()
    }

    fn release(&mut self) -> Result<(), ClusterError> {
        drop(self.supervisor.take());
        let Some(lease) = self.lease.take() else { return Ok(()) };
        let _lock = LockFile::at(self.shared.location.lock_file()).acquire()?;
        lease.give_back()?;
        if self.shared.options.keep_running || leases::any_held(&self.shared.location.leases_dir())? {
            return Ok(());
        }
        self.shared.postmaster.stop()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            tracing::error!(%error, "the embedded PostgreSQL could not be left in order");
        }
    }
}

impl Shared {
    /// Starts PostgreSQL unless it runs, under the cluster's lock.
    fn ensure_running(&self) -> Result<(), ClusterError> {
        let _lock = LockFile::at(self.location.lock_file()).acquire()?;
        self.postmaster.ensure_running(self.options.durability)
    }
}

/// Makes the cluster if it is new and starts it if it does not run; the caller holds the lock.
fn start(location: Location, options: ClusterOptions) -> Result<Shared, ClusterError> {
    let version = create::existing_version(&location)?;
    let binaries = Binaries::find(version)?;
    if version.is_none() {
        create::create(&location, &binaries, options.durability)?;
    }
    let postmaster = Postmaster::new(&location, binaries);
    postmaster.ensure_running(options.durability)?;
    Ok(Shared { location, postmaster, options })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ClusterError> + Send + 'static,
) -> Result<T, ClusterError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(ClusterError::Interrupted(error.to_string())),
    }
}
