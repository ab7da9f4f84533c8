//! The book at any time: as of an effective date, as known at a recorded date, or both.
//!
//! Every entry has two dates, and what is asked for is the sum of those with `effective < E` and `recorded < R` (both
//! asked for inclusively, which is the same with a microsecond more; either may be absent). Reading every entry would take
//! as long as the book is old, so sums are kept in cells, a stretch of effective dates by a stretch of recorded dates, at
//! widths of a month, a day and ten minutes. Let `e(w)` and `r(w)` be where the stretch of width `w` begins that `E` and
//! `R` lie in, and `Q(w)` the corner of everything effective before `e(w)` and recorded before `r(w)`. Whatever the
//! width, the cells lie wholly within or without `Q(w)` and the narrower corners hold the wider ones:
//!
//! ```text
//! recorded                       Q(month) = its cells of a month
//!   R  ┌───────────────┬┐       Q(day) \ Q(month) = cells of a day with
//!      ├───────────┬───┼┤           e(month) <= effective < e(day),  recorded < r(day)       (the strip on the right)
//! r(d) ├──────┬────┤   ││           or effective < e(month),  r(month) <= recorded < r(day)  (the strip on top)
//! r(m) │ Q(m) │    │   ││       Q(ten minutes) \ Q(day): the same, one width on
//!      └──────┴────┴───┴┘       the rest = single entries of the journal with
//!           e(m) e(d)   E           e(10) <= effective < E,  recorded < R
//!          effective                or effective < e(10),  r(10) <= recorded < R
//! ```
//!
//! The strips do not overlap, so every entry is counted once, and what is read is at most some months, thirty days, 144
//! stretches of ten minutes, and the entries of one. A strip on top is found by its recorded dates. In the strip on the
//! right of single entries, those that are not [`shifted`](crate::journal) were recorded in the same ten minutes and are
//! found by that; the few that are shifted have an index by their effective date.
//!
//! A tenant's wallet goes the same way with one width, the day (`wallet_days`), and single entries of that tenant alone.
//!
//! Sums and entries are two read models, each with its own checkpoints, read in one snapshot: entries beyond what the
//! sums have taken are left out, and when the journal is behind the sums, the reader waits a moment. Grants whose time is
//! over are told by two more, which have to stand where the sums stand.

mod snapshot;
mod wallet;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder, Row};

use calos_domain::book::{AccountClass, NoAccount};
use calos_domain::{Asset, TenantId, Timestamp};

use crate::book::each_class;
use crate::bucket::{Level, finest_end};
use crate::moment::Moment;
use crate::projection::Projection as _;
use crate::trial_balance::TrialBalance;

pub use snapshot::AsOfError;
pub use wallet::{SPENDABLE_MODELS, WalletAt, spendable, wallet};

use snapshot::{Snapshot, before, until};

/// Positions whose entries are read in one piece of text.
const TEXTS_TOGETHER: i64 = 4_096;

/// Which entries count; without a bound all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AsOf {
    /// Those that had taken effect by this moment, itself included.
    pub effective: Option<Timestamp>,
    /// Those that had been recorded by this moment, itself included.
    pub recorded: Option<Timestamp>,
}

/// What was posted to a class of account, in the asset's smallest unit. Its balance is debit minus credit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TrialLine {
    /// The class: tenants, grants and holds left out.
    pub account: String,
    /// In which asset.
    pub asset: Asset,
    /// The sum of the debits.
    pub debit: i64,
    /// The sum of the credits.
    pub credit: i64,
}

/// An account whose balance can be had at any time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccountAt {
    /// A class, over all tenants: `Income:Usage:chat`, `Liabilities:Wallet:Held`.
    Class(AccountClass),
    /// What a tenant can spend: `Liabilities:Wallet:{tenant}:Available`.
    Available(TenantId),
    /// What a tenant's holds keep: `Liabilities:Wallet:{tenant}:Held`.
    Held(TenantId),
    /// What a tenant owes: `Assets:Debt:{tenant}`.
    Debt(TenantId),
}

impl fmt::Display for AccountAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => class.fmt(f),
            Self::Available(tenant) => write!(f, "Liabilities:Wallet:{tenant}:Available"),
            Self::Held(tenant) => write!(f, "Liabilities:Wallet:{tenant}:Held"),
            Self::Debt(tenant) => write!(f, "Assets:Debt:{tenant}"),
        }
    }
}

impl FromStr for AccountAt {
    type Err = NoAccount;

    fn from_str(text: &str) -> Result<Self, NoAccount> {
        let parts: Vec<&str> = text.split(':').collect();
        let tenant = |id: &str| id.parse::<TenantId>().map_err(|_| NoAccount(text.to_owned()));
        match parts.as_slice() {
            ["Liabilities", "Wallet", id, "Available"] => tenant(id).map(Self::Available),
            ["Liabilities", "Wallet", id, "Held"] => tenant(id).map(Self::Held),
            ["Assets", "Debt", id] => tenant(id).map(Self::Debt),
            _ => text.parse().map(Self::Class),
        }
    }
}

