//! A poisoned event: one that a read model cannot take. Set aside, named, and taken up again or left out.

use calos_adapters::postgres::partitioning::partition_of;
use calos_tests::cluster::{TestCluster, until};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::server::{Place, Server, Tenant, chat, client, pro_tenant, send};

/// Appends an event of this name to a tenant's wallet behind the log's back that no program can read; answers where it
/// stands.
async fn poison(pool: &PgPool, tenant: &str, name: &str) -> String {
    let partitions: i32 = sqlx::query_scalar("SELECT partitions FROM log").fetch_one(pool).await.expect("a log");
    let partition = partition_of(tenant, u16::try_from(partitions).expect("few partitions"));
    let append = format!(
        "WITH head AS (UPDATE partitions SET last_position = last_position + 1,
                 last_recorded_at = greatest(now(), last_recorded_at)
             WHERE partition = {partition} RETURNING last_position, last_recorded_at)
         INSERT INTO events (partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version,
             payload, metadata, recorded_at, hash)
         SELECT {partition}, last_position, 'wallet', '{tenant}',
             (SELECT max(sequence) + 1 FROM events WHERE aggregate_type = 'wallet' AND aggregate_id = '{tenant}'),
             '{name}', '1', '{{\"{name}\": 7}}', '{{}}', last_recorded_at, '\\x00' FROM head
         RETURNING position"
    );
    let position: i64 = sqlx::query_scalar(&append).fetch_one(pool).await.expect("somebody writes by hand");
    format!("{partition}:{position}")
}

async fn dead_letters(url: &str, token: &str) -> Vec<Value> {
    let letters = send(client().get(format!("{url}/api/ops/dead-letters")).bearer_auth(token), 200).await;
    letters["deadLetters"].as_array().expect("a list").clone()
}

async fn usage(server: &Server, tenant: &Tenant) -> Value {
    let request = client().get(format!("{}/api/credits/usage?limit=50", server.url)).bearer_auth(&tenant.token);
    send(request, 200).await
}

fn uses(usage: &Value) -> usize {
    usage["usage"].as_array().expect("uses").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_event_is_set_aside_shown_and_left_out_while_others_go_on() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let cluster = TestCluster::private().await;
    let database_url = cluster.database("calos").await;
    let folder = calos_tests::cluster::open_folder();
    let place = Place { data_dir: folder.path().to_owned(), database_url: Some(database_url.clone()) };
    let mut server = Server::start(&place).await;
    let (struck, other) = (pro_tenant(&place, &server.url).await, pro_tenant(&place, &server.url).await);
    let operator = staff(&place, &server.url).await;
    let http = client();
    for tenant in [&struck, &other] {
        chat(&http, &server.url, &tenant.key).await.expect("it is answered");
    }
    let pool = PgPool::connect(&database_url).await.expect("the database answers");
    let at = poison(&pool, &struck.id, "usage_recorded").await;
    poison(&pool, &struck.id, "credits_deducted").await;
    let url = server.url.clone();
    until("the event is set aside by the usage log and the journal's sums", 20, async || {
        let letters = dead_letters(&url, &operator).await;
        ["usage_log", "trial_balance"].iter().all(|name| letters.iter().any(|letter| letter["projection"] == *name))
    })
    .await;

    // Others go on; whoever is struck is shown what is known, marked as incomplete.
    chat(&http, &server.url, &other.key).await.expect("others are answered");
    until("the other's use is listed", 20, async || uses(&usage(&server, &other).await) == 2).await;
    let report = "/api/finance/trial-balance";
    let balance = send(http.get(format!("{}{report}", server.url)).bearer_auth(&operator), 200).await;
    assert_eq!(balance["incomplete"], json!(2), "{balance}");
    let month = calendar_month();
    let close = http.post(format!("{}/api/finance/periods/{month}/close", server.url)).bearer_auth(&operator);
    let refused = send(close, 409).await;
    assert!(refused["incomplete"].as_i64().is_some_and(|open| open >= 2), "{refused}");
    let check = place.run("calos-replay", &["check", "daily", "--json", "--url", &server.url]);
    let found: Value = serde_json::from_slice(&check.stdout).expect("a report");
    let line = found["checks"].as_array().expect("lines").iter().find(|line| line["name"] == "dead letters");
    assert_eq!((check.status.code(), line.expect("a line")["level"].as_str()), (Some(1), Some("fail")), "{found}");

    // The tool shows it, tries it in vain, and leaves it out.
    let listed = place.must("calos-replay", &["dead-letters", "list"]);
    assert!(listed.contains("usage_log") && listed.contains(&at), "{listed}");
    let shown = place.must("calos-replay", &["dead-letters", "show", "usage_log", &at]);
    assert!(shown.contains("usage_recorded") && shown.contains("invalid type"), "{shown}");
    let retry = ["dead-letters", "retry", "usage_log", "--reason", "a drill", "--yes"];
    let retried = place.run("calos-replay", &retry);
    assert!(!dead_letters(&server.url, &operator).await.is_empty(), "{retried:?}");
    while let Some(letter) =
        dead_letters(&server.url, &operator).await.iter().find(|letter| letter["parked"] == json!(false))
    {
        let name = letter["projection"].as_str().expect("a name");
        let at = format!("{}:{}", letter["partition"], letter["position"]);
        let skip = ["dead-letters", "skip", name, &at, "--reason", "a drill wrote it", "--yes"];
        let skipped = place.run("calos-replay", &skip);
        // 1 says that the stream waits again, at its other poisoned event.
        assert!(skipped.status.code().is_some_and(|code| code <= 1), "{skipped:?}");
    }
    assert_eq!(dead_letters(&server.url, &operator).await, Vec::<Value>::new());
    let balance = send(http.get(format!("{}{report}", server.url)).bearer_auth(&operator), 200).await;
    assert_eq!(balance["incomplete"], json!(0), "{balance}");
    place.must("calos-replay", &["diff", "usage_log"]);

    // A version built later leaves it out too.
    place.must("calos-replay", &["rebuild", "usage_log", "--reason", "a drill", "--yes", "--quiet"]);
    place.must("calos-replay", &["diff", "usage_log"]);
    assert_eq!(uses(&usage(&server, &other).await), 2);
    assert!(server.terminate().success(), "the server did not stop cleanly");
    pool.close().await;
}

/// The month before this one, as `2026-01`.
fn calendar_month() -> String {
    let today = time::OffsetDateTime::now_utc();
    let (year, month) = match today.month() {
        time::Month::January => (today.year() - 1, 12),
        month => (today.year(), u8::from(month) - 1),
    };
    format!("{year}-{month:02}")
}

/// Somebody with the roles of finance and operations; their session's token.
pub async fn staff(place: &Place, url: &str) -> String {
    let email = format!("{}@example.com", uuid::Uuid::now_v7());
    let body = json!({"email": email, "password": "correct horse battery staple"});
    let registered = send(client().post(format!("{url}/api/auth/register")).json(&body), 201).await;
    let token = registered["session"]["token"].as_str().expect("a token").to_owned();
    place.must("calos", &["admin", "grant", &email, "operator"]);
    until("the server hears of the role", 10, async || {
        let session = client().get(format!("{url}/api/auth/session")).bearer_auth(&token);
        send(session, 200).await["staffRoles"].as_array().is_some_and(|roles| !roles.is_empty())
    })
    .await;
    token
}
