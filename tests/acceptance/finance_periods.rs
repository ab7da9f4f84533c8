//! Closed months stay as they are: in the trial balance, in the tenant's balance and statement, whatever comes late.

#![expect(clippy::expect_used, reason = "a test's helper fails the test")]

use calos_api::cli::Role;
use calos_domain::Timestamp;
use calos_domain::period::Month;
use calos_tests::app::{Answer, Registered, TestApp};
use serde_json::json;

use super::finance::{balances, read};
use super::finance_adjustments::{approve, propose};

/// The month before the current one, and the current one.
fn months() -> (Month, Month) {
    let micros = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_micros();
    let now = Month::of(Timestamp::from_micros(i64::try_from(micros).expect("a moment"))).expect("a month");
    let before = Timestamp::from_micros(now.starts_at().micros() - 1);
    (Month::of(before).expect("a month"), now)
}

async fn close(app: &TestApp, by: &Registered, month: impl std::fmt::Display) -> Answer {
    let request = app.client.post(app.url(&format!("/api/finance/periods/{month}/close")));
    Answer::of(request.bearer_auth(&by.token)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_month_is_fixed_and_what_comes_late_stands_in_the_open_one_with_its_own_date() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let (author, second) = (app.staff(Role::Operator).await, app.staff(Role::Operator).await);
    let (last, now) = months();
    let dated = |day: u8| json!({"effectiveAt": format!("{last}-{day:02}T12:00:00Z")});
    let adjust = async |amount: i64, day: u8| {
        let proposed = propose(&app, &author, who.tenant_id, amount, dated(day)).await.expect(201);
        approve(&app, &second, &proposed).await.expect(200).header("calos-position").to_owned()
    };
    let trial = async |query: &str, after: &str| {
        read(&app, &author, &format!("/api/finance/trial-balance?{query}"), after).await.expect(200)
    };
    let period = format!("period={last}");

    let after = adjust(5_000_000, 10).await;
    let open = trial(&period, &after).await;
    assert!(open.body.get("closing").is_none() && open.body["asKnownAt"].is_null(), "{}", open.text);
    let available = ("Liabilities:Wallet:Available".to_owned(), "USD".to_owned());
    assert_eq!(balances(&open).get(&available), Some(&-5_000_000), "{}", open.text);

    let closed = close(&app, &author, last).await.expect(200);
    let after = closed.header("calos-position").to_owned();
    let fixed = trial(&period, &after).await;
    assert_eq!(fixed.body["lines"], open.body["lines"], "closing changes no figure");
    assert_eq!(fixed.body["closing"]["agrees"], true, "{}", fixed.text);
    assert_eq!(fixed.body["asKnownAt"], closed.body["asKnownAt"]);

    let after = adjust(3_000_000, 11).await;
    let still = trial(&period, &after).await;
    assert_eq!(still.body["lines"], fixed.body["lines"], "a closed month stays as it is");
    assert_eq!(still.body["closing"]["agrees"], true);
    let late = trial(&format!("asOf={last}-28"), &after).await;
    assert_eq!(balances(&late).get(&available), Some(&-8_000_000), "with its own date where that is asked for");
    let current = trial(&format!("period={now}"), &after).await;
    // Three people have their trials in the month that is open.
    assert_eq!(balances(&current).get(&available), Some(&-38_000_000), "{}", current.text);

    let statement = async |month: Month| {
        read(&app, &who, &format!("/api/credits/statement?month={month}"), &after).await.expect(200)
    };
    let before = statement(last).await;
    assert!(before.body["closedAt"].is_string(), "{}", before.text);
    assert_eq!(before.body["assets"][0]["closing"], 5_000_000, "{}", before.text);
    let amounts = |answer: &Answer| -> Vec<(i64, bool)> {
        let lines = answer.body["movements"].as_array().expect("movements").iter();
        let usd = lines.filter(|line| line["asset"] == "USD");
        usd.map(|line| (line["amount"].as_i64().expect("a number"), line["late"] == true)).collect()
    };
    assert_eq!(amounts(&before), [(5_000_000, false)]);
    let this = statement(now).await;
    assert_eq!(
        (&this.body["assets"][0]["opening"], &this.body["assets"][0]["closing"]),
        (&json!(5_000_000), &json!(18_000_000))
    );
    assert_eq!(amounts(&this), [(10_000_000, false), (3_000_000, true)], "{}", this.text);
    let effective = this.body["movements"].as_array().expect("movements").iter().find(|line| line["late"] == true);
    assert_eq!(effective.expect("a late one")["effectiveAt"], format!("{last}-11T12:00:00Z"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn months_close_once_in_order_and_only_when_they_are_over() {
    let app = TestApp::start().await;
    let operator = app.staff(Role::Operator).await;
    let (last, now) = months();
    for month in ["2026", "2026-13", "october", "1969-12"] {
        assert_eq!(close(&app, &operator, month).await.expect(400).body["param"], "month", "{month}");
    }
    let early = close(&app, &operator, now).await.expect(409);
    assert!(early.body["endsAt"].is_string(), "{}", early.text);
    let closed = close(&app, &operator, "2026-01").await.expect(200);
    assert_eq!((&closed.body["month"], &closed.body["closedBy"]), (&json!("2026-01"), &json!(operator.user_id)));
    let again = close(&app, &operator, "2026-01").await.expect(409);
    assert!(again.body["closedAt"].is_string(), "{}", again.text);
    let skipped = close(&app, &operator, last).await.expect(409);
    assert_eq!(skipped.body["next"], "2026-02", "{}", skipped.text);
    let second = close(&app, &operator, "2026-02").await.expect(200);
    let after = second.header("calos-position").to_owned();
    let periods = read(&app, &operator, "/api/finance/periods", &after).await.expect(200);
    let listed = periods.body["periods"].as_array().expect("periods");
    assert_eq!((listed.len(), &periods.body["next"]), (2, &json!("2026-03")), "{}", periods.text);
    assert_eq!(listed[0]["previousHash"], listed[1]["hash"], "each closing is chained to the one before");
    assert!(listed[1]["previousHash"].is_null() && listed[1]["hash"].as_str().is_some_and(|hash| hash.len() == 64));
    assert!(!listed[0]["heads"].as_array().expect("heads").is_empty());

    // The same request again is answered with the first answer.
    let keyed = || {
        let request = app.client.post(app.url("/api/finance/periods/2026-03/close")).bearer_auth(&operator.token);
        Answer::of(request.header("idempotency-key", "march"))
    };
    let first = keyed().await.expect(200);
    assert_eq!(keyed().await.expect(200).body, first.body);
    app.stop().await;
}
