//! Events a projection could not take, and the later events of their streams, which wait behind them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row};

use calos_domain::{Record, Timestamp};

use crate::bisect::store_bisecting;
use crate::feed;
use crate::moment::Moment;
use crate::registry::AnyProjection;

/// The most events of one stream resumed in one transaction.
pub const RETRY_MAX_EVENTS: i64 = 1_000;

/// An event that is set aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// The partition.
    pub partition: i32,
    /// The position.
    pub position: i64,
    /// The stream's aggregate type.
    pub aggregate_type: String,
    /// The stream.
    pub aggregate_id: String,
    /// Whether it only waits behind another one of its stream.
    pub parked: bool,
    /// What was wrong, or what it waits for.
    pub error: String,
    /// When it was set aside; none before that.
    pub created_at: Option<Timestamp>,
}

impl DeadLetter {
    pub(crate) fn failed(record: &Record<'_>, error: &dyn Display) -> Self {
        Self {
            partition: record.partition,
            position: record.position,
            aggregate_type: record.aggregate_type.to_owned(),
            aggregate_id: record.aggregate_id.to_owned(),
            parked: false,
            error: error.to_string(),
            created_at: None,
        }
    }

    pub(crate) fn parked(record: &Record<'_>, behind: i64) -> Self {
        let error = format!("waits behind position {behind}");
        Self { parked: true, ..Self::failed(record, &error) }
    }
}

/// The streams of one projection whose later events have to wait, each with the position it waits behind.
#[derive(Default, Debug)]
pub(crate) struct Parked {
    streams: HashMap<String, HashMap<String, i64>>,
}

impl Parked {
    /// The position the record's stream waits behind, if it does and the record comes after it.
    pub(crate) fn behind(&self, record: &Record<'_>) -> Option<i64> {
        if self.streams.is_empty() {
            return None;
        }
        let position = *self.streams.get(record.aggregate_type)?.get(record.aggregate_id)?;
        (record.position > position).then_some(position)
    }

    /// From now on the stream waits behind this record.
    pub(crate) fn park(&mut self, record: &Record<'_>) {
        self.add(record.aggregate_type.to_owned(), record.aggregate_id.to_owned(), record.position);
    }

    fn add(&mut self, aggregate_type: String, aggregate_id: String, position: i64) {
        self.streams.entry(aggregate_type).or_default().entry(aggregate_id).or_insert(position);
    }
}

/// The streams that wait, for each of the projections' live versions. To be asked with their checkpoints locked, in a
/// statement of its own: then nobody can have parked another one unseen.
pub(crate) async fn parked(
    connection: &mut PgConnection,
    projections: &[&'static dyn AnyProjection],
) -> Result<Vec<Parked>, sqlx::Error> {
    let names: Vec<&str> = projections.iter().map(|projection| projection.name()).collect();
    let rows = sqlx::query(
        "SELECT d.projection, d.aggregate_type, d.aggregate_id, min(d.position) FROM dead_letters d
         JOIN projections p ON p.name = d.projection AND p.live_version = d.version
         WHERE d.projection = ANY($1) GROUP BY 1, 2, 3",
    )
    .bind(&names)
    .fetch_all(connection)
    .await?;
    let mut parked: Vec<Parked> = projections.iter().map(|_| Parked::default()).collect();
    for row in &rows {
        let name: &str = row.try_get(0)?;
        if let Some(index) = names.iter().position(|known| *known == name) {
            parked[index].add(row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        }
    }
    Ok(parked)
}

/// Sets events aside, and says so once for each that failed.
pub(crate) async fn keep(
    connection: &mut PgConnection,
    projection: &str,
    version: i32,
    letters: &[DeadLetter],
) -> Result<(), sqlx::Error> {
    if letters.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO dead_letters (projection, version, partition, position, aggregate_type, aggregate_id, parked, error)
         SELECT $1, $2, * FROM unnest($3::int4[], $4::int8[], $5::text[], $6::text[], $7::bool[], $8::text[])",
    )
    .bind(projection)
    .bind(version)
    .bind(letters.iter().map(|letter| letter.partition).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.position).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.aggregate_type.as_str()).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.aggregate_id.as_str()).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.parked).collect::<Vec<_>>())
    // PostgreSQL keeps no NUL in a text, and an error may quote one.
    .bind(letters.iter().map(|letter| letter.error.replace('\0', "\\0")).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(drop)
}

/// Logs what was set aside, once it is committed.
pub(crate) fn report(projection: &str, letters: &[DeadLetter]) {
    for letter in letters.iter().filter(|letter| !letter.parked) {
        tracing::error!(
            projection,
            partition = letter.partition,
            position = letter.position,
            stream = format_args!("{} {}", letter.aggregate_type, letter.aggregate_id),
            error = letter.error,
            "an event was set aside; its stream waits in this projection until it is retried"
        );
    }
}

