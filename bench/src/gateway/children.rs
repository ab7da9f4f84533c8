//! The processes of a measurement: each is a child that is ended by its own id, whatever happens.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};

use crate::error::BenchError;

/// How long a process may take until it listens: a debug build on a busy machine needs most of it.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long a process may take to end once it is asked to.
const END_MAX: Duration = Duration::from_secs(40);
/// Lines a process may print before it says where it listens.
const READY_MAX_LINES: usize = 500;
/// What a process says of where it listens, before the address.
const LISTENS: &str = "listens on http://";
/// What is taken over of the environment: nothing that could change what is measured.
const ENVIRONMENT: [&str; 4] = ["PATH", "HOME", "USER", "TMPDIR"];

/// A process that listens.
pub struct Served {
    name: &'static str,
    child: Child,
    /// Kept open: what it still prints must not break its pipe.
    _out: Lines<BufReader<ChildStdout>>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its id.
    pub pid: u32,
}

impl Served {
    /// Starts a program with only these variables and waits until it says where it listens.
    ///
    /// # Errors
    /// When it does not start, ends, or takes too long.
    pub async fn start(name: &'static str, mut command: Command) -> Result<Self, BenchError> {
        let unfit = |problem: String| BenchError::Environment(format!("{name} {problem}"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| unfit(format!("does not start: {error}")))?;
        let out = child.stdout.take().ok_or_else(|| unfit("has no output".to_owned()))?;
        let pid = child.id().ok_or_else(|| unfit("ended at once".to_owned()))?;
        let mut out = BufReader::new(out).lines();
        let said = tokio::time::timeout(READY_MAX, listening(&mut out)).await;
        let said = said.map_err(|_| unfit(format!("did not listen within {} s", READY_MAX.as_secs())))?;
        let address = said?.ok_or_else(|| unfit("ended without having listened".to_owned()))?;
        Ok(Self { name, child, _out: out, address, pid })
    }

    /// Asks it to end, waits, and ends it by force when it does not.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn stop(mut self) -> Result<(), BenchError> {
        // Whoever waits for the end of its input is told by that; the others are told by the signal.
        drop(self.child.stdin.take());
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let (Some(pid), None) = (pid, self.child.try_wait()?) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(std::io::Error::from)?;
        }
        if tokio::time::timeout(END_MAX, self.child.wait()).await.is_err() {
            let _ = writeln!(std::io::stderr().lock(), "calos-bench: {} does not end and is killed", self.name);
            self.child.kill().await?;
        }
        Ok(())
    }
}

async fn listening(out: &mut Lines<BufReader<ChildStdout>>) -> Result<Option<SocketAddr>, BenchError> {
    for _ in 0..READY_MAX_LINES {
        let Some(line) = out.next_line().await? else { return Ok(None) };
        if let Some((_, address)) = line.split_once(LISTENS) {
            return Ok(address.trim().parse().ok());
        }
    }
    Ok(None)
}

/// This program again, as another process.
pub fn this_program(arguments: &[&str]) -> Result<Command, BenchError> {
    let mut command = clean(&std::env::current_exe()?);
    command.args(arguments).stderr(Stdio::inherit());
    Ok(command)
}

/// `calos`, beside this program, with its settings; what it logs goes to a file, as it would in production.
pub fn calos(arguments: &[&str], data_dir: &Path, log: &str) -> Result<Command, BenchError> {
    let program = calos_program()?;
    let mut command = clean(&program);
    let log = File::options().create(true).append(true).open(data_dir.join(log))?;
    command.args(arguments).env("CALOS_DATA_DIR", data_dir).current_dir(data_dir).stderr(log);
    Ok(command)
}

fn calos_program() -> Result<PathBuf, BenchError> {
    let program = std::env::current_exe()?.with_file_name("calos");
    if program.is_file() {
        return Ok(program);
    }
    Err(BenchError::Environment(format!(
        "{} is not there: build it in the same profile, with `cargo build --release -p calos-api`",
        program.display()
    )))
}

fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for name in ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// A free port of this machine, and the word about it that [`Served::start`] waits for.
///
/// # Errors
/// The operating system's.
pub async fn listen() -> Result<TcpListener, BenchError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{LISTENS}{}", listener.local_addr()?)?;
    out.flush()?;
    Ok(listener)
}

/// Ends when whoever started this process has gone, however it went: its end of our input closes then.
///
/// # Errors
/// The operating system's.
pub async fn parent_gone() -> Result<(), BenchError> {
    let read = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
    let read = read.await.map_err(|error| BenchError::Check(format!("the input cannot be read: {error}")))?;
    read.map(|_| ()).map_err(BenchError::from)
}
