//! What payments, their refunds and disputes, and payouts mean for the book. All of it is in dollars.

use crate::payment::{PaymentEvent, PaymentReceived, PaymentVia, PayoutEvent, PayoutSent};
use crate::{Asset, MicroUsd};

use super::draft::{Leg, entries};
use super::{Account, BookError, Entry};

/// What a fact of a payment means for the book, whatever of the payment is known beside it.
///
/// # Errors
/// The fact contradicts itself: [`BookError`] names the accounts.
pub fn payment_entries(event: &PaymentEvent) -> Result<Vec<Entry>, BookError> {
    let legs = match event {
        PaymentEvent::PaymentReceived(received) => self::received(received)?,
        PaymentEvent::PaymentRefunded(refunded) => {
            vec![move_usd(Account::Voided, till(refunded.via), refunded.amount)?]
        }
        PaymentEvent::DisputeOpened(opened) => vec![
            move_usd(Account::StripeDisputed, Account::StripeBalance, opened.amount)?,
            move_usd(Account::DisputeLoss, Account::StripeBalance, opened.fee)?,
        ],
        PaymentEvent::DisputeWon(won) => {
            vec![move_usd(Account::StripeBalance, Account::StripeDisputed, won.amount)?]
        }
        PaymentEvent::DisputeLost(lost) => vec![move_usd(Account::Voided, Account::StripeDisputed, lost.amount)?],
    };
    entries(&legs)
}

/// What a payout means for the book.
///
/// # Errors
/// [`BookError::OutOfRange`] for the one amount that has no opposite.
pub fn payout_entries(event: &PayoutEvent) -> Result<Vec<Entry>, BookError> {
    let PayoutEvent::PayoutSent(PayoutSent { amount, .. }) = event;
    entries(&[Leg::either_way(Asset::Usd, Account::Bank, Account::StripeBalance, amount.get())?])
}

fn received(received: &PaymentReceived) -> Result<Vec<Leg>, BookError> {
    let till = till(received.via);
    Ok(vec![
        move_usd(till.clone(), Account::Deferred(received.kind.grant_kind()), received.gross)?,
        move_usd(Account::StripeFees, till, received.fee)?,
    ])
}

/// Where the money lies.
const fn till(via: PaymentVia) -> Account {
    match via {
        PaymentVia::Stripe => Account::StripeBalance,
        PaymentVia::OutOfBand => Account::OutOfBand,
    }
}

fn move_usd(debit: Account, credit: Account, amount: MicroUsd) -> Result<Leg, BookError> {
    Leg::of(Asset::Usd, debit, credit, amount.into())
}
