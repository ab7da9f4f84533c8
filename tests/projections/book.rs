//! Entries the book refuses, the journal's pages, accounts by their names, and grants whose end is due.

use calos_domain::book::Account;
use calos_domain::wallet::WalletEvent;
use calos_domain::{Asset, GrantId, TenantId, Timestamp};
use calos_projections::as_of::{self, AsOf};
use calos_projections::dead_letters::list;
use calos_projections::journal::{Cursor, JournalFilter};
use calos_projections::{Runner, RunnerOptions, account_balances, journal, open_grants};
use calos_tests::database::TestDatabase;
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use crate::histories::{Dice, Story, mixed};
use crate::raw_log::{Raw, append, append_at};

const OF_THE_BOOK: [&str; 4] = ["journal", "account_balances", "trial_balance", "wallet_days"];

async fn catch_up(pool: &PgPool) {
    Runner::catch_up(pool.clone(), RunnerOptions::default()).await.expect("the projections catch up");
}

fn wallet(tenant: TenantId, event_type: &str, inner: &str) -> Raw {
    Raw {
        kind: "wallet",
        stream: tenant.to_string(),
        event_type: event_type.to_owned(),
        event_version: "1".to_owned(),
        payload: format!("{{\"{event_type}\":{inner}}}"),
    }
}

