//! The book at any time equals a plain sum over all its entries, for every pair of bounds.

use std::collections::BTreeMap;

use calos_domain::book::{self, Account, Entry};
use calos_domain::payment::{PaymentEvent, PayoutEvent};
use calos_domain::wallet::WalletEvent;
use calos_domain::{Asset, TenantId, Timestamp};
use calos_projections::as_of::{self, AccountAt, AsOf, AsOfError, TrialLine, WalletAt};
use calos_projections::{AnyProjection, Runner, RunnerOptions, checkpoint, registry};
use calos_tests::database::TestDatabase;
use sqlx::{PgPool, Row as _};

use crate::finance_histories::{payment, payout};
use crate::histories::{Dice, Story};
use crate::raw_log::{Raw, append_at};

const HOUR_SECONDS: u64 = 3_600;

/// Wallets and payments over some weeks, in the order they were recorded in. Some of it is learnt of late.
fn history(seed: u64) -> (Vec<TenantId>, Vec<(Timestamp, Raw)>) {
    let mut dice = Dice::new(seed);
    let (mut tenants, mut all) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut events = Vec::new();
        let mut story = Story::begin(&mut dice, &mut events);
        let mut recorded = Vec::new();
        for _ in 0..150 {
            recorded.extend(events.drain(..).map(|event| (story.now, event)));
            let pause = match dice.below(12) {
                0 => dice.below(40 * HOUR_SECONDS),
                1 | 2 => dice.below(HOUR_SECONDS),
                _ => dice.below(40),
            };
            story.now = story.now.plus_seconds(i64::try_from(pause).expect("small"));
            story.go_on(&mut dice, &mut events);
            if dice.below(12) == 0 {
                let late = i64::try_from(dice.below(400 * HOUR_SECONDS)).expect("small");
                let events = payment(&mut dice, story.tenant, story.now.plus_seconds(-late));
                recorded.extend(events.into_iter().map(|event| (story.now, event)));
                let events = payout(&mut dice, story.now.plus_seconds(-late));
                recorded.extend(events.into_iter().map(|event| (story.now, event)));
            }
        }
        all.extend(recorded);
        tenants.push(story.tenant);
    }
    all.sort_by_key(|(at, _)| *at);
    // The log takes note of it a moment later.
    let delayed = |(at, event): (Timestamp, Raw)| (Timestamp::from_micros(at.micros() + 1_234_567), event);
    (tenants, all.into_iter().map(delayed).collect())
}

/// An entry as the domain makes it of an event, with both of its dates.
struct Booked {
    partition: i32,
    position: i64,
    effective: Timestamp,
    recorded: Timestamp,
    entry: Entry,
}

async fn booked(pool: &PgPool) -> Vec<Booked> {
    let rows = sqlx::query(
        "SELECT partition, position, aggregate_type, aggregate_id, payload::text,
             (extract(epoch FROM recorded_at) * 1000000)::bigint FROM events ORDER BY partition, position",
    );
    let mut all = Vec::new();
    for row in rows.fetch_all(pool).await.expect("the log") {
        let recorded = Timestamp::from_micros(row.get(5));
        let payload: &str = row.get(4);
        let (effective, entries) = match row.get::<&str, _>(2) {
            "wallet" => {
                let event: WalletEvent = serde_json::from_str(payload).expect("an event");
                let tenant = row.get::<&str, _>(3).parse().expect("a tenant");
                (book::effective_at(&event, recorded), book::wallet_entries(tenant, &event))
            }
            "payment" => {
                let event: PaymentEvent = serde_json::from_str(payload).expect("an event");
                (event.occurred_at(), book::payment_entries(&event))
            }
            "payout" => {
                let event: PayoutEvent = serde_json::from_str(payload).expect("an event");
                (event.occurred_at(), book::payout_entries(&event))
            }
            _ => continue,
        };
        let (partition, position) = (row.get(0), row.get(1));
        let entries = entries.expect("the book takes it").into_iter();
        all.extend(entries.map(|entry| Booked { partition, position, effective, recorded, entry }));
    }
    all
}

