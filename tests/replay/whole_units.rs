//! A restore up to a moment brings nothing back in half, although each partition is cut by its own clock.

use std::time::Duration;

use calos_commands::log::{EventLog, Failed, Plan};
use calos_commands::metadata::{Actor, Metadata};
use calos_domain::wallet::{GrantKind, Wallet, WalletCommand, WalletRefusal};
use calos_domain::{Asset, GrantId, MicroUsd, StreamId, TenantId, Units};
use calos_replay::backup::Place as To;
use calos_replay::restore::Target;
use calos_tests::database::TestDatabase;
use uuid::Uuid;

use crate::history::{History, now, spend};
use crate::restoring::{back_up, put_back};

/// Grants both of two tenants something, in one append; answers the grants.
async fn grant_both(history: &History, tenants: [TenantId; 2]) -> [GrantId; 2] {
    let mut plan = Plan::default();
    let wallets = tenants.map(|tenant| plan.stream::<Wallet>(StreamId::key(tenant)));
    let grants = [(); 2].map(|()| GrantId(Uuid::now_v7()));
    let done: Result<_, Failed<WalletRefusal>> = history
        .log
        .execute(&plan, Metadata::new(Actor::System("test")).into(), |unit| {
            for (wallet, grant_id) in wallets.iter().zip(grants) {
                let at = now();
                let grant = WalletCommand::GrantCredits {
                    grant_id,
                    asset: Asset::Usd,
                    kind: GrantKind::Trial,
                    amount: Units::new(7),
                    priority: 0,
                    effective_at: at,
                    expires_at: None,
                    cost_basis: MicroUsd::ZERO,
                    source_ref: "test".to_owned(),
                    reason: None,
                    at,
                };
                unit.decide(*wallet, grant).map(drop)?;
            }
            Ok(())
        })
        .await;
    done.expect("both are granted");
    grants
}

async fn standing(database: &TestDatabase, grants: [GrantId; 2]) -> i64 {
    let count =
        "SELECT count(*) FROM events WHERE event_type = 'credits_granted' AND payload::text LIKE '%' || $1 || '%'";
    let mut found = 0;
    for grant in grants {
        let count: i64 =
            sqlx::query_scalar(count).bind(grant.to_string()).fetch_one(&database.owner_pool).await.expect("a count");
        found += count;
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_over_two_partitions_comes_back_whole_or_not_at_all() {
    let history = History::of(6, 2).await;
    let partition = |tenant: TenantId| history.log.partition_of(&tenant.to_string());
    let one = history.tenants[0];
    let ahead =
        *history.tenants.iter().find(|tenant| partition(**tenant) != partition(one)).expect("another partition");
    let before = grant_both(&history, [one, ahead]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;

    // The clock of one partition goes ahead, as a fenced moment or another machine makes it, and an append meets it.
    let clock = "UPDATE partitions SET last_recorded_at = greatest(now(), last_recorded_at) + interval '20 seconds'";
    history.run(&format!("{clock} WHERE partition = {}", partition(ahead))).await;
    // The writer hears of it with its next look.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let halved = grant_both(&history, [one, ahead]).await;
    let until = now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    spend(&history.log, one).await;
    let times: i64 = history
        .number(&format!(
            "SELECT count(DISTINCT recorded_at) FROM events WHERE payload::text LIKE '%{}%' OR payload::text LIKE '%{}%'",
            halved[0], halved[1]
        ))
        .await;
    assert_eq!(times, 2, "the append bears two times");

    let folder = tempfile::tempdir().expect("a folder");
    back_up(&history, To::New(folder.path())).await.expect("a backup");
    let database = TestDatabase::create().await;
    put_back(&database, folder.path(), &history, Target::Time(until)).await.expect("it is restored");
    assert_eq!(standing(&database, before).await, 2, "what was whole before the moment is there");
    assert_eq!(standing(&database, halved).await, 0, "no half of what was stamped later elsewhere");
    let database = TestDatabase::create().await;
    put_back(&database, folder.path(), &history, Target::Whole).await.expect("it is restored");
    assert_eq!((standing(&database, before).await, standing(&database, halved).await), (2, 2));
    history.log.close().await;
}
