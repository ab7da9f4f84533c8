//! Files of the log into an empty database, in one transaction: either everything in them is proved and stands, or nothing
//! has changed.

use std::path::PathBuf;

use ed25519_dalek::VerifyingKey;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use calos_adapters::epochs::{self, Epoch};
use calos_adapters::postgres::Timestamptz;
use calos_domain::Timestamp;
use calos_projections::copy_in::COPY_FLUSH_BYTES;
use calos_projections::copy_in::Value;
use calos_projections::{CopySink, registry};

use crate::connections::{Connections, run_sql};
use crate::error::ToolError;
use crate::log_file::tables::{self, IDEMPOTENCY};
use crate::log_file::{Header, Item, Source, Stored, Tails, beginning};
use crate::progress::{Counter, Progress, Show};
use crate::versions::Vector;

/// Somebody else's lock on the log is waited for so long.
const LOCK_TIMEOUT_SECONDS: u64 = 15;

const EVENTS: &str = "events";

/// The columns of the log, in the order in which they are sent.
const EVENT_COLUMNS: &[&str] = &[
    "partition",
    "position",
    "aggregate_type",
    "aggregate_id",
    "sequence",
    "event_type",
    "event_version",
    "payload",
    "metadata",
    "recorded_at",
    "hash",
];

/// How much of the files is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Until {
    /// All of it.
    End,
    /// What was recorded by then.
    Time(Timestamp),
    /// One partition up to this position, and of the others what was recorded by then, which is when that event was.
    Position { partition: i32, position: i64, at: Timestamp },
    /// Each partition up to a position, and nothing of one that is not named: see [`crate::whole_units`].
    Cut(Vector),
}

impl Until {
    /// Whether an event is taken. Times and positions of a partition go up, so that one not taken is followed by none that
    /// is.
    pub(crate) fn takes(&self, event: &Stored) -> bool {
        match self {
            Self::End => true,
            Self::Time(at) => event.recorded_at <= *at,
            Self::Position { partition, position, .. } if *partition == event.partition => event.position <= *position,
            Self::Position { at, .. } => event.recorded_at <= *at,
            Self::Cut(last) => last.get(&event.partition).is_some_and(|last| event.position <= *last),
        }
    }
}

/// Makes the epoch that begins with what was loaded, if one has to begin.
pub(crate) type MakesEpoch<'a> = dyn Fn(&Loaded) -> Option<Epoch> + Send + Sync + 'a;

/// How files are loaded.
pub(crate) struct Load<'a> {
    /// Whose signature the files have to bear; without one, that of the key they name.
    pub(crate) key: Option<VerifyingKey>,
    pub(crate) until: Until,
    /// Whose keys are left out.
    pub(crate) erased: &'a [Uuid],
    /// Makes the epoch that begins with what was loaded, if one has to.
    pub(crate) epoch: Option<&'a MakesEpoch<'a>>,
    pub(crate) show: Show,
}

/// What was loaded.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) log_id: Uuid,
    /// Where the log ends now.
    pub(crate) kept: Tails,
    /// Where the files end.
    pub(crate) read: Tails,
    pub(crate) events: u64,
    pub(crate) left_out: u64,
    /// Keys that were left out.
    pub(crate) erased: u64,
    pub(crate) epochs: Vec<Epoch>,
    /// The epoch that began.
    pub(crate) epoch: Option<Epoch>,
}

impl Loaded {
    pub(crate) fn heads(&self) -> Vector {
        (0..).zip(&self.kept.0).map(|(partition, tail)| (partition, tail.position)).collect()
    }
}

