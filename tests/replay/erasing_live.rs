//! Erasing somebody while a server runs, with the built programs: afterwards nothing of them is found anywhere.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use calos_tests::cluster::{TestCluster, open_folder, until};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::server::{Place, Server, chat, client, issue_key, send, text};

const EMAIL: &str = "Zephyrine.Quillfeather@erasure.example";
const NAME: &str = "Zephyrine Q. Quillfeather";
const AGENT: &str = "QuillBrowser/77.3 (Zephyros 9; rv:77.3)";
const ADDRESS: &str = "203.0.113.177";
const PASSWORD: &str = "correct horse battery staple";

/// How long a running server may take to follow.
const FOLLOWS_WITHIN_SECONDS: u64 = 1;

/// What must be found nowhere, in lower case: each text as it is, in hexadecimal, and in base64 wherever it may begin.
fn traces() -> Vec<String> {
    let mut traces = BTreeSet::new();
    for text in [EMAIL, NAME, AGENT, ADDRESS, "quillfeather", "quillbrowser"] {
        for text in [text.to_owned(), text.to_lowercase()] {
            traces.insert(text.to_lowercase());
            traces.insert(text.bytes().map(|byte| format!("{byte:02x}")).collect());
            for before in 0..3 {
                let bytes = [&b"\0\0"[..before], text.as_bytes()].concat();
                for encoded in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
                    // The characters at either end also depend on what stands beside the text.
                    traces.insert(encoded[4..encoded.len() - 4].to_lowercase());
                }
            }
        }
    }
    traces.into_iter().collect()
}

fn traces_in(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    traces().into_iter().filter(|trace| text.contains(trace)).collect()
}

/// Every table of every schema, PostgreSQL's own included, that has a row with one of these in it.
async fn tables_with(pool: &PgPool, traces: &[String]) -> Vec<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'm', 'p') AND n.nspname <> 'pg_toast' ORDER BY 1",
    )
    .fetch_all(pool)
    .await
    .expect("the tables are listed");
    assert!(tables.len() > 80, "{tables:?}");
    let mut found = Vec::new();
    for table in tables {
        let rows = format!(
            "SELECT count(*) FROM {table} AS row_of WHERE EXISTS \
             (SELECT FROM unnest($1::text[]) trace WHERE position(trace IN lower(row_of::text)) > 0)"
        );
        let rows: i64 = sqlx::query_scalar(&rows).bind(traces).fetch_one(pool).await.expect("the rows are read");
        if rows > 0 {
            found.push(table);
        }
    }
    found
}

/// The decompressed lines of every file of the log below a place.
fn lines_of(place: &Path) -> String {
    if place.is_dir() {
        let files = std::fs::read_dir(place).expect("the folder is read");
        return files.map(|file| lines_of(&file.expect("a file").path())).collect();
    }
    let bytes = std::fs::read(place).expect("the file is read");
    let plain = zstd::decode_all(bytes.as_slice()).expect("it is compressed");
    String::from_utf8(plain).expect("it is text")
}

/// As the person's browser sends it, through the proxy.
fn theirs(request: RequestBuilder) -> RequestBuilder {
    request.header("user-agent", AGENT).header("x-forwarded-for", ADDRESS)
}

struct Person {
    user_id: String,
    tenant_id: String,
    token: String,
    key: String,
}

/// Registers, signs in again, founds a tenant, calls a model: everything with a key for repetitions.
async fn live(place: &Place, url: &str) -> Person {
    let client = client();
    let post = |path: &str, body: Value| theirs(client.post(format!("{url}{path}")).json(&body));
    let body = json!({ "email": EMAIL, "password": PASSWORD, "displayName": NAME });
    let registered = send(post("/api/auth/register", body).header("idempotency-key", "signing-up"), 201).await;
    let (user_id, tenant_id) = (text(&registered, "userId"), text(&registered, "tenantId"));
    let login = post("/api/auth/login", json!({ "email": EMAIL, "password": PASSWORD }));
    let login = send(login.header("idempotency-key", "signing-in"), 200).await;
    let token = text(&login["session"], "token");
    let found = post("/api/tenants", json!({ "name": "Shared books" })).bearer_auth(&token);
    send(found.header("idempotency-key", "founding"), 201).await;
    place.must("calos", &["admin", "tier", &tenant_id, "pro"]);
    let (_, key) = issue_key(url, &tenant_id, &token).await;
    for _ in 0..3 {
        chat(&client, url, &key).await.expect("it is answered");
    }
    Person { user_id, tenant_id, token, key }
}

