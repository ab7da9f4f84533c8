//! A month that was closed with a wrong hash, or changed since, is named.

use calos_commands::log::{EventLog, Plan, Request};
use calos_commands::metadata::{Actor, Metadata};
use calos_commands::periods::{hash_of, periods_stream};
use calos_domain::operation::PartitionPosition;
use calos_domain::period::{ClosedLine, Month, PeriodClosed, PeriodCommand, PeriodRefusal, Periods, Trial};
use calos_domain::{Asset, UserId};
use calos_replay::verify::{Check, VerifyReport};
use uuid::Uuid;

use crate::history::History;

/// Closes a month with made-up figures, and their hash or another one; answers the hash it carries.
async fn close(history: &History, month: &str, previous_hash: Option<String>, hash: Option<&str>) -> String {
    let month: Month = month.parse().expect("a month");
    let (by, at) = (UserId(Uuid::from_u128(5)), month.ends_at().plus_seconds(60));
    let line =
        |account: &str, debit, credit| ClosedLine { account: account.to_owned(), asset: Asset::Usd, debit, credit };
    let lines = vec![line("Equity:Issued:trial", 7, 0), line("Liabilities:Wallet:Available", 0, 7)];
    let heads = vec![PartitionPosition { partition: 0, position: 2 }];
    let closed = PeriodClosed {
        month,
        closed_by: by,
        closed_at: at,
        as_known_at: at,
        heads: heads.clone(),
        lines: lines.clone(),
        hash: String::new(),
        previous_hash,
    };
    let hash = hash.map_or_else(|| hash_of(&closed), str::to_owned);
    let mut plan = Plan::default();
    let periods = plan.stream::<Periods>(periods_stream());
    let request: Request = Metadata::new(Actor::System("test")).into();
    let done = history
        .log
        .execute(&plan, request, |unit| -> Result<(), PeriodRefusal> {
            let (heads, lines, hash) = (heads.clone(), lines.clone(), hash.clone());
            let trial = Trial { as_known_at: at, heads, lines, open_dead_letters: 0, hash };
            unit.decide(periods, PeriodCommand::Close { month, trial, by, at }).map(drop)
        })
        .await;
    done.expect("the month is closed");
    hash
}

async fn verified(history: &History) -> VerifyReport {
    history.catch_up().await;
    history.verify().await
}

fn periods(report: &VerifyReport) -> &Check {
    report.checks.iter().find(|check| check.name == "periods").expect("closed months are checked")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_whose_hash_is_not_that_of_its_figures_is_named() {
    let history = History::of(1, 1).await;
    let report = verified(&history).await;
    assert!(periods(&report).looked_at.starts_with("0 closed months"), "{}", periods(&report));
    let first = close(&history, "2026-01", None, None).await;
    let second = close(&history, "2026-02", Some(first), None).await;
    let report = verified(&history).await;
    assert!(report.passed, "{:?}", report.first());
    assert!(periods(&report).to_string().starts_with("ok    periods: 2 closed months"), "{}", periods(&report));

    // Whoever closes a month with a hash of something else leaves a log that is sealed in order.
    let wrong = "0".repeat(64);
    close(&history, "2026-03", Some(second), Some(&wrong)).await;
    close(&history, "2026-04", Some(wrong), None).await;
    let report = verified(&history).await;
    assert_eq!(report.first().map(|(name, _)| name), Some("periods"), "{:?}", report.first());
    assert_eq!(periods(&report).findings, 1);
    let told = periods(&report).to_string();
    assert!(told.starts_with("FAIL  periods: partition ") && told.contains("2026-03 carries the hash 0000"), "{told}");
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_month_that_was_changed_breaks_its_hash_and_the_chain_to_the_next() {
    let history = History::of(1, 1).await;
    let first = close(&history, "2026-01", None, None).await;
    close(&history, "2026-02", Some(first.clone()), None).await;
    history
        .tamper(&format!(
            "UPDATE events SET payload = replace(payload::text, '\"hash\":\"{first}\"', '\"hash\":\"{}\"')::json \
             WHERE aggregate_type = 'period'",
            "f".repeat(64)
        ))
        .await;
    let report = verified(&history).await;
    assert_eq!(periods(&report).findings, 2, "{}", periods(&report));
    assert!(periods(&report).to_string().contains("2026-01 carries the hash ffff"), "{}", periods(&report));
    history.log.close().await;
}
