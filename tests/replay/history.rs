//! A log with a history in it, written through the real writer.

use std::time::{SystemTime, UNIX_EPOCH};

use calos_adapters::anchors;
use calos_adapters::postgres::{LogOptions, PgLog};
use calos_commands::log::{EventLog, Plan, Request};
use calos_commands::metadata::{Actor, Metadata};
use calos_domain::operation::RunBy;
use calos_domain::wallet::{
    CallTerms, GrantKind, Meter, UsageOutcome, UsageRecorded, Wallet, WalletCommand, WalletRefusal,
};
use calos_domain::{Asset, GrantId, HoldId, MicroUsd, StreamId, TenantId, Timestamp, Units, UsageId};
use calos_projections::{AnyProjection, Runner, RunnerOptions, registry};
use calos_replay::operation::run_by;
use calos_replay::progress::Show;
use calos_replay::rebuild::{RebuildOptions, RebuildReport, rebuild, rebuild_all};
use calos_replay::verify::{Anchors, VerifyOptions, VerifyReport, verify};
use calos_replay::write_guard::{Assent, confirm};
use calos_replay::{ReadModel, ToolError};
use calos_tests::database::TestDatabase;
use ed25519_dalek::SigningKey;
use futures_util::future::join_all;
use uuid::Uuid;

/// What each test wallet is given, in micro-dollars.
pub const GRANTED: i64 = 50_000_000;

/// What each use costs, in micro-dollars.
pub const COST: i64 = 1_500;

/// A log, the projections over it, and a key and a folder for anchors.
pub struct History {
    pub database: TestDatabase,
    pub log: PgLog,
    pub tenants: Vec<TenantId>,
    pub key: SigningKey,
    pub anchors: tempfile::TempDir,
}

impl History {
    /// `tenants` wallets with `uses` settled uses each, and every projection up to the head.
    pub async fn of(tenants: usize, uses: usize) -> Self {
        let database = TestDatabase::create().await;
        let log = PgLog::open(database.pool.clone(), LogOptions::default()).await.expect("the log opens");
        let tenants: Vec<TenantId> = (0..tenants).map(|_| TenantId(Uuid::now_v7())).collect();
        let anchors = tempfile::tempdir().expect("a folder for anchors");
        let history = Self { database, log, tenants, key: SigningKey::from_bytes(&[7; 32]), anchors };
        join_all(history.tenants.iter().map(|tenant| live(&history.log, *tenant, uses))).await;
        history.catch_up().await;
        history
    }

    /// Brings every projection to the head of the log.
    pub async fn catch_up(&self) {
        Runner::catch_up(self.database.pool.clone(), RunnerOptions::default()).await.expect("the projections catch up");
    }

    /// Rebuilds one read model beside the live one.
    pub async fn rebuild(&self, name: &str) -> Result<RebuildReport, ToolError> {
        self.rebuild_with(name, RebuildOptions::default()).await
    }

    /// Rebuilds one read model.
    pub async fn rebuild_with(&self, name: &str, options: RebuildOptions) -> Result<RebuildReport, ToolError> {
        let confirmed = confirm(Assent::Given, "rebuild").expect("it is confirmed");
        rebuild(&self.database.owner_pool, &self.log, model(name), &operator(), &confirmed, &options).await
    }

    /// Rebuilds several read models from one reading of the log.
    pub async fn rebuild_all(&self, names: &[&str]) -> Result<Vec<RebuildReport>, ToolError> {
        let confirmed = confirm(Assent::Given, "rebuild all").expect("it is confirmed");
        let models: Vec<ReadModel> = names.iter().map(|name| model(name)).collect();
        let options = RebuildOptions::default();
        rebuild_all(&self.database.owner_pool, &self.log, &models, &operator(), &confirmed, &options).await
    }

    /// Verifies everything, anchors included.
    pub async fn verify(&self) -> VerifyReport {
        let options = VerifyOptions {
            chain_only: false,
            anchors: Some(self.anchors()),
            models: registry::ALL,
            show: Show::Silent,
        };
        verify(&self.database.owner_pool, &options).await.expect("the verification ends")
    }

    /// Where this log's anchors are.
    pub fn anchors(&self) -> Anchors {
        Anchors { directory: self.anchors.path().to_owned(), key: self.key.verifying_key() }
    }

    /// Signs the heads as they are and keeps them outside the database.
    pub async fn anchor(&self) {
        let anchor = anchors::take(&self.database.pool, &self.key).await.expect("the heads are read");
        anchors::keep(&self.database.pool, self.anchors.path(), &anchor).await.expect("the anchor is kept");
    }

