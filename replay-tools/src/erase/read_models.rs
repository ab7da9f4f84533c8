//! Read models that hold sealed data: brought past the erasure, and their other versions dropped.

use std::time::Duration;

use calos_projections::runner::CatchUpError;
use calos_projections::{Runner, RunnerOptions, Schema, checkpoint, registry};
use sqlx::Connection as _;
use tokio::time::Instant;

use calos_domain::UserId;

use super::Eraser;
use crate::connections::{Connections, run_sql};
use crate::error::ToolError;
use crate::fold::ReadModel;
use crate::versions::{heads_of, versions};

/// What a column that holds sealed data is called.
const SEALED: &str = "_sealed";

/// How long a read model that another process works on may take to follow.
const FOLLOW_MAX: Duration = Duration::from_secs(60);

/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long locks of readers are waited for; the same command can then be repeated.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '15s'";

/// The read models that hold sealed data.
pub(super) fn with_sealed_data() -> Vec<ReadModel> {
    let holds = |model: &ReadModel| {
        model.tables().iter().flat_map(|table| table.columns).any(|column| column.name.ends_with(SEALED))
    };
    registry::ALL.iter().copied().filter(holds).collect()
}

impl Eraser<'_> {
    /// Brings them to the head of the person's partition, whoever does the work, and looks whether that has helped.
    pub(super) async fn bring_read_models_up(&self, user_id: UserId) -> Result<(), ToolError> {
        let partition = self.log.partition_of(&user_id.to_string());
        let wanted = heads_of(self.owner).await?.get(&partition).copied().unwrap_or_default();
        let models = with_sealed_data();
        let deadline = Instant::now() + FOLLOW_MAX;
        loop {
            let options = RunnerOptions { projections: models.clone(), ..RunnerOptions::default() };
            Runner::catch_up(self.owner.clone(), options).await.map_err(|error| match error {
                CatchUpError::Database(error) => ToolError::Database(error),
                error @ CatchUpError::Store { .. } => ToolError::Environment(error.to_string()),
            })?;
            let mut behind = Vec::new();
            for model in &models {
                let positions = checkpoint::positions(self.owner, model.name()).await?;
                if positions.get(&partition).copied().unwrap_or_default() < wanted {
                    behind.push(model.name());
                }
            }
            if behind.is_empty() {
                return self.rows_are_gone(user_id).await;
            }
            if Instant::now() >= deadline {
                return Err(ToolError::Environment(format!(
                    "the account is closed and its key destroyed, but {} does not follow the log; see `calos-replay status`, \
                     and then run the same command again",
                    behind.join(" and ")
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A read model that set the erasure aside as a dead letter still has the rows, though it has passed it.
    async fn rows_are_gone(&self, user_id: UserId) -> Result<(), ToolError> {
        let left: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM read.accounts WHERE user_id = $1)
                 + (SELECT count(*) FROM read.sessions
                    WHERE user_id = $1 AND (address_sealed IS NOT NULL OR user_agent_sealed IS NOT NULL))",
        )
        .bind(user_id.0)
        .fetch_one(self.owner)
        .await?;
        if left == 0 {
            return Ok(());
        }
        Err(ToolError::Environment(format!(
            "the account is closed and its key destroyed, but {left} rows of accounts and sessions still hold sealed data; \
             see `calos-replay dead-letters list`, and then run the same command again"
        )))
    }

    /// Drops the versions before the live ones, which nobody keeps up, and unfinished ones, which a rebuild begins anew.
    /// Answers how many tables went.
    pub(super) async fn drop_old_versions(&self) -> Result<u64, ToolError> {
        let connections = Connections::beside(self.owner, 1);
        let mut connection = connections.connect().await?;
        let mut dropped = 0;
        for model in with_sealed_data() {
            let name = model.name();
            let mut transaction = connection.begin().await?;
            run_sql(&mut transaction, LOCK_TIMEOUT).await?;
            let known = versions(&mut transaction, name, true).await?;
            for table in model.tables() {
                for schema in [Schema::Old, Schema::Next] {
                    let place = format!("{schema}.{}", table.name);
                    let there = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(&place);
                    let there: bool = there.fetch_one(&mut *transaction).await?;
                    if there {
                        run_sql(&mut transaction, &format!("DROP TABLE {place}")).await?;
                        dropped += 1;
                    }
                }
            }
            for statement in [
                "DELETE FROM checkpoints WHERE projection = $1 AND version <> $2",
                "DELETE FROM dead_letters WHERE projection = $1 AND version <> $2",
                "UPDATE projections SET building_version = NULL, building_fold = NULL WHERE name = $1 AND live_version = $2",
            ] {
                sqlx::query(statement).bind(name).bind(known.live).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        }
        connection.close().await?;
        connections.close().await;
        Ok(dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_read_models_with_sealed_data_are_those_of_people() {
        let names: Vec<&str> = with_sealed_data().iter().map(|model| model.name()).collect();
        assert_eq!(names, ["accounts", "sessions"], "another one has to be looked at in `rows_are_gone` too");
    }
}
