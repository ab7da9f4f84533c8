//! `calos-replay` as an operator runs it: a process of its own, its time and its memory.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use calos_adapters::anchors;
use calos_adapters::config::{Config, Vars};
use calos_adapters::secrets::{RootSecret, ledger_signing_key};
use calos_replay::export::Format;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::arena::Fresh;
use crate::cpu::CpuMeter;
use crate::error::BenchError;
use crate::machine;

/// How often its memory is looked at. What is read is its own peak, so only what it takes after the last look is missed.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What is taken over of the environment: nothing that could change what is measured.
const ENVIRONMENT: [&str; 4] = ["PATH", "HOME", "USER", "TMPDIR"];
/// Of what it prints, so much of the end is kept.
const KEPT_BYTES: usize = 64 * 1024;
/// What it prints is read in pieces of this size.
const READ_BYTES: usize = 256 * 1024;

/// What a run of it took.
pub struct Ran {
    /// From its start to its end.
    pub elapsed: Duration,
    /// The most memory it held, in MiB, where the system tells.
    pub peak_mib: Option<u64>,
    /// The processor time it took, where the system tells.
    pub cpu: Option<Duration>,
    /// How many bytes it printed.
    pub bytes: u64,
    /// The end of what it printed.
    tail: Vec<u8>,
}

/// The program, and what it works on.
pub struct Tool {
    program: PathBuf,
    database: String,
    folder: TempDir,
    meter: CpuMeter,
}

impl Tool {
    /// The one beside this program.
    ///
    /// # Errors
    /// It is not there.
    pub fn beside(fresh: &Fresh, meter: &CpuMeter) -> Result<Self, BenchError> {
        let program = std::env::current_exe()?.with_file_name("calos-replay");
        if !program.is_file() {
            return Err(BenchError::Environment(format!(
                "{} is not there: build it in the same profile, with `cargo build --release -p calos-replay`",
                program.display()
            )));
        }
        Ok(Self { program, database: fresh.url(), folder: tempfile::tempdir()?, meter: meter.clone() })
    }

    /// Signs the heads as they are now and keeps them where the tool looks for them, as a server does at every start: a log
    /// of some age without them is not whole.
    ///
    /// # Errors
    /// They cannot be signed or kept.
    pub async fn anchor(&self, fresh: &Fresh) -> Result<(), BenchError> {
        let unfit = |error: &dyn std::fmt::Display| BenchError::Environment(format!("no anchor: {error}"));
        let vars = Vars::from_pairs([("CALOS_DATA_DIR", self.folder.path().to_string_lossy())]);
        let config = Config::from_vars(&vars).map_err(|error| unfit(&error))?;
        let pool = fresh.pool(1).await?;
        let root = RootSecret::open(&pool, &config.secrets.master_key, None).await.map_err(|error| unfit(&error))?;
        let anchor = anchors::take(&pool, &ledger_signing_key(&root)).await.map_err(|error| unfit(&error))?;
        anchors::keep(&pool, &config.anchor_dir, &anchor).await.map_err(|error| unfit(&error))?;
        pool.close().await;
        Ok(())
    }

    /// `verify --chain`: what it took, and how many events it read.
    ///
    /// # Errors
    /// It did not pass.
    pub async fn verify_chain(&self) -> Result<(Ran, u64), BenchError> {
        let ran = self.run(&["--json", "--quiet", "verify", "--chain"]).await?;
        let report: Value = serde_json::from_slice(&ran.tail)?;
        let events = report["events"].as_u64().filter(|_| report["passed"] == Value::Bool(true));
        let events = events.ok_or_else(|| BenchError::Check(format!("the log was not verified: {report}")))?;
        Ok((ran, events))
    }

    /// `export journal` to nowhere. The export says at its end how many entries it has: it must be `entries`.
    ///
    /// # Errors
    /// It failed, or is not whole.
    pub async fn export(&self, format: Format, entries: u64) -> Result<Ran, BenchError> {
        let name = name(format);
        let ran = self.run(&["--quiet", "export", "journal", "--format", name, "--output", "-"]).await?;
        let said = match format {
            Format::Csv | Format::Hledger | Format::Parquet => format!("{entries} entries, "),
            Format::Jsonl => format!("\"entries\":{entries},"),
        };
        let tail = String::from_utf8_lossy(&ran.tail);
        if tail.contains(&said) {
            return Ok(ran);
        }
        Err(BenchError::Check(format!("the {name} export does not end with {entries} entries")))
    }

    async fn run(&self, arguments: &[&str]) -> Result<Ran, BenchError> {
        let mut command = Command::new(&self.program);
        command.env_clear().current_dir(self.folder.path());
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("DATABASE_URL", &self.database).env("CALOS_DATA_DIR", self.folder.path()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let began = Instant::now();
        let mut child = command.spawn()?;
        let ran = watch(&mut child, began, &self.meter).await?;
        let status = child.wait().await?;
        if status.success() {
            return Ok(Ran { elapsed: began.elapsed(), ..ran });
        }
        let said = String::from_utf8_lossy(&ran.tail).into_owned();
        Err(BenchError::Check(format!("calos-replay {} ended with {status}: {said}", arguments.join(" "))))
    }
}

/// How a format is called on the command line.
pub const fn name(format: Format) -> &'static str {
    match format {
        Format::Csv => "csv",
        Format::Parquet => "parquet",
        Format::Hledger => "hledger",
        Format::Jsonl => "jsonl",
    }
}

/// Reads what it prints and looks at its memory until it closes its output.
async fn watch(child: &mut Child, began: Instant, meter: &CpuMeter) -> Result<Ran, BenchError> {
    let pid = child.id().unwrap_or_default();
    let Some(mut out) = child.stdout.take() else {
        return Err(BenchError::Environment("calos-replay has no output".to_owned()));
    };
    let (mut peak_mib, mut cpu, mut bytes, mut tail) = (None, None, 0_u64, Vec::new());
    let mut piece = vec![0; READ_BYTES];
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = look.tick() => {
                peak_mib = machine::peak_resident_mib(pid).max(peak_mib);
                cpu = meter.of_process(pid).max(cpu);
            }
            read = out.read(&mut piece) => {
                let read = read?;
                if read == 0 {
                    break;
                }
                bytes += u64::try_from(read).unwrap_or_default();
                tail.extend_from_slice(&piece[..read]);
                let beyond = tail.len().saturating_sub(KEPT_BYTES);
                tail.drain(..beyond);
            }
        }
    }
    // It may have closed its output only: both stay readable until it is gone.
    peak_mib = machine::peak_resident_mib(pid).max(peak_mib);
    cpu = meter.of_process(pid).max(cpu);
    Ok(Ran { elapsed: began.elapsed(), peak_mib, cpu, bytes, tail })
}
