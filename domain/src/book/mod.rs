//! The book: every event that moves credit or money, as balanced double entries.
//!
//! A debit is positive, a credit negative, so every entry sums to zero and so does the whole book. What a tenant can
//! spend is a liability of CALOS and therefore stands as a credit. A balanced entry can still be illegal:
//! [`may_meet`] says which accounts may ever stand against each other.
//!
//! Two things are booked side by side. Credit itself: given out against [`Account::Issued`], used against
//! [`Account::Usage`]. And what was paid for it: owed as [`Account::Deferred`] until the credit is gone. In a wallet of
//! dollars the two meet, so that what was given out is earned as it is used; what was paid for phone credits is earned
//! in an entry in dollars of its own.

mod account;
mod cash;
mod draft;
mod rules;
mod wallet;

#[cfg(test)]
mod tests;

pub use account::{Account, AccountClass, NoAccount};
pub use cash::{payment_entries, payout_entries};
pub use draft::BookError;
pub use rules::may_meet;
pub use wallet::{PAYMENT_SOURCE, effective_at, wallet_entries};

use crate::Asset;

/// One line of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Posting {
    /// Where.
    pub account: Account,
    /// How much: a debit is positive. Never zero, and always within 64 bits.
    pub amount: i128,
}

/// What one event means for the book in one asset; its postings sum to zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// In which asset; assets never mix in an entry.
    pub asset: Asset,
    /// At most one posting per account, in the order the event names them.
    pub postings: Vec<Posting>,
}

impl Entry {
    /// The sum of its debits, which is the sum of its credits; within 64 bits.
    #[must_use]
    pub fn amount(&self) -> i128 {
        self.postings.iter().map(|posting| posting.amount.max(0)).sum()
    }
}
