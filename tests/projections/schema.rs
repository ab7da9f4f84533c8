//! The migration's tables are the ones the projections describe.

use calos_projections::{Schema, registry};
use calos_tests::database::TestDatabase;
use sqlx::{Executor as _, PgPool};

/// Columns, keys, indexes and storage of every table of a schema, as text without the schema's name.
async fn described(pool: &PgPool, schema: Schema) -> Vec<String> {
    let mut lines: Vec<String> = sqlx::query_scalar(
        "SELECT format('%s %s %s %s not null %s', c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
             a.attnotnull)
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
         WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
         UNION ALL
         SELECT format('%s stored %s', relname, reloptions) FROM pg_class
         WHERE relnamespace = $1::regnamespace AND relkind = 'r'
         UNION ALL
         SELECT indexdef FROM pg_indexes WHERE schemaname = $1
         UNION ALL
         SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
         WHERE connamespace = $1::regnamespace AND contype <> 'n'",
    )
    .bind(schema.as_str())
    .fetch_all(pool)
    .await
    .expect("the catalogue can be read");
    for line in &mut lines {
        *line = line.replace(&format!("{schema}."), "");
    }
    lines.sort();
    lines
}

#[tokio::test]
async fn the_migrated_tables_are_those_the_projections_describe() {
    let database = TestDatabase::create().await;
    for table in registry::ALL.iter().flat_map(|projection| projection.tables()) {
        for statement in table.create(Schema::Next) {
            database.owner_pool.execute(statement.as_str()).await.expect(&statement);
        }
    }
    let migrated = described(&database.owner_pool, Schema::Live).await;
    assert!(migrated.len() > 100, "{migrated:#?}");
    assert_eq!(migrated, described(&database.owner_pool, Schema::Next).await);
}
