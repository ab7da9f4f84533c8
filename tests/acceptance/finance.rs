//! What finance sees: who may, the trial balance and its dates, accounts, the journal, the seal, exports; and that every
//! look at a tenant's ledger is recorded.

#![expect(clippy::expect_used, reason = "a test's helper fails the test")]

use std::collections::BTreeMap;
use std::time::Duration;

use calos_api::cli::{Role, TierName};
use calos_tests::app::{Answer, Registered, TestApp};
use serde_json::{Value, json};
use uuid::Uuid;

/// A GET of one of the staff.
pub async fn read(app: &TestApp, who: &Registered, path: &str, after: &str) -> Answer {
    let mut request = app.get(path).bearer_auth(&who.token);
    if !after.is_empty() {
        request = request.header("calos-after", after);
    }
    Answer::of(request).await
}

/// The balances of a trial balance, by account and asset; what sums to nothing is left out.
pub fn balances(answer: &Answer) -> BTreeMap<(String, String), i64> {
    let lines = answer.body["lines"].as_array().expect("lines").iter();
    let lines = lines.map(|line| {
        let text = |name: &str| line[name].as_str().expect("a text").to_owned();
        let number = |name: &str| line[name].as_i64().expect("a number");
        assert_eq!(number("balance"), number("debit") - number("credit"), "{line}");
        ((text("account"), text("asset")), number("balance"))
    });
    lines.filter(|(_, balance)| *balance != 0).collect()
}

