//! Given the facts recorded so far, when one more comes in, then it is recorded, or refused, and this follows from it.

mod books;
mod effects;
mod orders;
mod payouts;
mod world;

use uuid::Uuid;

use super::*;
use crate::{Asset, Decider, GrantId, MicroUsd, TenantId, Timestamp, Units};

/// A moment, in seconds after the start.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_760_000_000_000_000).plus_seconds(seconds)
}

fn tenant() -> TenantId {
    TenantId(Uuid::from_u128(0x7e4a47))
}

/// A payment that can be varied: 50 dollars' worth of units for 50, without a fee.
#[derive(Clone, Copy)]
struct Bought {
    n: u128,
    kind: PaymentKind,
    asset: Asset,
    units: i64,
    gross: i64,
    fee: i64,
    expires: Option<i64>,
    via: PaymentVia,
    occurred: i64,
}

const BOUGHT: Bought = Bought {
    n: 1,
    kind: PaymentKind::Purchase,
    asset: Asset::Usd,
    units: 50,
    gross: 50,
    fee: 0,
    expires: None,
    via: PaymentVia::Stripe,
    occurred: 0,
};

impl Bought {
    fn reference(self) -> String {
        format!("in_{}", self.n)
    }

    fn grant_id(self) -> GrantId {
        GrantId(Uuid::from_u128(self.n))
    }

    fn received(self) -> PaymentFact {
        PaymentFact::PaymentReceived(PaymentReceived {
            payment_ref: self.reference(),
            kind: self.kind,
            asset: self.asset,
            units: Units::new(self.units),
            gross: MicroUsd::new(self.gross),
            fee: MicroUsd::new(self.fee),
            grant_id: self.grant_id(),
            expires_at: self.expires.map(at),
            via: self.via,
            occurred_at: at(self.occurred),
        })
    }

    fn refund(self, name: &str, amount: i64, units: i64) -> PaymentFact {
        PaymentFact::PaymentRefunded(PaymentRefunded {
            payment_ref: self.reference(),
            refund_ref: name.to_owned(),
            amount: MicroUsd::new(amount),
            units: Units::new(units),
            via: PaymentVia::Stripe,
            occurred_at: at(self.occurred),
        })
    }

    fn opened(self, name: &str, amount: i64, units: i64) -> PaymentFact {
        PaymentFact::DisputeOpened(DisputeOpened {
            payment_ref: self.reference(),
            dispute_ref: name.to_owned(),
            amount: MicroUsd::new(amount),
            fee: MicroUsd::new(15),
            units: Units::new(units),
            occurred_at: at(self.occurred),
        })
    }

    fn won(self, name: &str, amount: i64) -> PaymentFact {
        PaymentFact::DisputeWon(DisputeWon {
            payment_ref: self.reference(),
            dispute_ref: name.to_owned(),
            amount: MicroUsd::new(amount),
            occurred_at: at(self.occurred),
        })
    }

    fn lost(self, name: &str, amount: i64) -> PaymentFact {
        PaymentFact::DisputeLost(DisputeLost {
            payment_ref: self.reference(),
            dispute_ref: name.to_owned(),
            amount: MicroUsd::new(amount),
            occurred_at: at(self.occurred),
        })
    }
}

/// A payment with these facts, each of which must be recorded.
fn given<const N: usize>(facts: [PaymentFact; N]) -> Payment {
    let mut payment = Payment::default();
    for fact in facts {
        assert_eq!(when(&mut payment, fact.clone()), Ok(vec![fact]));
    }
    payment
}

/// Records a fact, checks that repeating it at once, or much later, changes nothing, and leaves the state as it then is.
fn when(payment: &mut Payment, fact: PaymentFact) -> Result<Vec<PaymentEvent>, FactRefusal> {
    let decided = payment.decide(RecordFact { fact: fact.clone(), at: at(1) });
    if let Ok(events) = &decided {
        for event in events {
            payment.evolve(event);
        }
        assert_eq!(payment.decide(RecordFact { fact, at: at(9_999) }), Ok(Vec::new()), "a repetition is not a no-op");
    }
    decided
}

