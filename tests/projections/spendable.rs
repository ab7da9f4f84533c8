//! What a wallet could have spent at another date, and the entries behind real money.

use calos_domain::{Asset, TenantId, Timestamp};
use calos_projections::as_of::{self, AsOf, AsOfError};
use calos_projections::journal::{self, JournalFilter};
use calos_projections::{Runner, RunnerOptions, registry};
use calos_tests::database::TestDatabase;
use sqlx::PgPool;
use uuid::Uuid;

use crate::finance_histories::{payment, payout};
use crate::histories::Dice;
use crate::raw_log::{Raw, append_at};

fn second(second: i64) -> Timestamp {
    Timestamp::from_micros(1_760_000_000_000_000).plus_seconds(second)
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

fn granted(tenant: TenantId, id: u128, amount: i64, expires: i64) -> Raw {
    let inner = format!(
        r#"{{"grant_id":"{}","asset":"USD","kind":"trial","amount":{amount},"priority":0,"effective_at":{},
            "expires_at":{},"cost_basis":0,"source_ref":"a","available_after":{amount}}}"#,
        Uuid::from_u128(id),
        second(0).micros(),
        second(expires).micros(),
    );
    wallet(tenant, "credits_granted", &inner)
}

fn voided(tenant: TenantId, id: u128, amount: i64) -> Raw {
    let inner = format!(
        r#"{{"grant_id":"{}","asset":"USD","claimed":{amount},"amount":{amount},"source_ref":"b","available_after":0}}"#,
        Uuid::from_u128(id)
    );
    wallet(tenant, "grant_voided", &inner)
}

fn expired(tenant: TenantId, id: u128, amount: i64, at: i64) -> Raw {
    let inner = format!(
        r#"{{"grant_id":"{}","asset":"USD","amount":{amount},"expired_at":{},"available_after":0}}"#,
        Uuid::from_u128(id),
        second(at).micros()
    );
    wallet(tenant, "grant_expired", &inner)
}

/// Brings every read model but these to the head of the log.
async fn catch_up_without(pool: &PgPool, left_out: &[&str]) {
    let projections = registry::ALL.iter().filter(|model| !left_out.contains(&model.name())).copied().collect();
    let options = RunnerOptions { projections, ..RunnerOptions::default() };
    Runner::catch_up(pool.clone(), options).await.expect("the projections catch up");
}

