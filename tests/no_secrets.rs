//! Nothing secret stands where it does not belong: not in a log line, an event, a read model, a kept answer, an error or
//! a debug output, whatever goes wrong on the way.
//!
//! It has a program of its own: what it keeps is every line its process logs, down to the last trace.

#![expect(clippy::expect_used, reason = "a test's helper fails the test")]

use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use calos_api::cli::TierName;
use calos_api::simulated;
use calos_api::simulated::switches::Switches;
use calos_commands::byok::KeyOffer;
use calos_commands::ports::SecretText;
use calos_commands::provider::ChatRequest;
use calos_domain::pricing::Provider;
use calos_domain::{TenantId, UserId};
use calos_tests::app::{Answer, MASTER_KEY, PASSWORD, Registered, SECRET, TestApp};
use calos_tests::database::TestDatabase;
use calos_tests::logs;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sqlx::PgPool;

const OWN_KEY: &str = "sk-proj-0123456789abcdefghijklmnop-wxyz";
const NEXT_KEY: &str = "sk-proj-9876543210abcdefghijklmnop-4711";
const WRONG_PASSWORD: &str = "a wrong password, yet nobody's business";
const PROMPT: &str = "hush-hush-my-diary";

/// The statuses a provider may fail with.
const FAILURES: [u16; 10] = [400, 401, 402, 403, 404, 413, 429, 500, 503, 529];

async fn ok(request: RequestBuilder, status: u16) -> Answer {
    Answer::of(request).await.expect(status)
}

/// What was seen where a secret must not be, and every secret there is.
#[derive(Default)]
struct Search {
    seen: String,
    secrets: Vec<(&'static str, String)>,
}

impl Search {
    /// A secret, which nobody shorter than eight characters is.
    fn secret(&mut self, what: &'static str, secret: &str) {
        assert!(secret.len() >= 8, "{what}");
        self.secrets.push((what, secret.to_owned()));
    }

    fn look(&mut self, place: &str, text: &str) {
        let _ = write!(self.seen, "\n--- {place} ---\n{text}");
    }

    /// Everything an answer says, headers included.
    fn look_at(&mut self, place: &str, answer: &Answer) {
        self.look(place, &format!("{:?} {}", answer.headers, answer.text));
    }

    async fn refused(&mut self, what: &str, request: RequestBuilder) -> Answer {
        let answer = Answer::of(request).await;
        assert!(answer.status.is_client_error() || answer.status.is_server_error(), "{what}: {}", answer.status);
        self.look_at(what, &answer);
        answer
    }

    /// Fails with the places in which a secret stands: as it is, in hex, or in base64.
    fn find_none(&self) {
        let mut found = Vec::new();
        for (what, secret) in &self.secrets {
            let bytes = secret.as_bytes();
            let forms = [
                secret.clone(),
                secret.to_uppercase(),
                bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                STANDARD.encode(bytes).trim_end_matches('=').to_owned(),
                URL_SAFE_NO_PAD.encode(bytes),
            ];
            for form in forms {
                for (at, _) in self.seen.match_indices(&form) {
                    let place = self.seen[..at].rsplit("\n--- ").next().unwrap_or_default();
                    let place = place.lines().next().unwrap_or_default();
                    let line = self.seen[..at].rsplit('\n').next().unwrap_or_default();
                    found.push(format!("the {what} stands in {place}, after {line:?}"));
                }
            }
        }
        found.sort();
        found.dedup();
        assert!(found.is_empty(), "\n{}", found.join("\n"));
    }
}

/// Every row of every table, as text; bytes are in hex.
async fn rows(pool: &PgPool) -> Vec<(String, Vec<String>)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables
         WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1",
    )
    .fetch_all(pool)
    .await
    .expect("the tables are listed");
    let mut all = Vec::new();
    for table in tables {
        let statement = format!("SELECT row_to_json(t)::text FROM {table} t");
        let rows: Vec<String> = sqlx::query_scalar(&statement).fetch_all(pool).await.expect(&statement);
        all.push((table, rows));
    }
    all
}

