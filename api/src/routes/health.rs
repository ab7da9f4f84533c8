//! Is it alive, is it ready, and whose signature stands under its ledger.

use std::time::Duration;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sqlx::Row;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use calos_adapters::postgres::MIGRATOR;
use calos_commands::complete_chat::ProviderState;
use calos_domain::pricing::Provider;
use calos_projections::status::{self, ProjectionStatus, State};

use crate::error::{ApiError, Code};
use crate::openapi::ErrorBody;
use crate::recent::Recent;
use crate::wiring::App;

/// What these endpoints saw last.
#[derive(Debug, Default)]
pub struct Looks {
    tables: Recent<Result<i64, String>>,
    readiness: Recent<(Checks, Vec<String>)>,
}

/// How long one look at the database may take.
const LOOK_MAX_SECONDS: u64 = 1;

/// How long a read model's oldest waiting event may have waited before it counts as not following.
const LAG_MAX_SECONDS: f64 = 30.0;

/// The endpoints.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(database_health))
        .routes(routes!(ready))
        .routes(routes!(ledger_key))
}

/// The answer of `/health`.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `ok`, or `degraded` while the database is away.
    status: &'static str,
    /// `connected` or `disconnected`, as of the last look, at most about a second ago.
    database: &'static str,
    /// Whole seconds since the start.
    uptime: u64,
}

/// Is the process alive? Costs nothing and asks nobody.
#[utoipa::path(get, path = "/health", tag = "operations", responses((status = 200, body = Health)))]
async fn health(Shared(app): Shared<App>) -> Json<Health> {
    let connected = app.log.pulse().is_connected();
    Json(Health {
        status: if connected { "ok" } else { "degraded" },
        database: if connected { "connected" } else { "disconnected" },
        uptime: app.uptime_seconds(),
    })
}

/// The answer of `/api/health/database`.
#[derive(Serialize, ToSchema)]
pub struct DatabaseHealth {
    /// Whether the database answered within the last second.
    connected: bool,
    /// How many tables CALOS has in it.
    tables: i64,
}

/// Does the database answer, and has it CALOS's tables?
#[utoipa::path(get, path = "/api/health/database", tag = "operations",
    responses((status = 200, body = DatabaseHealth), (status = 503, body = ErrorBody)))]
async fn database_health(Shared(app): Shared<App>) -> Result<Json<DatabaseHealth>, ApiError> {
    let count = sqlx::query_scalar::<_, i64>(
        "SELECT count(*) FROM information_schema.tables WHERE table_type = 'BASE TABLE'
         AND table_schema IN ('public', 'read', 'read_next', 'read_old')",
    );
    let tables =
        app.looks.tables.or_look(async || bounded(count.fetch_one(&app.pool)).await).await.map_err(|cause| {
            ApiError::new(Code::DatabaseUnavailable, "the database does not answer; try again in a moment")
                .because(cause)
                .with_fact("connected", false)
                .with_fact("tables", 0)
        })?;
    Ok(Json(DatabaseHealth { connected: true, tables }))
}

/// One line of `/readyz`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Check {
    /// Whether this part can do its work.
    ok: bool,
    /// What was found.
    detail: String,
}

impl Check {
    fn new(ok: bool, detail: impl Into<String>) -> Self {
        Self { ok, detail: detail.into() }
    }
}

/// Everything `/readyz` looks at, at most once a second.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Checks {
    /// Whether the database answers.
    database: Check,
    /// Whether its schema is this program's.
    migrations: Check,
    /// Whether the read models follow the log.
    projections: Check,
    /// Whether a model provider is configured.
    providers: Check,
    /// Whether the embedded PostgreSQL runs, where it is used.
    embedded: Check,
}

/// The answer of `/readyz`.
#[derive(Serialize, ToSchema)]
pub struct Readiness {
    /// Whether every check holds.
    ready: bool,
    /// The checks.
    checks: Checks,
    /// What an operator should know although it does not stand in the way.
    notes: Vec<String>,
}

/// Can it take traffic?
#[utoipa::path(get, path = "/readyz", tag = "operations",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness)))]
async fn ready(Shared(app): Shared<App>) -> Response {
    let (checks, mut notes) = app.looks.readiness.or_look(|| look(&app)).await;
    let Checks { database, migrations, projections, providers, embedded } = &checks;
    let stopping = app.leaving.is_cancelled();
    if stopping {
        notes.push("the server is stopping".to_owned());
    }
    let ready = !stopping && [database, migrations, projections, providers, embedded].iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, checks, notes })).into_response()
}

/// Looks at everything, with what an operator should know besides.
async fn look(app: &App) -> (Checks, Vec<String>) {
    let mut notes = Vec::new();
    let answers = bounded(sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(&app.pool)).await.is_ok();
    if !answers {
        let unseen = || Check::new(false, "cannot be looked at: the database does not answer");
        let checks = Checks {
            database: Check::new(false, "does not answer"),
            migrations: unseen(),
            projections: unseen(),
            providers: providers(app, &mut notes),
            embedded: embedded(app, false),
        };
        return (checks, notes);
    }
    let database = Check::new(true, "answers");
    let checks = Checks {
        migrations: migrations(app).await,
        projections: projections(app).await,
        providers: providers(app, &mut notes),
        embedded: embedded(app, true),
        database,
    };
    notes.extend(append_only(app).await);
    (checks, notes)
}

