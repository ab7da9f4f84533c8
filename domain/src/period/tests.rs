//! Given what happened, when this is asked, then these events follow, or this refusal.

use uuid::Uuid;

use super::*;
use crate::operation::PartitionPosition;
use crate::{Asset, Decider, Timestamp, UserId};

const BY: UserId = UserId(Uuid::from_u128(1));

fn month(text: &str) -> Month {
    text.parse().unwrap()
}

fn line(account: &str, asset: Asset, debit: i64, credit: i64) -> ClosedLine {
    ClosedLine { account: account.to_owned(), asset, debit, credit }
}

fn lines() -> Vec<ClosedLine> {
    vec![
        line("Assets:Debt", Asset::Credit, 5, 5),
        line("Assets:Debt", Asset::Usd, 7, 0),
        line("Income:Usage:chat", Asset::Usd, 0, 7),
    ]
}

/// Figures of a month, known an hour after its end.
fn trial(of: &str) -> Trial {
    Trial {
        as_known_at: month(of).ends_at().plus_seconds(3_600),
        heads: vec![PartitionPosition { partition: 0, position: 17 }, PartitionPosition { partition: 3, position: 0 }],
        lines: lines(),
        open_dead_letters: 0,
        hash: "0a".repeat(32),
    }
}

fn close(of: &str, trial: Trial) -> PeriodCommand {
    PeriodCommand::Close { month: month(of), at: trial.as_known_at.plus_seconds(2), trial, by: BY }
}

fn given(months: &[&str]) -> Periods {
    let mut periods = Periods::default();
    for of in months {
        for event in periods.decide(close(of, Trial { hash: hash_of(of), ..trial(of) })).unwrap() {
            periods.evolve(&event);
        }
    }
    periods
}

fn hash_of(of: &str) -> String {
    of.bytes().flat_map(|byte| format!("{byte:02x}").into_bytes()).map(char::from).cycle().take(64).collect()
}

