//! Which accounts each event moves.

use super::*;
use crate::payment::{
    DisputeLost, DisputeOpened, DisputeWon, PaymentEvent, PaymentKind, PaymentReceived, PaymentRefunded, PaymentVia,
    PayoutEvent, PayoutSent,
};
use crate::wallet::{
    AdjustmentReason, CreditsTaken, DebtCause, DebtIncurred, DebtRepaid, DeductionReversed, FreezeCause, GrantExpired,
    GrantRestored, GrantVoided, HoldReleased, ReleaseCause, UsageOutcome, UsageRecorded, WalletEvent, WalletFrozen,
    WalletOpened, WalletThawed,
};

const PURCHASE: GrantKind = GrantKind::Purchase;

fn booked(event: &WalletEvent) -> Vec<Entry> {
    wallet_entries(tenant(), event).expect("the event is sound")
}

#[test]
fn a_grant_is_given_out_against_its_kind_or_against_the_reason_it_corrects() {
    let trial = CreditsGranted { kind: GrantKind::Trial, ..granted(Asset::Usd, 10, 0, "registration:u") };
    let expected = entry(Asset::Usd, [(Account::Issued(GrantKind::Trial), 10), (available(1), -10)]);
    assert_eq!(booked(&WalletEvent::CreditsGranted(trial)), [expected]);
    let reason = Some(AdjustmentReason::ServiceCredit);
    let correction = CreditsGranted { kind: GrantKind::Adjustment, reason, ..granted(Asset::Credit, 10, 0, "a") };
    let from = Account::Adjustment(AdjustmentReason::ServiceCredit);
    let expected = entry(Asset::Credit, [(from, 10), (available(1), -10)]);
    assert_eq!(booked(&WalletEvent::CreditsGranted(correction)), [expected]);
}

#[test]
fn what_a_grant_cost_is_owed_at_once_unless_a_payment_books_it() {
    let issued = [(Account::Issued(PURCHASE), 50), (available(1), -50)];
    let paid = [(Account::OutOfBand, 70), (Account::Deferred(PURCHASE), -70)];
    let by_payment = booked(&WalletEvent::CreditsGranted(granted(Asset::Usd, 50, 70, "payment:in_1")));
    assert_eq!(by_payment, [entry(Asset::Usd, issued.clone())]);
    let [one, two] = issued.clone();
    let [three, four] = paid.clone();
    let by_hand = booked(&WalletEvent::CreditsGranted(granted(Asset::Usd, 50, 70, "invoice:in_1")));
    assert_eq!(by_hand, [entry(Asset::Usd, [one, two, three, four])]);
    // Phone credits and dollars never stand in one entry.
    let phone = booked(&WalletEvent::CreditsGranted(granted(Asset::Credit, 50, 70, "invoice:in_1")));
    assert_eq!(phone, [entry(Asset::Usd, paid), entry(Asset::Credit, issued)]);
}

#[test]
fn a_hold_keeps_what_it_takes_from_each_grant() {
    let expected = entry(Asset::Usd, [(available(1), 4), (available(2), 5), (held(), -9)]);
    assert_eq!(booked(&WalletEvent::HoldPlaced(placed(9, parts([(1, 4), (2, 5)])))), [expected]);
    assert_eq!(booked(&WalletEvent::HoldPlaced(placed(0, Vec::new()))), []);
}

#[test]
fn a_hold_pays_first_and_the_rest_goes_back_to_the_grants_it_came_from() {
    let event = deducted(parts([(1, 4), (2, 1)]), 9, parts([(2, 4)]));
    let usage = Account::Usage(Meter::Chat);
    let expected = entry(Asset::Usd, [(held(), 9), (usage, -5), (available(2), -4)]);
    assert_eq!(booked(&WalletEvent::CreditsDeducted(event)), [expected]);
}

