//! Given what happened, when this is asked, then these events follow, or this refusal.

use uuid::Uuid;

use super::*;
use crate::tiers::Tier;
use crate::{Decider, TenantId, Timestamp, UsageId};

/// Seconds in the test's period.
const PERIOD: i64 = 1_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(0).plus_seconds(seconds)
}

fn usage_id(n: u128) -> UsageId {
    UsageId(Uuid::from_u128(n))
}

fn issue(tier: Tier) -> LicenceCommand {
    let terms = tier.terms();
    LicenceCommand::Issue {
        tenant_id: TenantId(Uuid::from_u128(1)),
        tier,
        markup_percent: terms.markup_percent,
        token_limit: terms.token_limit,
        period_start: at(0),
        period_end: at(PERIOD),
    }
}

fn change(tier: Tier) -> LicenceCommand {
    let terms = tier.terms();
    LicenceCommand::ChangeTier {
        tier,
        markup_percent: terms.markup_percent,
        token_limit: terms.token_limit,
        changed_at: at(5),
    }
}

fn used(n: u128, tokens: u64, seconds: i64) -> LicenceCommand {
    LicenceCommand::RecordTokens { usage_id: usage_id(n), tokens, at: at(seconds) }
}

fn given<const N: usize>(commands: [LicenceCommand; N]) -> Licence {
    let mut licence = Licence::default();
    for command in commands {
        when(&mut licence, command).unwrap();
    }
    licence
}

/// Decides, applies, and checks that a repetition changes nothing.
fn when(licence: &mut Licence, command: LicenceCommand) -> Result<Vec<LicenceEvent>, LicenceRefusal> {
    let events = licence.decide(command)?;
    for event in &events {
        licence.evolve(event);
    }
    assert_eq!(licence.decide(command), Ok(Vec::new()));
    Ok(events)
}

#[test]
fn nothing_may_be_used_without_a_licence() {
    let mut licence = Licence::default();
    assert_eq!(licence.may_use(at(1)), Err(LicenceRefusal::NotIssued));
    for command in [change(Tier::Pro), used(1, 1, 1)] {
        assert_eq!(when(&mut licence, command), Err(LicenceRefusal::NotIssued));
    }
    assert_eq!((licence.tier(), licence.markup_percent(), licence.tokens_used_in(at(1))), (None, 0, 0));
}

#[test]
fn a_licence_is_issued_once() {
    let mut licence = Licence::default();
    let events = when(&mut licence, issue(Tier::Free)).unwrap();
    assert_eq!(
        events,
        [LicenceEvent::LicenceIssued(LicenceIssued {
            tenant_id: TenantId(Uuid::from_u128(1)),
            tier: Tier::Free,
            markup_percent: 0,
            token_limit: Some(100_000),
            period_start: at(0),
            period_end: at(PERIOD),
            status: LicenceStatus::Active,
        })]
    );
    assert_eq!(when(&mut licence, issue(Tier::Pro)), Err(LicenceRefusal::AlreadyIssued));
    assert_eq!(licence.may_use(at(1)), Ok(()));
}

#[test]
fn a_period_must_take_time() {
    let command = LicenceCommand::Issue {
        tenant_id: TenantId(Uuid::from_u128(1)),
        tier: Tier::Free,
        markup_percent: 0,
        token_limit: None,
        period_start: at(5),
        period_end: at(5),
    };
    let refusal = LicenceRefusal::ImpossiblePeriod { start: at(5), end: at(5) };
    assert_eq!(when(&mut Licence::default(), command), Err(refusal));
}

#[test]
fn a_change_of_tier_changes_the_terms_and_keeps_the_count() {
    let mut licence = given([issue(Tier::Free), used(1, 99_000, 1)]);
    let events = when(&mut licence, change(Tier::Pro)).unwrap();
    assert_eq!(
        events,
        [LicenceEvent::TierChanged(TierChanged {
            from: Tier::Free,
            to: Tier::Pro,
            markup_percent: 30,
            token_limit: Some(10_000_000),
            changed_at: at(5),
        })]
    );
    assert_eq!((licence.tier(), licence.markup_percent()), (Some(Tier::Pro), 30));
    assert_eq!(licence.tokens_used_in(at(6)), 99_000);
    // The licence as it was issued still answers a repetition of that.
    assert_eq!(when(&mut licence, issue(Tier::Free)), Ok(Vec::new()));
}

#[test]
fn an_agreement_of_its_own_is_a_change_within_the_tier() {
    let mut licence = given([issue(Tier::Enterprise)]);
    let agreed = LicenceCommand::ChangeTier {
        tier: Tier::Enterprise,
        markup_percent: 10,
        token_limit: Some(5),
        changed_at: at(1),
    };
    assert_eq!(when(&mut licence, agreed).unwrap().len(), 1);
    assert_eq!((licence.markup_percent(), licence.token_limit()), (10, Some(5)));
}

