//! What a key may spend.

use proptest::prelude::*;

use super::limits::{id_at, key};
use super::*;
use crate::api_key::KeyBudgets;

const DAY_MS: i64 = 86_400_000;

fn budgets(per_day: Option<i64>, per_month: Option<i64>) -> KeyBudgets {
    KeyBudgets { per_day: per_day.map(MicroUsd::new), per_month: per_month.map(MicroUsd::new) }
}

/// A hold by key 1, so many milliseconds after the start.
fn call(n: u64, amount: i64, budgets: KeyBudgets, at_ms: i64) -> WalletCommand {
    call_by(1, n, amount, budgets, at_ms)
}

fn call_by(who: u64, n: u64, amount: i64, budgets: KeyBudgets, at_ms: i64) -> WalletCommand {
    let admitted_at = moment(at_ms);
    WalletCommand::PlaceHold {
        hold_id: HoldId(id_at(n, at_ms)),
        asset: Asset::Usd,
        amount: units(amount),
        meter: Meter::Chat,
        caller: Some(Caller::Key(key(who))),
        terms: CallTerms { budgets, ..CallTerms::default() },
        usage_id: UsageId(id_at(n, at_ms)),
        admitted_at,
        expires_at: admitted_at.plus_seconds(900),
    }
}

fn moment(at_ms: i64) -> Timestamp {
    Timestamp::from_micros(at(0).micros() + at_ms * 1_000)
}

fn settle_call(n: u64, at_ms: i64, cost: i64, settled_ms: i64) -> WalletCommand {
    let usage_id = UsageId(id_at(n, at_ms));
    let usage = UsageRecorded { usage_id, api_key_id: Some(key(1)), ..usage(n, cost) };
    WalletCommand::SettleHold { hold_id: HoldId(usage_id.0), usage, amount: units(cost), at: moment(settled_ms) }
}

fn spending(wallet: &Given, period: BudgetPeriod, at_ms: i64) -> (i64, i64) {
    let spending = wallet.wallet.spending(&Caller::Key(key(1)), period, moment(at_ms));
    (spending.spent.get(), spending.held.get())
}

#[test]
fn a_call_beyond_the_budget_is_refused_with_the_numbers() {
    let mut wallet = given([grant(1, 1_000)]);
    let day = budgets(Some(100), None);
    wallet.when(call(1, 60, day, 0)).unwrap();
    wallet.when(settle_call(1, 0, 45, 1)).unwrap();
    wallet.when(call(2, 50, day, 2)).unwrap();
    assert_eq!(spending(&wallet, BudgetPeriod::Day, 2), (45, 50));
    let refusal = wallet.then_refused(call(3, 6, day, 3));
    let ends_at = Timestamp::of_utc_day(at(0).utc_day() + 1);
    let (budget, spent, held, needed) = (MicroUsd::new(100), MicroUsd::new(45), MicroUsd::new(50), MicroUsd::new(6));
    assert_eq!(
        refusal,
        WalletRefusal::BudgetExceeded { period: BudgetPeriod::Day, budget, spent, held, needed, ends_at }
    );
    assert!(wallet.when(call(4, 5, day, 4)).is_ok(), "to the last micro-dollar");
    assert!(wallet.when(call(5, 0, day, 5)).is_ok(), "what costs nothing is not refused");
    assert!(wallet.when(call_by(2, 6, 100, day, 6)).is_ok(), "another key has a budget of its own");
}

