//! `/metrics`: every series is there and moves, none of them needs the database, and what watches them names no others.

#![expect(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use calos_adapters::postgres::connect_one;
use calos_api::cli::TierName;
use calos_api::metrics::exposition::series_in;
use calos_tests::app::{Answer, TestApp};
use calos_tests::cluster::{shared, until};
use serde_json::Value;
use sqlx::Executor;
use yaml_rust2::{Yaml, YamlLoader};

/// How long a scrape may take.
const SCRAPE_MAX: Duration = Duration::from_millis(10);

/// Each series of a page with its value.
fn series(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let parsed = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("a series has a value");
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}: not a number")))
    });
    parsed.collect()
}

async fn scrape(app: &TestApp) -> BTreeMap<String, f64> {
    let page = Answer::of(app.get("/metrics")).await.expect(200);
    assert!(page.header("content-type").starts_with("application/openmetrics-text"), "{:?}", page.headers);
    assert!(page.text.ends_with("# EOF\n"));
    series(&page.text)
}

/// What a chat call, a refusal and a request for nothing have to move.
const MOVED: [&str; 20] = [
    "calos_log_append_seconds_count",
    "calos_log_append_seconds_sum",
    "calos_log_batch_commands_count",
    "calos_log_commands_total",
    "calos_log_events_total",
    "calos_log_decisions_total{outcome=\"accepted\"}",
    "calos_provider_answers_total{provider=\"openai\"}",
    "calos_provider_latency_seconds_count{provider=\"openai\"}",
    "calos_provider_latency_seconds_bucket{le=\"+Inf\",provider=\"openai\"}",
    "calos_cost_micros_total{provider=\"openai\",part=\"provider\"}",
    "calos_cost_micros_total{provider=\"openai\",part=\"markup\"}",
    "calos_tokens_total{provider=\"openai\",kind=\"prompt\"}",
    "calos_tokens_total{provider=\"openai\",kind=\"completion\"}",
    "calos_http_requests_total{route=\"/v1/chat/completions\",method=\"POST\",status=\"2xx\"}",
    "calos_http_request_seconds_count{route=\"/v1/chat/completions\"}",
    "calos_http_requests_total{route=\"unmatched\",method=\"GET\",status=\"4xx\"}",
    "calos_refusals_total{code=\"unknown_path\"}",
    "calos_rate_limit_refusals_total",
    "calos_refusals_total{code=\"rate_limit_exceeded\"}",
    "calos_http_requests_total{route=\"/v1/chat/completions\",method=\"POST\",status=\"4xx\"}",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_call_moves_what_it_should_and_tells_nothing_of_who_called() {
    let app = TestApp::start().await;
    let who = app.register().await;
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;
    let before = scrape(&app).await;
    app.chat(&key, "gpt-4").await.expect(200);
    let id = key.split('-').next_back().and_then(|half| half.get(..8)).expect("a key id");
    let path = format!("/api/tenants/{}/keys/{id}", who.tenant_id);
    let once = serde_json::json!({"limits": {"perMinute": 1, "perHour": 1, "perDay": 1}});
    Answer::of(app.client.patch(app.url(&path)).json(&once).bearer_auth(&who.token)).await.expect(200);
    app.chat(&key, "gpt-4").await.expect(429);
    Answer::of(app.get("/a/path/nobody/serves")).await.expect(404);
    let after = scrape(&app).await;
    for name in MOVED {
        let value = |page: &BTreeMap<String, f64>| page.get(name).copied().unwrap_or_default();
        assert!(value(&after) > value(&before), "{name}: {:?} then {:?}", before.get(name), after.get(name));
    }
    assert_eq!(after["calos_database_up"], 1.0);
    assert!(after["calos_http_connections_open"] >= 1.0);
    assert_eq!(after["calos_http_requests_in_flight"], 1.0, "the scrape itself");
    assert_eq!(after["calos_provider_calls_in_flight{provider=\"openai\"}"], 0.0);
    assert_eq!(after["calos_provider_circuits{provider=\"openai\",state=\"open\"}"], 0.0);
    // What was behind is taken, and the page says so.
    until("the read models follow", 20, async || {
        let page = scrape(&app).await;
        let lags: Vec<_> = page.iter().filter(|(name, _)| name.starts_with("calos_projection_lag_events{")).collect();
        !lags.is_empty() && lags.iter().all(|(_, events)| **events == 0.0)
    })
    .await;
    let page = Answer::of(app.get("/metrics")).await.expect(200).text;
    for secret in [who.tenant_id.to_string(), key, id_of(&path), "/a/path".to_owned(), "gpt-4".to_owned()] {
        assert!(!page.contains(&secret), "{secret} stands in the page");
    }
    app.stop().await;
}

fn id_of(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_answered_from_memory_while_the_database_is_away() {
    let app = TestApp::start().await;
    until("the database was looked at", 10, async || scrape(&app).await["calos_database_look_age_seconds"] < 1.0).await;
    let mut maintenance = connect_one(&shared().await.url("postgres")).await.expect("the cluster answers");
    let name = app.database.name();
    let closed = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
    maintenance.execute(closed.as_str()).await.expect("nobody may connect");
    let ended = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    maintenance.execute(ended.as_str()).await.expect("whoever was connected is not any more");
    until("it is noticed", 10, async || scrape(&app).await["calos_database_up"] == 0.0).await;

    let mut took = Vec::new();
    for _ in 0..60 {
        let began = Instant::now();
        Answer::of(app.get("/metrics")).await.expect(200);
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took.sort_unstable();
    // The machine may be busy with other tests; a scrape that asked the database would take seconds, each of them.
    let median = took[took.len() / 2];
    println!("median {median:?}, slowest {:?}", took[took.len() - 1]);
    assert!(median <= SCRAPE_MAX, "half of the scrapes took longer than {median:?}");
    let opened = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true");
    maintenance.execute(opened.as_str()).await.expect("it is back");
    until("it is noticed", 20, async || scrape(&app).await["calos_database_up"] == 1.0).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_set_it_opens_to_that_token_alone() {
    const TOKEN: &str = "a-token-for-prometheus";
    let app = TestApp::start_with(&[("CALOS_METRICS_TOKEN", TOKEN)]).await;
    let refused = Answer::of(app.get("/metrics")).await.expect(401);
    assert_eq!(refused.body["code"], "unauthenticated");
    Answer::of(app.get("/metrics").bearer_auth("a-token-for-prometheuS")).await.expect(401);
    Answer::of(app.get("/metrics").bearer_auth(TOKEN)).await.expect(200);
    app.stop().await;
}

/// The series a dashboard's or a rule's expression names.
fn named_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("calos_")).map(ToOwned::to_owned).collect()
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The sections of a page, as a link names them.
fn sections_of(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    let linked = |letter: char| match letter {
        ' ' => Some('-'),
        letter => (letter.is_ascii_alphanumeric() || letter == '-').then(|| letter.to_ascii_lowercase()),
    };
    headings.map(|heading| heading.chars().filter_map(linked).collect()).collect()
}

/// Every `expr` of a dashboard, however deep.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "expr" || name == "query" => found.push(text.clone()),
                    field => expressions(field, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_and_the_alerts_name_series_that_are_served_and_no_others() {
    let app = TestApp::start().await;
    let page = Answer::of(app.get("/metrics")).await.expect(200).text;
    let served: BTreeSet<String> = series_in(&page).into_iter().collect();
    app.stop().await;

    let dashboard: Value = serde_json::from_str(&file("deploy/grafana/calos.json")).expect("the dashboard is JSON");
    let mut shown = Vec::new();
    expressions(&dashboard, &mut shown);
    assert!(shown.len() > 30, "{} expressions", shown.len());
    let shown: BTreeSet<String> = shown.iter().flat_map(|text| named_in(text)).collect();

    let rules = YamlLoader::load_from_str(&file("deploy/prometheus/alerts.yml")).expect("the rules are YAML");
    let rules = rules[0]["groups"][0]["rules"].as_vec().expect("there are rules");
    let sections = sections_of(&file("docs/runbook.md"));
    let mut watched = BTreeSet::new();
    for rule in rules {
        let text = |value: &Yaml| value.as_str().unwrap_or_default().to_owned();
        let name = text(&rule["alert"]);
        let expression = text(&rule["expr"]);
        let severity = text(&rule["labels"]["severity"]);
        assert!(!expression.is_empty() && ["page", "warn"].contains(&severity.as_str()), "{name}");
        for note in ["summary", "description"] {
            assert!(!text(&rule["annotations"][note]).is_empty(), "{name} has no {note}");
        }
        let runbook = text(&rule["annotations"]["runbook"]);
        let section = runbook.strip_prefix("docs/runbook.md#").unwrap_or_default();
        assert!(sections.contains(section), "{name}: the runbook has no section {section:?}: {sections:?}");
        watched.extend(named_in(&expression));
    }
    for alert in [
        "calos_projection_lag_seconds",
        "calos_dead_letters",
        "calos_log_append_seconds_bucket",
        "calos_provider_circuits",
        "calos_holds_expired_total",
        "calos_http_requests_total",
        "calos_database_up",
    ] {
        assert!(watched.contains(alert), "no alert watches {alert}");
    }
    let missing: Vec<_> = shown.union(&watched).filter(|name| !served.contains(*name)).collect();
    assert!(missing.is_empty(), "not served: {missing:?}");
    // Every family is looked at by somebody; the sums and buckets of a histogram go together.
    let family = |name: &str| {
        let parts = ["_bucket", "_sum", "_count", "_total"];
        parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name).to_owned()
    };
    let looked_at: BTreeSet<String> = shown.union(&watched).map(|name| family(name)).collect();
    let unseen: Vec<_> = served.iter().map(|name| family(name)).filter(|name| !looked_at.contains(name)).collect();
    assert_eq!(unseen, ["calos_build"], "nobody looks at these");
}
