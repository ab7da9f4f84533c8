//! How calls are counted when the clocks of several machines disagree.

use proptest::prelude::*;

use super::limits::{by_key, call, full, limits, moment, recount};
use super::*;

#[test]
fn a_clock_that_lags_is_counted_with_the_one_that_leads() {
    let mut wallet = given([]);
    let limits = limits(2, 10, 10);
    wallet.when(call(1, by_key(1), limits, 100_000)).unwrap();
    let events = wallet.when(call(2, by_key(1), limits, 40_000)).unwrap();
    let WalletEvent::HoldPlaced(placed) = &events[0] else { panic!("{events:?}") };
    assert_eq!(placed.admitted_at, at(100));
    assert_eq!(full(wallet.then_refused(call(3, by_key(1), limits, 41_000))).free_at, Some(at(161)));
}

#[test]
fn a_clock_that_was_far_ahead_locks_nobody_out() {
    let mut wallet = given([]);
    let limits = limits(2, 10, 10);
    let ahead_ms = CLOCK_SKEW_MAX_SECONDS * 1_000;
    for n in 1..3 {
        wallet.when(call(n, by_key(1), limits, ahead_ms)).unwrap();
    }
    assert!(wallet.when(call(3, by_key(1), limits, 0)).is_err(), "clocks may differ by so much");
    // Once it is further ahead, the other clock is believed: one call, and from there on its time passes too.
    wallet.when(call(4, by_key(1), limits, -1_000)).unwrap();
    let status = full(wallet.then_refused(call(5, by_key(1), limits, -500)));
    assert_eq!((status.window, status.used), (CallWindow::Minute, 3));
    let mut wallet = given([]);
    wallet.when(call(1, by_key(1), limits, 4 * 3_600_000)).unwrap();
    for (n, at_ms) in [(2, 0), (3, 61_000), (4, 62_000)] {
        let events = wallet.when(call(n, by_key(1), limits, at_ms)).unwrap();
        let WalletEvent::HoldPlaced(placed) = &events[0] else { panic!("{events:?}") };
        assert_eq!(placed.admitted_at, moment(at_ms), "it is let in at its own moment");
        wallet.wallet = serde_json::from_str(&json(&wallet.wallet)).unwrap();
    }
    let status = full(wallet.then_refused(call(6, by_key(1), limits, 121_000)));
    assert_eq!((status.used, status.free_at), (2, Some(at(122))));
    assert!(wallet.when(call(7, by_key(1), limits, 122_000)).is_ok());
}

#[test]
fn calls_by_a_clock_that_is_days_ahead_are_not_held_against_the_others() {
    let mut wallet = given([]);
    let limits = limits(2, 10, 10);
    for n in 1..3 {
        wallet.when(call(n, by_key(1), limits, 30 * 86_400_000)).unwrap();
    }
    for n in 3..5 {
        wallet.when(call(n, by_key(1), limits, 0)).unwrap();
    }
    assert!(wallet.when(call(5, by_key(1), limits, 1)).is_err());
}

#[test]
fn two_clocks_far_apart_fill_the_same_windows() {
    for ahead_ms in [301_000, 3_600_000, 86_400_000] {
        let mut wallet = given([]);
        let limits = limits(10, 30, 1_000);
        let mut admitted = 0;
        // Ten calls a second for twenty minutes, by each machine in turn.
        for n in 0..12_000u64 {
            let at_ms = n.cast_signed() * 100 + if n % 2 == 0 { ahead_ms } else { 0 };
            if let Ok(events) = wallet.wallet.decide(call(n, by_key(1), limits, at_ms)) {
                wallet.apply(&events);
                admitted += 1;
            }
        }
        assert!((30..=31).contains(&admitted), "{admitted} with {ahead_ms} ms between them");
    }
}

proptest! {
    /// However far two machines' clocks are apart, and whoever calls: in true time no window sees more calls than its
    /// limit before the clocks meet anew and its limit after, and one that is let in on meeting. And folding the events
    /// again, through a snapshot or not, gives the same wallet.
    #[test]
    fn two_clocks_never_open_a_window(
        attempts in prop::collection::vec((any::<bool>(), prop_oneof![0..400i64, 400..20_000i64]), 1..300),
        ahead_ms in prop_oneof![301_000..700_000i64, 700_000..86_400_000i64],
        (minute, hour) in (1..8u32, 0..8u32),
        cut in 0..300usize,
    ) {
        let limits = limits(minute, minute + hour, 1_000);
        let mut wallet = given([]);
        let (mut now, mut admitted, mut log) = (0, Vec::new(), Vec::new());
        for (n, (leads, pause)) in [(true, 0), (false, 0)].into_iter().chain(attempts).enumerate() {
            now += pause;
            let at_ms = if leads { now + ahead_ms } else { now };
            if let Ok(events) = wallet.wallet.decide(call(n as u64, by_key(1), limits, at_ms)) {
                wallet.apply(&events);
                log.extend(events);
                admitted.push(moment(now));
            }
        }
        for moment in &admitted {
            for (seconds, limit) in [(60, limits.per_minute), (3_600, limits.per_hour)] {
                prop_assert!(recount(&admitted, *moment, seconds) <= 2 * u64::from(limit) + 1);
            }
        }
        let mut replayed = given([]).wallet;
        for (n, event) in log.iter().enumerate() {
            if n == cut {
                replayed = serde_json::from_str(&json(&replayed)).unwrap();
            }
            replayed.evolve(event);
        }
        prop_assert_eq!(json(&replayed), json(&wallet.wallet));
        prop_assert_eq!(replayed.callers, wallet.wallet.callers);
    }

    /// However far ahead a clock was, once it is gone nobody waits for longer than the window that is full, the five
    /// minutes in which clocks count as one, and the window again where those five minutes are reached while waiting.
    #[test]
    fn a_clock_that_was_ahead_makes_nobody_wait_for_it(
        ahead_ms in 0..200_000_000i64,
        pauses in prop::collection::vec(0..30_000i64, 1..120),
        minute in 1..6u32,
    ) {
        let limits = limits(minute, 1_000, 1_000);
        let mut wallet = given([]);
        for n in 0..u64::from(minute) {
            let events = wallet.wallet.decide(call(n, by_key(1), limits, ahead_ms)).unwrap();
            wallet.apply(&events);
        }
        let mut now = 0;
        for (n, pause) in pauses.into_iter().enumerate() {
            now += pause;
            match wallet.wallet.decide(call(1_000 + n as u64, by_key(1), limits, now)) {
                Ok(events) => wallet.apply(&events),
                Err(refusal) => {
                    let free_ms = (full(refusal).free_at.unwrap().micros() - at(0).micros()) / 1_000;
                    prop_assert!(free_ms > now && free_ms - now <= CLOCK_SKEW_MAX_SECONDS * 1_000 + 121_000);
                    let next = |at_ms| wallet.wallet.decide(call(1_000_000, by_key(1), limits, at_ms));
                    // A moment is told to the second.
                    prop_assert!(next(free_ms + 1_000).is_ok());
                    prop_assert!(next(free_ms - 1_000).is_err());
                }
            }
        }
    }
}
