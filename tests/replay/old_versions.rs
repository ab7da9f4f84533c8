//! Events that were written in another version of theirs: older ones are read as today's wherever they are read, and their
//! bytes stay as they are; ones nobody knows are errors that say so.

use calos_adapters::postgres::store::PgEventStore;
use calos_adapters::postgres::{LogOptions, PgLog};
use calos_commands::sourced::Recorded;
use calos_domain::operation::{
    Operation, OperationCommand, OperationEvent, RebuildCancelled, RebuildScope, RebuildStarted, RunBy,
};
use calos_domain::{Record, StreamId, Timestamp};
use calos_projections::registry::Of;
use calos_projections::{
    AnyProjection, Column, ColumnType, CopyError, CopySink, Growth, ProjectError, Projection, Runner, RunnerOptions,
    Schema, TableSpec, Value, column_names,
};
use calos_replay::events::{EventFilter, events};
use calos_replay::export_log::{LogExport, export_log};
use calos_replay::import_log::import_log;
use calos_replay::log_file::LogFormat;
use calos_replay::operation::record;
use calos_replay::progress::Show;
use calos_replay::rebuild::{RebuildOptions, rebuild};
use calos_replay::verify::{VerifyOptions, VerifyReport, verify};
use calos_replay::write_guard::{Assent, confirm};
use calos_tests::before::{record_rebuild_started, version_1};
use calos_tests::database::TestDatabase;
use cqrs_es::EventStore as _;
use sqlx::{Executor as _, PgConnection, PgPool};

use crate::history::{History, now, operator};

/// What each rebuild was of, as today's version of the event says it, read in part: it knows no other version.
struct RebuildScopes;

const REBUILD_SCOPES: &dyn AnyProjection = &Of::<RebuildScopes>::NEW;

const COLUMNS: [Column; 3] = [
    Column::new("partition", ColumnType::Integer),
    Column::new("position", ColumnType::Bigint),
    Column::new("scope", ColumnType::Text),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: RebuildScopes::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["partition", "position"],
    indexes: &[],
    fillfactor: 100,
}];

