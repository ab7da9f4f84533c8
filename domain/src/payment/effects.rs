//! What a fact about a payment means for the tenant's wallet.

use crate::Timestamp;
use crate::book::PAYMENT_SOURCE;
use crate::wallet::{FreezeCause, WalletCommand};

use super::state::DISPUTE;
use super::{Claim, Dispute, Payment, PaymentReceived};

/// Credit that was paid for burns after credit that was given; of what was paid for, what ends soonest burns first.
pub const BOUGHT_PRIORITY: i16 = 20;

/// What a wallet has to be asked for when a payment known as `before` is known as `after`: nothing it was asked for
/// already. All of it belongs into the append that records the fact, in this order.
#[must_use]
pub fn effects(before: &Payment, after: &Payment, at: Timestamp) -> Vec<WalletCommand> {
    let mut commands = Vec::new();
    if let (None, Some(received)) = (&before.received, &after.received) {
        commands.push(grant(received, at));
    }
    if let Some(received) = &after.received {
        // What is given up comes before what is claimed anew: together the claims never exceed the grant.
        let earlier = before.claims.len();
        for (was, is) in before.claims.iter().zip(&after.claims) {
            if is.restored && !was.restored {
                commands.push(restore(received, is, at));
            }
        }
        for claim in after.claims.iter().skip(earlier) {
            commands.push(void(received, claim, at));
        }
    }
    commands.extend(freezing(before, after));
    commands
}

fn grant(received: &PaymentReceived, at: Timestamp) -> WalletCommand {
    WalletCommand::GrantCredits {
        grant_id: received.grant_id,
        asset: received.asset,
        kind: received.kind.grant_kind(),
        amount: received.units,
        priority: BOUGHT_PRIORITY,
        effective_at: received.occurred_at,
        expires_at: received.expires_at,
        cost_basis: received.gross,
        source_ref: format!("{PAYMENT_SOURCE}{}", received.payment_ref),
        reason: None,
        at,
    }
}

fn void(received: &PaymentReceived, claim: &Claim, at: Timestamp) -> WalletCommand {
    WalletCommand::VoidGrant {
        grant_id: received.grant_id,
        claimed: claim.units,
        cause: claim.cause(),
        source_ref: claim.source_ref.clone(),
        at,
    }
}

fn restore(received: &PaymentReceived, claim: &Claim, at: Timestamp) -> WalletCommand {
    WalletCommand::RestoreGrant { grant_id: received.grant_id, source_ref: claim.source_ref.clone(), at }
}

/// While a dispute is open the wallet spends nothing; also when the payment itself is not known yet. Each dispute freezes
/// for itself, so that one of them ending thaws nothing that another one froze.
fn freezing(before: &Payment, after: &Payment) -> Vec<WalletCommand> {
    let mut commands = Vec::new();
    for (reference, dispute) in &after.disputes {
        let was_open = before.disputes.get(reference).is_some_and(Dispute::is_open);
        let cause = FreezeCause::Dispute;
        let source_ref = Some(format!("{DISPUTE}{reference}"));
        match (was_open, dispute.is_open()) {
            (false, true) => commands.push(WalletCommand::Freeze { cause, source_ref }),
            (true, false) => commands.push(WalletCommand::Thaw { cause, source_ref }),
            (false, false) | (true, true) => {}
        }
    }
    commands
}
