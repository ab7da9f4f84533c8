//! Erasing people: what is left of them, what happens when it is interrupted, and what an erasure must not be mistaken for.

use std::sync::Arc;
use std::time::Duration;

use calos_adapters::config::{MasterKey, Secret};
use calos_adapters::erasures::{self, ERASURE_FILE};
use calos_adapters::postgres::{LogOptions, PgLog};
use calos_adapters::secrets::{BCRYPT_COST_DEFAULT, Secrets, SecretsOptions, SubjectKeys};
use calos_commands::ports::{PersonalData, SealError, label};
use calos_domain::operation::RunBy;
use calos_domain::{SubjectId, UserId};
use calos_projections::{Runner, RunnerOptions};
use calos_replay::backup::{Place, backup};
use calos_replay::erase::{Erased, Eraser, Who};
use calos_replay::operation::run_by;
use calos_replay::progress::Show;
use calos_replay::restore::{RestoreOptions, Target, record_restore, restore};
use calos_replay::verify::{Anchors, VerifyReport};
use calos_replay::write_guard::{Assent, Confirmed, confirm};
use calos_replay::{APPLICATION_NAME, ToolError};
use calos_tests::app::{Answer, MASTER_KEY, PASSWORD, Registered, SECRET, TestApp};
use calos_tests::cluster::until;
use calos_tests::database::TestDatabase;
use serde_json::json;
use sqlx::{Connection as _, PgConnection, PgPool};
use tempfile::TempDir;
use uuid::Uuid;

use crate::log_files::verify_of;

/// How long a running server may take to follow.
const FOLLOWS_WITHIN_SECONDS: u64 = 1;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What another process has: a log and keys of its own, and the folder of the anchors.
struct Console {
    pool: PgPool,
    owner: PgPool,
    log: PgLog,
    secrets: Secrets,
    folder: TempDir,
}

fn master_key() -> MasterKey {
    MasterKey::from_base64(MASTER_KEY).expect("the key of the tests is one")
}

async fn secrets_of(pool: &PgPool) -> Secrets {
    let options = SecretsOptions {
        master_key: master_key(),
        master_key_previous: None,
        jwt_secret: Secret::new(SECRET),
        issuer: "localhost".to_owned(),
        password_cost: BCRYPT_COST_DEFAULT,
    };
    Secrets::open(pool.clone(), &options).await.expect("the secrets open")
}

fn operator() -> RunBy {
    run_by(Some("olga".to_owned()), Some("asked for by letter".to_owned()))
}

fn yes() -> Confirmed {
    confirm(Assent::Given, "erase").expect("it is confirmed")
}

impl Console {
    async fn beside(app: &TestApp) -> Arc<Self> {
        let (pool, owner) = (app.database.pool.clone(), app.database.owner_pool.clone());
        let log = PgLog::open(pool.clone(), LogOptions::default()).await.expect("the log opens");
        let secrets = secrets_of(&pool).await;
        Arc::new(Self { pool, owner, log, secrets, folder: tempfile::tempdir().expect("a folder") })
    }

    fn eraser<'a>(&'a self, run: &'a RunBy) -> Eraser<'a> {
        let Self { owner, log, secrets, folder, .. } = self;
        Eraser { owner, log, secrets, directory: folder.path(), run }
    }

    async fn erase(&self, who: &Registered) -> Result<Erased, ToolError> {
        self.eraser(&operator()).erase(UserId(who.user_id), &yes()).await
    }

    async fn verify(&self, app: &TestApp) -> VerifyReport {
        Runner::catch_up(self.pool.clone(), RunnerOptions::default()).await.expect("the projections catch up");
        let key = self.secrets.ledger_signing_key().verifying_key();
        verify_of(&app.database, Anchors { directory: self.folder.path().to_owned(), key }).await
    }

