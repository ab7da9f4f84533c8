//! A table of a read model is gone: how it shows, and how it is made anew while the server runs.

use calos_tests::cluster::{TestCluster, until};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::extent::factor;
use crate::server::{Place, Server, Tenant, bill, chat, client, pro_tenant};

/// Everything about a table that its readers and writers rely on: columns, keys and indexes, room left, who may what.
async fn shape(pool: &PgPool, table: &str) -> String {
    let shape = format!(
        "SELECT concat_ws(E'\\n',
             (SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod) || ' ' || attnotnull, ', ' ORDER BY attnum)
                FROM pg_attribute WHERE attrelid = 'read.{table}'::regclass AND attnum > 0 AND NOT attisdropped),
             (SELECT string_agg(indexdef, E'\\n' ORDER BY indexname) FROM pg_indexes
               WHERE schemaname = 'read' AND tablename = '{table}'),
             (SELECT reloptions::text FROM pg_class WHERE oid = 'read.{table}'::regclass),
             (SELECT string_agg(privilege || ' ' || has_table_privilege('calos_app', 'read.{table}', privilege), ', ')
                FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS privilege))"
    );
    sqlx::query_scalar(&shape).fetch_one(pool).await.expect("the table is described")
}

async fn read(server: &Server, tenant: &Tenant, path: &str) -> (u16, Value) {
    let request = client().get(format!("{}{path}", server.url)).bearer_auth(&tenant.token);
    let answer = request.send().await.expect("the server answers");
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

/// Lets a table vanish, looks at how that shows, makes it anew with `rebuild`, and proves it.
async fn lose(
    place: &Place,
    server: &Server,
    tenant: &Tenant,
    pool: &PgPool,
    table: &str,
    page: &str,
    rebuild: &[&str],
) {
    let (before, (status, _)) = (shape(pool, table).await, read(server, tenant, page).await);
    assert_eq!(status, 200);
    sqlx::raw_sql(&format!("DROP TABLE read.{table}")).execute(pool).await.expect("somebody drops it by hand");

    // One page fails; what is decided goes on, and so do the other pages.
    let (status, said) = read(server, tenant, page).await;
    assert_eq!((status, &said["code"]), (500, &json!("internal")), "{said}");
    let (usage, _) = bill(&chat(&client(), &server.url, &tenant.key).await.expect("calls are answered"));
    let log = std::fs::read_to_string(place.data_dir.join("server.log")).expect("the server's log");
    assert!(log.contains(&format!("relation \\\"read.{table}\\\" does not exist")), "the log says nothing of it");
    for verb in [["diff", table].as_slice(), &["verify"]] {
        let found = place.run("calos-replay", verb);
        let said = format!("{}{}", String::from_utf8_lossy(&found.stdout), String::from_utf8_lossy(&found.stderr));
        assert!(!found.status.success() && said.contains(table), "{verb:?} finds nothing: {said}");
    }

    place.must("calos-replay", rebuild);
    assert_eq!(shape(pool, table).await, before, "it is not what it was");
    until("the page is there again, with what happened meanwhile", 15, async || {
        read(server, tenant, page).await.0 == 200
    })
    .await;
    until("the call made meanwhile is listed", 15, async || {
        read(server, tenant, "/api/credits/usage?limit=200").await.1.to_string().contains(&usage.to_string())
    })
    .await;
    place.must("calos-replay", &["diff", table]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_dropped_is_made_anew_with_its_keys_and_rights_under_a_running_server() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let cluster = TestCluster::private().await;
    let database_url = cluster.database("calos").await;
    let folder = calos_tests::cluster::open_folder();
    let place = Place { data_dir: folder.path().to_owned(), database_url: Some(database_url.clone()) };
    let mut server = Server::start(&place).await;
    let tenant = pro_tenant(&place, &server.url).await;
    let pool = PgPool::connect(&database_url).await.expect("the database answers");
    for _ in 0..3 * factor() {
        chat(&client(), &server.url, &tenant.key).await.expect("it is answered");
    }
    let (_, balance) = read(&server, &tenant, "/api/credits/balance").await;
    let reason = ["--reason", "the table was dropped", "--yes", "--quiet"];
    for _ in 0..factor() {
        let in_place = [&["rebuild", "wallet_balance", "--in-place"], reason.as_slice()].concat();
        lose(&place, &server, &tenant, &pool, "wallet_balance", "/api/credits/balance", &in_place).await;
        let beside = [&["rebuild", "usage_log"], reason.as_slice()].concat();
        lose(&place, &server, &tenant, &pool, "usage_log", "/api/credits/usage?limit=200", &beside).await;
    }
    let (_, later) = read(&server, &tenant, "/api/credits/balance").await;
    let micros = |balance: &Value| balance["balance_micros"].as_i64().expect("a balance");
    assert!(micros(&later) < micros(&balance), "the calls made meanwhile were charged: {later}");
    place.must("calos-replay", &["verify"]);
    assert!(server.terminate().success(), "the server did not stop cleanly");
    pool.close().await;
}
