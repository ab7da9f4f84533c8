//! What PostgreSQL is told: settings for a small machine that loses nothing, and who may come in.

use std::num::NonZero;

use super::location::{Location, SOCKET_PORT};
use super::{OWNER_ROLE, memory};

/// Connections the product's own cluster takes: two servers and an operator's tools, with room to spare.
const MAX_CONNECTIONS: usize = 200;

/// Connections a test takes at most, its servers and tools together.
const TEST_CONNECTIONS_PER_CORE: usize = 60;

/// PostgreSQL's own cache where nobody says how much memory there is, and for tests, many of which run at once.
const CACHE_MEGABYTES: u64 = 256;

/// The least and the most it gets of a machine's memory: an eighth. What does not fit is written and read again by whoever needs
/// room, and a read model that is rebuilt stands there twice.
const CACHE_MEGABYTES_MIN: u64 = 128;
const CACHE_MEGABYTES_MAX: u64 = 2_048;
const MEMORY_PER_CACHE: u64 = 8;
const MEBIBYTE: u64 = 1 << 20;

/// What PostgreSQL may expect the system to keep of its files besides, as many times its own cache.
const SYSTEM_CACHE_PER_CACHE: u64 = 4;

/// What backends write goes to the disk at once: gathered by the system and written together, hundreds of megabytes keep the next
/// commit waiting for a tenth of a second and more. Only Linux can.
const FLUSH_SOON: &str = if cfg!(target_os = "linux") { "backend_flush_after = 1MB\n" } else { "" };

/// After a checkpoint the first change of each page writes an image of it, and so does an index that is built; every commit
/// behind them waits for those. They come to a third this way. A PostgreSQL older than 15, or built without the library, refuses
/// to start with it.
pub(super) const COMPRESSED_IMAGES: (&str, &str) = ("wal_compression", "lz4");

/// Whether a commit survives the machine's crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// `fsync` and `synchronous_commit` are on.
    Full,
    /// Both are off: for tests only, a crash of the machine may leave a cluster that cannot be used.
    None,
}

/// The settings, written before every start. An operator's own, in `data/postgresql.conf` below the include, win.
pub(super) fn settings(location: &Location, durability: Durability) -> String {
    let durable = match durability {
        Durability::Full => "fsync = on\nsynchronous_commit = on\nfull_page_writes = on\n",
        Durability::None => "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n",
    };
    let max_connections = max_connections(durability);
    let cache = cache_megabytes(durability, memory::bytes());
    let system_cache = cache * SYSTEM_CACHE_PER_CACHE;
    let socket_dir = location.socket_dir().to_string_lossy().replace('\'', "''");
    format!(
        "# Written by CALOS before every start. Your own settings belong into postgresql.conf, below the include.\n\
         listen_addresses = ''\n\
         port = {SOCKET_PORT}\n\
         unix_socket_directories = '{socket_dir}'\n\
         unix_socket_permissions = 0700\n\
         max_connections = {max_connections}\n\
         shared_buffers = {cache}MB\n\
         work_mem = 16MB\n\
         maintenance_work_mem = 128MB\n\
         effective_cache_size = {system_cache}MB\n\
         {durable}\
         wal_level = replica\n\
         min_wal_size = 1GB\n\
         max_wal_size = 4GB\n\
         checkpoint_timeout = 15min\n\
         checkpoint_completion_target = 0.9\n\
         {FLUSH_SOON}\
         random_page_cost = 1.1\n\
         jit = off\n\
         autovacuum = on\n\
         restart_after_crash = on\n\
         timezone = 'UTC'\n\
         log_timezone = 'UTC'\n\
         log_line_prefix = '%m [%p] %q%a '\n\
         log_checkpoints = off\n\
         cluster_name = 'calos'\n"
    )
}

/// Megabytes of PostgreSQL's own cache, out of so many bytes of memory.
fn cache_megabytes(durability: Durability, memory: Option<u64>) -> u64 {
    match (durability, memory) {
        (Durability::None, _) | (Durability::Full, None) => CACHE_MEGABYTES,
        (Durability::Full, Some(bytes)) => {
            (bytes / MEMORY_PER_CACHE / MEBIBYTE).clamp(CACHE_MEGABYTES_MIN, CACHE_MEGABYTES_MAX)
        }
    }
}

/// Connections of every process on the machine together. Tests run a process per core at once, each with pools of its own.
fn max_connections(durability: Durability) -> usize {
    match durability {
        Durability::Full => MAX_CONNECTIONS,
        Durability::None => {
            let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
            MAX_CONNECTIONS.max(cores.saturating_mul(TEST_CONNECTIONS_PER_CORE))
        }
    }
}

/// Only over the socket, and only the system user CALOS runs as and the one PostgreSQL runs as: both can read the files
/// anyway. No password exists that could leak.
pub(super) const HOST_BASED_AUTHENTICATION: &str =
    "# TYPE  DATABASE  USER  METHOD\nlocal   all       all   peer map=calos\n";

/// The system users and the role they come in as.
pub(super) fn user_map(location: &Location) -> String {
    let account = &location.account;
    let mut map = format!("# MAP  SYSTEM-USER  ROLE\ncalos \"{}\" {OWNER_ROLE}\n", account.name);
    if account.is_other() {
        map.push_str(&format!("calos \"{}\" {OWNER_ROLE}\n", account.caller));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_a_part_of_the_memory_within_bounds() {
        let gibibytes = |number: u64| Some(number << 30);
        let of = |memory| cache_megabytes(Durability::Full, memory);
        assert_eq!([gibibytes(24), gibibytes(8), Some(256 << 20), None].map(of), [2_048, 1_024, 128, 256]);
        assert_eq!(cache_megabytes(Durability::None, gibibytes(64)), 256);
    }
}
