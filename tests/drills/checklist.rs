//! The weekly and the monthly list over the built programs: silent where all is well, and naming what is not.

use calos_tests::cluster::TestCluster;
use serde_json::Value;
use sqlx::PgPool;

use crate::server::{Place, Server, chat, client, pro_tenant};

/// A list, and how it ended.
struct Report {
    code: Option<i32>,
    body: Value,
}

impl Report {
    fn of(place: &Place, server: &Server, list: &str) -> Self {
        let output = place.run("calos-replay", &["check", list, "--json", "--url", &server.url]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{errors}"));
        Self { code: output.status.code(), body }
    }

    fn lines(&self) -> impl Iterator<Item = &Value> {
        self.body["checks"].as_array().expect("lines").iter()
    }

    /// The lines that failed, as `name: detail`.
    fn failed(&self) -> Vec<String> {
        let failed = self.lines().filter(|line| line["level"] == "fail");
        failed.map(|line| format!("{}: {}", line["name"], line["detail"]).replace('"', "")).collect()
    }

    fn names(&self) -> Vec<&str> {
        self.lines().filter_map(|line| line["name"].as_str()).collect()
    }

    /// The list has to have passed.
    fn passes(&self) {
        assert_eq!((self.code, self.failed()), (Some(0), Vec::new()), "{}", self.body);
    }

    /// The list has to have failed at this line alone, saying this.
    fn fails_at(&self, name: &str, said: &str) {
        let failed = self.failed();
        let named = failed.iter().all(|line| line.starts_with(name)) && failed.iter().any(|line| line.contains(said));
        assert!(self.code == Some(1) && !failed.is_empty() && named, "{name}, {said}: {failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_weekly_and_the_monthly_list_pass_where_all_is_well_and_name_what_is_not() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let cluster = TestCluster::private().await;
    let database_url = cluster.database("calos").await;
    let folder = calos_tests::cluster::open_folder();
    let place = Place { data_dir: folder.path().to_owned(), database_url: Some(database_url.clone()) };
    let mut server = Server::start(&place).await;
    let tenant = pro_tenant(&place, &server.url).await;
    for _ in 0..4 {
        chat(&client(), &server.url, &tenant.key).await.expect("it is answered");
    }
    place.must("calos-replay", &["anchor"]);
    Report::of(&place, &server, "weekly").fails_at("backup", "none was ever taken");
    let backup = folder.path().join("backup");
    let backup = ["backup", "--output", backup.to_str().expect("a path of text"), "--reason", "the weekly base"];
    place.must("calos-replay", &backup);
    let (weekly, monthly) = (Report::of(&place, &server, "weekly"), Report::of(&place, &server, "monthly"));
    weekly.passes();
    monthly.passes();
    for name in ["server", "anchors", "book", "wallets", "holds", "backup", "costs", "sign-ins", "seal"] {
        assert!(weekly.names().contains(&name) && monthly.names().contains(&name), "{name}: {}", weekly.body);
    }
    for name in ["sessions", "staff", "keys", "tenants", "tables", "versions"] {
        assert!(monthly.names().contains(&name), "{name}: {}", monthly.body);
    }

    // A row that was edited by hand: the seal is whole, so the week's list passes, and the month's names the read model.
    let pool = PgPool::connect(&database_url).await.expect("the database answers");
    let edit = "UPDATE read.usage_log SET prompt_tokens = prompt_tokens + 1
                WHERE usage_id = (SELECT usage_id FROM read.usage_log LIMIT 1)";
    sqlx::raw_sql(edit).execute(&pool).await.expect("somebody writes by hand");
    Report::of(&place, &server, "weekly").passes();
    Report::of(&place, &server, "monthly").fails_at("seal", "usage_log");
    place.must("calos-replay", &["rebuild", "usage_log", "--reason", "a row was edited", "--yes", "--quiet"]);
    Report::of(&place, &server, "monthly").passes();

    // An event that was edited behind the log's back: both name it.
    let tamper = "ALTER TABLE events DISABLE TRIGGER ALL;
        UPDATE events SET metadata = json_build_object('actor', 'nobody') WHERE event_type = 'usage_recorded'
            AND recorded_at = (SELECT max(recorded_at) FROM events WHERE event_type = 'usage_recorded');
        ALTER TABLE events ENABLE ALWAYS TRIGGER events_refuse_row;
        ALTER TABLE events ENABLE ALWAYS TRIGGER events_refuse_statement";
    sqlx::raw_sql(tamper).execute(&pool).await.expect("somebody writes by hand");
    Report::of(&place, &server, "daily").passes();
    Report::of(&place, &server, "weekly").fails_at("seal", "chain");
    Report::of(&place, &server, "monthly").fails_at("seal", "chain");
    assert!(server.terminate().success(), "the server did not stop cleanly");
    pool.close().await;
}
