//! Simulated model providers on loopback, so that a newcomer can run everything without an account anywhere.
//!
//! They speak the real wire formats, counts, streams and failures included, and are labelled wherever a person looks:
//! every response carries [`LABEL_HEADER`], listed models are `owned_by: "simulated"`, and every answer in words begins
//! with `[simulated]`. CALOS reaches them over HTTP like any other provider; nothing else in CALOS knows of them.
//!
//! Three control endpoints stand on every port: `GET`/`PUT /simulated/switches` ([`Switches`]) and
//! `GET`/`DELETE /simulated/produced` ([`Tally`]: what the servers gave out, to compare bills with), and
//! `GET /simulated/accounts` (which keys calls came with, by their last four characters). A prompt can switch its own
//! answer: see [`switches`].

mod accounts;
pub mod anthropic;
mod anthropic_prompt;
pub mod deepseek;
mod embeddings;
pub mod ollama;
pub mod openai;
pub mod produced;
mod story;
pub mod switches;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use calos_adapters::config::{BaseUrl, ProvidersConfig, Secret};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use accounts::Accounts;
use anthropic_prompt::PromptCache;
use produced::{Produced, Tally};
use switches::Switches;

/// On every response of a simulated provider, with the value `true`.
pub const LABEL_HEADER: &str = "x-calos-simulated";

/// What every simulated answer begins with.
pub const LABEL: &str = "[simulated]";

/// Whose the simulated models are.
pub const OWNER: &str = "simulated";

/// The largest request a simulated provider reads.
const BODY_MAX_BYTES: usize = 64 * 1024 * 1024;

/// The key a simulated account answers to; any other is as good.
pub const KEY: &str = "sk-simulated";

/// What the servers share.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    switches: RwLock<Switches>,
    produced: Produced,
    accounts: Accounts,
    /// What the simulated Anthropic has in its cache.
    prompt_cache: PromptCache,
    /// How often calls with the same switches were refused.
    refused: Mutex<HashMap<String, u64>>,
}

