//! Subject keys against a real database: what is sealed opens for the right subject and field, until its key is gone.

use calos_adapters::config::{MasterKey, Secret};
use calos_adapters::secrets::{BCRYPT_COST_DEFAULT, Secrets, SecretsError, SecretsOptions, SubjectKeys};
use calos_commands::ports::{PersonalData, SealError, label};
use calos_domain::SubjectId;
use calos_domain::sealed::Sealed;
use calos_tests::database::TestDatabase;
use uuid::Uuid;

const ADA: SubjectId = SubjectId(Uuid::from_u128(1));
const BEN: SubjectId = SubjectId(Uuid::from_u128(2));

fn master(byte: u8) -> MasterKey {
    MasterKey::from_bytes([byte; 32])
}

fn keys(database: &TestDatabase, current: u8, previous: Option<u8>) -> SubjectKeys {
    SubjectKeys::new(database.pool.clone(), &master(current), previous.map(master).as_ref())
}

fn tampered(subject: SubjectId, label: &'static str) -> SealError {
    SealError::Tampered { subject, label }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_opens_for_its_subject_and_its_field_alone() {
    let database = TestDatabase::create().await;
    let keys = keys(&database, 1, None);
    for subject in [ADA, BEN] {
        keys.create_key(subject).await.expect("a key is made");
    }
    let sealed = keys.seal(ADA, label::EMAIL, "ada@example.com").await.expect("it is sealed");
    assert_eq!(keys.open(&sealed, label::EMAIL).await.as_deref(), Ok("ada@example.com"));
    assert!(!sealed.ciphertext.contains("ada"));

    assert_eq!(keys.open(&sealed, label::DISPLAY_NAME).await, Err(tampered(ADA, label::DISPLAY_NAME)));
    let moved = Sealed { subject: BEN, ciphertext: sealed.ciphertext.clone() };
    assert_eq!(keys.open(&moved, label::EMAIL).await, Err(tampered(BEN, label::EMAIL)));
    for ciphertext in ["", "not base64!", "AAEC", &sealed.ciphertext[4..]] {
        let cut = Sealed { subject: ADA, ciphertext: ciphertext.to_owned() };
        assert_eq!(keys.open(&cut, label::EMAIL).await, Err(tampered(ADA, label::EMAIL)), "{ciphertext}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_key_opens_nothing_and_is_not_made_again_by_sealing() {
    let database = TestDatabase::create().await;
    let keys = keys(&database, 1, None);
    keys.create_key(ADA).await.expect("a key is made");
    let sealed = keys.seal(ADA, label::EMAIL, "ada@example.com").await.expect("it is sealed");
    keys.destroy_key(ADA).await.expect("it is destroyed");
    assert_eq!(keys.open(&sealed, label::EMAIL).await, Err(SealError::Missing(ADA)));
    assert_eq!(keys.seal(ADA, label::EMAIL, "again").await, Err(SealError::Missing(ADA)));
    keys.create_key(ADA).await.expect("another key is made");
    assert_eq!(keys.open(&sealed, label::EMAIL).await, Err(tampered(ADA, label::EMAIL)));
}

#[tokio::test(flavor = "multi_thread")]
async fn making_a_key_twice_keeps_the_first() {
    let database = TestDatabase::create().await;
    let keys = keys(&database, 1, None);
    keys.create_key(ADA).await.expect("a key is made");
    let sealed = keys.seal(ADA, label::EMAIL, "ada@example.com").await.expect("it is sealed");
    keys.create_key(ADA).await.expect("it is there already");
    assert_eq!(keys.open(&sealed, label::EMAIL).await.as_deref(), Ok("ada@example.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_key_moved_to_another_subject_opens_nothing() {
    let database = TestDatabase::create().await;
    keys(&database, 1, None).create_key(ADA).await.expect("a key is made");
    let copy = "INSERT INTO subject_keys SELECT $1, wrapped_key, master_version, created_at FROM subject_keys";
    sqlx::query(copy).bind(BEN.0).execute(&database.pool).await.expect("a row can be copied");
    let sealed = keys(&database, 1, None).seal(BEN, label::EMAIL, "x").await;
    assert_eq!(sealed, Err(tampered(BEN, "data key")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_master_key_opens_with_the_previous_one_and_then_alone() {
    let database = TestDatabase::create().await;
    let old = keys(&database, 1, None);
    old.create_key(ADA).await.expect("a key is made");
    let sealed = old.seal(ADA, label::EMAIL, "ada@example.com").await.expect("it is sealed");
    assert_eq!(keys(&database, 2, None).open(&sealed, label::EMAIL).await, Err(SealError::AnotherMasterKey(ADA)));
    assert_eq!(keys(&database, 2, Some(1)).open(&sealed, label::EMAIL).await.as_deref(), Ok("ada@example.com"));
    assert_eq!(keys(&database, 2, None).open(&sealed, label::EMAIL).await.as_deref(), Ok("ada@example.com"));
}

async fn open(database: &TestDatabase, current: u8, previous: Option<u8>) -> Result<Secrets, SecretsError> {
    let options = SecretsOptions {
        master_key: master(current),
        master_key_previous: previous.map(master),
        jwt_secret: Secret::new("a secret that signs nothing in this test"),
        issuer: "localhost".to_owned(),
        password_cost: BCRYPT_COST_DEFAULT,
    };
    Secrets::open(database.pool.clone(), &options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_another_master_key_is_refused_before_anything_is_served() {
    let database = TestDatabase::create().await;
    let shown = format!("{:?}", open(&database, 1, None).await.expect("a new database takes any key"));
    assert_eq!(shown, "Secrets(..)");
    for with_accounts in [false, true] {
        if with_accounts {
            keys(&database, 1, None).create_key(ADA).await.expect("a key is made");
        }
        let refused = open(&database, 2, None).await.expect_err("the key is another one");
        assert!(matches!(refused, SecretsError::AnotherMasterKey));
        assert!(refused.to_string().contains("CALOS_MASTER_KEY"));
        assert!(matches!(open(&database, 2, Some(3)).await, Err(SecretsError::AnotherMasterKey)));
        assert!(open(&database, 1, None).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_master_key_changes_no_password_no_email_index_and_no_signature() {
    let database = TestDatabase::create().await;
    let lasting = async |secrets: Secrets| {
        let world = secrets.world();
        let email = "ada@example.com".parse().expect("an address");
        let hash = world.passwords.hash("correct horse").await.expect("it is hashed");
        (world.digests.email(&email), secrets.ledger_signing_key().verifying_key(), secrets.keyed_hash(&[b"x"]), hash)
    };
    let (email, signer, keyed, hash) = lasting(open(&database, 1, None).await.expect("it opens")).await;
    for (current, previous) in [(2, Some(1)), (2, None), (3, Some(2))] {
        let secrets = open(&database, current, previous).await.expect("it opens");
        assert!(secrets.world().passwords.verify("correct horse", Some(&hash)).await.expect("it is compared"));
        let (email_then, signer_then, keyed_then, _) = lasting(secrets).await;
        assert_eq!((email_then, signer_then, keyed_then), (email.clone(), signer, keyed));
    }
    let other = TestDatabase::create().await;
    let elsewhere = lasting(open(&other, 1, None).await.expect("it opens")).await;
    assert_ne!(elsewhere.0, email, "another database has another root");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_start_at_once_agree_on_the_root() {
    let database = TestDatabase::create().await;
    let signer = async || open(&database, 1, None).await.expect("it opens").ledger_signing_key().verifying_key();
    let (one, two, three) = tokio::join!(signer(), signer(), signer());
    assert_eq!((one, two), (two, three));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_was_tampered_with_is_refused() {
    let database = TestDatabase::create().await;
    open(&database, 1, None).await.expect("it opens");
    let flip = "UPDATE secrets_root SET wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1)";
    sqlx::query(flip).execute(&database.owner_pool).await.expect("a byte can be flipped");
    assert!(matches!(open(&database, 1, None).await, Err(SecretsError::AnotherMasterKey)));
}
