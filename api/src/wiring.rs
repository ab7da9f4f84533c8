//! The composition root: which adapter plays which role, who owns which background task, and in which order all of it
//! ends.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use calos_adapters::anchors::Anchoring;
use calos_adapters::config::Config;
use calos_adapters::database::{Database, DatabaseError};
use calos_adapters::fetch::SafeFetcher;
use calos_adapters::fetch::client::NoFetcher;
use calos_adapters::postgres::{LogOptions, PgLog};
use calos_adapters::providers::ProvidersError;
use calos_adapters::secrets::{BCRYPT_COST_DEFAULT, Secrets, SecretsError, SecretsOptions};
use calos_commands::books::Books;
use calos_commands::complete_chat::Gateway;
use calos_commands::fault::Never;
use calos_commands::log::{EventLog, Failed, LogError, Plan, Positions};
use calos_commands::metadata::{Actor, Metadata};
use calos_commands::ports::World;
use calos_commands::tool_loop::WebReader;
use calos_domain::licence::Licence;
use calos_domain::tiers::Tier;
use calos_domain::{StreamId, TenantId};
use calos_projections::{Progress, Runner, RunnerHandle, RunnerOptions, wait};

use crate::auth::Auth;
use crate::book_port::BookPort;
use crate::error::ApiError;
use crate::expire_grants;
use crate::expire_holds;
use crate::gateway;
use crate::idempotency::{self, InProgress};
use crate::metrics::Metrics;
use crate::metrics::watch::Watched;
use crate::position;
use crate::rebuilds::Rebuilds;
use crate::routes::health::Looks;
use crate::seal_check::SealChecks;
use crate::sweep_keyring;
use crate::telemetry;

/// How often answers too old to be replayed are removed.
const SWEEP_SECONDS: u64 = 600;

