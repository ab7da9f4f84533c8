//! How often a caller is let in.

use proptest::prelude::*;

use super::*;
use crate::api_key::KeyLimits;
use crate::{KeyId, UserId};

pub(super) fn key(n: u64) -> KeyId {
    format!("key{n:05}").parse().unwrap()
}

pub(super) fn by_key(n: u64) -> Caller {
    Caller::Key(key(n))
}

pub(super) fn limits(per_minute: u32, per_hour: u32, per_day: u32) -> KeyLimits {
    KeyLimits { per_minute, per_hour, per_day }
}

/// A free call, admitted so many milliseconds after the start.
pub(super) fn call(n: u64, caller: Caller, limits: KeyLimits, at_ms: i64) -> WalletCommand {
    let admitted_at = moment(at_ms);
    WalletCommand::PlaceHold {
        hold_id: HoldId(id_at(n, at_ms)),
        asset: Asset::Usd,
        amount: units(0),
        meter: Meter::Chat,
        caller: Some(caller),
        terms: CallTerms { limits: Some(limits), ..CallTerms::default() },
        usage_id: UsageId(id_at(n, at_ms)),
        admitted_at,
        expires_at: admitted_at.plus_seconds(900),
    }
}

pub(super) fn moment(at_ms: i64) -> Timestamp {
    Timestamp::from_micros(at(0).micros() + at_ms * 1_000)
}

pub(super) fn id_at(n: u64, at_ms: i64) -> Uuid {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&n.to_be_bytes());
    Builder::from_unix_timestamp_millis(START_MS.strict_add_signed(at_ms), &random).into_uuid()
}

pub(super) fn full(refusal: WalletRefusal) -> WindowStatus {
    match refusal {
        WalletRefusal::RateLimited(status) => status,
        other => panic!("{other}"),
    }
}

#[test]
fn sixty_calls_a_minute_are_let_in_and_the_next_one_is_told_when_to_come_back() {
    let mut wallet = given([]);
    for n in 0..60 {
        wallet.when(call(n, by_key(1), KeyLimits::default(), 500 + n.cast_signed())).unwrap();
    }
    let status = full(wallet.then_refused(call(60, by_key(1), KeyLimits::default(), 600)));
    assert_eq!((status.window, status.limit, status.used, status.remaining()), (CallWindow::Minute, 60, 60, 0));
    // All of them lie in the first second; the minute is free of it once the sixty-first begins.
    assert_eq!((status.free_at, status.reset_at), (Some(at(61)), at(61)));
    assert!(wallet.when(call(61, by_key(1), KeyLimits::default(), 60_999)).is_err());
    assert!(wallet.when(call(62, by_key(1), KeyLimits::default(), 61_000)).is_ok());
    let left = wallet.wallet.call_status(&by_key(1), KeyLimits::default(), at(61));
    assert_eq!((left.window, left.remaining(), left.free_at), (CallWindow::Minute, 59, None));
}

#[test]
fn a_refused_call_costs_nothing_of_the_limit_and_a_repeated_one_is_counted_once() {
    let mut wallet = given([]);
    let limits = limits(2, 10, 10);
    for (n, second) in [(1, 0), (1, 0), (2, 30_000)] {
        assert!(wallet.when(call(n, by_key(1), limits, second)).is_ok());
    }
    for n in 3..50 {
        assert!(wallet.when(call(n, by_key(1), limits, 40_000)).is_err());
    }
    assert!(wallet.when(call(50, by_key(1), limits, 61_000)).is_ok());
    assert_eq!(full(wallet.then_refused(call(51, by_key(1), limits, 61_500))).free_at, Some(at(91)));
}

#[test]
fn every_caller_has_windows_of_its_own() {
    let mut wallet = given([]);
    let one = limits(1, 10, 10);
    let ada = Caller::User(UserId(Uuid::from_u128(1)));
    for (n, caller) in [(1, by_key(1)), (2, by_key(2)), (3, ada.clone())] {
        assert!(wallet.when(call(n, caller.clone(), one, 0)).is_ok());
        assert!(wallet.when(call(n + 10, caller, one, 1)).is_err());
    }
    let events = wallet.when(call(20, ada, limits(9, 10, 10), 2)).unwrap();
    let WalletEvent::HoldPlaced(placed) = &events[0] else { panic!("{events:?}") };
    assert_eq!((placed.api_key_id.as_ref(), placed.user_id), (None, Some(UserId(Uuid::from_u128(1)))));
}