/// How many events the live versions of these projections have set aside.
///
/// # Errors
/// The database's.
pub async fn open(pool: &PgPool, projections: &[&str]) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM dead_letters d JOIN projections p ON p.name = d.projection AND p.live_version = d.version
         WHERE d.projection = ANY($1)",
    );
    count.bind(projections).fetch_one(pool).await
}

/// What is set aside for a projection's live version, in the order of the log, at most `limit`.
///
/// # Errors
/// The database's.
pub async fn list(pool: &PgPool, projection: &str, limit: u32) -> Result<Vec<DeadLetter>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT d.partition, d.position, d.aggregate_type, d.aggregate_id, d.parked, d.error, d.created_at
         FROM dead_letters d JOIN projections p ON p.name = d.projection AND p.live_version = d.version
         WHERE d.projection = $1 ORDER BY d.partition, d.position LIMIT $2",
    )
    .bind(projection)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(letter).collect()
}

/// One event that is set aside for a projection's live version, with that version; none when it is not.
///
/// # Errors
/// The database's.
pub async fn find(
    pool: &PgPool,
    projection: &str,
    partition: i32,
    position: i64,
) -> Result<Option<(i32, DeadLetter)>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT d.partition, d.position, d.aggregate_type, d.aggregate_id, d.parked, d.error, d.created_at, d.version
         FROM dead_letters d JOIN projections p ON p.name = d.projection AND p.live_version = d.version
         WHERE d.projection = $1 AND d.partition = $2 AND d.position = $3",
    )
    .bind(projection)
    .bind(partition)
    .bind(position)
    .fetch_optional(pool)
    .await?;
    row.map(|row| Ok((row.try_get(7)?, letter(&row)?))).transpose()
}

/// Where the later events of a letter's stream wait behind it, in their order: at most `limit` positions, and how many
/// there are.
///
/// # Errors
/// The database's.
pub async fn behind(
    pool: &PgPool,
    projection: &str,
    version: i32,
    letter: &DeadLetter,
    limit: u32,
) -> Result<(Vec<i64>, i64), sqlx::Error> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT position, count(*) OVER () FROM dead_letters
         WHERE projection = $1 AND version = $2 AND partition = $3 AND aggregate_type = $4 AND aggregate_id = $5
             AND position > $6 ORDER BY position LIMIT $7",
    )
    .bind(projection)
    .bind(version)
    .bind(letter.partition)
    .bind(&letter.aggregate_type)
    .bind(&letter.aggregate_id)
    .bind(letter.position)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    let count = rows.first().map_or(0, |row| row.1);
    Ok((rows.into_iter().map(|row| row.0).collect(), count))
}

fn letter(row: &PgRow) -> Result<DeadLetter, sqlx::Error> {
    Ok(DeadLetter {
        partition: row.try_get(0)?,
        position: row.try_get(1)?,
        aggregate_type: row.try_get(2)?,
        aggregate_id: row.try_get(3)?,
        parked: row.try_get(4)?,
        error: row.try_get(5)?,
        created_at: Some(row.try_get::<Moment, _>(6)?.0),
    })
}

/// What a retry achieved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Retried {
    /// Events taken after all.
    pub resumed: u64,
    /// Streams that failed again and wait on.
    pub streams_failing: u64,
}

/// Takes the events that were set aside for a projection's live version after all, stream by stream in their order. A
/// stream that fails again waits on behind the event it failed at.
///
/// # Errors
/// The database's; what was resumed before stays resumed.
pub async fn retry_dead_letters(pool: &PgPool, projection: &'static dyn AnyProjection) -> Result<Retried, sqlx::Error> {
    let streams = sqlx::query(
        "SELECT d.version, d.partition, d.aggregate_type, d.aggregate_id FROM dead_letters d
         JOIN projections p ON p.name = d.projection AND p.live_version = d.version
         WHERE d.projection = $1 GROUP BY 1, 2, 3, 4 ORDER BY 2, min(d.position)",
    )
    .bind(projection.name())
    .fetch_all(pool)
    .await?;
    let mut retried = Retried::default();
    for row in &streams {
        let stream = Stream {
            version: row.try_get(0)?,
            partition: row.try_get(1)?,
            aggregate_type: row.try_get(2)?,
            aggregate_id: row.try_get(3)?,
        };
        take_up(pool, projection, &stream, &mut retried).await?;
    }
    Ok(retried)
}