#[test]
fn a_new_day_has_the_whole_budget_and_the_month_goes_on() {
    let mut wallet = given([grant(1, 1_000)]);
    let both = budgets(Some(100), Some(150));
    wallet.when(call(1, 100, both, 0)).unwrap();
    wallet.when(settle_call(1, 0, 100, 1)).unwrap();
    assert!(wallet.when(call(2, 1, both, 2)).is_err());
    let refusal = wallet.then_refused(call(3, 51, both, DAY_MS));
    assert!(matches!(refusal, WalletRefusal::BudgetExceeded { period: BudgetPeriod::Month, .. }), "{refusal}");
    wallet.when(call(4, 50, both, DAY_MS)).unwrap();
    assert_eq!(spending(&wallet, BudgetPeriod::Day, DAY_MS), (0, 50));
    assert_eq!(spending(&wallet, BudgetPeriod::Month, DAY_MS), (100, 50));
    assert!(wallet.when(call(5, 100, both, 40 * DAY_MS)).is_ok());
}

#[test]
fn a_call_counts_in_the_day_it_was_let_in_however_late_it_is_settled() {
    let mut wallet = given([grant(1, 1_000)]);
    let midnight_ms = (Timestamp::of_utc_day(at(0).utc_day() + 1).micros() - at(0).micros()) / 1_000;
    wallet.when(call(1, 40, KeyBudgets::default(), midnight_ms - 5)).unwrap();
    wallet.when(call(2, 30, KeyBudgets::default(), midnight_ms + 5)).unwrap();
    wallet.when(settle_call(1, midnight_ms - 5, 40, midnight_ms + 10)).unwrap();
    assert_eq!(spending(&wallet, BudgetPeriod::Day, midnight_ms + 11), (0, 30));
    assert_eq!(spending(&wallet, BudgetPeriod::Month, midnight_ms + 11), (40, 30));
}

#[test]
fn an_overrun_and_a_late_settlement_count_and_a_released_hold_does_not() {
    let mut wallet = given([grant(1, 1_000)]);
    for (n, at_ms) in [(1, 0), (2, 1), (3, 2)] {
        wallet.when(call(n, 10, KeyBudgets::default(), at_ms)).unwrap();
    }
    wallet.when(settle_call(1, 0, 25, 3)).unwrap();
    for (n, at_ms) in [(2, 1), (3, 2)] {
        let hold_id = HoldId(id_at(n, at_ms));
        wallet.when(WalletCommand::ReleaseHold { hold_id, cause: ReleaseCause::Expired, at: at(901) }).unwrap();
    }
    assert_eq!(spending(&wallet, BudgetPeriod::Day, 4), (25, 0));
    wallet.when(settle_call(2, 1, 7, 902_000)).unwrap();
    assert_eq!(spending(&wallet, BudgetPeriod::Day, 4), (32, 0));
}

#[test]
fn what_was_spent_is_known_after_weeks_of_silence_and_in_the_snapshot() {
    let mut wallet = given([grant(1, 1_000)]);
    let month = budgets(None, Some(100));
    // The start is the ninth of a month.
    wallet.when(call(1, 90, month, 0)).unwrap();
    wallet.when(settle_call(1, 0, 90, 1)).unwrap();
    wallet.when(call_by(2, 2, 1, KeyBudgets::default(), 10 * DAY_MS)).unwrap();
    wallet.wallet = serde_json::from_str(&json(&wallet.wallet)).unwrap();
    assert!(wallet.when(call(3, 11, month, 20 * DAY_MS)).is_err());
    assert!(wallet.when(call(4, 10, month, 20 * DAY_MS)).is_ok());
    assert!(wallet.when(call(5, 100, month, 25 * DAY_MS)).is_ok(), "the next month has begun");
}

const MONTH_MS: i64 = 31 * DAY_MS;

