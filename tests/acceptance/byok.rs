//! Keys that tenants bring for providers, as a client meets them: checked, kept out of sight, used first, and gone when
//! they are removed.

#![expect(clippy::expect_used, reason = "a test's helper fails the test")]

mod keyring;

use std::time::Duration;

use calos_adapters::database::Database;
use calos_api::cli::{AdminCommand, TierName};
use calos_api::run::Running;
use calos_api::simulated::switches::Switches;
use calos_tests::app::{Answer, PASSWORD, Registered, TestApp, config};
use calos_tests::database::TestDatabase;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use super::identity::{ok, refused};

/// A key as OpenAI issues them.
const OWN_KEY: &str = "sk-proj-0123456789abcdefghijklmnop-wxyz";

/// Another one of the same account.
const NEXT_KEY: &str = "sk-proj-9876543210abcdefghijklmnop-4711";

struct Shop {
    app: TestApp,
    who: Registered,
    key: String,
}

impl Shop {
    async fn start() -> Self {
        let app = TestApp::start().await;
        let who = app.register().await;
        let key = app.issue_key(&who).await;
        Self { app, who, key }
    }

    fn add(&self, body: &Value) -> RequestBuilder {
        self.app.post("/api/byok/add", body).bearer_auth(&self.who.token)
    }

    async fn bring(&self, key: &str) -> Answer {
        ok(self.add(&json!({"provider": "openai", "apiKey": key})), 201).await
    }

    fn remove(&self, provider: &str) -> RequestBuilder {
        self.app.client.delete(self.app.url(&format!("/api/byok/{provider}"))).bearer_auth(&self.who.token)
    }

    async fn listed(&self, position: &str) -> Vec<Value> {
        let list = self.app.get("/api/byok").bearer_auth(&self.who.token).header("calos-after", position);
        ok(list, 200).await.body["keys"].as_array().expect("a list").clone()
    }

    fn chat(&self, model: &str, stream: bool) -> RequestBuilder {
        let messages = json!([{"role": "user", "content": "Say hello."}]);
        let body = json!({"model": model, "max_tokens": 50, "stream": stream, "messages": messages});
        self.app.post("/v1/chat/completions", &body).bearer_auth(&self.key)
    }

    /// How many calls the simulated provider got with a key that ends so.
    fn calls_with(&self, ending: &str) -> u64 {
        let accounts = self.app.running.simulated().expect("simulated providers").accounts();
        accounts.get(ending).copied().unwrap_or_default()
    }

    fn switch(&self, switches: Switches) {
        self.app.running.simulated().expect("simulated providers").switch(switches);
    }

    async fn entries(&self) -> i64 {
        entries(&self.app.database).await
    }
}

