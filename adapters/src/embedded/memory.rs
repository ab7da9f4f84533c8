//! How much memory there is, so that PostgreSQL's own cache gets its part of it.

use std::fs;

/// What a container may use at most, wherever its system says so: version 2 of control groups, and version 1.
const LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Bytes of memory of the machine or of the container, whichever is less; nothing where the system does not tell.
pub(super) fn bytes() -> Option<u64> {
    let limits = LIMITS.iter().filter_map(|file| fs::read_to_string(file).ok()).filter_map(|text| limit(&text));
    limits.chain(of_the_machine()).min()
}

/// A limit as it stands in its file: a number, or `max` for none.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(target_os = "linux")]
fn of_the_machine() -> Option<u64> {
    let system = rustix::system::sysinfo();
    #[expect(clippy::useless_conversion, reason = "on 32 bits these are another type")]
    let total = u64::from(system.totalram);
    Some(total.saturating_mul(u64::from(system.mem_unit)))
}

#[cfg(not(target_os = "linux"))]
const fn of_the_machine() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_and_none_is_the_machine_s() {
        assert_eq!(limit("1073741824\n"), Some(1 << 30));
        assert_eq!(limit("max\n"), None);
        if cfg!(target_os = "linux") {
            assert!(bytes().is_some_and(|bytes| bytes > 64 << 20));
        }
    }
}
