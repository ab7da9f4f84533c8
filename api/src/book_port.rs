//! The books, as closing a month and reconciling an account ask for them: over the log's fence and the read models.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::Instant;

use calos_adapters::postgres::PgLog;
use calos_commands::books::{Books, BooksError};
use calos_commands::log::LogError;
use calos_domain::book::Account;
use calos_domain::operation::PartitionPosition;
use calos_domain::period::ClosedLine;
use calos_domain::reconciliation::{Movement, Side};
use calos_domain::{MicroUsd, Timestamp};
use calos_projections::as_of::{self, AsOf, AsOfError};
use calos_projections::journal::{self, Entry, Journal};
use calos_projections::projection::Projection;
use calos_projections::trial_balance::TrialBalance;
use calos_projections::{Progress, dead_letters, registry, wait};

/// How long the read models may take to pass the fence: closing a month is worth waiting for, and gives up before a
/// client does.
const BOOKS_WAIT_MAX: Duration = Duration::from_secs(15);

/// What a month's figures are read from.
const FIGURES: [&str; 2] = [Journal::NAME, TrialBalance::NAME];

/// The books of this database.
#[derive(Clone)]
pub struct BookPort {
    pool: PgPool,
    log: PgLog,
    progress: watch::Receiver<Progress>,
}

impl BookPort {
    /// Over a log and its read models.
    #[must_use]
    pub fn new(pool: PgPool, log: PgLog, progress: watch::Receiver<Progress>) -> Self {
        Self { pool, log, progress }
    }

    async fn passed(&self, projections: &[&str], heads: &BTreeMap<i32, i64>) -> Result<(), BooksError> {
        let deadline = Instant::now() + BOOKS_WAIT_MAX;
        for projection in projections {
            let waited = wait::wait_until(&self.pool, &self.progress, projection, heads, deadline).await;
            waited.map_err(|behind| BooksError::Behind(behind.to_string()))?;
        }
        Ok(())
    }
}

impl fmt::Debug for BookPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BookPort(..)")
    }
}

#[async_trait]
impl Books for BookPort {
    async fn fence(&self, at: Timestamp) -> Result<Vec<PartitionPosition>, LogError> {
        let heads = self.log.fence(at).await?;
        Ok(heads.into_iter().map(|(partition, position)| PartitionPosition { partition, position }).collect())
    }

    async fn wait_for(&self, heads: &[PartitionPosition]) -> Result<(), BooksError> {
        let heads = heads.iter().map(|head| (head.partition, head.position)).collect();
        self.passed(&FIGURES, &heads).await
    }

    async fn open_dead_letters(&self) -> Result<u64, BooksError> {
        // Of any read model: what is set aside anywhere is not understood, and a month is closed for good.
        let names: Vec<&str> = registry::ALL.iter().map(|projection| projection.name()).collect();
        let open = dead_letters::open(&self.pool, &names).await.map_err(unavailable)?;
        Ok(u64::try_from(open).unwrap_or(0))
    }

    async fn trial_balance(&self, effective: Timestamp, recorded: Timestamp) -> Result<Vec<ClosedLine>, BooksError> {
        let at = AsOf { effective: Some(effective), recorded: Some(recorded) };
        let lines = as_of::trial_balance(&self.pool, at).await.map_err(|error| match error {
            AsOfError::Database(error) => unavailable(error),
            AsOfError::Behind { .. } => BooksError::Behind(error.to_string()),
            AsOfError::OutOfRange => BooksError::Corrupt(error.to_string()),
        })?;
        Ok(lines
            .into_iter()
            .map(|line| ClosedLine { account: line.account, asset: line.asset, debit: line.debit, credit: line.credit })
            .collect())
    }

    async fn stripe_movements(
        &self,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
    ) -> Result<Vec<Movement>, BooksError> {
        let heads = (0..).zip(self.log.heads().borrow().iter().copied()).collect();
        self.passed(&[Journal::NAME], &heads).await?;
        // Entries that move nothing with Stripe are among them, so the bound is on what is read.
        let entries = journal::money(&self.pool, from, to, limit.saturating_add(1)).await.map_err(unavailable)?;
        if entries.len() > limit {
            return Err(BooksError::TooMuch { limit });
        }
        entries.iter().filter_map(|entry| movement(entry).transpose()).collect()
    }
}

