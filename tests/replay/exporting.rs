//! The journal as a file: what somebody outside makes of it, and what never looks whole.

#![expect(clippy::panic, reason = "a line that cannot be read fails the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use calos_domain::book::Account;
use calos_domain::{Asset, TenantId, Timestamp};
use calos_projections::as_of::{self, AsOf};
use calos_replay::ToolError;
use calos_replay::export::{Exported, Format, Holds, JournalExport, journal, to_file};
use calos_replay::progress::Show;
use calos_tests::cluster;
use sqlx::Executor as _;
use uuid::Uuid;

use crate::history::History;
use crate::year;

/// A balance for every account and asset, in the smallest unit; none of zero.
type Balances = BTreeMap<(String, String), i64>;

async fn export(history: &History, export: JournalExport, file: &Path) -> Exported {
    let journal = journal(history.database.pool.clone(), export, Show::Silent);
    to_file(journal, file, true).await.expect("the export ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn hledger_finds_the_same_balance_for_every_account() {
    let history = History::of(0, 0).await;
    year::live(&history, 1_000).await;
    history.catch_up().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("year.journal");
    let exported = export(&history, JournalExport::whole(Format::Hledger), &file).await;
    assert!(exported.entries > 15_000, "{exported:?}");

    hledger(&file, &["check", "-s"]);
    let theirs = balances(&file, &[]);
    let ours = account_balances(&history).await;
    let differing = ours.iter().find(|(account, balance)| theirs.get(account) != Some(balance));
    assert_eq!(differing, None, "hledger has {:?}", differing.and_then(|(account, _)| theirs.get(account)));
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.len() > 2_000, "{}", ours.len());

    // By effective time: everything before a date, as the trial balance has it.
    let until = year::day(year::BEGIN, 90);
    let before = classes(&balances(&file, &["-e", "2025-04-01"]));
    let at = AsOf { effective: Some(Timestamp::from_micros(until.micros() - 1)), recorded: None };
    let trial = as_of::trial_balance(&history.database.pool, at).await.expect("the trial balance is read");
    let lines = trial.into_iter().map(|line| ((line.account, line.asset.to_string()), line.debit - line.credit));
    let trial: Balances = lines.filter(|(_, balance)| *balance != 0).collect();
    assert_eq!(before, trial);
    assert!(!trial.is_empty() && trial != classes(&theirs));

    every_format_says_the_same(&history, &theirs, &exported, folder.path()).await;
    holds_can_share_an_account(&history, &theirs, folder.path()).await;
}

async fn every_format_says_the_same(history: &History, expected: &Balances, exported: &Exported, folder: &Path) {
    for format in [Format::Csv, Format::Jsonl, Format::Parquet] {
        let file = folder.join(format!("year.{}", format.extension()));
        let again = export(history, JournalExport::whole(format), &file).await;
        assert_eq!(again, *exported, "{format:?}");
        let found = match format {
            Format::Csv => of_csv(&file),
            Format::Jsonl => of_jsonl(&file),
            Format::Parquet => of_parquet(&file, exported.postings),
            Format::Hledger => balances(&file, &[]),
        };
        assert!(found == *expected, "{format:?} differs");
    }
}

