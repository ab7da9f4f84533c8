//! What stands in the book for which event, and what may never stand there.

mod accounts;
mod crafted;
mod entries;
mod rules;

use uuid::Uuid;

use super::*;
use crate::wallet::{Allocation, CostReleased, CreditsDeducted, CreditsGranted, GrantKind, HoldPlaced, Meter};
use crate::{GrantId, HoldId, MicroUsd, TenantId, Timestamp, Units, UsageId};

fn tenant() -> TenantId {
    TenantId(Uuid::from_u128(0x7e4a47))
}

fn grant_id(n: u128) -> GrantId {
    GrantId(Uuid::from_u128(n))
}

fn hold_id() -> HoldId {
    HoldId(Uuid::from_u128(0x401d))
}

fn usage_id() -> UsageId {
    UsageId(Uuid::from_u128(0x05e))
}

const fn units(amount: i64) -> Units {
    Units::new(amount)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::default().plus_seconds(seconds)
}

fn parts<const N: usize>(parts: [(u128, i64); N]) -> Vec<Allocation> {
    parts.into_iter().map(|(n, amount)| Allocation { grant_id: grant_id(n), amount: units(amount) }).collect()
}

fn costs<const N: usize>(costs: [(GrantKind, i64); N]) -> Vec<CostReleased> {
    costs.into_iter().map(|(kind, amount)| CostReleased { kind, amount: MicroUsd::new(amount) }).collect()
}

fn available(n: u128) -> Account {
    Account::Available(tenant(), grant_id(n))
}

fn held() -> Account {
    Account::Held(tenant(), hold_id())
}

/// An entry as it is expected: debits positive.
fn entry<const N: usize>(asset: Asset, postings: [(Account, i64); N]) -> Entry {
    let posting = |(account, amount)| Posting { account, amount: i128::from(amount) };
    Entry { asset, postings: postings.into_iter().map(posting).collect() }
}

fn granted(asset: Asset, amount: i64, cost: i64, source_ref: &str) -> CreditsGranted {
    CreditsGranted {
        grant_id: grant_id(1),
        asset,
        kind: GrantKind::Purchase,
        amount: units(amount),
        priority: 20,
        effective_at: at(5),
        expires_at: None,
        cost_basis: MicroUsd::new(cost),
        source_ref: source_ref.to_owned(),
        reason: None,
        available_after: units(amount),
    }
}

fn placed(amount: i64, allocations: Vec<Allocation>) -> HoldPlaced {
    HoldPlaced {
        hold_id: hold_id(),
        asset: Asset::Usd,
        amount: units(amount),
        allocations,
        meter: Meter::Chat,
        api_key_id: None,
        line: None,
        user_id: None,
        usage_id: usage_id(),
        admitted_at: at(7),
        expires_at: at(607),
        available_after: Units::ZERO,
    }
}

/// A deduction that settles a hold of `held`, of which `returned` goes back.
fn deducted(allocations: Vec<Allocation>, held: i64, returned: Vec<Allocation>) -> CreditsDeducted {
    let sum = |parts: &[Allocation]| units(parts.iter().map(|part| part.amount.get()).sum());
    CreditsDeducted {
        usage_id: usage_id(),
        hold_id: Some(hold_id()),
        meter: Meter::Chat,
        asset: Asset::Usd,
        amount: sum(&allocations),
        allocations,
        held: units(held),
        returned: sum(&returned),
        returned_to: returned,
        released: Vec::new(),
        available_after: Units::ZERO,
    }
}
