//! A tenant's statement: for programs, for spreadsheets, for the printer; and all three say the same.

#![expect(clippy::expect_used, reason = "a test's helper fails the test")]

use std::collections::BTreeSet;

use calos_api::cli::TierName;
use calos_tests::app::{Answer, Registered, TestApp};
use serde_json::{Value, json};

/// Somebody who has used the gateway a few times, and where that stands.
async fn with_history(app: &TestApp, calls: usize) -> (Registered, String) {
    let who = app.register().await;
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;
    app.lift_limits(&who, &key).await;
    let mut position = who.position.clone();
    for _ in 0..calls {
        position = app.chat(&key, "gpt-4").await.expect(200).header("calos-position").to_owned();
    }
    (who, position)
}

async fn statement(app: &TestApp, who: &Registered, query: &str, after: &str) -> Answer {
    let mut request = app.get(&format!("/api/credits/statement?{query}")).bearer_auth(&who.token);
    if !after.is_empty() {
        request = request.header("calos-after", after);
    }
    Answer::of(request).await
}

fn numbers(lines: &[Value], name: &str) -> Vec<i64> {
    lines.iter().map(|line| line[name].as_i64().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_leads_from_the_opening_to_the_closing_balance() {
    let app = TestApp::start().await;
    let (who, after) = with_history(&app, 3).await;
    let whole = statement(&app, &who, "", &after).await.expect(200);
    let balance = app.get("/api/credits/balance").bearer_auth(&who.token).header("calos-after", &after);
    let balance = Answer::of(balance).await.expect(200);
    let usd = &whole.body["assets"][0];
    assert_eq!((&usd["asset"], &usd["opening"], &usd["held"]), (&json!("USD"), &json!(0), &json!(0)), "{}", whole.text);
    assert_eq!(usd["closing"], balance.body["balance_micros"], "{}", whole.text);
    let credit = &whole.body["assets"][1];
    assert_eq!((&credit["asset"], &credit["opening"], &credit["closing"]), (&json!("CREDIT"), &json!(0), &json!(100)));
    let movements = whole.body["movements"].as_array().expect("movements");
    assert_eq!(movements.len(), 5, "two grants and three uses: {}", whole.text);
    for asset in ["USD", "CREDIT"] {
        let own: Vec<Value> = movements.iter().filter(|line| line["asset"] == asset).cloned().collect();
        let mut running = 0;
        let sums: Vec<i64> = numbers(&own, "amount")
            .into_iter()
            .map(|amount| {
                running += amount;
                running
            })
            .collect();
        assert_eq!(numbers(&own, "balance"), sums, "{asset}: {}", whole.text);
    }
    assert!(movements.iter().all(|line| line["late"] == false), "{}", whole.text);
    let first = movements.iter().find(|line| line["type"] == "credits_granted").expect("a grant");
    assert_eq!(first["reason"], "trial", "{}", whole.text);
    let used = movements.iter().filter(|line| line["type"] == "credits_deducted");
    assert!(used.clone().count() == 3 && used.clone().all(|line| line["usageId"].is_string()), "{}", whole.text);
    assert!(whole.body["closedAt"].is_null() && whole.body["nextCursor"].is_null());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_statement_are_one_statement_whatever_happens_between_them() {
    let app = TestApp::start().await;
    let (who, after) = with_history(&app, 4).await;
    let whole = statement(&app, &who, "limit=500", &after).await.expect(200);
    let key = app.issue_key(&who).await;
    let mut seen = Vec::new();
    let mut query = "limit=2".to_owned();
    loop {
        let page = statement(&app, &who, &query, &after).await.expect(200);
        seen.extend(page.body["movements"].as_array().expect("movements").clone());
        // The first page fixes what is known; the others are pages of the same statement.
        if seen.len() > 2 {
            assert_eq!(page.body["assets"], whole.body["assets"], "{}", page.text);
        }
        let Some(cursor) = page.body["nextCursor"].as_str() else { break };
        query = format!("limit=2&cursor={cursor}");
        if seen.len() == 2 {
            app.chat(&key, "gpt-4").await.expect(200);
        }
    }
    assert_eq!(json!(seen), whole.body["movements"]);
    let places: BTreeSet<String> = seen.iter().map(|line| line["position"].to_string()).collect();
    assert_eq!(places.len(), seen.len());

    // A cursor is good for the statement it was given for, with the figures it was given with.
    let cursor = query.rsplit('=').next().expect("a cursor").to_owned();
    let mut forged = cursor.clone();
    forged.replace_range(10..11, if &forged[10..11] == "A" { "B" } else { "A" });
    let (stranger, _) = with_history(&app, 0).await;
    for (reader, cursor) in [(&who, forged.as_str()), (&stranger, cursor.as_str()), (&who, "x"), (&who, "")] {
        let refused = statement(&app, reader, &format!("cursor={cursor}"), &after).await.expect(400);
        assert_eq!(refused.body["param"], "cursor", "{cursor}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_csv_and_the_page_say_what_the_json_says() {
    let app = TestApp::start().await;
    let (who, after) = with_history(&app, 2).await;
    let json = statement(&app, &who, "", &after).await.expect(200);
    let month = json.body["month"].as_str().expect("a month");
    let csv = statement(&app, &who, &format!("month={month}&format=csv"), &after).await.expect(200);
    assert!(csv.header("content-type").starts_with("text/csv"));
    let name = format!("attachment; filename=\"calos-statement-{month}.csv\"");
    assert_eq!(csv.header("content-disposition"), name);
    let rows: Vec<Vec<&str>> = csv.text.split_terminator("\r\n").map(|row| row.split(',').collect()).collect();
    let column = |name: &str| rows[0].iter().position(|column| *column == name).expect("a column");
    let movements: Vec<_> = rows.iter().filter(|row| row[0] == "movement").collect();
    let lines = json.body["movements"].as_array().expect("movements");
    assert_eq!(movements.len(), lines.len(), "{}", csv.text);
    for (row, line) in movements.iter().zip(lines) {
        assert_eq!(row.len(), rows[0].len());
        assert_eq!(row[column("amount_units")], line["amount"].to_string());
        assert_eq!(row[column("balance_units")], line["balance"].to_string());
        assert_eq!(row[column("position")], line["position"].to_string());
        assert_eq!(Some(row[column("recorded_at")]), line["recordedAt"].as_str());
        assert_eq!(Some(row[column("type")]), line["type"].as_str());
    }
    let closing = rows.iter().find(|row| row[0] == "closing" && row[1] == "USD").expect("a closing row");
    assert_eq!(closing[column("balance_units")], json.body["assets"][0]["closing"].to_string());

    let page = statement(&app, &who, "format=html", &after).await.expect(200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-"));
    assert_eq!((page.header("x-content-type-options"), page.header("cache-control")), ("nosniff", "no-store"));
    assert!(page.text.starts_with("<!doctype html>") && page.text.ends_with("</html>\n"));
    assert!(!page.text.contains("<script") && page.text.contains("@media print"));
    for line in lines {
        let place = format!("<td>{}:{}</td>", line["partition"], line["position"]);
        assert!(page.text.contains(&place), "{place} is missing");
    }
    for row in [closing[column("balance")], closing[column("debt")]] {
        assert!(page.text.contains(&format!("<td class=\"n\">{row}</td>")), "{row} is missing");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_is_called_cannot_be_markup() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let named = app.post("/api/tenants", &json!({"name": "<script>alert(1)</script> & \"Söhne\""}));
    let named = Answer::of(named.bearer_auth(&who.token)).await.expect(201);
    let tenant = named.body["tenantId"].as_str().expect("a tenant");
    let page = app.get("/api/credits/statement?format=html").bearer_auth(&who.token).header("x-calos-tenant", tenant);
    let page = Answer::of(page.header("calos-after", named.header("calos-position"))).await.expect(200);
    assert!(page.text.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;Söhne&quot;"), "{}", page.text);
    assert!(!page.text.contains("<script"), "{}", page.text);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_of_one_month_and_ones_own_tenant() {
    let app = TestApp::start().await;
    let (who, after) = with_history(&app, 1).await;
    let key = app.issue_key(&who).await;
    let by_key = app.get("/api/credits/statement").bearer_auth(&key).header("calos-after", &after);
    let by_session = statement(&app, &who, "", &after).await.expect(200);
    assert_eq!(Answer::of(by_key).await.expect(200).body["movements"], by_session.body["movements"]);
    let (other, _) = with_history(&app, 0).await;
    let others =
        app.get("/api/credits/statement").bearer_auth(&other.token).header("x-calos-tenant", who.tenant_id.to_string());
    Answer::of(others).await.expect(404);
    Answer::of(app.get("/api/credits/statement")).await.expect(401);
    let early = statement(&app, &who, "month=2020-01", &after).await.expect(200);
    assert_eq!((&early.body["movements"], &early.body["assets"][0]["closing"]), (&json!([]), &json!(0)));
    for (query, field) in [
        ("month=2999-01", "month"),
        ("month=2026-00", "month"),
        ("month=now", "month"),
        ("format=pdf", "format"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("format=html&limit=5001", "limit"),
        ("format=csv&limit=5", "limit"),
        ("format=csv&cursor=x", "cursor"),
    ] {
        let refused = statement(&app, &who, query, "").await.expect(400);
        assert_eq!(
            (&refused.body["code"], &refused.body["param"]),
            (&json!("invalid_field"), &json!(field)),
            "{query}"
        );
    }
    app.stop().await;
}