/// What stands in the files below a folder.
fn files(folder: &Path, search: &mut Search) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, search);
        } else if let Ok(bytes) = std::fs::read(&path) {
            search.look(&path.display().to_string(), &String::from_utf8_lossy(&bytes));
        }
    }
}

fn question(model: &str, text: &str, stream: bool) -> Value {
    let content = format!("{text} {PROMPT}");
    json!({"model": model, "max_tokens": 30, "stream": stream, "messages": [{"role": "user", "content": content}]})
}

/// Signs up, in and out, with the secrets each step makes; answers who it was and a tenant key.
async fn people(app: &TestApp, search: &mut Search) -> (Registered, String) {
    let who = app.register().await;
    search.secret("session token", &who.token);
    let login = |password: &str| app.post("/api/auth/login", &json!({"email": who.email, "password": password}));
    let signed_in = ok(login(PASSWORD), 200).await;
    let token = signed_in.body["session"]["token"].as_str().expect("a session token").to_owned();
    search.secret("second session token", &token);
    for line in signed_in.headers.get_all("set-cookie") {
        let cookie = line.to_str().expect("a cookie is text");
        if let Some(device) = cookie.strip_prefix("calos_device=") {
            search.secret("device secret", device.split(';').next().unwrap_or_default());
        }
    }
    search.refused("a wrong password", login(WRONG_PASSWORD)).await;
    let logout = app.post("/api/auth/logout", &json!({})).bearer_auth(&token);
    ok(logout, 204).await;
    search.refused("an ended session", app.get("/api/auth/session").bearer_auth(&token)).await;
    let short = json!({"email": "x@example.com", "password": "tiny"});
    search.refused("a short password", app.post("/api/auth/register", &short)).await;
    let taken = json!({"email": who.email, "password": WRONG_PASSWORD});
    search.refused("a taken address", app.post("/api/auth/register", &taken)).await;

    let keys = format!("/api/tenants/{}/keys", who.tenant_id);
    let issue = app
        .post(&keys, &json!({"name": "ci", "limits": {"perMinute": 1_000}}))
        .bearer_auth(&who.token)
        .header("idempotency-key", "issue-1");
    let key = ok(issue, 201).await.body["key"].as_str().expect("a key").to_owned();
    search.secret("tenant key's secret", &key[key.len() - 32..]);
    let spoilt = format!("{}{}", &key[..key.len() - 4], "AAAA");
    search.refused("a wrong tenant key", app.get("/v1/models").bearer_auth(&spoilt)).await;
    search.secret("wrong tenant key's secret", &spoilt[spoilt.len() - 32..]);
    (who, key)
}

/// Calls that fail in every way a provider knows, each repeating the key it was shown. Each round has models of its own,
/// whose circuits are closed when it begins.
async fn failing_calls(app: &TestApp, key: &str, (whose, models): (&str, [&str; 4]), search: &mut Search) {
    let chat = |body: &Value| app.post("/v1/chat/completions", body).bearer_auth(key);
    for status in FAILURES {
        for stream in [false, true] {
            let text = format!("[[fail_with={status}]] [[echo_key]]");
            search.refused(&format!("{status} {whose}"), chat(&question(models[0], &text, stream))).await;
        }
    }
    for text in ["[[error_after_tokens=2]] [[echo_key]]", "[[drop_after_tokens=2]]"] {
        let answer = ok(chat(&question(models[1], text, true)), 200).await;
        search.look_at(&format!("{text} {whose}"), &answer);
    }
    let called = [
        ("/v1/chat/completions", models[2]),
        ("/v1/chat/completions", models[3]),
        ("/v1/messages", models[2]),
        ("/v1/messages", models[1]),
        ("/v1/embeddings", "text-embedding-3-small"),
    ];
    for (path, model) in called {
        for status in [400, 401, 500] {
            let text = format!("[[fail_with={status}]] [[echo_key]]");
            let mut body = question(model, &text, false);
            if path == "/v1/embeddings" {
                body = json!({"model": model, "input": format!("{text} {PROMPT}")});
            }
            let place = format!("{status} of {model} at {path} {whose}");
            let answer = Answer::of(app.post(path, &body).bearer_auth(key)).await;
            search.look_at(&place, &answer);
        }
    }
    search.refused("no messages", chat(&json!({"model": "gpt-4", "messages": PROMPT}))).await;
    search.refused("an unknown model", chat(&question("gpt-99", "", false))).await;
    let raw =
        app.client.post(app.url("/v1/chat/completions")).bearer_auth(key).header("content-type", "application/json");
    search.refused("a cut body", raw.body(format!("{{\"messages\": \"{PROMPT}"))).await;
}