/// Runs one query within its time, and says in words why it failed.
async fn bounded<T>(query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, String> {
    match tokio::time::timeout(Duration::from_secs(LOOK_MAX_SECONDS), query).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {LOOK_MAX_SECONDS} s")),
    }
}

async fn migrations(app: &App) -> Check {
    let wanted = MIGRATOR.iter().count();
    let applied = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM _sqlx_migrations WHERE success");
    match bounded(applied.fetch_one(&app.pool)).await {
        Ok(applied) => {
            let current = usize::try_from(applied).is_ok_and(|applied| applied == wanted);
            Check::new(current, format!("{applied} of {wanted} applied"))
        }
        Err(_) => Check::new(false, "cannot be looked at"),
    }
}

/// Read models that halted wait for an operator; those that lag catch up, unless they lag for too long.
async fn projections(app: &App) -> Check {
    let Ok(models) = bounded(status::projections(&app.pool)).await else {
        return Check::new(false, "cannot be looked at");
    };
    let named = |wrong: fn(&ProjectionStatus) -> bool| {
        models.iter().filter(|model| wrong(model)).map(|model| model.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let halted = named(|model| model.state == State::Halted);
    if !halted.is_empty() {
        return Check::new(false, format!("halted: {halted}; run calos-replay rebuild <projection>"));
    }
    let behind = named(|model| model.lag_seconds() > LAG_MAX_SECONDS);
    if !behind.is_empty() {
        return Check::new(false, format!("more than {LAG_MAX_SECONDS} s behind: {behind}"));
    }
    let lag: i64 = models.iter().map(ProjectionStatus::lag_events).sum();
    let dead: i64 = models.iter().map(|model| model.dead_letters).sum();
    Check::new(true, format!("{} read models, {lag} events behind, {dead} dead letters", models.len()))
}

fn embedded(app: &App, database_answers: bool) -> Check {
    if app.embedded {
        Check::new(database_answers, if database_answers { "runs" } else { "does not answer" })
    } else {
        Check::new(true, "not used: DATABASE_URL is set")
    }
}

/// How each provider was found when last asked. One that is away leaves the others to answer; only when none answers
/// is there nothing to answer with.
fn providers(app: &App, notes: &mut Vec<String>) -> Check {
    if app.simulated {
        notes.push("the model providers are simulated: no real model is called".to_owned());
    }
    let settings = &app.config.providers;
    let is_configured = |provider| match provider {
        Provider::OpenAi => settings.openai.api_key.is_some(),
        Provider::Anthropic => settings.anthropic.api_key.is_some(),
        Provider::DeepSeek => settings.deepseek.api_key.is_some(),
        Provider::Ollama => settings.ollama.configured,
    };
    let mut states = app.gateway.provider_states();
    // An Ollama nobody asked for is worth a word only if it is there.
    states.retain(|state| is_configured(state.provider) || state.answers == Some(true));
    if states.is_empty() {
        return Check::new(false, "none is configured: set OPENAI_API_KEY or OLLAMA_URL, or use --simulate-providers");
    }
    for state in &states {
        if let Some(problem) = &state.problem {
            notes.push(format!("{} does not list its models: {problem}", state.provider));
        }
    }
    let words: Vec<String> = states.iter().map(in_words).collect();
    let simulated = if app.simulated { "simulated: " } else { "" };
    let all_away = states.iter().all(|state| state.answers == Some(false));
    Check::new(!all_away, format!("{simulated}{}", words.join("; ")))
}

fn in_words(state: &ProviderState) -> String {
    let answers = match state.answers {
        Some(true) => format!("{} models", state.models),
        Some(false) => "does not answer".to_owned(),
        None => "not asked yet".to_owned(),
    };
    if state.open_circuits.is_empty() {
        format!("{} {answers}", state.provider)
    } else {
        format!("{} {answers}, left alone for now: {}", state.provider, state.open_circuits.join(", "))
    }
}

/// Whether the log is protected by a role and by triggers, or by less.
async fn append_only(app: &App) -> Option<String> {
    let look = sqlx::query(
        "SELECT has_table_privilege('events', 'UPDATE, DELETE, TRUNCATE') AS may_change,
                (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'events'::regclass AND tgenabled = 'A') AS triggers",
    );
    let row = bounded(look.fetch_one(&app.pool)).await.ok()?;
    let may_change = row.try_get::<bool, _>("may_change").ok()?;
    let triggers = row.try_get::<i64, _>("triggers").ok()?;
    match (may_change, triggers) {
        (false, 2..) => None,
        (true, 2..) => Some(
            "append-only rests on triggers alone: the database role may change the log; let the migrating role create \
             the role calos_app"
                .to_owned(),
        ),
        (false, _) => {
            Some("append-only rests on the database role alone: its triggers are missing or disabled".to_owned())
        }
        (true, _) => Some("the log is NOT append-only: neither a role nor triggers protect it".to_owned()),
    }
}

/// The answer of `/.well-known/calos-ledger-key`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerKey {
    /// `Ed25519`.
    algorithm: &'static str,
    /// The public key in hex, as it stands in every anchor.
    public_key: String,
}

/// The key that the ledger's anchors and receipts are signed with, so that anyone can check them.
#[utoipa::path(get, path = "/.well-known/calos-ledger-key", tag = "operations",
    responses((status = 200, body = LedgerKey)))]
async fn ledger_key(Shared(app): Shared<App>) -> Json<LedgerKey> {
    let key = app.secrets.ledger_signing_key().verifying_key();
    let public_key = hex::encode(key.as_bytes());
    Json(LedgerKey { algorithm: "Ed25519", public_key })
}
