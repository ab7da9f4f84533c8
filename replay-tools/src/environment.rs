//! What the tools work on: the settings every CALOS program reads, the database they lead to, and the log in it.

use std::path::Path;

use calos_adapters::config::Config;
use calos_adapters::database::Database;
use calos_adapters::postgres::{LogOptions, PgLog};
use calos_adapters::secrets::{BCRYPT_COST_DEFAULT, RootSecret, Secrets, SecretsOptions, ledger_signing_key};
use calos_projections::{checkpoint, registry};
use ed25519_dalek::SigningKey;
use sqlx::PgPool;

use crate::error::ToolError;
use crate::log_file::WrappedRoot;
use crate::verify::Anchors;

/// Connections of the owner's pool: the verbs that need more open their own.
const OWNER_CONNECTIONS: u32 = 4;

/// An open database and the rights of its owner.
pub(crate) struct Environment {
    config: Config,
    database: Database,
    pub(crate) owner: PgPool,
}

impl Environment {
    /// Reads the settings, joins or starts the database and makes every read model known to it.
    pub(crate) async fn open() -> Result<Self, ToolError> {
        let environment = |error: &dyn std::fmt::Display| ToolError::Environment(error.to_string());
        let config = Config::from_env().map_err(|error| environment(&error))?;
        let database = Database::open(&config).await.map_err(|error| environment(&error))?;
        let owner = database.owner_pool(OWNER_CONNECTIONS).await.map_err(|error| environment(&error))?;
        checkpoint::ensure_registered(&owner, registry::ALL).await?;
        Ok(Self { config, database, owner })
    }

    /// The settings.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The log, for recording what is done.
    pub(crate) async fn log(&self) -> Result<PgLog, ToolError> {
        Ok(PgLog::open(self.database.pool.clone(), LogOptions::default()).await?)
    }

    /// Everything secret, as a server has it.
    pub(crate) async fn secrets(&self) -> Result<Secrets, ToolError> {
        let secrets = &self.config.secrets;
        let options = SecretsOptions {
            master_key: secrets.master_key.clone(),
            master_key_previous: secrets.master_key_previous.clone(),
            jwt_secret: secrets.jwt.clone(),
            issuer: self.config.server.domain.clone(),
            password_cost: BCRYPT_COST_DEFAULT,
        };
        let opened = Secrets::open(self.database.pool.clone(), &options).await;
        opened.map_err(|error| ToolError::Environment(error.to_string()))
    }

    /// Where the signed heads are, and whose signature they bear.
    pub(crate) async fn anchors(&self) -> Result<Anchors, ToolError> {
        let key = self.signing_key().await?.verifying_key();
        Ok(Anchors { directory: self.config.anchor_dir.clone(), key })
    }

    /// The ledger's key.
    pub(crate) async fn signing_key(&self) -> Result<SigningKey, ToolError> {
        let secrets = &self.config.secrets;
        let root =
            RootSecret::open(&self.database.pool, &secrets.master_key, secrets.master_key_previous.as_ref()).await;
        Ok(ledger_signing_key(&root.map_err(|error| ToolError::Environment(error.to_string()))?))
    }

    /// The ledger's key of another database of the same master key, such as the one a backup was taken of.
    pub(crate) fn signing_key_of(&self, root: &WrappedRoot) -> Result<SigningKey, ToolError> {
        let secrets = &self.config.secrets;
        let previous = secrets.master_key_previous.as_ref();
        let root = RootSecret::from_wrapped(&root.wrapped, root.master_version, &secrets.master_key, previous);
        Ok(ledger_signing_key(&root.map_err(|error| ToolError::Environment(error.to_string()))?))
    }

    /// Where anchors, epochs and erasures are kept outside the database.
    pub(crate) fn anchor_directory(&self) -> &Path {
        &self.config.anchor_dir
    }

    /// Leaves the database in order: with an embedded one the last program out stops it.
    pub(crate) async fn close(self) -> Result<(), ToolError> {
        self.owner.close().await;
        self.database.close().await.map_err(|error| ToolError::Environment(error.to_string()))
    }
}
