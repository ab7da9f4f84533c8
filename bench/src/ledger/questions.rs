//! What finance asks of the book at any time, and how long the answers take.

use std::time::Instant;

use calos_adapters::postgres::Timestamptz;
use calos_domain::{Asset, TenantId, Timestamp};
use calos_projections::as_of::{AccountAt, AsOf, AsOfError, TrialLine, account, trial_balance, wallet};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sqlx::PgPool;

use super::history::{BURST_SECONDS, HISTORY_SECONDS, Shape};
use super::report::Answered;
use crate::error::BenchError;
use crate::progress::Progress;
use crate::stats::Latencies;

/// Where both dates of a question lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Anywhere in the history; some questions have one date or none.
    AnyTime,
    /// Within the ten minutes of the burst.
    InBurst,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// The trial balance.
    TrialBalance,
    /// One class of account.
    Class,
    /// The wallet that makes a tenth of all calls.
    BusyWallet,
    /// Any other wallet.
    AnyWallet,
}

const ASKED: [(&str, &str, Question, When); 7] = [
    ("trial_balance", "trial balance", Question::TrialBalance, When::AnyTime),
    ("class", "one class of account", Question::Class, When::AnyTime),
    ("busy_wallet", "the busiest wallet", Question::BusyWallet, When::AnyTime),
    ("any_wallet", "a random wallet", Question::AnyWallet, When::AnyTime),
    ("trial_balance_burst", "trial balance, within the burst", Question::TrialBalance, When::InBurst),
    ("class_burst", "one class of account, within the burst", Question::Class, When::InBurst),
    ("busy_wallet_burst", "the busiest wallet, within the burst", Question::BusyWallet, When::InBurst),
];

/// Asks everything `count` times, one question after the other; those within the burst a fourth as often.
///
/// # Errors
/// An answer did not come, or does not balance.
pub async fn ask(pool: &PgPool, shape: &Shape, count: u32, progress: &Progress) -> Result<Vec<Answered>, BenchError> {
    let mut asker = Asker {
        pool,
        shape,
        tenants: shape.tenant_ids(),
        classes: classes(pool).await?,
        random: SmallRng::seed_from_u64(13),
    };
    let mut answered = Vec::with_capacity(ASKED.len());
    for (name, what, question, when) in ASKED {
        let times = match when {
            When::AnyTime => count,
            When::InBurst => count.div_ceil(4),
        };
        let mut latencies = Latencies::new()?;
        for number in 0..times {
            let at = asker.at(when, number);
            let micros = asker.ask(question, at).await?;
            latencies.record(micros);
        }
        let quantile = |share| latencies.quantile_micros(share).unwrap_or_default();
        let asked = Answered {
            name,
            what,
            asked: times,
            p50_micros: quantile(0.5),
            p99_micros: quantile(0.99),
            slowest_micros: quantile(1.0),
        };
        progress.say(&format!("{what}: p50 {:.1} ms, p99 {:.1} ms", asked.p50_micros / 1e3, asked.p99_micros / 1e3));
        answered.push(asked);
    }
    Ok(answered)
}

/// Holds trial balances against the entries themselves, added up by the database one by one: one as of any time, one within
/// the burst.
///
/// # Errors
/// They differ.
pub async fn check(pool: &PgPool, shape: &Shape) -> Result<(), BenchError> {
    let mut asker =
        Asker { pool, shape, tenants: Vec::new(), classes: Vec::new(), random: SmallRng::seed_from_u64(17) };
    for when in [When::AnyTime, When::InBurst] {
        let at = asker.at(when, u32::MAX);
        let lines = trial_balance(pool, at).await.map_err(failed)?;
        let found: Vec<_> =
            lines.into_iter().map(|l| (l.account, l.asset.as_str().to_owned(), l.debit, l.credit)).collect();
        let mut expected: Vec<(String, String, i64, i64)> = sqlx::query_as(ADDED_UP)
            .bind(at.effective.map(Timestamptz))
            .bind(at.recorded.map(Timestamptz))
            .fetch_all(pool)
            .await?;
        expected.sort_unstable();
        if found.len() != expected.len() || expected.iter().any(|line| !found.contains(line)) {
            return Err(BenchError::Check(format!("the trial balance is {found:?} instead of {expected:?}")));
        }
    }
    Ok(())
}