/// The trial balance: every class of account that was ever posted to, by name and asset. Debits equal credits in each
/// asset.
///
/// # Errors
/// [`AsOfError`]
pub async fn trial_balance(pool: &PgPool, at: AsOf) -> Result<Vec<TrialLine>, AsOfError> {
    let mut snapshot = Snapshot::open(pool, TrialBalance::NAME, None).await?;
    let lines = lines(&mut snapshot, at, None).await?;
    snapshot.close().await?;
    Ok(lines)
}

/// What stands on an account in an asset: debit minus credit.
///
/// # Errors
/// [`AsOfError`]
pub async fn account(pool: &PgPool, account: &AccountAt, asset: Asset, at: AsOf) -> Result<i64, AsOfError> {
    let of_wallet = async |tenant, figure: fn(&WalletAt) -> i64| {
        let wallet = wallet(pool, tenant, at).await?;
        Ok(wallet.iter().find(|wallet| wallet.asset == asset).map_or(0, figure))
    };
    match account {
        AccountAt::Class(class) => {
            let mut snapshot = Snapshot::open(pool, TrialBalance::NAME, None).await?;
            let lines = lines(&mut snapshot, at, Some((class, asset))).await?;
            snapshot.close().await?;
            // At most one line; the difference of two sums of 64 bits that are not below zero has 64 bits.
            Ok(lines.first().map_or(0, |line| line.debit.saturating_sub(line.credit)))
        }
        // What a tenant can spend or has reserved is owed to it, and so stands in the book as a credit.
        AccountAt::Available(tenant) => of_wallet(*tenant, |wallet| wallet.available.saturating_neg()).await,
        AccountAt::Held(tenant) => of_wallet(*tenant, |wallet| wallet.held.saturating_neg()).await,
        AccountAt::Debt(tenant) => of_wallet(*tenant, |wallet| wallet.debt).await,
    }
}

/// Debits and credits by class and asset.
type Sums = HashMap<(String, Asset), (i128, i128)>;

async fn lines(
    snapshot: &mut Snapshot<'_>,
    at: AsOf,
    only: Option<(&AccountClass, Asset)>,
) -> Result<Vec<TrialLine>, AsOfError> {
    let only = only.map(|(class, asset)| (class.to_string(), asset));
    let (effective, recorded) = (until(at.effective), until(at.recorded));
    let mut sums = Sums::new();
    whole_cells(&mut snapshot.transaction, effective, recorded, only.as_ref(), &mut sums).await?;
    single_entries(snapshot, effective, recorded, &mut sums).await?;
    let mut lines = Vec::with_capacity(sums.len());
    for ((account, asset), (debit, credit)) in sums {
        if only.as_ref().is_some_and(|only| (&account, asset) != (&only.0, only.1)) {
            continue;
        }
        let debit = i64::try_from(debit).map_err(|_| AsOfError::OutOfRange)?;
        let credit = i64::try_from(credit).map_err(|_| AsOfError::OutOfRange)?;
        lines.push(TrialLine { account, asset, debit, credit });
    }
    lines.sort_unstable();
    Ok(lines)
}

/// Adds up the cells of every width.
async fn whole_cells(
    connection: &mut PgConnection,
    effective: Option<Timestamp>,
    recorded: Option<Timestamp>,
    only: Option<&(String, Asset)>,
    sums: &mut Sums,
) -> Result<(), AsOfError> {
    let mut query = QueryBuilder::<Postgres>::new("SELECT account, asset, sum(debit)::text, sum(credit)::text FROM (");
    let mut strips = 0;
    let mut strip = |query: &mut QueryBuilder<'_, Postgres>, level: Level, effective: Stretch, recorded: Stretch| {
        if effective.is_empty() || recorded.is_empty() {
            return;
        }
        let union = if strips > 0 { " UNION ALL " } else { "" };
        strips += 1;
        query.push(format!(
            "{union}SELECT account, asset, debit, credit FROM read.trial_balance WHERE level = '{}'",
            level.as_str()
        ));
        effective.push(query, "effective_from");
        recorded.push(query, "recorded_from");
        if let Some((account, asset)) = only {
            query.push(" AND account = ").push_bind(account.clone());
            query.push(" AND asset = ").push_bind(asset.as_str());
        }
    };
    let start = |level: Level, bound: Option<Timestamp>| bound.map(|bound| level.start(bound));
    let mut wider: Option<Level> = None;
    for level in Level::ALL {
        let (e, r) = (start(level, effective), start(level, recorded));
        match wider {
            None => strip(&mut query, level, Stretch::before(e), Stretch::before(r)),
            Some(wider) => {
                let (wider_e, wider_r) = (start(wider, effective), start(wider, recorded));
                strip(&mut query, level, Stretch::between(wider_e, e), Stretch::before(r));
                strip(&mut query, level, Stretch::before(wider_e), Stretch::between(wider_r, r));
            }
        }
        wider = Some(level);
    }
    query.push(") AS cells GROUP BY account, asset");
    for row in query.build().fetch_all(connection).await? {
        let (asset, debit, credit): (&str, &str, &str) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let asset = asset.parse();
        let asset = asset.map_err(|_| AsOfError::damaged("read.trial_balance holds an unknown asset"))?;
        let number = |text: &str| text.parse::<i128>().map_err(|_| AsOfError::OutOfRange);
        let sum = sums.entry((row.try_get(0)?, asset)).or_default();
        *sum = (sum.0 + number(debit)?, sum.1 + number(credit)?);
    }
    Ok(())
}

