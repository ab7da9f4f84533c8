//! The book: every wallet event as balanced double entries.
//!
//! A debit is positive, a credit negative, so every entry sums to zero and so does the whole book. What a tenant can
//! spend is a liability of CALOS and therefore stands as a credit. A balanced entry can still be illegal:
//! [`may_meet`] says which kinds of account may ever stand in one entry.

use std::fmt;

use crate::wallet::{Allocation, DebtCause, GrantKind, WalletEvent};
use crate::{Asset, GrantId, HoldId, TenantId, Units};

/// An account of the wallets' side of the book.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Account {
    /// What a tenant can still spend of one grant.
    Available(TenantId, GrantId),
    /// What one hold keeps.
    Held(TenantId, HoldId),
    /// What was given out, by kind of grant.
    Issued(GrantKind),
    /// What was used.
    Usage,
    /// What ran out of time unspent.
    Breakage,
    /// What was claimed back.
    Voided,
    /// What a tenant owes.
    Debt(TenantId),
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Available(tenant, grant) => write!(f, "Liabilities:Wallet:{tenant}:Available:{grant}"),
            Self::Held(tenant, hold) => write!(f, "Liabilities:Wallet:{tenant}:Held:{hold}"),
            Self::Issued(kind) => write!(f, "Equity:Issued:{}", kind.as_str()),
            Self::Usage => f.write_str("Income:Usage"),
            Self::Breakage => f.write_str("Income:Breakage"),
            Self::Voided => f.write_str("Equity:Voided"),
            Self::Debt(tenant) => write!(f, "Assets:Debt:{tenant}"),
        }
    }
}

/// One line of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Posting {
    /// Where.
    pub account: Account,
    /// How much: a debit is positive.
    pub amount: i128,
}

/// What one event means for the book; its postings sum to zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// In which asset; assets never mix in an entry.
    pub asset: Asset,
    /// At most one posting per account, none of zero.
    pub postings: Vec<Posting>,
}

/// What an event of `tenant`'s wallet means for the book; nothing when no credit moves.
///
/// `held` is what the hold that this event ends had pinned, in order; empty when the event ends no open hold. The event
/// itself says how much goes back, not to which grants.
#[must_use]
pub fn entry(tenant: TenantId, event: &WalletEvent, held: &[Allocation]) -> Option<Entry> {
    let available = |grant_id| Account::Available(tenant, grant_id);
    let mut draft = Draft::default();
    let asset = match event {
        WalletEvent::WalletOpened(_)
        | WalletEvent::UsageRecorded(_)
        | WalletEvent::WalletFrozen(_)
        | WalletEvent::WalletThawed(_) => return None,
        WalletEvent::CreditsGranted(granted) => {
            draft.transfer(Account::Issued(granted.kind), available(granted.grant_id), granted.amount);
            granted.asset
        }
        WalletEvent::HoldPlaced(placed) => {
            for part in &placed.allocations {
                draft.transfer(available(part.grant_id), Account::Held(tenant, placed.hold_id), part.amount);
            }
            placed.asset
        }
        WalletEvent::CreditsDeducted(deducted) => {
            if let Some(hold_id) = deducted.hold_id {
                draft.unhold(tenant, hold_id, held);
            }
            for part in &deducted.allocations {
                draft.transfer(available(part.grant_id), Account::Usage, part.amount);
            }
            deducted.asset
        }
        WalletEvent::HoldReleased(released) => {
            draft.unhold(tenant, released.hold_id, held);
            released.asset
        }
        WalletEvent::DeductionReversed(reversed) => {
            for part in &reversed.allocations {
                draft.transfer(Account::Usage, available(part.grant_id), part.amount);
            }
            reversed.asset
        }
        WalletEvent::GrantExpired(expired) => {
            draft.transfer(available(expired.grant_id), Account::Breakage, expired.amount);
            expired.asset
        }
        WalletEvent::GrantVoided(voided) => {
            draft.transfer(available(voided.grant_id), Account::Voided, voided.amount);
            voided.asset
        }
        WalletEvent::DebtIncurred(incurred) => {
            let against = match incurred.cause {
                DebtCause::Overrun | DebtCause::InboundWithoutCredit => Account::Usage,
                DebtCause::Refund | DebtCause::Dispute => Account::Voided,
            };
            draft.transfer(Account::Debt(tenant), against, incurred.amount);
            incurred.asset
        }
        WalletEvent::DebtRepaid(repaid) => {
            draft.transfer(available(repaid.grant_id), Account::Debt(tenant), repaid.amount);
            repaid.asset
        }
    };
    draft.postings.retain(|posting| posting.amount != 0);
    (!draft.postings.is_empty()).then_some(Entry { asset, postings: draft.postings })
}

/// Whether a debit on one account and a credit on the other may stand in one entry.
#[must_use]
pub const fn may_meet(debit: Account, credit: Account) -> bool {
    matches!(
        (debit, credit),
        (Account::Issued(_), Account::Available(..))
            | (Account::Available(..), Account::Held(..) | Account::Usage | Account::Breakage | Account::Voided)
            | (Account::Held(..), Account::Available(..) | Account::Usage)
            | (Account::Usage, Account::Available(..))
            | (Account::Debt(_), Account::Usage | Account::Voided)
            | (Account::Available(..), Account::Debt(_))
    )
}

#[derive(Default)]
struct Draft {
    postings: Vec<Posting>,
}

impl Draft {
    fn transfer(&mut self, debit: Account, credit: Account, amount: Units) {
        self.post(debit, i128::from(amount.get()));
        self.post(credit, -i128::from(amount.get()));
    }

    fn unhold(&mut self, tenant: TenantId, hold_id: HoldId, held: &[Allocation]) {
        for part in held {
            self.transfer(Account::Held(tenant, hold_id), Account::Available(tenant, part.grant_id), part.amount);
        }
    }

    fn post(&mut self, account: Account, amount: i128) {
        match self.postings.iter_mut().find(|posting| posting.account == account) {
            Some(posting) => posting.amount += amount,
            None => self.postings.push(Posting { account, amount }),
        }
    }
}