type Tasks = Vec<(&'static str, JoinHandle<()>)>;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is another server running there? PORT chooses another port")]
    Listen {
        /// Which.
        address: String,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// The secrets do not fit the database, or cannot be used.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The model providers cannot be called.
    #[error(transparent)]
    Providers(#[from] ProvidersError),
    /// Pages of the web cannot be fetched.
    #[error(transparent)]
    Fetcher(#[from] NoFetcher),
    /// The read models cannot be registered.
    #[error("the read models cannot be registered: {0}")]
    Projections(#[from] sqlx::Error),
    /// The log cannot be opened.
    #[error("the log cannot be opened: {0}")]
    Log(#[from] LogError),
    /// The database refuses something.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The running application, shared by every request.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What an [`App`] is made of.
pub struct Parts {
    /// The settings.
    pub config: Config,
    /// Where every command goes.
    pub log: PgLog,
    /// For read models and the few tables that are no read models.
    pub pool: PgPool,
    /// Everything that has to stay secret.
    pub secrets: Secrets,
    /// The roles the identity use cases need.
    pub world: World,
    /// What is remembered about callers.
    pub auth: Auth,
    /// Model calls, held for and charged.
    pub gateway: Gateway<PgLog>,
    /// Conversations that read pages of the web.
    pub web: WebReader,
    /// The books, for closing months and reconciling.
    pub books: Arc<dyn Books>,
    /// Idempotency keys being worked on here.
    pub in_progress: InProgress,
    /// When this process began to serve.
    pub started: Instant,
    /// What was last seen of the database by whoever asks about it.
    pub looks: Looks,
    /// What the server counts about itself.
    pub metrics: Arc<Metrics>,
    /// Seal checks begun here.
    pub seal_checks: SealChecks,
    /// Rebuilds begun here.
    pub rebuilds: Rebuilds,
    /// How far this process has brought the read models.
    pub progress: watch::Receiver<Progress>,
    /// Whether the providers are simulated ones.
    pub simulated: bool,
    /// Whether the embedded cluster serves, rather than somebody else's database.
    pub embedded: bool,
    /// Cancelled when the server stops: what waits for long should look at it.
    pub stopping: CancellationToken,
    /// Cancelled when the server says that it takes no more traffic, though it goes on serving; at the latest when it stops.
    pub leaving: CancellationToken,
}

impl Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What works behind the server. [`Background::stop`] ends it in order.
pub struct Background {
    stop: CancellationToken,
    tasks: Tasks,
    runner: RunnerHandle,
    anchoring: Anchoring,
    database: Database,
}

impl App {
    /// Opens the log over a database and starts what works behind the server.
    ///
    /// # Errors
    /// [`StartError`]; the database is released again.
    pub async fn start(config: Config, database: Database, simulated: bool) -> Result<(Self, Background), StartError> {
        let stop = CancellationToken::new();
        match Self::open(config, &database, simulated, &stop).await {
            Ok((app, runner, mut tasks)) => {
                tasks.push(("idempotency sweep", spawn_sweep(app.pool.clone(), app.log.clone(), stop.clone())));
                let key = Arc::new(app.secrets.ledger_signing_key().clone());
                let anchoring = Anchoring::start(app.pool.clone(), key, app.config.anchor_places());
                Ok((app, Background { stop, tasks, runner, anchoring, database }))
            }
            Err(error) => {
                close(database).await;
                Err(error)
            }
        }
    }

    async fn open(
        config: Config,
        database: &Database,
        simulated: bool,
        stop: &CancellationToken,
    ) -> Result<(Self, RunnerHandle, Tasks), StartError> {
        let pool = database.pool.clone();
        let options = secrets_options(&config);
        let secrets = Secrets::open(pool.clone(), &options).await?;
        let options = LogOptions { queue_max_commands: config.database.queue_max_commands, ..LogOptions::default() };
        let observer = telemetry::current().map(|telemetry| telemetry.board() as _);
        let log = PgLog::open_observed(pool, options, observer).await?;
        let assembled = Self::assemble(config, database, simulated, stop, secrets, log.clone()).await;
        if assembled.is_err() {
            // Whatever was started gives its connections back before the pool closes.
            stop.cancel();
            log.close().await;
        }
        assembled
    }

    async fn assemble(
        config: Config,
        database: &Database,
        simulated: bool,
        stop: &CancellationToken,
        secrets: Secrets,
        log: PgLog,
    ) -> Result<(Self, RunnerHandle, Tasks), StartError> {
        let pool = database.pool.clone();
        let observer = telemetry::current().map(|telemetry| telemetry.board() as _);
        let options = RunnerOptions { observer, database: Some(log.pulse().watched()), ..RunnerOptions::default() };
        let runner = Runner::start(pool.clone(), log.heads(), options).await?;
        let metrics = Arc::new(Metrics::default());
        let auth = Auth::new(&log, &secrets);
        let following = auth.follow(&log, stop.clone());
        let world = secrets.world();
        let gateway = gateway::open(&config.providers, &log, &secrets, &world)?;
        let fetcher = Arc::new(SafeFetcher::new(config.fetch.clone())?);
        let web = WebReader::new(fetcher, Arc::clone(&world.randomness));
        let catalogue = gateway::spawn_catalogue(gateway.clone(), &config.providers, stop.clone());
        let expiry = expire_holds::spawn(pool.clone(), log.clone(), Arc::clone(&metrics), stop.clone());
        let watched = Watched {
            metrics: Arc::clone(&metrics),
            pool: pool.clone(),
            heads: log.heads(),
            progress: runner.progress(),
        };
        let watching = watched.spawn(stop.clone());
        let grant_expiry = expire_grants::spawn(pool.clone(), log.clone(), runner.progress(), stop.clone());
        let keyring = sweep_keyring::spawn(secrets.clone(), log.clone(), stop.clone());
        let stopping = CancellationToken::new();
        let app = Self(Arc::new(Parts {
            world,
            gateway,
            web,
            auth,
            books: Arc::new(BookPort::new(pool.clone(), log.clone(), runner.progress())),
            in_progress: InProgress::default(),
            embedded: database.cluster().is_some(),
            config,
            log,
            pool,
            secrets,
            started: Instant::now(),
            looks: Looks::default(),
            metrics,
            seal_checks: SealChecks::default(),
            rebuilds: Rebuilds::default(),
            progress: runner.progress(),
            simulated,
            leaving: stopping.child_token(),
            stopping,
        }));
        Ok((
            app,
            runner,
            vec![
                ("callers", following),
                ("catalogue", catalogue),
                ("hold expiry", expiry),
                ("grant expiry", grant_expiry),
                ("metrics", watching),
                ("keyring sweep", keyring),
            ],
        ))
    }

    /// Whole seconds since this process began to serve.
    #[must_use]
    pub fn uptime_seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Waits until a read model has seen some positions.
    ///
    /// # Errors
    /// 400 for a partition this log does not have; 503 `projection_behind` after [`wait::WAIT_MAX`].
    pub async fn wait_for(&self, projection: &'static str, positions: &Positions) -> Result<(), ApiError> {
        let partitions = i32::from(self.log.partitions());
        if positions.0.keys().any(|partition| *partition >= partitions) {
            return Err(ApiError::header(
                "calos-after",
                format!("names a partition beyond the {partitions} of this log"),
            ));
        }
        let deadline = Instant::now() + wait::WAIT_MAX;
        let waited = wait::wait_until(&self.pool, &self.progress, projection, &positions.0, deadline).await;
        waited.map_err(|behind| position::behind(projection).because(behind))
    }

    /// The tier a tenant is licensed for, decided on the licence itself; none for an unknown tenant.
    ///
    /// # Errors
    /// The log's.
    pub async fn tier_of(&self, tenant: TenantId) -> Result<Option<Tier>, ApiError> {
        let mut plan = Plan::default();
        let licence = plan.stream::<Licence>(StreamId::key(tenant));
        let looking = Metadata::new(Actor::System("look-up"));
        let found: Result<_, Failed<Never>> =
            self.log.execute(&plan, looking.into(), |unit| Ok(unit.with(licence, Licence::tier))).await;
        Ok(found?.answer)
    }
}

impl Background {
    /// Ends the workers, then the log (what was enqueued becomes durable), then the last anchor, then the database.
    pub async fn stop(self, app: App) {
        app.stopping.cancel();
        self.stop.cancel();
        for (name, task) in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, name, "a worker ended badly");
            }
        }
        gateway::stop(&app.gateway).await;
        self.runner.shutdown().await;
        app.log.close().await;
        self.anchoring.stop().await;
        drop(app);
        close(self.database).await;
    }
}

/// What the settings say about secrets.
#[must_use]
pub fn secrets_options(config: &Config) -> SecretsOptions {
    SecretsOptions {
        master_key: config.secrets.master_key.clone(),
        master_key_previous: config.secrets.master_key_previous.clone(),
        jwt_secret: config.secrets.jwt.clone(),
        issuer: config.server.domain.clone(),
        password_cost: BCRYPT_COST_DEFAULT,
    }
}

/// Removes answers that are too old to be replayed, now and then.
fn spawn_sweep(pool: PgPool, log: PgLog, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let swept = log.pulse().unless_lost(idempotency::sweep(&pool)).await;
            match swept.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(0) => {}
                Ok(removed) => tracing::debug!(removed, "answers too old to be replayed were removed"),
                Err(error) => tracing::warn!(%error, "answers too old to be replayed could not be removed"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(SWEEP_SECONDS)) => {}
            }
        }
    })
}

/// Closes a database on the way out.
pub(crate) async fn close(database: Database) {
    if let Err(error) = database.close().await {
        tracing::error!(%error, "the database could not be released");
    }
}
