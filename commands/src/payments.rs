//! Payments and what follows them. A fact and what it means for the tenant's wallet are one append: neither can be
//! without the other, and a fact that comes twice does nothing the second time.

use calos_domain::payment::{
    FactRefusal, Payment, PaymentFact, Payout, PayoutRefusal, PayoutSent, RecordFact, RecordPayout, effects,
    payment_stream, payout_stream,
};
use calos_domain::wallet::{Wallet, WalletCommand, WalletRefusal};
use calos_domain::{StreamId, TenantId, Timestamp};

use crate::fault::Fault;
use crate::log::{Done, EventLog, Handle, Plan, Request, Unit};

/// Why a fact about a payment was not recorded. Nothing changed, neither the payment nor the wallet.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PaymentRefusal {
    /// The payment's own rules.
    #[error(transparent)]
    Fact(#[from] FactRefusal),
    /// What the fact means is refused by the wallet: there is none, or it no longer remembers the grant.
    #[error(transparent)]
    Wallet(#[from] WalletRefusal),
}

/// A payment as it is known once a fact is recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PaymentKnown {
    /// Whether the fact was new.
    pub recorded: bool,
    /// The payment with every fact about it.
    pub payment: Payment,
}

/// Records a fact about a payment of `tenant_id` and does what it means for the wallet: grants what was paid for, claims
/// what is refunded or disputed, restores what was claimed for a dispute that was won, freezes the wallet while one is
/// open. Facts may come in any order: what comes before the payment itself is recorded and waits for it.
///
/// # Errors
/// [`PaymentRefusal`]; the log's.
pub async fn record<L: EventLog>(
    log: &L,
    tenant_id: TenantId,
    fact: PaymentFact,
    at: Timestamp,
    request: Request,
) -> Result<Done<PaymentKnown>, Fault<PaymentRefusal>> {
    let mut plan = Plan::default();
    let payment = plan.stream::<Payment>(payment_stream(tenant_id, fact.payment_ref()));
    let wallet = plan.stream::<Wallet>(StreamId::key(tenant_id));
    let decide = |unit: &mut Unit<'_>| decide(unit, payment, wallet, &fact, at);
    Ok(log.execute(&plan, request, decide).await?)
}

fn decide(
    unit: &mut Unit<'_>,
    payment: Handle<Payment>,
    wallet: Handle<Wallet>,
    fact: &PaymentFact,
    at: Timestamp,
) -> Result<PaymentKnown, PaymentRefusal> {
    let before = unit.read(payment);
    let recorded = !unit.decide(payment, RecordFact { fact: fact.clone(), at })?.is_empty();
    let after = unit.read(payment);
    for command in effects(&before, &after, at) {
        follow(unit, wallet, command, at)?;
    }
    Ok(PaymentKnown { recorded, payment: after })
}

/// A wallet refuses a grant of a time it has forgotten, since it could not tell a repetition. Here the payment tells, so
/// the grant counts from now on instead. A term that was over by then is over right after it began: what was paid for it
/// pays what is owed, and the rest runs out.
fn follow(
    unit: &mut Unit<'_>,
    wallet: Handle<Wallet>,
    command: WalletCommand,
    at: Timestamp,
) -> Result<(), WalletRefusal> {
    match unit.decide(wallet, command.clone()) {
        Err(WalletRefusal::GrantTooOld { .. }) => unit.decide(wallet, counting_from(command, at)).map(drop),
        decided => decided.map(drop),
    }
}

fn counting_from(command: WalletCommand, now: Timestamp) -> WalletCommand {
    match command {
        WalletCommand::GrantCredits {
            grant_id,
            asset,
            kind,
            amount,
            priority,
            effective_at: _,
            expires_at,
            cost_basis,
            source_ref,
            reason,
            at,
        } => WalletCommand::GrantCredits {
            grant_id,
            asset,
            kind,
            amount,
            priority,
            effective_at: now,
            expires_at: expires_at.map(|end| end.max(Timestamp::from_micros(now.micros().saturating_add(1)))),
            cost_basis,
            source_ref,
            reason,
            at,
        },
        other => other,
    }
}

/// Records a payout: money on its way from Stripe to the bank. Answers whether it was new.
///
/// # Errors
/// [`PayoutRefusal`]; the log's.
pub async fn record_payout<L: EventLog>(
    log: &L,
    sent: PayoutSent,
    at: Timestamp,
    request: Request,
) -> Result<Done<bool>, Fault<PayoutRefusal>> {
    let mut plan = Plan::default();
    let payout = plan.stream::<Payout>(payout_stream(&sent.payout_ref));
    let decide = |unit: &mut Unit<'_>| {
        let events = unit.decide(payout, RecordPayout { sent: sent.clone(), at })?;
        Ok::<_, PayoutRefusal>(!events.is_empty())
    };
    Ok(log.execute(&plan, request, decide).await?)
}

#[cfg(test)]
mod tests;
