//! The bulk of a rebuild: partitions folded in parallel, each partition's rows and checkpoint in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use calos_projections::Schema;

use super::Building;
use crate::background::apart;
use crate::bulk::Bulk;
use crate::connections::{Connections, run_sql};
use crate::error::ToolError;
use crate::fold::{ReadModel, VersionAt};
use crate::progress::Progress;
use crate::skips::Skips;
use crate::traffic::{LOOK_EVERY, Traffic};
use crate::versions::{Vector, at_most, heads, positions};

/// Memory one index build may use.
const INDEX_BUILD_MEGABYTES: u32 = 256;

/// Read models whose keys are built at the same time.
const INDEX_BUILDS_MAX: usize = 2;

/// A read model's share of a partition: the version to load, and how far.
#[derive(Clone, Copy)]
struct Share {
    model: ReadModel,
    version: i32,
    through: i64,
}

/// Folds every partition up to `until`, or as far as the live versions have read, wherever that has not been done yet, then
/// adds the keys.
/// A partition that several read models need is read once for all of them.
pub(super) async fn build(
    connections: &Connections,
    operator: &mut PgConnection,
    buildings: &[Building],
    until: Option<&Vector>,
    workers: usize,
    progress: &Progress,
) -> Result<(), ToolError> {
    let heads = heads(operator).await?;
    let mut todo: BTreeMap<i32, Vec<Share>> = BTreeMap::new();
    for building in buildings {
        let Building { model, version, .. } = *building;
        let live = match until {
            Some(until) => until.clone(),
            None => positions(operator, model.name(), building.live).await?,
        };
        for (partition, through) in at_most(&live, &heads) {
            let unfinished = building.reached.get(&partition).is_none_or(|&position| position == 0);
            if unfinished && through > 0 {
                todo.entry(partition).or_default().push(Share { model, version, through });
            }
        }
    }
    load(connections, todo, workers, progress).await?;
    progress.step("building keys");
    let keys: Vec<_> = buildings.iter().map(|building| add_keys(connections, building.model)).collect();
    stream::iter(keys).buffer_unordered(INDEX_BUILDS_MAX).try_collect().await
}

/// Gathers the statistics by which the comparison and the first readers are planned, once rows and keys stand.
pub(super) async fn analyze(connections: &Connections, buildings: &[Building]) -> Result<(), ToolError> {
    let models: Vec<_> = buildings.iter().map(|building| analyze_model(connections, building.model)).collect();
    stream::iter(models).buffer_unordered(INDEX_BUILDS_MAX).try_collect().await
}

/// Folds on threads of its own, so that a server that rebuilds goes on answering.
///
/// While others write there are fewer workers, see [`Traffic`]. The largest partitions first would end soonest, but in order is what an operator can follow; workers take the next.
async fn load(
    connections: &Connections,
    todo: BTreeMap<i32, Vec<Share>>,
    workers: usize,
    progress: &Progress,
) -> Result<(), ToolError> {
    let workers = workers.min(todo.len());
    let (options, progress) = (connections.options().clone(), progress.clone());
    let readers = u32::try_from(workers + 1).unwrap_or(u32::MAX);
    apart(workers, move || async move {
        let connections = Connections::in_the_background(&options, readers);
        let loaded = load_here(&connections, todo, workers, &progress).await;
        connections.close().await;
        loaded
    })
    .await?
}

async fn load_here(
    connections: &Connections,
    todo: BTreeMap<i32, Vec<Share>>,
    workers: usize,
    progress: &Progress,
) -> Result<(), ToolError> {
    let skips = Arc::new(Skips::read(connections.readers()).await?);
    let queue = Arc::new(Mutex::new(todo));
    let traffic = Arc::new(Traffic::watch(connections.readers().clone(), progress.clone()).await?);
    let mut running = JoinSet::new();
    for number in 0..workers {
        let (readers, writer) = (connections.readers().clone(), connections.connect().await?);
        let (skips, traffic) = (Arc::clone(&skips), Arc::clone(&traffic));
        let worker = Worker { number, traffic, readers, writer, skips };
        running.spawn(worker.work(Arc::clone(&queue), progress.clone()));
    }
    // The first failure ends the others: dropping the set aborts them, and their connections undo what was not done.
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| ToolError::Corrupt(format!("a worker ended abnormally: {error}")))??;
    }
    Ok(())
}

struct Worker {
    /// Counted from 0.
    number: usize,
    traffic: Arc<Traffic>,
    readers: PgPool,
    writer: PgConnection,
    skips: Arc<Skips>,
}

impl Worker {
    async fn work(mut self, queue: Arc<Mutex<BTreeMap<i32, Vec<Share>>>>, progress: Progress) -> Result<(), ToolError> {
        loop {
            while !queue.lock().await.is_empty() && !self.traffic.leaves_room_for(self.number).await? {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let next = queue.lock().await.pop_first();
            let Some((partition, shares)) = next else { return Ok(()) };
            self.partition(partition, &shares, &progress).await?;
        }
    }

    /// One transaction: the rows of every read model that needs the partition, and their checkpoints.
    async fn partition(&mut self, partition: i32, shares: &[Share], progress: &Progress) -> Result<(), ToolError> {
        let mut counter = progress.counter();
        let mut transaction = self.writer.begin().await?;
        // Rows and checkpoint are lost together if the machine dies, so nobody needs to wait for the disk here.
        sqlx::query("SET LOCAL synchronous_commit = off").execute(&mut *transaction).await?;
        let empty = Bulk::new(partition, Schema::Next);
        let bulk = shares.iter().fold(empty, |bulk, share| bulk.with(share.model, share.through));
        let folded = bulk.load(&self.readers, &mut transaction, &self.skips, &mut counter).await?;
        for (share, folded) in shares.iter().zip(&folded) {
            let at = VersionAt { projection: share.model.name(), version: share.version, schema: Schema::Next };
            at.move_checkpoint(&mut transaction, partition, share.through, folded).await?;
        }
        transaction.commit().await?;
        let rows: u64 = folded.iter().map(|folded| folded.rows).sum();
        tracing::debug!(partition, read_models = shares.len(), rows, "partition folded");
        Ok(())
    }
}

async fn has_keys(connection: &mut PgConnection, model: ReadModel) -> Result<bool, ToolError> {
    let Some(table) = model.tables().first() else { return Ok(true) };
    let key = format!("{}.{}_pkey", Schema::Next, table.name);
    let present: bool =
        sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(key).fetch_one(connection).await?;
    Ok(present)
}

/// Keys and indexes after the rows: sorted once instead of inserted one by one. All tables of a read model in one
/// transaction, so a resumed rebuild finds all of them or none; read models side by side.
async fn add_keys(connections: &Connections, model: ReadModel) -> Result<(), ToolError> {
    let mut connection = connections.connect().await?;
    if has_keys(&mut connection, model).await? {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    let memory = format!("SET LOCAL maintenance_work_mem = '{INDEX_BUILD_MEGABYTES}MB'");
    run_sql(&mut transaction, &memory).await?;
    for table in model.tables() {
        for statement in table.create_keys(Schema::Next) {
            run_sql(&mut transaction, &statement).await?;
        }
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}

async fn analyze_model(connections: &Connections, model: ReadModel) -> Result<(), ToolError> {
    let mut connection = connections.connect().await?;
    for table in model.tables() {
        run_sql(&mut connection, &format!("ANALYZE {}.{}", Schema::Next, table.name)).await?;
    }
    connection.close().await?;
    Ok(())
}
