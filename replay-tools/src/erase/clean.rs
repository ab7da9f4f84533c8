//! What is kept beside the log and the read models: snapshots, kept answers, and dead versions of rows.

use calos_adapters::postgres::Timestamptz;
use calos_domain::account::Account;
use calos_domain::device::Device;
use calos_domain::session::Session;
use calos_domain::{Decider, TenantId, Timestamp, UserId};

use super::Eraser;
use super::read_models::with_sealed_data;
use crate::connections::{Connections, run_sql};
use crate::error::ToolError;

/// Tables beside the read models that an erasure deletes rows of.
const SMALL_TABLES: [&str; 4] = ["public.subject_keys", "public.keyring", "public.snapshots", "public.idempotency"];

impl Eraser<'_> {
    /// Deletes the snapshots of the person's streams: they hold what was sealed for them.
    pub(super) async fn drop_snapshots(&self, user_id: UserId) -> Result<u64, ToolError> {
        // '0' follows '/': between the two is every stream under the person and none of another's.
        let deleted = sqlx::query(
            "DELETE FROM snapshots WHERE aggregate_type = ANY($1)
                 AND (aggregate_id = $2 OR aggregate_id > $3 AND aggregate_id < $4)",
        )
        .bind(vec![Account::KIND, Session::KIND, Device::KIND])
        .bind(user_id.to_string())
        .bind(format!("{user_id}/"))
        .bind(format!("{user_id}0"))
        .execute(self.owner)
        .await?;
        Ok(deleted.rows_affected())
    }

    /// Deletes the answers kept for requests the person could repeat, signing up and in included, and those of the keys of
    /// tenants nobody else belongs to: an answer can hold a session, a key, or a whole conversation. Whoever signed up with
    /// their address since is somebody else.
    pub(super) async fn delete_answers(
        &self,
        user_id: UserId,
        tenants: &[TenantId],
        erased_at: Timestamp,
    ) -> Result<u64, ToolError> {
        let callers = vec![format!("user:{user_id}"), format!("login:{user_id}")];
        let claims = self.claims(user_id).await?.into_iter().map(|hash| format!("register:{hash}"));
        let keys: Vec<String> = tenants.iter().map(|tenant| format!("key:{tenant}/%")).collect();
        let deleted = sqlx::query(
            "DELETE FROM idempotency WHERE caller = ANY($1) OR caller LIKE ANY($2)
                 OR (caller = ANY($3) AND created_at <= $4)",
        );
        let deleted = deleted.bind(callers).bind(keys).bind(claims.collect::<Vec<_>>()).bind(Timestamptz(erased_at));
        Ok(deleted.execute(self.owner).await?.rows_affected())
    }

    /// The claims the person ever held, by the hash that names each; the account itself has forgotten them.
    async fn claims(&self, user_id: UserId) -> Result<Vec<String>, ToolError> {
        let hashes = sqlx::query_scalar(
            "SELECT payload->'account_registered'->>'email_hash' FROM events
             WHERE aggregate_type = 'account' AND aggregate_id = $1 AND event_type = 'account_registered'",
        );
        let hashes: Vec<Option<String>> = hashes.bind(user_id.to_string()).fetch_all(self.owner).await?;
        Ok(hashes.into_iter().flatten().collect())
    }

    /// Removes dead versions of rows from every table that had some: until then what was deleted stands in its pages.
    /// Answers which tables those are.
    pub(super) async fn vacuum(&self) -> Result<Vec<String>, ToolError> {
        let models = with_sealed_data();
        let read = models.iter().flat_map(|model| model.tables()).map(|table| format!("read.{}", table.name));
        let tables: Vec<String> = SMALL_TABLES.iter().map(ToString::to_string).chain(read).collect();
        let connections = Connections::beside(self.owner, 1);
        let mut connection = connections.connect().await?;
        for table in &tables {
            run_sql(&mut connection, &format!("VACUUM {table}")).await?;
        }
        sqlx::Connection::close(connection).await?;
        connections.close().await;
        Ok(tables)
    }
}
