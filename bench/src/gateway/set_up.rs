//! Where the gateway is measured: a private PostgreSQL, a simulated provider, the floor, and a CALOS of its own with a
//! tenant whose credit and limits no run can reach.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calos_adapters::config::{Config, Vars};
use calos_adapters::postgres;
use calos_adapters::postgres::log::{LogOptions, PgLog};
use calos_commands::log::{EventLog, Failed, Plan, Request};
use calos_domain::wallet::{Wallet, WalletRefusal};
use calos_domain::{GrantId, StreamId, TenantId};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::children::{Served, calos, this_program};
use super::connection::Goal;
use super::load::{Arrival, Span, generate};
use super::provider::{Account, SWITCHES_PATH, Switches};
use crate::arena::Arena;
use crate::calos::grant_command;
use crate::error::BenchError;
use crate::progress::Progress;
use crate::workload::{self, Payer};

/// The key the simulated provider is called with, and the one the floor knows.
pub const KEY: &str = "sk-simulated";
/// Connections of the log that grants the credit.
const GRANTING_CONNECTIONS: u32 = 4;
/// How long the server may take to learn what other processes wrote.
const KNOWN_MAX: Duration = Duration::from_secs(20);
/// How long to wait between looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Limits of the keys: every check is made, none refuses.
const CALLS_MAX_PER_MINUTE: u32 = 100_000_000;
/// Where those who register have their addresses.
const DOMAIN: &str = "example.com";

/// The tenants one person has: their own and as many as one may create.
const TENANTS_PER_PERSON: usize = 1 + calos_domain::account::TENANTS_FOUNDED_MAX;
const PASSWORD: &str = "a measurement is not a promise";
/// The tier of the measured tenants: the one without a limit of tokens per period.
const TIER: &str = "enterprise";

/// Everything that runs.
pub struct Stage {
    /// The cluster, and this process's share in it.
    pub arena: Arc<Arena>,
    /// The simulated provider.
    pub provider: Served,
    /// The floor.
    pub floor: Served,
    /// CALOS.
    pub calos: Served,
    /// Its tenants' keys.
    pub keys: Vec<String>,
    client: reqwest::Client,
    folder: TempDir,
    cluster: Option<PathBuf>,
}

/// A folder of its own that PostgreSQL's user may pass through, where files outlive the machine's restart: on a file system in
/// memory a commit would cost nothing.
fn private_folder() -> Result<TempDir, BenchError> {
    let lasting = Some(Path::new("/var/tmp")).filter(|path| path.is_dir());
    let near = lasting.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let passable = std::fs::Permissions::from_mode(0o711);
    Ok(tempfile::Builder::new().prefix("calos-bench-").permissions(passable).tempdir_in(near)?)
}

impl Stage {
    /// Starts everything, and opens `tenants` tenants.
    ///
    /// # Errors
    /// When something does not start; whatever had started is ended again.
    pub async fn open(tenants: usize, progress: &Progress) -> Result<Self, BenchError> {
        let folder = private_folder()?;
        let data_dir = folder.path().join("data");
        let unfit = |error: &dyn std::fmt::Display| BenchError::Environment(error.to_string());
        let config = Config::from_vars(&Vars::from_pairs([("CALOS_DATA_DIR", data_dir.to_string_lossy())]))
            .map_err(|error| unfit(&error))?;
        progress.say(&format!("a private PostgreSQL is made in {}", folder.path().display()));
        let arena = Arena::open_with(&config).await?;
        let cluster = arena.cluster_folder();
        match Self::start(&data_dir).await {
            Ok((client, provider, floor, calos)) => {
                let mut stage = Self { arena, provider, floor, calos, keys: Vec::new(), client, folder, cluster };
                progress.say(&format!(
                    "processes: CALOS {} on {}, provider {}, floor {}",
                    stage.calos.pid, stage.calos.address, stage.provider.pid, stage.floor.pid
                ));
                match stage.open_tenants(tenants, &data_dir).await {
                    Ok(()) => Ok(stage),
                    Err(error) => {
                        stage.close().await?;
                        Err(error)
                    }
                }
            }
            Err(error) => {
                arena.close().await?;
                remove(folder, cluster.as_deref())?;
                Err(error)
            }
        }
    }

