//! A database per test: a clone of a migrated template, dropped at the end, also when the test panics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use calos_adapters::postgres;
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};

use crate::cluster;

const TEMPLATE_PREFIX: &str = "calos_template_";
const DATABASE_PREFIX: &str = "calos_test_";
/// Templates of other migrations that are kept: other checkouts' builds of this target folder may still use them.
const OLD_TEMPLATES_KEPT: i64 = 3;
/// The advisory lock of whoever makes a template.
const TEMPLATE_LOCK: i64 = 0x7465_6D70;
const POOL_CONNECTIONS_MAX: u32 = 10;
const OWNER_POOL_CONNECTIONS_MAX: u32 = 6;

/// A database of its own for one test.
pub struct TestDatabase {
    /// The address with the owner's rights.
    pub url: String,
    /// The working pool, as `calos_app`.
    pub pool: PgPool,
    /// A pool with the owner's rights.
    pub owner_pool: PgPool,
    name: String,
    maintenance_url: String,
}

impl TestDatabase {
    /// A migrated database with the default number of partitions.
    ///
    /// # Panics
    /// When there is no PostgreSQL or a migration fails, with the reason.
    pub async fn create() -> Self {
        let maintenance_url = cluster::shared().await.url("postgres");
        let mut connection = maintenance(&maintenance_url).await;
        let template = template(&mut connection).await;
        let name = new_name();
        run(&mut connection, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        Self::open(name, maintenance_url).await
    }

    /// A database with another number of partitions; slower, since it is migrated and not cloned.
    ///
    /// # Panics
    /// As [`TestDatabase::create`].
    pub async fn with_partitions(partitions: u16) -> Self {
        let (name, maintenance_url) = Self::empty().await;
        let url = cluster::shared().await.url(&name);
        postgres::migrate(&url, Some(partitions)).await.expect("the database is migrated");
        Self::open(name, maintenance_url).await
    }

    /// The name, for tests that look at the cluster's databases.
    pub fn name(&self) -> &str {
        &self.name
    }

    async fn empty() -> (String, String) {
        let maintenance_url = cluster::shared().await.url("postgres");
        let name = new_name();
        run(&mut maintenance(&maintenance_url).await, &format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        (name, maintenance_url)
    }

    async fn open(name: String, maintenance_url: String) -> Self {
        let url = cluster::shared().await.url(&name);
        let pool = postgres::connect(&url, POOL_CONNECTIONS_MAX).await.expect("the working pool opens");
        let owner_pool =
            postgres::connect_owner(&url, OWNER_POOL_CONNECTIONS_MAX).await.expect("the owner's pool opens");
        Self { url, pool, owner_pool, name, maintenance_url }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let url = self.maintenance_url.clone();
        // A thread with a runtime of its own: the test's runtime may be the one that is dropping us.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut connection = postgres::connect_one(&url).await?;
                connection.execute(statement.as_str()).await?;
                connection.close().await
            })
        })
        .join();
        match dropped {
            Ok(Ok(())) => {}
            failed if std::thread::panicking() => eprintln!("the test's database could not be dropped: {failed:?}"),
            failed => panic!("the test's database could not be dropped: {failed:?}"),
        }
    }
}

/// A connection to the cluster; the first of a process also removes what killed tests left behind.
async fn maintenance(url: &str) -> PgConnection {
    static SWEPT: AtomicBool = AtomicBool::new(false);
    let mut connection = postgres::connect_one(url).await.expect("the tests' PostgreSQL answers");
    if !SWEPT.swap(true, Ordering::Relaxed) {
        sweep(&mut connection).await;
    }
    connection
}

/// Drops the databases of tests whose process is gone.
///
/// # Panics
/// When the databases cannot be listed.
pub async fn sweep(connection: &mut PgConnection) {
    let names: Vec<String> = sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE starts_with(datname, $1)")
        .bind(DATABASE_PREFIX)
        .fetch_all(&mut *connection)
        .await
        .expect("the databases are listed");
    for name in names {
        let process = name[DATABASE_PREFIX.len()..].split('_').next().and_then(|pid| pid.parse().ok());
        let alive = process
            .and_then(rustix::process::Pid::from_raw)
            .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
        if !alive {
            // Another test may be sweeping the same one: whoever comes second finds nothing, which is as good.
            let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            if let Err(error) = connection.execute(statement.as_str()).await {
                eprintln!("the leftover database {name} was not dropped: {error}");
            }
        }
    }
}

/// The name of the template of this program's migrations, made by the first test that needs it.
async fn template(connection: &mut PgConnection) -> String {
    let name = format!("{TEMPLATE_PREFIX}{}", postgres::fingerprint());
    if exists(connection, &name).await {
        return name;
    }
    sqlx::query("SELECT pg_advisory_lock($1)").bind(TEMPLATE_LOCK).execute(&mut *connection).await.expect("the lock");
    if !exists(connection, &name).await {
        let draft = format!("{name}_draft");
        run(connection, &format!("DROP DATABASE IF EXISTS {draft} WITH (FORCE)")).await;
        run(connection, &format!("CREATE DATABASE {draft} TEMPLATE template0")).await;
        let url = cluster::shared().await.url(&draft);
        postgres::migrate(&url, None).await.expect("the template is migrated");
        run(connection, &format!("ALTER DATABASE {draft} WITH ALLOW_CONNECTIONS false")).await;
        run(connection, &format!("ALTER DATABASE {draft} RENAME TO {name}")).await;
        remove_old_templates(connection, &name).await;
    }
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(TEMPLATE_LOCK).execute(connection).await.expect("the unlock");
    name
}

async fn remove_old_templates(connection: &mut PgConnection, current: &str) {
    let old: Vec<String> = sqlx::query_scalar(
        "SELECT datname::text FROM pg_database WHERE starts_with(datname, $1) AND datname <> $2 ORDER BY oid DESC OFFSET $3",
    )
    .bind(TEMPLATE_PREFIX)
    .bind(current)
    .bind(OLD_TEMPLATES_KEPT)
    .fetch_all(&mut *connection)
    .await
    .expect("the templates are listed");
    for name in old {
        run(connection, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
    }
}

async fn exists(connection: &mut PgConnection, name: &str) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(connection)
        .await
        .expect("the databases are listed")
}

async fn run(connection: &mut PgConnection, statement: &str) {
    if let Err(error) = connection.execute(statement).await {
        panic!("{statement}: {error}");
    }
}

/// A name that says which process to ask about before sweeping it.
fn new_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{DATABASE_PREFIX}{}_{number}_{}", std::process::id(), &random[..8])
}