fn counts(at: AsOf, booked: &Booked) -> bool {
    at.effective.is_none_or(|bound| booked.effective <= bound)
        && at.recorded.is_none_or(|bound| booked.recorded <= bound)
}

fn plain_trial_balance<'a>(entries: impl Iterator<Item = &'a Booked>) -> Vec<TrialLine> {
    let mut sums: BTreeMap<(String, Asset), (i128, i128)> = BTreeMap::new();
    for booked in entries {
        for posting in &booked.entry.postings {
            let sum = sums.entry((posting.account.class().to_string(), booked.entry.asset)).or_default();
            sum.0 += posting.amount.max(0);
            sum.1 -= posting.amount.min(0);
        }
    }
    let number = |sum: i128| i64::try_from(sum).expect("small");
    let line = |((account, asset), (debit, credit))| TrialLine {
        account,
        asset,
        debit: number(debit),
        credit: number(credit),
    };
    sums.into_iter().map(line).collect()
}

fn plain_wallet<'a>(tenant: TenantId, entries: impl Iterator<Item = &'a Booked>) -> Vec<WalletAt> {
    let mut wallets = Asset::ALL.map(|asset| WalletAt { asset, available: 0, held: 0, debt: 0 });
    for booked in entries {
        for posting in booked.entry.postings.iter().filter(|posting| posting.account.tenant() == Some(tenant)) {
            let amount = i64::try_from(posting.amount).expect("small");
            let wallet = wallets.iter_mut().find(|wallet| wallet.asset == booked.entry.asset).expect("an asset");
            match posting.account {
                Account::Held(..) => wallet.held -= amount,
                Account::Debt(_) => wallet.debt += amount,
                _ => wallet.available -= amount,
            }
        }
    }
    wallets.to_vec()
}

/// Moments that matter: those of entries and the microseconds beside them, and borders of every width.
fn bounds(dice: &mut Dice, moments: &[Timestamp], count: usize) -> Vec<Option<Timestamp>> {
    let mut all = vec![None, Some(Timestamp::from_micros(1)), Some(Timestamp::from_micros(2_000_000_000_000_000))];
    while all.len() < count {
        let moment = moments[usize::try_from(dice.below(moments.len() as u64)).expect("small")];
        let border = match dice.below(5) {
            0 => Timestamp::of_utc_month(moment.utc_month()),
            1 => Timestamp::of_utc_day(moment.utc_day()),
            2 => Timestamp::from_micros(moment.micros() - moment.micros().rem_euclid(600_000_000)),
            _ => moment,
        };
        let beside = i64::try_from(dice.below(3)).expect("small") - 1;
        all.push(Some(Timestamp::from_micros(border.micros() + beside)));
    }
    all
}

