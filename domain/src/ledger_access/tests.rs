use uuid::Uuid;

use super::*;
use crate::{Decider, Timestamp, UserId};

#[test]
fn every_look_is_recorded_also_the_same_one_again() {
    let mut access = LedgerAccess::default();
    let (by, at) = (UserId(Uuid::from_u128(1)), Timestamp::from_micros(7));
    for what in LedgerView::ALL.into_iter().chain([LedgerView::Balance]) {
        let events = access.decide(LedgerAccessCommand::RecordView { by, what, at }).unwrap();
        assert_eq!(events, [LedgerAccessEvent::LedgerViewed(LedgerViewed { by, what, at })]);
        events.iter().for_each(|event| access.evolve(event));
    }
    assert_eq!(access, LedgerAccess::default(), "no look changes what the next one leads to");
}

#[test]
fn what_is_looked_at_is_stored_under_the_name_it_is_shown_by() {
    for view in LedgerView::ALL {
        assert_eq!(serde_json::to_value(view).unwrap(), view.as_str());
    }
}
