//! Thousands of calls of which a third is left at a random point: what is billed is what was produced.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use calos_api::cli::TierName;
use calos_tests::app::{Answer, TestApp};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{Instant, sleep};

/// Calls in `make test`; `CALOS_CHURN_CALLS=10000` is the long form.
const CALLS: usize = 2_000;

/// Calls before memory is looked at for the first time.
const WARM_UP_CALLS: usize = 400;

const CALLERS: usize = 48;

const MODEL: &str = "gpt-4o-mini";

/// How much more memory the process may have afterwards. It holds caches that fill up, and no call that has ended.
const GROWTH_MAX_KIB: u64 = 64 * 1024;

/// How long the last calls may take to be charged.
const SETTLED_MAX: Duration = Duration::from_secs(60);

/// What one caller does with its call.
enum Manner {
    /// Reads a whole answer.
    Whole,
    /// Reads a stream to its end.
    Stream,
    /// Reads so many tokens of a stream, and leaves.
    LeaveAfter(u64),
    /// Leaves while a whole answer is being written.
    LeaveBefore,
}

/// SplitMix64: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % most
    }
}

fn manner(random: &mut Random) -> Manner {
    match random.below(6) {
        0 | 1 => Manner::Whole,
        2 | 3 => Manner::Stream,
        4 => Manner::LeaveBefore,
        _ => Manner::LeaveAfter(random.below(12)),
    }
}

async fn call(app: &TestApp, key: &str, manner: Manner) {
    let request = |text: String, stream: bool| {
        let messages = json!([{"role": "user", "content": text}]);
        let body = json!({"model": MODEL, "max_tokens": 40, "stream": stream, "messages": messages});
        app.post("/v1/chat/completions", &body).bearer_auth(key)
    };
    match manner {
        Manner::Whole => {
            Answer::of(request("[[answer_tokens=12]]".to_owned(), false)).await.expect(200);
        }
        Manner::Stream => {
            let answer = Answer::of(request("[[answer_tokens=12]]".to_owned(), true)).await.expect(200);
            assert!(answer.text.ends_with("[DONE]\n\n"), "{}", answer.text);
        }
        Manner::LeaveAfter(tokens) => {
            // The provider waits there, so that what it has produced and what was passed on are the same.
            let text = format!("[[answer_tokens=20]] [[stall_after_tokens={tokens}]]");
            let response = request(text, true).send().await.expect("an answer");
            assert_eq!(response.status(), 200);
            let mut stream = response.bytes_stream();
            let (mut seen, mut last) = (0, String::new());
            while seen < tokens {
                let piece = stream.next().await.expect("more to come").expect("a piece");
                last.push_str(&String::from_utf8_lossy(&piece));
                while let Some((event, rest)) = last.split_once("\n\n") {
                    seen += u64::from(event.contains("\"content\":\"") && !event.contains("\"content\":\"\""));
                    last = rest.to_owned();
                }
            }
            drop(stream);
        }
        Manner::LeaveBefore => {
            let answer = request("[[answer_tokens=12]] [[token_delay_ms=2]]".to_owned(), false).send();
            drop(tokio::time::timeout(Duration::from_millis(12), answer).await);
        }
    }
}

/// How many of the callers' requests reached CALOS and the provider cannot be told from outside: one that was left
/// before it was sent was never made.
async fn settled(app: &TestApp, token: &str) -> i64 {
    let deadline = Instant::now() + SETTLED_MAX;
    let mut before = -1;
    loop {
        let balance = Answer::of(app.get("/api/credits/balance").bearer_auth(token)).await.expect(200).body;
        let uses: i64 = sqlx::query_scalar("SELECT count(*) FROM read.usage_log")
            .fetch_one(&app.database.pool)
            .await
            .expect("the usage log can be read");
        let calls = produced(app).calls;
        if balance["held_micros"] == 0 && uses == before && i64::try_from(calls) == Ok(uses) {
            return balance["balance_micros"].as_i64().expect("a balance");
        }
        assert!(Instant::now() < deadline, "not settled: {uses} uses of {calls} calls, {balance}");
        before = uses;
        sleep(Duration::from_millis(200)).await;
    }
}

fn produced(app: &TestApp) -> calos_api::simulated::produced::Tally {
    let tallies = app.running.simulated().expect("simulated providers").produced();
    tallies.get(&format!("openai/{MODEL}")).copied().unwrap_or_default()
}

/// What this process has in memory, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|text| text.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}

async fn churn(app: &Arc<TestApp>, key: &Arc<str>, calls: usize, seed: u64) {
    let left = Arc::new(AtomicUsize::new(calls));
    let callers = (0..CALLERS).map(|caller| {
        let (app, key, left) = (Arc::clone(app), Arc::clone(key), Arc::clone(&left));
        tokio::spawn(async move {
            let mut random = Random(seed << 32 | caller as u64);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                call(&app, &key, manner(&mut random)).await;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("a caller ends well");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_billed_is_what_was_produced_whoever_leaves_when() {
    let calls = std::env::var("CALOS_CHURN_CALLS").ok().and_then(|calls| calls.parse().ok()).unwrap_or(CALLS);
    let app = Arc::new(TestApp::start().await);
    let who = app.register().await;
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let limits =
        json!({"name": "churn", "limits": {"perMinute": 1_000_000, "perHour": 1_000_000, "perDay": 1_000_000}});
    let issued = app.post(&format!("/api/tenants/{}/keys", who.tenant_id), &limits).bearer_auth(&who.token);
    let key: Arc<str> = Answer::of(issued).await.expect(201).body["key"].as_str().expect("a key").into();

    churn(&app, &key, WARM_UP_CALLS.min(calls), 1).await;
    settled(&app, &who.token).await;
    let before = resident_kib();
    churn(&app, &key, calls.saturating_sub(WARM_UP_CALLS), 2).await;
    let balance = settled(&app, &who.token).await;
    let after = resident_kib();

    let billed: (i64, i64, i64) = sqlx::query_as(
        "SELECT sum(prompt_tokens)::bigint, sum(completion_tokens)::bigint, sum(total)::bigint FROM read.usage_log",
    )
    .fetch_one(&app.database.pool)
    .await
    .expect("the usage log can be read");
    let tally = produced(&app);
    assert_eq!(
        (billed.0, billed.1),
        (i64::try_from(tally.prompt_tokens).expect("a sum"), i64::try_from(tally.completion_tokens).expect("a sum"),),
        "{tally:?}"
    );
    assert!(tally.broken_off > 0 && tally.completed > tally.broken_off, "{tally:?}");
    assert_eq!(balance, super::TRIAL_MICROS - billed.2);
    let open: i64 = sqlx::query_scalar("SELECT count(*) FROM read.open_holds")
        .fetch_one(&app.database.pool)
        .await
        .expect("the open holds can be read");
    assert_eq!(open, 0);
    // Where tests share a process, its memory is everybody's.
    let alone = std::env::var_os("NEXTEST").is_some();
    assert!(!alone || after < before + GROWTH_MAX_KIB, "{before} KiB before, {after} KiB after");
    Arc::into_inner(app).expect("nobody else has it").stop().await;
}