#[test]
fn what_a_hold_does_not_cover_comes_from_available() {
    // Of the second grant four were kept; the other two, and the third grant's, were free.
    let event = deducted(parts([(1, 4), (2, 6), (3, 1)]), 8, Vec::new());
    let usage = Account::Usage(Meter::Chat);
    let expected = entry(Asset::Usd, [(held(), 8), (available(2), 2), (available(3), 1), (usage, -11)]);
    assert_eq!(booked(&WalletEvent::CreditsDeducted(event)), [expected]);
    // A hold that expired keeps nothing any more.
    let event = deducted(parts([(1, 4)]), 0, Vec::new());
    let expected = entry(Asset::Usd, [(available(1), 4), (Account::Usage(Meter::Chat), -4)]);
    assert_eq!(booked(&WalletEvent::CreditsDeducted(event)), [expected]);
}

#[test]
fn what_went_back_before_events_said_to_which_grants_stands_with_no_grant() {
    let mut event = deducted(parts([(1, 5)]), 9, parts([(1, 4)]));
    event.returned_to = Vec::new();
    let (usage, back) = (Account::Usage(Meter::Chat), Account::Unallocated(tenant()));
    let expected = entry(Asset::Usd, [(held(), 9), (usage, -5), (back.clone(), -4)]);
    assert_eq!(booked(&WalletEvent::CreditsDeducted(event)), [expected]);
    assert_eq!(booked(&released(Vec::new())), [entry(Asset::Usd, [(held(), 9), (back, -9)])]);
    let expected = entry(Asset::Usd, [(held(), 9), (available(1), -4), (available(2), -5)]);
    assert_eq!(booked(&released(parts([(1, 4), (2, 5)]))), [expected]);
}

fn released(returned_to: Vec<Allocation>) -> WalletEvent {
    WalletEvent::HoldReleased(HoldReleased {
        hold_id: hold_id(),
        usage_id: usage_id(),
        asset: Asset::Usd,
        amount: units(9),
        returned_to,
        cause: ReleaseCause::Voided,
        available_after: Units::ZERO,
    })
}

#[test]
fn what_was_paid_is_earned_as_credit_is_used_and_owed_again_when_it_comes_back() {
    let usage = Account::Usage(Meter::Voice);
    let spent = |asset, released| {
        let mut event = deducted(parts([(1, 20)]), 0, Vec::new());
        (event.asset, event.meter, event.released) = (asset, Meter::Voice, released);
        booked(&WalletEvent::CreditsDeducted(event))
    };
    let (deferred, issued) = (Account::Deferred(PURCHASE), Account::Issued(PURCHASE));
    let dollars = [(available(1), 20), (usage.clone(), -20), (deferred.clone(), 8), (issued.clone(), -8)];
    assert_eq!(spent(Asset::Usd, costs([(PURCHASE, 8)])), [entry(Asset::Usd, dollars)]);
    let money = entry(Asset::Usd, [(deferred.clone(), 8), (usage.clone(), -8)]);
    let phone = entry(Asset::Credit, [(available(1), 20), (usage.clone(), -20)]);
    assert_eq!(spent(Asset::Credit, costs([(PURCHASE, 8)])), [money, phone]);

    let back = |asset| {
        booked(&WalletEvent::DeductionReversed(DeductionReversed {
            usage_id: usage_id(),
            meter: Meter::Voice,
            asset,
            amount: units(20),
            allocations: parts([(1, 20)]),
            reason: "wrong".to_owned(),
            released: costs([(PURCHASE, -8)]),
            available_after: Units::ZERO,
        }))
    };
    let dollars = [(usage.clone(), 20), (available(1), -20), (issued, 8), (deferred.clone(), -8)];
    assert_eq!(back(Asset::Usd), [entry(Asset::Usd, dollars)]);
    let money = entry(Asset::Usd, [(usage.clone(), 8), (deferred, -8)]);
    assert_eq!(back(Asset::Credit), [money, entry(Asset::Credit, [(usage, 20), (available(1), -20)])]);
}