/// Every posting by class and asset, of what had taken effect and was recorded by then.
const ADDED_UP: &str = r"
SELECT account, asset, sum(greatest(amount, 0))::int8, sum(greatest(-amount, 0))::int8 FROM (
    SELECT asset, split_part(line, ' ', 2)::int8 AS amount,
        CASE WHEN line LIKE 'Liabilities:Wallet:%:Held:%' THEN 'Liabilities:Wallet:Held'
             WHEN line LIKE 'Liabilities:Wallet:%' THEN 'Liabilities:Wallet:Available'
             WHEN line LIKE 'Assets:Debt:%' THEN 'Assets:Debt'
             ELSE split_part(line, ' ', 1) END AS account
    FROM read.journal, unnest(string_to_array(postings, E'\n')) AS line
    WHERE effective_at <= $1 AND recorded_at <= $2) AS postings
GROUP BY account, asset";

#[expect(clippy::needless_pass_by_value, reason = "it is used as `map_err(failed)`")]
fn failed(error: AsOfError) -> BenchError {
    BenchError::Check(format!("there is no answer as of a moment: {error}"))
}

/// Every class that was posted to.
async fn classes(pool: &PgPool) -> Result<Vec<(AccountAt, Asset)>, BenchError> {
    let lines = trial_balance(pool, AsOf::default()).await.map_err(failed)?;
    balanced(&lines)?;
    let class = |line: &TrialLine| Some((line.account.parse().ok()?, line.asset));
    let classes: Vec<_> = lines.iter().filter_map(class).collect();
    if classes.is_empty() { Err(BenchError::Check("the book is empty".to_owned())) } else { Ok(classes) }
}

fn balanced(lines: &[TrialLine]) -> Result<(), BenchError> {
    for asset in Asset::ALL {
        let of_asset = lines.iter().filter(|line| line.asset == asset);
        let sum: i128 = of_asset.map(|line| i128::from(line.debit) - i128::from(line.credit)).sum();
        if sum != 0 {
            return Err(BenchError::Check(format!("a trial balance in {asset} is off by {sum}")));
        }
    }
    Ok(())
}

struct Asker<'a> {
    pool: &'a PgPool,
    shape: &'a Shape,
    tenants: Vec<TenantId>,
    classes: Vec<(AccountAt, Asset)>,
    random: SmallRng,
}

impl Asker<'_> {
    fn at(&mut self, when: When, number: u32) -> AsOf {
        let (from, seconds) = match when {
            When::AnyTime => (self.shape.begin, HISTORY_SECONDS),
            When::InBurst => (self.shape.burst(), BURST_SECONDS),
        };
        let mut moment = || {
            let micros = self.random.random_range(0..seconds * calos_domain::time::MICROS_PER_SECOND);
            Some(Timestamp::from_micros(from.micros() + micros))
        };
        // One in eight has no date at all, two have one of them.
        match number % 8 {
            0 => AsOf { effective: moment(), recorded: None },
            1 => AsOf { effective: None, recorded: moment() },
            2 if when == When::AnyTime => AsOf::default(),
            _ => AsOf { effective: moment(), recorded: moment() },
        }
    }

    /// Microseconds until the answer.
    async fn ask(&mut self, question: Question, at: AsOf) -> Result<u64, BenchError> {
        let tenant = match question {
            Question::BusyWallet => 0,
            Question::TrialBalance | Question::Class | Question::AnyWallet => {
                self.random.random_range(self.tenants.len().min(1)..self.tenants.len().max(2)) % self.tenants.len()
            }
        };
        let (class, asset) = self.classes[self.random.random_range(0..self.classes.len())].clone();
        let began = Instant::now();
        match question {
            Question::TrialBalance => {
                let lines = trial_balance(self.pool, at).await.map_err(failed)?;
                let elapsed = micros(began);
                balanced(&lines)?;
                return Ok(elapsed);
            }
            Question::Class => drop(account(self.pool, &class, asset, at).await.map_err(failed)?),
            Question::BusyWallet | Question::AnyWallet => {
                drop(wallet(self.pool, self.tenants[tenant], at).await.map_err(failed)?);
            }
        }
        Ok(micros(began))
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