#[test]
fn the_window_that_stays_full_longest_is_the_one_that_is_named() {
    let mut wallet = given([]);
    let limits = limits(2, 3, 4);
    for n in 0..2 {
        wallet.when(call(n, by_key(1), limits, 0)).unwrap();
    }
    assert_eq!(full(wallet.then_refused(call(9, by_key(1), limits, 1))).window, CallWindow::Minute);
    wallet.when(call(2, by_key(1), limits, 70_000)).unwrap();
    let status = full(wallet.then_refused(call(9, by_key(1), limits, 71_000)));
    // The start lies 20 seconds into a minute, so the first bucket of the hour leaves that much early.
    assert_eq!((status.window, status.free_at), (CallWindow::Hour, Some(at(61 * 60 - 20))));
    wallet.when(call(3, by_key(1), limits, 3_700_000)).unwrap();
    let status = full(wallet.then_refused(call(9, by_key(1), limits, 3_701_000)));
    assert_eq!(status.window, CallWindow::Day);
    let wait = status.free_at.unwrap().micros() - at(0).micros();
    assert!((86_400_000_000..=87_300_000_000).contains(&wait), "{wait}");
}

#[test]
fn a_lowered_limit_counts_what_was_called_before() {
    let mut wallet = given([]);
    for n in 0..10 {
        wallet.when(call(n, by_key(1), limits(20, 20, 20), 1_000 * n.cast_signed())).unwrap();
    }
    let status = full(wallet.then_refused(call(20, by_key(1), limits(3, 20, 20), 10_000)));
    assert_eq!((status.used, status.remaining(), status.free_at), (10, 0, Some(at(68))));
}

#[test]
fn callers_of_long_ago_are_forgotten_and_their_number_is_bounded() {
    let mut wallet = given([]);
    let limits = KeyLimits::default();
    let empty = wallet.wallet.weight_bytes();
    for n in 0..CALLERS_REMEMBERED_MAX_COUNT as u64 + 10 {
        let events = wallet.wallet.decide(call(n, by_key(n), limits, n.cast_signed())).unwrap();
        wallet.apply(&events);
        let hold_id = HoldId(id_at(n, n.cast_signed()));
        let release = WalletCommand::ReleaseHold { hold_id, cause: ReleaseCause::Voided, at: at(1) };
        let events = wallet.wallet.decide(release).unwrap();
        wallet.apply(&events);
    }
    let used = |wallet: &Given, n| wallet.wallet.call_status(&by_key(n), limits, at(5)).used;
    assert_eq!([used(&wallet, 9), used(&wallet, 10), used(&wallet, 4_000)], [0, 1, 1]);
    assert!(wallet.wallet.weight_bytes() > empty + CALLERS_REMEMBERED_MAX_COUNT * 900);
    let two_days = 2 * 86_400_000;
    wallet.when(call(9_000, by_key(9_000), limits, two_days)).unwrap();
    assert_eq!(used(&wallet, 4_000), 1, "one call may come by a clock that is ahead");
    wallet.when(call(9_001, by_key(9_000), limits, two_days + 3_600_000)).unwrap();
    assert_eq!(used(&wallet, 4_000), 0);
    let restored: Wallet = serde_json::from_str(&json(&wallet.wallet)).unwrap();
    assert_eq!(restored.call_status(&by_key(9_000), limits, moment(two_days + 3_600_000)).used, 1);
}

#[test]
fn people_are_forgotten_before_keys() {
    let mut wallet = given([]);
    let limits = KeyLimits::default();
    let person = |n: u64| Caller::User(UserId(Uuid::from_u128(n.into())));
    let more = CALLERS_REMEMBERED_MAX_COUNT as u64 + 100;
    for n in 0..more {
        let caller = if n < 10 { by_key(n) } else { person(n) };
        let events = wallet.wallet.decide(call(n, caller, limits, n.cast_signed())).unwrap();
        wallet.apply(&events);
    }
    let used = |wallet: &Given, caller| wallet.wallet.call_status(&caller, limits, at(9)).used;
    assert_eq!([used(&wallet, by_key(0)), used(&wallet, person(10)), used(&wallet, person(109))], [1, 0, 0]);
    assert_eq!([used(&wallet, person(110)), used(&wallet, person(more - 1))], [1, 1]);
    // Where keys come in thousands, people are still counted.
    for n in more..9_900 {
        let events = wallet.wallet.decide(call(n, by_key(n), limits, n.cast_signed())).unwrap();
        wallet.apply(&events);
    }
    assert_eq!([used(&wallet, person(more - 1)), used(&wallet, by_key(9_899)), used(&wallet, by_key(0))], [1, 1, 0]);
}

