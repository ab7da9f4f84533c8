//! `balance`: what a wallet held, by the moment things took effect or by the moment they were known.

use futures_util::TryStreamExt;
use serde::Serialize;
use sqlx::PgPool;

use calos_adapters::postgres::Timestamptz;
use calos_domain::book;
use calos_domain::upcast::{self, Label};
use calos_domain::wallet::{Wallet, WalletEvent};
use calos_domain::{Asset, Decider, StreamId, TenantId, Timestamp, Units};

use crate::error::ToolError;
use crate::time_text::show;

/// Which events count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BalanceAt {
    /// Only what had taken effect by then: grants from their effective date, expiries from the date itself.
    pub as_of: Option<Timestamp>,
    /// Only what had been recorded by then.
    pub as_known_at: Option<Timestamp>,
}

/// What a wallet held.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Balance {
    /// Whose wallet.
    pub tenant_id: TenantId,
    /// By effective time, if asked for.
    pub as_of: Option<String>,
    /// By recorded time, if asked for.
    pub as_known_at: Option<String>,
    /// Events folded.
    pub events: u64,
    /// Whether spending was stopped.
    pub frozen: bool,
    /// Each asset asked for.
    pub assets: Vec<AssetBalance>,
}

/// One asset of a wallet, in its smallest unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AssetBalance {
    /// The asset.
    pub asset: Asset,
    /// Everything granted by then.
    pub granted: Units,
    /// Free to be spent.
    pub available: Units,
    /// Kept by open holds.
    pub held: Units,
    /// Owed.
    pub debt: Units,
}

/// Folds a wallet from the log.
///
/// # Errors
/// [`ToolError::Usage`] when there is no such wallet, [`ToolError::Corrupt`] when an event cannot be read.
pub async fn balance(
    pool: &PgPool,
    tenant: TenantId,
    at: BalanceAt,
    asset: Option<Asset>,
) -> Result<Balance, ToolError> {
    let id = StreamId::key(tenant);
    let mut rows = sqlx::query_as::<_, (i64, String, String, String, Timestamptz)>(
        "SELECT sequence, event_type, event_version, payload::text, recorded_at FROM events \
         WHERE aggregate_type = $1 AND aggregate_id = $2 ORDER BY sequence",
    )
    .bind(Wallet::KIND)
    .bind(id.as_str())
    .fetch(pool);
    let mut fold = WalletFold::new(at);
    let mut found = false;
    while let Some((sequence, event_type, event_version, payload, recorded_at)) = rows.try_next().await? {
        found = true;
        let label = Label { aggregate_type: Wallet::KIND, event_type: &event_type, event_version: &event_version };
        let event: WalletEvent = upcast::decode(label, &payload)
            .map_err(|error| ToolError::Corrupt(format!("wallet {tenant}, event {sequence}: {error}")))?;
        fold.take(&event, recorded_at.0);
    }
    if !found {
        return Err(ToolError::Usage(format!("there is no wallet {tenant}")));
    }
    Ok(fold.balance(tenant, asset))
}

/// The events that count, folded by the domain's own rules.
struct WalletFold {
    at: BalanceAt,
    wallet: Wallet,
    events: u64,
}

impl WalletFold {
    fn new(at: BalanceAt) -> Self {
        Self { at, wallet: Wallet::default(), events: 0 }
    }

    fn take(&mut self, event: &WalletEvent, recorded_at: Timestamp) {
        // As in the book, but that a wallet is there from the moment it says.
        let effective_at = match event {
            WalletEvent::WalletOpened(opened) => opened.opened_at,
            event => book::effective_at(event, recorded_at),
        };
        let known = self.at.as_known_at.is_none_or(|at| recorded_at <= at);
        let effective = self.at.as_of.is_none_or(|at| effective_at <= at);
        if known && effective {
            self.wallet.evolve(event);
            self.events += 1;
        }
    }