fn refused(payment: &mut Payment, fact: PaymentFact) -> FactRefusal {
    let before = payment.clone();
    let refusal = when(payment, fact).expect_err("not refused");
    assert_eq!(*payment, before);
    refusal
}

fn usd(amount: i64) -> MicroUsd {
    MicroUsd::new(amount)
}

#[test]
fn facts_are_recorded_in_any_order() {
    let facts = [
        BOUGHT.received(),
        BOUGHT.refund("re_1", 20, 20),
        BOUGHT.opened("dp_1", 30, 30),
        BOUGHT.won("dp_1", 30),
        BOUGHT.opened("dp_2", 50, 50),
        BOUGHT.lost("dp_2", 50),
    ];
    let forwards = given(facts.clone());
    let mut backwards = facts;
    backwards.reverse();
    let backwards = given(backwards);
    assert_eq!((forwards.received(), forwards.refunds()), (backwards.received(), backwards.refunds()));
    assert_eq!(forwards.disputes(), backwards.disputes());
    assert_eq!(forwards.refunded(), usd(20));
}

#[test]
fn the_same_reference_with_other_content_is_refused() {
    let mut payment = given([
        BOUGHT.received(),
        BOUGHT.refund("re_1", 20, 20),
        BOUGHT.opened("dp_1", 10, 10),
        BOUGHT.won("dp_1", 10),
    ]);
    let other = |reference: &str| FactRefusal::OtherContent(reference.to_owned());
    let dearer = Bought { gross: 51, ..BOUGHT };
    assert_eq!(refused(&mut payment, dearer.received()), other("in_1"));
    assert_eq!(refused(&mut payment, BOUGHT.refund("re_1", 21, 20)), other("re_1"));
    assert_eq!(refused(&mut payment, BOUGHT.opened("dp_1", 10, 9)), other("dp_1"));
    assert_eq!(refused(&mut payment, BOUGHT.lost("dp_1", 10)), other("dp_1"));
}

#[test]
fn no_refund_and_no_dispute_is_larger_than_the_payment() {
    let mut payment = given([BOUGHT.received(), BOUGHT.refund("re_1", 20, 20)]);
    let paid = usd(50);
    let too_much = FactRefusal::MoreThanPaid { amount: usd(51), paid };
    assert_eq!(refused(&mut payment, BOUGHT.refund("re_2", 31, 30)), too_much);
    assert_eq!(refused(&mut payment, BOUGHT.opened("dp_1", 51, 50)), too_much);
    let granted = Units::new(50);
    let too_many = FactRefusal::MoreThanGranted { units: Units::new(51), granted };
    assert_eq!(refused(&mut payment, BOUGHT.refund("re_2", 30, 31)), too_many);
    assert_eq!(refused(&mut payment, BOUGHT.opened("dp_1", 50, 51)), too_many);
    assert!(when(&mut payment, BOUGHT.refund("re_2", 30, 30)).is_ok());
}

#[test]
fn a_payment_smaller_than_what_was_refunded_or_disputed_before_it_came_is_refused() {
    let mut payment = given([BOUGHT.refund("re_1", 30, 30), BOUGHT.refund("re_2", 30, 10)]);
    assert_eq!(refused(&mut payment, BOUGHT.received()), FactRefusal::MoreThanPaid { amount: usd(60), paid: usd(50) });
    let mut payment = given([BOUGHT.opened("dp_1", 50, 60)]);
    let (units, granted) = (Units::new(60), Units::new(50));
    assert_eq!(refused(&mut payment, BOUGHT.received()), FactRefusal::MoreThanGranted { units, granted });
}

#[test]
fn a_dispute_ends_over_what_it_was_opened_for() {
    let wrong = |opened, closed| FactRefusal::OtherAmount {
        dispute_ref: "dp_1".to_owned(),
        opened: usd(opened),
        closed: usd(closed),
    };
    let mut payment = given([BOUGHT.received(), BOUGHT.opened("dp_1", 30, 30)]);
    assert_eq!(refused(&mut payment, BOUGHT.won("dp_1", 29)), wrong(30, 29));
    assert_eq!(refused(&mut payment, BOUGHT.lost("dp_1", 31)), wrong(30, 31));
    let mut payment = given([BOUGHT.won("dp_1", 29)]);
    assert_eq!(refused(&mut payment, BOUGHT.opened("dp_1", 30, 30)), wrong(30, 29));
}

