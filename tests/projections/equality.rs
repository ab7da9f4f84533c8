//! However the log is cut into batches, the rows are the same; and they say what the wallets themselves say.

use calos_domain::wallet::Wallet;
use calos_domain::{Asset, Record, TenantId, Timestamp};
use calos_projections::as_of::{self, AsOf};
use calos_projections::wallet_balance::{Figures, figures};
use calos_projections::{CopySink, Runner, RunnerOptions, Schema, open_holds, registry, wallet_ledger};
use calos_tests::database::TestDatabase;
use sqlx::{Executor as _, PgPool, Row as _};

use crate::finance_histories::{adjustment, months, payment, payout, reconciliation};
use crate::histories::{Dice, Story, mixed, people};
use crate::raw_log::{Raw, append};

/// Every table of every read model in one schema, row by row as text.
pub async fn rows(pool: &PgPool, schema: Schema) -> Vec<String> {
    let mut all = Vec::new();
    for table in registry::ALL.iter().flat_map(|projection| projection.tables()) {
        let statement =
            format!("SELECT '{0} ' || t::text FROM {schema}.{0} t ORDER BY {1}", table.name, table.key_list());
        all.extend(sqlx::query_scalar::<_, String>(&statement).fetch_all(pool).await.expect("a table"));
    }
    all
}

/// The whole log folded at once, written by `store` into `read_next` and by `copy` into `read_old`.
pub async fn fold_from_zero(database: &TestDatabase) {
    let events = sqlx::query(
        "SELECT partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload::text,
             (extract(epoch FROM recorded_at) * 1000000)::bigint FROM events ORDER BY partition, position",
    )
    .fetch_all(&database.pool)
    .await
    .expect("the log can be read");
    let mut connection = database.owner_pool.acquire().await.expect("a connection");
    for projection in registry::ALL {
        for schema in [Schema::Next, Schema::Old] {
            for statement in projection.tables().iter().flat_map(|table| table.create(schema)) {
                connection.execute(statement.as_str()).await.expect(&statement);
            }
        }
        let (mut stored, mut copied) = (projection.fold(), projection.fold());
        for event in &events {
            let record = Record {
                partition: event.get(0),
                position: event.get(1),
                aggregate_type: event.get(2),
                aggregate_id: event.get(3),
                sequence: event.get(4),
                event_type: event.get(5),
                event_version: event.get(6),
                payload: event.get(7),
                metadata: "",
                recorded_at: Timestamp::from_micros(event.get(8)),
            };
            stored.project(&record).expect("it projects");
            copied.project(&record).expect("it projects");
        }
        stored.store(Schema::Next, &mut connection).await.expect("it is stored");
        let mut sink = CopySink::new(projection.tables().iter().map(|table| (table.name, table.column_names)));
        copied.copy(&mut sink).expect("it is encoded");
        sink.finish(&mut connection, Schema::Old.as_str()).await.expect("it is copied");
    }
}

/// Fails unless the live rows are those of a fold from zero, written either way.
pub async fn assert_equal_to_a_fold_from_zero(database: &TestDatabase) {
    fold_from_zero(database).await;
    let live = rows(&database.pool, Schema::Live).await;
    assert_eq!(live, rows(&database.pool, Schema::Next).await, "stored at once");
    assert_eq!(live, rows(&database.pool, Schema::Old).await, "copied");
}

async fn catch_up(pool: &PgPool, round_max_events: u32) {
    let options = RunnerOptions { round_max_events, ..RunnerOptions::default() };
    Runner::catch_up(pool.clone(), options).await.expect("the projections catch up");
}

/// Wallets moved by `commands` commands each, with their people, appended in a mixed order; the projections follow in
/// batches of any size, now and then.
async fn live(database: &TestDatabase, seed: u64, tenants: u32, commands: u32) -> Vec<(TenantId, Wallet)> {
    let mut dice = Dice::new(seed);
    let (mut streams, mut wallets) = (Vec::new(), Vec::new());
    for _ in 0..tenants {
        let mut events: Vec<Raw> = Vec::new();
        let mut story = Story::begin(&mut dice, &mut events);
        for _ in 0..commands {
            story.go_on(&mut dice, &mut events);
        }
        streams.push(people(&mut dice, story.tenant));
        streams.push(events);
        let begin = Timestamp::from_micros(1_760_000_000_000_000);
        for _ in 0..4 {
            streams.push(payment(&mut dice, story.tenant, begin));
            streams.push(adjustment(&mut dice, story.tenant, begin));
        }
        streams.push(payout(&mut dice, begin));
        streams.push(reconciliation(&mut dice, begin));
        wallets.push((story.tenant, story.wallet));
    }
    streams.push(months(&mut dice, Timestamp::from_micros(1_760_000_000_000_000)));
    for event in mixed(&mut dice, streams) {
        append(&database.pool, &event).await;
        if dice.below(40) == 0 {
            catch_up(&database.pool, 1 + u32::try_from(dice.below(30)).expect("small")).await;
        }
    }
    catch_up(&database.pool, 100).await;
    wallets
}

