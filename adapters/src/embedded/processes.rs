//! Which processes work in a data folder, asked of the system and not of a file that may be stale.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::account::Account;

/// Prints the working folder of every process named, each behind its number.
const PRINT_FOLDERS: &str =
    r#"for pid do (cd -P "/proc/$pid/cwd" 2>/dev/null && printf '%s %s\n' "$pid" "$(pwd -P)"); done"#;

/// Whether the process `pid` runs and works in `data_dir`, as the postmaster does that `account` started there. A zombie does
/// not run.
pub(super) fn works_in(pid: i32, data_dir: &Path, account: &Account) -> bool {
    if !runs(pid) {
        return false;
    }
    if Path::new("/proc/self/stat").exists() {
        return match fs::read_link(format!("/proc/{pid}/cwd")) {
            Ok(folder) => folder == data_dir,
            // Another user's process keeps its folder to itself, from root too where a container takes CAP_SYS_PTRACE away;
            // whose it is and how it was called everybody may read.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                belongs_to(pid, account) && was_told_to_serve(pid, data_dir)
            }
            Err(_) => false,
        };
    }
    // Without /proc the name has to do.
    let output = Command::new("ps").args(["-o", "comm=", "-p", &pid.to_string()]).stdin(Stdio::null()).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("postgres"))
}

/// Every process of PostgreSQL that works in `data_dir`. Empty where the system does not say.
pub(super) fn all_in(data_dir: &Path, account: &Account) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let (mut found, mut closed) = (Vec::new(), Vec::new());
    for pid in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        if !fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("postgres")) {
            continue;
        }
        match fs::read_link(format!("/proc/{pid}/cwd")) {
            Ok(folder) if folder == data_dir => found.push(pid),
            Err(error) if error.kind() == ErrorKind::PermissionDenied && belongs_to(pid, account) => closed.push(pid),
            Ok(_) | Err(_) => {}
        }
    }
    if !closed.is_empty() {
        let folders = folders_seen_by(account, &closed);
        found.extend(closed.into_iter().filter(|pid| folders.get(pid).is_some_and(|folder| folder == data_dir)));
    }
    found.retain(|pid| runs(*pid));
    found
}

/// The working folders of processes of `account`, asked as that user, to whom they are open. The backends of PostgreSQL
/// write over their command line, so that it tells nothing.
fn folders_seen_by(account: &Account, pids: &[i32]) -> HashMap<i32, PathBuf> {
    let mut command = account.command(Path::new("/bin/sh"), Path::new("/"));
    command.args(["-c", PRINT_FOLDERS, "sh"]).args(pids.iter().map(i32::to_string)).stderr(Stdio::null());
    let Ok(output) = command.output() else { return HashMap::new() };
    let lines = output.stdout.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let space = line.iter().position(|byte| *byte == b' ')?;
            let pid = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
            Some((pid, PathBuf::from(std::ffi::OsStr::from_bytes(&line[space + 1..]))))
        })
        .collect()
}

/// Whether `account` runs the process: the effective user of its status.
fn belongs_to(pid: i32, account: &Account) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let effective = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok());
    effective == Some(account.user_id())
}

/// Whether the process was called with `-D` and this folder.
fn was_told_to_serve(pid: i32, data_dir: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let mut arguments = line.split(|byte| *byte == 0);
    arguments.any(|argument| argument == b"-D")
        && arguments.next().is_some_and(|folder| {
            let folder = Path::new(std::ffi::OsStr::from_bytes(folder));
            folder == data_dir || folder.canonicalize().is_ok_and(|folder| folder == data_dir)
        })
}

/// Sends `signal` to `pid`; whether there was a process to receive it.
pub(super) fn signal(pid: i32, signal: Signal) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// One process, told from another that gets its number later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pid: i32,
    /// When it began, in ticks since the system did.
    began: u64,
}

impl Process {
    /// The one that has this number now; none where the system does not say.
    pub(super) fn now(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the program's name, in parentheses, the state is the third field of all and the beginning the 22nd.
        let (_, rest) = stat.rsplit_once(") ")?;
        let began = rest.split(' ').nth(22 - 3)?.parse().ok()?;
        Some(Self { pid, began })
    }

    /// Whether it still runs, whatever it works on. One that is ending has left its folder and its command line behind
    /// before it has given back the rest.
    pub(super) fn runs(self) -> bool {
        runs(self.pid) && Self::now(self.pid) == Some(self)
    }
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
        let account = Account::resolve().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let here = std::env::current_dir().unwrap();
        assert!(works_in(own, &here, &account));
        assert!(!works_in(own, Path::new("/somewhere/else"), &account));
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!works_in(pid, &here, &account), "a zombie does not run");
        child.wait().unwrap();
        assert!(!works_in(pid, &here, &account));
    }

    #[test]
    fn a_process_that_has_left_its_folder_is_not_gone() {
        let account = Account::resolve().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "cd / && read end"]).current_dir(folder.path()).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = Process::now(pid).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while works_in(pid, &folder.path().canonicalize().unwrap(), &account) {
            assert!(std::time::Instant::now() < deadline, "it leaves");
        }
        assert!(process.runs());
        assert!(!Process { began: process.began + 1, ..process }.runs(), "another one of that number");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!process.runs());
    }

    #[test]
    fn what_everybody_may_read_tells_a_process_of_the_account_and_its_folder() {
        let account = Account::resolve().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().canonicalize().unwrap();
        let mut command = account.command(Path::new("/bin/sh"), Path::new("/tmp"));
        let mut child = command.args(["-c", "sleep 60; :", "sh", "-D"]).arg(&data_dir).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(belongs_to(pid, &account) && was_told_to_serve(pid, &data_dir));
        assert!(!was_told_to_serve(pid, Path::new("/somewhere/else")));
        let tmp = Path::new("/tmp").canonicalize().unwrap();
        assert_eq!(folders_seen_by(&account, &[pid]).get(&pid), Some(&tmp));
        // Its shell and the sleep it waits for are one group.
        rustix::process::kill_process_group(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        child.wait().unwrap();
    }
}
