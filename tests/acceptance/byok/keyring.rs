//! The keyring against a real database: what is sealed opens as what it was sealed, under keys that can be changed.

use calos_adapters::config::MasterKey;
use calos_adapters::secrets::{Keyring, SecretsError};
use calos_commands::byok::{KeyringEntry, KeyringError, ProviderKeys};
use calos_commands::ports::SecretText;
use calos_domain::pricing::Provider;
use calos_domain::{KeyringEntryId, TenantId};
use calos_tests::database::TestDatabase;
use uuid::Uuid;

const SECRET: &str = "sk-proj-0123456789abcdefghijklmnop-wxyz";

const fn entry(tenant: u128, provider: Provider, id: u128) -> KeyringEntry {
    KeyringEntry {
        tenant_id: TenantId(Uuid::from_u128(tenant)),
        provider,
        entry_id: KeyringEntryId(Uuid::from_u128(id)),
    }
}

const ADAS: KeyringEntry = entry(1, Provider::OpenAi, 7);

async fn keyring(database: &TestDatabase, current: u8, previous: Option<u8>) -> Result<Keyring, SecretsError> {
    let master = |byte| MasterKey::from_bytes([byte; 32]);
    Keyring::open(database.pool.clone(), &master(current), previous.map(master).as_ref()).await
}

async fn opened(database: &TestDatabase) -> Keyring {
    keyring(database, 1, None).await.expect("it opens")
}

async fn told(keyring: &Keyring, entry: KeyringEntry) -> Result<String, KeyringError> {
    keyring.open(entry).await.map(|secret| secret.expose().to_owned())
}