async fn holds_can_share_an_account(history: &History, expected: &Balances, folder: &Path) {
    let together = JournalExport { holds: Holds::Together, ..JournalExport::whole(Format::Csv) };
    let file = folder.join("together.csv");
    export(history, together, &file).await;
    let found = of_csv(&file);
    assert!(found.keys().all(|(account, _)| !account.contains(":Held:")));
    let held = |balances: &Balances| -> i64 {
        balances.iter().filter(|((account, _), _)| account.contains(":Held")).map(|(_, balance)| balance).sum()
    };
    assert!(held(expected) != 0);
    assert_eq!(held(&found), held(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_one_tenant_and_some_days_has_exactly_their_entries() {
    let history = History::of(0, 0).await;
    let tenants = year::live(&history, 20).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, part) = (folder.path().join("whole.csv"), folder.path().join("part.csv"));
    export(&history, JournalExport::whole(Format::Csv), &whole).await;
    let (from, to) = (year::day(year::BEGIN, 31), year::day(year::BEGIN, 59));
    let narrow =
        JournalExport { tenant: Some(tenants[3]), from: Some(from), to: Some(to), ..JournalExport::whole(Format::Csv) };
    export(&history, narrow, &part).await;

    let rows = |file: &Path, takes: &dyn Fn(&str) -> bool| -> Vec<String> {
        let text = std::fs::read_to_string(file).expect("the file is read");
        let rows = text.lines().filter(|line| !line.starts_with(['#', 'p']) && takes(line));
        rows.map(str::to_owned).collect()
    };
    let own = tenants[3].to_string();
    let within = |line: &str| {
        let effective_at = line.split(',').nth(2).expect("there is a date");
        line.contains(&own) && ("2025-02-01".."2025-03-01").contains(&effective_at)
    };
    let expected = rows(&whole, &within);
    assert!(!expected.is_empty() && expected.len() < rows(&whole, &|line| line.contains(&own)).len());
    assert_eq!(rows(&part, &|_| true), expected);

    let nobody = JournalExport { tenant: Some(TenantId(Uuid::now_v7())), ..JournalExport::whole(Format::Parquet) };
    let exported = export(&history, nobody, &folder.path().join("nobody.parquet")).await;
    assert_eq!(exported.entries, 0);
    assert_eq!(of_parquet(&folder.path().join("nobody.parquet"), 0), Balances::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_heads_give_the_same_bytes_and_a_file_that_is_there_stays() {
    let history = History::of(3, 4).await;
    let folder = tempfile::tempdir().expect("a folder");
    for format in [Format::Csv, Format::Hledger, Format::Jsonl, Format::Parquet] {
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        export(&history, JournalExport::whole(format), &one).await;
        export(&history, JournalExport::whole(format), &other).await;
        let bytes = std::fs::read(&one).expect("it is read");
        assert!(!bytes.is_empty() && bytes == std::fs::read(&other).expect("it is read"), "{format:?}");
        let again = journal(history.database.pool.clone(), JournalExport::whole(format), Show::Silent);
        let refused = to_file(again, &one, false).await.expect_err("the file is there");
        assert!(matches!(refused, ToolError::Usage(_)), "{refused}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is listed").count(), 2, "no part is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_whose_database_goes_away_fails_and_leaves_no_file() {
    let history = History::of(0, 0).await;
    year::live(&history, 300).await;
    let mut stream = journal(history.database.pool.clone(), JournalExport::whole(Format::Hledger), Show::Silent);
    assert!(stream.next().await.is_some());
    disconnect(&history).await;
    // What was read before may still be handed out, but never an end.
    let mut said = Vec::new();
    while let Some(piece) = stream.next().await {
        said.extend_from_slice(&piece);
    }
    assert!(!String::from_utf8_lossy(&said).contains("; end:"));
    stream.finish().await.expect_err("it cannot be whole");

    let folder = tempfile::tempdir().expect("a folder");
    let stream = journal(history.database.pool.clone(), JournalExport::whole(Format::Csv), Show::Silent);
    to_file(stream, &folder.path().join("never.csv"), false).await.expect_err("nothing can be read");
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is listed").count(), 0);
}

/// Ends every connection to the test's database and lets none in again.
async fn disconnect(history: &History) {
    let url = cluster::shared().await.url("postgres");
    let mut connection = calos_adapters::postgres::connect_one(&url).await.expect("the cluster answers");
    let name = history.database.name();
    let alone = format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false");
    connection.execute(alone.as_str()).await.expect("it is closed");
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    connection.execute(end.as_str()).await.expect("its connections end");
}

async fn account_balances(history: &History) -> Balances {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT account, asset, sum(balance)::int8 FROM read.account_balances GROUP BY account, asset \
         HAVING sum(balance) <> 0",
    )
    .fetch_all(&history.database.pool)
    .await
    .expect("the balances are read");
    rows.into_iter().map(|(account, asset, balance)| ((account, asset), balance)).collect()
}

/// Runs hledger, which has to be there: `make test` installs it.
fn hledger(file: &Path, arguments: &[&str]) -> String {
    let ran = Command::new("hledger").arg("-f").arg(file).args(arguments).stdin(Stdio::null()).output();
    let ran = ran.expect("hledger runs: `sh scripts/setup.sh tests` installs it");
    let (said, wrong) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "hledger {arguments:?}: {wrong}");
    said.into_owned()
}

/// What hledger makes of a file: `"account","USD","10.000000"`, a line for each.
fn balances(file: &Path, arguments: &[&str]) -> Balances {
    let asked = ["bal", "--flat", "--no-total", "--layout=bare", "--output-format=csv"];
    let said = hledger(file, &[&asked, arguments].concat());
    let mut found = Balances::new();
    for line in said.lines().skip(1) {
        let fields: Vec<&str> = line.trim_matches('"').split("\",\"").collect();
        let [account, asset, amount] = fields[..] else { panic!("{line}") };
        add(&mut found, account, asset, units(amount, asset));
    }
    found.retain(|_, balance| *balance != 0);
    found
}

/// An amount as text, in the asset's smallest unit; every digit has to be there.
fn units(amount: &str, asset: &str) -> i64 {
    if asset == Asset::Credit.as_str() || amount == "0" {
        return amount.parse().expect("a whole number");
    }
    let (_, fraction) = amount.split_once('.').expect("a decimal");
    assert_eq!(fraction.len(), 6, "{amount}");
    amount.replace('.', "").parse().expect("a number")
}

fn add(balances: &mut Balances, account: &str, asset: &str, units: i64) {
    *balances.entry((account.to_owned(), asset.to_owned())).or_default() += units;
}

/// Tenants, grants and holds left out.
fn classes(balances: &Balances) -> Balances {
    let mut classes = Balances::new();
    for ((account, asset), balance) in balances {
        let account: Account = account.parse().expect("an account of the book");
        add(&mut classes, &account.class().to_string(), asset, *balance);
    }
    classes.retain(|_, balance| *balance != 0);
    classes
}

fn of_csv(file: &Path) -> Balances {
    let text = std::fs::read_to_string(file).expect("the file is read");
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let head = "partition,position,effective_at,recorded_at,tenant_id,event_type,asset,account,amount";
    assert_eq!(lines.next(), Some(head));
    let mut found = Balances::new();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let [_, _, _, _, _, _, asset, account, amount] = fields[..] else { panic!("{line}") };
        add(&mut found, account, asset, units(amount, asset));
    }
    assert!(text.lines().last().is_some_and(|line| line.starts_with("# end: ")));
    found.retain(|_, balance| *balance != 0);
    found
}

fn of_jsonl(file: &Path) -> Balances {
    let text = std::fs::read_to_string(file).expect("the file is read");
    let mut found = Balances::new();
    let (mut begun, mut ended) = (false, false);
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
        begun |= line["journal"]["heads"].is_object();
        ended |= line["end"]["entries"].is_u64();
        for posting in line["postings"].as_array().into_iter().flatten() {
            let asset = line["asset"].as_str().expect("an asset");
            let (account, amount) = (posting["account"].as_str(), posting["amount"].as_str());
            add(&mut found, account.expect("an account"), asset, units(amount.expect("an amount"), asset));
        }
    }
    assert!(begun && ended);
    found.retain(|_, balance| *balance != 0);
    found
}

fn of_parquet(file: &Path, postings: u64) -> Balances {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::RowAccessor as _;
    let reader = SerializedFileReader::new(std::fs::File::open(file).expect("the file opens")).expect("it is Parquet");
    let metadata = reader.metadata().file_metadata();
    assert_eq!(u64::try_from(metadata.num_rows()), Ok(postings));
    let keys: Vec<&str> =
        metadata.key_value_metadata().expect("there is metadata").iter().map(|pair| &*pair.key).collect();
    assert_eq!(keys, ["calos.journal", "calos.journal.heads", "calos.journal.end"]);
    let mut found = Balances::new();
    for row in reader.get_row_iter(None).expect("the rows are read") {
        let row = row.expect("a row is read");
        let (asset, account) = (row.get_string(6).expect("an asset"), row.get_string(7).expect("an account"));
        add(&mut found, account, asset, row.get_long(8).expect("an amount"));
    }
    found.retain(|_, balance| *balance != 0);
    found
}