    async fn start(data_dir: &Path) -> Result<(reqwest::Client, Served, Served, Served), BenchError> {
        let client = super::http_client()?;
        let provider = Served::start("the simulated provider", this_program(&["simulated-provider"])?).await?;
        let upstream = format!("http://{}", provider.address);
        let floor = Served::start("the floor", this_program(&["floor-proxy", &upstream])?).await?;
        let mut command = calos(&["serve"], data_dir, "server.log")?;
        command
            .env("PORT", "0")
            .env("CALOS_BIND", "127.0.0.1")
            .env("OPENAI_API_KEY", KEY)
            .env("OPENAI_BASE_URL", &upstream)
            // Not the machine's own models: whether it has any must not matter.
            .env("OLLAMA_URL", &upstream);
        let calos = Served::start("CALOS", command).await?;
        Ok((client, provider, floor, calos))
    }

    async fn open_tenants(&mut self, tenants: usize, data_dir: &Path) -> Result<(), BenchError> {
        let url = format!("http://{}", self.calos.address);
        let (mut sessions, mut ids) = (Vec::new(), Vec::new());
        let mut session = String::new();
        while ids.len() < tenants.max(1) {
            if ids.len().is_multiple_of(TENANTS_PER_PERSON) {
                let email = format!("bench-{}@{DOMAIN}", ids.len());
                let body = json!({"email": email, "password": PASSWORD});
                let registered = answer(self.client.post(format!("{url}/api/auth/register")).json(&body)).await?;
                session = text_at(&registered["session"], "token")?;
                ids.push(text_at(&registered, "tenantId")?);
            } else {
                let body = json!({"name": format!("bench {}", ids.len())});
                let created = self.client.post(format!("{url}/api/tenants")).bearer_auth(&session).json(&body);
                ids.push(text_at(&answer(created).await?, "tenantId")?);
            }
            sessions.push(session.clone());
        }
        for id in &ids {
            let mut command = calos(&["admin", "tier", id, TIER], data_dir, "admin.log")?;
            // Our own output is the report alone.
            let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().await?;
            if !status.success() {
                return Err(BenchError::Environment(format!("`calos admin tier {id} {TIER}` ended with {status}")));
            }
        }
        self.grant(&ids).await?;
        for (id, session) in ids.iter().zip(&sessions) {
            let body = json!({"name": "calos-bench", "limits": {"perMinute": CALLS_MAX_PER_MINUTE,
                "perHour": CALLS_MAX_PER_MINUTE, "perDay": CALLS_MAX_PER_MINUTE}});
            let issue = self.client.post(format!("{url}/api/tenants/{id}/keys")).bearer_auth(session).json(&body);
            self.keys.push(text_at(&answer(issue).await?, "key")?);
        }
        self.until_known().await
    }

    /// Grants through the log, as any process may that shares the database.
    async fn grant(&self, ids: &[String]) -> Result<(), BenchError> {
        let pool = postgres::connect(self.arena.owner_url(), GRANTING_CONNECTIONS).await?;
        let log = PgLog::open(pool.clone(), LogOptions::default()).await?;
        for id in ids {
            let id: Uuid = id.parse().map_err(|_| BenchError::Check(format!("{id} is no tenant's id")))?;
            let payer = Payer { tenant: TenantId(id), grant: GrantId(Uuid::now_v7()) };
            let mut plan = Plan::default();
            let wallet = plan.stream::<Wallet>(StreamId::key(payer.tenant));
            let request = Request::from(workload::metadata());
            let granted = log.execute(&plan, request, |unit| unit.decide(wallet, grant_command(payer))).await;
            granted.map_err(|error: Failed<WalletRefusal>| match error {
                Failed::Refused(refusal) => BenchError::Check(format!("the credit was refused: {refusal}")),
                Failed::Log(error) => BenchError::Log(error),
            })?;
        }
        log.close().await;
        pool.close().await;
        Ok(())
    }

