//! Receipts of what stands in a log, checked where there is no log.

use calos_adapters::receipt::{Receipt, ReceiptError};
use calos_replay::cli::Cli;
use calos_replay::{Exit, receipt};
use clap::Parser as _;
use ed25519_dalek::SigningKey;

use crate::history::History;

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_a_log_has_a_receipt_that_holds() {
    let history = History::of(2, 3).await;
    let heads: Vec<(i32, i64)> = sqlx::query_as("SELECT partition, last_position FROM partitions")
        .fetch_all(&history.database.pool)
        .await
        .expect("the heads are read");
    let mut issued = 0;
    for (partition, head) in heads {
        for position in 1..=head {
            let receipt = issue(&history, partition, position).await.expect("a receipt is issued");
            receipt.check(Some(&history.key.verifying_key())).expect("it holds");
            issued += 1;
        }
        let beyond = issue(&history, partition, head + 1).await.expect_err("there is no such event");
        assert!(matches!(beyond, ReceiptError::NoEvent { .. }), "{beyond}");
    }
    assert!(issued > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_signs_an_event_that_was_changed_in_the_database() {
    let history = History::of(1, 3).await;
    let (partition, _) = history.longest().await;
    let of = format!("WHERE partition = {partition} AND position = 2");
    history.tamper(&format!("UPDATE events SET metadata = '{{\"actor\":\"system:other\"}}' {of}")).await;
    let error = issue(&history, partition, 2).await.expect_err("it was changed");
    assert!(matches!(error, ReceiptError::Tampered { .. }), "{error}");
    issue(&history, partition, 1).await.expect("the one before is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_checked_without_a_database_and_without_settings() {
    let history = History::of(1, 1).await;
    let (partition, head) = history.longest().await;
    let receipt = issue(&history, partition, head).await.expect("a receipt is issued");
    let folder = tempfile::tempdir().expect("a folder");
    let (file, key) = (folder.path().join("receipt.json"), folder.path().join("key"));
    std::fs::write(&file, serde_json::to_string(&receipt).expect("it is written")).expect("it is written");
    std::fs::write(&key, format!("{}\n", receipt.public_key)).expect("it is written");
    let other = SigningKey::from_bytes(&[9; 32]).verifying_key();
    assert_eq!(run(&[&file.display().to_string()]).await, Exit::Done);
    assert_eq!(run(&[&file.display().to_string(), "--key", &key.display().to_string()]).await, Exit::Done);
    assert_eq!(run(&[&file.display().to_string(), "--key", &receipt.public_key]).await, Exit::Done);
    let checked = receipt::check(&receipt, Some(&other));
    assert!(!checked.holds && !checked.key_known && checked.wrong.is_some());

    let changed = Receipt { sequence: receipt.sequence + 1, ..receipt };
    std::fs::write(&file, serde_json::to_string(&changed).expect("it is written")).expect("it is written");
    assert_eq!(run(&[&file.display().to_string()]).await, Exit::Failed);
}

async fn issue(history: &History, partition: i32, position: i64) -> Result<Receipt, ReceiptError> {
    Receipt::issue(&history.database.pool, &history.key, partition, position).await
}

async fn run(arguments: &[&str]) -> Exit {
    let line = ["calos-replay", "receipt", "check"].iter().chain(arguments);
    let cli = Cli::try_parse_from(line).expect("the command line is understood");
    calos_replay::run(cli).await.expect("it ends")
}
