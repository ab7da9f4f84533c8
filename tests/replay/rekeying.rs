//! The master key changes: every data key is wrapped anew, nothing that was sealed is, and then the old one is not needed.

use calos_adapters::config::MasterKey;
use calos_adapters::secrets::{Keyring, REWRAP_PAGE_MAX_KEYS, RootSecret, SubjectKeys};
use calos_commands::ports::{PersonalData, SealError, label};
use calos_domain::SubjectId;
use calos_domain::sealed::Sealed;
use calos_replay::ToolError;
use calos_replay::operation::run_by;
use calos_replay::progress::Show;
use calos_replay::rekey::{MasterKeys, Rekeyed, rekey};
use calos_replay::write_guard::{Assent, confirm};
use calos_tests::cluster::{TestCluster, open_folder};
use serde_json::json;
use uuid::Uuid;

use crate::history::History;
use crate::server::{Place, Server, client, send, text};

/// More than two pages of keys.
const SUBJECTS: u128 = 2 * REWRAP_PAGE_MAX_KEYS as u128 + 7;

fn master(byte: u8) -> MasterKey {
    MasterKey::from_bytes([byte; 32])
}

fn keys(history: &History, current: u8, previous: Option<u8>) -> SubjectKeys {
    SubjectKeys::new(history.database.pool.clone(), &master(current), previous.map(master).as_ref())
}

fn subject(number: u128) -> SubjectId {
    SubjectId(Uuid::from_u128(number))
}

/// A database whose root, keyring and data keys the master key 1 wraps, and what is sealed in it.
async fn under_the_first() -> (History, Vec<Sealed>) {
    let history = History::of(1, 1).await;
    let pool = &history.database.pool;
    RootSecret::open(pool, &master(1), None).await.expect("a root");
    Keyring::open(pool.clone(), &master(1), None).await.expect("a keyring");
    let keys = keys(&history, 1, None);
    let mut sealed = Vec::new();
    for number in 1..=SUBJECTS {
        keys.create_key(subject(number)).await.expect("a key");
        if number % 100 == 1 {
            sealed.push(keys.seal(subject(number), label::EMAIL, "somebody@example.com").await.expect("it is sealed"));
        }
    }
    (history, sealed)
}

async fn rewrap(history: &History, current: u8, previous: Option<u8>) -> Result<Rekeyed, ToolError> {
    let run = run_by(Some("olga".to_owned()), Some("a yearly change".to_owned()));
    let (current, previous) = (master(current), previous.map(master));
    let master = MasterKeys { current: &current, previous: previous.as_ref() };
    let confirmed = confirm(Assent::Given, "rekey").expect("it is confirmed");
    rekey(&history.database.owner_pool, &history.log, master, &run, Show::Silent, &confirmed).await
}