async fn entries(database: &TestDatabase) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM keyring").fetch_one(&database.pool);
    count.await.expect("the keyring can be counted")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_ones_own_is_used_first_charged_nothing_and_recorded() {
    let shop = Shop::start().await;
    let tiers_own = ok(shop.chat("gpt-4", false), 200).await;
    assert_eq!(tiers_own.body["provider"], "ollama", "a free licence does not reach gpt-4");

    let added = shop.bring(OWN_KEY).await;
    let fields: Vec<_> = added.body.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(fields, ["addedAt", "lastFour", "provider"]);
    assert_eq!((&added.body["provider"], &added.body["lastFour"]), (&json!("openai"), &json!("wxyz")));
    let listed = shop.listed(added.header("calos-position")).await;
    let line = json!({"provider": "openai", "lastFour": "wxyz", "addedAt": added.body["addedAt"],
        "addedBy": shop.who.user_id});
    assert_eq!(listed, [line]);

    let streamed = ok(shop.chat("gpt-4o-mini", true), 200).await;
    assert!(streamed.text.contains(r#""total_cost_micros":0"#), "{}", streamed.text);
    let answer = ok(shop.chat("gpt-4", false), 200).await;
    assert_eq!((&answer.body["provider"], answer.header("x-calos-substituted-for")), (&json!("openai"), ""));
    assert_eq!(answer.body["billing"]["total_cost_micros"], 0);
    assert_eq!((shop.calls_with("wxyz"), shop.calls_with("ated")), (2, 0), "the platform's key is not touched");

    let usage = shop.app.get("/api/credits/usage").bearer_auth(&shop.who.token);
    let usage = usage.header("calos-after", answer.header("calos-position"));
    let rows = ok(usage, 200).await.body["usage"].as_array().expect("usage").clone();
    let own: Vec<_> = rows.iter().filter(|row| row["byok"] == true).collect();
    assert_eq!(own.len(), 2, "{rows:?}");
    for row in &own {
        assert_eq!((&row["provider"], &row["totalMicros"]), (&json!("openai"), &json!(0)));
        assert!(row["completionTokens"].as_u64().is_some_and(|tokens| tokens > 0), "{row}");
    }
    let balance = ok(shop.app.get("/api/credits/balance").bearer_auth(&shop.who.token), 200).await;
    assert_eq!((&balance.body["balance_micros"], &balance.body["held_micros"]), (&json!(10_000_000), &json!(0)));
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_provider_with_accounts_takes_a_key_checks_it_and_is_called_with_it() {
    let shop = Shop::start().await;
    for (provider, ending, model) in [
        ("openai", "aaa1", "gpt-4o"),
        ("anthropic", "bbb2", "claude-3-opus-20240229"),
        ("deepseek", "ccc3", "deepseek-chat"),
    ] {
        let body = json!({"provider": provider, "apiKey": format!("sk-0123456789abcdef-{ending}")});
        shop.switch(Switches { rejected_key_ending: Some(ending.to_owned()), ..Switches::default() });
        refused(shop.add(&body), 400, "provider_key_rejected").await;
        shop.switch(Switches::default());
        ok(shop.add(&body), 201).await;
        let message = json!({"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]});
        for request in [
            shop.chat(model, false),
            shop.chat(model, true),
            shop.app.post("/v1/messages", &message).header("x-api-key", &shop.key),
        ] {
            let answer = ok(request, 200).await;
            assert!(answer.text.contains(r#""total_cost_micros":0"#), "{provider}: {}", answer.text);
        }
        assert_eq!((shop.calls_with(ending), shop.calls_with("ated")), (3, 0), "{provider}");
    }
    let embed = json!({"model": "text-embedding-3-small", "input": "hello"});
    let embedded = ok(shop.app.post("/v1/embeddings", &embed).bearer_auth(&shop.key), 200).await;
    assert_eq!((&embedded.body["provider"], shop.calls_with("aaa1")), (&json!("openai"), 4));
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_a_provider_one_has_a_key_for_are_listed_whatever_the_tier() {
    let shop = Shop::start().await;
    let ids = async || {
        let models = ok(shop.app.get("/v1/models").bearer_auth(&shop.key), 200).await;
        let data = models.body["data"].as_array().expect("models").clone();
        data.into_iter().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert!(!ids().await.contains(&"gpt-4".to_owned()));
    shop.bring(OWN_KEY).await;
    assert!(ids().await.contains(&"gpt-4".to_owned()));
    assert!(!ids().await.iter().any(|id| id.starts_with("claude")));
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_key_is_gone_with_the_next_call() {
    let shop = Shop::start().await;
    shop.app.admin_tier(shop.who.tenant_id, TierName::Pro).await;
    shop.bring(OWN_KEY).await;
    ok(shop.chat("gpt-4", false), 200).await;
    assert_eq!(shop.entries().await, 1);

    let removed = ok(shop.remove("openai"), 204).await;
    assert_eq!(shop.entries().await, 0, "the secret itself is deleted");
    let answer = ok(shop.chat("gpt-4", false), 200).await;
    assert!(answer.body["billing"]["total_cost_micros"].as_i64().is_some_and(|total| total > 0));
    assert_eq!((shop.calls_with("wxyz"), shop.calls_with("ated")), (1, 1));
    assert_eq!(shop.listed(removed.header("calos-position")).await, [] as [Value; 0]);

    refused(shop.remove("openai"), 404, "not_found").await;
    refused(shop.remove("nobody"), 404, "not_found").await;
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_takes_the_place_of_the_one_before() {
    let shop = Shop::start().await;
    shop.bring(OWN_KEY).await;
    ok(shop.chat("gpt-4", false), 200).await;
    let added = shop.bring(NEXT_KEY).await;
    ok(shop.chat("gpt-4", false), 200).await;
    assert_eq!((shop.calls_with("wxyz"), shop.calls_with("4711"), shop.entries().await), (1, 1, 1));
    let listed = shop.listed(added.header("calos-position")).await;
    assert_eq!((listed.len(), &listed[0]["lastFour"]), (1, &json!("4711")));
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_the_provider_refuses_is_not_taken() {
    let shop = Shop::start().await;
    shop.switch(Switches { rejected_key_ending: Some("wxyz".to_owned()), ..Switches::default() });
    let before = shop.app.event_count().await;
    let answer =
        refused(shop.add(&json!({"provider": "openai", "apiKey": OWN_KEY})), 400, "provider_key_rejected").await;
    let words = answer.body["error"].as_str().expect("words");
    assert!(words.contains("Incorrect API key provided: [redacted]"), "{words}");
    assert!(!answer.text.contains(OWN_KEY));
    assert_eq!((shop.app.event_count().await, shop.entries().await), (before, 0));
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_checked_is_not_taken() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let away = format!("http://{}", nobody.local_addr().expect("an address"));
    drop(nobody);
    let database = TestDatabase::create().await;
    let data_dir = tempfile::tempdir().expect("a folder for the data");
    let settings = [("OPENAI_BASE_URL", away.as_str())];
    let config = config(&database.url, &data_dir, &settings);
    let opened = Database::open(&config).await.expect("the test's database opens");
    let running = Running::start(config, opened, false).await.expect("CALOS starts");
    let (client, base) = (Client::new(), format!("http://{}", running.address()));
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let who = ok(client.post(format!("{base}/api/auth/register")).json(&body), 201).await;
    let token = who.body["session"]["token"].as_str().expect("a session token");
    let body = json!({"provider": "openai", "apiKey": OWN_KEY});
    let add = client.post(format!("{base}/api/byok/add")).json(&body).bearer_auth(token);
    let answer = refused(add, 503, "provider_unavailable").await;
    assert!(answer.body["error"].as_str().is_some_and(|words| words.contains("nothing was stored")));
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(entries(&database).await, 0);
    running.stop(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stops_working_is_told_as_the_tenants_own() {
    let shop = Shop::start().await;
    shop.bring(OWN_KEY).await;
    shop.switch(Switches { rejected_key_ending: Some("wxyz".to_owned()), ..Switches::default() });
    for stream in [false, true] {
        let answer = Answer::of(shop.chat("gpt-4", stream)).await.expect(400);
        let error = &answer.body["error"];
        assert_eq!((&error["code"], &error["type"]), (&json!("provider_key_rejected"), &json!("authentication_error")));
        let words = error["message"].as_str().expect("words");
        assert!(words.contains("your own key") && words.contains("/api/byok/add"), "{words}");
        assert!(!answer.text.contains(OWN_KEY), "{}", answer.text);
    }
    let balance = ok(shop.app.get("/api/credits/balance").bearer_auth(&shop.who.token), 200).await;
    assert_eq!(balance.body["held_micros"], 0);
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_asked_at_the_platforms_price_while_ones_own_key_is_refused() {
    let shop = Shop::start().await;
    shop.bring(OWN_KEY).await;
    let ask = || {
        let body = json!({"prompt": "Say hello.", "preferredProvider": "openai"});
        shop.app.post("/api/chat/complete", &body).bearer_auth(&shop.who.token)
    };
    let answer = ok(ask(), 200).await;
    assert_eq!((&answer.body["provider"], &answer.body["cost_cents"]), (&json!("openai"), &json!(0)));
    shop.switch(Switches { rejected_key_ending: Some("wxyz".to_owned()), ..Switches::default() });
    let calls = || shop.app.running.simulated().expect("simulated providers").produced();
    let before = calls();
    refused(ask(), 400, "provider_key_rejected").await;
    assert_eq!(calls(), before);
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_or_no_provider_is_refused() {
    let shop = Shop::start().await;
    for (provider, key, param) in [
        ("ollama", OWN_KEY, "provider"),
        ("nobody", OWN_KEY, "provider"),
        ("", OWN_KEY, "provider"),
        ("openai", "", "apiKey"),
        ("openai", "sk-short", "apiKey"),
        ("openai", "sk-proj-0123456789 abcdefghij", "apiKey"),
        ("openai", "sk-proj-0123456789\u{fc}abcdefghij", "apiKey"),
        ("openai", &"k".repeat(513), "apiKey"),
    ] {
        let answer = refused(shop.add(&json!({"provider": provider, "apiKey": key})), 400, "invalid_field").await;
        assert_eq!(answer.body["param"], param, "{provider} {key}");
        assert!(key.is_empty() || !answer.text.contains(key), "{}", answer.text);
    }
    refused(shop.add(&json!({"provider": "openai"})), 400, "invalid_field").await;
    let misspelt = json!({"provider": "openai", "apiKey": OWN_KEY, "tenant": shop.who.tenant_id});
    refused(shop.add(&misspelt), 400, "invalid_field").await;
    assert_eq!(shop.entries().await, 0);
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_and_owners_in_a_session_bring_keys_and_each_for_their_own_tenant() {
    let shop = Shop::start().await;
    let stranger = shop.app.register().await;
    let body = json!({"provider": "openai", "apiKey": OWN_KEY, "tenantId": shop.who.tenant_id});
    refused(shop.app.post("/api/byok/add", &body).bearer_auth(&stranger.token), 404, "not_found").await;
    refused(shop.app.post("/api/byok/add", &body).bearer_auth(&shop.key), 403, "forbidden").await;
    refused(shop.app.post("/api/byok/add", &body), 401, "unauthenticated").await;
    refused(shop.app.get("/api/byok").bearer_auth(&shop.key), 403, "forbidden").await;
    let theirs = format!("/api/byok?tenantId={}", shop.who.tenant_id);
    refused(shop.app.get(&theirs).bearer_auth(&stranger.token), 404, "not_found").await;

    let create = shop.app.post("/api/tenants", &json!({"name": "Acme"})).bearer_auth(&shop.who.token);
    let acme = ok(create, 201).await.body["tenantId"].as_str().expect("an id").to_owned();
    let header = shop.add(&json!({"provider": "openai", "apiKey": OWN_KEY})).header("x-calos-tenant", &acme);
    let added = ok(header, 201).await;
    assert_eq!(shop.listed(added.header("calos-position")).await, [] as [Value; 0], "it is the other tenant's");
    let query = shop.app.get(&format!("/api/byok?tenantId={acme}")).bearer_auth(&shop.who.token);
    assert_eq!(ok(query, 200).await.body["keys"][0]["lastFour"], "wxyz");
    let answer = ok(shop.chat("gpt-4", false), 200).await;
    assert_eq!(answer.body["provider"], "ollama", "one tenant's key serves no other");
    let remove = shop.remove("openai").query(&[("tenantId", acme.as_str())]);
    ok(remove, 204).await;
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_addition_is_answered_again_and_adds_nothing() {
    let shop = Shop::start().await;
    let body = json!({"provider": "openai", "apiKey": OWN_KEY});
    let add = |body: &Value| shop.add(body).header("idempotency-key", "order-17");
    let first = ok(add(&body), 201).await;
    let events = shop.app.event_count().await;
    let again = ok(add(&body), 201).await;
    assert_eq!((&again.body, again.header("idempotent-replayed")), (&first.body, "true"));
    refused(add(&json!({"provider": "openai", "apiKey": NEXT_KEY})), 409, "idempotency_key_reused").await;
    assert_eq!((shop.app.event_count().await, shop.entries().await), (events, 1));
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_uses_a_key_and_stops_using_it_with_its_next_call() {
    let shop = Shop::start().await;
    let beside = shop.app.start_beside().await;
    let base = format!("http://{}", beside.address());
    let provider = async || {
        let body = json!({"model": "gpt-4", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]});
        let chat = shop.app.client.post(format!("{base}/v1/chat/completions")).json(&body).bearer_auth(&shop.key);
        ok(chat, 200).await.body["provider"].clone()
    };
    assert_eq!(provider().await, "ollama");
    shop.bring(OWN_KEY).await;
    assert_eq!(provider().await, "openai");
    let accounts = beside.simulated().expect("simulated providers").accounts();
    assert_eq!(accounts.get("wxyz"), Some(&1));
    ok(shop.remove("openai"), 204).await;
    assert_eq!(provider().await, "ollama");
    beside.stop(Duration::from_secs(5)).await;
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_nobody_uses_is_swept_once_it_is_old_and_the_used_one_stays() {
    let shop = Shop::start().await;
    shop.bring(OWN_KEY).await;
    let orphan = "INSERT INTO keyring (id, tenant_id, provider, key_version, sealed, created_at)
                  SELECT $1, tenant_id, provider, key_version, sealed, now() - make_interval(mins => $2) FROM keyring
                  ORDER BY created_at DESC LIMIT 1";
    for minutes in [0, 60] {
        let id = Uuid::new_v4();
        sqlx::query(orphan).bind(id).bind(minutes).execute(&shop.app.database.pool).await.expect("an orphan");
    }
    // One nobody can make sense of, before every other, stops nothing.
    let strange = orphan.replace("SELECT $1, tenant_id, provider,", "SELECT $1, tenant_id, 'somebody',");
    let strange = sqlx::query(&strange).bind(Uuid::from_u128(1)).bind(60).execute(&shop.app.database.pool).await;
    strange.expect("a strange entry");
    let age = "UPDATE keyring SET created_at = now() - interval '1 hour' WHERE created_at = (SELECT min(created_at)
               FROM keyring WHERE created_at > now() - interval '30 minutes')";
    sqlx::query(age).execute(&shop.app.database.pool).await.expect("the used one ages");
    let serving = shop.app.running.app();
    let deleted = calos_api::sweep_keyring::sweep(&serving.secrets, &serving.log).await.expect("it is swept");
    assert_eq!((deleted, shop.entries().await), (1, 3), "the young orphan may still be on its way");
    assert_eq!(ok(shop.chat("gpt-4", false), 200).await.body["provider"], "openai");

    // Even with a read model that has forgotten the key, the tenant alone decides.
    let forget = sqlx::query("DELETE FROM read.provider_keys").execute(&shop.app.database.pool).await;
    forget.expect("the read model can be emptied");
    let deleted = calos_api::sweep_keyring::sweep(&serving.secrets, &serving.log).await.expect("it is swept");
    assert_eq!((deleted, shop.entries().await), (0, 3));
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_rotates_the_keyring_beside_a_running_server_and_that_is_recorded() {
    let shop = Shop::start().await;
    shop.bring(OWN_KEY).await;
    let data_dir = tempfile::tempdir().expect("a folder for the data");
    let config = config(&shop.app.database.url, &data_dir, &[]);
    let rotate = AdminCommand::RotateKeyring { reason: Some("a laptop was lost".to_owned()) };
    calos_api::admin::run(config, rotate).await.expect("the keyring is rotated");
    let versions = sqlx::query_scalar::<_, i32>("SELECT key_version FROM keyring");
    let versions = versions.fetch_all(&shop.app.database.pool).await;
    assert_eq!(versions.expect("versions"), [2]);
    assert_eq!(ok(shop.chat("gpt-4", false), 200).await.body["provider"], "openai");
    assert_eq!(shop.calls_with("wxyz"), 1);
    let recorded = "SELECT payload::text FROM events WHERE event_type = 'keyring_rotated'";
    let recorded: String = sqlx::query_scalar(recorded).fetch_one(&shop.app.database.pool).await.expect("an event");
    assert!(recorded.contains("a laptop was lost") && recorded.contains(r#""resealed":1"#), "{recorded}");
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_tampered_with_is_used_for_nothing() {
    let shop = Shop::start().await;
    shop.bring(OWN_KEY).await;
    let flip = "UPDATE keyring SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1)";
    sqlx::query(flip).execute(&shop.app.database.owner_pool).await.expect("a byte can be flipped");
    let answer = Answer::of(shop.chat("gpt-4", false)).await.expect(503);
    assert_eq!(answer.body["error"]["code"], "provider_unavailable");
    assert_eq!((shop.calls_with("wxyz"), shop.calls_with("ated")), (0, 0), "nobody was asked");
    let balance = ok(shop.app.get("/api/credits/balance").bearer_auth(&shop.who.token), 200).await;
    assert_eq!(balance.body["held_micros"], 0);
    shop.app.stop().await;
}
