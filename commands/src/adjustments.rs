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

/// Proposes an adjustment of an open wallet; the same proposal twice is recorded once. Answers what it is now. What the
/// wallet would never take is not put to anybody: a gift that counts from a time it has forgotten. Whether a taking is
/// covered shows when it is approved.
///
/// # Errors
/// [`AdjustRefusal::NoSuchTenant`], [`AdjustRefusal::Adjustment`]; [`AdjustRefusal::Wallet`] with
/// [`WalletRefusal::GrantTooOld`], which says from when on it may count; the log's.
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
        let events = unit.decide(adjustment, AdjustmentCommand::Propose { proposal: proposal.clone(), by, at })?;
        if !events.is_empty() && proposal.amount > Units::ZERO {
            unit.with(wallet, |wallet| wallet.remembers(proposal.effective_at))?;
        }
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

#[cfg(test)]
mod tests {
    use calos_domain::Asset;
    use calos_domain::wallet::{AdjustmentReason, GRANTS_REMEMBERED_MAX_COUNT};
    use uuid::{Builder, Uuid};

    use super::*;
    use crate::memory_log::{MemoryLog, request};

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));
    const AUTHOR: UserId = UserId(Uuid::from_u128(11));
    const ONE: UserId = UserId(Uuid::from_u128(12));
    const TWO: UserId = UserId(Uuid::from_u128(13));

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_760_000_000_000_000).plus_seconds(seconds)
    }

    fn id(number: u8) -> AdjustmentId {
        AdjustmentId(Builder::from_unix_timestamp_millis(1_760_000_000_000, &[number; 10]).into_uuid())
    }

    fn stream(number: u8) -> StreamId {
        adjustment_stream(TENANT, id(number))
    }

    /// A log with an open wallet of nothing.
    async fn opened() -> MemoryLog {
        let log = MemoryLog::default();
        let open = WalletCommand::OpenWallet { tenant_id: TENANT, opened_at: at(0) };
        log.ask::<Wallet>(StreamId::key(TENANT), open).await.unwrap();
        log
    }

    async fn proposed(log: &MemoryLog, number: u8, amount: i64) -> Result<Adjustment, Fault<AdjustRefusal>> {
        proposed_of(log, number, amount, at(0)).await
    }

    async fn proposed_of(
        log: &MemoryLog,
        number: u8,
        amount: i64,
        effective_at: Timestamp,
    ) -> Result<Adjustment, Fault<AdjustRefusal>> {
        let proposal = Proposal {
            adjustment_id: id(number),
            tenant_id: TENANT,
            asset: Asset::Usd,
            amount: Units::new(amount),
            reason: AdjustmentReason::BillingError,
            evidence: "ticket:4711".to_owned(),
            effective_at,
        };
        propose(log, proposal, AUTHOR, at(1), request()).await.map(|done| done.answer)
    }

    async fn approved(log: &MemoryLog, number: u8, by: UserId) -> Result<Adjustment, Fault<AdjustRefusal>> {
        approve(log, TENANT, id(number), by, at(2), request()).await.map(|done| done.answer)
    }

    fn available(log: &MemoryLog) -> i64 {
        log.state::<Wallet>(&StreamId::key(TENANT)).available(Asset::Usd).get()
    }

    #[tokio::test]
    async fn the_last_approval_puts_the_wallet_right_and_none_before_it_does() {
        let log = opened().await;
        proposed(&log, 1, 60_000_000).await.unwrap();
        approved(&log, 1, ONE).await.unwrap();
        assert_eq!(available(&log), 0);
        let applied = approved(&log, 1, TWO).await.unwrap();
        let grant_id = Some(GrantId(id(1).0));
        assert!(matches!(applied.status(), calos_domain::adjustment::AdjustmentStatus::Applied { grant_id: known, .. }
            if known == grant_id));
        assert_eq!(available(&log), 60_000_000);
        assert_eq!(log.names::<Wallet>(&StreamId::key(TENANT)), ["wallet_opened", "credits_granted"]);
        let names = log.names::<Adjustment>(&stream(1));
        assert_eq!(names, ["adjustment_proposed", "adjustment_approved", "adjustment_approved", "adjustment_applied"]);
        // Once applied, nothing applies it again.
        for by in [ONE, TWO, UserId(Uuid::from_u128(14))] {
            assert!(matches!(
                approved(&log, 1, by).await,
                Err(Fault::Refused(AdjustRefusal::Adjustment(AdjustmentRefusal::Applied { .. })))
            ));
        }
        assert_eq!(available(&log), 60_000_000);
    }

    #[tokio::test]
    async fn what_is_taken_is_taken_once_and_never_more_than_there_is() {
        let log = opened().await;
        proposed(&log, 1, 10_000_000).await.unwrap();
        approved(&log, 1, ONE).await.unwrap();
        proposed(&log, 2, -10_000_001).await.unwrap();
        let refused = approved(&log, 2, ONE).await;
        let Err(Fault::Refused(AdjustRefusal::Wallet(WalletRefusal::InsufficientCredit {
            needed,
            available: has,
            ..
        }))) = refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!((needed.get(), has.get()), (10_000_001, 10_000_000));
        // The approval is not there either, so the same person may approve once there is enough.
        assert_eq!(log.names::<Adjustment>(&stream(2)), ["adjustment_proposed"]);
        proposed(&log, 3, 1).await.unwrap();
        approved(&log, 3, ONE).await.unwrap();
        approved(&log, 2, ONE).await.unwrap();
        assert_eq!(available(&log), 0);
        assert_eq!(log.names::<Wallet>(&StreamId::key(TENANT)).last(), Some(&"credits_taken"));
    }

    #[tokio::test]
    async fn nobody_adjusts_alone_and_nobody_adjusts_what_is_not_there() {
        let log = opened().await;
        proposed(&log, 1, 1).await.unwrap();
        let own = approved(&log, 1, AUTHOR).await;
        assert!(matches!(own, Err(Fault::Refused(AdjustRefusal::Adjustment(AdjustmentRefusal::OwnProposal)))));
        let nothing = approved(&log, 2, ONE).await;
        assert!(matches!(nothing, Err(Fault::Refused(AdjustRefusal::Adjustment(AdjustmentRefusal::NotProposed)))));
        let nowhere = proposed(&MemoryLog::default(), 1, 1).await;
        assert!(matches!(nowhere, Err(Fault::Refused(AdjustRefusal::NoSuchTenant))));
        assert_eq!(available(&log), 0);
        reject(&log, (TENANT, id(1)), ONE, "the invoice was right", at(2), request()).await.unwrap();
        let late = approved(&log, 1, TWO).await;
        assert!(matches!(late, Err(Fault::Refused(AdjustRefusal::Adjustment(AdjustmentRefusal::Rejected { .. })))));
        assert!(
            look(&log, TENANT, id(1)).await.unwrap().is_some() && look(&log, TENANT, id(9)).await.unwrap().is_none()
        );
    }

    #[tokio::test]
    async fn a_gift_of_a_time_the_wallet_has_forgotten_is_refused_before_anybody_approves_it() {
        let log = opened().await;
        // Each runs out as it comes in, and the first ten are forgotten.
        let of = |number: usize| at(i64::try_from(number).unwrap() - 10_000);
        for number in 1..=GRANTS_REMEMBERED_MAX_COUNT + 10 {
            let grant = WalletCommand::GrantCredits {
                grant_id: GrantId(Uuid::from_u128(number as u128)),
                asset: Asset::Usd,
                kind: GrantKind::Goodwill,
                amount: Units::new(1),
                priority: 0,
                effective_at: of(number),
                expires_at: Some(of(number + 1)),
                cost_basis: MicroUsd::ZERO,
                source_ref: "test".to_owned(),
                reason: None,
                at: at(0),
            };
            log.ask::<Wallet>(StreamId::key(TENANT), grant).await.unwrap();
        }
        let refused = proposed_of(&log, 1, 5, of(10)).await;
        let too_old = WalletRefusal::GrantTooOld { effective_at: of(10), forgotten: of(10) };
        assert!(
            matches!(&refused, Err(Fault::Refused(AdjustRefusal::Wallet(known))) if *known == too_old),
            "{refused:?}"
        );
        assert!(log.names::<Adjustment>(&stream(1)).is_empty());
        // From the next moment on it may count, and what takes credit from any.
        proposed_of(&log, 1, 5, of(11)).await.unwrap();
        approved(&log, 1, ONE).await.unwrap();
        assert_eq!(available(&log), 5);
        proposed_of(&log, 2, -5, of(10)).await.unwrap();
        approved(&log, 2, ONE).await.unwrap();
        assert_eq!(available(&log), 0);
    }
}
