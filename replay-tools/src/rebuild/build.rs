//! The bulk of a rebuild: partitions folded in parallel, each partition's rows and checkpoint in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use sqlx::{Connection, PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use calos_projections::{Growth, Schema};

use super::{Building, sweep};
use crate::background::apart;
use crate::bulk::Bulk;
use crate::connections::{Connections, run_sql};
use crate::error::ToolError;
use crate::fold::{PartitionFold, ReadModel, VersionAt};
use crate::progress::{Counter, Progress};
use crate::skips::Skips;
use crate::traffic::{LOOK_EVERY, Traffic};
use crate::versions::{Vector, at_most, heads, lag_events, positions};

/// Memory one index build may use: a quarter of PostgreSQL's own cache, which follows the machine's, between 256 MiB and 1 GiB.
/// Keys that fit are sorted once and never written out for it.
const INDEX_BUILD_MEMORY: &str = "SELECT set_config('maintenance_work_mem',
    least(greatest(pg_size_bytes(current_setting('shared_buffers')) / 4, 256 * 1024 * 1024), 1024 * 1024 * 1024) / 1024 || 'kB', true)";

/// PostgreSQL's parallel workers do not have our low priority: they may help where nobody else is busy.
const WITH_HELP: &str = "SET LOCAL max_parallel_maintenance_workers TO DEFAULT";

/// Read models whose keys are built at the same time.
const INDEX_BUILDS_MAX: usize = 2;

/// What is added to the log while a version is made is read in rounds like its bulk, until so little is missing, and not for ever.
const READ_ON_REST_EVENTS: u64 = 20_000;
const READ_ON_ROUNDS_MAX: u32 = 5;

/// Events folded at once while others write: what came of them is then committed.
pub(super) const PIECE_EVENTS: i64 = 2_000;

/// A read model's share of a partition: the version to load, from where, and how far.
#[derive(Clone, Copy)]
pub(super) struct Share {
    model: ReadModel,
    version: i32,
    pub(super) after: i64,
    pub(super) through: i64,
}

impl Share {
    /// Positions `after + 1 ..= through` of a version of a read model.
    pub(super) fn new(model: ReadModel, version: i32, after: i64, through: i64) -> Self {
        Self { model, version, after, through }
    }

    pub(super) fn growth(&self) -> Growth {
        self.model.growth()
    }

    fn at(&self) -> VersionAt<'static> {
        VersionAt { projection: self.model.name(), version: self.version, schema: Schema::Next }
    }
}

/// Folds every partition up to `until`, or as far as the live versions have read, wherever that has not been done yet.
/// A partition that several read models need is read once for all of them.
pub(super) async fn load_all(
    connections: &Connections,
    operator: &mut PgConnection,
    buildings: &[Building],
    until: Option<&Vector>,
    workers: usize,
    progress: &Progress,
) -> Result<(), ToolError> {
    let mut todo = Todo::new();
    for building in buildings {
        let target = match until {
            Some(until) => until.clone(),
            None => positions(operator, building.model.name(), building.live).await?,
        };
        add(&mut todo, building, &building.reached, &at_most(&target, &heads(operator).await?));
    }
    load(connections, todo, workers, progress).await
}

/// How many versions are completed at once: all of them, unless others write. Then each takes its place before the next one is
/// begun with, because one that has its keys and waits for its turn falls behind faster than it can catch up again.
pub(super) async fn at_once(connections: &Connections, all: usize, progress: &Progress) -> Result<usize, ToolError> {
    let traffic = Traffic::watch(connections.readers().clone(), progress.clone()).await?;
    Ok(if traffic.is_there().await? { 1 } else { all.max(1) })
}