#[test]
fn a_clock_that_was_a_month_ahead_leaves_the_months_budget_in_force() {
    let mut wallet = given([grant(1, 1_000)]);
    let month = budgets(Some(80), Some(100));
    wallet.when(call(1, 40, month, 0)).unwrap();
    wallet.when(call(2, 5, month, MONTH_MS)).unwrap();
    wallet.when(settle_call(2, MONTH_MS, 4, 1)).unwrap();
    wallet.when(settle_call(1, 0, 30, 2)).unwrap();
    assert_eq!(spending(&wallet, BudgetPeriod::Month, 3), (30, 0), "what was open then counts where it was let in");
    wallet.wallet = serde_json::from_str(&json(&wallet.wallet)).unwrap();
    wallet.when(call(3, 50, month, 3)).unwrap();
    wallet.when(settle_call(3, 3, 50, 4)).unwrap();
    for period in [BudgetPeriod::Day, BudgetPeriod::Month] {
        assert_eq!(spending(&wallet, period, 5), (80, 0));
        assert_eq!(spending(&wallet, period, MONTH_MS), (4, 0));
    }
    assert!(wallet.when(call(4, 1, month, 6)).is_err());
    // Other keys lose nothing by it either, and the next month is counted as ever.
    wallet.when(call(5, 21, budgets(None, Some(100)), DAY_MS)).unwrap_err();
    wallet.when(call(6, 76, month, MONTH_MS)).unwrap();
    wallet.when(call(7, 1, month, MONTH_MS)).unwrap_err();
}

#[test]
fn a_clock_that_was_ahead_takes_nothing_from_other_keys() {
    let mut wallet = given([grant(1, 1_000)]);
    let month = budgets(None, Some(100));
    wallet.when(call(1, 100, month, 0)).unwrap();
    wallet.when(call_by(2, 2, 1, month, 2 * MONTH_MS)).unwrap();
    assert!(wallet.when(call(3, 1, month, 1)).is_err());
    wallet.when(call_by(2, 4, 1, month, 2)).unwrap();
    assert!(wallet.when(call(5, 1, month, 3)).is_err());
}

#[test]
fn two_clocks_on_both_sides_of_midnight_spend_two_days_budgets_and_no_more() {
    let mut wallet = given([grant(1, 1_000_000)]);
    let midnight_ms = (Timestamp::of_utc_day(at(0).utc_day() + 1).micros() - at(0).micros()) / 1_000;
    let both = budgets(Some(100), Some(1_000));
    for n in 0..400 {
        let off_ms = if n % 2 == 0 { 600_000 } else { -600_000 };
        let command = call(n, 3, both, midnight_ms + off_ms + n.cast_signed());
        if let Ok(events) = wallet.wallet.decide(command) {
            wallet.apply(&events);
        }
    }
    assert_eq!(spending(&wallet, BudgetPeriod::Day, midnight_ms - 1), (0, 99));
    assert_eq!(spending(&wallet, BudgetPeriod::Day, midnight_ms), (0, 99));
    assert_eq!(spending(&wallet, BudgetPeriod::Month, midnight_ms), (0, 198));
}

