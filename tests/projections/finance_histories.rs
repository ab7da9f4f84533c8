//! Generated histories beside the wallets: payments and what follows them, and what finance does.

use calos_domain::adjustment::{
    AdjustmentApplied, AdjustmentApproved, AdjustmentEvent, AdjustmentLapsed, AdjustmentProposed, AdjustmentRejected,
};
use calos_domain::ledger_access::{LedgerAccessEvent, LedgerView, LedgerViewed};
use calos_domain::operation::PartitionPosition;
use calos_domain::payment::{
    DisputeLost, DisputeOpened, DisputeWon, PaymentEvent, PaymentKind, PaymentReceived, PaymentRefunded, PaymentVia,
    PayoutEvent, PayoutSent,
};
use calos_domain::period::{ClosedLine, Month, PeriodClosed, PeriodEvent};
use calos_domain::reconciliation::{
    Exception, ExceptionAssigned, ExceptionKind, ExceptionResolved, ReconciliationEvent, ReconciliationRun, Resolution,
    Side,
};
use calos_domain::wallet::AdjustmentReason;
use calos_domain::{AdjustmentId, Asset, GrantId, MicroUsd, ReconciliationId, TenantId, Timestamp, Units, UserId};

use crate::histories::Dice;
use crate::raw_log::Raw;

fn dollars(dice: &mut Dice, bound: u64) -> MicroUsd {
    MicroUsd::new(1 + i64::try_from(dice.below(bound)).expect("small"))
}

fn later(dice: &mut Dice, at: Timestamp) -> Timestamp {
    at.plus_seconds(i64::try_from(dice.below(90_000)).expect("small"))
}

/// A payment of a tenant, now and then refunded in part or disputed.
pub fn payment(dice: &mut Dice, tenant: TenantId, at: Timestamp) -> Vec<Raw> {
    let payment_ref = format!("pi_{}", dice.uuid().simple());
    let fee = dollars(dice, 90);
    let received = PaymentEvent::PaymentReceived(PaymentReceived {
        payment_ref: payment_ref.clone(),
        kind: if dice.below(2) == 0 { PaymentKind::Purchase } else { PaymentKind::Subscription },
        asset: if dice.below(2) == 0 { Asset::Usd } else { Asset::Credit },
        units: Units::new(500),
        gross: MicroUsd::new(fee.get() + 100),
        fee,
        grant_id: GrantId(dice.uuid_v7(at)),
        expires_at: None,
        via: PaymentVia::Stripe,
        occurred_at: at,
    });
    let mut events = vec![received];
    if dice.below(3) == 0 {
        events.push(PaymentEvent::PaymentRefunded(PaymentRefunded {
            payment_ref: payment_ref.clone(),
            refund_ref: format!("re_{}", dice.uuid().simple()),
            amount: dollars(dice, 50),
            units: Units::new(10),
            via: if dice.below(2) == 0 { PaymentVia::OutOfBand } else { PaymentVia::Stripe },
            occurred_at: later(dice, at),
        }));
    }
    if dice.below(3) == 0 {
        let dispute_ref = format!("dp_{}", dice.uuid().simple());
        let (amount, occurred_at) = (dollars(dice, 90), later(dice, at));
        events.push(PaymentEvent::DisputeOpened(DisputeOpened {
            payment_ref: payment_ref.clone(),
            dispute_ref: dispute_ref.clone(),
            amount,
            fee: MicroUsd::new(15),
            units: Units::new(100),
            occurred_at,
        }));
        let occurred_at = later(dice, occurred_at);
        let payment_ref = payment_ref.clone();
        events.push(if dice.below(2) == 0 {
            PaymentEvent::DisputeWon(DisputeWon { payment_ref, dispute_ref, amount, occurred_at })
        } else {
            PaymentEvent::DisputeLost(DisputeLost { payment_ref, dispute_ref, amount, occurred_at })
        });
    }
    let stream = format!("{tenant}/{payment_ref}");
    events.iter().map(|event| Raw::of("payment", &stream, event)).collect()
}

/// Money on its way to the bank.
pub fn payout(dice: &mut Dice, at: Timestamp) -> Vec<Raw> {
    let payout_ref = format!("po_{}", dice.uuid().simple());
    let amount = MicroUsd::new(dollars(dice, 900).get() * if dice.below(5) == 0 { -1 } else { 1 });
    let stream = format!("payout/{payout_ref}");
    vec![Raw::of("payout", &stream, &PayoutEvent::PayoutSent(PayoutSent { payout_ref, amount, occurred_at: at }))]
}

