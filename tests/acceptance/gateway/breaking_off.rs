//! Whoever breaks off, the caller, the provider or the server: what was produced is paid, and nothing else.

use std::time::Duration;

use calos_api::cli::TierName;
use calos_commands::complete_chat::{OPEN_AFTER_FAILURES, PAUSE_FIRST};
use calos_tests::app::Answer;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, TRIAL_MICROS, Tenant, chunks, events, pro_gpt_4, question};

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_in_the_middle_of_a_stream_pays_for_what_was_produced() {
    let pro = Tenant::start(TierName::Pro).await;
    let body = question("[[answer_tokens=400]] [[token_delay_ms=10]] go on", true);
    let response = pro.chat(&body).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    let mut stream = response.bytes_stream();
    let mut seen = String::new();
    while seen.matches("word").count() < 5 {
        let piece = stream.next().await.expect("more to come").expect("a piece");
        seen.push_str(&String::from_utf8_lossy(&piece));
    }
    drop(stream);
    let (usage, balance) = pro.settled(1).await;
    let produced = usage[0]["completionTokens"].as_i64().expect("tokens");
    assert!((5..300).contains(&produced), "{produced}");
    let counted = json!({"prompt_tokens": usage[0]["promptTokens"], "completion_tokens": produced});
    let (_, total) = pro_gpt_4(&counted);
    assert!(total > 0);
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - total);
    // The provider was stopped rather than left to write on.
    let tally = pro.app.running.simulated().expect("simulated providers").produced()["openai/gpt-4"];
    assert_eq!((tally.calls, tally.broken_off), (1, 1));
    assert!(tally.completion_tokens < 300, "{tally:?}");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_before_a_whole_answer_pays_for_it() {
    let pro = Tenant::start(TierName::Pro).await;
    let body = question("[[answer_tokens=50]] [[token_delay_ms=40]] go on", false);
    let call = tokio::spawn(pro.chat(&body).send());
    let deadline = Instant::now() + PATIENCE;
    while pro.balance("").await["held_micros"] == 0 {
        assert!(Instant::now() < deadline && !call.is_finished(), "nothing is held");
        sleep(Duration::from_millis(10)).await;
    }
    call.abort();
    let (usage, balance) = pro.settled(1).await;
    assert_eq!(usage[0]["completionTokens"], 50);
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - usage[0]["totalMicros"].as_i64().expect("a total"));
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_and_repeats_with_the_same_key_is_answered_once() {
    let pro = Tenant::start(TierName::Pro).await;
    let body = question("[[answer_tokens=50]] [[token_delay_ms=40]] go on", false);
    let ask = || pro.chat(&body).header("idempotency-key", "once");
    let call = tokio::spawn(ask().send());
    let deadline = Instant::now() + PATIENCE;
    while pro.balance("").await["held_micros"] == 0 {
        assert!(Instant::now() < deadline && !call.is_finished(), "nothing is held");
        sleep(Duration::from_millis(10)).await;
    }
    call.abort();
    sleep(Duration::from_millis(100)).await;
    let meanwhile = Answer::of(ask()).await.expect(409);
    assert_eq!(meanwhile.body["error"]["code"], "idempotency_in_progress", "{}", meanwhile.text);
    let (usage, balance) = pro.settled(1).await;
    let again = Answer::of(ask()).await.expect(200);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.body["billing"]["usage_id"], usage[0]["usageId"]);
    assert_eq!(pro.app.running.simulated().expect("simulated providers").produced()["openai/gpt-4"].calls, 1);
    assert_eq!(pro.balance("").await["balance_micros"], balance["balance_micros"]);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_gives_nothing_costs_nothing() {
    for (switch, status, code) in [
        ("[[fail_with=500]]", 502, "simulated_failure"),
        ("[[fail_with=503]]", 503, "provider_unavailable"),
        ("[[fail_with=401]]", 503, "provider_unavailable"),
        ("[[fail_with=429]]", 429, "simulated_failure"),
        ("[[fail_with=400]]", 400, "simulated_failure"),
        ("[[drop_after_tokens=3]]", 503, "provider_unavailable"),
    ] {
        // A gateway each, so that no circuit opens.
        for stream in [false, true] {
            if stream && switch.contains("drop") {
                continue;
            }
            let pro = Tenant::start(TierName::Pro).await;
            let answer = Answer::of(pro.chat(&question(switch, stream))).await.expect(status);
            assert_eq!(answer.body["error"]["code"], code, "{switch} {}", answer.text);
            assert_eq!(answer.header("retry-after").is_empty(), !matches!(status, 429 | 503), "{switch}");
            let (usage, balance) = pro.settled(0).await;
            assert!(usage.is_empty(), "{usage:?}");
            assert_eq!(balance["balance_micros"], TRIAL_MICROS);
            pro.app.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_passes_is_not_seen_and_a_lasting_one_opens_the_circuit() {
    let pro = Tenant::start(TierName::Pro).await;
    let calls = |pro: &Tenant| pro.app.running.simulated().expect("simulated providers").refused();
    let answer = pro.ask("[[fail_first=2]] [[fail_with=503]] hello").await.expect(200);
    assert!(answer.text.contains("hello"));
    let (usage, _) = pro.settled(1).await;
    assert_eq!(usage.len(), 1);
    assert_eq!(calls(&pro), 2, "two attempts failed before the third was answered");

    for _ in 0..OPEN_AFTER_FAILURES {
        pro.ask("[[fail_with=503]] hello").await.expect(503);
    }
    let before = calls(&pro);
    let refused = pro.ask("hello").await.expect(503);
    assert!(
        refused.body["error"]["message"].as_str().is_some_and(|text| text.contains("too often")),
        "{}",
        refused.text
    );
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(calls(&pro), before, "nothing is sent while the circuit is open");
    sleep(PAUSE_FIRST).await;
    pro.ask("hello again").await.expect(200);
    pro.ask("and again").await.expect(200);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_breaks_off_in_the_middle_of_every_stream_is_left_alone_for_a_while() {
    let pro = Tenant::start(TierName::Pro).await;
    for _ in 0..OPEN_AFTER_FAILURES {
        let events = events(pro.chat(&question("[[drop_after_tokens=7]] [[answer_tokens=40]]", true))).await;
        assert_ne!(events.last().map(String::as_str), Some("[DONE]"));
    }
    let refused = pro.ask("hello").await.expect(503);
    let message = &refused.body["error"]["message"];
    assert!(message.as_str().is_some_and(|text| text.contains("too often")), "{}", refused.text);
    sleep(PAUSE_FIRST).await;
    let whole = events(pro.chat(&question("[[answer_tokens=10]]", true))).await;
    assert_eq!(whole.last().map(String::as_str), Some("[DONE]"));
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_its_provider_stumbles_over_takes_the_model_from_nobody() {
    let pro = Tenant::start(TierName::Pro).await;
    for _ in 0..2 * OPEN_AFTER_FAILURES {
        pro.ask("[[fail_with=500]] hello").await.expect(502);
    }
    pro.ask("hello").await.expect(200);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_breaks_off_is_paid_for_what_it_gave() {
    for switch in ["[[drop_after_tokens=7]]", "[[error_after_tokens=7]]"] {
        let pro = Tenant::start(TierName::Pro).await;
        let events = events(pro.chat(&question(&format!("{switch} [[answer_tokens=40]]"), true))).await;
        assert_ne!(events.last().map(String::as_str), Some("[DONE]"), "{switch}");
        let chunks = chunks(&events);
        let last = chunks.last().expect("an error");
        assert!(last["error"]["message"].is_string(), "{switch} {last}");
        let (usage, balance) = pro.settled(1).await;
        let total = usage[0]["totalMicros"].as_i64().expect("a total");
        assert!(usage[0]["completionTokens"].as_i64().is_some_and(|tokens| (7..=20).contains(&tokens)), "{usage:?}");
        assert_eq!(last["billing"]["total_cost_micros"], total, "{switch} {last}");
        assert_eq!(balance["balance_micros"], TRIAL_MICROS - total);
        pro.app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_charges_what_was_written_and_says_so() {
    let pro = Tenant::start(TierName::Pro).await;
    let body = question("[[answer_tokens=400]] [[token_delay_ms=20]] go on", true);
    let mut stream = pro.chat(&body).send().await.expect("an answer").bytes_stream();
    stream.next().await.expect("a beginning").expect("a piece");
    sleep(Duration::from_millis(200)).await;
    pro.app.running.app().gateway.stop().await;
    let mut seen = String::new();
    while let Some(piece) = stream.next().await {
        seen.push_str(&String::from_utf8_lossy(&piece.expect("a piece")));
    }
    let last = seen.trim_end().rsplit("data: ").next().expect("an event");
    let last: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(last["error"]["code"], "provider_unavailable", "{last}");
    let (usage, balance) = pro.settled(1).await;
    let total = usage[0]["totalMicros"].as_i64().expect("a total");
    assert!(total > 0);
    assert_eq!(last["billing"]["total_cost_micros"], total);
    assert_eq!(balance["balance_micros"], TRIAL_MICROS - total);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_whose_owner_died_is_given_back() {
    use calos_commands::log::{EventLog, Plan};
    use calos_commands::metadata::{Actor, Metadata};
    use calos_domain::wallet::{CallTerms, Meter, Wallet, WalletCommand, WalletRefusal};
    use calos_domain::{Asset, HoldId, StreamId, Units, UsageId};

    let pro = Tenant::start(TierName::Pro).await;
    let app = pro.app.running.app();
    let now = calos_api::request::now();
    let id = uuid::Uuid::now_v7();
    let mut plan = Plan::default();
    let wallet = plan.stream::<Wallet>(StreamId::key(pro.who.tenant_id));
    let placed = app.log.execute(&plan, Metadata::new(Actor::System("test")).into(), |unit| {
        let command = WalletCommand::PlaceHold {
            hold_id: HoldId(id),
            asset: Asset::Usd,
            amount: Units::new(4_000_000),
            meter: Meter::Chat,
            caller: None,
            terms: CallTerms::default(),
            usage_id: UsageId(id),
            admitted_at: now.plus_seconds(-120),
            expires_at: now.plus_seconds(-60),
        };
        unit.decide(wallet, command).map(drop)
    });
    let placed: Result<_, calos_commands::log::Failed<WalletRefusal>> = placed.await;
    let position = placed.expect("a hold").positions.to_string();
    assert_eq!(pro.balance(&position).await["held_micros"], 4_000_000);

    let deadline = Instant::now() + PATIENCE;
    while calos_api::expire_holds::sweep(&app.pool, &app.log).await.expect("a sweep") == 0 {
        if pro.balance("").await["held_micros"] == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "the hold is still there");
        sleep(Duration::from_millis(20)).await;
    }
    let (_, balance) = pro.settled(0).await;
    assert_eq!(balance["balance_micros"], TRIAL_MICROS);
    assert_eq!(calos_api::expire_holds::sweep(&app.pool, &app.log).await.expect("a sweep"), 0);
    pro.app.stop().await;
}