async fn catch_up(pool: &PgPool, projections: &[&'static dyn AnyProjection], round_max_events: u32) {
    let options = RunnerOptions { projections: projections.to_vec(), round_max_events, ..RunnerOptions::default() };
    Runner::catch_up(pool.clone(), options).await.expect("the projections catch up");
}

fn find(name: &str) -> &'static dyn AnyProjection {
    registry::find(name).expect("a projection")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_book_at_any_time_is_the_sum_of_the_entries_that_count_by_then() {
    for seed in [5, 2_718] {
        println!("seed {seed}");
        let database = TestDatabase::create().await;
        let pool = &database.pool;
        let (tenants, events) = history(seed);
        let mut dice = Dice::new(seed);
        for (at, event) in &events {
            append_at(pool, event, Some(*at)).await;
            if dice.below(60) == 0 {
                catch_up(pool, registry::ALL, 40).await;
            }
        }
        catch_up(pool, registry::ALL, 4_000).await;
        let entries = booked(pool).await;
        let shifted: i64 =
            sqlx::query_scalar("SELECT count(*) FROM read.journal WHERE shifted").fetch_one(pool).await.expect("n");
        assert!(shifted > 30 && (shifted as usize) < entries.len() / 2, "{shifted} of {} are late", entries.len());
        let effective: Vec<_> = entries.iter().map(|booked| booked.effective).collect();
        let recorded: Vec<_> = entries.iter().map(|booked| booked.recorded).collect();
        let (effective, recorded) = (bounds(&mut dice, &effective, 22), bounds(&mut dice, &recorded, 22));
        for effective in &effective {
            for recorded in &recorded {
                let at = AsOf { effective: *effective, recorded: *recorded };
                let lines = as_of::trial_balance(pool, at).await.expect("a trial balance");
                assert_eq!(lines, plain_trial_balance(entries.iter().filter(|booked| counts(at, booked))), "{at:?}");
                let tenant = tenants[usize::try_from(dice.below(3)).expect("small")];
                let wallet = as_of::wallet(pool, tenant, at).await.expect("a wallet");
                let plain = plain_wallet(tenant, entries.iter().filter(|booked| counts(at, booked)));
                assert_eq!(wallet, plain, "{tenant} {at:?}");
            }
        }
        assert_accounts_agree(pool, &tenants, &entries, effective[5]).await;
    }
}

/// Accounts one by one are what the trial balance and the wallets say.
async fn assert_accounts_agree(pool: &PgPool, tenants: &[TenantId], entries: &[Booked], effective: Option<Timestamp>) {
    let at = AsOf { effective, recorded: None };
    for line in plain_trial_balance(entries.iter().filter(|booked| counts(at, booked))) {
        let account: AccountAt = line.account.parse().expect("an account");
        assert_eq!(account.to_string(), line.account);
        let balance = as_of::account(pool, &account, line.asset, at).await.expect("a balance");
        assert_eq!(balance, line.debit - line.credit, "{account}");
    }
    for tenant in tenants {
        let wallet = plain_wallet(*tenant, entries.iter().filter(|booked| counts(at, booked)))[0];
        for (account, expected) in [
            (format!("Liabilities:Wallet:{tenant}:Available"), -wallet.available),
            (format!("Liabilities:Wallet:{tenant}:Held"), -wallet.held),
            (format!("Assets:Debt:{tenant}"), wallet.debt),
        ] {
            let parsed: AccountAt = account.parse().expect("an account");
            assert_eq!(parsed.to_string(), account);
            assert_eq!(as_of::account(pool, &parsed, Asset::Usd, at).await.expect("a balance"), expected, "{account}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_the_sums_have_not_taken_yet_do_not_count_and_a_journal_that_stays_behind_is_told() {
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    let (tenants, events) = history(99);
    let middle = events.len() / 2;
    for (at, event) in &events[..middle] {
        append_at(pool, event, Some(*at)).await;
    }
    catch_up(pool, registry::ALL, 4_000).await;
    for (at, event) in &events[middle..] {
        append_at(pool, event, Some(*at)).await;
    }
    catch_up(pool, &[find("journal")], 4_000).await;
    let entries = booked(pool).await;
    let taken = checkpoint::positions(pool, "trial_balance").await.expect("positions");
    let before = |booked: &&Booked| booked.position <= taken[&booked.partition];
    let mut dice = Dice::new(4);
    let moments: Vec<_> = entries.iter().map(|booked| booked.recorded).collect();
    for bound in bounds(&mut dice, &moments, 20) {
        for at in [AsOf { effective: bound, recorded: None }, AsOf { effective: None, recorded: bound }] {
            let lines = as_of::trial_balance(pool, at).await.expect("a trial balance");
            let expected = entries.iter().filter(before).filter(|booked| counts(at, booked));
            assert_eq!(lines, plain_trial_balance(expected), "{at:?}");
            let wallet = as_of::wallet(pool, tenants[0], at).await.expect("a wallet");
            let expected = entries.iter().filter(before).filter(|booked| counts(at, booked));
            assert_eq!(wallet, plain_wallet(tenants[0], expected), "{at:?}");
        }
    }

    // The other way round: sums without the entries they are made of.
    for event in [&events[0].1] {
        append_at(pool, &Raw { stream: uuid::Uuid::from_u128(1).to_string(), ..event.clone() }, None).await;
    }
    catch_up(pool, &[find("trial_balance")], 4_000).await;
    let behind = as_of::trial_balance(pool, AsOf::default()).await;
    assert!(matches!(behind, Err(AsOfError::Behind { model: "journal", other: "trial_balance", .. })), "{behind:?}");
}