#[test]
fn what_expires_is_breakage_and_counts_from_the_grants_own_end() {
    let expired = |asset| {
        WalletEvent::GrantExpired(GrantExpired {
            grant_id: grant_id(1),
            asset,
            amount: units(20),
            expired_at: Some(at(100)),
            released: costs([(GrantKind::Subscription, 8)]),
            available_after: Units::ZERO,
        })
    };
    let deferred = (Account::Deferred(GrantKind::Subscription), 8);
    let credit = [(available(1), 20), (Account::Breakage, -20)];
    let money = entry(Asset::Usd, [deferred.clone(), (Account::Breakage, -8)]);
    assert_eq!(booked(&expired(Asset::Credit)), [money, entry(Asset::Credit, credit.clone())]);
    let [one, two] = credit;
    let issued = (Account::Issued(GrantKind::Subscription), -8);
    assert_eq!(booked(&expired(Asset::Usd)), [entry(Asset::Usd, [one, two, deferred, issued])]);
    assert_eq!(effective_at(&expired(Asset::Usd), at(500)), at(100));
}

#[test]
fn claims_and_what_undoes_them_stand_against_what_is_paid_back() {
    let voided = WalletEvent::GrantVoided(GrantVoided {
        grant_id: grant_id(1),
        asset: Asset::Credit,
        claimed: units(50),
        amount: units(20),
        source_ref: "dispute:dp_1".to_owned(),
        released: costs([(PURCHASE, 8)]),
        available_after: Units::ZERO,
    });
    let deferred = Account::Deferred(PURCHASE);
    let money = entry(Asset::Usd, [(deferred.clone(), 8), (Account::Voided, -8)]);
    assert_eq!(booked(&voided), [money, entry(Asset::Credit, [(available(1), 20), (Account::Voided, -20)])]);
    let restored = WalletEvent::GrantRestored(GrantRestored {
        grant_id: grant_id(1),
        asset: Asset::Credit,
        amount: units(35),
        debt_cancelled: units(15),
        source_ref: "dispute:dp_1".to_owned(),
        released: costs([(PURCHASE, -14)]),
        available_after: Units::ZERO,
        debt_after: Units::ZERO,
    });
    let money = entry(Asset::Usd, [(Account::Voided, 14), (deferred, -14)]);
    let credit = [(Account::Voided, 50), (available(1), -35), (Account::Debt(tenant()), -15)];
    assert_eq!(booked(&restored), [money, entry(Asset::Credit, credit)]);
}

#[test]
fn debt_stands_against_what_led_to_it() {
    let incurred = |cause, meter| {
        booked(&WalletEvent::DebtIncurred(DebtIncurred {
            asset: Asset::Credit,
            amount: units(5),
            cause,
            meter,
            source_ref: String::new(),
            debt_after: units(5),
        }))
    };
    let debt = Account::Debt(tenant());
    let against = |account| [entry(Asset::Credit, [(debt.clone(), 5), (account, -5)])];
    let inbound = Account::Usage(Meter::SmsInbound);
    assert_eq!(incurred(DebtCause::InboundWithoutCredit, Some(Meter::SmsInbound)), against(inbound));
    assert_eq!(incurred(DebtCause::Overrun, None), against(Account::Usage(Meter::Chat)));
    assert_eq!(incurred(DebtCause::Refund, None), against(Account::Voided));
    assert_eq!(incurred(DebtCause::Dispute, None), against(Account::Voided));
    let repaid = |asset| {
        booked(&WalletEvent::DebtRepaid(DebtRepaid {
            asset,
            amount: units(5),
            grant_id: grant_id(1),
            released: costs([(PURCHASE, 2)]),
            debt_after: Units::ZERO,
            available_after: Units::ZERO,
        }))
    };
    let (deferred, issued) = ((Account::Deferred(PURCHASE), 2), (Account::Issued(PURCHASE), -2));
    let dollars = [(available(1), 5), (debt.clone(), -5), deferred.clone(), issued];
    assert_eq!(repaid(Asset::Usd), [entry(Asset::Usd, dollars)]);
    let money = entry(Asset::Usd, [deferred, (Account::Voided, -2)]);
    assert_eq!(repaid(Asset::Credit), [money, entry(Asset::Credit, [(available(1), 5), (debt, -5)])]);
}