/// Loads files that follow one another; the caller has the log to itself. Nothing but this transaction sees anything of it before it is all there.
pub(crate) async fn load(pool: &PgPool, files: &[PathBuf], load: Load<'_>) -> Result<Loaded, ToolError> {
    let loader = Loader::of(files, &load).await?;
    let connections = Connections::beside(pool, 1);
    let mut operator = connections.connect().await?;
    let mut transaction = operator.begin().await?;
    run_sql(&mut transaction, &format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")).await?;
    run_sql(&mut transaction, "LOCK TABLE log, partitions, events, checkpoints IN ACCESS EXCLUSIVE MODE").await?;
    empty(&mut transaction).await?;
    let loaded = loader.run(&mut transaction, files, &load).await?;
    transaction.commit().await?;
    operator.close().await?;
    connections.close().await;
    Ok(loaded)
}

/// Refuses a database that holds anything: what was there would be mixed with what comes, or lost.
async fn empty(connection: &mut PgConnection) -> Result<(), ToolError> {
    let names = [EVENTS, "log_epochs", "snapshots"].into_iter().chain(tables::all().map(|table| table.name));
    for name in names {
        let text = format!("SELECT EXISTS (SELECT FROM public.{name})");
        if sqlx::query_scalar(&text).fetch_one(&mut *connection).await? {
            return Err(ToolError::Refused(format!(
                "this database is not empty: there are rows in {name}. A log is only read into a new database that no \
                 server has used yet; nothing was changed"
            )));
        }
    }
    Ok(())
}

struct Loader {
    loaded: Loaded,
    sink: CopySink,
    counter: Counter,
    progress: Progress,
    last: Header,
}

impl Loader {
    /// From the headers, which have to follow one another.
    async fn of(files: &[PathBuf], load: &Load<'_>) -> Result<Self, ToolError> {
        let mut headers: Vec<Header> = Vec::with_capacity(files.len());
        for file in files {
            let wrong = |what: &str| ToolError::Corrupt(format!("{}: {what}", file.display()));
            let header = Source::header(file, load.key).await?.0;
            match headers.last() {
                None if header.after != beginning(header.partitions) => {
                    return Err(wrong("it does not begin with the log: it is the tail of a backup"));
                }
                Some(before) if header.log_id() != before.log_id() || header.after != before.heads.heads => {
                    return Err(wrong("it does not follow the file before it"));
                }
                None | Some(_) => headers.push(header),
            }
        }
        let none = || ToolError::Usage("there is nothing to load".to_owned());
        let last = headers.last().ok_or_else(none)?.clone();
        let tails = Tails::at(&beginning(last.partitions)).ok_or_else(none)?;
        let events = headers.iter().map(Header::events).sum();
        let progress = Progress::new(load.show, "load", events);
        let loaded = Loaded {
            log_id: last.log_id(),
            kept: tails.clone(),
            read: tails,
            events: 0,
            left_out: 0,
            erased: 0,
            epochs: last.epochs.clone(),
            epoch: None,
        };
        let sink = CopySink::new([(EVENTS, EVENT_COLUMNS)]);
        Ok(Self { loaded, sink, counter: progress.counter(), progress, last })
    }

    async fn run(
        mut self,
        connection: &mut PgConnection,
        files: &[PathBuf],
        load: &Load<'_>,
    ) -> Result<Loaded, ToolError> {
        for (index, file) in files.iter().enumerate() {
            let mut source = Source::open(file, load.key).await?;
            self.file(connection, &mut source, load, index + 1 == files.len()).await?;
        }
        self.sink.finish(connection, "public").await?;
        drop(self.counter);
        self.progress.finish();
        put_log(connection, &self.loaded, &self.last, load.until == Until::End).await?;
        for epoch in &self.loaded.epochs {
            epochs::note(connection, epoch).await.map_err(of_epoch)?;
        }
        if let Some(epoch) = load.epoch.and_then(|make| make(&self.loaded)) {
            epochs::note(connection, &epoch).await.map_err(of_epoch)?;
            self.loaded.epoch = Some(epoch);
        }
        reset_projections(connection).await?;
        Ok(self.loaded)
    }

    async fn file(
        &mut self,
        connection: &mut PgConnection,
        source: &mut Source,
        load: &Load<'_>,
        last: bool,
    ) -> Result<(), ToolError> {
        // Read anew since its header was looked at: what follows has to hold of what is read now.
        let follows = self.loaded.read.end_at(&source.header.after);
        follows.map_err(|what| source.wrong(&format!("it does not follow the file before it: {what}")))?;
        loop {
            match source.next().await? {
                Item::Rows { table, rows } => {
                    let known =
                        tables::find(&table).filter(|table| source.header.tables.iter().any(|n| n == table.name));
                    let known = known.ok_or_else(|| source.wrong(&format!("it has rows of {table}")))?;
                    // Of small tables the youngest file has them as they were last; repeated requests are answered only
                    // where the events they led to are there.
                    if last && (load.until == Until::End || table != IDEMPOTENCY) {
                        self.loaded.erased += known.put(connection, &rows, load.erased).await?;
                    }
                }
                Item::Events(events) => {
                    for event in &events {
                        self.event(event, &load.until).map_err(|what| source.wrong(&what))?;
                    }
                    self.sink.flush(connection, "public", COPY_FLUSH_BYTES).await?;
                }
                Item::End(_) => break,
            }
        }
        self.loaded.read.end_at(&source.header.heads.heads).map_err(|what| source.wrong(&what))
    }

    fn event(&mut self, event: &Stored, until: &Until) -> Result<(), String> {
        self.counter.event();
        self.loaded.read.take(event)?;
        if !until.takes(event) {
            self.loaded.left_out += 1;
            return Ok(());
        }
        self.loaded.kept.take(event)?;
        self.loaded.events += 1;
        let values = [
            Value::I32(event.partition),
            Value::I64(event.position),
            Value::Text(&event.aggregate_type),
            Value::Text(&event.aggregate_id),
            Value::I64(event.sequence),
            Value::Text(&event.event_type),
            Value::Text(&event.event_version),
            Value::Json(&event.payload),
            Value::Json(&event.metadata),
            Value::Time(event.recorded_at),
            Value::Bytes(&event.hash),
        ];
        self.sink.row(EVENTS, &values).map_err(|error| error.to_string())
    }
}

/// Gives the log its name and its heads. The clock of a head can be ahead of its last event, where a moment was fenced: as
/// long as all of the log is here, that promise is kept.
async fn put_log(
    connection: &mut PgConnection,
    loaded: &Loaded,
    header: &Header,
    whole: bool,
) -> Result<(), ToolError> {
    // The owner alone can, and everything happens in this one transaction.
    let disarm = "ALTER TABLE log DISABLE TRIGGER log_refuse_statement; \
                  ALTER TABLE partitions DISABLE TRIGGER partitions_refuse_delete; DELETE FROM partitions";
    run_sql(connection, disarm).await?;
    sqlx::query("UPDATE log SET log_id = $1, partitions = $2")
        .bind(loaded.log_id)
        .bind(i32::from(header.partitions))
        .execute(&mut *connection)
        .await?;
    let arm = "ALTER TABLE log ENABLE ALWAYS TRIGGER log_refuse_statement; \
               ALTER TABLE partitions ENABLE ALWAYS TRIGGER partitions_refuse_delete";
    run_sql(connection, arm).await?;
    for ((partition, tail), clock) in (0_i32..).zip(&loaded.kept.0).zip(&header.clocks) {
        let clock = if whole { tail.recorded_at.max(*clock) } else { tail.recorded_at };
        sqlx::query(
            "INSERT INTO partitions (partition, last_position, last_recorded_at, head_hash) VALUES ($1, $2, $3, $4)",
        )
        .bind(partition)
        .bind(tail.position)
        .bind(Timestamptz(clock))
        .bind(&tail.hash[..])
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Every read model begins with the log.
async fn reset_projections(connection: &mut PgConnection) -> Result<(), ToolError> {
    let names: Vec<&str> = registry::ALL.iter().map(|model| model.name()).collect();
    for statement in
        ["DELETE FROM checkpoints", "DELETE FROM dead_letters", "UPDATE projections SET building_version = NULL"]
    {
        run_sql(connection, statement).await?;
    }
    sqlx::query(
        "INSERT INTO projections (name, live_version) SELECT name, 1 FROM unnest($1::text[]) AS n (name) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(&names)
    .execute(&mut *connection)
    .await?;
    run_sql(
        connection,
        "INSERT INTO checkpoints (projection, version, partition, position) \
         SELECT p.name, p.live_version, h.partition, 0 FROM projections p CROSS JOIN partitions h",
    )
    .await?;
    Ok(())
}

fn of_epoch(error: epochs::EpochError) -> ToolError {
    match error {
        epochs::EpochError::Database(error) => error.into(),
        error => ToolError::Corrupt(error.to_string()),
    }
}
