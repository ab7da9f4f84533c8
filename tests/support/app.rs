//! A whole CALOS of its own for one test: real HTTP on a free port, a database of its own, simulated providers.

use std::net::SocketAddr;
use std::time::Duration;

use calos_adapters::config::{Config, Vars};
use calos_adapters::database::Database;
use calos_adapters::fetch::address::AddressPolicy;
use calos_api::cli::{AdminCommand, Role, TierName};
use calos_api::run::Running;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::database::TestDatabase;
use crate::logs;

/// How long a test's calls may take to finish at its end.
const GRACE: Duration = Duration::from_secs(5);

/// Signing secret of every test.
pub const SECRET: &str = "a-test-secret-of-more-than-32-characters";
/// Master key of every test.
pub const MASTER_KEY: &str = "bm90IGEgcmVhbCBrZXksIG9ubHkgZm9yIHRlc3RzISE=";

/// A password nobody has on a list.
pub const PASSWORD: &str = "correct horse battery staple";

/// A running CALOS. Call [`TestApp::stop`] where its end matters; otherwise it ends with the test.
pub struct TestApp {
    /// What runs.
    pub running: Running,
    /// Where it listens.
    pub address: SocketAddr,
    /// A client that keeps no cookies.
    pub client: Client,
    /// Its database; dropped after everything else.
    pub database: TestDatabase,
    data_dir: TempDir,
}