#[test]
fn a_busy_caller_takes_few_bytes_of_the_snapshot() {
    let mut wallet = given([]);
    let limits = limits(1_000_000, 1_000_000, 1_000_000);
    let empty = json(&wallet.wallet).len();
    // Every second of the last minute, every minute of the last hour, every quarter of the last day.
    let quarters = (0..96).map(|quarter| quarter * 900_000);
    let minutes = (0..60).map(|minute| 86_400_000 + minute * 60_000);
    let seconds = (0..300).map(|call| 90_000_000 + call * 200);
    for (n, at_ms) in quarters.chain(minutes).chain(seconds).enumerate() {
        let events = wallet.wallet.decide(call(n as u64, by_key(1), limits, at_ms)).unwrap();
        wallet.apply(&events);
        let release = WalletCommand::ReleaseHold {
            hold_id: HoldId(id_at(n as u64, at_ms)),
            cause: ReleaseCause::Voided,
            at: at(1),
        };
        let events = wallet.wallet.decide(release).unwrap();
        wallet.apply(&events);
    }
    let stored = json(&wallet.wallet);
    let callers = &stored[stored.find("\"callers\"").unwrap()..stored.find("\"closed\"").unwrap()];
    assert!(callers.len() < 450, "{} bytes beside {empty}: {callers}", callers.len());
    let restored: Wallet = serde_json::from_str(&stored).unwrap();
    assert_eq!(json(&restored), stored);
    assert_eq!(restored.callers, wallet.wallet.callers);
}