impl Projection for RebuildScopes {
    const NAME: &'static str = "rebuild_scopes";
    const GROWTH: Growth = Growth::PerEvent;
    type Changes = Vec<(i32, i64, String)>;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Self::Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        match (record.event_type, record.event_version) {
            ("rebuild_started", "2") => {
                let payload: serde_json::Value =
                    serde_json::from_str(record.payload).map_err(|error| ProjectError::Payload(error.to_string()))?;
                let scope = payload["rebuild_started"]["scope"].to_string();
                changes.push((record.partition, record.position, scope));
                Ok(())
            }
            ("rebuild_started", version) => Err(ProjectError::UnknownEvent {
                aggregate_type: record.aggregate_type.to_owned(),
                event_type: record.event_type.to_owned(),
                event_version: version.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    async fn store(changes: Self::Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let statement = schema.sql("INSERT INTO {schema}.rebuild_scopes VALUES ($1, $2, $3)");
        for (partition, position, scope) in changes {
            sqlx::query(&statement).bind(partition).bind(position).bind(scope).execute(&mut *connection).await?;
        }
        Ok(())
    }

    fn copy(changes: Self::Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for (partition, position, scope) in &changes {
            sink.row(Self::NAME, &[Value::I32(*partition), Value::I64(*position), Value::Text(scope)])?;
        }
        Ok(())
    }
}

/// A history, and the read model of rebuilds beside the others.
async fn history() -> History {
    let history = History::of(2, 2).await;
    for statement in TABLES[0].create(Schema::Live) {
        history.database.owner_pool.execute(statement.as_str()).await.expect("the table is created");
    }
    history
}

async fn catch_up(history: &History) {
    let options = RunnerOptions { projections: vec![REBUILD_SCOPES], ..RunnerOptions::default() };
    Runner::catch_up(history.database.pool.clone(), options).await.expect("it catches up");
    history.catch_up().await;
}

async fn scopes(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("SELECT scope FROM read.rebuild_scopes ORDER BY partition, position")
        .fetch_all(pool)
        .await
        .expect("the rows")
}

async fn verify_with_scopes(history: &History) -> VerifyReport {
    let models = [REBUILD_SCOPES];
    let options = VerifyOptions { chain_only: false, anchors: None, models: &models, show: Show::Silent };
    verify(&history.database.owner_pool, &options).await.expect("the verification ends")
}

/// An event's envelope, payload, metadata and seal, as stored.
async fn stored(pool: &PgPool, run: &RunBy) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT concat_ws('|', partition, position, sequence, event_type, event_version, payload::text, metadata::text,
             extract(epoch FROM recorded_at)::text, encode(hash, 'hex'))
         FROM events WHERE aggregate_type = 'operation' AND aggregate_id = $1 ORDER BY sequence",
    )
    .bind(run.operation_id.to_string())
    .fetch_all(pool)
    .await
    .expect("the events are read")
}

fn started(run: &RunBy, scope: RebuildScope, started_at: Timestamp) -> OperationCommand {
    let (run, only, until) = (run.clone(), None, None);
    OperationCommand::RecordRebuildStarted(RebuildStarted { run, scope, only, until, started_at })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_knows_what_an_older_program_recorded_and_goes_on_from_it() {
    let history = history().await;
    let (pool, log, run, at) = (&history.database.pool, &history.log, operator(), now());
    record_rebuild_started::<1>(pool, &run, version_1(&run, "all", at)).await;
    let written = stored(pool, &run).await;
    assert!(written[0].contains("|rebuild_started|1|"), "{written:?}");

    // The same fact is recorded already, and another about the same is refused: so what it said is known.
    record(log, &run, started(&run, RebuildScope::Every, at)).await.expect("there is nothing to record");
    assert_eq!(stored(pool, &run).await, written);
    let other =
        record(log, &run, started(&run, RebuildScope::Every, at.plus_seconds(1))).await.expect_err("it differs");
    assert!(other.to_string().contains("rebuild_started"), "{other}");
    let cancelled = RebuildCancelled { run: run.clone(), projection: "all".to_owned(), cancelled_at: now() };
    record(log, &run, OperationCommand::RecordRebuildCancelled(cancelled)).await.expect("the stream goes on");
    let both = stored(pool, &run).await;
    assert_eq!((both.len(), &both[0]), (2, &written[0]));

    // A snapshot that the older program left says nothing to this one.
    let old_facts =
        serde_json::json!({ "operation_id": run.operation_id, "facts": [version_1(&run, "usage_log", at)] });
    let (partition, first): (i32, i64) = (log.partition_of(&run.operation_id.to_string()), 1);
    sqlx::query(
        "INSERT INTO snapshots (aggregate_type, aggregate_id, partition, last_sequence, snapshot_version, payload)
         VALUES ('operation', $1, $2, $3, 1, $4)",
    )
    .bind(run.operation_id.to_string())
    .bind(partition)
    .bind(first)
    .bind(old_facts.to_string())
    .execute(&history.database.owner_pool)
    .await
    .expect("the snapshot is left");
    let cold = PgLog::open(pool.clone(), LogOptions::default()).await.expect("the log opens");
    record(&cold, &run, started(&run, RebuildScope::Every, at)).await.expect("there is nothing to record");
    let framework = PgEventStore::<Operation>::new(cold.clone());
    let loaded = framework.load_events(StreamId::key(run.operation_id).as_str()).await.expect("the framework loads it");
    let Recorded(first) = &loaded[0].payload;
    let OperationCommand::RecordRebuildStarted(fact) = started(&run, RebuildScope::Every, at) else { unreachable!() };
    assert_eq!((first, loaded.len()), (&OperationEvent::RebuildStarted(fact), 2));
    cold.close().await;
    assert_eq!(stored(pool, &run).await, both);
    let report = history.verify().await;
    assert!(report.passed, "{:?}", report.first());
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_models_and_tools_read_an_older_event_as_todays_and_pass_its_bytes_on() {
    let history = history().await;
    let (pool, run, other) = (&history.database.pool, operator(), operator());
    record_rebuild_started::<1>(pool, &run, version_1(&run, "all", now())).await;
    record_rebuild_started::<1>(pool, &other, version_1(&other, "usage_log", now())).await;
    catch_up(&history).await;
    let mut expected = vec![r#""every""#.to_owned(), r#"{"one":{"projection":"usage_log"}}"#.to_owned()];
    let sorted = |mut scopes: Vec<String>| {
        scopes.sort();
        scopes
    };
    expected.sort();
    assert_eq!(sorted(scopes(pool).await), expected, "as the runner stores it");

    let confirmed = confirm(Assent::Given, "rebuild").expect("it is confirmed");
    let (owner, options) = (&history.database.owner_pool, RebuildOptions::default());
    let report =
        rebuild(owner, &history.log, REBUILD_SCOPES, &operator(), &confirmed, &options).await.expect("it is rebuilt");
    assert_eq!((report.parity.differing_rows(), report.dead_letters), (0, 0));
    // The rebuild has recorded itself, as such events are written today.
    expected.push(r#"{"one":{"projection":"rebuild_scopes"}}"#.to_owned());
    expected.sort();
    assert_eq!(sorted(scopes(pool).await), expected, "as a rebuild copies it");
    catch_up(&history).await;
    for report in [verify_with_scopes(&history).await, history.verify().await] {
        assert!(report.passed, "{:?}", report.first());
    }

    // Whoever looks at the log sees what is stored, and so does whoever takes it elsewhere.
    let filter =
        EventFilter { stream: Some(("operation".to_owned(), run.operation_id.to_string())), ..EventFilter::default() };
    let mut shown = Vec::new();
    let each = |line: &calos_replay::events::EventLine| {
        shown.push((line.version.clone(), line.payload.get().to_owned()));
        Ok(())
    };
    assert_eq!(events(owner, &filter, false, each).await.expect("the events"), 1);
    assert!(shown[0].0 == "1" && shown[0].1.contains(r#""projection":"all""#), "{shown:?}");
    let folder = tempfile::tempdir().expect("a folder");
    for (name, format) in [("log.jsonl.zst", LogFormat::Jsonl), ("log.parquet", LogFormat::Parquet)] {
        let file = folder.path().join(name);
        let export = LogExport { format, keys: false, force: false, show: Show::Silent };
        export_log(owner, &history.key, &file, export).await.expect("it is exported");
        let database = TestDatabase::create().await;
        let confirmed = confirm(Assent::Given, "import").expect("it is confirmed");
        let key = Some(history.key.verifying_key());
        let anchors = history.anchors.path();
        let imported =
            import_log(&database.owner_pool, &file, anchors, key, &operator(), Show::Silent, &confirmed).await;
        imported.expect("it is imported");
        assert_eq!(stored(&database.pool, &run).await, stored(pool, &run).await);
        let report = crate::log_files::verify_of(&database, history.anchors()).await;
        assert!(report.passed, "{:?}", report.first());
    }
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_version_nobody_knows_is_an_error_that_names_it_and_never_a_guess() {
    let history = history().await;
    let (pool, run, at) = (&history.database.pool, operator(), now());
    // A newer program wrote it, and all that this one knows of its payload is there too.
    let payload = serde_json::json!({ "rebuild_started": {
        "operation_id": run.operation_id, "operator": run.operator, "reason": run.reason, "scope": "every",
        "started_at": at, "priority": "high",
    } });
    record_rebuild_started::<9>(pool, &run, payload).await;
    let named = r#"the event "rebuild_started" version "9" of operation is unknown"#;

    let refused = record(&history.log, &run, started(&run, RebuildScope::Every, at)).await.expect_err("it is unknown");
    let text = format!("{refused:#} {:?}", std::error::Error::source(&refused));
    assert!(text.contains("rebuild_started") && text.contains('9'), "{text}");
    let framework = PgEventStore::<Operation>::new(history.log.clone());
    let loaded = framework.load_events(&run.operation_id.to_string()).await.err().map(|error| error.to_string());
    assert!(loaded.as_deref().is_some_and(|text| text.contains(named)), "{loaded:?}");

    catch_up(&history).await;
    assert_eq!(scopes(pool).await, [""; 0]);
    let letters = calos_projections::dead_letters::list(pool, RebuildScopes::NAME, 10).await.expect("the letters");
    assert_eq!(letters.len(), 1);
    assert!(letters[0].error.contains(named), "{}", letters[0].error);
    let report = verify_with_scopes(&history).await;
    assert!(!report.passed);
    let (check, finding) = report.first().expect("a finding");
    assert!(finding.what.contains(named), "{check}: {}", finding.what);
    assert_eq!(stored(pool, &run).await.len(), 1);
    history.log.close().await;
}