/// Makes versions whose rows are loaded fit to be compared: with what was added to the log meanwhile, keys, and the statistics by
/// which the comparison and the first readers are planned. With `until` they stay at the positions they have. Answers when every
/// row and every key stood, since the beginning.
pub(super) async fn complete(
    connections: &Connections,
    operator: &mut PgConnection,
    buildings: &[Building],
    until: Option<&Vector>,
    workers: usize,
    progress: &Progress,
) -> Result<Duration, ToolError> {
    if until.is_none() {
        read_on(connections, operator, buildings, workers, progress).await?;
    }
    progress.step("building keys");
    let traffic = Traffic::watch(connections.readers().clone(), progress.clone()).await?;
    let keys: Vec<_> = buildings.iter().map(|building| add_keys(connections, building.model, &traffic)).collect();
    stream::iter(keys).buffer_unordered(INDEX_BUILDS_MAX).try_collect::<()>().await?;
    let stood = progress.elapsed();
    progress.step("gathering statistics");
    let models: Vec<_> = buildings.iter().map(|building| analyze_model(connections, building.model)).collect();
    stream::iter(models).buffer_unordered(INDEX_BUILDS_MAX).try_collect::<()>().await?;
    Ok(stood)
}

/// Rounds of reading what was added to the log meanwhile, while there are no keys yet: without them rows are loaded several times as
/// fast.
async fn read_on(
    connections: &Connections,
    operator: &mut PgConnection,
    buildings: &[Building],
    workers: usize,
    progress: &Progress,
) -> Result<(), ToolError> {
    for _ in 0..READ_ON_ROUNDS_MAX {
        let mut todo = Todo::new();
        let mut left = 0;
        for building in buildings.iter().filter(|building| building.model.growth() == Growth::PerEvent) {
            let name = building.model.name();
            let live = positions(operator, name, building.live).await?;
            let target = at_most(&live, &heads(operator).await?);
            let reached = positions(operator, name, building.version).await?;
            left = left.max(lag_events(&reached, &target));
            add(&mut todo, building, &reached, &target);
        }
        if left <= READ_ON_REST_EVENTS {
            return Ok(());
        }
        progress.step("reading on");
        progress.left(left);
        load(connections, todo, workers, progress).await?;
    }
    Ok(())
}

/// What is to be read, by partition.
pub(super) type Todo = BTreeMap<i32, Vec<Share>>;

/// Adds what a version at `reached` lacks of `target`.
fn add(todo: &mut Todo, building: &Building, reached: &Vector, target: &Vector) {
    let Building { model, version, .. } = *building;
    for (&partition, &through) in target {
        let after = reached.get(&partition).copied().unwrap_or_default();
        // What was begun of a row per key is finished; the rest of it comes on top, when it is caught up with.
        let can_go_on = after == 0 || model.growth() == Growth::PerEvent;
        if can_go_on && after < through {
            todo.entry(partition).or_default().push(Share::new(model, version, after, through));
        }
    }
}