#[test]
fn impossible_facts_are_refused_with_the_numbers() {
    let mut payment = Payment::default();
    let least = |amount, least| FactRefusal::AmountTooSmall { amount, least };
    let table = [
        (Bought { units: 0, ..BOUGHT }.received(), least(0, 1)),
        (Bought { gross: -1, ..BOUGHT }.received(), least(-1, 0)),
        (Bought { fee: -1, ..BOUGHT }.received(), least(-1, 0)),
        (BOUGHT.refund("re_1", 0, 0), least(0, 1)),
        (BOUGHT.refund("re_1", 1, -1), least(-1, 0)),
        (BOUGHT.opened("dp_1", 0, 0), least(0, 1)),
        (BOUGHT.opened("dp_1", 1, -1), least(-1, 0)),
        (BOUGHT.won("dp_1", 0), least(0, 1)),
        (BOUGHT.lost("dp_1", -3), least(-3, 1)),
        (Bought { via: PaymentVia::OutOfBand, fee: 1, ..BOUGHT }.received(), FactRefusal::FeeOutOfBand { fee: usd(1) }),
        (
            Bought { expires: Some(0), ..BOUGHT }.received(),
            FactRefusal::ImpossibleTerm { occurred_at: at(0), expires_at: at(0) },
        ),
        (Bought { occurred: 302, ..BOUGHT }.received(), FactRefusal::NotYet { occurred_at: at(302), at: at(1) }),
    ];
    for (fact, refusal) in table {
        assert_eq!(refused(&mut payment, fact), refusal);
    }
    assert!(when(&mut payment, Bought { gross: 0, occurred: 301, ..BOUGHT }.received()).is_ok());
}

#[test]
fn a_reference_is_short_and_visible() {
    let longest = "r".repeat(PAYMENT_REF_MAX_BYTES);
    assert!(payment_stream(tenant(), &longest).as_str().len() <= crate::stream::STREAM_ID_MAX_BYTES);
    assert!(is_reference(&longest));
    let mut payment = Payment::default();
    for wrong in ["", "re 1", "re\n1", "ré_1", &"r".repeat(PAYMENT_REF_MAX_BYTES + 1)] {
        assert_eq!(refused(&mut payment, BOUGHT.refund(wrong, 1, 1)), FactRefusal::NoReference(wrong.to_owned()));
    }
}

#[test]
fn a_payment_meets_a_bounded_number_of_refunds_and_disputes() {
    let large = Bought { gross: 1_000, units: 1_000, ..BOUGHT };
    let mut payment = given([large.received()]);
    for n in 0..REFUNDS_PER_PAYMENT_MAX_COUNT {
        assert!(when(&mut payment, large.refund(&format!("re_{n}"), 1, 1)).is_ok());
    }
    let full = FactRefusal::TooMany(REFUNDS_PER_PAYMENT_MAX_COUNT);
    assert_eq!(refused(&mut payment, large.refund("re_x", 1, 1)), full);
    for n in 0..DISPUTES_PER_PAYMENT_MAX_COUNT {
        let name = format!("dp_{n}");
        let fact = if n % 2 == 0 { large.opened(&name, 1, 1) } else { large.won(&name, 1) };
        assert!(when(&mut payment, fact).is_ok());
    }
    let full = FactRefusal::TooMany(DISPUTES_PER_PAYMENT_MAX_COUNT);
    assert_eq!(refused(&mut payment, large.opened("dp_x", 1, 1)), full);
    assert_eq!(refused(&mut payment, large.lost("dp_x", 1)), full);
    // Those that are known may still end.
    assert!(when(&mut payment, large.lost("dp_0", 1)).is_ok());
    assert!(when(&mut payment, large.opened("dp_1", 1, 1)).is_ok());
}