#[test]
fn months_close_one_after_the_other_each_with_the_hash_of_the_one_before() {
    let mut periods = Periods::default();
    let mut previous: Option<String> = None;
    for of in ["2026-11", "2026-12", "2027-01"] {
        let trial = Trial { hash: hash_of(of), ..trial(of) };
        let events = periods.decide(close(of, trial.clone())).unwrap();
        let [PeriodEvent::PeriodClosed(closed)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(closed.previous_hash, previous);
        assert_eq!((closed.month, &closed.lines, &closed.heads), (month(of), &trial.lines, &trial.heads));
        previous = Some(closed.hash.clone());
        periods.evolve(&events[0]);
    }
    assert_eq!(periods.closed().len(), 3);
}

#[test]
fn a_month_closes_once() {
    let periods = given(&["2026-10", "2026-11"]);
    for of in ["2026-10", "2026-11"] {
        let closed_at = trial(of).as_known_at.plus_seconds(2);
        let refusal = PeriodRefusal::ClosedBefore { month: month(of), closed_at };
        assert_eq!(periods.decide(close(of, trial(of))), Err(refusal));
    }
}

#[test]
fn a_month_out_of_order_is_refused_with_the_one_that_is_next() {
    let periods = given(&["2026-10"]);
    for of in ["2026-12", "2026-09", "2025-10"] {
        let refusal = PeriodRefusal::OutOfOrder { month: month(of), expected: month("2026-11") };
        assert_eq!(periods.decide(close(of, trial(of))), Err(refusal));
    }
}

#[test]
fn a_month_that_goes_on_is_not_closed() {
    let ends_at = month("2026-10").ends_at();
    let at = Timestamp::from_micros(ends_at.micros() - 1);
    let command = PeriodCommand::Close { month: month("2026-10"), trial: trial("2026-10"), by: BY, at };
    let refusal = PeriodRefusal::NotOver { month: month("2026-10"), ends_at, at };
    assert_eq!(Periods::default().decide(command), Err(refusal));
    let trial = Trial { as_known_at: ends_at, ..trial("2026-10") };
    let command = PeriodCommand::Close { month: month("2026-10"), trial, by: BY, at: ends_at };
    assert!(Periods::default().decide(command).is_ok());
}

#[test]
fn a_month_with_events_set_aside_is_not_closed() {
    let refused = Periods::default().decide(close("2026-10", Trial { open_dead_letters: 2, ..trial("2026-10") }));
    assert_eq!(refused, Err(PeriodRefusal::DeadLetters { open: 2 }));
}

#[test]
fn figures_that_do_not_balance_are_refused_with_the_sums() {
    let mut unbalanced = lines();
    unbalanced[2].credit = 8;
    let refused = Periods::default().decide(close("2026-10", Trial { lines: unbalanced, ..trial("2026-10") }));
    assert_eq!(refused, Err(PeriodRefusal::Unbalanced { asset: Asset::Usd, debit: 7, credit: 8 }));
    // Sums of what fits into 64 bits need not.
    let huge = vec![
        line("a", Asset::Usd, i64::MAX, 0),
        line("b", Asset::Usd, i64::MAX, 0),
        line("c", Asset::Usd, 0, i64::MAX),
    ];
    let refused = Periods::default().decide(close("2026-10", Trial { lines: huge, ..trial("2026-10") }));
    let (debit, credit) = (2 * i128::from(i64::MAX), i128::from(i64::MAX));
    assert_eq!(refused, Err(PeriodRefusal::Unbalanced { asset: Asset::Usd, debit, credit }));
}

#[test]
fn a_line_that_cannot_be_one_is_named() {
    let broken: [(usize, Vec<ClosedLine>); 7] = [
        (2, vec![line("b", Asset::Usd, 1, 1), line("a", Asset::Usd, 1, 1)]),
        (2, vec![line("a", Asset::Usd, 1, 1), line("a", Asset::Usd, 1, 1)]),
        (2, vec![line("a", Asset::Usd, 1, 1), line("a", Asset::Credit, 1, 1)]),
        (1, vec![line("a\tb", Asset::Usd, 1, 1)]),
        (1, vec![line("", Asset::Usd, 1, 1)]),
        (1, vec![line("a", Asset::Usd, -1, -1)]),
        (1, vec![line(&"a".repeat(ACCOUNT_MAX_BYTES + 1), Asset::Usd, 1, 1)]),
    ];
    for (number, broken) in broken {
        let lines = broken.len();
        let refused = Periods::default().decide(close("2026-10", Trial { lines: broken, ..trial("2026-10") }));
        assert_eq!(refused, Err(PeriodRefusal::BadLine { line: number, lines }));
    }
    let many: Vec<_> = (0..=LINES_MAX_COUNT).map(|n| line(&format!("{n:05}"), Asset::Usd, 0, 0)).collect();
    let refused = Periods::default().decide(close("2026-10", Trial { lines: many, ..trial("2026-10") }));
    assert_eq!(refused, Err(PeriodRefusal::BadLine { line: LINES_MAX_COUNT + 1, lines: LINES_MAX_COUNT + 1 }));
}

#[test]
fn a_seal_that_cannot_be_is_refused() {
    let place = |partition, position| PartitionPosition { partition, position };
    let of = "2026-10";
    let base = || trial(of);
    for (what, broken) in [
        ("hash", Trial { hash: "0A".repeat(32), ..base() }),
        ("hash", Trial { hash: "0a".repeat(31), ..base() }),
        ("heads", Trial { heads: Vec::new(), ..base() }),
        ("heads", Trial { heads: vec![place(1, 1), place(1, 1)], ..base() }),
        ("heads", Trial { heads: vec![place(0, -1)], ..base() }),
        ("moment", Trial { as_known_at: month(of).last_moment(), ..base() }),
    ] {
        let command = PeriodCommand::Close { month: month(of), trial: broken, by: BY, at: base().as_known_at };
        assert_eq!(Periods::default().decide(command), Err(PeriodRefusal::BadSeal(what)));
    }
    let ahead = Trial { as_known_at: base().as_known_at.plus_seconds(3), ..base() };
    let command = PeriodCommand::Close { month: month(of), trial: ahead, by: BY, at: base().as_known_at };
    assert_eq!(Periods::default().decide(command), Err(PeriodRefusal::BadSeal("moment")));
}

#[test]
fn a_month_is_written_and_read_one_way() {
    for text in ["2026-10", "1970-01", "9999-12"] {
        assert_eq!(month(text).to_string(), text);
        assert_eq!(serde_json::from_str::<Month>(&format!("\"{text}\"")).unwrap(), month(text));
    }
    for text in ["2026-13", "2026-00", "1969-12", "26-10", "2026-1", "2026-010", "+026-10", "2026-+1", "2026", ""] {
        assert_eq!(text.parse::<Month>(), Err(NoMonth), "{text}");
    }
    assert_eq!(month("2026-12").next(), month("2027-01"));
    assert_eq!(Month::of(month("2026-12").starts_at()), Ok(month("2026-12")));
    assert_eq!(Month::of(month("2026-12").last_moment()), Ok(month("2026-12")));
    assert_eq!(Month::of(month("2026-12").ends_at()), Ok(month("2027-01")));
    assert_eq!(Month::of(Timestamp::from_micros(-1)), Err(NoMonth));
}

#[test]
fn the_text_a_month_is_hashed_as_never_changes() {
    let Trial { as_known_at, heads, lines, .. } = trial("2026-10");
    let text = canonical_text(month("2026-10"), as_known_at, None, &heads, &lines);
    let expected = "calos closed month 1\nmonth 2026-10\nas_known_at 1793494800000000\nprevious -\nheads 0:17,3:0\n\
        lines 3\nAssets:Debt\tCREDIT\t5\t5\nAssets:Debt\tUSD\t7\t0\nIncome:Usage:chat\tUSD\t0\t7\n";
    assert_eq!(text, expected);
    let text = canonical_text(month("2026-10"), as_known_at, Some("0a"), &heads[..1], &[]);
    let expected =
        "calos closed month 1\nmonth 2026-10\nas_known_at 1793494800000000\nprevious 0a\nheads 0:17\nlines 0\n";
    assert_eq!(text, expected);
}