/// Somebody who registered.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The email.
    pub email: String,
    /// The user.
    pub user_id: Uuid,
    /// The personal tenant.
    pub tenant_id: Uuid,
    /// The session token.
    pub token: String,
    /// `calos-position` of the registration.
    pub position: String,
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body, when it is JSON; null otherwise.
    pub body: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// Sends a request and reads its answer.
    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("the server answers");
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.expect("the answer is text");
        Self { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::Null), text }
    }

    /// The answer, which must have this status.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// A header as text; empty when it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl TestApp {
    /// Starts with a database cloned from the migrated template.
    pub async fn start() -> Self {
        Self::over(TestDatabase::create().await).await
    }

    /// Starts over a database that another app may be using too.
    pub async fn over(database: TestDatabase) -> Self {
        Self::over_with(database, &[]).await
    }

    /// Starts with further settings, by the names of the environment.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::over_with(TestDatabase::create().await, settings).await
    }

    /// Starts with a fetcher that may connect to these sockets though they are not public.
    pub async fn start_reading(sites: Vec<SocketAddr>) -> Self {
        logs::keep();
        let database = TestDatabase::create().await;
        let data_dir = tempfile::tempdir().expect("a folder for the data");
        let mut config = config(&database.url, &data_dir, &[]);
        config.fetch.extra_ports = sites.iter().map(SocketAddr::port).collect();
        config.fetch.allow = AddressPolicy::PublicAndNonPublic(sites);
        let running = run_with(config).await;
        let address = running.address();
        Self { running, address, client: Client::new(), database, data_dir }
    }

    async fn over_with(database: TestDatabase, settings: &[(&str, &str)]) -> Self {
        logs::keep();
        let data_dir = tempfile::tempdir().expect("a folder for the data");
        let running = run(&database.url, &data_dir, settings).await;
        let address = running.address();
        Self { running, address, client: Client::new(), database, data_dir }
    }

    /// A second process's worth of CALOS over the same database, with its own caches and writer.
    pub async fn start_beside(&self) -> Running {
        run(&self.database.url, &self.data_dir, &[]).await
    }

    /// The address of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A GET.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    /// A POST with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(self.url(path)).json(body)
    }

    /// Registers somebody new.
    pub async fn register(&self) -> Registered {
        let email = format!("{}@example.com", Uuid::new_v4().simple());
        let body = json!({"email": email, "password": PASSWORD, "displayName": "Ada"});
        let answer = Answer::of(self.post("/api/auth/register", &body)).await.expect(201);
        Registered {
            email,
            user_id: uuid_in(&answer.body["userId"]),
            tenant_id: uuid_in(&answer.body["tenantId"]),
            token: answer.body["session"]["token"].as_str().expect("a session token").to_owned(),
            position: answer.header("calos-position").to_owned(),
        }
    }

    /// Issues a key of the person's own tenant and answers its text.
    pub async fn issue_key(&self, who: &Registered) -> String {
        let path = format!("/api/tenants/{}/keys", who.tenant_id);
        let answer = Answer::of(self.post(&path, &json!({"name": "test"})).bearer_auth(&who.token)).await.expect(201);
        answer.body["key"].as_str().expect("a key").to_owned()
    }

    /// Lets a key call as often as a test likes.
    pub async fn lift_limits(&self, who: &Registered, key: &str) {
        let id = key.split('-').next_back().and_then(|half| half.get(..8)).expect("a key id");
        let path = format!("/api/tenants/{}/keys/{id}", who.tenant_id);
        let often = json!({"limits": {"perMinute": 1_000_000, "perHour": 1_000_000, "perDay": 1_000_000}});
        Answer::of(self.client.patch(self.url(&path)).json(&often).bearer_auth(&who.token)).await.expect(200);
    }

    /// A chat call of one short message.
    pub async fn chat(&self, key: &str, model: &str) -> Answer {
        let body = json!({"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "Say hello."}]});
        Answer::of(self.post("/v1/chat/completions", &body).bearer_auth(key)).await
    }

    /// Moves a tenant to a tier, from the console, as a process of its own would.
    pub async fn admin_tier(&self, tenant: Uuid, tier: TierName) {
        let config = config(&self.database.url, &self.data_dir, &[]);
        calos_api::admin::run(config, AdminCommand::Tier { tenant, tier }).await.expect("the tier is changed");
    }

    /// Registers somebody new and gives them a role, from the console; once it answers, the server knows.
    pub async fn staff(&self, role: Role) -> Registered {
        let who = self.register().await;
        let config = config(&self.database.url, &self.data_dir, &[]);
        let grant = AdminCommand::Grant { email: who.email.clone(), role };
        calos_api::admin::run(config, grant).await.expect("the role is given");
        // Another process gave it; the server hears of it within a poll of the log.
        for _ in 0..100 {
            let session = Answer::of(self.get("/api/auth/session").bearer_auth(&who.token)).await.expect(200);
            if session.body["staffRoles"].as_array().is_some_and(|roles| !roles.is_empty()) {
                return who;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server did not hear of the role");
    }

    /// How many events the log has.
    pub async fn event_count(&self) -> i64 {
        let count = sqlx::query_scalar("SELECT coalesce(sum(last_position), 0)::bigint FROM partitions");
        count.fetch_one(&self.database.pool).await.expect("the heads can be read")
    }

    /// Stops in order.
    pub async fn stop(self) {
        self.running.stop(GRACE).await;
    }
}

/// The settings of a test's CALOS.
#[must_use]
pub fn config(database_url: &str, data_dir: &TempDir, settings: &[(&str, &str)]) -> Config {
    let data_dir = data_dir.path().to_string_lossy().into_owned();
    let common = [
        ("DATABASE_URL", database_url),
        ("PORT", "0"),
        ("CALOS_BIND", "127.0.0.1"),
        ("CALOS_DATA_DIR", data_dir.as_str()),
        ("CALOS_DATABASE_CONNECTIONS", "8"),
        ("JWT_SECRET", SECRET),
        ("SESSION_SECRET", SECRET),
        ("CALOS_MASTER_KEY", MASTER_KEY),
    ];
    let vars = Vars::from_pairs(common.into_iter().chain(settings.iter().copied()));
    Config::from_vars(&vars).expect("the settings of a test are right")
}

async fn run(database_url: &str, data_dir: &TempDir, settings: &[(&str, &str)]) -> Running {
    run_with(config(database_url, data_dir, settings)).await
}

async fn run_with(config: Config) -> Running {
    let database = Database::open(&config).await.expect("the test's database opens");
    Running::start(config, database, true).await.expect("CALOS starts")
}

fn uuid_in(value: &Value) -> Uuid {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no UUID"))
}
