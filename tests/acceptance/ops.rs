//! What operators see and do over HTTP: read models, rebuilds, events and their chains, dead letters, the log; and that
//! nobody else does.

#![expect(clippy::panic, reason = "a test's helper fails the test")]

use std::time::Duration;

use calos_api::cli::{Role, TierName};
use calos_tests::app::{Answer, Registered, TestApp};
use serde_json::{Value, json};

async fn read(app: &TestApp, who: &Registered, path: &str) -> Answer {
    Answer::of(app.get(path).bearer_auth(&who.token)).await
}

async fn write(app: &TestApp, who: &Registered, path: &str, body: &Value) -> Answer {
    Answer::of(app.post(path, body).bearer_auth(&who.token)).await
}

/// Waits until no rebuild runs, and answers the last one.
async fn rebuilt(app: &TestApp, who: &Registered) -> Value {
    for _ in 0..200 {
        let answer = read(app, who, "/api/ops/rebuild").await.expect(200);
        if answer.body["running"].is_null() {
            return answer.body["last"].clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the rebuild does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_alone_see_and_do_and_a_refusal_names_the_role() {
    let app = TestApp::start().await;
    let (tenant, finance, operator) =
        (app.register().await, app.staff(Role::Finance).await, app.staff(Role::Operator).await);
    let key = app.issue_key(&tenant).await;
    let reads = ["projections", "rebuild", "events", "events/0/1", "dead-letters", "log"];
    for path in reads.map(|path| format!("/api/ops/{path}")) {
        for who in [&tenant, &finance] {
            let refused = read(&app, who, &path).await.expect(403);
            assert_eq!((&refused.body["code"], &refused.body["needs_role"]), (&json!("forbidden"), &json!("operator")));
        }
        Answer::of(app.get(&path).bearer_auth(&key)).await.expect(403);
        Answer::of(app.get(&path)).await.expect(401);
    }
    let before = app.event_count().await;
    let writes = [
        ("/api/ops/projections/usage_log/rebuild", json!({"reason": "x"})),
        ("/api/ops/dead-letters/retry", json!({"projection": "all", "reason": "x"})),
        (
            "/api/ops/dead-letters/skip",
            json!({"projection": "usage_log", "partition": 0, "position": 1, "reason": "x"}),
        ),
    ];
    for (path, body) in &writes {
        for who in [&tenant, &finance] {
            write(&app, who, path, body).await.expect(403);
        }
        Answer::of(app.post(path, body)).await.expect(401);
    }
    let delete = app.client.delete(app.url("/api/ops/rebuild"));
    Answer::of(delete.bearer_auth(&finance.token)).await.expect(403);
    assert_eq!(app.event_count().await, before, "what was refused changed nothing");

    // What an operator asks wrongly is told so.
    let no_reason = write(&app, &operator, writes[0].0, &json!({"reason": "  "})).await.expect(400);
    assert_eq!(no_reason.body["param"], "reason");
    write(&app, &operator, "/api/ops/projections/nothing/rebuild", &writes[0].1).await.expect(404);
    write(&app, &operator, writes[2].0, &writes[2].1).await.expect(409);
    Answer::of(app.client.delete(app.url("/api/ops/rebuild")).bearer_auth(&operator.token)).await.expect(404);
    for wrong in ["limit=0", "limit=201", "cursor=x", "stream=wallet", "from=tomorrow", "correlation=7", "colour=red"] {
        read(&app, &operator, &format!("/api/ops/events?{wrong}")).await.expect(400);
    }
    read(&app, &operator, "/api/ops/events/0/999999").await.expect(404);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_model_is_shown_with_its_place_in_every_partition() {
    let app = TestApp::start().await;
    let operator = app.staff(Role::Operator).await;
    let answer = read(&app, &operator, "/api/ops/projections").await.expect(200);
    let projections = answer.body["projections"].as_array().expect("a list");
    let names: Vec<&str> = projections.iter().filter_map(|projection| projection["name"].as_str()).collect();
    for model in calos_projections::registry::ALL {
        assert!(names.contains(&model.name()), "{} is missing", model.name());
    }
    for projection in projections {
        assert_eq!(projection["state"], "live", "{projection}");
        assert!(projection["version"].as_i64().is_some_and(|version| version >= 1));
        let partitions = projection["partitions"].as_array().expect("a list");
        assert!(!partitions.is_empty());
        for at in partitions {
            let number = |name: &str| at[name].as_i64().expect("a number");
            assert_eq!(number("lagEvents"), number("head") - number("position"), "{at}");
            assert!(at["lagSeconds"].as_f64().is_some_and(|seconds| seconds >= 0.0));
        }
    }
    let log = read(&app, &operator, "/api/ops/log").await.expect(200);
    assert!(log.body["logId"].as_str().is_some_and(|id| id.len() == 36));
    let heads = log.body["heads"].as_array().expect("heads");
    let sum: i64 = heads.iter().filter_map(|head| head["position"].as_i64()).sum();
    assert_eq!((log.body["events"].as_i64(), sum > 0), (Some(sum), true));
    assert!(
        log.body["anchors"].as_array().is_some_and(|anchors| anchors.iter().all(|anchor| anchor["signed"] == true))
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_balance_is_cured_by_a_rebuild_over_http_that_says_who_and_why() {
    let app = TestApp::start().await;
    let (who, operator) = (app.register().await, app.staff(Role::Operator).await);
    let balance = app.get("/api/credits/balance").header("calos-after", &who.position).bearer_auth(&who.token);
    let before = Answer::of(balance).await.expect(200).body;
    let wrong =
        format!("UPDATE read.wallet_balance SET available = 1 WHERE tenant_id = '{}' AND asset = 'USD'", who.tenant_id);
    sqlx::query(&wrong).execute(&app.database.owner_pool).await.expect("somebody writes by hand");
    let shown = read(&app, &who, "/api/credits/balance").await.expect(200).body;
    assert_ne!(shown["balance_micros"], before["balance_micros"]);

    let path = "/api/ops/projections/wallet_balance/rebuild";
    let begun = write(&app, &operator, path, &json!({"reason": "a balance was edited by hand"})).await.expect(202).body;
    assert_eq!((&begun["projection"], &begun["by"]), (&json!("wallet_balance"), &json!(operator.user_id)));
    let last = rebuilt(&app, &operator).await;
    assert_eq!((&last["operationId"], &last["error"]), (&begun["operationId"], &Value::Null), "{last}");
    let line = &last["rebuilt"][0];
    assert_eq!((&line["differences"], &line["deadLetters"]), (&json!(1), &json!(0)), "{last}");
    assert_eq!(
        read(&app, &who, "/api/credits/balance").await.expect(200).body["balance_micros"],
        before["balance_micros"]
    );

    let facts: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT event_type, payload -> event_type ->> 'operator', payload -> event_type ->> 'reason' FROM events
         WHERE aggregate_type = 'operation' ORDER BY sequence",
    )
    .fetch_all(&app.database.pool)
    .await
    .expect("the facts");
    let fact = |name: &str| (name.to_owned(), operator.user_id.to_string(), "a balance was edited by hand".to_owned());
    assert_eq!(facts, [fact("rebuild_started"), fact("projection_rebuilt"), fact("projection_switched")]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_cancelled_leaves_the_live_version_and_another_can_begin() {
    let app = TestApp::start().await;
    let operator = app.staff(Role::Operator).await;
    // Somebody at the console holds the read model, so the rebuild waits for its turn.
    let mut console = app.database.owner_pool.acquire().await.expect("a connection");
    sqlx::query("SELECT pg_advisory_lock(hashtext('calos-replay rebuild'), hashtext('usage_log'))")
        .execute(&mut *console)
        .await
        .expect("the turn is taken");
    let path = "/api/ops/projections/usage_log/rebuild";
    write(&app, &operator, path, &json!({"reason": "a drill"})).await.expect(202);
    let second = write(&app, &operator, path, &json!({"reason": "a drill"})).await.expect(409);
    assert!(second.text.contains("GET /api/ops/rebuild"), "{}", second.text);
    let running = read(&app, &operator, "/api/ops/rebuild").await.expect(200).body;
    assert_eq!(running["running"]["reason"], "a drill", "{running}");
    Answer::of(app.client.delete(app.url("/api/ops/rebuild")).bearer_auth(&operator.token)).await.expect(204);
    let last = rebuilt(&app, &operator).await;
    assert!(last["error"].as_str().is_some_and(|why| why.contains("cancelled")), "{last}");
    drop(console.close().await);
    let count = "SELECT count(*) FROM events WHERE event_type = 'rebuild_cancelled'";
    let recorded: i64 = sqlx::query_scalar(count).fetch_one(&app.database.pool).await.expect("a count");
    assert_eq!(recorded, 1);

    write(&app, &operator, path, &json!({"reason": "once more"})).await.expect(202);
    let last = rebuilt(&app, &operator).await;
    assert_eq!((&last["error"], &last["rebuilt"][0]["toVersion"]), (&Value::Null, &json!(2)), "{last}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_found_with_everything_of_its_conversation_and_the_look_is_recorded() {
    let app = TestApp::start().await;
    let (who, operator) = (app.register().await, app.staff(Role::Operator).await);
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;
    app.chat(&key, "gpt-4").await.expect(200);
    let stream = format!("/api/ops/events?stream=wallet/{}", who.tenant_id);
    let all = read(&app, &operator, &stream).await.expect(200).body;
    let events = all["events"].as_array().expect("events").clone();
    let names: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    for name in ["wallet_opened", "credits_granted", "hold_placed", "usage_recorded", "credits_deducted"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    assert!(all["nextCursor"].is_null());

    // Page by page the same comes out.
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = read(&app, &operator, &format!("{stream}&limit=2{cursor}")).await.expect(200).body;
        paged.extend(page["events"].as_array().expect("events").clone());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(paged, events);

    let deducted = events.iter().find(|event| event["type"] == "credits_deducted").expect("a deduction");
    let typed = read(&app, &operator, "/api/ops/events?type=credits_deducted").await.expect(200).body;
    assert_eq!(typed["events"], json!([deducted]));
    let later = "/api/ops/events?type=credits_deducted&from=2100-01-01T00:00:00Z";
    assert_eq!(read(&app, &operator, later).await.expect(200).body["events"], json!([]));
    let earlier = "/api/ops/events?type=credits_deducted&to=2020-01-01T00:00:00Z";
    assert_eq!(read(&app, &operator, earlier).await.expect(200).body["events"], json!([]));

    let one = format!("/api/ops/events/{}/{}", deducted["partition"], deducted["position"]);
    let one = read(&app, &operator, &one).await.expect(200).body;
    assert_eq!((&one["event"], &one["complete"]), (deducted, &json!(true)));
    let chain = one["chain"].as_array().expect("a chain");
    let related = |name: &str| {
        let line = chain.iter().find(|line| line["type"] == name);
        line.unwrap_or_else(|| panic!("{name} is not in {chain:?}"))["relation"].as_str().expect("a word").to_owned()
    };
    assert_eq!(
        (related("credits_deducted"), related("usage_recorded")),
        ("self".to_owned(), "same_command".to_owned())
    );
    assert!(chain.iter().any(|line| line["type"] == "hold_placed"), "the hold belongs to it: {chain:?}");

    let looks = "SELECT count(*) FROM events WHERE aggregate_type = 'ledger_access'";
    let looks: i64 = sqlx::query_scalar(looks).fetch_one(&app.database.pool).await.expect("a count");
    assert!(looks >= 5, "every look is an event, there are {looks}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_repeats_with_its_key_is_done_once_and_recorded_as_theirs() {
    let app = TestApp::start().await;
    let operator = app.staff(Role::Operator).await;
    let keyed = async |path: &str, key: &str, body: &Value| {
        Answer::of(app.post(path, body).header("idempotency-key", key).bearer_auth(&operator.token)).await
    };
    let path = "/api/ops/projections/usage_log/rebuild";
    let reason = json!({"reason": "a drill"});
    let first = keyed(path, "rebuild-1", &reason).await.expect(202);
    assert!(!first.header("calos-position").is_empty(), "it says where it was recorded");
    rebuilt(&app, &operator).await;
    let again = keyed(path, "rebuild-1", &reason).await.expect(202);
    assert_eq!((&again.body, again.header("idempotent-replayed")), (&first.body, "true"));
    let other = keyed(path, "rebuild-1", &json!({"reason": "another"})).await.expect(409);
    assert_eq!(other.body["code"], "idempotency_key_reused");

    let retry = json!({"projection": "all", "reason": "a drill"});
    let tried = keyed("/api/ops/dead-letters/retry", "retry-1", &retry).await.expect(200);
    let again = keyed("/api/ops/dead-letters/retry", "retry-1", &retry).await.expect(200);
    assert_eq!((&again.body, again.header("idempotent-replayed")), (&tried.body, "true"));
    let fresh = keyed("/api/ops/dead-letters/retry", "retry-2", &retry).await.expect(200);
    assert_ne!(fresh.body["operationId"], tried.body["operationId"], "another key is another request");

    let facts: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "SELECT event_type, metadata ->> 'actor', metadata ->> 'request_id' FROM events
         WHERE aggregate_type = 'operation' ORDER BY sequence",
    )
    .fetch_all(&app.database.pool)
    .await
    .expect("the facts");
    let names: Vec<&str> = facts.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["rebuild_started", "projection_rebuilt", "projection_switched"], "and none of them twice");
    let user = format!("user:{}", operator.user_id);
    assert!(facts.iter().all(|(_, actor, _)| *actor == user), "{facts:?}");
    assert!(facts[0].2.is_some(), "the request is named: {facts:?}");
    app.stop().await;
}