    async fn number(&self, query: &str, of: &Registered) -> i64 {
        sqlx::query_scalar(query).bind(of.user_id).fetch_one(&self.owner).await.expect("the query answers")
    }

    /// What is left of a person besides the log: keys, rows with something sealed, sessions that stand.
    async fn left_of(&self, who: &Registered) -> i64 {
        let query = "SELECT (SELECT count(*) FROM subject_keys WHERE subject = $1)
             + (SELECT count(*) FROM read.accounts WHERE user_id = $1)
             + (SELECT count(*) FROM read.sessions WHERE user_id = $1
                AND (address_sealed IS NOT NULL OR user_agent_sealed IS NOT NULL OR ended_at IS NULL))
             + (SELECT count(*) FROM snapshots WHERE starts_with(aggregate_id, $1::text))
             + (SELECT count(*) FROM idempotency WHERE position($1::text IN caller) > 0)";
        self.number(query, who).await
    }

    async fn close(&self) {
        self.log.close().await;
    }
}

/// What is found, but for the anchors: the server's are in a folder of its own.
fn faults(report: &VerifyReport) -> Vec<String> {
    let found = report.checks.iter().filter(|check| check.first.is_some() && check.name != "anchors");
    found.map(ToString::to_string).collect()
}

fn passed(report: &VerifyReport) {
    assert_eq!(faults(report), Vec::<String>::new());
}

fn finding(report: &VerifyReport) -> String {
    faults(report).into_iter().next().expect("something is found")
}

/// Somebody with a session more, a tenant, a key, a kept answer and a snapshot.
async fn lively(app: &TestApp) -> Registered {
    let who = app.register().await;
    let body = json!({"email": who.email, "password": PASSWORD});
    let login = app.post("/api/auth/login", &body).header("idempotency-key", "once");
    Answer::of(login).await.expect(200);
    let found = app.post("/api/tenants", &json!({"name": "Shared books"})).bearer_auth(&who.token);
    Answer::of(found.header("idempotency-key", "founded")).await.expect(201);
    app.issue_key(&who).await;
    let snapshot = "INSERT INTO snapshots SELECT aggregate_type, aggregate_id, partition, 1, 0, 'of no version'
         FROM events WHERE aggregate_type IN ('account', 'session') AND starts_with(aggregate_id, $1) AND sequence = 1";
    sqlx::query(snapshot).bind(who.user_id.to_string()).execute(&app.database.owner_pool).await.expect("snapshots");
    who
}

