//! A tenant's wallet at any time.

use std::collections::HashMap;

use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder, Row};

use calos_domain::book::Account;
use calos_domain::{Asset, GrantId, TenantId, Timestamp};

use crate::account_balances;
use crate::book::read_postings;
use crate::bucket::{Level, finest_end};
use crate::moment::Moment;
use crate::open_grants;
use crate::projection::Projection as _;
use crate::wallet_days::WalletDays;

use super::snapshot::{AsOfError, Snapshot, before, until};
use super::{AsOf, Stretch};

/// What a wallet held in one asset, in its smallest unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalletAt {
    /// The asset.
    pub asset: Asset,
    /// What could be held or spent, as recorded: a grant whose time was over counts until that is recorded, whose
    /// effective date is then the grant's own. See [`lapsed`].
    pub available: i64,
    /// What open holds kept.
    pub held: i64,
    /// What was owed.
    pub debt: i64,
}

/// A tenant's wallet, in every asset; all zero when it was never moved.
///
/// # Errors
/// [`AsOfError`]
pub async fn wallet(pool: &PgPool, tenant: TenantId, at: AsOf) -> Result<Vec<WalletAt>, AsOfError> {
    let mut snapshot = Snapshot::open(pool, WalletDays::NAME).await?;
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
    snapshot.close().await?;
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

/// What [`wallet`] still counts as available of grants whose time was over at `at.effective` without that being recorded
/// by `at.recorded`: who asks by effective time takes it off. Assets with nothing to take off are left out, and so is
/// everything when no effective date is asked for.
///
/// Such grants are few and soon recorded, so what they held then is found by what they hold now and the tenant's entries
/// since.
///
/// # Errors
/// [`AsOfError`]
pub async fn lapsed(pool: &PgPool, tenant: TenantId, at: AsOf) -> Result<Vec<(Asset, i64)>, AsOfError> {
    let Some(effective) = at.effective else { return Ok(Vec::new()) };
    let mut snapshot = Snapshot::open(pool, account_balances::AccountBalances::NAME).await?;
    let mut grants = open_grants::lapsed(&mut *snapshot.transaction, tenant, effective).await?;
    if let Some(recorded) = at.recorded {
        grants.extend(recorded_later(&mut snapshot.transaction, tenant, effective, recorded).await?);
        grants.sort_unstable();
        grants.dedup();
    }
    let mut left: HashMap<Asset, i64> = HashMap::new();
    if !grants.is_empty() {
        let now = account_balances::of_grants(&mut *snapshot.transaction, tenant, &grants).await?;
        let since = moved_since(&mut snapshot, tenant, effective, at.recorded, &grants).await?;
        for (grant, asset, available) in now {
            let moved = since.get(&(grant, asset)).copied().unwrap_or_default();
            let then = i64::try_from(i128::from(available) - moved).map_err(|_| AsOfError::OutOfRange)?;
            let sum = left.entry(asset).or_default();
            *sum = sum.checked_add(then).ok_or(AsOfError::OutOfRange)?;
        }
    }
    snapshot.close().await?;
    Ok(Asset::ALL
        .into_iter()
        .filter_map(|asset| Some((asset, *left.get(&asset).filter(|left| **left != 0)?)))
        .collect())
}

/// Grants whose end counts from `effective` or before and was recorded after `recorded`.
async fn recorded_later(
    connection: &mut PgConnection,
    tenant: TenantId,
    effective: Timestamp,
    recorded: Timestamp,
) -> Result<Vec<GrantId>, AsOfError> {
    // Nothing was left on a grant that is in no entry.
    let rows = sqlx::query(
        "SELECT postings FROM read.journal WHERE tenant_id = $1 AND type = 'grant_expired' AND recorded_at > $2
             AND effective_at <= $3",
    )
    .bind(tenant.0)
    .bind(Moment(recorded))
    .bind(Moment(effective))
    .fetch_all(connection)
    .await?;
    let mut grants = Vec::new();
    for row in &rows {
        let postings = read_postings(tenant, row.try_get(0)?);
        let postings = postings.ok_or_else(|| AsOfError::damaged("read.journal holds an entry that cannot be read"))?;
        grants.extend(postings.iter().filter_map(|posting| available_of(tenant, &posting.account)));
    }
    Ok(grants)
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

/// How far the grants moved in entries that count later than `effective` or were recorded later than `recorded`.
async fn moved_since(
    snapshot: &mut Snapshot<'_>,
    tenant: TenantId,
    effective: Timestamp,
    recorded: Option<Timestamp>,
    grants: &[GrantId],
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
    snapshot.only_taken(&mut query);
    let mut moved: HashMap<(GrantId, Asset), i128> = HashMap::new();
    for row in query.build().fetch_all(&mut *snapshot.transaction).await? {
        let (asset, postings): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let asset = Asset::ALL.into_iter().find(|known| known.as_str() == asset);
        let (Some(asset), Some(postings)) = (asset, read_postings(tenant, postings)) else {
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
