//! Every setting of CALOS, read once from the environment (and `.env`), typed, bounded, and printable without a secret.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::anchors::{ANCHOR_INTERVAL, ANCHOR_INTERVAL_MAX, AnchorPlaces};
use crate::fetch::FetchSettings;
use crate::postgres::log::QUEUE_MAX_COMMANDS;

mod providers;
mod secrets;
mod summary;
#[cfg(test)]
mod tests;
mod values;
mod vars;

pub use providers::{OllamaConfig, ProviderConfig, ProvidersConfig, StripeConfig, TwilioConfig};
pub use secrets::{SECRET_MIN_CHARS, Secrets};
pub use values::{BaseUrl, MASTER_KEY_BYTES, MasterKey, Secret};
pub use vars::{ConfigError, Vars};

/// The port served when `PORT` is not set.
pub const DEFAULT_PORT: u16 = 5001;
/// The most partitions a log can have.
pub const PARTITIONS_MAX: u16 = 256;
/// The partitions of a new log when `CALOS_PARTITIONS` is not set.
pub const DEFAULT_PARTITIONS: u16 = 16;
/// The connections of the working pool when `CALOS_DATABASE_CONNECTIONS` is not set.
pub const DEFAULT_DATABASE_CONNECTIONS: u32 = 24;
/// The most connections the working pool may be given.
pub const DATABASE_CONNECTIONS_MAX: u32 = 1_000;
/// The longest a server may be told to go on accepting after it was asked to stop.
pub const STOP_DELAY_MAX_SECONDS: u64 = 300;
/// The shortest token that opens `/metrics`.
const METRICS_TOKEN_MIN_BYTES: usize = 16;
/// The most commands that may be set to wait for the log.
pub const QUEUE_COMMANDS_MAX: usize = 65_536;

/// Whether a missing or weak secret is replaced by a drawn one or stops the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// The default: missing secrets are drawn and kept in the data folder.
    Development,
    /// `CALOS_ENV=production`: every secret comes from outside and is strong.
    Production,
}

/// The resolved configuration. Neither `Debug` nor `Display` shows a secret.
#[derive(Debug, Clone)]
pub struct Config {
    /// `CALOS_ENV`: `development` (default) or `production`.
    pub environment: Environment,
    /// What is served, and under which name.
    pub server: ServerConfig,
    /// Where the log lives.
    pub database: DatabaseConfig,
    /// `CALOS_DATA_DIR`, absolute; default `.calos` under the current folder.
    pub data_dir: PathBuf,
    /// `CALOS_ANCHOR_DIR`, absolute; default `anchors` in the data folder. Signed heads of the log are written there.
    pub anchor_dir: PathBuf,
    /// `CALOS_ANCHOR_INTERVAL_SECONDS`, 1 to 86400: how often that happens while the log grows; default 60.
    pub anchor_interval: Duration,
    /// `CALOS_ANCHOR_STDOUT`, 0 or 1: whether each anchor is also a line of JSON on standard output; default 0.
    pub anchor_stdout: bool,
    /// The secrets everything else is derived from or signed with.
    pub secrets: Secrets,
    /// The model providers.
    pub providers: ProvidersConfig,
    /// Payments.
    pub stripe: StripeConfig,
    /// Phone messaging; `None` unless `TWILIO_ACCOUNT_SID` is set.
    pub twilio: Option<TwilioConfig>,
    /// `TWILIO_API_BASE`; default `https://api.twilio.com`.
    pub twilio_api_base: BaseUrl,
    /// `REDIS_URL`: limits shared by several nodes.
    pub redis_url: Option<Secret>,
    /// `HACKERNEWS_BASE_URL`; default `https://hacker-news.firebaseio.com`.
    pub hackernews_base_url: BaseUrl,
    /// Where pages of the web may be fetched from. The public web alone: no setting from outside leads elsewhere.
    pub fetch: FetchSettings,
    /// `CALOS_ADMIN_EMAIL`: who becomes operator on registering, while developing.
    pub admin_email: Option<String>,
}

/// What is served, and under which name.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// `PORT`, 0 (any free one) to 65535; default 5001.
    pub port: u16,
    /// `CALOS_BIND`: the address listened on; default 127.0.0.1 while developing, 0.0.0.0 in production.
    pub bind: IpAddr,
    /// `DOMAIN`: the host name people reach the server by; passkeys are bound to it. Default `localhost`.
    pub domain: String,
    /// `CALOS_PUBLIC_URL`: default `https://DOMAIN`, or `http://localhost:PORT` without a `DOMAIN`. Production needs https.
    pub public_url: BaseUrl,
    /// `CALOS_TRUSTED_PROXIES`: whose `x-forwarded-for` is believed; addresses or ranges separated by commas.
    pub trusted_proxies: Vec<IpNet>,
    /// `CALOS_STOP_DELAY_SECONDS`, 0 to 300: how long a server that was asked to stop goes on accepting while `/readyz` says
    /// that it is not ready. Default 0; a balancer that looks every few seconds needs that long.
    pub stop_delay: Duration,
    /// `CALOS_METRICS_TOKEN`, at least 16 characters: who reads `/metrics` sends it as a bearer token. Without it a proxy
    /// should keep that path inside.
    pub metrics_token: Option<Secret>,
}

