//! A log whose rows lie in another order than they were written in, or not at all; and rows that are compared by sums.

use crate::history::{History, names};

#[tokio::test(flavor = "multi_thread")]
async fn events_that_lie_behind_those_that_follow_them_are_folded_in_their_order() {
    let history = History::of(8, 3).await;
    history
        .tamper(
            "WITH first AS (DELETE FROM events WHERE position <= 3 RETURNING *) INSERT INTO events SELECT * FROM first",
        )
        .await;
    let behind = "SELECT count(*) FROM events a JOIN events b USING (partition) \
                  WHERE a.position = 1 AND b.position = 4 AND a.ctid > b.ctid";
    assert!(history.number(behind).await > 0, "the first events lie last");
    let all: Vec<&str> = names().collect();
    for report in history.rebuild_all(&all).await.expect("the rebuild ends") {
        assert_eq!(report.parity.differences.expect("compared").count, 0, "{}", report.projection);
    }
    history.catch_up().await;
    let report = history.verify().await;
    assert!(report.passed, "{:?}", report.first());
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_missing_is_named_and_nothing_is_put_in_place() {
    let history = History::of(4, 2).await;
    let (partition, _) = history.longest().await;
    history.tamper(&format!("DELETE FROM events WHERE partition = {partition} AND position = 4")).await;
    for name in ["wallet_balance", "wallet_ledger"] {
        let failed = history.rebuild(name).await.expect_err("an event is missing").to_string();
        assert!(failed.contains(&format!("partition {partition} has no position 4")), "{failed}");
        let version = format!("SELECT live_version::bigint FROM projections WHERE name = '{name}'");
        assert_eq!(history.number(&version).await, 1, "{name}");
    }
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_per_event_that_are_wrong_missing_or_of_no_event_are_each_found() {
    let history = History::of(3, 2).await;
    let (partition, _) = history.longest().await;
    let of = format!(
        "partition = {partition} AND position = (SELECT max(position) FROM read.wallet_ledger WHERE partition = {partition})"
    );
    let row = format!("SELECT * FROM read.wallet_ledger WHERE {of}");
    for (number, statement) in [
        format!("UPDATE read.wallet_ledger SET amount = amount + 1 WHERE {of}"),
        format!("UPDATE read.wallet_ledger SET source_ref = '' WHERE {of}"),
        format!("DELETE FROM read.wallet_ledger WHERE {of}"),
        // Of an event that nobody has written yet, and of a partition that does not exist.
        format!(
            "INSERT INTO read.wallet_ledger SELECT (l).* FROM (SELECT populate FROM (SELECT jsonb_populate_record(\
             NULL::read.wallet_ledger, to_jsonb(r) || '{{\"position\": 100000}}') AS populate FROM ({row}) r) p) x (l)"
        ),
        format!(
            "INSERT INTO read.wallet_ledger SELECT (l).* FROM (SELECT populate FROM (SELECT jsonb_populate_record(\
             NULL::read.wallet_ledger, to_jsonb(r) || '{{\"partition\": 77777}}') AS populate FROM ({row}) r) p) x (l)"
        ),
    ]
    .iter()
    .enumerate()
    {
        history.run(statement).await;
        let report = history.rebuild("wallet_ledger").await.expect("the rebuild ends");
        let differences = report.parity.differences.expect("compared");
        assert_eq!((differences.count, differences.listed.len()), (1, 1), "{statement}");
        assert_eq!(i64::from(report.to_version), number as i64 + 2);
        let rows = history.number("SELECT count(*) FROM read.wallet_ledger").await;
        assert_eq!(report.parity.rows, rows, "{statement}");
    }
    let report = history.rebuild("wallet_ledger").await.expect("the rebuild ends");
    assert_eq!(report.parity.differences.expect("compared").count, 0);
    assert_eq!(report.parity.rows, history.number("SELECT count(*) FROM read.wallet_ledger").await);
    history.log.close().await;
}