async fn session_status(app: &TestApp, who: &Registered) -> u16 {
    Answer::of(app.get("/api/auth/session").bearer_auth(&who.token)).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_person_is_gone_and_their_address_can_be_registered_anew() {
    let app = TestApp::start().await;
    let (who, other) = (lively(&app).await, lively(&app).await);
    let console = Console::beside(&app).await;
    assert_eq!(session_status(&app, &who).await, 200);
    let events = app.event_count().await;

    let found = console.eraser(&operator()).find(&who.email.parse::<Who>().expect("an address")).await;
    assert_eq!(found.expect("they are found").user_id, UserId(who.user_id));
    let erased = console.erase(&who).await.expect("they are erased");
    assert!(erased.key_destroyed && !erased.already, "{erased:?}");
    assert_eq!((erased.sessions_ended, erased.devices_revoked, erased.api_keys_revoked), (2, 1, 1), "{erased:?}");
    assert_eq!((erased.snapshots_dropped, erased.answers_deleted), (3, 2), "{erased:?}");
    assert!(erased.vacuumed.iter().any(|table| table == "public.subject_keys"), "{erased:?}");
    assert_eq!(console.left_of(&who).await, 0);
    assert!(app.event_count().await > events, "it is in the log");
    let list = std::fs::read_to_string(console.folder.path().join(ERASURE_FILE)).expect("the list outside");
    assert!(list.contains(&who.user_id.to_string()) && list.lines().count() == 1, "{list}");

    until("the server follows", FOLLOWS_WITHIN_SECONDS, async || session_status(&app, &who).await == 401).await;
    let login = || app.post("/api/auth/login", &json!({"email": who.email, "password": PASSWORD}));
    let refused = Answer::of(login()).await.expect(401);
    assert_eq!(refused.body["code"], "invalid_credentials", "{}", refused.text);
    assert_eq!(session_status(&app, &other).await, 200, "nobody else is touched");
    assert!(console.left_of(&other).await > 0);
    passed(&console.verify(&app).await);

    let again = json!({"email": who.email.to_uppercase(), "password": PASSWORD});
    let register = || app.post("/api/auth/register", &again).header("idempotency-key", "anew");
    let anew = Answer::of(register()).await.expect(201);
    assert_ne!(anew.body["userId"], who.user_id.to_string());
    Answer::of(login()).await.expect(200);
    let twice = console.erase(&who).await.expect("it is done already");
    assert!(twice.already && !twice.changed_something(), "{twice:?}");
    assert_eq!(twice.erased_at, erased.erased_at);
    let repeated = Answer::of(register()).await.expect(201);
    assert_eq!(repeated.body["userId"], anew.body["userId"], "the new person's answer is kept");
    Answer::of(login()).await.expect(200);
    passed(&console.verify(&app).await);
    console.close().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_ends_between_two_steps_is_finished_by_the_next() {
    let app = TestApp::start().await;
    let console = Console::beside(&app).await;
    for steps in 0..=4 {
        let who = lively(&app).await;
        let user_id = UserId(who.user_id);
        let run = operator();
        let eraser = console.eraser(&run);
        let mut half = Erased::default();
        if steps > 0 {
            eraser.note_outside(user_id).await.expect("it is noted");
        }
        if steps > 1 {
            half = eraser.close(user_id).await.expect("the account is closed");
            until("the server follows", FOLLOWS_WITHIN_SECONDS, async || session_status(&app, &who).await == 401).await;
        }
        if steps == 2 {
            let found = finding(&console.verify(&app).await);
            assert!(
                found.contains("was erased, and has a data key") && found.contains("calos-replay erase"),
                "{found}"
            );
        }
        if steps > 2 {
            eraser.destroy_key(user_id, &mut half).await.expect("the key is destroyed");
        }
        if steps > 3 {
            eraser.end_rest(user_id, &mut half).await.expect("the rest ends");
        }
        assert!(console.left_of(&who).await > 0, "{steps} steps are not all");
        let finished = console.erase(&who).await.expect("it is finished");
        assert_eq!((finished.already, finished.key_destroyed), (steps > 1, steps < 3), "{steps}: {finished:?}");
        assert!(finished.changed_something());
        assert_eq!(console.left_of(&who).await, 0, "{steps}");
        passed(&console.verify(&app).await);
    }
    let list = std::fs::read_to_string(console.folder.path().join(ERASURE_FILE)).expect("the list outside");
    assert_eq!(list.lines().count(), 5, "each is noted once");
    console.close().await;
    app.stop().await;
}

/// Waits until a statement of the tools that begins so waits for a lock.
async fn blocked(owner: &PgPool, statement: &str) {
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
         AND starts_with(query, $1)";
    let reached = async || {
        let count: i64 =
            sqlx::query_scalar(waiting).bind(statement).fetch_one(owner).await.expect("the activity is read");
        count > 0
    };
    until(statement, 30, reached).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_is_killed_while_the_database_works_leaves_nothing_that_cannot_be_finished() {
    let app = TestApp::start().await;
    let console = Console::beside(&app).await;
    for (lock, statement) in [
        ("LOCK TABLE subject_keys IN ROW EXCLUSIVE MODE", "LOCK TABLE subject_keys"),
        ("LOCK TABLE snapshots IN SHARE MODE", "DELETE FROM snapshots"),
        ("LOCK TABLE idempotency IN SHARE MODE", "DELETE FROM idempotency"),
    ] {
        let who = lively(&app).await;
        let mut holder = PgConnection::connect(&app.database.url).await.expect("a connection");
        let mut held = holder.begin().await.expect("a transaction");
        sqlx::query(lock).execute(&mut *held).await.expect("the lock");
        let running = tokio::spawn({
            let (console, who) = (Arc::clone(&console), who.clone());
            async move { console.erase(&who).await }
        });
        blocked(&app.database.owner_pool, statement).await;
        running.abort();
        assert!(running.await.expect_err("it was killed").is_cancelled());
        held.rollback().await.expect("the lock is gone");
        let gone = async || {
            let turns = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                         AND starts_with(application_name, $1 || ' erase')";
            let turns: i64 =
                sqlx::query_scalar(turns).bind(APPLICATION_NAME).fetch_one(&console.owner).await.expect("a count");
            turns == 0
        };
        until("the killed operator's turn ends", PATIENCE.as_secs(), gone).await;
        let finished = console.erase(&who).await.expect("it is finished");
        assert!(finished.already, "{statement}: {finished:?}");
        assert_eq!(console.left_of(&who).await, 0, "{statement}");
    }
    passed(&console.verify(&app).await);
    console.close().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_there_or_would_be_named_for_ever_is_refused_and_nothing_changes() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let console = Console::beside(&app).await;
    let events = app.event_count().await;
    let run = operator();
    let stranger = Eraser { run: &run, ..console.eraser(&run) };
    let nobody = stranger.erase(UserId(Uuid::now_v7()), &yes()).await.expect_err("nobody is erased");
    assert!(matches!(&nobody, ToolError::Refused(why) if why.contains("nothing was changed")), "{nobody}");
    let unknown = "nobody@example.com".parse::<Who>().expect("an address");
    assert!(matches!(stranger.find(&unknown).await, Err(ToolError::Refused(_))));
    assert!(!console.folder.path().join(ERASURE_FILE).exists());

    let naming = RunBy { reason: format!("{} wrote to us", who.email.to_uppercase()), ..operator() };
    let refused = console.eraser(&naming).check_words(UserId(who.user_id)).await.expect_err("it names them");
    assert!(matches!(&refused, ToolError::Usage(why) if !why.contains(&who.email)), "{refused}");
    let by_name = RunBy { reason: "Ada wrote to us".to_owned(), ..operator() };
    assert!(console.eraser(&by_name).check_words(UserId(who.user_id)).await.is_err());
    console.eraser(&run).check_words(UserId(who.user_id)).await.expect("it names nobody");
    assert_eq!(app.event_count().await, events);
    assert_eq!(session_status(&app, &who).await, 200);
    console.close().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_missing_without_an_erasure_is_a_fault_and_is_named() {
    let app = TestApp::start().await;
    let (who, gone) = (app.register().await, app.register().await);
    let console = Console::beside(&app).await;
    console.erase(&gone).await.expect("they are erased");
    passed(&console.verify(&app).await);
    let keys = console.secrets.subject_keys();
    let sealed = keys.seal(SubjectId(who.user_id), label::EMAIL, "x").await.expect("it is sealed");
    let destroy = sqlx::query("DELETE FROM subject_keys WHERE subject = $1").bind(who.user_id);
    destroy.execute(&console.owner).await.expect("somebody deletes it by hand");
    let found = finding(&console.verify(&app).await);
    let named = format!("sealed for {}, whose data key is missing without an erasure", who.user_id);
    assert!(found.starts_with("FAIL  data keys: ") && found.contains(&named), "{found}");
    keys.forget_all();
    let (missing, erased) = (SubjectId(who.user_id), SubjectId(gone.user_id));
    assert_eq!(keys.open(&sealed, label::EMAIL).await, Err(SealError::Missing(missing)));
    assert_eq!(keys.seal(erased, label::EMAIL, "x").await, Err(SealError::Erased(erased)));
    // Whoever's key was lost can still be erased, and then it is one.
    console.erase(&who).await.expect("they are erased");
    passed(&console.verify(&app).await);
    assert_eq!(keys.open(&sealed, label::EMAIL).await, Err(SealError::Erased(missing)));
    console.close().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_a_key_for_an_erased_person_however_close_they_come() {
    let app = TestApp::start().await;
    let console = Console::beside(&app).await;
    for _ in 0..5 {
        let who = app.register().await;
        let subject = SubjectId(who.user_id);
        let makers = (0..4).map(|_| {
            let keys = SubjectKeys::new(console.pool.clone(), &master_key(), None);
            tokio::spawn(async move {
                let begun = std::time::Instant::now();
                loop {
                    keys.forget_all();
                    match keys.create_key(subject).await {
                        Err(SealError::Erased(_)) => return,
                        Ok(()) | Err(_) => assert!(begun.elapsed() < PATIENCE, "nobody is erased"),
                    }
                }
            })
        });
        let makers: Vec<_> = makers.collect();
        console.erase(&who).await.expect("they are erased");
        for maker in makers {
            maker.await.expect("a maker ends");
        }
        let key = "SELECT count(*) FROM subject_keys WHERE subject = $1";
        assert_eq!(console.number(key, &who).await, 0);
    }
    console.close().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_erased_after_a_backup_is_erased_again_in_what_comes_of_it() {
    let app = TestApp::start().await;
    let (who, other) = (lively(&app).await, app.register().await);
    let console = Console::beside(&app).await;
    let key = console.secrets.ledger_signing_key();
    let folder = tempfile::tempdir().expect("a folder");
    let run = operator();
    let saved = backup(&console.owner, key, Place::New(folder.path()), &run, Show::Silent).await;
    saved.expect("a backup");
    console.erase(&who).await.expect("they are erased");

    let database = TestDatabase::create().await;
    let options =
        RestoreOptions { target: Target::Whole, key, directory: console.folder.path(), run: &run, show: Show::Silent };
    let restored = restore(&database.owner_pool, folder.path(), &options, &yes()).await.expect("it is restored");
    assert_eq!(restored.erased, 1);
    let log = PgLog::open(database.pool.clone(), LogOptions::default()).await.expect("the log opens");
    record_restore(&log, &run, folder.path(), &restored).await.expect("it is recorded");
    let anchors = || Anchors { directory: console.folder.path().to_owned(), key: key.verifying_key() };
    assert!(finding(&verify_of(&database, anchors()).await).contains("missing without an erasure"));

    let secrets = secrets_of(&database.pool).await;
    let again = Eraser {
        owner: &database.owner_pool,
        log: &log,
        secrets: &secrets,
        directory: console.folder.path(),
        run: &run,
    };
    assert_eq!(again.erase_again().await.expect("they are erased again"), 1);
    assert_eq!(again.erase_again().await.expect("once"), 0);
    let found = again.find(&who.email.parse::<Who>().expect("an address")).await;
    assert!(matches!(found, Err(ToolError::Refused(_))), "their address is free there too: {found:?}");
    assert!(again.find(&other.email.parse::<Who>().expect("an address")).await.is_ok());
    log.close().await;
    Runner::catch_up(database.pool.clone(), RunnerOptions::default()).await.expect("the projections catch up");
    passed(&verify_of(&database, anchors()).await);
    let left = "SELECT count(*) FROM read.accounts WHERE user_id = $1";
    let left: i64 = sqlx::query_scalar(left).bind(who.user_id).fetch_one(&database.owner_pool).await.expect("a count");
    assert_eq!(left, 0);
    assert!(erasures::read(console.folder.path(), restored.log_id).expect("the list").contains(&who.user_id));
    console.close().await;
    app.stop().await;
}
