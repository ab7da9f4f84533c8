//! Which processes work in a data folder, asked of the system and not of a file that may be stale.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Whether the process `pid` runs and works in `data_dir`, as the processes of PostgreSQL do. A zombie does not run.
pub(super) fn works_in(pid: i32, data_dir: &Path) -> bool {
    if !runs(pid) {
        return false;
    }
    if Path::new("/proc/self/stat").exists() {
        return fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == data_dir);
    }
    // Without /proc the name has to do.
    let output = Command::new("ps").args(["-o", "comm=", "-p", &pid.to_string()]).stdin(Stdio::null()).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("postgres"))
}

/// Every process that works in `data_dir`. Empty where the system does not say.
pub(super) fn all_in(data_dir: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| {
                program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("postgres"))
            }) && works_in(*pid, data_dir)
        })
        .collect()
}

/// Sends `signal` to `pid`; whether there was a process to receive it.
pub(super) fn signal(pid: i32, signal: Signal) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

fn runs(pid: i32) -> bool {
    let Some(id) = Pid::from_raw(pid) else { return false };
    let there = match test_kill_process(id) {
        Ok(()) => true,
        Err(error) => error == rustix::io::Errno::PERM,
    };
    there && !is_zombie(pid)
}

/// A dead process whose parent has not asked for it: in a container without an init process it stays so for ever.
fn is_zombie(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the program's name, which is in parentheses and may hold any character.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_elsewhere_or_is_dead_does_not_count() {
        let own = i32::try_from(std::process::id()).unwrap();
        let here = std::env::current_dir().unwrap();
        assert!(works_in(own, &here));
        assert!(!works_in(own, Path::new("/somewhere/else")));
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!works_in(pid, &here), "a zombie does not run");
        child.wait().unwrap();
        assert!(!works_in(pid, &here));
    }
}
