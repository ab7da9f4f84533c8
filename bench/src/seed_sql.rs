//! Baseline: the credit deduction as the operations manual writes it (its section 3.5), in one transaction.
//!
//! It is driven as well as it can be: statements are prepared once per connection, connections are shared by all
//! callers first come first served, and the number of connections is the best of several. It leaves out what the manual
//! also asks for and would cost more: prompt and answer are empty, there is no foreign key and no index on the log.

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sqlx::{Connection, Executor, PgConnection};
use uuid::Uuid;

use crate::arena::{Arena, Fresh};
use crate::drive::{Caller, Window, drive};
use crate::error::BenchError;
use crate::lanes::Lanes;
use crate::stats::Run;
use crate::workload::Spread;

const COST_CENTS: i64 = 4;
const OPENING_CENTS: i64 = 1_000_000_000_000;

const TABLES: &str = "
    CREATE TABLE user_credits (
        user_id              uuid PRIMARY KEY,
        balance_cents        bigint NOT NULL DEFAULT 0,
        lifetime_spent_cents bigint NOT NULL DEFAULT 0,
        last_spent_at        timestamptz
    );
    CREATE TABLE usage_log (
        id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        user_id      uuid NOT NULL,
        provider     text NOT NULL,
        model        text NOT NULL,
        prompt       text,
        response     text,
        tokens_used  integer NOT NULL,
        cost_cents   bigint NOT NULL,
        latency_ms   integer,
        task_type    text,
        created_at   timestamptz NOT NULL
    );";

const DEDUCT: &str = "UPDATE user_credits
    SET balance_cents = balance_cents - $1, lifetime_spent_cents = lifetime_spent_cents + $1, last_spent_at = NOW()
    WHERE user_id = $2";

const LOG_USAGE: &str = "INSERT INTO usage_log
    (user_id, provider, model, prompt, response, tokens_used, cost_cents, latency_ms, task_type, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, NOW())";

/// Both in one statement, which the manual does not do: one round trip instead of four.
const DEDUCT_AND_LOG: &str = "WITH deducted AS (
        UPDATE user_credits
        SET balance_cents = balance_cents - $7, lifetime_spent_cents = lifetime_spent_cents + $7, last_spent_at = NOW()
        WHERE user_id = $1 RETURNING user_id)
    INSERT INTO usage_log
    (user_id, provider, model, prompt, response, tokens_used, cost_cents, latency_ms, task_type, created_at)
    SELECT user_id, $2, $3, $4, $5, $6, $7, $8, $9, NOW() FROM deducted";

/// How the two changes travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// `BEGIN`, `UPDATE`, `INSERT`, `COMMIT`: the manual's statements in one transaction.
    AsWritten,
    /// One statement that does both.
    OneStatement,
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct SeedRun {
    /// One row or all of them.
    pub spread: Spread,
    /// Concurrent callers.
    pub callers: usize,
    /// Connections they share.
    pub connections: u32,
    /// How the changes travel.
    pub form: Form,
    /// How long.
    pub window: Window,
}

struct SeedCaller {
    lanes: Arc<Lanes>,
    users: Arc<Vec<Uuid>>,
    spread: Spread,
    form: Form,
    random: SmallRng,
}

impl Caller for SeedCaller {
    async fn call(&mut self) -> Result<u32, BenchError> {
        let user = self.users[self.spread.pick(self.users.len(), &mut self.random)];
        let tokens: i32 = self.random.random_range(100..4_000);
        let mut lane = self.lanes.turn().await?;
        let connection = lane.connection()?;
        let log = |statement| {
            sqlx::query::<sqlx::Postgres>(statement)
                .bind(user)
                .bind("openai")
                .bind("gpt-4")
                .bind("")
                .bind("")
                .bind(tokens)
                .bind(COST_CENTS)
                .bind(850_i32)
                .bind("chat")
        };
        match self.form {
            Form::AsWritten => {
                let mut transaction = connection.begin().await?;
                sqlx::query(DEDUCT).bind(COST_CENTS).bind(user).execute(&mut *transaction).await?;
                log(LOG_USAGE).execute(&mut *transaction).await?;
                transaction.commit().await?;
            }
            Form::OneStatement => {
                log(DEDUCT_AND_LOG).execute(connection).await?;
            }
        }
        Ok(0)
    }
}

/// The seeds' two tables in a database of their own.
pub struct SeedTables {
    fresh: Fresh,
    owner: PgConnection,
    users: Arc<Vec<Uuid>>,
    answered: u64,
}

impl SeedTables {
    /// Creates them with `users` balances.
    pub async fn create(arena: &Arena, users: usize) -> Result<Self, BenchError> {
        let fresh = arena.empty("seed").await?;
        let mut owner = fresh.connect().await?;
        owner.execute(TABLES).await?;
        let users: Arc<Vec<Uuid>> = Arc::new((0..users.max(1)).map(|_| Uuid::new_v4()).collect());
        sqlx::query("INSERT INTO user_credits (user_id, balance_cents) SELECT id, $2 FROM unnest($1::uuid[]) AS id")
            .bind(users.as_slice())
            .bind(OPENING_CENTS)
            .execute(&mut owner)
            .await?;
        owner.execute("VACUUM ANALYZE user_credits").await?;
        Ok(Self { fresh, owner, users, answered: 0 })
    }

    /// Lets callers deduct for a while.
    pub async fn run(&mut self, arena: &Arena, what: SeedRun) -> Result<Run, BenchError> {
        let lanes = Arc::new(Lanes::open(&self.fresh.owner, what.connections).await?);
        let callers = (0..what.callers)
            .map(|caller| SeedCaller {
                lanes: Arc::clone(&lanes),
                users: Arc::clone(&self.users),
                spread: what.spread,
                form: what.form,
                random: SmallRng::seed_from_u64(u64::try_from(caller).unwrap_or_default()),
            })
            .collect();
        arena.settle().await?;
        let driven = drive(callers, what.window, &arena.meter).await?;
        lanes.close().await?;
        self.answered += driven.answered;
        Ok(driven.run)
    }

    /// Asks the database whether every acknowledged deduction happened, and drops it.
    pub async fn finish(mut self, arena: &Arena) -> Result<(), BenchError> {
        let (logged, spent): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM usage_log), (SELECT sum(lifetime_spent_cents)::bigint FROM user_credits)",
        )
        .fetch_one(&mut self.owner)
        .await?;
        let expected = i64::try_from(self.answered).unwrap_or(i64::MAX);
        if logged != expected || spent != expected.saturating_mul(COST_CENTS) {
            return Err(BenchError::Check(format!(
                "the seeds' SQL answered {expected} deductions, but {logged} are logged and {spent} cents spent"
            )));
        }
        self.owner.close().await?;
        arena.drop_database(self.fresh).await
    }
}
