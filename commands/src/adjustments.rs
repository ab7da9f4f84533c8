//! Adjustments: a wallet put right by hand, with four eyes.
//!
//! An adjustment and its wallet share the tenant's partition, so the last approval, the application and what the wallet
//! makes of it are decided on one state and appended as one: a wallet that refuses refuses the approval.

use calos_domain::adjustment::{Adjustment, AdjustmentCommand, AdjustmentProposed, AdjustmentRefusal, Proposal};
use calos_domain::wallet::{GrantKind, Wallet, WalletCommand, WalletRefusal};
use calos_domain::{AdjustmentId, GrantId, MicroUsd, StreamId, TenantId, Timestamp, Units, UserId};

use crate::accounts::looking;
use crate::fault::{Fault, Never};
use crate::log::{Done, EventLog, Plan, Request, Unit};
use crate::opening::GIVEN_PRIORITY;

/// The stream of a tenant's adjustment.
#[must_use]
pub fn adjustment_stream(tenant_id: TenantId, adjustment_id: AdjustmentId) -> StreamId {
    StreamId::under(tenant_id, adjustment_id)
}

/// What a grant that came of an adjustment says about where it comes from.
#[must_use]
pub fn source_ref(adjustment_id: AdjustmentId) -> String {
    format!("adjustment:{adjustment_id}")
}

/// Why an adjustment was not proposed or decided on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdjustRefusal {
    /// The adjustment's own rules.
    #[error(transparent)]
    Adjustment(#[from] AdjustmentRefusal),
    /// The wallet cannot be put right this way: it has less than is to be taken, or is not what it was taken for.
    #[error(transparent)]
    Wallet(#[from] WalletRefusal),
    /// Nobody has a wallet of this name.
    #[error("there is no such tenant")]
    NoSuchTenant,
}

/// Proposes an adjustment of an open wallet; the same proposal twice is recorded once. Answers what it is now.
///
/// # Errors
/// [`AdjustRefusal::NoSuchTenant`], [`AdjustRefusal::Adjustment`]; the log's.
pub async fn propose<L: EventLog>(
    log: &L,
    proposal: Proposal,
    by: UserId,
    at: Timestamp,
    request: Request,
) -> Result<Done<Adjustment>, Fault<AdjustRefusal>> {
    let mut plan = Plan::default();
    let wallet = plan.stream::<Wallet>(StreamId::key(proposal.tenant_id));
    let adjustment = plan.stream::<Adjustment>(adjustment_stream(proposal.tenant_id, proposal.adjustment_id));
    let decide = |unit: &mut Unit<'_>| -> Result<Adjustment, AdjustRefusal> {
        if !unit.with(wallet, Wallet::is_open) {
            return Err(AdjustRefusal::NoSuchTenant);
        }
        unit.decide(adjustment, AdjustmentCommand::Propose { proposal: proposal.clone(), by, at })?;
        Ok(unit.read(adjustment))
    };
    Ok(log.execute(&plan, request, decide).await?)
}

/// Approves an adjustment. The last approval it takes applies it: the wallet's own event is in the same append, or
/// nothing is. Answers what it is now.
///
/// # Errors
/// [`AdjustRefusal::Adjustment`]; [`AdjustRefusal::Wallet`] with the numbers when the wallet refuses what the last
/// approval asks of it, and then the approval is not recorded either; the log's.
pub async fn approve<L: EventLog>(
    log: &L,
    tenant_id: TenantId,
    adjustment_id: AdjustmentId,
    by: UserId,
    at: Timestamp,
    request: Request,
) -> Result<Done<Adjustment>, Fault<AdjustRefusal>> {
    let mut plan = Plan::default();
    let wallet = plan.stream::<Wallet>(StreamId::key(tenant_id));
    let adjustment = plan.stream::<Adjustment>(adjustment_stream(tenant_id, adjustment_id));
    let decide = |unit: &mut Unit<'_>| -> Result<Adjustment, AdjustRefusal> {
        unit.decide(adjustment, AdjustmentCommand::Approve { by, at })?;
        if let Some(approved) = unit.with(adjustment, |state| state.ready().cloned()) {
            let (command, grant_id) = put_right(&approved, at)?;
            unit.decide(wallet, command)?;
            unit.decide(adjustment, AdjustmentCommand::Apply { grant_id, at })?;
        }
        Ok(unit.read(adjustment))
    };
    Ok(log.execute(&plan, request, decide).await?)
}

/// What an approved adjustment asks of the wallet, and the grant it becomes.
fn put_right(approved: &AdjustmentProposed, at: Timestamp) -> Result<(WalletCommand, Option<GrantId>), AdjustRefusal> {
    let AdjustmentProposed { adjustment_id, asset, amount, reason, effective_at, .. } = approved;
    if *amount < Units::ZERO {
        let amount = Units::ZERO.minus(*amount).map_err(WalletRefusal::from)?;
        let taking = WalletCommand::TakeCredits {
            adjustment_id: *adjustment_id,
            asset: *asset,
            amount,
            reason: *reason,
            effective_at: *effective_at,
            at,
        };
        return Ok((taking, None));
    }
    // One adjustment becomes one grant, under the same id: whoever sees either finds the other.
    let grant_id = GrantId(adjustment_id.0);
    let grant = WalletCommand::GrantCredits {
        grant_id,
        asset: *asset,
        kind: GrantKind::Adjustment,
        amount: *amount,
        priority: GIVEN_PRIORITY,
        effective_at: *effective_at,
        expires_at: None,
        cost_basis: MicroUsd::ZERO,
        source_ref: source_ref(*adjustment_id),
        reason: Some(*reason),
        at,
    };
    Ok((grant, Some(grant_id)))
}

/// Turns an adjustment down, or withdraws it. Answers what it is now.
///
/// # Errors
/// [`AdjustRefusal::Adjustment`]; the log's.
pub async fn reject<L: EventLog>(
    log: &L,
    (tenant_id, adjustment_id): (TenantId, AdjustmentId),
    by: UserId,
    reason: &str,
    at: Timestamp,
    request: Request,
) -> Result<Done<Adjustment>, Fault<AdjustRefusal>> {
    let mut plan = Plan::default();
    let adjustment = plan.stream::<Adjustment>(adjustment_stream(tenant_id, adjustment_id));
    let decide = |unit: &mut Unit<'_>| -> Result<Adjustment, AdjustRefusal> {
        unit.decide(adjustment, AdjustmentCommand::Reject { by, reason: reason.to_owned(), at })?;
        Ok(unit.read(adjustment))
    };
    Ok(log.execute(&plan, request, decide).await?)
}

/// What an adjustment is now, decided on itself and no read model; none where nothing was proposed.
///
/// # Errors
/// The log's.
pub async fn look<L: EventLog>(
    log: &L,
    tenant_id: TenantId,
    adjustment_id: AdjustmentId,
) -> Result<Option<Adjustment>, Fault<Never>> {
    let mut plan = Plan::default();
    let adjustment = plan.stream::<Adjustment>(adjustment_stream(tenant_id, adjustment_id));
    let found = log.execute(&plan, looking().into(), |unit| Ok::<_, Never>(unit.read(adjustment))).await?.answer;
    Ok(found.proposal().is_some().then_some(found))
}
