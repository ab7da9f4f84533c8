//! What was changed behind everybody's back is named.

use calos_adapters::seal::{GENESIS_HASH, chain};
use calos_commands::log::{EventLog, Plan, Request};
use calos_commands::metadata::{Actor, Metadata};
use calos_domain::sealed::Sealed;
use calos_domain::session::{Session, SessionCommand, SessionStarted};
use calos_domain::{DeviceId, SessionId, StreamId, SubjectId, UserId};
use calos_projections::copy_out::read_slice;
use calos_projections::{Columns, LogSlice};
use calos_replay::verify::{Check, VerifyReport};
use uuid::Uuid;

use crate::history::{GRANTED, History, names, now, spend};

fn check<'a>(report: &'a VerifyReport, name: &str) -> &'a Check {
    report.checks.iter().find(|check| check.name == name).expect("there is such a check")
}

fn failed(report: &VerifyReport) -> Vec<&str> {
    report.checks.iter().filter(|check| check.first.is_some()).map(|check| check.name.as_str()).collect()
}

/// Where a check found something first.
fn place(report: &VerifyReport, name: &str) -> (i32, i64) {
    let first = check(report, name).first.as_ref().expect("it found something");
    (first.partition.expect("a partition"), first.position.expect("a position"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untouched_log_passes_every_check() {
    let history = History::of(6, 4).await;
    history.anchor().await;
    let report = history.verify().await;
    assert_eq!(failed(&report), Vec::<&str>::new());
    assert!(report.passed);
    assert_eq!(report.events, 6 * (2 + 4 * 3));
    for name in names() {
        assert!(check(&report, &format!("projection {name}")).first.is_none());
    }
    assert!(
        check(&report, "anchors").looked_at.contains("1 in the file and 1 in the table"),
        "{:?}",
        check(&report, "anchors")
    );
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_event_is_named_and_it_alone() {
    let history = History::of(6, 4).await;
    let (partition, _) = history.longest().await;
    let deduction = format!("FROM events WHERE partition = {partition} AND event_type = 'credits_deducted'");
    let position = history.number(&format!("SELECT max(position) {deduction}")).await;
    // One digit of the running balance, which stands at the end.
    history
        .tamper(&format!(
            "UPDATE events SET payload = overlay(payload::text placing '9' from length(payload::text) - 2)::json \
             WHERE partition = {partition} AND position = {position}"
        ))
        .await;
    let report = history.verify().await;
    assert!(!report.passed);
    assert_eq!(place(&report, "chain"), (partition, position));
    assert_eq!(check(&report, "chain").findings, 1);
    assert_eq!(report.first().expect("a finding").0, "chain");
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_metadata_and_a_changed_date_are_named() {
    let history = History::of(4, 2).await;
    let (partition, head) = history.longest().await;
    history
        .tamper(&format!(
            "UPDATE events SET metadata = (metadata::jsonb || '{{\"actor\":\"nobody\"}}')::json \
             WHERE partition = {partition} AND position = {head}; \
             UPDATE events SET recorded_at = recorded_at - interval '1 microsecond' \
             WHERE partition = {partition} AND position = 1"
        ))
        .await;
    let report = history.verify().await;
    assert_eq!(place(&report, "chain"), (partition, 1));
    assert_eq!(check(&report, "chain").findings, 2);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_middle_is_named() {
    let history = History::of(6, 4).await;
    let (partition, _) = history.longest().await;
    history.tamper(&format!("DELETE FROM events WHERE partition = {partition} AND position IN (3, 4)")).await;
    let report = history.verify().await;
    assert!(!report.passed);
    assert_eq!(place(&report, "contiguity"), (partition, 3));
    assert_eq!(check(&report, "contiguity").findings, 1);
    assert!(failed(&report).contains(&"streams"), "a stream lost events too: {:?}", failed(&report));
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tail_with_its_head_left_alone_is_named() {
    let history = History::of(6, 4).await;
    let (partition, head) = history.longest().await;
    history.tamper(&format!("DELETE FROM events WHERE partition = {partition} AND position > {}", head - 2)).await;
    let report = history.verify().await;
    assert_eq!(place(&report, "contiguity"), (partition, head - 1));
    assert!(failed(&report).contains(&"heads"));
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_tail_whose_head_was_rewound_to_match_is_named_by_the_anchor() {
    let history = History::of(6, 4).await;
    let (partition, head) = history.longest().await;
    history.anchor().await;
    // Everything a careful forger would do: events, head, anchors in the database, checkpoints and read models.
    let cut = head - 3;
    history
        .tamper(&format!(
            "DELETE FROM events WHERE partition = {partition} AND position > {cut}; \
             UPDATE partitions SET last_position = {cut}, head_hash = e.hash, last_recorded_at = e.recorded_at \
             FROM events e WHERE partitions.partition = {partition} AND e.partition = {partition} AND e.position = {cut}; \
             DELETE FROM anchors"
        ))
        .await;
    let report = history.verify().await;
    assert_eq!(place(&report, "anchors"), (partition, head));
    let found = check(&report, "anchors").first.as_ref().expect("a finding").to_string();
    assert!(found.contains("tail was cut"), "{found}");
    // Without the anchor the chain alone has nothing to say: that is what the anchor is for.
    for blind in ["contiguity", "chain", "heads"] {
        assert!(check(&report, blind).first.is_none(), "{:?}", check(&report, blind));
    }
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_somebody_else_signed_or_changed_is_named() {
    let history = History::of(2, 1).await;
    history.anchor().await;
    let file = history.anchors.path().join(calos_adapters::anchors::ANCHOR_FILE);
    let text = std::fs::read_to_string(&file).expect("the file is read");
    std::fs::write(&file, text.replacen("\"position\":", "\"position\":1", 1)).expect("the file is written");
    let report = history.verify().await;
    let found = check(&report, "anchors").first.as_ref().expect("a finding").to_string();
    assert!(found.contains("not signed by this ledger's key"), "{found}");
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_cut_short_by_a_crash_is_named_and_the_others_still_count() {
    let history = History::of(3, 2).await;
    history.anchor().await;
    let file = history.anchors.path().join(calos_adapters::anchors::ANCHOR_FILE);
    let text = std::fs::read_to_string(&file).expect("the file is read");
    std::fs::write(&file, format!("{text}{}", &text[..text.len() / 2])).expect("the file is written");
    history.anchor().await;
    let report = history.verify().await;
    assert!(report.passed, "{:?}", report.first());
    let looked_at = &check(&report, "anchors").looked_at;
    assert!(looked_at.contains("2 in the file") && looked_at.contains(".jsonl:2 was cut short"), "{looked_at}");

    let (partition, head) = history.longest().await;
    history
        .tamper(&format!(
            "DELETE FROM anchors; DELETE FROM events WHERE partition = {partition} AND position = {head}; \
             UPDATE partitions SET last_position = {head} - 1, head_hash = e.hash FROM events e \
             WHERE partitions.partition = {partition} AND e.partition = {partition} AND e.position = {head} - 1"
        ))
        .await;
    assert_eq!(place(&history.verify().await, "anchors"), (partition, head));
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anchors_that_are_gone_are_a_finding_and_a_new_log_needs_none_yet() {
    let history = History::of(2, 1).await;
    assert!(history.verify().await.passed, "nothing has been anchored yet");
    history.anchor().await;
    let file = history.anchors.path().join(calos_adapters::anchors::ANCHOR_FILE);
    std::fs::remove_file(&file).expect("the file is removed");
    let report = history.verify().await;
    assert_eq!(failed(&report), ["anchors"]);
    let found = check(&report, "anchors").first.as_ref().expect("a finding").to_string();
    assert!(found.contains("the database has noted 1"), "{found}");

    // Both are gone: the age of the log says that there must have been some.
    history
        .tamper(
            "DELETE FROM anchors; UPDATE log SET created_at = created_at - interval '1 hour'; \
             UPDATE events SET recorded_at = recorded_at - interval '1 hour'",
        )
        .await;
    let report = history.verify().await;
    let found = check(&report, "anchors").first.as_ref().expect("a finding").to_string();
    assert!(found.contains("every start of its server takes one"), "{found}");
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_noted_anchor_is_neither_changed_nor_removed() {
    let history = History::of(1, 0).await;
    history.anchor().await;
    for statement in ["UPDATE anchors SET anchor = '{}'", "DELETE FROM anchors", "TRUNCATE anchors"] {
        let refused = sqlx::raw_sql(statement).execute(&history.database.owner_pool).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("append-only")), "{statement}");
    }
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_no_longer_decodes_is_named_even_when_it_was_sealed_anew() {
    let history = History::of(3, 1).await;
    let (partition, head) = history.longest().await;
    let last = format!("WHERE partition = {partition} AND position = {head}");
    history.tamper(&format!("UPDATE events SET event_type = 'credits_conjured' {last}")).await;
    let hash = sealed_anew(&history, partition, head).await;
    history
        .tamper(&format!(
            "UPDATE events SET hash = '\\x{hash}' {last}; \
             UPDATE partitions SET head_hash = '\\x{hash}' WHERE partition = {partition}"
        ))
        .await;
    let report = history.verify().await;
    assert_eq!(place(&report, "payloads"), (partition, head));
    for blind in ["contiguity", "chain", "heads"] {
        assert!(check(&report, blind).first.is_none(), "{:?}", check(&report, blind));
    }
    history.log.close().await;
}

/// The hash an event would have if it had been written as it stands, in hexadecimal.
async fn sealed_anew(history: &History, partition: i32, position: i64) -> String {
    let slice = LogSlice { partition, after: position - 2, through: position };
    let mut hashes = Vec::new();
    let mut previous = GENESIS_HASH;
    read_slice(&history.database.owner_pool, slice, Columns::SEALED, |row| {
        hashes.push(chain(&previous, &row.record));
        previous = row.hash.try_into().map_err(|_| "a hash has 32 bytes")?;
        Ok::<(), &str>(())
    })
    .await
    .expect("the events are read");
    let last = hashes.last().expect("there are two");
    last.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_data_without_its_key_is_corruption() {
    let history = History::of(1, 0).await;
    let (user, subject) = (UserId(Uuid::now_v7()), SubjectId(Uuid::now_v7()));
    let session_id = SessionId(Uuid::now_v7());
    let started_at = now();
    let start = SessionStarted {
        session_id,
        user_id: user,
        tenant_id: history.tenants[0],
        device_id: DeviceId(Uuid::now_v7()),
        started_at,
        expires_at: started_at.plus_seconds(60),
        address: Some(Sealed { subject, ciphertext: "c2VhbGVk".to_owned() }),
        user_agent: None,
    };
    let mut plan = Plan::default();
    let session = plan.stream::<Session>(StreamId::under(user, session_id));
    let request: Request = Metadata::new(Actor::System("test")).into();
    let done = history
        .log
        .execute(&plan, request, |unit| unit.decide(session, SessionCommand::Start(start.clone())).map(drop))
        .await;
    done.expect("the session starts");
    history.catch_up().await;
    let report = history.verify().await;
    assert_eq!(failed(&report), ["data keys"]);
    let found = check(&report, "data keys").first.as_ref().expect("a finding").to_string();
    assert!(found.contains(&subject.to_string()), "{found}");

    history
        .run(&format!(
            "INSERT INTO subject_keys (subject, wrapped_key, master_version) VALUES ('{subject}', '\\x00', 1)"
        ))
        .await;
    assert!(history.verify().await.passed);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_changed_by_hand_is_named_by_its_stream() {
    // Enough events for a snapshot, which is taken once the stream has been in memory for a second.
    let history = History::of(1, 170).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    spend(&history.log, history.tenants[0]).await;
    let snapshots = "SELECT count(*) FROM snapshots WHERE aggregate_type = 'wallet'";
    for _ in 0..200 {
        if history.number(snapshots).await > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(history.number(snapshots).await, 1);
    history.catch_up().await;
    let report = history.verify().await;
    assert!(report.passed, "{:?}", report.first());
    assert!(
        check(&report, "snapshots").looked_at.starts_with("1 snapshots equal"),
        "{:?}",
        check(&report, "snapshots")
    );

    history.run(&format!("UPDATE snapshots SET payload = replace(payload, '{GRANTED}', '{GRANTED}0')")).await;
    let report = history.verify().await;
    assert_eq!(failed(&report), ["snapshots"]);
    let found = check(&report, "snapshots").first.as_ref().expect("a finding").to_string();
    assert!(found.contains(&format!("wallet/{}", history.tenants[0])), "{found}");

    history.run("UPDATE snapshots SET snapshot_version = snapshot_version + 1").await;
    assert!(history.verify().await.passed, "nobody reads a snapshot of another version");
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_before_the_first_position_is_named() {
    let history = History::of(1, 0).await;
    let (partition, _) = history.longest().await;
    history
        .tamper(&format!(
            "ALTER TABLE events DROP CONSTRAINT events_position_check; \
             INSERT INTO events SELECT partition, 0, aggregate_type, 'elsewhere', sequence, event_type, event_version, \
             payload, metadata, recorded_at, hash FROM events WHERE partition = {partition} AND position = 1"
        ))
        .await;
    let report = history.verify().await;
    assert_eq!(place(&report, "heads"), (partition, 0));
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_that_halted_or_lost_a_checkpoint_is_named() {
    let history = History::of(1, 1).await;
    let (partition, _) = history.longest().await;
    let checkpoint = format!("projection = 'wallet_balance' AND partition = {partition}");
    history.run(&format!("UPDATE checkpoints SET halted = 'it is tired' WHERE {checkpoint}")).await;
    let report = history.verify().await;
    assert_eq!(failed(&report), ["projection wallet_balance"]);
    let found = check(&report, "projection wallet_balance").first.as_ref().expect("a finding").to_string();
    assert!(found.contains("it is tired"), "{found}");

    let empty = "SELECT min(partition)::bigint FROM partitions WHERE last_position = 0";
    let empty = history.number(empty).await;
    history
        .run(&format!(
            "UPDATE checkpoints SET halted = NULL; \
             DELETE FROM checkpoints WHERE projection = 'wallet_balance' AND partition = {empty}"
        ))
        .await;
    let report = history.verify().await;
    assert_eq!(failed(&report), ["projection wallet_balance"]);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_changed_by_hand_fails_its_projections_check() {
    let history = History::of(3, 1).await;
    let tenant = history.tenants[1];
    history
        .run(&format!("UPDATE read.wallet_balance SET available = available + 1 WHERE tenant_id = '{tenant}'"))
        .await;
    let report = history.verify().await;
    assert_eq!(failed(&report), ["projection wallet_balance"]);
    let found = check(&report, "projection wallet_balance").first.as_ref().expect("a finding").to_string();
    assert!(found.contains(&tenant.to_string()) && found.contains("available"), "{found}");

    history.run("ALTER TABLE read.wallet_balance DROP COLUMN held").await;
    let report = history.verify().await;
    assert_eq!(failed(&report), ["projection wallet_balance"]);
    history.log.close().await;
}