async fn run(database: &TestDatabase, statement: &str) {
    sqlx::query(statement).execute(&database.owner_pool).await.expect(statement);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_opens_for_its_tenant_its_provider_and_its_id_alone() {
    let database = TestDatabase::create().await;
    opened(&database).await.store(ADAS, &SecretText::new(SECRET)).await.expect("it is stored");
    // Once from the database, once from memory.
    let keyring = opened(&database).await;
    for _ in 0..2 {
        for wrong in [entry(2, Provider::OpenAi, 7), entry(1, Provider::Anthropic, 7)] {
            assert_eq!(told(&keyring, wrong).await, Err(KeyringError::Tampered(wrong.entry_id)), "{wrong:?}");
        }
        assert_eq!(told(&keyring, ADAS).await.as_deref(), Ok(SECRET));
    }
    let moved = entry(1, Provider::OpenAi, 8);
    assert_eq!(told(&keyring, moved).await, Err(KeyringError::NotThere(moved.entry_id)));
    let copy = "INSERT INTO keyring SELECT '00000000-0000-0000-0000-000000000008', tenant_id, provider, key_version, \
                sealed, created_at FROM keyring";
    run(&database, copy).await;
    assert_eq!(told(&keyring, moved).await, Err(KeyringError::Tampered(moved.entry_id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_secret_is_seen_and_the_same_one_never_looks_the_same_twice() {
    let database = TestDatabase::create().await;
    let keyring = opened(&database).await;
    for id in [7, 8] {
        keyring.store(entry(1, Provider::OpenAi, id), &SecretText::new(SECRET)).await.expect("it is stored");
    }
    let sealed: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT sealed FROM keyring").fetch_all(&database.pool).await.expect("rows");
    assert_ne!(sealed[0], sealed[1]);
    for row in &sealed {
        assert!(!row.windows(8).any(|window| SECRET.as_bytes().windows(8).any(|part| part == window)));
    }
    let secret = keyring.open(ADAS).await.expect("it opens");
    assert!(!format!("{keyring:?} {secret:?}").contains("sk-proj"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_row_stays_shut() {
    let database = TestDatabase::create().await;
    opened(&database).await.store(ADAS, &SecretText::new(SECRET)).await.expect("it is stored");
    for change in [
        "UPDATE keyring SET sealed = set_byte(sealed, 3, get_byte(sealed, 3) # 1)",
        "UPDATE keyring SET sealed = substr(sealed, 1, 20)",
        "UPDATE keyring SET sealed = ''",
    ] {
        run(&database, change).await;
        let refused = told(&opened(&database).await, ADAS).await;
        assert_eq!(refused, Err(KeyringError::Tampered(ADAS.entry_id)), "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_entry_is_gone_from_memory_too() {
    let database = TestDatabase::create().await;
    let keyring = opened(&database).await;
    keyring.store(ADAS, &SecretText::new(SECRET)).await.expect("it is stored");
    assert_eq!(told(&keyring, ADAS).await.as_deref(), Ok(SECRET));
    for _ in 0..2 {
        keyring.delete(ADAS.entry_id).await.expect("it is deleted, or was");
        assert_eq!(told(&keyring, ADAS).await, Err(KeyringError::NotThere(ADAS.entry_id)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_master_key_touches_no_entry_and_needs_the_previous_one_once() {
    let database = TestDatabase::create().await;
    opened(&database).await.store(ADAS, &SecretText::new(SECRET)).await.expect("it is stored");
    let sealed = async || -> Vec<u8> {
        sqlx::query_scalar("SELECT sealed FROM keyring").fetch_one(&database.pool).await.expect("a row")
    };
    let before = sealed().await;
    for (current, previous) in [(2, None), (2, Some(3))] {
        let refused = keyring(&database, current, previous).await.expect_err("neither key opens it");
        assert!(matches!(refused, SecretsError::AnotherMasterKey), "{refused}");
    }
    for (current, previous) in [(2, Some(1)), (2, None), (3, Some(2)), (3, None)] {
        let keyring = keyring(&database, current, previous).await.expect("it opens");
        assert_eq!(told(&keyring, ADAS).await.as_deref(), Ok(SECRET));
    }
    assert_eq!(sealed().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_keyring_key_seals_every_entry_anew_and_the_old_one_goes() {
    let database = TestDatabase::create().await;
    let (here, there) = (opened(&database).await, opened(&database).await);
    let entries: Vec<_> = (0..450).map(|id| entry(id % 3, Provider::OpenAi, 1_000 + id)).collect();
    for each in &entries {
        here.store(*each, &SecretText::new(format!("{SECRET}{}", each.entry_id))).await.expect("it is stored");
    }
    let broken = "UPDATE keyring SET sealed = '\\x00' WHERE id = '00000000-0000-0000-0000-0000000003e8'";
    run(&database, broken).await;
    let rotated = here.rotate().await.expect("it rotates");
    assert_eq!((rotated.version, rotated.resealed, rotated.unopenable), (2, 449, 1));
    let versions = async || -> Vec<i32> {
        let versions = sqlx::query_scalar("SELECT version FROM keyring_keys ORDER BY version");
        versions.fetch_all(&database.pool).await.expect("versions")
    };
    assert_eq!(versions().await, [1, 2], "what does not open still needs its key");

    // The other process meets entries under a key it has not seen, and seals under one that will be gone.
    assert_eq!(told(&there, entries[1]).await, Ok(format!("{SECRET}{}", entries[1].entry_id)));
    here.delete(entries[0].entry_id).await.expect("it is deleted");
    let rotated = here.rotate().await.expect("it rotates");
    assert_eq!((rotated.version, rotated.resealed, rotated.unopenable), (3, 449, 0));
    assert_eq!(versions().await, [3]);
    there.store(ADAS, &SecretText::new(SECRET)).await.expect("it is stored under the new key");
    for keyring in [&here, &there, &opened(&database).await] {
        assert_eq!(told(keyring, ADAS).await.as_deref(), Ok(SECRET));
        assert_eq!(told(keyring, entries[449]).await, Ok(format!("{SECRET}{}", entries[449].entry_id)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_at_once_agree_on_the_first_key() {
    let database = TestDatabase::create().await;
    let (one, two, three) = tokio::join!(opened(&database), opened(&database), opened(&database));
    one.store(ADAS, &SecretText::new(SECRET)).await.expect("it is stored");
    for keyring in [&two, &three] {
        assert_eq!(told(keyring, ADAS).await.as_deref(), Ok(SECRET));
    }
}