#[test]
fn what_a_correction_takes_stands_against_its_reason_and_counts_from_its_own_date() {
    let taken = WalletEvent::CreditsTaken(CreditsTaken {
        adjustment_id: crate::AdjustmentId(Uuid::from_u128(4)),
        asset: Asset::Usd,
        amount: units(9),
        allocations: parts([(1, 4), (2, 5)]),
        reason: AdjustmentReason::Fraud,
        released: costs([(PURCHASE, 4)]),
        effective_at: at(30),
        available_after: Units::ZERO,
    });
    assert_eq!(effective_at(&taken, at(500)), at(30));
    let (deferred, issued) = ((Account::Deferred(PURCHASE), 4), (Account::Issued(PURCHASE), -4));
    let against = (Account::Adjustment(AdjustmentReason::Fraud), -9);
    let expected = entry(Asset::Usd, [(available(1), 4), (available(2), 5), against, deferred, issued]);
    assert_eq!(booked(&taken), [expected]);
}

#[test]
fn a_provider_is_owed_what_it_charges_unless_it_charges_the_tenant() {
    let usage = |byok| UsageRecorded {
        usage_id: usage_id(),
        meter: Meter::Chat,
        api_key_id: None,
        provider: "openai".to_owned(),
        model: "gpt-4".to_owned(),
        prompt_tokens: 1,
        completion_tokens: 1,
        cached_tokens: 0,
        cache_write_tokens: 0,
        cache_write_hour_tokens: 0,
        reasoning_tokens: 0,
        provider_cost: MicroUsd::new(30),
        markup: MicroUsd::new(9),
        total: MicroUsd::new(39),
        byok,
        estimated: false,
        price_book_version: "1".to_owned(),
        latency_ms: 1,
        task_type: "chat".to_owned(),
        outcome: UsageOutcome::Completed,
        failed_attempts: Vec::new(),
    };
    let expected = entry(Asset::Usd, [(Account::provider("openai"), 30), (Account::OutOfBand, -30)]);
    assert_eq!(booked(&WalletEvent::UsageRecorded(usage(false))), [expected]);
    assert_eq!(booked(&WalletEvent::UsageRecorded(usage(true))), []);
}

#[test]
fn what_moves_nothing_has_no_entry_and_everything_else_counts_from_its_own_date() {
    let events = [
        WalletEvent::WalletOpened(WalletOpened { tenant_id: tenant(), opened_at: at(1) }),
        WalletEvent::WalletFrozen(WalletFrozen { cause: FreezeCause::Fraud, source_ref: None }),
        WalletEvent::WalletThawed(WalletThawed { cause: FreezeCause::Fraud, source_ref: None }),
    ];
    for event in events {
        assert_eq!(effective_at(&event, at(500)), at(500));
        assert_eq!(booked(&event), []);
    }
    assert_eq!(effective_at(&WalletEvent::CreditsGranted(granted(Asset::Usd, 1, 0, "x")), at(500)), at(5));
    assert_eq!(effective_at(&WalletEvent::HoldPlaced(placed(1, parts([(1, 1)]))), at(500)), at(7));
    assert_eq!(effective_at(&released(Vec::new()), at(500)), at(500));
}

fn received(via: PaymentVia, gross: i64, fee: i64) -> PaymentEvent {
    PaymentEvent::PaymentReceived(PaymentReceived {
        payment_ref: "in_1".to_owned(),
        kind: PaymentKind::Subscription,
        asset: Asset::Credit,
        units: units(1_000),
        gross: MicroUsd::new(gross),
        fee: MicroUsd::new(fee),
        grant_id: grant_id(1),
        expires_at: None,
        via,
        occurred_at: at(0),
    })
}