/// Where the log lives.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// `DATABASE_URL`; `None` means the embedded PostgreSQL.
    pub url: Option<Secret>,
    /// `CALOS_DATABASE_CONNECTIONS`, 2 to 1000: the most connections of the working pool.
    pub max_connections: u32,
    /// `CALOS_QUEUE_COMMANDS`, 1 to 65536: the most commands that wait for the log before further ones are answered 503.
    pub queue_max_commands: usize,
    /// `CALOS_PARTITIONS`, 1 to 256, when it was asked for; a new log gets 16 otherwise, an existing one keeps its own.
    pub partitions: Option<u16>,
}

impl Config {
    /// Reads the environment and the nearest `.env`, draws missing secrets while developing, and refuses what is wrong with
    /// an error that names the variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(&Vars::from_process()?)
    }

    /// The same from settings given one by one.
    pub fn from_vars(vars: &Vars) -> Result<Self, ConfigError> {
        let environment = environment(vars)?;
        let data_dir = absolute(vars.get("CALOS_DATA_DIR").unwrap_or(".calos"))?;
        let anchor_dir = match vars.get("CALOS_ANCHOR_DIR") {
            Some(folder) => absolute(folder)?,
            None => data_dir.join("anchors"),
        };
        let secrets = Secrets::resolve(vars, environment, &data_dir)?;
        Ok(Self {
            environment,
            server: server(vars, environment)?,
            database: database(vars)?,
            secrets,
            providers: ProvidersConfig::resolve(vars)?,
            stripe: StripeConfig::resolve(vars, environment)?,
            twilio: TwilioConfig::resolve(vars)?,
            twilio_api_base: base_url(vars, "TWILIO_API_BASE", "https://api.twilio.com")?,
            redis_url: redis_url(vars)?,
            hackernews_base_url: base_url(vars, "HACKERNEWS_BASE_URL", "https://hacker-news.firebaseio.com")?,
            fetch: FetchSettings::default(),
            admin_email: vars.parse("CALOS_ADMIN_EMAIL", "an email address", |text| {
                let (local, host) = text.rsplit_once('@')?;
                (!local.is_empty() && host.contains('.')).then(|| text.to_owned())
            })?,
            anchor_interval: vars
                .number("CALOS_ANCHOR_INTERVAL_SECONDS", 1..=ANCHOR_INTERVAL_MAX.as_secs())?
                .map_or(ANCHOR_INTERVAL, Duration::from_secs),
            anchor_stdout: vars.parse("CALOS_ANCHOR_STDOUT", "0 or 1", switch)?.unwrap_or_default(),
            data_dir,
            anchor_dir,
        })
    }

    /// Where anchors go, and how often.
    #[must_use]
    pub fn anchor_places(&self) -> AnchorPlaces {
        AnchorPlaces {
            directory: self.anchor_dir.clone(),
            standard_output: self.anchor_stdout,
            interval: self.anchor_interval,
        }
    }

    /// The resolved configuration, one setting a line, secrets redacted.
    pub fn summary(&self) -> String {
        summary::summary(self)
    }
}

impl fmt::Display for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.summary())
    }
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "0" | "false" => Some(false),
        "1" | "true" => Some(true),
        _ => None,
    }
}

fn environment(vars: &Vars) -> Result<Environment, ConfigError> {
    let parsed = vars.parse("CALOS_ENV", "`development` or `production`", |text| match text {
        "development" => Some(Environment::Development),
        "production" => Some(Environment::Production),
        _ => None,
    })?;
    Ok(parsed.unwrap_or(Environment::Development))
}

