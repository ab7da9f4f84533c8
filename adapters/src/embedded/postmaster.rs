//! The PostgreSQL process: found, started, stopped. What `postmaster.pid` says is believed only as far as the system agrees.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::binaries::Binaries;
use super::error::{ClusterError, Doing as _};
use super::files::write_whole;
use super::location::Location;
use super::processes::{self, Process};
use super::settings::{COMPRESSED_IMAGES, Durability, settings};

/// How long PostgreSQL may take to get ready, in seconds: after a crash it first replays up to 4 GB of its journal.
const START_TIMEOUT_SECONDS: u64 = 600;
/// How long an orderly stop may take, in seconds, before PostgreSQL is told to drop everything.
const STOP_TIMEOUT_SECONDS: u64 = 60;
/// How long the processes of a dead PostgreSQL get to notice, in milliseconds, before each next sterner signal.
const ORPHANS_GRACE_MILLISECONDS: u64 = 500;
/// A log longer than this is set aside at the next start, in bytes.
const LOG_MAX_BYTES: u64 = 16 * 1024 * 1024;
const LOG_TAIL_BYTES: u64 = 2_000;
/// What the C library's allocator keeps of the memory that a statement has used, in bytes: given back to the system it has to
/// be asked for, and cleared, again for the next one, which is a sixth of the work of a batch of events.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_TRIM_THRESHOLD_", "16777216"), ("MALLOC_MMAP_THRESHOLD_", "4194304")];
const POLL: Duration = Duration::from_millis(5);

/// The PostgreSQL of one cluster.
#[derive(Debug)]
pub(super) struct Postmaster {
    location: Location,
    binaries: Binaries,
    data_dir: PathBuf,
}

/// What `postmaster.pid` says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PidFile {
    pid: i32,
    status: Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Starting,
    Ready,
    Stopping,
}

impl Postmaster {
    pub(super) fn new(location: &Location, binaries: Binaries) -> Self {
        let data_dir = location.data_dir();
        // The system names a process's folder without symbolic links.
        let data_dir = data_dir.canonicalize().unwrap_or(data_dir);
        Self { data_dir, location: location.clone(), binaries }
    }

    /// The process id, if it runs.
    pub(super) fn running_pid(&self) -> Option<i32> {
        self.running().map(|file| file.pid)
    }

    /// Whether it runs and accepts connections.
    pub(super) fn is_ready(&self) -> bool {
        self.running().is_some_and(|file| file.status == Status::Ready)
    }

    /// Starts it unless it runs, and waits until it is ready; the caller holds the lock.
    pub(super) fn ensure_running(&self, durability: Durability) -> Result<(), ClusterError> {
        match self.running() {
            Some(PidFile { status: Status::Ready, .. }) => return Ok(()),
            Some(PidFile { status: Status::Starting, pid }) => return self.wait_until_ready(pid, None),
            // Somebody else, such as the system's shutdown, told it to stop: let it, then start it again.
            Some(PidFile { status: Status::Stopping, pid }) => self.wait_until_gone(pid, STOP_TIMEOUT_SECONDS)?,
            None => {}
        }
        self.clear_remains()?;
        self.write_settings(durability)?;
        let child = self.spawn()?;
        let pid = i32::try_from(child.id()).map_err(|error| ClusterError::Interrupted(error.to_string()))?;
        self.wait_until_ready(pid, Some(child))
    }

    /// Stops it in order, then, if that takes too long, at once; the caller holds the lock.
    pub(super) fn stop(&self) -> Result<(), ClusterError> {
        let Some(PidFile { pid, .. }) = self.running() else { return Ok(()) };
        // SIGINT is PostgreSQL's fast shutdown: sessions end, everything is written, nothing is lost.
        processes::signal(pid, Signal::INT);
        if self.wait_until_gone(pid, STOP_TIMEOUT_SECONDS).is_ok() {
            return Ok(());
        }
        tracing::warn!(pid, "PostgreSQL did not stop in order; it is told to stop at once");
        processes::signal(pid, Signal::QUIT);
        self.wait_until_gone(pid, STOP_TIMEOUT_SECONDS)
    }

    fn running(&self) -> Option<PidFile> {
        let text = fs::read_to_string(self.data_dir.join("postmaster.pid")).ok()?;
        parse_pid_file(&text).filter(|file| self.works(file.pid))
    }

    fn works(&self, pid: i32) -> bool {
        processes::works_in(pid, &self.data_dir, &self.location.account)
    }

    fn remains(&self) -> Vec<i32> {
        processes::all_in(&self.data_dir, &self.location.account)
    }

    /// Processes of a PostgreSQL that died without them still hold its memory and may still write: they go first. Then the
    /// stale files can go, which PostgreSQL itself would believe if its number had been given to another process.
    fn clear_remains(&self) -> Result<(), ClusterError> {
        for sterner in [None, Some(Signal::TERM), Some(Signal::QUIT), Some(Signal::KILL)] {
            let orphans = self.remains();
            if orphans.is_empty() {
                break;
            }
            if let Some(signal) = sterner {
                tracing::warn!(?orphans, ?signal, "ending what a dead PostgreSQL left behind");
                for pid in &orphans {
                    processes::signal(*pid, signal);
                }
            }
            let deadline = Instant::now() + Duration::from_millis(ORPHANS_GRACE_MILLISECONDS);
            while Instant::now() < deadline && !self.remains().is_empty() {
                std::thread::sleep(POLL);
            }
        }
        let orphans = self.remains();
        if let Some(pid) = orphans.first() {
            return Err(ClusterError::TooSlow { pid: *pid, what: "end", seconds: 2, log: self.location.log_file() });
        }
        // A PostgreSQL in another container, whose processes nobody can see from here, would still answer.
        if UnixStream::connect(self.location.socket_file()).is_ok() {
            return Err(ClusterError::Elsewhere { folder: self.location.folder().to_owned() });
        }
        // Where the system does not name every process, PostgreSQL's own check of its shared memory must decide.
        if !std::path::Path::new("/proc/self/cwd").exists() {
            return Ok(());
        }
        // The socket's lock holds the same number, which a dead process keeps that nobody has asked for.
        for file in [self.data_dir.join("postmaster.pid"), self.location.socket_lock_file()] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).doing("removing", &file),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn write_settings(&self, durability: Durability) -> Result<(), ClusterError> {
        let mut settings = settings(&self.location, durability);
        write_whole(&self.location.settings_file(), 0o644, &settings)?;
        let (name, value) = COMPRESSED_IMAGES;
        if durability == Durability::Full && self.accepts(name, value) {
            settings.push_str(&format!("{name} = {value}\n"));
            write_whole(&self.location.settings_file(), 0o644, &settings)?;
        }
        Ok(())
    }