fn expected<const N: usize>(lines: [(&str, &str, i64); N]) -> BTreeMap<(String, String), i64> {
    lines.into_iter().map(|(account, asset, balance)| ((account.to_owned(), asset.to_owned()), balance)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_staff_reads_and_only_operators_act_and_a_refusal_names_the_role() {
    let app = TestApp::start().await;
    let (tenant, finance, operator) =
        (app.register().await, app.staff(Role::Finance).await, app.staff(Role::Operator).await);
    let moderator = app.staff(Role::Moderator).await;
    let key = app.issue_key(&tenant).await;
    let id = Uuid::now_v7();
    let reads = [
        "/api/finance/trial-balance".to_owned(),
        "/api/finance/accounts".to_owned(),
        "/api/finance/accounts/Assets:Bank".to_owned(),
        "/api/finance/journal".to_owned(),
        "/api/finance/verify".to_owned(),
        "/api/finance/export".to_owned(),
        "/api/finance/adjustments".to_owned(),
        "/api/finance/periods".to_owned(),
        "/api/finance/reconciliation".to_owned(),
        format!("/api/finance/tenants/{}/balance", tenant.tenant_id),
        format!("/api/finance/tenants/{}/ledger", tenant.tenant_id),
        format!("/api/finance/tenants/{}/statement", tenant.tenant_id),
        format!("/api/finance/tenants/{}/access", tenant.tenant_id),
    ];
    for path in &reads {
        for who in [&tenant, &moderator] {
            let refused = read(&app, who, path, "").await.expect(403);
            assert_eq!(refused.body["code"], "forbidden", "{path}");
            assert_eq!(refused.body["needs_role"], "finance", "{path}");
            assert!(refused.body["error"].as_str().expect("words").contains("finance or operator"), "{}", refused.text);
        }
        Answer::of(app.get(path).bearer_auth(&key)).await.expect(403);
        Answer::of(app.get(path)).await.expect(401);
        for who in [&finance, &operator] {
            read(&app, who, path, "").await.expect(200);
        }
    }
    let writes = [
        ("/api/finance/verify".to_owned(), json!({})),
        ("/api/finance/adjustments".to_owned(), json!({})),
        (format!("/api/finance/adjustments/{id}/approve"), json!({})),
        (format!("/api/finance/adjustments/{id}/reject"), json!({"reason": "no"})),
        ("/api/finance/periods/2020-01/close".to_owned(), json!({})),
        ("/api/finance/reconciliation".to_owned(), json!({})),
        (format!("/api/finance/reconciliation/{id}/exceptions/1/assign"), json!({})),
        (format!("/api/finance/reconciliation/{id}/exceptions/1/resolve"), json!({})),
    ];
    let before = app.event_count().await;
    for (path, body) in &writes {
        for who in [&tenant, &finance, &moderator] {
            let refused = Answer::of(app.post(path, body).bearer_auth(&who.token)).await.expect(403);
            assert_eq!(refused.body["needs_role"], "operator", "{path}: {}", refused.text);
        }
        Answer::of(app.post(path, body)).await.expect(401);
    }
    assert_eq!(app.event_count().await, before, "what was refused changed nothing");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trial_balance_is_what_a_bookkeeper_writes_down_and_sums_to_nothing() {
    let app = TestApp::start().await;
    let (who, finance) = (app.register().await, app.staff(Role::Finance).await);
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;
    let chat = app.chat(&key, "gpt-4").await.expect(200);
    let usage = |name: &str| chat.body["usage"][name].as_i64().expect("tokens");
    let provider = usage("prompt_tokens") * 30 + usage("completion_tokens") * 60;
    let total = chat.body["billing"]["total_cost_micros"].as_i64().expect("a price");
    assert!(total > provider && provider > 0);
    let after = chat.header("calos-position").to_owned();
    let trial = read(&app, &finance, "/api/finance/trial-balance", &after).await.expect(200);
    // Two people registered, each with a trial of $10.00 and 100 credits.
    let by_hand = expected([
        ("Assets:OutOfBand", "USD", -provider),
        ("Equity:Issued:trial", "CREDIT", 200),
        ("Equity:Issued:trial", "USD", 20_000_000),
        ("Expenses:Provider:openai", "USD", provider),
        ("Income:Usage:chat", "USD", -total),
        ("Liabilities:Wallet:Available", "CREDIT", -200),
        ("Liabilities:Wallet:Available", "USD", total - 20_000_000),
    ]);
    assert_eq!(balances(&trial), by_hand, "{}", trial.text);
    assert_eq!(trial.body["totals"], json!({"USD": 0, "CREDIT": 0}));
    assert_eq!(trial.body["incomplete"], 0);
    assert!(trial.body["asOf"].is_null() && trial.body["asKnownAt"].is_null());

    // Each account says the same by itself.
    for ((account, asset), balance) in &by_hand {
        let path = format!("/api/finance/accounts/{account}?asset={asset}");
        assert_eq!(read(&app, &finance, &path, &after).await.expect(200).body["balance"], *balance, "{path}");
    }
    let own = format!("/api/finance/accounts/Liabilities:Wallet:{}:Available", who.tenant_id);
    assert_eq!(read(&app, &finance, &own, &after).await.expect(200).body["balance"], total - 10_000_000);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_are_known_as_of_any_date_and_two_dates_can_be_compared() {
    let app = TestApp::start().await;
    let (who, finance) = (app.register().await, app.staff(Role::Finance).await);
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;
    let first = app.chat(&key, "gpt-4").await.expect(200);
    let cost = |chat: &Answer| chat.body["billing"]["total_cost_micros"].as_i64().expect("a price");
    let ledger = app.get("/api/credits/ledger?limit=1").bearer_auth(&who.token);
    let ledger = Answer::of(ledger.header("calos-after", first.header("calos-position"))).await.expect(200);
    let between = ledger.body["entries"][0]["recordedAt"].as_str().expect("a moment").to_owned();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let second = app.chat(&key, "gpt-4").await.expect(200);
    let after = second.header("calos-position").to_owned();

    let usage = ("Income:Usage:chat".to_owned(), "USD".to_owned());
    for query in
        [format!("asOf={between}"), format!("asKnownAt={between}"), format!("asOf={between}&asKnownAt={between}")]
    {
        let then = read(&app, &finance, &format!("/api/finance/trial-balance?{query}"), &after).await.expect(200);
        assert_eq!(balances(&then).get(&usage), Some(&-cost(&first)), "{query}: {}", then.text);
        assert_eq!(then.body["totals"], json!({"USD": 0, "CREDIT": 0}), "{query}");
        let balance = app.get(&format!("/api/credits/balance?{query}")).bearer_auth(&who.token);
        let balance = Answer::of(balance.header("calos-after", &after)).await.expect(200);
        assert_eq!(balance.body["balance_micros"], 10_000_000 - cost(&first), "{query}: {}", balance.text);
        assert_eq!(balance.body["held_micros"], 0, "{query}: {}", balance.text);
        let path = format!("/api/finance/tenants/{}/balance?{query}", who.tenant_id);
        let seen = read(&app, &finance, &path, &after).await.expect(200);
        assert_eq!(seen.body["balance_micros"], balance.body["balance_micros"], "{}", seen.text);
    }
    let now = app.get("/api/credits/balance?asOf=9999-12-31").bearer_auth(&who.token);
    let now = Answer::of(now.header("calos-after", &after)).await.expect(200);
    assert_eq!(now.body["balance_micros"], 10_000_000 - cost(&first) - cost(&second), "{}", now.text);
    let before = Answer::of(app.get("/api/credits/balance?asOf=2020-01-01").bearer_auth(&who.token)).await.expect(200);
    assert_eq!((&before.body["balance_micros"], &before.body["credits_remaining"]), (&json!(0), &json!(0)));

    let compared = format!("/api/finance/trial-balance?compareAsKnownAt={between}");
    let compared = read(&app, &finance, &compared, &after).await.expect(200);
    let differences = compared.body["differences"].as_array().expect("differences");
    let of = differences.iter().find(|line| line["account"] == "Income:Usage:chat").expect("a difference");
    assert_eq!(
        (&of["difference"], &of["compared"]),
        (&json!(-cost(&second)), &json!(-cost(&first))),
        "{}",
        compared.text
    );
    let sum: i64 = differences.iter().map(|line| line["difference"].as_i64().expect("a number")).sum();
    assert_eq!(sum, 0, "{}", compared.text);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_is_read_in_pages_and_each_entry_opens_its_event() {
    let app = TestApp::start().await;
    let (who, finance) = (app.register().await, app.staff(Role::Finance).await);
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;
    let chat = app.chat(&key, "gpt-4").await.expect(200);
    let after = chat.header("calos-position").to_owned();
    let path = format!("/api/finance/journal?tenant={}&limit=200", who.tenant_id);
    let whole = read(&app, &finance, &path, &after).await.expect(200);
    let all = whole.body["entries"].as_array().expect("entries").clone();
    // Two grants, a hold, what the provider charges, and the deduction.
    assert_eq!(all.len(), 5, "{}", whole.text);
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/finance/journal?tenant={}&limit=2{cursor}", who.tenant_id);
        let page = read(&app, &finance, &path, &after).await.expect(200);
        seen.extend(page.body["entries"].as_array().expect("entries").clone());
        let Some(next) = page.body["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, all);
    for entry in &all {
        let postings = entry["postings"].as_array().expect("postings");
        let sum: i64 = postings.iter().map(|posting| posting["amount"].as_i64().expect("a number")).sum();
        assert_eq!(sum, 0, "{entry}");
        let place = format!("/api/finance/journal/{}/{}", entry["partition"], entry["position"]);
        let opened = read(&app, &finance, &place, &after).await.expect(200);
        assert!(opened.body["entries"].as_array().expect("entries").contains(entry), "{}", opened.text);
        assert_eq!(opened.body["event"]["type"], entry["type"], "{}", opened.text);
        assert_eq!(opened.body["event"]["aggregateId"], json!(who.tenant_id), "{}", opened.text);
        assert!(opened.body["event"]["metadata"]["actor"].is_string(), "{}", opened.text);
        assert_eq!(opened.body["event"]["hash"].as_str().map(str::len), Some(64));
    }
    let none = format!("/api/finance/journal?tenant={}&to=2020-01-01", who.tenant_id);
    assert_eq!(read(&app, &finance, &none, &after).await.expect(200).body["entries"], json!([]));
    // An event that moves nothing is no entry, and neither is one that is not there.
    read(&app, &finance, "/api/finance/journal/0/999999", &after).await.expect(404);

    let accounts = format!("/api/finance/accounts?tenant={}&limit=1", who.tenant_id);
    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = read(&app, &finance, &format!("{accounts}{cursor}"), &after).await.expect(200);
        names.extend(page.body["accounts"].as_array().expect("accounts").clone());
        let Some(next) = page.body["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let name = |line: &Value| line["account"].as_str().expect("a name").to_owned();
    assert_eq!(names.len(), 2, "a grant in each asset: {names:?}");
    assert!(names.iter().all(|line| name(line).starts_with(&format!("Liabilities:Wallet:{}:", who.tenant_id))));
    let income = read(&app, &finance, "/api/finance/accounts?prefix=Income:", &after).await.expect(200);
    assert_eq!(income.body["accounts"].as_array().expect("accounts").len(), 1, "{}", income.text);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_look_of_the_staff_at_a_ledger_is_recorded_before_it_is_answered() {
    let app = TestApp::start().await;
    let (who, other) = (app.register().await, app.register().await);
    let (finance, operator) = (app.staff(Role::Finance).await, app.staff(Role::Operator).await);
    let tenant = |path: &str| format!("/api/finance/tenants/{}/{path}", who.tenant_id);
    let journal = format!("/api/finance/journal?tenant={}", who.tenant_id);
    let entry = read(&app, &operator, &journal, &who.position).await.expect(200).body["entries"][0].clone();
    let entry = format!("{}/{}", entry["partition"], entry["position"]);
    for (path, by) in [
        (tenant("balance"), &finance),
        (tenant("ledger"), &finance),
        (tenant("statement"), &finance),
        (tenant("statement?format=csv"), &operator),
        (tenant(&format!("receipts/{entry}")), &finance),
        (format!("/api/finance/journal/{entry}"), &finance),
        (format!("/api/finance/export?tenant={}", who.tenant_id), &finance),
        ("/api/finance/journal".to_owned(), &finance),
    ] {
        read(&app, by, &path, &who.position).await.expect(200);
    }
    // What shows no tenant's ledger is no look at one, and what was refused showed nothing.
    read(&app, &finance, "/api/finance/trial-balance", "").await.expect(200);
    read(&app, &finance, &tenant("balance?asOf=x"), "").await.expect(400);
    read(&app, &who, &tenant("balance"), "").await.expect(403);

    let looks = read(&app, &finance, &tenant("access"), "").await.expect(200);
    let shown: Vec<_> = looks.body["looks"]
        .as_array()
        .expect("looks")
        .iter()
        .rev()
        .map(|look| {
            let by = if look["by"] == json!(finance.user_id) { "finance" } else { "operator" };
            (by, look["what"].as_str().expect("what").to_owned(), look["scope"].as_str().expect("scope").to_owned())
        })
        .collect();
    let expected = [
        ("operator", "journal", "tenant"),
        ("finance", "balance", "tenant"),
        ("finance", "ledger", "tenant"),
        ("finance", "statement", "tenant"),
        ("operator", "statement", "tenant"),
        ("finance", "receipt", "tenant"),
        ("finance", "journal", "tenant"),
        ("finance", "export", "tenant"),
        ("finance", "journal", "all"),
    ];
    let expected: Vec<_> =
        expected.into_iter().map(|(by, what, scope)| (by, what.to_owned(), scope.to_owned())).collect();
    assert_eq!(shown, expected, "{}", looks.text);
    let others = format!("/api/finance/tenants/{}/access", other.tenant_id);
    let others = read(&app, &finance, &others, "").await.expect(200);
    assert_eq!(others.body["looks"].as_array().map(Vec::len), Some(1), "{}", others.text);

    // In pages, without gap or overlap.
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = read(&app, &finance, &tenant(&format!("access?limit=2{cursor}")), "").await.expect(200);
        seen.extend(page.body["looks"].as_array().expect("looks").clone());
        let Some(next) = page.body["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(json!(seen), looks.body["looks"]);
    let unknown = format!("/api/finance/tenants/{}/access", Uuid::now_v7());
    read(&app, &finance, &unknown, "").await.expect(404);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_check_runs_beside_everything_else_and_says_what_it_looked_at() {
    let app = TestApp::start().await;
    let operator = app.staff(Role::Operator).await;
    let nothing = read(&app, &operator, "/api/finance/verify", "").await.expect(200);
    assert_eq!(nothing.body, json!({"running": null, "last": null}));
    let begin = || app.client.post(app.url("/api/finance/verify")).bearer_auth(&operator.token);
    let ended = async || {
        for _ in 0..200 {
            let look = read(&app, &operator, "/api/finance/verify", "").await.expect(200);
            if look.body["running"].is_null() {
                return look;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the check does not end");
    };
    let (one, other) = tokio::join!(Answer::of(begin()), Answer::of(begin()));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    // The first may have ended before the second was asked for.
    assert!(statuses == [202, 409] || statuses == [202, 202], "{} {}", one.text, other.text);
    let passed = ended().await;
    assert_eq!(passed.body["last"]["passed"], true, "{}", passed.text);
    assert_eq!(passed.body["last"]["by"], json!(operator.user_id));
    let events = passed.body["last"]["events"].as_u64().expect("a number");
    assert!(events > 0 && events <= u64::try_from(app.event_count().await).expect("a count"), "{}", passed.text);

    // Whoever has the database can change a row all the same. The next check finds it, and says where.
    let change = "ALTER TABLE events DISABLE TRIGGER ALL; \
                  UPDATE events SET payload = replace(payload::text, '10000000', '90000000')::json \
                  WHERE event_type = 'credits_granted'; ALTER TABLE events ENABLE TRIGGER ALL";
    sqlx::raw_sql(change).execute(&app.database.owner_pool).await.expect("the owner can");
    Answer::of(begin()).await.expect(202);
    let found = ended().await;
    assert_eq!(found.body["last"]["passed"], false, "{}", found.text);
    let checks = found.body["last"]["checks"].as_array().expect("checks");
    let chain = checks.iter().find(|check| check["name"] == "chain").expect("the chain is checked");
    assert!(chain["findings"] == 1 && chain["first"]["position"].is_i64(), "{}", found.text);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_every_posting_of_the_trial_balance() {
    let app = TestApp::start().await;
    let (who, finance) = (app.register().await, app.staff(Role::Finance).await);
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;
    let chat = app.chat(&key, "gpt-4").await.expect(200);
    let after = chat.header("calos-position").to_owned();
    for (format, kind) in [
        ("csv", "text/csv; charset=utf-8"),
        ("jsonl", "application/jsonl; charset=utf-8"),
        ("hledger", "text/plain; charset=utf-8"),
    ] {
        let export = read(&app, &finance, &format!("/api/finance/export?format={format}"), &after).await.expect(200);
        assert_eq!(export.header("content-type"), kind);
        assert!(export.header("content-disposition").starts_with("attachment; filename=\"calos-journal."));
        for account in ["Income:Usage:chat", "Expenses:Provider:openai", "Equity:Issued:trial"] {
            assert!(export.text.contains(account), "{format} lacks {account}");
        }
        let own = format!("/api/finance/export?format={format}&tenant={}", who.tenant_id);
        let own = read(&app, &finance, &own, &after).await.expect(200);
        assert!(own.text.contains(&who.tenant_id.to_string()) && own.text.len() < export.text.len(), "{format}");
        assert!(!own.text.contains(&finance.tenant_id.to_string()), "{format}");
    }
    let parquet = app.get("/api/finance/export?format=parquet").bearer_auth(&finance.token).send().await;
    let parquet = parquet.expect("an answer").bytes().await.expect("a whole file");
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_refused_by_the_fields_name() {
    let app = TestApp::start().await;
    let finance = app.staff(Role::Finance).await;
    let tenant = Uuid::now_v7();
    let before = app.event_count().await;
    for (path, field) in [
        ("/api/finance/trial-balance?asOf=yesterday", "asOf"),
        ("/api/finance/trial-balance?asOf=2026-02-30", "asOf"),
        ("/api/finance/trial-balance?asKnownAt=1", "asKnownAt"),
        ("/api/finance/trial-balance?period=2026-13", "period"),
        ("/api/finance/trial-balance?period=2026-10&asOf=2026-10-01", "period"),
        ("/api/finance/trial-balance?compareAsKnownAt=x", "compareAsKnownAt"),
        ("/api/finance/accounts?limit=0", "limit"),
        ("/api/finance/accounts?limit=201", "limit"),
        ("/api/finance/accounts?cursor=x", "cursor"),
        ("/api/finance/accounts/Assets:Bank?asset=EUR", "asset"),
        ("/api/finance/journal?from=x", "from"),
        ("/api/finance/journal?from=2026-10-02&to=2026-10-01", "to"),
        ("/api/finance/journal?cursor=%00", "cursor"),
        ("/api/finance/export?format=pdf", "format"),
        ("/api/finance/export?holds=x", "holds"),
        ("/api/finance/adjustments?status=new", "status"),
        ("/api/finance/adjustments?cursor=1", "cursor"),
        ("/api/finance/reconciliation?limit=-1", "limit"),
    ] {
        let refused = read(&app, &finance, path, "").await.expect(400);
        assert_eq!((&refused.body["code"], &refused.body["param"]), (&json!("invalid_field"), &json!(field)), "{path}");
    }
    for path in ["/api/finance/trial-balance?page=2", "/api/finance/journal?tenant=7", "/api/finance/accounts?tenant=x"]
    {
        assert_eq!(read(&app, &finance, path, "").await.expect(400).body["code"], "invalid_field", "{path}");
    }
    for path in [
        "/api/finance/accounts/Assets:Gold".to_owned(),
        "/api/finance/journal/0/0".to_owned(),
        "/api/finance/journal/x/y".to_owned(),
        "/api/finance/journal/-1/-1".to_owned(),
        format!("/api/finance/journal?tenant={tenant}"),
        format!("/api/finance/export?tenant={tenant}"),
        format!("/api/finance/tenants/{tenant}/balance"),
        format!("/api/finance/tenants/{tenant}/ledger"),
        format!("/api/finance/tenants/{tenant}/statement"),
        format!("/api/finance/tenants/{tenant}/access"),
        "/api/finance/tenants/x/balance".to_owned(),
        format!("/api/finance/adjustments/{tenant}"),
        format!("/api/finance/reconciliation/{tenant}"),
    ] {
        assert_eq!(read(&app, &finance, &path, "").await.expect(404).body["code"], "not_found", "{path}");
    }
    assert_eq!(app.event_count().await, before, "what was refused changed nothing");
    app.stop().await;
}