fn server(vars: &Vars, environment: Environment) -> Result<ServerConfig, ConfigError> {
    let port = vars.number("PORT", 0..=u16::MAX)?.unwrap_or(DEFAULT_PORT);
    let bind = vars.parse("CALOS_BIND", "an IP address such as 127.0.0.1", |text| text.parse().ok())?;
    let domain = vars.parse("DOMAIN", "a host name such as calos.example.com", parse_host_name)?;
    let public_url = vars.parse("CALOS_PUBLIC_URL", "an address such as https://calos.example.com", BaseUrl::parse)?;
    let default_url = match &domain {
        Some(domain) if domain != "localhost" => BaseUrl::parse(&format!("https://{domain}")),
        Some(_) | None => BaseUrl::parse(&format!("http://localhost:{port}")),
    };
    let public_url = public_url.or(default_url).unwrap_or_else(|| BaseUrl::loopback(port));
    // Over http the session's cookie crosses the network in the clear, and other hosts of the domain may set it.
    if environment == Environment::Production && !public_url.as_str().starts_with("https://") {
        return Err(ConfigError::Invalid {
            name: "CALOS_PUBLIC_URL",
            got: public_url.to_string(),
            expected: "an https address with CALOS_ENV=production; DOMAIN=calos.example.com gives one too".to_owned(),
        });
    }
    Ok(ServerConfig {
        port,
        bind: bind.unwrap_or(match environment {
            Environment::Development => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Environment::Production => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }),
        public_url,
        domain: domain.unwrap_or_else(|| "localhost".to_owned()),
        trusted_proxies: vars
            .parse("CALOS_TRUSTED_PROXIES", "IP addresses or ranges separated by commas", parse_ranges)?
            .unwrap_or_default(),
        stop_delay: Duration::from_secs(
            vars.number("CALOS_STOP_DELAY_SECONDS", 0..=STOP_DELAY_MAX_SECONDS)?.unwrap_or_default(),
        ),
        metrics_token: metrics_token(vars)?,
    })
}

fn database(vars: &Vars) -> Result<DatabaseConfig, ConfigError> {
    let url = match vars.get("DATABASE_URL") {
        None => None,
        Some(text) if text.starts_with("postgres://") || text.starts_with("postgresql://") => Some(Secret::new(text)),
        Some(_) => {
            return Err(ConfigError::InvalidSecret {
                name: "DATABASE_URL",
                expected: "postgres://user:password@host:5432/database",
            });
        }
    };
    Ok(DatabaseConfig {
        url,
        max_connections: vars
            .number("CALOS_DATABASE_CONNECTIONS", 2..=DATABASE_CONNECTIONS_MAX)?
            .unwrap_or(DEFAULT_DATABASE_CONNECTIONS),
        queue_max_commands: vars.number("CALOS_QUEUE_COMMANDS", 1..=QUEUE_COMMANDS_MAX)?.unwrap_or(QUEUE_MAX_COMMANDS),
        partitions: vars.number("CALOS_PARTITIONS", 1..=PARTITIONS_MAX)?,
    })
}

fn metrics_token(vars: &Vars) -> Result<Option<Secret>, ConfigError> {
    match vars.get("CALOS_METRICS_TOKEN") {
        None => Ok(None),
        Some(text) if text.len() >= METRICS_TOKEN_MIN_BYTES => Ok(Some(Secret::new(text))),
        Some(_) => Err(ConfigError::InvalidSecret { name: "CALOS_METRICS_TOKEN", expected: "16 characters or more" }),
    }
}

fn redis_url(vars: &Vars) -> Result<Option<Secret>, ConfigError> {
    match vars.get("REDIS_URL") {
        None => Ok(None),
        Some(text) if text.starts_with("redis://") || text.starts_with("rediss://") => Ok(Some(Secret::new(text))),
        Some(_) => Err(ConfigError::InvalidSecret { name: "REDIS_URL", expected: "redis://host:6379" }),
    }
}

/// The address in `name`, or the default one.
fn base_url(vars: &Vars, name: &'static str, default: &str) -> Result<BaseUrl, ConfigError> {
    const EXPECTED: &str = "an address such as https://api.example.com";
    let given = vars.parse(name, EXPECTED, BaseUrl::parse)?.or_else(|| BaseUrl::parse(default));
    given.ok_or_else(|| ConfigError::Invalid { name, got: default.to_owned(), expected: EXPECTED.to_owned() })
}

fn parse_host_name(text: &str) -> Option<String> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (text.len() <= 253 && text.split('.').all(label)).then(|| text.to_ascii_lowercase())
}

fn parse_ranges(text: &str) -> Option<Vec<IpNet>> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| part.parse::<IpNet>().ok().or_else(|| part.parse::<IpAddr>().ok().map(IpNet::from)))
        .collect()
}

/// Creates the data folder unless it is there. PostgreSQL is another user where CALOS is root, and passes through it to its
/// cluster; the secrets lie in a folder of their own, closed to everybody else.
pub(crate) fn create_data_dir(data_dir: &Path) -> std::io::Result<()> {
    if let Some(parent) = data_dir.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    match std::fs::DirBuilder::new().mode(mode).create(data_dir) {
        // The umask may have taken the right to pass through.
        Ok(()) => std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn absolute(folder: &str) -> Result<PathBuf, ConfigError> {
    std::path::absolute(Path::new(folder)).map_err(|source| ConfigError::Io {
        doing: "resolving",
        path: PathBuf::from(folder),
        source,
    })
}