/// Brings keys of one's own: wrong ones, refused ones, and one that is taken.
async fn own_keys(app: &TestApp, who: &Registered, search: &mut Search) {
    let add = |body: &Value| app.post("/api/byok/add", body).bearer_auth(&who.token);
    let providers = app.running.simulated().expect("simulated providers");
    providers.switch(Switches { rejected_key_ending: Some("4711".to_owned()), ..Switches::default() });
    search.refused("a refused key", add(&json!({"provider": "openai", "apiKey": NEXT_KEY}))).await;
    providers.switch(Switches::default());
    for body in [
        json!({"provider": "nobody", "apiKey": OWN_KEY}),
        json!({"provider": "ollama", "apiKey": OWN_KEY}),
        json!({"provider": "openai", "apiKey": [OWN_KEY]}),
        json!({"provider": "openai", "apiKey": format!("{OWN_KEY} {OWN_KEY}")}),
        json!({"provider": "openai", "apiKey": format!("{OWN_KEY}\u{0}")}),
        json!({"provider": ["openai"], "apiKey": OWN_KEY}),
    ] {
        search.refused("no key", add(&body)).await;
    }
    let raw =
        app.client.post(app.url("/api/byok/add")).bearer_auth(&who.token).header("content-type", "application/json");
    search.refused("a cut key", raw.body(format!("{{\"provider\":\"openai\",\"apiKey\":\"{OWN_KEY}"))).await;
    search.refused("a provider's key in place of ours", app.get("/v1/models").bearer_auth(OWN_KEY)).await;
    let body = json!({"provider": "openai", "apiKey": OWN_KEY});
    let keyed = add(&body).header("idempotency-key", "byok-1");
    let added = ok(keyed.try_clone().expect("a request"), 201).await;
    search.look_at("an added key", &added);
    search.look_at("the same again", &ok(keyed, 201).await);
    for provider in ["anthropic", "deepseek"] {
        ok(add(&json!({"provider": provider, "apiKey": OWN_KEY})), 201).await;
    }
    let next = add(&json!({"provider": "openai", "apiKey": NEXT_KEY})).header("idempotency-key", "byok-1");
    search.refused("another key as the same", next).await;
    let list = app.get("/api/byok").bearer_auth(&who.token).header("calos-after", added.header("calos-position"));
    search.look_at("the list", &ok(list, 200).await);
}