/// What the wallet's own state says must be what the rows say, and the rows must add up.
async fn assert_says_what_the_wallet_says(pool: &PgPool, tenant: TenantId, wallet: &Wallet) {
    for asset in Asset::ALL {
        let purse = wallet.purse(asset);
        let shown = figures(pool, tenant, asset).await.expect("a row");
        let Figures { granted, spent, held, available, expired, voided, debt, .. } = shown;
        assert_eq!(
            [granted, held, available, debt],
            [purse.granted, purse.held, purse.available, purse.debt].map(|u| u.get())
        );
        assert_eq!(granted, available + held + spent + expired + voided, "{shown:?}");
        let sums = sqlx::query(
            "SELECT coalesce(sum(amount), 0)::bigint, coalesce(sum(debt), 0)::bigint,
                 (SELECT coalesce(sum(amount), 0)::bigint FROM read.open_holds WHERE tenant_id = $1 AND asset = $2)
             FROM read.wallet_ledger WHERE tenant_id = $1 AND asset = $2",
        );
        let sums = sums.bind(tenant.0).bind(asset.as_str()).fetch_one(pool).await.expect("sums");
        let sums: [i64; 3] = [sums.get(0), sums.get(1), sums.get(2)];
        assert_eq!(sums, [available + held, debt, held]);
        let booked = as_of::wallet(pool, tenant, AsOf::default()).await.expect("a wallet");
        let booked = booked.iter().find(|at| at.asset == asset).expect("every asset");
        assert_eq!([booked.available, booked.held, booked.debt], [available, held, debt], "by the book");
        let accounts = sqlx::query_as::<_, (i64, i64, i64)>(
            "SELECT coalesce(-sum(balance) FILTER (WHERE account LIKE '%:Available:%' OR account LIKE '%:Unallocated'), 0)::int8,
                 coalesce(-sum(balance) FILTER (WHERE account LIKE '%:Held:%'), 0)::int8,
                 count(*) FILTER (WHERE account LIKE '%:Held:%')
             FROM read.account_balances WHERE tenant_id = $1 AND asset = $2",
        );
        let accounts = accounts.bind(tenant.0).bind(asset.as_str()).fetch_one(pool).await.expect("sums");
        let open = wallet.open_holds().filter(|hold| hold.1.asset == asset && !hold.1.amount.is_zero()).count();
        assert_eq!(accounts, (available, held, i64::try_from(open).expect("few")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fold_from_zero_equals_what_any_batches_left_and_what_the_wallets_say() {
    for seed in [3, 1_912, 77_777] {
        println!("seed {seed}");
        let database = TestDatabase::create().await;
        let wallets = live(&database, seed, 4, 160).await;
        for (tenant, wallet) in &wallets {
            assert_says_what_the_wallet_says(&database.pool, *tenant, wallet).await;
        }
        assert_equal_to_a_fold_from_zero(&database).await;
        let kinds: i64 =
            sqlx::query_scalar("SELECT count(DISTINCT event_type) FROM events WHERE aggregate_type = 'wallet'")
                .fetch_one(&database.pool)
                .await
                .expect("a count");
        assert!(kinds >= 14, "the history holds only {kinds} kinds of wallet events");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_through_the_whole_ledger_newest_first() {
    let database = TestDatabase::create().await;
    let wallets = live(&database, 5, 1, 200).await;
    let tenant = wallets[0].0;
    let lines: i64 =
        sqlx::query_scalar("SELECT count(*) FROM read.wallet_ledger").fetch_one(&database.pool).await.expect("n");
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = wallet_ledger::page(&database.pool, tenant, before, 7).await.expect("a page");
        assert!(page.rows.len() <= 7);
        seen.extend(page.rows.iter().map(|entry| entry.position));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen.len() as i64, lines);
    assert!(seen.is_sorted_by(|a, b| a > b));
    let other = wallet_ledger::page(&database.pool, TenantId(uuid::Uuid::nil()), None, 7).await.expect("a page");
    assert!(other.rows.is_empty() && other.next.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_sees_the_open_holds_whose_time_has_run_out() {
    let database = TestDatabase::create().await;
    let wallets = live(&database, 11, 2, 150).await;
    let end = Timestamp::from_micros(i64::MAX / 2);
    let swept = open_holds::expired(&database.pool, end, 1_000).await.expect("the holds");
    let open: usize = wallets.iter().map(|(_, wallet)| wallet.open_holds().count()).sum();
    assert!(open > 0);
    assert_eq!(swept.len(), open);
    let none = open_holds::expired(&database.pool, Timestamp::from_micros(0), 1_000).await.expect("the holds");
    assert!(none.is_empty());
}
