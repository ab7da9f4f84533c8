//! The log only grows, whoever asks.

use calos_tests::database::TestDatabase;
use sqlx::PgPool;

use crate::tally::{add, assert_sealed, open, stored};

const CHANGES: [&str; 6] = [
    "UPDATE events SET payload = '{}'",
    "UPDATE events SET payload = '{}' WHERE false",
    "DELETE FROM events",
    "TRUNCATE events",
    "DELETE FROM partitions",
    "UPDATE log SET partitions = 3",
];

async fn refusal(pool: &PgPool, sql: &str) -> String {
    match sqlx::raw_sql(sql).execute(pool).await {
        Ok(_) => panic!("{sql} was allowed"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_role_and_the_owner_may_not_change_the_log() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    add(&log, "a", 1, 5).await.expect("it is taken");
    log.close().await;
    for sql in CHANGES {
        let application = refusal(&database.pool, sql).await;
        assert!(application.contains("permission denied"), "{sql} as the application: {application}");
        let owner = refusal(&database.owner_pool, sql).await;
        assert!(owner.contains("append-only"), "{sql} as the owner: {owner}");
        let replica = refusal(&database.owner_pool, &format!("SET session_replication_role = replica; {sql}")).await;
        assert!(replica.contains("append-only"), "{sql} as a replica: {replica}");
    }
    assert_eq!(stored(&database, "a").await, (5, 1));
    assert_sealed(&database).await;
}
