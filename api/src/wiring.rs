//! The composition root: which adapter plays which role, who owns which background task, and in which order all of it
//! ends.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use calos_adapters::anchors::{ANCHOR_INTERVAL, Anchoring};
use calos_adapters::config::Config;
use calos_adapters::database::{Database, DatabaseError};
use calos_adapters::postgres::{LogOptions, PgLog};
use calos_adapters::secrets::{BCRYPT_COST_DEFAULT, Secrets, SecretsError, SecretsOptions};
use calos_commands::log::LogError;
use calos_commands::ports::World;

use crate::idempotency::{self, InProgress};
use crate::pulse::Pulse;

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
    /// Idempotency keys being worked on here.
    pub in_progress: InProgress,
    /// Whether the database answers.
    pub pulse: Pulse,
    /// Whether the providers are simulated ones.
    pub simulated: bool,
    /// Whether the embedded cluster serves, rather than somebody else's database.
    pub embedded: bool,
    /// Cancelled when the server is asked to stop: what waits for long should look at it.
    pub stopping: CancellationToken,
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
            Ok((app, mut tasks)) => {
                tasks.push(("idempotency sweep", spawn_sweep(app.pool.clone(), stop.clone())));
                let (key, directory) = (app.secrets.ledger_signing_key().clone(), app.config.anchor_dir.clone());
                let anchoring = Anchoring::start(app.pool.clone(), Arc::new(key), directory, ANCHOR_INTERVAL);
                Ok((app, Background { stop, tasks, anchoring, database }))
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
    ) -> Result<(Self, Tasks), StartError> {
        let pool = database.pool.clone();
        let options = secrets_options(&config);
        let secrets = Secrets::open(pool.clone(), &options).await?;
        let log = PgLog::open(pool.clone(), LogOptions::default()).await?;
        let (pulse, pulse_task) = Pulse::start(pool.clone(), stop.clone()).await;
        let app = Self(Arc::new(Parts {
            world: secrets.world(),
            in_progress: InProgress::default(),
            embedded: database.cluster().is_some(),
            config,
            log,
            pool,
            secrets,
            pulse,
            simulated,
            stopping: CancellationToken::new(),
        }));
        Ok((app, vec![("pulse", pulse_task)]))
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
fn spawn_sweep(pool: PgPool, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            match idempotency::sweep(&pool).await {
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