/// Available in USD: as recorded, and as could be spent.
async fn both(pool: &PgPool, tenant: TenantId, effective: i64, recorded: Option<i64>) -> (i64, i64) {
    let at = AsOf { effective: Some(second(effective)), recorded: recorded.map(second) };
    let wallet = as_of::wallet(pool, tenant, at).await.expect("a wallet");
    let spendable = as_of::spendable(pool, tenant, at).await.expect("a wallet");
    assert_eq!((wallet[0].asset, spendable[0].asset), (Asset::Usd, Asset::Usd));
    (wallet[0].available, spendable[0].available)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_taken_off_among_few_grants_and_among_many() {
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    for (tenant, count) in [(1, 3), (2, 150)] {
        let tenant = TenantId(Uuid::from_u128(tenant));
        for id in 1..=count {
            append_at(pool, &granted(tenant, id, 10, 1_000), Some(second(1))).await;
        }
        append_at(pool, &granted(tenant, 900, 50, 900_000), Some(second(1))).await;
        for (id, amount) in [(1, 4), (900, 7)] {
            append_at(pool, &voided(tenant, id, amount), Some(second(5_000))).await;
        }
        // The end of the second is recorded, the others' are not.
        append_at(pool, &expired(tenant, 2, 10, 1_000), Some(second(7_000))).await;
        catch_up_without(pool, &[]).await;
        let all = i64::try_from(count).expect("few") * 10 + 50;
        assert_eq!(both(pool, tenant, 999, None).await, (all, all), "{count}");
        assert_eq!(both(pool, tenant, 3_000, None).await, (all - 10, 50), "{count}");
        assert_eq!(both(pool, tenant, 6_000, None).await, (all - 21, 43), "{count}");
        assert_eq!(both(pool, tenant, 6_000, Some(6_000)).await, (all - 11, 43), "{count}");
        assert_eq!(both(pool, tenant, 6_000, Some(4_000)).await, (all, 50), "{count}");
        let now = AsOf::default();
        let wallets = (as_of::wallet(pool, tenant, now).await, as_of::spendable(pool, tenant, now).await);
        assert_eq!(wallets.0.expect("a wallet"), wallets.1.expect("a wallet"));
    }
    assert_eq!(both(pool, TenantId(Uuid::from_u128(3)), 3_000, None).await, (0, 0), "a wallet that never was");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_be_spent_is_never_made_of_two_moments() {
    let (tenant, other) = (TenantId(Uuid::from_u128(1)), TenantId(Uuid::from_u128(2)));
    let at = AsOf { effective: Some(second(3_000)), recorded: None };
    // One after the other they would say 0 less 100, or 100 less nothing.
    for behind in ["open_grants", "account_balances", "wallet_days"] {
        let database = TestDatabase::with_partitions(64).await;
        let pool = &database.pool;
        let (own, _) = append_at(pool, &granted(tenant, 1, 100, 1_000), Some(second(1))).await;
        let (theirs, _) = append_at(pool, &granted(other, 1, 100, 1_000), Some(second(1))).await;
        assert_ne!(own, theirs, "choose other tenants");
        catch_up_without(pool, &[]).await;
        assert_eq!(both(pool, tenant, 3_000, None).await, (100, 0));
        append_at(pool, &expired(tenant, 1, 100, 1_000), Some(second(7_000))).await;
        catch_up_without(pool, &[behind]).await;
        let spendable = as_of::spendable(pool, tenant, at).await;
        let Err(AsOfError::Behind { model, partition, .. }) = spendable else {
            panic!("{behind} is behind, and the wallet is said to be {spendable:?}");
        };
        assert_eq!((model, partition), (behind, own));
        assert_eq!(as_of::spendable(pool, other, at).await.expect("another partition")[0].available, 0);
        catch_up_without(pool, &[]).await;
        assert_eq!(both(pool, tenant, 3_000, None).await, (0, 0));
    }
}

/// When a payment or a payout happened.
fn occurred_at(event: &Raw) -> Timestamp {
    let payload: serde_json::Value = serde_json::from_str(&event.payload).expect("an event");
    Timestamp::from_micros(payload[&event.event_type]["occurred_at"].as_i64().expect("a moment"))
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_found_by_when_it_counts_however_late_or_early_it_was_recorded() {
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    let mut dice = Dice::new(31);
    let tenant = TenantId(Uuid::from_u128(1));
    let mut events = Vec::new();
    for _ in 0..8 {
        // Told of by clocks that lead, at once, and weeks later.
        for late in [-600, -300, 0, 1, 700, 3_000_000] {
            let at = second(i64::try_from(dice.below(100_000)).expect("small"));
            for event in [payment(&mut dice, tenant, at), payout(&mut dice, at)].concat() {
                events.push((occurred_at(&event).plus_seconds(late), event));
            }
        }
    }
    events.sort_by_key(|(recorded, _)| *recorded);
    for (recorded, event) in &events {
        append_at(pool, event, Some(*recorded)).await;
    }
    catch_up_without(pool, &[]).await;
    let page = journal::forward(pool, JournalFilter::default(), None, 500).await.expect("the journal");
    assert!(page.next.is_none() && page.rows.len() > 40, "{}", page.rows.len());
    let moments: Vec<Timestamp> = page.rows.iter().map(|entry| entry.effective_at).collect();
    let (first, end) = (second(-4_000_000), second(4_000_000));
    for from in moments.into_iter().chain([first]) {
        let found = journal::money(pool, from, end, 1_000).await.expect("money");
        let counts = |effective| from <= effective && effective < end;
        let mut expected: Vec<_> =
            page.rows.iter().filter(|entry| entry.asset == Asset::Usd && counts(entry.effective_at)).collect();
        expected.sort_by_key(|entry| (entry.effective_at, entry.partition, entry.position));
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "from {from:?}");
    }
}