    /// Waits until each key's call is answered by the model it asked for: the tier was another process's command.
    async fn until_known(&self) -> Result<(), BenchError> {
        let deadline = Instant::now() + KNOWN_MAX;
        for key in &self.keys {
            let goal = Goal::new(self.calos.address, std::slice::from_ref(key), None)?;
            loop {
                let now = Instant::now();
                let span = Span { begin: now, end: now + LOOK_PAUSE };
                let goal = Arc::clone(&goal);
                let seen = tokio::task::spawn_blocking(move || generate(&goal, Arrival::Closed(1), span)).await;
                match seen.map_err(|error| BenchError::Check(format!("a caller ended badly: {error}")))? {
                    Ok(seen) if seen.failed == 0 => break,
                    Err(error) if Instant::now() > deadline => return Err(error),
                    Ok(seen) if Instant::now() > deadline => {
                        let (failed, waited) = (seen.failed, KNOWN_MAX.as_secs());
                        let problem = format!("{failed} calls still failed after {waited} s: a tier is not known");
                        return Err(BenchError::Check(problem));
                    }
                    Ok(_) | Err(_) => tokio::time::sleep(LOOK_PAUSE).await,
                }
            }
        }
        Ok(())
    }

    /// Sets how the provider behaves.
    ///
    /// # Errors
    /// When it cannot be told.
    pub async fn switch(&self, switches: Switches) -> Result<(), BenchError> {
        let url = format!("http://{}{SWITCHES_PATH}", self.provider.address);
        let account: Account = serde_json::from_value(answer(self.client.put(url).json(&switches)).await?)?;
        if account.switches == switches {
            Ok(())
        } else {
            Err(BenchError::Check("the simulated provider did not take its switches".to_owned()))
        }
    }

    /// Calls the provider has accepted so far.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn provider_calls(&self) -> Result<u64, BenchError> {
        let url = format!("http://{}{SWITCHES_PATH}", self.provider.address);
        let account: Account = serde_json::from_value(answer(self.client.get(url)).await?)?;
        Ok(account.calls)
    }

    /// The address of one of the three.
    pub fn address(&self, target: super::Target) -> SocketAddr {
        match target {
            super::Target::Direct => self.provider.address,
            super::Target::Floor => self.floor.address,
            super::Target::Calos => self.calos.address,
        }
    }

    /// Ends everything and leaves nothing behind.
    ///
    /// # Errors
    /// The first thing that could not be ended; the others are ended all the same.
    pub async fn close(self) -> Result<(), BenchError> {
        let Self { arena, provider, floor, calos, folder, cluster, .. } = self;
        let ended = [calos.stop().await, floor.stop().await, provider.stop().await, arena.close().await];
        let removed = remove(folder, cluster.as_deref());
        for outcome in ended {
            outcome?;
        }
        removed
    }
}

/// Removes the folder, and the cluster where that had to live elsewhere.
fn remove(folder: TempDir, cluster: Option<&Path>) -> Result<(), BenchError> {
    let elsewhere = cluster.filter(|cluster| !cluster.starts_with(folder.path())).map(Path::to_path_buf);
    folder.close()?;
    match elsewhere {
        Some(cluster) if cluster.exists() => Ok(std::fs::remove_dir_all(cluster)?),
        Some(_) | None => Ok(()),
    }
}

/// Sends a request whose answer must be a success.
async fn answer(request: RequestBuilder) -> Result<Value, BenchError> {
    let failed = |error: reqwest::Error| BenchError::Environment(format!("a call of the set-up failed: {error}"));
    let response = request.send().await.map_err(failed)?;
    let (status, path) = (response.status(), response.url().path().to_owned());
    let text = response.text().await.map_err(failed)?;
    if !status.is_success() {
        return Err(BenchError::Environment(format!("{path} answered {status}: {text}")));
    }
    Ok(serde_json::from_str(&text)?)
}

fn text_at(value: &Value, field: &str) -> Result<String, BenchError> {
    let text = value[field].as_str().map(str::to_owned);
    text.ok_or_else(|| BenchError::Check(format!("an answer of the set-up has no {field}")))
}