    fn balance(&self, tenant_id: TenantId, asset: Option<Asset>) -> Balance {
        let asked = Asset::ALL.into_iter().filter(|known| asset.is_none_or(|asset| asset == *known));
        let figures = |asset: Asset| {
            let purse = self.wallet.purse(asset);
            let recorded = purse.available;
            // By effective time a grant is gone when its time is over, whether or not anybody had noticed by then.
            let available = self.at.as_of.map_or(recorded, |at| self.wallet.available_at(asset, at));
            AssetBalance { asset, granted: purse.granted, available, held: purse.held, debt: purse.debt }
        };
        Balance {
            tenant_id,
            as_of: self.at.as_of.map(show),
            as_known_at: self.at.as_known_at.map(show),
            events: self.events,
            frozen: self.wallet.is_frozen(),
            assets: asked.map(figures).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use calos_domain::wallet::{Allocation, Meter, ReleaseCause};
    use calos_domain::wallet::{CreditsGranted, GrantExpired, GrantKind, HoldPlaced, HoldReleased};
    use calos_domain::{GrantId, HoldId, MicroUsd, UsageId};
    use uuid::Uuid;

    fn granted(id: u128, amount: i64, effective_at: i64, expires_at: Option<i64>) -> WalletEvent {
        WalletEvent::CreditsGranted(CreditsGranted {
            grant_id: GrantId(Uuid::from_u128(id)),
            asset: Asset::Usd,
            kind: GrantKind::Goodwill,
            amount: Units::new(amount),
            priority: 0,
            effective_at: Timestamp::from_micros(effective_at),
            expires_at: expires_at.map(Timestamp::from_micros),
            cost_basis: MicroUsd::ZERO,
            source_ref: "test".to_owned(),
            reason: None,
            available_after: Units::ZERO,
        })
    }

    fn available(events: &[(WalletEvent, i64)], at: BalanceAt) -> i64 {
        let mut fold = WalletFold::new(at);
        for (event, recorded_at) in events {
            fold.take(event, Timestamp::from_micros(*recorded_at));
        }
        fold.balance(TenantId(Uuid::nil()), Some(Asset::Usd)).assets[0].available.get()
    }

    #[test]
    fn a_grant_recorded_late_counts_from_its_effective_date_but_was_not_known_before() {
        let events = [(granted(1, 100, 10, None), 10), (granted(2, 50, 20, None), 90)];
        let as_of = |micros| BalanceAt { as_of: Some(Timestamp::from_micros(micros)), as_known_at: None };
        let known = |micros| BalanceAt { as_of: None, as_known_at: Some(Timestamp::from_micros(micros)) };
        assert_eq!([as_of(9), as_of(15), as_of(30)].map(|at| available(&events, at)), [0, 100, 150]);
        assert_eq!([known(15), known(30), known(90)].map(|at| available(&events, at)), [100, 100, 150]);
        assert_eq!(available(&events, BalanceAt::default()), 150);
    }

    fn expired(amount: i64, expired_at: Option<i64>) -> WalletEvent {
        WalletEvent::GrantExpired(GrantExpired {
            grant_id: GrantId(Uuid::from_u128(1)),
            asset: Asset::Usd,
            amount: Units::new(amount),
            expired_at: expired_at.map(Timestamp::from_micros),
            released: Vec::new(),
            available_after: Units::ZERO,
        })
    }

    #[test]
    fn an_expiry_counts_from_the_grants_own_date_even_before_anybody_noticed() {
        let as_of = |micros| BalanceAt { as_of: Some(Timestamp::from_micros(micros)), as_known_at: None };
        // Events written before the date was recorded have none.
        for expired_at in [Some(50), None] {
            let events = [(granted(1, 100, 10, Some(50)), 10), (expired(100, expired_at), 80)];
            assert_eq!([as_of(49), as_of(60), as_of(90)].map(|at| available(&events, at)), [100, 0, 0]);
            assert_eq!(available(&events[..1], as_of(60)), 0);
        }
    }

    #[test]
    fn what_was_held_at_the_end_and_ran_out_as_it_came_back_was_held_until_then() {
        let (hold_id, usage_id) = (HoldId(Uuid::from_u128(5)), UsageId(Uuid::from_u128(6)));
        let parts = vec![Allocation { grant_id: GrantId(Uuid::from_u128(1)), amount: Units::new(80) }];
        let placed = WalletEvent::HoldPlaced(HoldPlaced {
            hold_id,
            asset: Asset::Usd,
            amount: Units::new(80),
            allocations: parts.clone(),
            meter: Meter::Chat,
            api_key_id: None,
            line: None,
            user_id: None,
            usage_id,
            admitted_at: Timestamp::from_micros(20),
            expires_at: Timestamp::from_micros(500),
            available_after: Units::new(20),
        });
        let released = WalletEvent::HoldReleased(HoldReleased {
            hold_id,
            usage_id,
            asset: Asset::Usd,
            amount: Units::new(80),
            returned_to: parts,
            cause: ReleaseCause::Voided,
            available_after: Units::new(80),
        });
        let events = [
            (granted(1, 100, 10, Some(50)), 10),
            (placed, 20),
            (expired(20, Some(50)), 80),
            (released, 120),
            (expired(80, None), 120),
        ];
        let figures = |micros| {
            let at = BalanceAt { as_of: Some(Timestamp::from_micros(micros)), as_known_at: None };
            let mut fold = WalletFold::new(at);
            for (event, recorded_at) in &events {
                fold.take(event, Timestamp::from_micros(*recorded_at));
            }
            let of = fold.balance(TenantId(Uuid::nil()), Some(Asset::Usd)).assets[0];
            (of.available.get(), of.held.get())
        };
        assert_eq!([49, 60, 119, 120].map(figures), [(20, 80), (0, 80), (0, 80), (0, 0)]);
    }
}