#[test]
fn tokens_are_counted_once_per_use() {
    let mut licence = given([issue(Tier::Free), used(1, 40, 1)]);
    let events = when(&mut licence, used(2, 2, 1)).unwrap();
    assert_eq!(
        events,
        [LicenceEvent::TokensUsed(TokensUsed {
            usage_id: usage_id(2),
            tokens: 2,
            period_start: at(0),
            used_after: 42,
        })]
    );
    let refusal = LicenceRefusal::UsageReused { usage_id: usage_id(1), counted: 40, given: 41 };
    assert_eq!(when(&mut licence, used(1, 41, 1)), Err(refusal));
}

#[test]
fn the_limit_is_reached_exactly_and_raised_by_the_tier() {
    let mut licence = given([issue(Tier::Free), used(1, 99_999, 1)]);
    assert_eq!(licence.may_use(at(2)), Ok(()));
    when(&mut licence, used(2, 1, 2)).unwrap();
    let refusal = LicenceRefusal::TokensUsedUp { used: 100_000, limit: 100_000, period_end: at(PERIOD) };
    assert_eq!(licence.may_use(at(3)), Err(refusal.clone()));
    assert_eq!(refusal.to_string(), "used 100000 tokens of 100000");
    // What is used is used: it is counted beyond the limit too.
    when(&mut licence, used(3, 50, 3)).unwrap();
    when(&mut licence, change(Tier::Starter)).unwrap();
    assert_eq!(licence.may_use(at(4)), Ok(()));
    when(&mut licence, change(Tier::Enterprise)).unwrap();
    assert_eq!(licence.may_use(at(4)), Ok(()));
}

#[test]
fn the_count_begins_anew_with_the_period() {
    let mut licence = given([issue(Tier::Free), used(1, 100_000, 1)]);
    assert!(licence.may_use(at(PERIOD - 1)).is_err());
    assert_eq!(licence.may_use(at(PERIOD)), Ok(()));
    assert_eq!((licence.tokens_used_in(at(PERIOD - 1)), licence.tokens_used_in(at(PERIOD))), (100_000, 0));
    // Nothing was used for a while: the period is the one the moment falls into, not merely the next.
    let events = when(&mut licence, used(2, 7, 3 * PERIOD + 5)).unwrap();
    let LicenceEvent::TokensUsed(counted) = &events[0] else { panic!("{events:?}") };
    assert_eq!((counted.period_start, counted.used_after), (at(3 * PERIOD), 7));
    let period = licence.period_at(at(3 * PERIOD + 6)).unwrap();
    assert_eq!((period.start, period.end), (at(3 * PERIOD), at(4 * PERIOD)));
    // A clock behind counts in the period that is open.
    when(&mut licence, used(3, 3, 3 * PERIOD - 1)).unwrap();
    assert_eq!(licence.tokens_used_in(at(3 * PERIOD)), 10);
}

#[test]
fn a_suspended_licence_may_not_be_used() {
    for status in [LicenceStatus::Suspended, LicenceStatus::Cancelled] {
        let mut licence = Licence::default();
        licence.evolve(&LicenceEvent::LicenceIssued(LicenceIssued {
            tenant_id: TenantId(Uuid::from_u128(1)),
            tier: Tier::Pro,
            markup_percent: 30,
            token_limit: None,
            period_start: at(0),
            period_end: at(PERIOD),
            status,
        }));
        assert_eq!(licence.may_use(at(1)), Err(LicenceRefusal::NotActive { status }));
    }
}

#[test]
fn a_count_beyond_all_numbers_is_refused() {
    let mut licence = given([issue(Tier::Enterprise), used(1, i64::MAX.cast_unsigned(), 1)]);
    for tokens in [1, u64::MAX] {
        let refusal = LicenceRefusal::OutOfRange { used: i64::MAX.cast_unsigned(), tokens };
        assert_eq!(when(&mut licence, used(2, tokens, 1)), Err(refusal));
    }
}

#[test]
fn the_memory_of_uses_is_bounded_and_survives_the_snapshot() {
    let mut licence = given([issue(Tier::Enterprise)]);
    let bound = USAGES_REMEMBERED_MAX_COUNT as u128;
    for n in 0..=bound {
        let events = licence.decide(used(n, 1, 1)).unwrap();
        licence.evolve(&events[0]);
    }
    assert_eq!(licence.decide(used(1, 1, 1)), Ok(Vec::new()));
    let stored = serde_json::to_string(&licence).unwrap();
    let restored: Licence = serde_json::from_str(&stored).unwrap();
    assert_eq!(serde_json::to_string(&restored).unwrap(), stored);
    assert_eq!(restored.decide(used(bound, 1, 1)), Ok(Vec::new()));
    assert_eq!(restored.decide(used(0, 1, 1)).map(|events| events.len()), Ok(1));
    assert!(restored.weight_bytes() > 4_096 * 32);
}