/// Folds on threads of its own, so that a server that rebuilds goes on answering.
///
/// While others write there are fewer workers, see [`Traffic`]. The largest partitions first would end soonest, but in order is what an operator can follow; workers take the next.
async fn load(connections: &Connections, todo: Todo, workers: usize, progress: &Progress) -> Result<(), ToolError> {
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
    todo: Todo,
    workers: usize,
    progress: &Progress,
) -> Result<(), ToolError> {
    if sweep::pays(connections.readers(), &todo).await? {
        return sweep::load(connections, todo, workers, progress).await;
    }
    let skips = Arc::new(Skips::read(connections.readers()).await?);
    let queue = Arc::new(Mutex::new(todo));
    let traffic = Arc::new(Traffic::watch(connections.readers().clone(), progress.clone()).await?);
    let mut running = JoinSet::new();
    for number in 0..workers {
        let (readers, writer) = (connections.readers().clone(), connections.connect_to_write().await?);
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
    async fn work(mut self, queue: Arc<Mutex<Todo>>, progress: Progress) -> Result<(), ToolError> {
        loop {
            while !queue.lock().await.is_empty() && !self.traffic.leaves_room_for(self.number).await? {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let next = queue.lock().await.pop_first();
            let Some((partition, shares)) = next else { return Ok(()) };
            self.partition(partition, &shares, &progress).await?;
        }
    }

    async fn partition(&mut self, partition: i32, shares: &[Share], progress: &Progress) -> Result<(), ToolError> {
        let Self { traffic, readers, writer, skips, .. } = self;
        let bulk = bulk(partition, shares, skips, writer).await?;
        let counter = &mut progress.counter();
        read_to_the_end(partition, bulk, shares, Reading { traffic, readers, writer, counter }).await
    }
}

/// What a partition is read with.
pub(super) struct Reading<'a> {
    pub(super) traffic: &'a Traffic,
    pub(super) readers: &'a PgPool,
    pub(super) writer: &'a mut PgConnection,
    pub(super) counter: &'a mut Counter,
}

/// What is left of a partition, by its index: the rows of every read model that needs it, and their checkpoints, in one
/// transaction while nobody else writes. Beside others it is done in pieces. What has a row per event is committed with each
/// of them, because PostgreSQL keeps whatever others change for as long as a transaction is open, and they would have to
/// walk past it.
pub(super) async fn read_to_the_end(
    partition: i32,
    mut bulk: Bulk,
    shares: &[Share],
    with: Reading<'_>,
) -> Result<(), ToolError> {
    let Reading { traffic, readers, writer, counter } = with;
    let mut transaction = begin_lazily(writer).await?;
    loop {
        let in_pieces = traffic.is_there().await?;
        let at_most = in_pieces.then_some(PIECE_EVENTS);
        if !bulk.step(at_most, readers, &mut transaction, counter).await? {
            break;
        }
        if in_pieces {
            settle(partition, &mut bulk, shares, &mut transaction).await?;
            transaction.commit().await?;
            transaction = begin_lazily(writer).await?;
        }
    }
    let folded = bulk.finish(&mut transaction).await?;
    for (share, folded) in shares.iter().zip(&folded) {
        share.at().move_checkpoint(&mut transaction, partition, share.through, folded).await?;
    }
    transaction.commit().await?;
    let rows: u64 = folded.iter().map(|folded| folded.rows).sum();
    tracing::debug!(partition, read_models = shares.len(), rows, "partition folded");
    Ok(())
}

/// A partition with all its shares, each going on from where it is.
pub(super) async fn bulk(
    partition: i32,
    shares: &[Share],
    skips: &Skips,
    connection: &mut PgConnection,
) -> Result<Bulk, ToolError> {
    let mut bulk = Bulk::new(partition, Schema::Next);
    for share in shares {
        bulk = share.joins(bulk, partition, skips, connection).await?;
    }
    Ok(bulk)
}

/// Makes what was read so far of rows per event fit to be committed.
pub(super) async fn settle(
    partition: i32,
    bulk: &mut Bulk,
    shares: &[Share],
    writer: &mut PgConnection,
) -> Result<(), ToolError> {
    for settled in bulk.settle(writer).await? {
        shares[settled.share].at().move_checkpoint(writer, partition, settled.position, &settled.folded).await?;
    }
    Ok(())
}

impl Share {
    /// Takes part in the reading of a partition.
    async fn joins(
        self,
        bulk: Bulk,
        partition: i32,
        skips: &Skips,
        connection: &mut PgConnection,
    ) -> Result<Bulk, ToolError> {
        if self.after == 0 {
            return Ok(bulk.with(self.model, self.through, skips));
        }
        let mut fold = PartitionFold::new(self.model, partition);
        fold.leave_out(skips);
        fold.go_on(&self.at(), connection).await?;
        Ok(bulk.going_on(fold, self.model, self.after, self.through))
    }
}

/// A transaction whose end waits for no disk: rows and checkpoint are lost together if the machine dies.
pub(super) async fn begin_lazily(connection: &mut PgConnection) -> Result<Transaction<'_, Postgres>, ToolError> {
    let mut transaction = connection.begin().await?;
    run_sql(&mut transaction, "SET LOCAL synchronous_commit = off").await?;
    Ok(transaction)
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
async fn add_keys(connections: &Connections, model: ReadModel, traffic: &Traffic) -> Result<(), ToolError> {
    let mut connection = connections.connect().await?;
    if has_keys(&mut connection, model).await? {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    run_sql(&mut transaction, INDEX_BUILD_MEMORY).await?;
    if !traffic.is_there().await? {
        run_sql(&mut transaction, WITH_HELP).await?;
    }
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