impl Stage {
    fn switches(&self) -> Switches {
        self.switches.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A call was refused because of the tools it offered.
    fn refuse_tools(&self, model: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(format!("tools for {model}")).or_default() += 1;
    }

    /// The status a call with these switches is refused with, if it is refused.
    fn failure(&self, switches: &Switches) -> Option<StatusCode> {
        let status = switches.failure()?;
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let before = refused.entry(format!("{switches:?}")).or_default();
        if switches.fail_first.is_some_and(|most| *before >= most) {
            return None;
        }
        *before += 1;
        Some(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
    }

    fn set(&self, switches: Switches) {
        *self.switches.write().unwrap_or_else(PoisonError::into_inner) = switches;
    }
}

/// Running simulated providers; dropping it stops them.
#[derive(Debug)]
pub struct SimulatedProviders {
    openai: SocketAddr,
    anthropic: SocketAddr,
    deepseek: SocketAddr,
    ollama: SocketAddr,
    stage: Arc<Stage>,
    servers: Vec<JoinHandle<()>>,
}

impl SimulatedProviders {
    /// Starts every provider on a free port of 127.0.0.1, answering at once.
    ///
    /// # Errors
    /// When no port can be opened.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_with(Switches::default()).await
    }

    /// Starts every provider on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be opened.
    pub async fn start_with(switches: Switches) -> std::io::Result<Self> {
        let stage = Arc::new(Stage::default());
        stage.set(switches);
        let (openai, openai_server) = serve(openai::router(), &stage).await?;
        let (anthropic, anthropic_server) = serve(anthropic::router(), &stage).await?;
        let (deepseek, deepseek_server) = serve(deepseek::router(), &stage).await?;
        let (ollama, ollama_server) = serve(ollama::router(), &stage).await?;
        let servers = vec![openai_server, anthropic_server, deepseek_server, ollama_server];
        Ok(Self { openai, anthropic, deepseek, ollama, stage, servers })
    }

    /// The base address of the simulated OpenAI; `/v1/…` follows it.
    #[must_use]
    pub fn openai_url(&self) -> String {
        format!("http://{}", self.openai)
    }

    /// The root address of the simulated Anthropic.
    #[must_use]
    pub fn anthropic_url(&self) -> String {
        format!("http://{}", self.anthropic)
    }

    /// The base address of the simulated DeepSeek; `/v1/…` follows it.
    #[must_use]
    pub fn deepseek_url(&self) -> String {
        format!("http://{}", self.deepseek)
    }

    /// The root address of the simulated Ollama.
    #[must_use]
    pub fn ollama_url(&self) -> String {
        format!("http://{}", self.ollama)
    }

    /// Points the settings of every provider that is simulated here.
    pub fn take_the_place_of(&self, providers: &mut ProvidersConfig) {
        providers.openai.base_url = BaseUrl::loopback(self.openai.port());
        providers.openai.api_key = Some(Secret::new(KEY));
        providers.anthropic.base_url = BaseUrl::loopback(self.anthropic.port());
        providers.anthropic.api_key = Some(Secret::new(KEY));
        providers.deepseek.base_url = BaseUrl::loopback(self.deepseek.port());
        providers.deepseek.api_key = Some(Secret::new(KEY));
        providers.ollama.base_url = BaseUrl::loopback(self.ollama.port());
        providers.ollama.configured = true;
        providers.ollama.personas.clear();
    }

    /// Changes the switches for every later call.
    pub fn switch(&self, switches: Switches) {
        self.stage.set(switches);
    }

    /// What was given out so far, by `provider/model`.
    #[must_use]
    pub fn produced(&self) -> BTreeMap<String, Tally> {
        self.stage.produced.tallies()
    }

    /// How many calls were refused because of a switch, or of tools that a model does not call.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.stage.refused.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// How many calls came with which key, by its last four characters.
    #[must_use]
    pub fn accounts(&self) -> BTreeMap<String, u64> {
        self.stage.accounts.calls()
    }

    /// Stops at once; what is on its way breaks off.
    pub async fn stop(mut self) {
        for server in std::mem::take(&mut self.servers) {
            server.abort();
            // An aborted task ends in an error that says just that.
            let _aborted = server.await;
        }
    }
}

impl fmt::Display for SimulatedProviders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (openai, anthropic) = (self.openai_url(), self.anthropic_url());
        let (deepseek, ollama) = (self.deepseek_url(), self.ollama_url());
        write!(f, "OpenAI at {openai}/v1, Anthropic at {anthropic}, DeepSeek at {deepseek}/v1, Ollama at {ollama}")
    }
}

impl Drop for SimulatedProviders {
    fn drop(&mut self) {
        for server in &self.servers {
            server.abort();
        }
    }
}

async fn serve(routes: Router<Arc<Stage>>, stage: &Arc<Stage>) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    // Without it every small piece of a stream waits for the acknowledgement of the one before.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY on a simulated provider's connection");
        }
    });
    let router = routes
        .route("/simulated/switches", get(read_switches).put(set_switches))
        .route("/simulated/produced", get(read_produced).delete(clear_produced))
        .route("/simulated/accounts", get(read_accounts))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .layer(axum::middleware::map_response(label))
        .with_state(Arc::clone(stage));
    let server = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "a simulated provider stopped");
        }
    });
    Ok((address, server))
}

async fn label(mut response: Response) -> Response {
    response.headers_mut().insert(LABEL_HEADER, HeaderValue::from_static("true"));
    response
}

async fn read_switches(State(stage): State<Arc<Stage>>) -> Json<Switches> {
    Json(stage.switches())
}

async fn set_switches(State(stage): State<Arc<Stage>>, Json(switches): Json<Switches>) -> Json<Switches> {
    stage.set(switches);
    Json(stage.switches())
}

async fn read_produced(State(stage): State<Arc<Stage>>) -> Json<BTreeMap<String, Tally>> {
    Json(stage.produced.tallies())
}

async fn read_accounts(State(stage): State<Arc<Stage>>) -> Json<BTreeMap<String, u64>> {
    Json(stage.accounts.calls())
}

async fn clear_produced(State(stage): State<Arc<Stage>>) -> StatusCode {
    stage.produced.clear();
    StatusCode::NO_CONTENT
}
