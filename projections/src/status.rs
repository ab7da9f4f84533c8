//! How every projection stands, for operators, readiness and metrics.

use std::collections::BTreeMap;

use sqlx::{PgExecutor, Row};

/// What a projection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It follows the log.
    Live,
    /// It follows the log, and another version is being built beside it.
    Building,
    /// It stopped in at least one partition and waits for an operator.
    Halted,
}

impl State {
    /// The name shown to people and tools.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Building => "building",
            Self::Halted => "halted",
        }
    }
}

/// How one projection stands.
#[derive(Clone, PartialEq, Debug)]
pub struct ProjectionStatus {
    /// Its name.
    pub name: String,
    /// The live version.
    pub version: i32,
    /// The version being built, when one is.
    pub building_version: Option<i32>,
    /// What it is doing.
    pub state: State,
    /// Events set aside, waiting ones included: while there are any, its figures are incomplete.
    pub dead_letters: i64,
    /// Where it stands in each partition, in their order.
    pub partitions: Vec<PartitionStatus>,
}

impl ProjectionStatus {
    /// Events it has not taken yet, over all partitions.
    #[must_use]
    pub fn lag_events(&self) -> i64 {
        self.partitions.iter().map(|partition| partition.lag_events).sum()
    }

    /// How long the oldest event it has not taken has been waiting, in seconds.
    #[must_use]
    pub fn lag_seconds(&self) -> f64 {
        self.partitions.iter().map(|partition| partition.lag_seconds).fold(0.0, f64::max)
    }
}

/// Where a projection stands in one partition.
#[derive(Clone, PartialEq, Debug)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: i32,
    /// The last position taken.
    pub position: i64,
    /// The log's last position.
    pub head: i64,
    /// How many events lie between.
    pub lag_events: i64,
    /// How long the first of them has been waiting, in seconds; 0 when there is none.
    pub lag_seconds: f64,
    /// Why it takes nothing more here, when it has halted.
    pub halted: Option<String>,
}

/// How every registered projection stands, by name.
///
/// # Errors
/// The database's.
pub async fn projections(executor: impl PgExecutor<'_>) -> Result<Vec<ProjectionStatus>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT p.name, p.live_version, p.building_version,
             (SELECT count(*) FROM dead_letters d WHERE d.projection = p.name AND d.version = p.live_version),
             c.partition, c.position, h.last_position, c.halted,
             CASE WHEN c.position < h.last_position THEN
                 (SELECT greatest(extract(epoch FROM clock_timestamp() - e.recorded_at), 0)::float8 FROM events e
                  WHERE e.partition = c.partition AND e.position = c.position + 1)
             END
         FROM projections p
         JOIN checkpoints c ON c.projection = p.name AND c.version = p.live_version
         JOIN heads h ON h.partition = c.partition
         ORDER BY p.name, c.partition",
    )
    .fetch_all(executor)
    .await?;
    let mut projections: BTreeMap<String, ProjectionStatus> = BTreeMap::new();
    for row in &rows {
        let name: String = row.try_get(0)?;
        let (position, head): (i64, i64) = (row.try_get(5)?, row.try_get(6)?);
        let partition = PartitionStatus {
            partition: row.try_get(4)?,
            position,
            head,
            lag_events: (head - position).max(0),
            lag_seconds: row.try_get::<Option<f64>, _>(8)?.unwrap_or(0.0),
            halted: row.try_get(7)?,
        };
        let version = row.try_get(1)?;
        let building_version: Option<i32> = row.try_get(2)?;
        let dead_letters = row.try_get(3)?;
        let status = projections.entry(name.clone()).or_insert_with(|| ProjectionStatus {
            name,
            version,
            building_version,
            state: if building_version.is_some() { State::Building } else { State::Live },
            dead_letters,
            partitions: Vec::new(),
        });
        if partition.halted.is_some() {
            status.state = State::Halted;
        }
        status.partitions.push(partition);
    }
    Ok(projections.into_values().collect())
}
