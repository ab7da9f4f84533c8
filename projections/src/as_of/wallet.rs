//! A tenant's wallet at any time.

use std::collections::{HashMap, HashSet};

use futures_util::TryStreamExt;
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder, Row};

use calos_domain::book::Account;
use calos_domain::{Asset, GrantId, TenantId, Timestamp};

use crate::account_balances::{self, AccountBalances};
use crate::book::read_postings;
use crate::bucket::{Level, finest_end};
use crate::journal::Journal;
use crate::moment::Moment;
use crate::open_grants::{self, OpenGrants};
use crate::projection::Projection as _;
use crate::wallet_days::WalletDays;

use super::snapshot::{AsOfError, Beside, Snapshot, before, until};
use super::{AsOf, Stretch};

/// What [`spendable`] reads: whoever has to have seen something in it waits for all of them.
pub const SPENDABLE_MODELS: [&str; 4] = [WalletDays::NAME, Journal::NAME, AccountBalances::NAME, OpenGrants::NAME];

/// Beside the sums of a wallet: what tells of grants whose time is over.
const OF_GRANTS: &[&str] = &[AccountBalances::NAME, OpenGrants::NAME];

/// The database looks for grants by name, one after another in each entry, as long as they are no more than this.
const GRANTS_NAMED_MAX_COUNT: usize = 64;

/// What a wallet held in one asset, in its smallest unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalletAt {
    /// The asset.
    pub asset: Asset,
    /// What could be held or spent. A grant whose time was over counts in [`wallet`] until that is recorded, and in
    /// [`spendable`] it does not. Once it is recorded, what was free at its end counts as gone from the grant's own date,
    /// what came back later from when it came.
    pub available: i64,
    /// What open holds kept.
    pub held: i64,
    /// What was owed.
    pub debt: i64,
}

/// A tenant's wallet as recorded, in every asset; all zero when it was never moved.
///
/// # Errors
/// [`AsOfError`]
pub async fn wallet(pool: &PgPool, tenant: TenantId, at: AsOf) -> Result<Vec<WalletAt>, AsOfError> {
    let mut snapshot = Snapshot::open(pool, WalletDays::NAME, None).await?;
    let wallet = wallet_in(&mut snapshot, tenant, at).await?;
    snapshot.close().await?;
    Ok(wallet)
}

/// A tenant's wallet as the wallet itself would have told it: [`wallet`], less what was left then of grants whose time was
/// over at `at.effective` without that being recorded by `at.recorded`. Without an effective date it is the same.
///
/// # Errors
/// [`AsOfError`]
pub async fn spendable(pool: &PgPool, tenant: TenantId, at: AsOf) -> Result<Vec<WalletAt>, AsOfError> {
    let Some(effective) = at.effective else { return wallet(pool, tenant, at).await };
    // One snapshot: a grant whose end comes to be recorded in between would be taken off twice, or not at all.
    let beside = Beside { models: OF_GRANTS, tenant };
    let mut snapshot = Snapshot::open(pool, WalletDays::NAME, Some(beside)).await?;
    let mut wallet = wallet_in(&mut snapshot, tenant, at).await?;
    let lapsed = lapsed(&mut snapshot, tenant, effective, at.recorded).await?;
    snapshot.close().await?;
    for WalletAt { asset, available, .. } in &mut wallet {
        let over = lapsed.get(asset).copied().unwrap_or_default();
        *available = available.checked_sub(over).ok_or(AsOfError::OutOfRange)?;
    }
    Ok(wallet)
}

async fn wallet_in(snapshot: &mut Snapshot<'_>, tenant: TenantId, at: AsOf) -> Result<Vec<WalletAt>, AsOfError> {
    let (effective, recorded) = (until(at.effective), until(at.recorded));
    let (e, r) = (effective.map(|bound| Level::Day.start(bound)), recorded.map(|bound| Level::Day.start(bound)));
    let mut query = QueryBuilder::<Postgres>::new(
        "SELECT asset, sum(available)::int8, sum(held)::int8, sum(debt)::int8 FROM (
         SELECT asset, available, held, debt FROM read.wallet_days WHERE tenant_id = ",
    );
    query.push_bind(tenant.0);
    before(&mut query, "effective_day", e);
    before(&mut query, "recorded_day", r);
    let entries = " UNION ALL SELECT asset, available, held, debt FROM read.journal WHERE tenant_id = ";
    if let Some((from, to)) = e.zip(effective).filter(|(from, to)| from < to) {
        // What is not shifted was recorded in the ten minutes it counts from.
        query.push(entries).push_bind(tenant.0).push(" AND NOT shifted");
        Stretch::between(Some(from), Some(last_end(to))).push(&mut query, "recorded_at");
        Stretch::between(Some(from), Some(to)).push(&mut query, "effective_at");
        before(&mut query, "recorded_at", recorded);
        snapshot.only_taken(&mut query);
        query.push(entries).push_bind(tenant.0).push(" AND shifted");
        Stretch::between(Some(from), Some(to)).push(&mut query, "effective_at");
        before(&mut query, "recorded_at", recorded);
        snapshot.only_taken(&mut query);
    }
    let top = Stretch::between(r, recorded);
    if !top.is_empty() {
        query.push(entries).push_bind(tenant.0);
        top.push(&mut query, "recorded_at");
        before(&mut query, "effective_at", e);
        snapshot.only_taken(&mut query);
    }
    query.push(") AS moves GROUP BY asset");
    let rows = query.build().fetch_all(&mut *snapshot.transaction).await?;
    let mut all = Vec::with_capacity(Asset::ALL.len());
    for asset in Asset::ALL {
        let mut at = WalletAt { asset, available: 0, held: 0, debt: 0 };
        for row in &rows {
            if row.try_get::<&str, _>(0)? == asset.as_str() {
                (at.available, at.held, at.debt) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            }
        }
        all.push(at);
    }
    Ok(all)
}

