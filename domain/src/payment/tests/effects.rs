//! What a wallet is asked for after each fact.

use super::*;
use crate::wallet::{DebtCause, FreezeCause, GrantKind, WalletCommand};

/// Records the facts in order; answers what the last of them means for the wallet.
fn after<const N: usize>(facts: [PaymentFact; N]) -> Vec<WalletCommand> {
    let mut payment = Payment::default();
    let mut before = payment.clone();
    for fact in facts {
        before = payment.clone();
        when(&mut payment, fact).unwrap();
    }
    assert_eq!(super::super::effects(&payment, &payment, at(1)), [], "nothing follows from nothing new");
    super::super::effects(&before, &payment, at(1))
}

fn grant() -> WalletCommand {
    WalletCommand::GrantCredits {
        grant_id: BOUGHT.grant_id(),
        asset: Asset::Usd,
        kind: GrantKind::Purchase,
        amount: Units::new(50),
        priority: BOUGHT_PRIORITY,
        effective_at: at(0),
        expires_at: None,
        cost_basis: usd(50),
        source_ref: "payment:in_1".to_owned(),
        reason: None,
        at: at(1),
    }
}

fn void(source_ref: &str, units: i64, cause: DebtCause) -> WalletCommand {
    let (source_ref, claimed) = (source_ref.to_owned(), Units::new(units));
    WalletCommand::VoidGrant { grant_id: BOUGHT.grant_id(), claimed, cause, source_ref, at: at(1) }
}

fn restore(source_ref: &str) -> WalletCommand {
    WalletCommand::RestoreGrant { grant_id: BOUGHT.grant_id(), source_ref: source_ref.to_owned(), at: at(1) }
}

fn freeze(reference: &str) -> WalletCommand {
    WalletCommand::Freeze { cause: FreezeCause::Dispute, source_ref: Some(reference.to_owned()) }
}

fn thaw(reference: &str) -> WalletCommand {
    WalletCommand::Thaw { cause: FreezeCause::Dispute, source_ref: Some(reference.to_owned()) }
}

#[test]
fn a_payment_grants_and_a_refund_claims() {
    assert_eq!(after([BOUGHT.received()]), [grant()]);
    let claim = void("refund:re_1", 20, DebtCause::Refund);
    assert_eq!(after([BOUGHT.received(), BOUGHT.refund("re_1", 20, 20)]), [claim]);
    assert_eq!(after([BOUGHT.received(), BOUGHT.refund("re_1", 20, 0)]), []);
}

#[test]
fn a_dispute_claims_and_freezes_until_it_ends() {
    let claim = void("dispute:dp_1", 30, DebtCause::Dispute);
    assert_eq!(after([BOUGHT.received(), BOUGHT.opened("dp_1", 30, 30)]), [claim, freeze("dispute:dp_1")]);
    let opened = [BOUGHT.received(), BOUGHT.opened("dp_1", 30, 30)];
    let [received, dispute] = opened;
    let won = after([received.clone(), dispute.clone(), BOUGHT.won("dp_1", 30)]);
    assert_eq!(won, [restore("dispute:dp_1"), thaw("dispute:dp_1")]);
    assert_eq!(after([received, dispute, BOUGHT.lost("dp_1", 30)]), [thaw("dispute:dp_1")]);
}

#[test]
fn what_comes_before_the_payment_waits_for_it() {
    assert_eq!(after([BOUGHT.refund("re_1", 20, 20)]), []);
    assert_eq!(after([BOUGHT.won("dp_1", 30)]), []);
    assert_eq!(after([BOUGHT.opened("dp_1", 30, 30)]), [freeze("dispute:dp_1")]);
    let late = after([BOUGHT.refund("re_1", 20, 20), BOUGHT.opened("dp_1", 30, 30), BOUGHT.received()]);
    let claims = [grant(), void("refund:re_1", 20, DebtCause::Refund), void("dispute:dp_1", 30, DebtCause::Dispute)];
    assert_eq!(late, claims);
}

#[test]
fn a_dispute_whose_end_is_known_before_its_beginning_never_freezes() {
    assert_eq!(after([BOUGHT.received(), BOUGHT.won("dp_1", 30), BOUGHT.opened("dp_1", 30, 30)]), []);
    let claim = void("dispute:dp_1", 30, DebtCause::Dispute);
    assert_eq!(after([BOUGHT.received(), BOUGHT.lost("dp_1", 30), BOUGHT.opened("dp_1", 30, 30)]), [claim]);
}

#[test]
fn each_dispute_freezes_and_thaws_for_itself() {
    let [received, one, two] = [BOUGHT.received(), BOUGHT.opened("dp_1", 10, 10), BOUGHT.opened("dp_2", 10, 10)];
    let claim = void("dispute:dp_2", 10, DebtCause::Dispute);
    assert_eq!(after([received.clone(), one.clone(), two.clone()]), [claim, freeze("dispute:dp_2")]);
    let lost = BOUGHT.lost("dp_1", 10);
    assert_eq!(after([received.clone(), one.clone(), two.clone(), lost.clone()]), [thaw("dispute:dp_1")]);
    let won = after([received, one, two, lost, BOUGHT.won("dp_2", 10)]);
    assert_eq!(won, [restore("dispute:dp_2"), thaw("dispute:dp_2")]);
}

#[test]
fn claims_never_exceed_the_payment_and_what_is_given_up_is_claimed_by_those_that_got_too_little() {
    // Refunded while it was disputed in whole: nothing is left to claim twice.
    let disputed = [BOUGHT.received(), BOUGHT.opened("dp_1", 50, 50), BOUGHT.refund("re_1", 20, 20)];
    assert_eq!(after(disputed.clone()), []);
    let [received, dispute, refund] = disputed;
    let won = after([received.clone(), dispute, refund, BOUGHT.won("dp_1", 50)]);
    assert_eq!(won, [restore("dispute:dp_1"), void("refund:re_1", 20, DebtCause::Refund), thaw("dispute:dp_1")]);
    // One that got a part of it claims the rest as a second part.
    let partly = BOUGHT.opened("dp_1", 40, 40);
    let some = after([received.clone(), partly.clone(), BOUGHT.refund("re_1", 20, 20)]);
    assert_eq!(some, [void("refund:re_1", 10, DebtCause::Refund)]);
    let won = after([received, partly, BOUGHT.refund("re_1", 20, 20), BOUGHT.won("dp_1", 40)]);
    assert_eq!(won, [restore("dispute:dp_1"), void("refund:re_1 #2", 10, DebtCause::Refund), thaw("dispute:dp_1")]);
}

#[test]
fn references_that_begin_alike_do_not_share_their_claims() {
    let facts =
        [BOUGHT.received(), BOUGHT.opened("dp_1", 10, 10), BOUGHT.opened("dp_12", 10, 10), BOUGHT.won("dp_1", 10)];
    assert_eq!(after(facts), [restore("dispute:dp_1"), thaw("dispute:dp_1")]);
}
