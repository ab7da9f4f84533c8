//! `erase`: a person goes, and the log stays as it is.
//!
//! What is personal is sealed under the person's own key, so destroying that key makes it unreadable wherever it stands: in
//! the log, in exports, in copies. The order is the safety, and each step may be done again. First it is noted outside the
//! database, so that no restore brings the key back; then the log says so, which closes the account; then the key goes; and
//! last whatever was made from sealed data is put right or dropped. Killed at any point, the same command finishes it.

mod clean;
mod person;
mod read_models;

use std::path::Path;

use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use calos_adapters::erasures::{self, Erasure};
use calos_adapters::postgres::PgLog;
use calos_adapters::secrets::Secrets;
use calos_commands::erasure;
use calos_commands::fault::Fault;
use calos_commands::ports::SealError;
use calos_domain::operation::RunBy;
use calos_domain::{SubjectId, TenantId, Timestamp, UserId};

use crate::error::ToolError;
use crate::operation::now;
use crate::turn::{Deed, Reach, Turn};
use crate::write_guard::Confirmed;

pub use person::{Person, Who};

/// What an erasure works with.
#[derive(Clone, Copy)]
pub struct Eraser<'a> {
    /// The database, as the owner of its tables.
    pub owner: &'a PgPool,
    /// The log.
    pub log: &'a PgLog,
    /// The keys.
    pub secrets: &'a Secrets,
    /// Where it is noted outside the database: the folder of the anchors.
    pub directory: &'a Path,
    /// Who and why.
    pub run: &'a RunBy,
}

/// What an erasure did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Erased {
    /// Whose data it was: the person's random id, which is all that is left of them.
    pub subject: Uuid,
    /// When the account was closed, in microseconds since 1970.
    pub erased_at: i64,
    /// Whether that had happened before this run.
    pub already: bool,
    /// Whether their data key was there, and is destroyed.
    pub key_destroyed: bool,
    /// Sessions that stood.
    pub sessions_ended: u64,
    /// Devices that were trusted.
    pub devices_revoked: u64,
    /// API keys of tenants nobody else belongs to.
    pub api_keys_revoked: u64,
    /// Provider keys of tenants nobody else belongs to, deleted.
    pub provider_keys_removed: u64,
    /// Tenants of others they were taken out of.
    pub tenants_left: u64,
    /// Tenants of others that have no other owner: their membership stays there.
    pub tenants_without_owner: Vec<Uuid>,
    /// Older and unfinished versions of read models that were dropped.
    pub old_versions_dropped: u64,
    /// Snapshots of their streams that were deleted.
    pub snapshots_dropped: u64,
    /// Answers kept for repeated requests that were deleted.
    pub answers_deleted: u64,
    /// Tables whose dead rows were removed.
    pub vacuumed: Vec<String>,
}

impl Erased {
    /// Whether this run found anything to do.
    #[must_use]
    pub fn changed_something(&self) -> bool {
        let counted = [
            self.sessions_ended,
            self.devices_revoked,
            self.api_keys_revoked,
            self.provider_keys_removed,
            self.tenants_left,
            self.old_versions_dropped,
            self.snapshots_dropped,
            self.answers_deleted,
        ];
        !self.already || self.key_destroyed || counted.iter().any(|count| *count > 0)
    }
}