async fn status(request: RequestBuilder) -> u16 {
    theirs(request).send().await.expect("the server answers").status().as_u16()
}

fn ended(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (output.status.code(), text.join("\n"))
}

async fn sums(place: &Place) -> Value {
    serde_json::from_str(&place.must("calos-replay", &["trial-balance", "--json"])).expect("a trial balance")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_erased_person_is_found_anywhere_and_the_books_are_as_they_were() {
    let cluster = TestCluster::private().await;
    let database_url = cluster.database("calos").await;
    let folder = open_folder();
    let place = Place { data_dir: folder.path().to_owned(), database_url: Some(database_url.clone()) };
    std::fs::write(place.data_dir.join(".env"), "CALOS_TRUSTED_PROXIES=127.0.0.1\n").expect("settings");
    let server = Server::start(&place).await;
    let url = &server.url;
    let pool = PgPool::connect(&database_url).await.expect("the database answers");
    let person = live(&place, url).await;
    let get = |path: &str| client().get(format!("{url}{path}")).bearer_auth(&person.token);

    // All of it is there to be lost: the server shows it to the person.
    let shown = format!(
        "{}{}",
        send(theirs(get("/api/auth/session")), 200).await,
        send(theirs(get("/api/auth/sessions")), 200).await
    );
    for trace in [EMAIL, NAME, AGENT, ADDRESS] {
        assert!(shown.contains(trace), "{trace} is not in {shown}");
    }
    let tables = tables_with(&pool, std::slice::from_ref(&person.user_id)).await;
    assert!(tables.len() > 4 && tables.contains(&"public.subject_keys".to_owned()), "{tables:?}");
    what_would_be_left_is_found(&pool).await;
    // A version of each read model from before, and an unfinished one would be the same.
    place.must("calos-replay", &["rebuild", "accounts", "--reason", "a drill", "--yes", "--quiet"]);
    place.must("calos-replay", &["rebuild", "sessions", "--reason", "a drill", "--yes", "--quiet"]);
    assert!(tables_with(&pool, std::slice::from_ref(&person.user_id)).await.contains(&"read_old.accounts".to_owned()));
    let before = sums(&place).await;
    let ciphertext: String = sqlx::query_scalar("SELECT email_sealed FROM read.accounts")
        .fetch_one(&pool)
        .await
        .expect("the sealed address");

    let reason = ["--reason", "asked for by letter"];
    let no_yes = place.run("calos-replay", &[&["erase", EMAIL][..], &reason].concat());
    assert_eq!(no_yes.status.code(), Some(2), "{}", ended(&no_yes).1);
    let said = place.must("calos-replay", &[&["erase", EMAIL, "--yes"][..], &reason].concat());
    assert!(said.contains("is erased") && said.contains("VACUUM"), "{said}");
    assert!(traces_in(&said).is_empty(), "{said}");

    until("sessions end", FOLLOWS_WITHIN_SECONDS, async || status(get("/api/auth/session")).await == 401).await;
    let models = || client().get(format!("{url}/v1/models")).bearer_auth(&person.key);
    until("keys end", FOLLOWS_WITHIN_SECONDS, async || status(models()).await == 401).await;
    let login = json!({ "email": EMAIL, "password": PASSWORD });
    let login = || client().post(format!("{url}/api/auth/login")).json(&login);
    assert_eq!(status(login()).await, 401);
    assert!(chat(&client(), url, &person.key).await.is_none());

    nothing_is_left(&place, &pool, &person, &ciphertext).await;
    assert_eq!(lines(&sums(&place).await), lines(&before));
    refused_and_repeated(&place, &pool, &person.user_id).await;

    let body = json!({ "email": EMAIL.to_lowercase(), "password": PASSWORD });
    let anew = send(client().post(format!("{url}/api/auth/register")).json(&body), 201).await;
    assert_ne!(text(&anew, "userId"), person.user_id);
    assert_eq!(status(login()).await, 200);
    assert_eq!(status(get("/api/auth/session")).await, 401);
    place.must("calos-replay", &["verify"]);
    let log = std::fs::read_to_string(place.data_dir.join("server.log")).expect("the server's log");
    assert!(traces_in(&log).is_empty(), "the server's log has {:?}", traces_in(&log));
}

/// The search finds what it looks for, as text and as bytes, plain and encoded.
async fn what_would_be_left_is_found(pool: &PgPool) {
    let encoded = URL_SAFE_NO_PAD.encode(format!("x{EMAIL}y"));
    for (text, bytes) in [(NAME, ""), ("", AGENT), (encoded.as_str(), ""), ("", ADDRESS)] {
        sqlx::raw_sql("CREATE TABLE read_old.left_over (text text, bytes bytea)").execute(pool).await.expect("a table");
        let put = sqlx::query("INSERT INTO read_old.left_over VALUES ($1, $2)").bind(text).bind(bytes.as_bytes());
        put.execute(pool).await.expect("a row");
        assert_eq!(tables_with(pool, &traces()).await, ["read_old.left_over"], "{text}{bytes}");
        sqlx::raw_sql("DROP TABLE read_old.left_over").execute(pool).await.expect("it goes");
    }
}

fn lines(balance: &Value) -> Value {
    assert!(balance["lines"].as_array().is_some_and(|lines| !lines.is_empty()), "{balance}");
    balance["lines"].clone()
}

async fn nothing_is_left(place: &Place, pool: &PgPool, person: &Person, ciphertext: &str) {
    assert_eq!(tables_with(pool, &traces()).await, Vec::<String>::new());
    // What was sealed stands in the log alone, and so does the tenant in its books.
    assert_eq!(tables_with(pool, &[ciphertext.to_lowercase()]).await, ["public.events"]);
    let tables = tables_with(pool, std::slice::from_ref(&person.user_id)).await;
    for gone in ["public.subject_keys", "public.idempotency", "public.snapshots", "read.accounts", "read_old.accounts"]
    {
        assert!(!tables.contains(&gone.to_owned()), "{tables:?}");
    }
    assert!(
        tables_with(pool, std::slice::from_ref(&person.tenant_id)).await.contains(&"read.wallet_balance".to_owned())
    );
    place.must("calos-replay", &["verify"]);

    let (file, backup) = (place.data_dir.join("log.jsonl.zst"), place.data_dir.join("backup"));
    let [to_file, to_backup] = [&file, &backup].map(|path| path.to_str().expect("a path").to_owned());
    place.must("calos-replay", &["export", "log", "--format", "jsonl", "--keys", "--output", &to_file]);
    place.must("calos-replay", &["backup", "--output", &to_backup]);
    for place in [&file, &backup] {
        let lines = lines_of(place);
        assert!(lines.contains(&person.user_id) && lines.contains("subject_erased"), "it is the log");
        assert_eq!(traces_in(&lines), Vec::<String>::new(), "{}", place.display());
    }
}

async fn refused_and_repeated(place: &Place, pool: &PgPool, user_id: &str) {
    let events = || async {
        let count = sqlx::query_scalar("SELECT sum(last_position)::bigint FROM partitions").fetch_one(pool).await;
        count.expect("the heads are read")
    };
    let before: i64 = events().await;
    let erase = |who: &str| ended(&place.run("calos-replay", &["erase", who, "--reason", "asked again", "--yes"]));
    let (code, said) = erase(user_id);
    assert!(code == Some(0) && said.contains("is already erased; nothing was left to do"), "{said}");
    for unknown in ["0193a5c8-1111-7222-8333-444455556666", "nobody@example.com", EMAIL] {
        let (code, said) = erase(unknown);
        assert!(code == Some(2) && said.to_lowercase().contains("nothing was changed"), "{unknown}: {said}");
    }
    let after: i64 = events().await;
    assert_eq!(after, before);
}
