//! Whoever leaves before the first piece of a stream ends the call, and pays for no more than what was sent.

use std::time::Duration;

use calos_api::cli::TierName;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, TRIAL_MICROS, Tenant, question};

/// Long enough for everything that does not wait for the provider.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

impl Tenant {
    /// Waits until something is true of the wallet or the provider.
    async fn until(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self).await {
            assert!(Instant::now() < deadline, "{what}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn refused(&self) -> u64 {
        self.app.running.simulated().expect("simulated providers").refused()
    }

    /// Asks for a stream, and leaves once this is true.
    async fn leave_once(&self, body: &Value, holds: impl AsyncFn(&Self) -> bool) {
        let call = tokio::spawn(self.chat(body).send());
        self.until("the call does not get there", holds).await;
        assert!(!call.is_finished(), "it was answered before anybody could leave");
        call.abort();
    }
}

async fn holds_something(tenant: &Tenant) -> bool {
    tenant.balance("").await["held_micros"] != 0
}

/// Whether the one use in the log is marked as counted here.
async fn estimated(tenant: &Tenant) -> bool {
    let query = "SELECT payload #>> '{usage_recorded,estimated}' FROM events WHERE event_type = 'usage_recorded'";
    let marks = sqlx::query_scalar::<_, Option<String>>(query).fetch_all(&tenant.app.database.pool).await;
    let marks = marks.expect("the log can be read");
    assert_eq!(marks.len(), 1);
    marks[0].as_deref() == Some("true")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_before_the_first_piece_stops_the_provider_and_pays_for_the_prompt() {
    let pro = Tenant::start(TierName::Pro).await;
    let body = question("[[first_byte_delay_ms=30000]] [[answer_tokens=40]] go on", true);
    pro.leave_once(&body, holds_something).await;
    let left = Instant::now();
    let (usage, balance) = pro.settled(1).await;
    assert!(left.elapsed() < ENDS_WITHIN, "the provider was waited for");
    assert_eq!((&usage[0]["completionTokens"], estimated(&pro).await), (&json!(0), true), "{usage:?}");
    let prompt = usage[0]["promptTokens"].as_i64().expect("tokens");
    // gpt-4 reads a token for 30 micro-dollars, and 30 percent are added.
    let total = (prompt * 30 * 130 + 50) / 100;
    assert!(prompt > 0);
    assert_eq!((&usage[0]["totalMicros"], &balance["balance_micros"]), (&json!(total), &json!(TRIAL_MICROS - total)));
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_after_a_refusal_pays_nothing_and_is_not_asked_for_again() {
    let pro = Tenant::start(TierName::Pro).await;
    // The provider wants to be asked again in a second.
    let body = question("[[fail_with=429]] hello", true);
    pro.leave_once(&body, async |pro: &Tenant| pro.refused() == 1).await;
    let (usage, balance) = pro.settled(0).await;
    assert_eq!((usage.len(), &balance["balance_micros"]), (0, &json!(TRIAL_MICROS)));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(pro.refused(), 1);
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_thinks_unseen_is_read_to_its_end_whoever_leaves_before() {
    let pro = Tenant::start(TierName::Pro).await;
    let text = "[[first_byte_delay_ms=700]] [[reasoning_tokens=50]] [[answer_tokens=10]] go on";
    let mut body = question(text, true);
    body["model"] = json!("o3");
    pro.leave_once(&body, holds_something).await;
    let (usage, _) = pro.settled(1).await;
    assert_eq!((&usage[0]["completionTokens"], estimated(&pro).await), (&json!(60), false), "{usage:?}");
    pro.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_gives_the_hold_of_a_whole_answer_back() {
    let pro = Tenant::start(TierName::Pro).await;
    let body = question("[[answer_tokens=100]] [[token_delay_ms=300]] go on", false);
    let call = tokio::spawn(pro.chat(&body).send());
    pro.until("nothing is held", holds_something).await;
    let began = Instant::now();
    pro.app.running.app().gateway.stop().await;
    assert!(began.elapsed() < ENDS_WITHIN, "the answer was waited for");
    // By then the hold has ended, and not by and by.
    let ended = "SELECT count(*) FROM events WHERE event_type = 'hold_released'";
    let ended: i64 = sqlx::query_scalar(ended).fetch_one(&pro.app.database.pool).await.expect("the log can be read");
    assert_eq!(ended, 1);
    let answer = call.await.expect("the call ends").expect("an answer");
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    let (usage, balance) = pro.settled(0).await;
    assert_eq!((usage.len(), &balance["balance_micros"]), (0, &json!(TRIAL_MICROS)));
    pro.app.stop().await;
}
