//! What was measured on: figures without their machine mean nothing.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;
use sqlx::PgConnection;

use crate::cpu::CpuMeter;
use crate::error::BenchError;

const MIB_PER_KIB: u64 = 1024;

/// The settings that decide what a commit costs and what a scan may use.
const SETTINGS: &[&str] = &[
    "autovacuum",
    "checkpoint_timeout",
    "commit_delay",
    "effective_io_concurrency",
    "fsync",
    "full_page_writes",
    "jit",
    "max_connections",
    "max_wal_size",
    "min_wal_size",
    "shared_buffers",
    "synchronous_commit",
    "wal_buffers",
    "wal_compression",
    "wal_level",
    "wal_sync_method",
    "work_mem",
];

/// The machine, its PostgreSQL and this binary.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Cores this process may use.
    pub cores: usize,
    /// The processor's own name, where the system tells.
    pub cpu: Option<String>,
    /// Memory in MiB, where the system tells.
    pub memory_mib: Option<u64>,
    /// Kernel name and release.
    pub kernel: String,
    /// PostgreSQL's version line.
    pub postgres: String,
    /// Its settings, by name.
    pub settings: BTreeMap<String, String>,
    /// `release` or `debug`.
    pub build: &'static str,
    /// Whether PostgreSQL's CPU time could be read; then client and server share this machine.
    pub postgres_cpu_visible: bool,
}

impl Machine {
    /// Looks around.
    ///
    /// # Errors
    /// Database errors, or a database that does not keep what it acknowledges.
    pub async fn describe(connection: &mut PgConnection, meter: &CpuMeter) -> Result<Self, BenchError> {
        let postgres: String = sqlx::query_scalar("SELECT version()").fetch_one(&mut *connection).await?;
        let settings: Vec<(String, String)> =
            sqlx::query_as("SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY($1) ORDER BY name")
                .bind(SETTINGS)
                .fetch_all(connection)
                .await?;
        let settings: BTreeMap<String, String> = settings.into_iter().collect();
        for durable in ["fsync", "synchronous_commit"] {
            if settings.get(durable).is_none_or(|value| value == "off") {
                return Err(BenchError::Environment(format!(
                    "{durable} is off on this cluster: nothing measured on it would hold elsewhere; switch it on"
                )));
            }
        }
        let system = rustix::system::uname();
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            cpu: field_of("/proc/cpuinfo", "model name"),
            memory_mib: memory_mib("/proc/meminfo", "MemTotal"),
            kernel: format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy()),
            postgres,
            settings,
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            postgres_cpu_visible: meter.sees_postgres(),
        })
    }
}

fn field_of(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn memory_mib(path: &str, name: &str) -> Option<u64> {
    let value = field_of(path, name)?;
    let kib: u64 = value.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib / MIB_PER_KIB)
}

/// The most memory this process has held since [`forget_peak_memory`], in MiB.
pub fn peak_memory_mib() -> Option<u64> {
    memory_mib("/proc/self/status", "VmHWM")
}

/// The memory a process holds now, in MiB.
pub fn resident_mib(pid: u32) -> Option<u64> {
    memory_mib(&format!("/proc/{pid}/status"), "VmRSS")
}

/// The most memory a process has held, in MiB.
pub fn peak_resident_mib(pid: u32) -> Option<u64> {
    memory_mib(&format!("/proc/{pid}/status"), "VmHWM")
}

/// Starts the peak of this process's memory anew; answers whether the system let it.
pub fn forget_peak_memory() -> bool {
    const RESET_PEAK: &str = "5";
    fs::write("/proc/self/clear_refs", RESET_PEAK).is_ok()
}