async fn opens(keys: &SubjectKeys, sealed: &[Sealed]) {
    for text in sealed {
        assert_eq!(keys.open(text, label::EMAIL).await.as_deref(), Ok("somebody@example.com"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rekey_the_old_master_key_is_not_needed_and_nothing_else_has_changed() {
    let (history, sealed) = under_the_first().await;
    let fingerprint = "SELECT md5(string_agg(hash::text, ',' ORDER BY partition, position)) FROM events";
    let before: String = sqlx::query_scalar(fingerprint).fetch_one(&history.database.owner_pool).await.expect("a hash");

    let refused = rewrap(&history, 2, None).await.expect_err("the old key is not given");
    let why = refused.to_string();
    assert!(matches!(refused, ToolError::Refused(_)) && why.contains("CALOS_MASTER_KEY_PREVIOUS"), "{why}");
    assert!(why.contains(&format!("{SUBJECTS} of {SUBJECTS}")), "{why}");
    assert_eq!(history.number("SELECT count(DISTINCT master_version) FROM subject_keys").await, 1);
    opens(&keys(&history, 1, None), &sealed).await;

    // A few are wrapped anew by being used, as a server does.
    opens(&keys(&history, 2, Some(1)), &sealed[..3]).await;
    let all = u64::try_from(SUBJECTS).expect("a count");
    let done = rewrap(&history, 2, Some(1)).await.expect("it is done");
    assert_eq!(done, Rekeyed { rewrapped: all - 3, already: 3, unopenable: 0 });
    let again = rewrap(&history, 2, None).await.expect("there is nothing left to do");
    assert_eq!(again, Rekeyed { rewrapped: 0, already: all, unopenable: 0 });
    let facts = "SELECT count(*) FROM events WHERE event_type = 'data_keys_rewrapped'";
    assert_eq!(history.number(facts).await, 2);

    opens(&keys(&history, 2, None), &sealed).await;
    let old = keys(&history, 1, None).open(&sealed[0], label::EMAIL).await;
    assert_eq!(old, Err(SealError::AnotherMasterKey(subject(1))));
    let pool = &history.database.pool;
    RootSecret::open(pool, &master(2), None).await.expect("the root opens");
    Keyring::open(pool.clone(), &master(2), None).await.expect("the keyring opens");
    let untouched = format!("{fingerprint} WHERE aggregate_type <> 'operation'");
    let after: String = sqlx::query_scalar(&untouched).fetch_one(&history.database.owner_pool).await.expect("a hash");
    assert_eq!(after, before);
    history.catch_up().await;
    assert!(history.verify().await.passed);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rekey_that_was_broken_off_goes_on_and_what_does_not_open_is_counted_and_left() {
    let (history, sealed) = under_the_first().await;
    let wrapped =
        "UPDATE subject_keys SET wrapped_key = decode('00', 'hex') || substr(wrapped_key, 2) WHERE subject = $1";
    let spoil = sqlx::query(wrapped).bind(subject(5).0);
    spoil.execute(&history.database.owner_pool).await.expect("a key is spoilt");
    // Broken off after a page: its keys stay wrapped anew.
    let half = keys(&history, 2, Some(1));
    let broken = tokio::spawn(async move { half.rewrap_all(|_| panic!("broken off")).await });
    assert!(broken.await.expect_err("it ends early").is_panic());
    let anew = "SELECT count(*) FROM subject_keys GROUP BY master_version ORDER BY count(*) LIMIT 1";
    let page = REWRAP_PAGE_MAX_KEYS - 1;
    assert_eq!(history.number(anew).await, page);

    let done = rewrap(&history, 2, Some(1)).await.expect("it is done");
    let (all, page) = (u64::try_from(SUBJECTS).expect("a count"), u64::try_from(page).expect("a count"));
    assert_eq!(done, Rekeyed { rewrapped: all - page - 1, already: page, unopenable: 1 });
    opens(&keys(&history, 2, None), &sealed).await;
    history.log.close().await;
}

/// Two master keys as the settings have them.
const FIRST: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const SECOND: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_go_from_one_master_key_to_the_next_and_everything_still_opens() {
    let cluster = TestCluster::private().await;
    let database_url = Some(cluster.database("calos").await);
    let folder = open_folder();
    let place = Place { data_dir: folder.path().to_owned(), database_url };
    let settings = |lines: &[(&str, &str)]| {
        let text: String = lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        std::fs::write(place.data_dir.join(".env"), text).expect("settings");
    };
    let login = json!({ "email": "ada@example.com", "password": "correct horse battery staple" });
    settings(&[("CALOS_MASTER_KEY", FIRST)]);
    let mut server = Server::start(&place).await;
    send(client().post(format!("{}/api/auth/register", server.url)).json(&login), 201).await;
    assert!(server.terminate().success());

    let rekey = ["rekey", "--reason", "the yearly change", "--yes"];
    settings(&[("CALOS_MASTER_KEY", SECOND)]);
    let refused = place.run("calos-replay", &rekey);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && why.contains("as CALOS_MASTER_KEY_PREVIOUS"), "{why}");
    settings(&[("CALOS_MASTER_KEY", SECOND), ("CALOS_MASTER_KEY_PREVIOUS", FIRST)]);
    let said = place.must("calos-replay", &rekey);
    assert!(said.starts_with("1 data keys are wrapped by the current master key now, 0 were before"), "{said}");

    settings(&[("CALOS_MASTER_KEY", SECOND)]);
    let said = place.must("calos-replay", &rekey);
    assert!(said.starts_with("0 data keys are wrapped by the current master key now, 1 were before"), "{said}");
    place.must("calos-replay", &["verify"]);
    let server = Server::start(&place).await;
    let signed_in = send(client().post(format!("{}/api/auth/login", server.url)).json(&login), 200).await;
    let token = text(&signed_in["session"], "token");
    let session = send(client().get(format!("{}/api/auth/session", server.url)).bearer_auth(&token), 200).await;
    assert_eq!(text(&session, "email"), "ada@example.com");
}