/// From a moment up to another, that one left out; without bounds where there are none.
#[derive(Clone, Copy)]
struct Stretch {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    nothing: bool,
}

impl Stretch {
    /// Everything before a moment; everything without one.
    const fn before(to: Option<Timestamp>) -> Self {
        Self { from: None, to, nothing: false }
    }

    /// What lies between two moments; nothing without them, for then all of it lies before already.
    fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> Self {
        Self { from, to, nothing: from.is_none() || to.is_none() || from >= to }
    }

    const fn is_empty(self) -> bool {
        self.nothing
    }

    fn push(self, query: &mut QueryBuilder<'_, Postgres>, column: &str) {
        if let Some(from) = self.from {
            query.push(format!(" AND {column} >= ")).push_bind(Moment(from));
        }
        before(query, column, self.to);
    }
}

/// Adds up the entries of the journal that lie in no whole cell of the finest width.
async fn single_entries(
    snapshot: &mut Snapshot<'_>,
    effective: Option<Timestamp>,
    recorded: Option<Timestamp>,
    sums: &mut Sums,
) -> Result<(), AsOfError> {
    let e = effective.map(|bound| Level::TenMinutes.start(bound));
    let r = recorded.map(|bound| Level::TenMinutes.start(bound));
    let mut strips: Vec<QueryBuilder<'_, Postgres>> = Vec::new();
    // A stretch may hold hundreds of thousands of entries: their texts come together, in pieces that no text is too long for.
    let select = "SELECT asset, string_agg(postings, E'\\n') FROM read.journal WHERE";
    if let Some((from, to)) = e.zip(effective).filter(|(from, to)| from < to) {
        let mut same = QueryBuilder::new(format!("{select} NOT shifted"));
        Stretch::between(Some(from), Some(finest_end(from))).push(&mut same, "recorded_at");
        Stretch::between(Some(from), Some(to)).push(&mut same, "effective_at");
        before(&mut same, "recorded_at", recorded);
        strips.push(same);
        let mut shifted = QueryBuilder::new(format!("{select} shifted"));
        Stretch::between(Some(from), Some(to)).push(&mut shifted, "effective_at");
        before(&mut shifted, "recorded_at", recorded);
        strips.push(shifted);
    }
    let top = Stretch::between(r, recorded);
    if !top.is_empty() {
        let mut query = QueryBuilder::new(format!("{select} true"));
        top.push(&mut query, "recorded_at");
        before(&mut query, "effective_at", e);
        strips.push(query);
    }
    for mut query in strips {
        snapshot.only_taken(&mut query);
        query.push(" GROUP BY asset, partition, position / ").push(TEXTS_TOGETHER);
        // One piece of text at a time: a stretch has as many entries as there was traffic.
        let mut rows = query.build().fetch(&mut *snapshot.transaction);
        while let Some(row) = rows.try_next().await? {
            add_entries(&row, sums)?;
        }
    }
    Ok(())
}

/// Adds up the entries of one piece of text.
fn add_entries(row: &PgRow, sums: &mut Sums) -> Result<(), AsOfError> {
    let (asset, postings): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
    let mut found: HashMap<&str, (i128, i128)> = HashMap::new();
    let read = asset.parse::<Asset>().ok().and_then(|asset| {
        each_class(postings, |class, amount| {
            let sum = found.entry(class).or_default();
            let amount = i128::from(amount);
            *sum = (sum.0 + amount.max(0), sum.1 - amount.min(0));
        })?;
        Some(asset)
    });
    let asset = read.ok_or_else(|| AsOfError::damaged("read.journal holds an entry that cannot be read"))?;
    for (class, (debit, credit)) in found {
        if class.parse::<AccountClass>().is_err() {
            return Err(AsOfError::damaged("read.journal holds an account that nobody knows"));
        }
        let sum = sums.entry((class.to_owned(), asset)).or_default();
        *sum = (sum.0 + debit, sum.1 + credit);
    }
    Ok(())
}