    /// Changes what must never change, as somebody with every right on the machine could.
    pub async fn tamper(&self, statements: &str) {
        let armed = format!(
            "ALTER TABLE events DISABLE TRIGGER ALL; ALTER TABLE partitions DISABLE TRIGGER ALL; \
             ALTER TABLE anchors DISABLE TRIGGER ALL; ALTER TABLE log DISABLE TRIGGER ALL; {statements}; \
             ALTER TABLE events ENABLE TRIGGER ALL; ALTER TABLE partitions ENABLE TRIGGER ALL; \
             ALTER TABLE anchors ENABLE TRIGGER ALL; ALTER TABLE log ENABLE TRIGGER ALL"
        );
        self.run(&armed).await;
    }

    /// Runs statements as the owner.
    pub async fn run(&self, statements: &str) {
        sqlx::raw_sql(statements).execute(&self.database.owner_pool).await.expect("the statements run");
    }

    /// One number, as the owner.
    pub async fn number(&self, query: &str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.database.owner_pool).await.expect("the query answers")
    }

    /// The partition with the most events, and its head.
    pub async fn longest(&self) -> (i32, i64) {
        sqlx::query_as("SELECT partition, last_position FROM partitions ORDER BY last_position DESC LIMIT 1")
            .fetch_one(&self.database.owner_pool)
            .await
            .expect("the heads are read")
    }
}

/// The read model of that name.
pub fn model(name: &str) -> ReadModel {
    registry::find(name).expect("there is such a projection")
}

/// Every read model's name.
pub fn names() -> impl Iterator<Item = &'static str> {
    registry::ALL.iter().map(|model: &&'static dyn AnyProjection| model.name())
}

/// Whoever runs the tests.
pub fn operator() -> RunBy {
    run_by(Some("olga".to_owned()), Some("the balance looked wrong".to_owned()))
}

/// Opens a wallet, grants it credit and uses it.
pub async fn live(log: &PgLog, tenant: TenantId, uses: usize) {
    let at = now();
    decide(log, tenant, WalletCommand::OpenWallet { tenant_id: tenant, opened_at: at }).await;
    let grant = WalletCommand::GrantCredits {
        grant_id: GrantId(Uuid::now_v7()),
        asset: Asset::Usd,
        kind: GrantKind::Trial,
        amount: Units::new(GRANTED),
        priority: 0,
        effective_at: at,
        expires_at: None,
        cost_basis: MicroUsd::ZERO,
        source_ref: "test".to_owned(),
        reason: None,
        at,
    };
    decide(log, tenant, grant).await;
    for _ in 0..uses {
        spend(log, tenant).await;
    }
}

/// One held and settled use: three events.
pub async fn spend(log: &PgLog, tenant: TenantId) {
    let (at, id) = (now(), Uuid::now_v7());
    let hold = WalletCommand::PlaceHold {
        hold_id: HoldId(id),
        asset: Asset::Usd,
        amount: Units::new(COST * 2),
        meter: Meter::Chat,
        caller: None,
        terms: CallTerms::default(),
        usage_id: UsageId(id),
        admitted_at: at,
        expires_at: at.plus_seconds(600),
    };
    decide(log, tenant, hold).await;
    let settle = WalletCommand::SettleHold {
        hold_id: HoldId(id),
        usage: usage(UsageId(id)),
        amount: Units::new(COST),
        at: now(),
    };
    decide(log, tenant, settle).await;
}

fn usage(usage_id: UsageId) -> UsageRecorded {
    UsageRecorded {
        usage_id,
        meter: Meter::Chat,
        api_key_id: None,
        provider: "openai".to_owned(),
        model: "gpt-4".to_owned(),
        prompt_tokens: 10,
        completion_tokens: 20,
        cached_tokens: 0,
        cache_write_tokens: 0,
        cache_write_hour_tokens: 0,
        failed_attempts: Vec::new(),
        reasoning_tokens: 0,
        provider_cost: MicroUsd::new(COST),
        markup: MicroUsd::ZERO,
        total: MicroUsd::new(COST),
        byok: false,
        estimated: false,
        price_book_version: "1".to_owned(),
        latency_ms: 12,
        task_type: "chat".to_owned(),
        outcome: UsageOutcome::Completed,
    }
}

async fn decide(log: &PgLog, tenant: TenantId, command: WalletCommand) {
    let mut plan = Plan::default();
    let wallet = plan.stream::<Wallet>(StreamId::key(tenant));
    let request: Request = Metadata::new(Actor::System("test")).into();
    let done = log
        .execute(&plan, request, |unit| -> Result<(), WalletRefusal> {
            unit.decide(wallet, command.clone())?;
            Ok(())
        })
        .await;
    done.expect("the command is taken");
}

/// This moment.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    Timestamp::from_micros(i64::try_from(since.as_micros()).expect("it is before the year 200000"))
}
