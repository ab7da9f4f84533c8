//! What each model is used for, by tenant: a read model of the next version of the program.

use std::collections::BTreeMap;

use calos_domain::Record;
use calos_domain::upcast::{self, Label};
use calos_domain::wallet::WalletEvent;
use calos_projections::registry::Of;
use calos_projections::{
    AnyProjection, Column, ColumnType, CopyError, CopySink, Growth, ProjectError, Projection, Schema, TableSpec, Value,
    column_names,
};
use sqlx::{Executor as _, PgConnection, PgPool};
use uuid::Uuid;

/// Uses and their price, by tenant and model.
pub struct ModelUse;

/// For a runner's options, and for the tools.
pub const MODEL_USE: &dyn AnyProjection = &Of::<ModelUse>::NEW;

const COLUMNS: [Column; 5] = [
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("model", ColumnType::Text),
    Column::new("partition", ColumnType::Integer),
    Column::new("uses", ColumnType::Bigint),
    Column::new("total", ColumnType::Bigint),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: ModelUse::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["tenant_id", "model", "partition"],
    indexes: &[],
    fillfactor: 70,
}];

#[derive(Clone, Copy, Default)]
pub struct Uses {
    partition: i32,
    uses: i64,
    total: i64,
}

impl Projection for ModelUse {
    const NAME: &'static str = "model_use";
    const GROWTH: Growth = Growth::PerKey;
    type Changes = BTreeMap<(Uuid, String), Uses>;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Self::Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        if (record.aggregate_type, record.event_type) != ("wallet", "usage_recorded") {
            return Ok(());
        }
        let event: WalletEvent = upcast::decode(Label::from(record), record.payload)?;
        let WalletEvent::UsageRecorded(usage) = event else { return Ok(()) };
        let tenant = Uuid::try_parse(record.aggregate_id);
        let tenant = tenant.map_err(|_| ProjectError::StreamId(record.aggregate_id.to_owned()))?;
        let row = changes.entry((tenant, usage.model)).or_default();
        row.partition = record.partition;
        row.uses += 1;
        row.total += usage.total.get();
        Ok(())
    }

    async fn store(changes: Self::Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let statement = schema.sql(
            "INSERT INTO {schema}.model_use AS m (tenant_id, model, partition, uses, total)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::int4[], $4::int8[], $5::int8[])
             ON CONFLICT (tenant_id, model, partition)
             DO UPDATE SET uses = m.uses + excluded.uses, total = m.total + excluded.total",
        );
        sqlx::query(&statement)
            .bind(changes.keys().map(|(tenant, _)| *tenant).collect::<Vec<_>>())
            .bind(changes.keys().map(|(_, model)| model.as_str()).collect::<Vec<_>>())
            .bind(changes.values().map(|row| row.partition).collect::<Vec<_>>())
            .bind(changes.values().map(|row| row.uses).collect::<Vec<_>>())
            .bind(changes.values().map(|row| row.total).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        Ok(())
    }

    fn copy(changes: Self::Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for ((tenant, model), row) in &changes {
            let numbers = [Value::I32(row.partition), Value::I64(row.uses), Value::I64(row.total)];
            let [partition, uses, total] = numbers;
            sink.row(Self::NAME, &[Value::Uuid(*tenant), Value::Text(model), partition, uses, total])?;
        }
        Ok(())
    }
}

impl ModelUse {
    /// Its table's columns and key as the migration made them.
    pub async fn migrated(owner: &PgPool) -> Vec<String> {
        described(owner, Schema::Live).await
    }

    /// The same as it describes them itself.
    pub async fn declared(owner: &PgPool) -> Vec<String> {
        for statement in TABLES[0].create(Schema::Old) {
            owner.execute(statement.as_str()).await.expect("the table is created");
        }
        described(owner, Schema::Old).await
    }
}

async fn described(owner: &PgPool, schema: Schema) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT format('%s %s not null %s', attname, format_type(atttypid, atttypmod), attnotnull) FROM pg_attribute
         WHERE attrelid = to_regclass($1) AND attnum > 0
         UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = to_regclass($1) AND contype = 'p'
         UNION ALL SELECT reloptions::text FROM pg_class WHERE oid = to_regclass($1)",
    )
    .bind(format!("{schema}.{}", ModelUse::NAME))
    .fetch_all(owner)
    .await
    .expect("the catalogue can be read")
}