    /// Whether this PostgreSQL would start with a setting beside those that are written. Where they are wrong without it, the
    /// start itself says so.
    fn accepts(&self, name: &str, value: &str) -> bool {
        let mut command = self.location.account.command(&self.binaries.postgres(), &self.data_dir);
        command.arg("-D").arg(&self.data_dir).args(["-C", name, "-c", &format!("{name}={value}")]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    fn spawn(&self) -> Result<Child, ClusterError> {
        let log = self.open_log()?;
        let errors = log.try_clone().doing("opening", &self.location.log_file())?;
        let mut command = self.location.account.command(&self.binaries.postgres(), &self.data_dir);
        command.arg("-D").arg(&self.data_dir).envs(ALLOCATOR).stdout(Stdio::from(log)).stderr(Stdio::from(errors));
        command.spawn().doing("starting", &self.binaries.postgres())
    }

    fn open_log(&self) -> Result<File, ClusterError> {
        let path = self.location.log_file();
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_MAX_BYTES) {
            fs::rename(&path, path.with_extension("log.1")).doing("setting aside", &path)?;
        }
        OpenOptions::new().append(true).create(true).mode(0o600).open(&path).doing("opening", &path)
    }

    fn wait_until_ready(&self, pid: i32, mut child: Option<Child>) -> Result<(), ClusterError> {
        let deadline = Instant::now() + Duration::from_secs(START_TIMEOUT_SECONDS);
        while Instant::now() < deadline {
            let ended = match &mut child {
                Some(child) => child.try_wait().is_ok_and(|status| status.is_some()),
                None => !self.works(pid),
            };
            if ended {
                return Err(ClusterError::DidNotStart { log: self.location.log_file(), tail: self.log_tail() });
            }
            if self.running().is_some_and(|file| file.pid == pid && file.status == Status::Ready) {
                return child.map_or(Ok(()), reap_when_it_ends);
            }
            std::thread::sleep(POLL);
        }
        if let Some(child) = child {
            // Left to itself it would be found by nobody and answer the next start from where it cannot be seen.
            processes::signal(pid, Signal::QUIT);
            reap_when_it_ends(child)?;
        }
        Err(ClusterError::TooSlow {
            pid,
            what: "get ready",
            seconds: START_TIMEOUT_SECONDS,
            log: self.location.log_file(),
        })
    }

    /// Waits until it has ended: it stops working in its folder a moment before it has given back everything.
    fn wait_until_gone(&self, pid: i32, seconds: u64) -> Result<(), ClusterError> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        // What has the number and works there is the one that is waited for.
        let process = Process::now(pid).filter(|_| self.works(pid));
        while self.works(pid) || process.is_some_and(Process::runs) {
            if Instant::now() > deadline {
                return Err(ClusterError::TooSlow { pid, what: "stop", seconds, log: self.location.log_file() });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(self.location.log_file())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        read().unwrap_or_else(|error| format!("(the log cannot be read: {error})"))
    }
}

/// Waits for the child in a thread of its own, so that it does not stay a zombie as long as this process lives.
fn reap_when_it_ends(mut child: Child) -> Result<(), ClusterError> {
    let waiting = std::thread::Builder::new().name("postgres-reaper".to_owned()).spawn(move || {
        if let Err(error) = child.wait() {
            tracing::warn!(%error, "PostgreSQL's end could not be waited for");
        }
    });
    match waiting {
        Ok(_) => Ok(()),
        Err(error) => Err(ClusterError::Interrupted(error.to_string())),
    }
}

/// The process id is on the first line, the status on the eighth. A file that is still being written has no status yet.
fn parse_pid_file(text: &str) -> Option<PidFile> {
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok().filter(|pid| *pid > 0)?;
    let status = match lines.nth(6).map(str::trim) {
        Some("ready") => Status::Ready,
        Some("stopping") => Status::Stopping,
        Some(_) | None => Status::Starting,
    };
    Some(PidFile { pid, status })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_postgres_is_on_the_eighth_line_of_its_file() {
        let file = |status: &str| format!("4711\n/data\n1700000000\n5432\n/socket\n\n  5432001   0\n{status}\n");
        assert_eq!(parse_pid_file(&file("ready   ")), Some(PidFile { pid: 4711, status: Status::Ready }));
        assert_eq!(parse_pid_file(&file("stopping")), Some(PidFile { pid: 4711, status: Status::Stopping }));
        assert_eq!(parse_pid_file("4711\n"), Some(PidFile { pid: 4711, status: Status::Starting }));
        assert_eq!(parse_pid_file(""), None);
        assert_eq!(parse_pid_file("-5\n"), None, "single-user mode writes a negative number");
    }
}
