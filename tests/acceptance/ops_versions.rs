//! Operators find events of every version: what an older program wrote is shown as it stands in the log, beside what this
//! one writes of the same event.

use std::time::Duration;

use calos_api::cli::Role;
use calos_domain::Timestamp;
use calos_replay::operation::run_by;
use calos_tests::app::{Answer, Registered, TestApp};
use calos_tests::before::{record_rebuild_started, version_1};
use serde_json::{Value, json};

async fn read(app: &TestApp, who: &Registered, path: &str) -> Value {
    Answer::of(app.get(path).bearer_auth(&who.token)).await.expect(200).body
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_an_older_program_wrote_is_found_as_it_was_stored_beside_todays() {
    let app = TestApp::start().await;
    let operator = app.staff(Role::Operator).await;
    let run = run_by(Some("ada".to_owned()), Some("before the update".to_owned()));
    let written = version_1(&run, "usage_log", Timestamp::from_micros(1_761_955_200_000_000));
    // The program before this one is still running, on the same database.
    let positions = record_rebuild_started::<1>(&app.database.pool, &run, written.clone()).await;
    let (partition, position) = positions.0.iter().next().expect("one place");

    let found = read(&app, &operator, "/api/ops/events?type=rebuild_started").await;
    let event = &found["events"][0];
    assert_eq!((&event["version"], &event["payload"]), (&json!("1"), &written), "{found}");
    let one = read(&app, &operator, &format!("/api/ops/events/{partition}/{position}")).await;
    assert_eq!(&one["event"], event);

    let body = json!({ "reason": "to have one of each" });
    let path = "/api/ops/projections/usage_log/rebuild";
    Answer::of(app.post(path, &body).bearer_auth(&operator.token)).await.expect(202);
    let mut running = true;
    for _ in 0..200 {
        running = !read(&app, &operator, "/api/ops/rebuild").await["running"].is_null();
        if !running {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!running, "the rebuild ends");
    let found = read(&app, &operator, "/api/ops/events?type=rebuild_started").await;
    let events = found["events"].as_array().expect("a list");
    let of_version = |version: &str| events.iter().find(|event| event["version"] == version).expect("one of each");
    assert_eq!((events.len(), &of_version("1")["payload"]), (2, &written));
    let scope = &of_version("2")["payload"]["rebuild_started"]["scope"];
    assert_eq!(scope, &json!({ "one": { "projection": "usage_log" } }));
    app.stop().await;
}