/// Wallets of some tenants, as the log would mix them.
fn wallets(seed: u64, tenants: usize, commands: usize) -> (Vec<Story>, Vec<Raw>) {
    let mut dice = Dice::new(seed);
    let (mut stories, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..tenants {
        let mut events = Vec::new();
        let mut story = Story::begin(&mut dice, &mut events);
        for _ in 0..commands {
            story.go_on(&mut dice, &mut events);
        }
        stories.push(story);
        streams.push(events);
    }
    let events = mixed(&mut dice, streams);
    (stories, events)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_the_book_refuses_is_set_aside_with_its_accounts_and_holds_up_its_stream_alone() {
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    let (unbalanced, negative) = (TenantId(Uuid::from_u128(7)), TenantId(Uuid::from_u128(8)));
    let (grant, hold, usage) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    // It spends 40 and says that the grant gave 30.
    let deducted = format!(
        r#"{{"usage_id":"{usage}","hold_id":"{hold}","asset":"USD","amount":40,
            "allocations":[{{"grant_id":"{grant}","amount":30}}],"held":40,"returned":0,"available_after":60}}"#
    );
    append(pool, &wallet(unbalanced, "credits_deducted", &deducted)).await;
    let opened = |tenant: TenantId| format!(r#"{{"tenant_id":"{tenant}","opened_at":1}}"#);
    append(pool, &wallet(unbalanced, "wallet_opened", &opened(unbalanced))).await;
    // Credit that would be taken by being given out.
    let granted = format!(
        r#"{{"grant_id":"{grant}","asset":"USD","kind":"trial","amount":-5,"priority":0,"effective_at":1,"cost_basis":0,
            "source_ref":"a","available_after":0}}"#
    );
    append(pool, &wallet(negative, "credits_granted", &granted)).await;
    let (stories, events) = wallets(12, 2, 40);
    for event in &events {
        append(pool, event).await;
    }
    catch_up(pool).await;
    for name in OF_THE_BOOK {
        let letters = list(pool, name, 100).await.expect("the letters");
        let told = |tenant: TenantId, parked: bool| {
            let mut of = letters.iter().filter(|letter| letter.aggregate_id == tenant.to_string());
            of.find(|letter| letter.parked == parked).map(|letter| letter.error.clone())
        };
        assert_eq!(letters.len(), 3, "{name}: {letters:?}");
        let error = told(unbalanced, false).expect("it is set aside");
        assert!(error.contains("the book refuses it") && error.contains("Income:Usage:chat"), "{name}: {error}");
        assert!(error.contains(&Account::Available(unbalanced, GrantId(grant)).to_string()), "{name}: {error}");
        assert!(told(unbalanced, true).is_some(), "{name}: later events of the stream wait");
        let error = told(negative, false).expect("it is set aside");
        assert!(error.contains("-5") && error.contains("Equity:Issued:trial"), "{name}: {error}");
    }
    for story in &stories {
        let shown = as_of::wallet(pool, story.tenant, AsOf::default()).await.expect("a wallet");
        assert_eq!(shown[0].available, story.wallet.purse(Asset::Usd).available.get(), "other wallets go on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_through_the_journal_in_both_directions_and_every_event_leads_to_its_entries() {
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    let (stories, events) = wallets(31, 3, 60);
    for event in &events {
        append(pool, event).await;
    }
    catch_up(pool).await;
    let tenant = Some(stories[1].tenant);
    let middle: Timestamp = {
        let micros: i64 = sqlx::query_scalar(
            "SELECT (extract(epoch FROM percentile_disc(0.5) WITHIN GROUP (ORDER BY recorded_at)) * 1000000)::int8
             FROM read.journal",
        )
        .fetch_one(pool)
        .await
        .expect("a moment");
        Timestamp::from_micros(micros)
    };
    for filter in [
        JournalFilter::default(),
        JournalFilter { tenant, ..JournalFilter::default() },
        JournalFilter { from: Some(middle), ..JournalFilter::default() },
        JournalFilter { tenant, to: Some(middle), ..JournalFilter::default() },
    ] {
        let rows: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM read.journal WHERE ($1::uuid IS NULL OR tenant_id = $1)
                 AND ($2::int8 IS NULL OR recorded_at >= timestamptz 'epoch' + $2 * interval '1 microsecond')
                 AND ($3::int8 IS NULL OR recorded_at < timestamptz 'epoch' + $3 * interval '1 microsecond')",
        )
        .bind(filter.tenant.map(|tenant| tenant.0))
        .bind(filter.from.map(Timestamp::micros))
        .bind(filter.to.map(Timestamp::micros))
        .fetch_one(pool)
        .await
        .expect("a count");
        assert!(rows > 20, "{filter:?}: {rows}");
        let mut there = Vec::new();
        let mut cursor: Option<Cursor> = None;
        loop {
            let page = journal::page(pool, filter, cursor, 7).await.expect("a page");
            there.extend(page.rows);
            cursor = page.next.map(|next| next.to_string().parse().expect("what is shown is read back"));
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(there.len() as i64, rows, "{filter:?}");
        assert!(there.is_sorted_by(|a, b| a.recorded_at >= b.recorded_at));
        let mut back = Vec::new();
        let mut cursor = None;
        loop {
            let page = journal::forward(pool, filter, cursor, 11).await.expect("a page");
            back.extend(page.rows);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        back.reverse();
        assert_eq!(there, back, "{filter:?}");
    }
    let page = journal::page(pool, JournalFilter::default(), None, 500).await.expect("a page");
    for entry in &page.rows {
        assert_eq!(entry.postings.iter().map(|posting| posting.amount).sum::<i128>(), 0, "{entry:?}");
        let of_the_event = journal::entry(pool, entry.partition, entry.position).await.expect("entries");
        assert!(of_the_event.contains(entry), "{entry:?}");
    }
    assert!(journal::entry(pool, 0, 1_000_000).await.expect("entries").is_empty());
    assert!("1.2".parse::<Cursor>().is_err() && "1.2.3.USD.4".parse::<Cursor>().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_found_by_how_their_names_begin() {
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    let (stories, events) = wallets(77, 3, 60);
    for event in &events {
        append(pool, event).await;
    }
    catch_up(pool).await;
    let own = format!("Liabilities:Wallet:{}:", stories[0].tenant);
    for (prefix, at_least) in [("", 10), ("Income:", 1), ("Equity:Issued:", 2), (own.as_str(), 3), ("Nothing", 0)] {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = account_balances::page(pool, prefix, cursor.as_ref(), 3).await.expect("a page");
            all.extend(page.rows);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert!(all.iter().all(|row| row.account.starts_with(prefix)), "{prefix}: {all:?}");
        assert!(all.is_sorted_by(|a, b| (&a.account, a.asset.as_str()) < (&b.account, b.asset.as_str())), "{all:?}");
        let count: i64 = sqlx::query_scalar(
            "SELECT count(DISTINCT (account, asset)) FROM read.account_balances WHERE starts_with(account, $1)",
        )
        .bind(prefix)
        .fetch_one(pool)
        .await
        .expect("a count");
        assert_eq!(all.len() as i64, count, "{prefix}");
        assert!(count >= at_least, "{prefix}: {count}");
        for row in &all {
            let account: Account = row.account.parse().expect("an account");
            assert_eq!(account_balances::find(pool, &account, row.asset).await.expect("a row").as_ref(), Some(row));
        }
        for asset in Asset::ALL.iter().filter(|_| prefix.is_empty()) {
            let sum: i64 = all.iter().filter(|row| row.asset == *asset).map(|row| row.balance).sum();
            assert_eq!(sum, 0, "{asset}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_whose_time_is_over_is_due_until_that_is_recorded_and_taken_off_by_whoever_asks_by_effective_time() {
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    let tenant = TenantId(Uuid::from_u128(9));
    let second = |second: i64| Timestamp::from_micros(1_760_000_000_000_000).plus_seconds(second);
    let granted = |id: u128, amount: i64, expires: i64| {
        wallet(
            tenant,
            "credits_granted",
            &format!(
                r#"{{"grant_id":"{}","asset":"USD","kind":"trial","amount":{amount},"priority":0,"effective_at":{},
                    "expires_at":{},"cost_basis":0,"source_ref":"a","available_after":{amount}}}"#,
                Uuid::from_u128(id),
                second(0).micros(),
                second(expires).micros(),
            ),
        )
    };
    for (id, amount, expires) in [(1, 100, 1_000), (2, 70, 2_000), (3, 11, 900_000)] {
        append_at(pool, &granted(id, amount, expires), Some(second(1))).await;
    }
    // Something of the first was claimed back after its time.
    let voided = format!(
        r#"{{"grant_id":"{}","asset":"USD","claimed":30,"amount":30,"source_ref":"b","available_after":151}}"#,
        Uuid::from_u128(1)
    );
    append_at(pool, &wallet(tenant, "grant_voided", &voided), Some(second(5_000))).await;
    catch_up(pool).await;
    let due = |at: i64| open_grants::due(pool, second(at), 10);
    let id = |id: u128| (tenant, GrantId(Uuid::from_u128(id)));
    assert_eq!(due(999).await.expect("grants"), []);
    assert_eq!(due(1_000).await.expect("grants"), [id(1)]);
    assert_eq!(due(2_000).await.expect("grants"), [id(1), id(2)]);
    assert_eq!(open_grants::due(pool, second(2_000), 1).await.expect("grants"), [id(1)]);

    let lapsed = async |effective: i64, recorded: Option<i64>| {
        let at = AsOf { effective: Some(second(effective)), recorded: recorded.map(second) };
        let wallet = as_of::wallet(pool, tenant, at).await.expect("a wallet")[0].available;
        let spendable = as_of::spendable(pool, tenant, at).await.expect("a wallet")[0].available;
        (wallet, wallet - spendable)
    };
    let expected =
        [(999, (181, 0)), (1_000, (181, 100)), (3_000, (181, 170)), (6_000, (151, 140)), (900_000, (151, 151))];
    for (at, expected) in expected {
        assert_eq!(lapsed(at, None).await, expected, "at {at}");
    }
    assert_eq!(lapsed(6_000, Some(4_000)).await, (181, 170), "as known before the claim");

    // The end of the first is recorded at last, with the date it counts from.
    let expired = format!(
        r#"{{"grant_id":"{}","asset":"USD","amount":70,"expired_at":{},"available_after":81}}"#,
        Uuid::from_u128(1),
        second(1_000).micros()
    );
    let expired = wallet(tenant, "grant_expired", &expired);
    let _: WalletEvent = serde_json::from_str(&expired.payload).expect("an event");
    append_at(pool, &expired, Some(second(7_000))).await;
    catch_up(pool).await;
    assert_eq!(due(2_000).await.expect("grants"), [id(2)]);
    for (at, expected) in [(999, (181, 0)), (1_000, (111, 0)), (3_000, (111, 70)), (6_000, (81, 70)), (8_000, (81, 70))]
    {
        assert_eq!(lapsed(at, None).await, expected, "at {at}, known since");
    }
    assert_eq!(lapsed(6_000, Some(6_000)).await, (151, 140), "as known before its end was recorded");
    let rows = sqlx::query("SELECT effective_at = $1, shifted FROM read.journal WHERE type = 'grant_expired'");
    let row = rows.bind(sqlx::types::time::OffsetDateTime::from_unix_timestamp(1_760_001_000).expect("a moment"));
    let row = row.fetch_one(pool).await.expect("an entry");
    assert!(row.get::<bool, _>(0) && row.get::<bool, _>(1));
}
