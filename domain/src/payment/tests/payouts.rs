//! Payouts: recorded once.

use super::*;

fn sent(payout_ref: &str, amount: i64) -> PayoutSent {
    PayoutSent { payout_ref: payout_ref.to_owned(), amount: usd(amount), occurred_at: at(0) }
}

fn record(sent: PayoutSent) -> RecordPayout {
    RecordPayout { sent, at: at(0) }
}

#[test]
fn a_payout_is_recorded_once() {
    let mut payout = Payout::default();
    let events = payout.decide(record(sent("po_1", -5))).unwrap();
    assert_eq!(events, [PayoutEvent::PayoutSent(sent("po_1", -5))]);
    payout.evolve(&events[0]);
    assert_eq!(payout.sent(), Some(&sent("po_1", -5)));
    assert_eq!(payout.decide(record(sent("po_1", -5))), Ok(Vec::new()));
    let other = PayoutRefusal::OtherContent("po_1".to_owned());
    assert_eq!(payout.decide(record(sent("po_1", 5))), Err(other));
    assert_eq!(payout_stream("po_1").as_str(), "payout/po_1");
}

#[test]
fn an_impossible_payout_is_refused() {
    let payout = Payout::default();
    assert_eq!(payout.decide(record(sent("", 5))), Err(PayoutRefusal::NoReference(String::new())));
    for amount in [0, i64::MIN] {
        assert_eq!(payout.decide(record(sent("po_1", amount))), Err(PayoutRefusal::NoAmount(usd(amount))));
    }
    let early = RecordPayout { sent: sent("po_1", 5), at: at(-301) };
    assert_eq!(payout.decide(early), Err(PayoutRefusal::NotYet { occurred_at: at(0), at: at(-301) }));
}
