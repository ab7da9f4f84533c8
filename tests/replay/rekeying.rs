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
use uuid::Uuid;

use crate::history::History;

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