#[test]
fn a_payment_is_owed_in_whole_and_stripe_keeps_its_fee() {
    let usd = |event: PaymentEvent| payment_entries(&event).expect("the fact is sound");
    let (deferred, fees) = (Account::Deferred(GrantKind::Subscription), Account::StripeFees);
    let expected = entry(Asset::Usd, [(Account::StripeBalance, 28), (deferred.clone(), -29), (fees.clone(), 1)]);
    assert_eq!(usd(received(PaymentVia::Stripe, 29, 1)), [expected]);
    // A fee may be more than what was paid.
    let expected = entry(Asset::Usd, [(Account::StripeBalance, -1), (deferred.clone(), -2), (fees, 3)]);
    assert_eq!(usd(received(PaymentVia::Stripe, 2, 3)), [expected]);
    let expected = entry(Asset::Usd, [(Account::OutOfBand, 29), (deferred, -29)]);
    assert_eq!(usd(received(PaymentVia::OutOfBand, 29, 0)), [expected]);
    assert_eq!(usd(received(PaymentVia::Stripe, 0, 0)), []);
}

#[test]
fn refunds_disputes_and_payouts_move_money_and_no_credit() {
    let (payment_ref, dispute_ref) = ("in_1".to_owned(), "dp_1".to_owned());
    let amount = MicroUsd::new(29);
    let occurred_at = at(0);
    let refunded = |via| {
        let (payment_ref, refund_ref) = ("in_1".to_owned(), "re_1".to_owned());
        let units = units(1_000);
        PaymentEvent::PaymentRefunded(PaymentRefunded { payment_ref, refund_ref, amount, units, via, occurred_at })
    };
    let opened = DisputeOpened {
        payment_ref: payment_ref.clone(),
        dispute_ref: dispute_ref.clone(),
        amount,
        fee: MicroUsd::new(15),
        units: units(1_000),
        occurred_at,
    };
    let won = DisputeWon { payment_ref: payment_ref.clone(), dispute_ref: dispute_ref.clone(), amount, occurred_at };
    let lost = DisputeLost { payment_ref, dispute_ref, amount, occurred_at };
    let (stripe, disputed) = (Account::StripeBalance, Account::StripeDisputed);
    let table = [
        (refunded(PaymentVia::Stripe), entry(Asset::Usd, [(Account::Voided, 29), (stripe.clone(), -29)])),
        (refunded(PaymentVia::OutOfBand), entry(Asset::Usd, [(Account::Voided, 29), (Account::OutOfBand, -29)])),
        (
            PaymentEvent::DisputeOpened(opened),
            entry(Asset::Usd, [(disputed.clone(), 29), (stripe.clone(), -44), (Account::DisputeLoss, 15)]),
        ),
        (PaymentEvent::DisputeWon(won), entry(Asset::Usd, [(stripe.clone(), 29), (disputed.clone(), -29)])),
        (PaymentEvent::DisputeLost(lost), entry(Asset::Usd, [(Account::Voided, 29), (disputed, -29)])),
    ];
    for (event, expected) in table {
        assert_eq!(payment_entries(&event), Ok(vec![expected]));
    }
    let payout = |amount| {
        let (payout_ref, amount) = ("po_1".to_owned(), MicroUsd::new(amount));
        payout_entries(&PayoutEvent::PayoutSent(PayoutSent { payout_ref, amount, occurred_at }))
    };
    assert_eq!(payout(9), Ok(vec![entry(Asset::Usd, [(Account::Bank, 9), (stripe.clone(), -9)])]));
    assert_eq!(payout(-9), Ok(vec![entry(Asset::Usd, [(stripe, 9), (Account::Bank, -9)])]));
}
