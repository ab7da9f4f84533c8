//! Events that contradict themselves are stopped at, with the accounts named.

use super::*;
use crate::payment::{PaymentEvent, PaymentKind, PaymentReceived, PaymentVia, PayoutEvent, PayoutSent};
use crate::wallet::{CreditsTaken, DeductionReversed, GrantExpired, HoldReleased, ReleaseCause, WalletEvent};

fn refused(event: &WalletEvent) -> BookError {
    wallet_entries(tenant(), event).expect_err("an event that contradicts itself has no entry")
}

#[test]
fn a_deduction_whose_parts_do_not_come_to_its_amount_is_unbalanced() {
    for (amount, held) in [(7, 0), (5, 0), (7, 10), (5, 10)] {
        let mut event = deducted(parts([(1, 4), (2, 2)]), held, Vec::new());
        event.amount = units(amount);
        event.returned = units((held - amount).max(0));
        let error = refused(&WalletEvent::CreditsDeducted(event));
        let accounts = vec![available(1), available(2), Account::Usage(Meter::Chat)];
        assert_eq!(
            error,
            BookError::Unbalanced { asset: Asset::Usd, debits: 6, credits: i128::from(amount), accounts }
        );
        for name in [available(1).to_string(), available(2).to_string(), "Income:Usage:chat".to_owned()] {
            assert!(error.to_string().contains(&name), "{error}");
        }
    }
}

#[test]
fn a_deduction_that_is_not_what_was_held_less_what_went_back_is_unbalanced() {
    for (held, returned) in [(10, 3), (12, 5)] {
        let mut event = deducted(parts([(1, 6)]), held, parts([(1, returned)]));
        event.returned = units(returned);
        assert!(
            matches!(refused(&WalletEvent::CreditsDeducted(event)), BookError::Unbalanced { .. }),
            "{held} {returned}"
        );
    }
    // What is kept by no hold cannot be spent from one.
    let event = CreditsDeducted { hold_id: None, ..deducted(parts([(1, 6)]), 6, Vec::new()) };
    assert!(matches!(refused(&WalletEvent::CreditsDeducted(event)), BookError::Unbalanced { .. }));
}

#[test]
fn what_went_back_must_come_to_what_the_event_says() {
    let mut event = deducted(parts([(1, 5)]), 10, parts([(1, 5)]));
    event.returned = units(4);
    event.amount = units(6);
    event.allocations = parts([(1, 6)]);
    assert!(matches!(refused(&WalletEvent::CreditsDeducted(event)), BookError::Unbalanced { .. }));
    let released = HoldReleased {
        hold_id: hold_id(),
        usage_id: usage_id(),
        asset: Asset::Usd,
        amount: units(9),
        returned_to: parts([(1, 4), (2, 4)]),
        cause: ReleaseCause::Voided,
        available_after: Units::ZERO,
    };
    assert!(matches!(
        refused(&WalletEvent::HoldReleased(released)),
        BookError::Unbalanced { debits: 8, credits: 9, .. }
    ));
}

#[test]
fn a_hold_a_reversal_and_a_taking_whose_parts_disagree_are_unbalanced() {
    let hold = WalletEvent::HoldPlaced(placed(9, parts([(1, 4), (2, 4)])));
    let reversal = WalletEvent::DeductionReversed(DeductionReversed {
        usage_id: usage_id(),
        meter: Meter::Chat,
        asset: Asset::Usd,
        amount: units(9),
        allocations: parts([(1, 8)]),
        reason: "wrong".to_owned(),
        released: Vec::new(),
        available_after: Units::ZERO,
    });
    let taking = WalletEvent::CreditsTaken(CreditsTaken {
        adjustment_id: crate::AdjustmentId(Uuid::from_u128(4)),
        asset: Asset::Credit,
        amount: units(9),
        allocations: parts([(1, 8)]),
        reason: crate::wallet::AdjustmentReason::Fraud,
        released: Vec::new(),
        effective_at: at(0),
        available_after: Units::ZERO,
    });
    for event in [hold, reversal, taking] {
        assert!(matches!(refused(&event), BookError::Unbalanced { .. }), "{event:?}");
    }
}

#[test]
fn credit_that_is_spent_beyond_a_hold_while_some_goes_back_is_illegal() {
    // More than was kept is spent, and yet something goes back: available would stand against available.
    let event = deducted(parts([(1, 12)]), 10, parts([(2, 3)]));
    let error = refused(&WalletEvent::CreditsDeducted(event));
    assert_eq!(error, BookError::Illegal { asset: Asset::Usd, debit: available(1), credit: available(2) });
    assert!(
        error.to_string().contains(&available(1).to_string()) && error.to_string().contains(&available(2).to_string())
    );
}

#[test]
fn an_amount_below_zero_is_refused_wherever_only_a_direction_is_known() {
    let negative = |event| assert!(matches!(refused(&event), BookError::Negative { amount: ..0, .. }));
    negative(WalletEvent::CreditsDeducted(deducted(parts([(1, -5), (2, 11)]), 6, Vec::new())));
    negative(WalletEvent::HoldPlaced(placed(-1, parts([(1, -1)]))));
    negative(WalletEvent::CreditsGranted(granted(Asset::Usd, -1, 0, "x")));
    negative(WalletEvent::CreditsGranted(granted(Asset::Usd, 1, -1, "x")));
    negative(WalletEvent::GrantExpired(GrantExpired {
        grant_id: grant_id(1),
        asset: Asset::Usd,
        amount: units(-1),
        expired_at: None,
        released: Vec::new(),
        available_after: Units::ZERO,
    }));
}

#[test]
fn a_sum_beyond_64_bits_is_out_of_range() {
    let half = i64::MAX / 2 + 1;
    let mut event = deducted(parts([(1, 1)]), 0, Vec::new());
    event.released = costs([(GrantKind::Purchase, half), (GrantKind::Subscription, half)]);
    let error = refused(&WalletEvent::CreditsDeducted(event));
    assert!(matches!(&error, BookError::OutOfRange { account, .. } if *account == available(1)), "{error}");
    let mut event = deducted(parts([(1, 1)]), 0, Vec::new());
    event.released = costs([(GrantKind::Purchase, i64::MIN)]);
    assert!(matches!(refused(&WalletEvent::CreditsDeducted(event)), BookError::OutOfRange { .. }));
    let sent = PayoutSent { payout_ref: "po_1".to_owned(), amount: MicroUsd::new(i64::MIN), occurred_at: at(0) };
    assert!(matches!(payout_entries(&PayoutEvent::PayoutSent(sent)), Err(BookError::OutOfRange { .. })));
}

#[test]
fn a_fee_for_what_does_not_go_through_stripe_is_illegal() {
    let received = PaymentReceived {
        payment_ref: "in_1".to_owned(),
        kind: PaymentKind::Purchase,
        asset: Asset::Usd,
        units: units(50),
        gross: MicroUsd::new(50),
        fee: MicroUsd::new(1),
        grant_id: grant_id(1),
        expires_at: None,
        via: PaymentVia::OutOfBand,
        occurred_at: at(0),
    };
    let error = payment_entries(&PaymentEvent::PaymentReceived(received)).expect_err("nobody takes that fee");
    let (debit, credit) = (Account::StripeFees, Account::OutOfBand);
    assert_eq!(error, BookError::Illegal { asset: Asset::Usd, debit, credit });
}
