//! Every data key wrapped anew at once, so that the previous master key can go.

use sqlx::Row;
use uuid::Uuid;

use calos_commands::ports::SealError;
use calos_domain::SubjectId;

use super::{SubjectKeys, unavailable};

/// Keys wrapped anew by one statement.
pub const REWRAP_PAGE_MAX_KEYS: i64 = 500;

/// What was done to the data keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rewrapped {
    /// Keys that the previous master key had wrapped, and the current one wraps now.
    pub rewrapped: u64,
    /// Keys that the current one had wrapped before.
    pub already: u64,
    /// Keys that do not open, though their master key is known: they were changed, and were left as they are.
    pub unopenable: u64,
}

/// A key as it stands in the table.
struct WrappedKey {
    subject: Uuid,
    wrapped: Vec<u8>,
    found: i32,
}

impl SubjectKeys {
    /// How many keys there are, and how many neither master key can open.
    ///
    /// # Errors
    /// The database's.
    pub async fn count(&self) -> Result<(u64, u64), SealError> {
        let (all, unknown): (i64, i64) =
            sqlx::query_as("SELECT count(*), count(*) FILTER (WHERE master_version <> ALL($1)) FROM subject_keys")
                .bind(self.known())
                .fetch_one(&self.pool)
                .await
                .map_err(unavailable)?;
        Ok((all.unsigned_abs(), unknown.unsigned_abs()))
    }

    /// How many keys the current master key does not wrap yet.
    ///
    /// # Errors
    /// The database's.
    pub async fn count_others(&self) -> Result<u64, SealError> {
        let others = sqlx::query_scalar("SELECT count(*) FROM subject_keys WHERE master_version <> $1");
        let others: i64 = others.bind(self.current.version).fetch_one(&self.pool).await.map_err(unavailable)?;
        Ok(others.unsigned_abs())
    }

    /// Wraps every key anew that the previous master key wrapped, page by page, each page one statement; `done` is told of
    /// each. Works beside running servers, and one that was broken off is finished by the next: what is wrapped anew
    /// stays so. No sealed text and no event is touched.
    ///
    /// # Errors
    /// [`SealError::Unavailable`]; [`SealError::AnotherMasterKey`] for a key that neither master key can have wrapped.
    pub async fn rewrap_all(&self, mut done: impl FnMut(u64) + Send) -> Result<Rewrapped, SealError> {
        let (all, _) = self.count().await?;
        let already = all.saturating_sub(self.count_others().await?);
        let mut sum = Rewrapped { already, ..Rewrapped::default() };
        let mut after = Uuid::nil();
        loop {
            let page = self.page(after).await?;
            let Some(last) = page.last() else { return Ok(sum) };
            after = last.subject;
            let mut anew = Vec::with_capacity(page.len());
            for row in &page {
                let subject = SubjectId(row.subject);
                match self.unwrap_key(subject, &row.wrapped, row.found) {
                    Ok(key) => anew.push((row, self.wrap(subject, &key)?)),
                    Err(error @ (SealError::AnotherMasterKey(_) | SealError::Unavailable(_))) => return Err(error),
                    Err(error) => {
                        tracing::error!(%error, "a data key cannot be wrapped anew");
                        sum.unopenable += 1;
                    }
                }
            }
            sum.rewrapped += self.put(&anew).await?;
            done(u64::try_from(page.len()).unwrap_or_default());
        }
    }

    pub(super) fn known(&self) -> Vec<i32> {
        std::iter::once(&self.current).chain(&self.previous).map(|wrapping| wrapping.version).collect()
    }

    async fn page(&self, after: Uuid) -> Result<Vec<WrappedKey>, SealError> {
        let rows = sqlx::query(
            "SELECT subject, wrapped_key, master_version FROM subject_keys
             WHERE subject > $1 AND master_version <> $2 ORDER BY subject LIMIT $3",
        );
        let rows = rows.bind(after).bind(self.current.version).bind(REWRAP_PAGE_MAX_KEYS);
        let rows = rows.fetch_all(&self.pool).await.map_err(unavailable)?;
        let read = |row: &sqlx::postgres::PgRow| {
            Ok(WrappedKey { subject: row.try_get(0)?, wrapped: row.try_get(1)?, found: row.try_get(2)? })
        };
        rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(unavailable)
    }

    /// Only what was read is replaced: a key destroyed or wrapped anew in the meantime stays as it is.
    async fn put(&self, anew: &[(&WrappedKey, Vec<u8>)]) -> Result<u64, SealError> {
        if anew.is_empty() {
            return Ok(0);
        }
        let update = sqlx::query(
            "UPDATE subject_keys AS k SET wrapped_key = u.wrapped, master_version = $4
             FROM unnest($1::uuid[], $2::bytea[], $3::int4[]) AS u (subject, wrapped, found)
             WHERE k.subject = u.subject AND k.master_version = u.found",
        );
        let update = update
            .bind(anew.iter().map(|(row, _)| row.subject).collect::<Vec<_>>())
            .bind(anew.iter().map(|(_, wrapped)| wrapped.as_slice()).collect::<Vec<_>>())
            .bind(anew.iter().map(|(row, _)| row.found).collect::<Vec<_>>())
            .bind(self.current.version);
        Ok(update.execute(&self.pool).await.map_err(unavailable)?.rows_affected())
    }
}