/// What an entry moves on the account with Stripe, before the fee, and the fee; none when it moves nothing there.
fn movement(entry: &Entry) -> Result<Option<Movement>, BooksError> {
    let (mut touched, mut net, mut fee) = (false, 0, 0);
    for posting in &entry.postings {
        match &posting.account {
            Account::StripeBalance => (touched, net) = (true, net + posting.amount),
            Account::StripeFees | Account::DisputeLoss => (touched, fee) = (true, fee + posting.amount),
            Account::Available(..)
            | Account::Unallocated(_)
            | Account::Held(..)
            | Account::Issued(_)
            | Account::Usage(_)
            | Account::Breakage
            | Account::Voided
            | Account::Adjustment(_)
            | Account::Debt(_)
            | Account::StripeDisputed
            | Account::Bank
            | Account::OutOfBand
            | Account::Deferred(_)
            | Account::Provider(_) => {}
        }
    }
    if !touched {
        return Ok(None);
    }
    let place = format!("{}:{}", entry.partition, entry.position);
    let units = |amount: i128| {
        let amount = i64::try_from(amount);
        amount.map(MicroUsd::new).map_err(|_| BooksError::Corrupt(format!("the amount at {place} is out of range")))
    };
    let side = Side { amount: units(net + fee)?, fee: units(fee)?, at: entry.effective_at };
    let reference = entry.source_ref.clone();
    let reference = reference.ok_or_else(|| BooksError::Corrupt(format!("the entry at {place} is of no reference")))?;
    Ok(Some(Movement { id: place, reference, side }))
}

#[expect(clippy::needless_pass_by_value, reason = "shaped for map_err")]
fn unavailable(error: sqlx::Error) -> BooksError {
    match &error {
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => BooksError::Corrupt(error.to_string()),
        _ => BooksError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use calos_domain::Asset;
    use calos_domain::book::Posting;
    use calos_domain::wallet::GrantKind;

    use super::*;

    fn entry(postings: &[(Account, i128)]) -> Entry {
        Entry {
            partition: 3,
            position: 17,
            tenant_id: None,
            recorded_at: Timestamp::from_micros(9),
            effective_at: Timestamp::from_micros(5),
            event_type: "payment_received".to_owned(),
            asset: Asset::Usd,
            amount: 0,
            postings: postings
                .iter()
                .map(|(account, amount)| Posting { account: account.clone(), amount: *amount })
                .collect(),
            usage_id: None,
            source_ref: Some("ch_1".to_owned()),
        }
    }

    fn moved(postings: &[(Account, i128)]) -> Option<(i64, i64)> {
        let moved = movement(&entry(postings)).unwrap()?;
        assert_eq!((moved.id.as_str(), moved.reference.as_str(), moved.side.at.micros()), ("3:17", "ch_1", 5));
        Some((moved.side.amount.get(), moved.side.fee.get()))
    }

    #[test]
    fn a_movement_is_what_stripe_calls_amount_and_fee() {
        let deferred = || Account::Deferred(GrantKind::Purchase);
        let charge = [(Account::StripeBalance, 1_912), (Account::StripeFees, 88), (deferred(), -2_000)];
        assert_eq!(moved(&charge), Some((2_000, 88)));
        let refund = [(Account::StripeBalance, -2_000), (Account::Voided, 2_000)];
        assert_eq!(moved(&refund), Some((-2_000, 0)));
        let dispute =
            [(Account::StripeBalance, -3_500), (Account::StripeDisputed, 2_000), (Account::DisputeLoss, 1_500)];
        assert_eq!(moved(&dispute), Some((-2_000, 1_500)));
        let payout = [(Account::Bank, 700), (Account::StripeBalance, -700)];
        assert_eq!(moved(&payout), Some((-700, 0)));
        // A fee as large as the payment leaves nothing on the balance, and Stripe lists it all the same.
        assert_eq!(moved(&[(Account::StripeFees, 50), (deferred(), -50)]), Some((50, 50)));
    }

    #[test]
    fn what_never_was_with_stripe_is_no_movement_there() {
        let transfer = [(Account::OutOfBand, 2_000), (Account::Deferred(GrantKind::Purchase), -2_000)];
        assert_eq!(moved(&transfer), None);
        let lost = [(Account::Voided, 2_000), (Account::StripeDisputed, -2_000)];
        assert_eq!(moved(&lost), None);
    }
}