/// Leaves one event out of a projection's live version and takes up, in their order, those that waited behind it. None
/// when that event is not set aside there, or only waits behind another one.
///
/// # Errors
/// The database's; once the event is left out, a retry takes up what still waits.
pub async fn skip_dead_letter(
    pool: &PgPool,
    projection: &'static dyn AnyProjection,
    partition: i32,
    position: i64,
) -> Result<Option<Retried>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let Some(version) = hold_live(&mut transaction, projection.name(), partition).await? else { return Ok(None) };
    let skipped: Option<(String, String)> = sqlx::query_as(
        "DELETE FROM dead_letters WHERE projection = $1 AND version = $2 AND partition = $3 AND position = $4
             AND NOT parked RETURNING aggregate_type, aggregate_id",
    )
    .bind(projection.name())
    .bind(version)
    .bind(partition)
    .bind(position)
    .fetch_optional(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let Some((aggregate_type, aggregate_id)) = skipped else { return Ok(None) };
    // Those that waited are still set aside, so whatever the stream gets meanwhile waits behind them.
    let mut retried = Retried::default();
    let stream = Stream { version, partition, aggregate_type, aggregate_id };
    take_up(pool, projection, &stream, &mut retried).await?;
    Ok(Some(retried))
}

async fn take_up(
    pool: &PgPool,
    projection: &'static dyn AnyProjection,
    stream: &Stream,
    retried: &mut Retried,
) -> Result<(), sqlx::Error> {
    loop {
        match retry_stream(pool, projection, stream).await? {
            Step::Done => return Ok(()),
            Step::Failing(resumed) => {
                retried.resumed += resumed;
                retried.streams_failing += 1;
                return Ok(());
            }
            Step::Resumed(resumed) => retried.resumed += resumed,
        }
    }
}

struct Stream {
    version: i32,
    partition: i32,
    aggregate_type: String,
    aggregate_id: String,
}

enum Step {
    Done,
    Resumed(u64),
    Failing(u64),
}

/// One transaction: up to [`RETRY_MAX_EVENTS`] of the stream, with the partition's checkpoint locked so that no runner
/// parks a later event meanwhile.
async fn retry_stream(
    pool: &PgPool,
    projection: &'static dyn AnyProjection,
    stream: &Stream,
) -> Result<Step, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    if hold_live(&mut transaction, projection.name(), stream.partition).await? != Some(stream.version) {
        return Ok(Step::Done);
    }
    let rows = waiting(&mut transaction, projection.name(), stream).await?;
    let records = rows.iter().map(feed::record).collect::<Result<Vec<_>, _>>()?;
    let Some(last) = records.last() else { return Ok(Step::Done) };
    let mut parked = Parked::default();
    let mut letters = BTreeMap::new();
    store_bisecting(&mut transaction, projection, &records, &mut parked, &mut letters).await?;
    let letters: Vec<DeadLetter> = letters.into_values().collect();
    sqlx::query(
        "DELETE FROM dead_letters WHERE projection = $1 AND version = $2 AND partition = $3 AND aggregate_type = $4
             AND aggregate_id = $5 AND position <= $6",
    )
    .bind(projection.name())
    .bind(stream.version)
    .bind(stream.partition)
    .bind(&stream.aggregate_type)
    .bind(&stream.aggregate_id)
    .bind(last.position)
    .execute(&mut *transaction)
    .await?;
    keep(&mut transaction, projection.name(), stream.version, &letters).await?;
    transaction.commit().await?;
    report(projection.name(), &letters);
    let resumed = (records.len() - letters.len()) as u64;
    Ok(if letters.is_empty() { Step::Resumed(resumed) } else { Step::Failing(resumed) })
}

/// The live version, with its checkpoint in this partition locked: nobody parks an event there, and no other version can
/// take its place, until the transaction ends.
async fn hold_live(
    connection: &mut PgConnection,
    projection: &str,
    partition: i32,
) -> Result<Option<i32>, sqlx::Error> {
    let lock = "SELECT c.version FROM checkpoints c JOIN projections p ON p.name = c.projection AND p.live_version = c.version \
                WHERE c.projection = $1 AND c.partition = $2 FOR UPDATE OF c";
    let held: Option<i32> =
        sqlx::query_scalar(lock).bind(projection).bind(partition).fetch_optional(&mut *connection).await?;
    // Asked again: while the lock was waited for, another version may have taken its place.
    let live: Option<i32> = sqlx::query_scalar("SELECT live_version FROM projections WHERE name = $1")
        .bind(projection)
        .fetch_optional(connection)
        .await?;
    Ok(live.filter(|live| held == Some(*live)))
}

async fn waiting(connection: &mut PgConnection, projection: &str, stream: &Stream) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::query(
        "SELECT 1::int8, e.partition, e.position, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type,
             e.event_version, e.payload, e.recorded_at
         FROM dead_letters d JOIN events e ON e.partition = d.partition AND e.position = d.position
         WHERE d.projection = $1 AND d.version = $2 AND d.partition = $3 AND d.aggregate_type = $4 AND d.aggregate_id = $5
         ORDER BY d.position LIMIT $6",
    )
    .bind(projection)
    .bind(stream.version)
    .bind(stream.partition)
    .bind(&stream.aggregate_type)
    .bind(&stream.aggregate_id)
    .bind(RETRY_MAX_EVENTS)
    .fetch_all(connection)
    .await
}