/// A correction of a wallet, however it ends; and staff who look at the ledger.
pub fn adjustment(dice: &mut Dice, tenant: TenantId, at: Timestamp) -> Vec<Raw> {
    let adjustment_id = AdjustmentId(dice.uuid_v7(at));
    let by = |dice: &mut Dice| UserId(dice.uuid());
    let proposed = AdjustmentEvent::AdjustmentProposed(AdjustmentProposed {
        adjustment_id,
        tenant_id: tenant,
        asset: Asset::Usd,
        amount: Units::new(i64::try_from(dice.below(2_000)).expect("small") - 1_000),
        reason: AdjustmentReason::BillingError,
        evidence: "ticket \"17\", é".to_owned(),
        effective_at: at,
        proposed_by: by(dice),
        proposed_at: at,
        lapses_at: at.plus_seconds(7 * 86_400),
        approvals_needed: 2,
    });
    let mut events = vec![proposed];
    for _ in 0..dice.below(3) {
        events.push(AdjustmentEvent::AdjustmentApproved(AdjustmentApproved { by: by(dice), at: later(dice, at) }));
    }
    let at = later(dice, at);
    match dice.below(4) {
        0 => {
            let grant_id = (dice.below(2) == 0).then(|| GrantId(dice.uuid_v7(at)));
            events.push(AdjustmentEvent::AdjustmentApplied(AdjustmentApplied { at, grant_id }));
        }
        1 => {
            let reason = "not \"ours\"".to_owned();
            events.push(AdjustmentEvent::AdjustmentRejected(AdjustmentRejected { by: by(dice), reason, at }));
        }
        2 => events.push(AdjustmentEvent::AdjustmentLapsed(AdjustmentLapsed { at })),
        _ => {}
    }
    let stream = format!("{tenant}/{adjustment_id}");
    let mut all: Vec<Raw> = events.iter().map(|event| Raw::of("adjustment", &stream, event)).collect();
    let looked = LedgerViewed { by: by(dice), what: LedgerView::Journal, at };
    all.push(Raw::of("ledger_access", &format!("{tenant}/access"), &LedgerAccessEvent::LedgerViewed(looked)));
    all
}

/// A comparison with what Stripe says, some of whose exceptions somebody looks after.
pub fn reconciliation(dice: &mut Dice, at: Timestamp) -> Vec<Raw> {
    let id = ReconciliationId(dice.uuid_v7(at));
    let side =
        |dice: &mut Dice| (dice.below(3) > 0).then(|| Side { amount: dollars(dice, 99), fee: dollars(dice, 9), at });
    let kinds =
        [ExceptionKind::MissingHere, ExceptionKind::MissingThere, ExceptionKind::Different, ExceptionKind::Duplicate];
    let exceptions: Vec<Exception> = (1..)
        .zip(kinds)
        .map(|(number, kind)| Exception {
            number,
            kind,
            reference: format!("txn_{number}"),
            ours: side(dice),
            theirs: side(dice),
        })
        .collect();
    let mut events = vec![ReconciliationEvent::ReconciliationRun(ReconciliationRun {
        reconciliation_id: id,
        source: "stripe".to_owned(),
        from: at.plus_seconds(-86_400),
        to: at,
        matched: dice.below(90),
        found: 4,
        exceptions,
        outside: 2,
        statement_hash: "00".repeat(32),
        run_by: UserId(dice.uuid()),
        run_at: at,
    })];
    for _ in 0..dice.below(6) {
        let number = 1 + u32::try_from(dice.below(4)).expect("small");
        let (by, at) = (UserId(dice.uuid()), later(dice, at));
        events.push(if dice.below(2) == 0 {
            let owner = UserId(dice.uuid());
            ReconciliationEvent::ExceptionAssigned(ExceptionAssigned { number, owner, by, at })
        } else {
            let (resolution, note) = (Resolution::Timing, "it came a day later".to_owned());
            ReconciliationEvent::ExceptionResolved(ExceptionResolved { number, resolution, note, by, at })
        });
    }
    let stream = format!("reconciliation/{id}");
    events.iter().map(|event| Raw::of("reconciliation", &stream, event)).collect()
}

/// Two months that are closed.
pub fn months(dice: &mut Dice, at: Timestamp) -> Vec<Raw> {
    let mut previous_hash = None;
    let mut events = Vec::new();
    for month in ["2025-08", "2025-09"] {
        let hash = dice.uuid().simple().to_string();
        let line =
            |account: &str, debit, credit| ClosedLine { account: account.to_owned(), asset: Asset::Usd, debit, credit };
        let closed = PeriodClosed {
            month: month.parse::<Month>().expect("a month"),
            closed_by: UserId(dice.uuid()),
            closed_at: at,
            as_known_at: at,
            heads: vec![PartitionPosition { partition: 0, position: 7 }],
            lines: vec![line("Assets:Bank", 5, 0), line("Assets:Stripe:Balance", 0, 5)],
            hash: hash.clone(),
            previous_hash: previous_hash.replace(hash),
        };
        events.push(Raw::of("period", &"periods", &PeriodEvent::PeriodClosed(closed)));
    }
    events
}