#[test]
fn a_count_of_calls_that_nobody_wrote_is_refused() {
    let mut wallet = given([]);
    wallet.when(call(1, by_key(1), KeyLimits::default(), 0)).unwrap();
    let stored = json(&wallet.wallet);
    assert!(stored.contains(r#","D","D","D"]"#), "{stored}");
    for wrong in ["!", "h", "gggggggg", "DDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD"] {
        let bent = stored.replace(r#","D","D","D"]"#, &format!(r#","{wrong}","D","D"]"#));
        assert!(serde_json::from_str::<Wallet>(&bent).is_err(), "{wrong}");
    }
}

#[test]
fn a_busy_wallet_counts_its_calls_without_keeping_them() {
    let mut wallet = given([]);
    let limits = limits(1_000_000, 1_000_000, 1_000_000);
    for n in 0..20_000 {
        let events = wallet.wallet.decide(call(n, by_key(1), limits, n.cast_signed() * 50)).unwrap();
        wallet.apply(&events);
        let hold_id = HoldId(id_at(n, n.cast_signed() * 50));
        let release = WalletCommand::ReleaseHold { hold_id, cause: ReleaseCause::Voided, at: at(1) };
        let events = wallet.wallet.decide(release).unwrap();
        wallet.apply(&events);
    }
    let minutes = wallet.wallet.calls_by_minute(&by_key(1));
    assert_eq!(minutes.iter().map(|(_, count)| u64::from(*count)).sum::<u64>(), 20_000);
    assert!(json(&wallet.wallet).len() < 600_000);
}

/// One attempt: which key, how long after the attempt before, how far its clock is off, in milliseconds.
type Attempt = (u64, i64, i64);

fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    let pause = prop_oneof![6 => 0..400i64, 3 => 400..20_000i64, 1 => 20_000..4_000_000i64];
    let off = prop_oneof![6 => Just(0i64), 3 => -2_000..2_000i64, 1 => -140_000..140_000i64];
    prop::collection::vec((0..2u64, pause, off), 1..400)
}

/// How many of these moments lie in the last so many seconds before `now`, `now` included.
pub(super) fn recount(moments: &[Timestamp], now: Timestamp, seconds: i64) -> u64 {
    let since = now.micros() - seconds * 1_000_000;
    moments.iter().filter(|moment| moment.micros() > since && **moment <= now).count() as u64
}

/// The same by whole buckets, as the wallet counts.
fn recount_buckets(moments: &[Timestamp], now: Timestamp, width_seconds: i64, buckets: i64) -> u64 {
    let bucket = |at: Timestamp| at.micros().div_euclid(width_seconds * 1_000_000);
    moments.iter().filter(|moment| bucket(**moment) > bucket(now) - buckets).count() as u64
}

proptest! {
    /// Whatever the history and however far the clocks of several machines are apart, no window ever has more calls
    /// than its limit; a call is refused only when its window, rounded up to whole buckets, is full; and what the wallet
    /// counts is what an independent count of the admitted calls gives.
    #[test]
    fn no_window_ever_lets_more_through_than_its_limit(
        attempts in attempts(),
        (minute, hour, day) in (1..12u32, 0..10u32, 0..10u32),
        cut in 0..400usize,
    ) {
        let limits = limits(minute, minute + hour, minute + hour + day);
        let spans = [(60, limits.per_minute), (3_600, limits.per_hour), (86_400, limits.per_day)];
        let mut wallet = given([]);
        let mut admitted: [Vec<Timestamp>; 2] = [Vec::new(), Vec::new()];
        let mut now = 300_000;
        for (n, (who, pause, off)) in attempts.into_iter().enumerate() {
            now += pause;
            let command = call(n as u64, by_key(who), limits, now + off);
            let calls = &mut admitted[usize::try_from(who).unwrap()];
            let effective = calls.last().copied().unwrap_or_default().max(moment(now + off));
            let counted = [(1, 61), (60, 61), (900, 97)].map(|(width, n)| recount_buckets(calls, effective, width, n));
            let room = counted.iter().zip(spans).all(|(used, (_, limit))| *used < u64::from(limit));
            match wallet.wallet.decide(command) {
                Ok(events) => {
                    prop_assert!(room, "let in beyond {:?}: {:?}", limits, counted);
                    let WalletEvent::HoldPlaced(placed) = &events[0] else { panic!("{events:?}") };
                    prop_assert_eq!(placed.admitted_at, effective);
                    calls.push(effective);
                    wallet.apply(&events);
                }
                Err(refusal) => {
                    prop_assert!(!room, "refused with room: {refusal}");
                    let status = full(refusal);
                    let free = status.free_at.unwrap();
                    prop_assert!(free > effective && free <= status.reset_at);
                }
            }
            let status = wallet.wallet.call_status(&by_key(who), limits, effective);
            let counted = [(1, 61), (60, 61), (900, 97)].map(|(width, n)| recount_buckets(calls, effective, width, n));
            let index = spans.iter().position(|(seconds, _)| *seconds == match status.window {
                CallWindow::Minute => 60, CallWindow::Hour => 3_600, CallWindow::Day => 86_400,
            }).unwrap();
            prop_assert_eq!(status.used, counted[index]);
            if n == cut {
                wallet.wallet = serde_json::from_str(&json(&wallet.wallet)).unwrap();
            }
        }
        for calls in &admitted {
            for moment in calls {
                for (seconds, limit) in spans {
                    prop_assert!(recount(calls, *moment, seconds) <= u64::from(limit));
                }
            }
        }
    }

    /// When the wallet says that a call will be let in, it is, and not a moment before.
    #[test]
    fn the_moment_to_come_back_at_is_exact(attempts in attempts(), minute in 1..8u32, hour in 0..4u32) {
        let limits = limits(minute, minute + hour, minute + hour + 3);
        let mut wallet = given([]);
        let mut now = 0;
        for (n, (_, pause, _)) in attempts.into_iter().enumerate() {
            now += pause;
            let Err(refusal) = wallet.wallet.decide(call(n as u64, by_key(1), limits, now)).map(|e| wallet.apply(&e)) else {
                continue;
            };
            let free_ms = (full(refusal).free_at.unwrap().micros() - at(0).micros()) / 1_000;
            let next = |at_ms| wallet.wallet.decide(call(1_000_000, by_key(1), limits, at_ms));
            prop_assert!(next(free_ms).is_ok());
            prop_assert!(next(free_ms - 1).is_err());
        }
    }
}