/// What formatters show of everything that holds a secret.
fn debug_output(app: &TestApp, who: &Registered, search: &mut Search) {
    let serving = app.running.app();
    let key = SecretText::new(OWN_KEY);
    let request = ChatRequest {
        answer_id: String::new(),
        dialect: calos_commands::provider::Dialect::OpenAi,
        key: Some(key.clone()),
        model: "gpt-4".to_owned(),
        fields: std::sync::Arc::default(),
        betas: None,
        max_tokens: 1,
        max_tokens_field: calos_commands::provider::MaxTokensField::MaxTokens,
        show_usage: false,
        prompt_estimate_tokens: 1,
        transcript: calos_commands::provider::Transcript::default(),
    };
    let offer =
        KeyOffer { tenant_id: TenantId(who.tenant_id), user_id: UserId(who.user_id), provider: Provider::OpenAi, key };
    let (headers, body) = (reqwest::header::HeaderMap::new(), PASSWORD.as_bytes().into());
    let attempt = calos_api::idempotency::Attempt::read(&headers, &reqwest::Method::POST, "/", body);
    let options = calos_api::wiring::secrets_options(&serving.config);
    search.look("the settings", &format!("{:?} {}", serving.config, serving.config.summary()));
    search.look("the secrets", &format!("{:?} {:?} {:?}", serving.secrets, serving.secrets.keyring(), options));
    search.look("the gateway", &format!("{:?} {:?} {:?}", serving.gateway, serving.world, request));
    search.look("the request", &format!("{:?} {:?} {:?}", offer, attempt, app.running.simulated()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_found_where_it_does_not_belong() {
    logs::keep_everything();
    let mut search = Search::default();
    for (what, secret) in [
        ("password", PASSWORD),
        ("wrong password", WRONG_PASSWORD),
        ("own key", OWN_KEY),
        ("refused own key", NEXT_KEY),
        ("platform's key", simulated::KEY),
        ("master key", MASTER_KEY),
        ("signing secret", SECRET),
        ("prompt", PROMPT),
    ] {
        search.secret(what, secret);
    }
    // The master key as bytes, which `Debug` could show as text.
    let master = STANDARD.decode(MASTER_KEY).expect("base64");
    search.secret("master key's bytes", &String::from_utf8(master).expect("this one is text"));

    let app = TestApp::start().await;
    let (who, key) = people(&app, &mut search).await;
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let chat = |model: &str, stream| app.post("/v1/chat/completions", &question(model, "", stream)).bearer_auth(&key);
    ok(chat("gpt-4", false).header("idempotency-key", "chat-1"), 200).await;
    ok(chat("gpt-4", true), 200).await;
    let models = ["gpt-4", "gpt-4o", "claude-3-opus-20240229", "deepseek-chat"];
    failing_calls(&app, &key, ("with the platform's key", models), &mut search).await;
    own_keys(&app, &who, &mut search).await;
    ok(chat("gpt-4o-mini", false), 200).await;
    let models = ["gpt-4-turbo", "gpt-3.5-turbo", "claude-opus-4-20250514", "deepseek-reasoner"];
    failing_calls(&app, &key, ("with the tenant's key", models), &mut search).await;
    debug_output(&app, &who, &mut search);
    let (data, anchors) = (app.running.app().config.data_dir.clone(), app.running.app().config.anchor_dir.clone());

    // A restart reads everything anew.
    let TestApp { running, database, .. } = app;
    running.stop(std::time::Duration::from_secs(5)).await;
    files(&data, &mut search);
    files(&anchors, &mut search);
    let app = TestApp::over(database).await;
    let chat = app.post("/v1/chat/completions", &question("gpt-4o-mini", "", true)).bearer_auth(&key);
    ok(chat, 200).await;
    assert_eq!(app.running.simulated().expect("simulated providers").accounts().get("wxyz"), Some(&1));
    let remove = app.client.delete(app.url("/api/byok/openai")).bearer_auth(&who.token);
    look_at_database(&app.database, &mut search).await;
    ok(remove, 204).await;
    app.stop().await;

    search.look("what was logged", &logs::everything());
    prove_it_was_looked_at(&search, &who);
    search.find_none();
}

async fn look_at_database(database: &TestDatabase, search: &mut Search) {
    for (table, rows) in rows(&database.owner_pool).await {
        for row in rows {
            search.look(&table, &row);
        }
    }
}

/// A search that looks at nothing finds nothing.
fn prove_it_was_looked_at(search: &Search, who: &Registered) {
    let tenant = who.tenant_id.to_string();
    for expected in [
        tenant.as_str(),
        "--- public.keyring ---",
        "--- public.keyring_keys ---",
        "--- public.secrets_root ---",
        "--- public.idempotency ---",
        "--- read.provider_keys ---",
        "\"wxyz\"",
        "provider_key_added",
        "provider_key_rejected",
        "[redacted]",
        "TRACE ",
        "calos::refused",
    ] {
        assert!(search.seen.contains(expected), "{expected} was never looked at");
    }
    for event in ["account_registered", "api_key_issued", "usage_recorded"] {
        assert!(search.seen.contains(event), "{event} was never looked at");
    }
}
