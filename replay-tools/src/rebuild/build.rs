//! The bulk of a rebuild: partitions folded in parallel, each partition's rows and checkpoint in one transaction.

use std::collections::VecDeque;
use std::sync::Arc;

use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use calos_projections::Schema;

use super::Building;
use crate::connections::{Connections, run_sql};
use crate::error::ToolError;
use crate::fold::{PartitionFold, ReadModel, VersionAt};
use crate::progress::Progress;
use crate::versions::{Vector, at_most, heads, positions};

/// Memory one index build may use.
const INDEX_BUILD_MEGABYTES: u32 = 256;

/// Folds every partition that has not been folded yet as far as the live version has read, then adds the keys.
pub(super) async fn build(
    connections: &Connections,
    operator: &mut PgConnection,
    model: ReadModel,
    building: &Building,
    workers: usize,
    progress: &Progress,
) -> Result<(), ToolError> {
    let live = positions(operator, model.name(), building.live).await?;
    let target = at_most(&live, &heads(operator).await?);
    let unfinished = |partition: &i32| building.reached.get(partition).is_none_or(|&position| position == 0);
    let todo: Vector =
        target.into_iter().filter(|(partition, through)| unfinished(partition) && *through > 0).collect();
    if !todo.is_empty() && has_keys(operator, model).await? {
        // Partitions are only missing now because they were empty before: few events, so the keys may stay.
        tracing::debug!(projection = model.name(), "loading into tables that have their keys already");
    }
    load(connections, model, building.version, todo, workers, progress).await?;
    add_keys(operator, model).await
}

/// The largest partitions first would end soonest, but in order is what an operator can follow; workers take the next.
async fn load(
    connections: &Connections,
    model: ReadModel,
    version: i32,
    todo: Vector,
    workers: usize,
    progress: &Progress,
) -> Result<(), ToolError> {
    let workers = workers.min(todo.len());
    let queue: Arc<Mutex<VecDeque<(i32, i64)>>> = Arc::new(Mutex::new(todo.into_iter().collect()));
    let mut running = JoinSet::new();
    for _ in 0..workers {
        let writer = connections.connect().await?;
        let worker = Worker { model, version, readers: connections.readers().clone(), writer };
        running.spawn(worker.work(Arc::clone(&queue), progress.clone()));
    }
    // The first failure ends the others: dropping the set aborts them, and their connections undo what was not done.
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| ToolError::Corrupt(format!("a worker ended abnormally: {error}")))??;
    }
    Ok(())
}

struct Worker {
    model: ReadModel,
    version: i32,
    readers: PgPool,
    writer: PgConnection,
}

impl Worker {
    async fn work(mut self, queue: Arc<Mutex<VecDeque<(i32, i64)>>>, progress: Progress) -> Result<(), ToolError> {
        loop {
            let next = queue.lock().await.pop_front();
            let Some((partition, through)) = next else { return Ok(()) };
            self.partition(partition, through, &progress).await?;
        }
    }

    async fn partition(&mut self, partition: i32, through: i64, progress: &Progress) -> Result<(), ToolError> {
        let at = VersionAt { projection: self.model.name(), version: self.version, schema: Schema::Next };
        let mut counter = progress.counter();
        let mut transaction = self.writer.begin().await?;
        // Rows and checkpoint are lost together if the machine dies, so nobody needs to wait for the disk here.
        sqlx::query("SET LOCAL synchronous_commit = off").execute(&mut *transaction).await?;
        let fold = PartitionFold::new(self.model, partition);
        let loaded = fold.load(&self.readers, &mut transaction, at.schema, through, &mut counter).await?;
        at.move_checkpoint(&mut transaction, partition, through, &loaded).await?;
        transaction.commit().await?;
        tracing::debug!(projection = at.projection, partition, through, rows = loaded.rows, "partition folded");
        Ok(())
    }
}

async fn has_keys(operator: &mut PgConnection, model: ReadModel) -> Result<bool, ToolError> {
    let Some(table) = model.tables().first() else { return Ok(true) };
    let key = format!("{}.{}_pkey", Schema::Next, table.name);
    let present: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(key).fetch_one(operator).await?;
    Ok(present)
}

/// Keys and indexes after the rows: sorted once instead of inserted one by one. All tables in one transaction, so a
/// resumed rebuild finds all of them or none.
async fn add_keys(operator: &mut PgConnection, model: ReadModel) -> Result<(), ToolError> {
    if has_keys(operator, model).await? {
        return Ok(());
    }
    let mut transaction = operator.begin().await?;
    let memory = format!("SET LOCAL maintenance_work_mem = '{INDEX_BUILD_MEGABYTES}MB'");
    run_sql(&mut transaction, &memory).await?;
    for table in model.tables() {
        for statement in table.create_keys(Schema::Next) {
            run_sql(&mut transaction, &statement).await?;
        }
        run_sql(&mut transaction, &format!("ANALYZE {}.{}", Schema::Next, table.name)).await?;
    }
    transaction.commit().await?;
    Ok(())
}