#[test]
fn no_account_is_kept_for_people() {
    let mut wallet = given([grant(1, 1_000)]);
    let ada = Caller::User(crate::UserId(Uuid::from_u128(1)));
    let WalletCommand::PlaceHold { hold_id, asset, amount, meter, terms, usage_id, admitted_at, expires_at, .. } =
        call(1, 60, KeyBudgets::default(), 0)
    else {
        panic!("a hold is wanted")
    };
    let caller = Some(ada.clone());
    let hold =
        WalletCommand::PlaceHold { hold_id, asset, amount, meter, caller, terms, usage_id, admitted_at, expires_at };
    wallet.when(hold).unwrap();
    for period in [BudgetPeriod::Day, BudgetPeriod::Month] {
        assert_eq!(wallet.wallet.spending(&ada, period, at(0)), Spending::default());
    }
    assert_eq!(wallet.wallet.call_status(&ada, crate::api_key::KeyLimits::default(), at(0)).used, 1);
    // With the last day's calls, everything about a person is let go of.
    for n in 2..5 {
        wallet.when(call_by(2, n, 1, KeyBudgets::default(), n.cast_signed() * DAY_MS)).unwrap();
    }
    assert!(json(&wallet.wallet).contains(r#""u":{},"s""#), "{}", json(&wallet.wallet));
}

proptest! {
    /// However calls overlap, what a key spent in a day never exceeds its budget as long as no use costs more than was
    /// held for it; and a call is refused only when it could.
    #[test]
    fn concurrent_calls_never_overshoot(
        budget in 1..500i64,
        steps in prop::collection::vec((any::<bool>(), 0..120i64, any::<prop::sample::Index>()), 1..120),
    ) {
        let mut wallet = given([grant(1, 1_000_000)]);
        let day = budgets(Some(budget), None);
        let (mut open, mut spent, mut held) = (Vec::new(), 0, 0);
        for (n, (places, amount, pick)) in steps.into_iter().enumerate() {
            let (n, at_ms) = (n as u64, n as i64);
            if places || open.is_empty() {
                match wallet.wallet.decide(call(n, amount, day, at_ms)) {
                    Ok(events) => {
                        wallet.apply(&events);
                        open.push((n, amount));
                        held += amount;
                    }
                    Err(refusal) => {
                        prop_assert!(matches!(refusal, WalletRefusal::BudgetExceeded { .. }), "{refusal}");
                        prop_assert!(spent + held + amount > budget);
                    }
                }
            } else {
                let (n, kept) = open.swap_remove(pick.index(open.len()));
                let cost = amount.min(kept);
                let events = wallet.wallet.decide(settle_call(n, n as i64, cost, at_ms)).unwrap();
                wallet.apply(&events);
                spent += cost;
                held -= kept;
            }
            prop_assert_eq!(spending(&wallet, BudgetPeriod::Day, at_ms), (spent, held));
            prop_assert!(spent + held <= budget);
        }
    }
}

#[test]
fn a_key_that_took_anothers_place_spends_from_the_same_budget() {
    let mut wallet = given([grant(1, 1_000)]);
    let day = budgets(Some(100), None);
    let in_line = |command: WalletCommand| match command {
        WalletCommand::PlaceHold {
            hold_id,
            asset,
            amount,
            meter,
            usage_id,
            admitted_at,
            expires_at,
            caller,
            terms,
        } => {
            let terms = CallTerms { line: Some(key(1)), ..terms };
            WalletCommand::PlaceHold { hold_id, asset, amount, meter, usage_id, admitted_at, expires_at, caller, terms }
        }
        other => other,
    };
    let placed = wallet.when(in_line(call(1, 60, day, 0))).unwrap();
    assert!(matches!(&placed[..], [WalletEvent::HoldPlaced(HoldPlaced { line: None, .. })]), "{placed:?}");
    wallet.when(settle_call(1, 0, 60, 1)).unwrap();
    let refused = wallet.then_refused(in_line(call_by(2, 2, 50, day, 2)));
    assert!(matches!(refused, WalletRefusal::BudgetExceeded { .. }), "{refused:?}");
    let placed = wallet.when(in_line(call_by(2, 3, 30, day, 3))).unwrap();
    let [WalletEvent::HoldPlaced(hold)] = &placed[..] else { panic!("{placed:?}") };
    assert_eq!((&hold.api_key_id, &hold.line), (&Some(key(2)), &Some(key(1))));
    assert_eq!(spending(&wallet, BudgetPeriod::Day, 3), (60, 30));

    let usage_id = UsageId(id_at(3, 3));
    let usage = UsageRecorded { usage_id, api_key_id: Some(key(2)), ..usage(3, 25) };
    let settle = WalletCommand::SettleHold { hold_id: HoldId(usage_id.0), usage, amount: units(25), at: moment(4) };
    wallet.when(settle).unwrap();
    assert_eq!(spending(&wallet, BudgetPeriod::Day, 4), (85, 0));
    let by_the_new_key = wallet.wallet.spending(&Caller::Key(key(2)), BudgetPeriod::Day, moment(4));
    assert_eq!(by_the_new_key.spent.get(), 85, "asked for by either key, it is the line's");
    assert!(matches!(wallet.then_refused(in_line(call(4, 16, day, 5))), WalletRefusal::BudgetExceeded { .. }));
}