impl Eraser<'_> {
    /// Erases a person, or finishes what an erasure that was interrupted began. Works beside running servers, which follow
    /// within a second.
    ///
    /// # Errors
    /// [`ToolError::Busy`] while another operator is at work; [`ToolError::Refused`] for somebody who never registered,
    /// with nothing changed; otherwise what stopped it: the same command goes on from there.
    pub async fn erase(&self, user_id: UserId, _confirmed: &Confirmed) -> Result<Erased, ToolError> {
        let turn = Turn::take(self.owner, Deed::Erase, self.run, Reach::WholeLog).await?;
        self.registered(user_id).await?;
        self.note_outside(user_id).await?;
        let mut erased = self.close(user_id).await?;
        self.destroy_key(user_id, &mut erased).await?;
        self.end_rest(user_id, &mut erased).await?;
        self.clean_up(user_id, &mut erased).await?;
        turn.end().await?;
        Ok(erased)
    }

    /// Erases again, in a log that was put back, whoever was erased since: their keys are not here, and now the log says
    /// why. Answers how many there were. The caller has the log to itself.
    ///
    /// # Errors
    /// As [`Self::erase`]; the list's.
    pub async fn erase_again(&self) -> Result<u64, ToolError> {
        let mut again = 0;
        for subject in erasures::read(self.directory, self.log_id().await?).map_err(unreadable)? {
            let user_id = UserId(subject);
            let account = self.account(user_id).await?;
            if account.profile.is_none() {
                continue;
            }
            // A run records one erasure, so each has a run of its own.
            let run = RunBy { operation_id: calos_domain::OperationId(Uuid::now_v7()), ..self.run.clone() };
            let eraser = Eraser { run: &run, ..*self };
            let mut erased = eraser.close(user_id).await?;
            eraser.destroy_key(user_id, &mut erased).await?;
            eraser.end_rest(user_id, &mut erased).await?;
            // A backup brings kept answers back; read models take the facts by themselves.
            let tenants = self.own_tenants(user_id).await?;
            eraser.delete_answers(user_id, &tenants, Timestamp::from_micros(erased.erased_at)).await?;
            again += 1;
        }
        Ok(again)
    }

    /// First: the list outside the database, which a restore reads before it puts keys back.
    ///
    /// # Errors
    /// The file's.
    pub async fn note_outside(&self, user_id: UserId) -> Result<(), ToolError> {
        let log_id = self.log_id().await?;
        if erasures::read(self.directory, log_id).map_err(unreadable)?.contains(&user_id.0) {
            return Ok(());
        }
        let erasure = Erasure { subject: SubjectId(user_id.0), log_id, erased_at: now() };
        erasures::keep(self.directory, &erasure).map_err(unreadable)
    }

    /// Second: the facts, in one append. The account takes nothing from then on, and its address can be registered anew.
    ///
    /// # Errors
    /// [`ToolError::Refused`] for somebody who never registered; the log's.
    pub async fn close(&self, user_id: UserId) -> Result<Erased, ToolError> {
        let signed_in = self.signed_in(user_id).await?;
        let first = signed_in.into_iter().next().unwrap_or_default();
        let at = now();
        let done = erasure::close(self.log, user_id, &first, self.run, at).await.map_err(of_fault)?;
        let (already, ended) = (done.answer.is_none(), done.answer.unwrap_or_default());
        let closed = self.account(user_id).await?.erased;
        Ok(Erased {
            subject: user_id.0,
            erased_at: closed.map_or(at, |closed| closed.erased_at).micros(),
            already,
            sessions_ended: ended.sessions,
            devices_revoked: ended.devices,
            ..Erased::default()
        })
    }

    /// Third: the data key. What was sealed under it opens for nobody any more.
    ///
    /// # Errors
    /// The database's.
    pub async fn destroy_key(&self, user_id: UserId, erased: &mut Erased) -> Result<(), ToolError> {
        erased.key_destroyed =
            self.secrets.subject_keys().erase(SubjectId(user_id.0)).await.map_err(|error| of_seal(&error))?;
        Ok(())
    }

    /// Last: read models without what was sealed, and nothing left of it in what is kept beside them.
    ///
    /// # Errors
    /// [`ToolError::Environment`] when a read model does not follow; the database's.
    pub async fn clean_up(&self, user_id: UserId, erased: &mut Erased) -> Result<(), ToolError> {
        self.bring_read_models_up(user_id).await?;
        erased.old_versions_dropped = self.drop_old_versions().await?;
        erased.snapshots_dropped = self.drop_snapshots(user_id).await?;
        let alone = self.own_tenants(user_id).await?;
        let erased_at = Timestamp::from_micros(erased.erased_at);
        erased.answers_deleted = self.delete_answers(user_id, &alone, erased_at).await?;
        erased.vacuumed = self.vacuum().await?;
        Ok(())
    }

    async fn log_id(&self) -> Result<Uuid, ToolError> {
        Ok(sqlx::query_scalar("SELECT log_id FROM log").fetch_one(self.owner).await?)
    }

    async fn own_tenants(&self, user_id: UserId) -> Result<Vec<TenantId>, ToolError> {
        let account = self.account(user_id).await?;
        let personal = account.erased.and_then(|erased| erased.personal_tenant_id);
        Ok(personal.into_iter().chain(account.founded).collect())
    }
}

/// What the list outside the database says of itself.
fn unreadable(error: erasures::ErasureError) -> ToolError {
    match error {
        error @ erasures::ErasureError::File { .. } => ToolError::Environment(error.to_string()),
        error @ erasures::ErasureError::Unreadable { .. } => ToolError::Corrupt(error.to_string()),
    }
}

fn of_seal(error: &SealError) -> ToolError {
    match error {
        SealError::Unavailable(_) | SealError::AnotherMasterKey(_) => ToolError::Environment(error.to_string()),
        SealError::Erased(_) | SealError::Missing(_) | SealError::Tampered { .. } => {
            ToolError::Corrupt(error.to_string())
        }
    }
}

/// A refusal is the operator's affair; everything else is not.
fn of_fault<E: std::fmt::Display>(fault: Fault<E>) -> ToolError {
    match fault {
        Fault::Refused(refusal) => ToolError::Refused(refusal.to_string()),
        Fault::Log(error) => error.into(),
        Fault::Seal(error) => of_seal(&error),
        Fault::Hash(error) => ToolError::Environment(error.to_string()),
        Fault::Token(error) => ToolError::Environment(error.to_string()),
    }
}