/// Where the ten minutes end that hold the last moment before `bound`.
fn last_end(bound: Timestamp) -> Timestamp {
    finest_end(Timestamp::from_micros(bound.micros().saturating_sub(1)))
}

/// What [`wallet`] still counts as available of grants whose time was over at `effective` without that being recorded by
/// `recorded`.
///
/// Such grants are few and soon recorded, so what they held then is found by what they hold now and the tenant's entries
/// since.
async fn lapsed(
    snapshot: &mut Snapshot<'_>,
    tenant: TenantId,
    effective: Timestamp,
    recorded: Option<Timestamp>,
) -> Result<HashMap<Asset, i64>, AsOfError> {
    let open = open_grants::lapsed(&mut *snapshot.transaction, tenant, effective).await?;
    let mut grants: HashSet<GrantId> = open.into_iter().collect();
    if let Some(recorded) = recorded {
        recorded_later(&mut snapshot.transaction, tenant, effective, recorded, &mut grants).await?;
    }
    let mut left: HashMap<Asset, i64> = HashMap::new();
    if grants.is_empty() {
        return Ok(left);
    }
    let names: Vec<GrantId> = grants.iter().copied().collect();
    let now = account_balances::of_grants(&mut *snapshot.transaction, tenant, &names).await?;
    let since = moved_since(snapshot, tenant, effective, recorded, &grants).await?;
    for (grant, asset, available) in now {
        let moved = since.get(&(grant, asset)).copied().unwrap_or_default();
        let then = i64::try_from(i128::from(available) - moved).map_err(|_| AsOfError::OutOfRange)?;
        let sum = left.entry(asset).or_default();
        *sum = sum.checked_add(then).ok_or(AsOfError::OutOfRange)?;
    }
    Ok(left)
}

/// Adds the grants whose end counts from `effective` or before and was recorded after `recorded`.
async fn recorded_later(
    connection: &mut PgConnection,
    tenant: TenantId,
    effective: Timestamp,
    recorded: Timestamp,
    grants: &mut HashSet<GrantId>,
) -> Result<(), AsOfError> {
    // Nothing was left on a grant that is in no entry.
    let mut rows = sqlx::query(
        "SELECT postings FROM read.journal WHERE tenant_id = $1 AND type = 'grant_expired' AND recorded_at > $2
             AND effective_at <= $3",
    )
    .bind(tenant.0)
    .bind(Moment(recorded))
    .bind(Moment(effective))
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let postings = read_postings(tenant, row.try_get(0)?);
        let postings = postings.ok_or_else(|| AsOfError::damaged("read.journal holds an entry that cannot be read"))?;
        grants.extend(postings.iter().filter_map(|posting| available_of(tenant, &posting.account)));
    }
    Ok(())
}

fn available_of(tenant: TenantId, account: &Account) -> Option<GrantId> {
    match account {
        Account::Available(owner, grant) if *owner == tenant => Some(*grant),
        Account::Available(..)
        | Account::Unallocated(_)
        | Account::Held(..)
        | Account::Issued(_)
        | Account::Usage(_)
        | Account::Breakage
        | Account::Voided
        | Account::Adjustment(_)
        | Account::Debt(_)
        | Account::StripeBalance
        | Account::StripeDisputed
        | Account::Bank
        | Account::OutOfBand
        | Account::Deferred(_)
        | Account::StripeFees
        | Account::DisputeLoss
        | Account::Provider(_) => None,
    }
}

/// How far the grants moved in entries that count later than `effective` or were recorded later than `recorded`: read one
/// by one, for a tenant's entries may be any number.
async fn moved_since(
    snapshot: &mut Snapshot<'_>,
    tenant: TenantId,
    effective: Timestamp,
    recorded: Option<Timestamp>,
    grants: &HashSet<GrantId>,
) -> Result<HashMap<(GrantId, Asset), i128>, AsOfError> {
    let mut query = QueryBuilder::<Postgres>::new("SELECT asset, postings FROM read.journal WHERE tenant_id = ");
    query.push_bind(tenant.0).push(" AND (effective_at > ").push_bind(Moment(effective));
    if let Some(recorded) = recorded {
        query.push(" OR recorded_at > ").push_bind(Moment(recorded));
    }
    query.push(")");
    // Nothing that counts later was recorded earlier by more than what was granted in advance, and a grant in advance is
    // not one whose time is over: recorded dates alone bound what is read.
    let from = recorded.map_or(effective, |recorded| recorded.min(effective));
    query.push(" AND (recorded_at >= ").push_bind(Moment(from)).push(" OR shifted)");
    if grants.len() <= GRANTS_NAMED_MAX_COUNT {
        let names: Vec<String> = grants.iter().map(GrantId::to_string).collect();
        query.push(" AND EXISTS (SELECT FROM unnest(").push_bind(names);
        query.push("::text[]) AS g (name) WHERE strpos(postings, g.name) > 0)");
    }
    snapshot.only_taken(&mut query);
    let mut moved: HashMap<(GrantId, Asset), i128> = HashMap::new();
    let mut rows = query.build().fetch(&mut *snapshot.transaction);
    while let Some(row) = rows.try_next().await? {
        let (asset, postings): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let (Ok(asset), Some(postings)) = (asset.parse(), read_postings(tenant, postings)) else {
            return Err(AsOfError::damaged("read.journal holds an entry that cannot be read"));
        };
        for posting in postings {
            let Some(grant) = available_of(tenant, &posting.account) else { continue };
            if grants.contains(&grant) {
                *moved.entry((grant, asset)).or_default() -= posting.amount;
            }
        }
    }
    Ok(moved)
}
