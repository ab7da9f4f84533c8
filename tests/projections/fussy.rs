//! A read model that a test can make refuse an event, and take it later.

use std::sync::atomic::{AtomicBool, Ordering};

use calos_domain::Record;
use calos_projections::registry::Of;
use calos_projections::{
    AnyProjection, Column, ColumnType, CopyError, CopySink, Growth, ProjectError, Projection, Schema, TableSpec, Value,
    column_names,
};
use sqlx::{Executor as _, PgConnection, PgPool};
use tokio::sync::Mutex;

/// Whether it takes everything.
pub static TAKES_ALL: AtomicBool = AtomicBool::new(true);

/// Whoever changes [`TAKES_ALL`] holds this: tests may share a process.
pub static TURN: Mutex<()> = Mutex::const_new(());

/// One row per event, with its stream and its place in it. Events of the type `poison` are refused by the fold, those of the type `bitter` by
/// the table, while [`TAKES_ALL`] is off.
pub struct Fussy;

/// For a runner's options.
pub const FUSSY: &dyn AnyProjection = &Of::<Fussy>::NEW;

const COLUMNS: [Column; 4] = [
    Column::new("partition", ColumnType::Integer),
    Column::new("position", ColumnType::Bigint),
    Column::new("stream", ColumnType::Text),
    Column::new("sequence", ColumnType::Bigint),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: "fussy",
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["partition", "position"],
    indexes: &[],
    fillfactor: 100,
}];

impl Projection for Fussy {
    const NAME: &'static str = "fussy";
    const GROWTH: Growth = Growth::PerEvent;
    type Changes = Vec<(i32, i64, String, i64)>;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Self::Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        let takes_all = TAKES_ALL.load(Ordering::SeqCst);
        if record.event_type == "poison" && !takes_all {
            return Err(ProjectError::Payload("it is poisoned".to_owned()));
        }
        // PostgreSQL keeps no NUL in a text.
        let bitter = record.event_type == "bitter" && !takes_all;
        let stream = if bitter { "\0".to_owned() } else { record.aggregate_id.to_owned() };
        changes.push((record.partition, record.position, stream, record.sequence));
        Ok(())
    }

    async fn store(changes: Self::Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        for (partition, position, stream, sequence) in changes {
            let statement = schema.sql("INSERT INTO {schema}.fussy VALUES ($1, $2, $3, $4)");
            let query = sqlx::query(&statement).bind(partition).bind(position).bind(stream).bind(sequence);
            query.execute(&mut *connection).await?;
        }
        Ok(())
    }

    fn copy(changes: Self::Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for (partition, position, stream, sequence) in changes {
            let row = [Value::I32(partition), Value::I64(position), Value::Text(&stream), Value::I64(sequence)];
            sink.row(Self::NAME, &row)?;
        }
        Ok(())
    }
}

/// Creates its live table.
pub async fn create_table(owner: &PgPool) {
    for statement in TABLES[0].create(Schema::Live) {
        owner.execute(statement.as_str()).await.expect("the table is created");
    }
}
