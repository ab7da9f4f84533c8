//! An entry in the making: what stands against what, and the checks it must pass.

use crate::wallet::Allocation;
use crate::{Asset, Units};

use super::{Account, Entry, Posting, may_meet};

/// Why an event has no place in the book. The event itself contradicts what the ledger promises: a reader stops at it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BookError {
    /// The two sides differ.
    #[error("{asset}: debits of {debits} stand against credits of {credits} on {}", names(accounts))]
    Unbalanced {
        /// In which asset.
        asset: Asset,
        /// What was debited, or what parts come to.
        debits: i128,
        /// What was credited, or what the event says the parts come to.
        credits: i128,
        /// The accounts of both sides.
        accounts: Vec<Account>,
    },
    /// The two accounts may never stand against each other.
    #[error("{asset}: a debit on {debit} may not stand against a credit on {credit}")]
    Illegal {
        /// In which asset.
        asset: Asset,
        /// The account debited.
        debit: Account,
        /// The account credited.
        credit: Account,
    },
    /// An amount below zero where only a direction is known.
    #[error("{asset}: an amount of {amount} on {account}")]
    Negative {
        /// In which asset.
        asset: Asset,
        /// The account.
        account: Account,
        /// The amount.
        amount: i64,
    },
    /// A sum beyond 64 bits.
    #[error("{asset}: {amount} on {account} is out of range")]
    OutOfRange {
        /// In which asset.
        asset: Asset,
        /// The account, or the first of those summed.
        account: Account,
        /// The sum.
        amount: i128,
    },
}

fn names(accounts: &[Account]) -> String {
    accounts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Debits and credits that stand against each other: each of the one may meet each of the other, and they balance.
/// Amounts of zero are left out.
#[derive(Debug)]
pub(super) struct Leg {
    asset: Asset,
    debits: Vec<Posting>,
    credits: Vec<Posting>,
}

impl Leg {
    pub(super) const fn new(asset: Asset) -> Self {
        Self { asset, debits: Vec::new(), credits: Vec::new() }
    }

    /// A single amount from one account to another.
    pub(super) fn of(asset: Asset, debit: Account, credit: Account, amount: Units) -> Result<Self, BookError> {
        let mut leg = Self::new(asset);
        leg.debit(debit, amount)?;
        leg.credit(credit, amount)?;
        Ok(leg)
    }

    /// The same, the other way round when the amount is below zero.
    pub(super) fn either_way(asset: Asset, debit: Account, credit: Account, amount: i64) -> Result<Self, BookError> {
        if amount >= 0 {
            return Self::of(asset, debit, credit, Units::new(amount));
        }
        let back = amount.checked_neg().ok_or_else(|| BookError::OutOfRange {
            asset,
            account: debit.clone(),
            amount: i128::from(amount),
        })?;
        Self::of(asset, credit, debit, Units::new(back))
    }

    pub(super) fn debit(&mut self, account: Account, amount: Units) -> Result<(), BookError> {
        let amount = self.positive(&account, amount)?;
        if amount > 0 {
            self.debits.push(Posting { account, amount });
        }
        Ok(())
    }

    pub(super) fn credit(&mut self, account: Account, amount: Units) -> Result<(), BookError> {
        let amount = self.positive(&account, amount)?;
        if amount > 0 {
            self.credits.push(Posting { account, amount });
        }
        Ok(())
    }

    fn positive(&self, account: &Account, amount: Units) -> Result<i128, BookError> {
        if amount.get() < 0 {
            return Err(BookError::Negative { asset: self.asset, account: account.clone(), amount: amount.get() });
        }
        Ok(i128::from(amount.get()))
    }

    fn check(&self) -> Result<(), BookError> {
        let sum = |side: &[Posting]| side.iter().map(|posting| posting.amount).sum::<i128>();
        let (debits, credits) = (sum(&self.debits), sum(&self.credits));
        if debits != credits {
            let accounts = self.debits.iter().chain(&self.credits).map(|posting| posting.account.clone()).collect();
            return Err(BookError::Unbalanced { asset: self.asset, debits, credits, accounts });
        }
        for debit in &self.debits {
            for credit in &self.credits {
                if !may_meet(&debit.account, &credit.account, self.asset) {
                    let (debit, credit) = (debit.account.clone(), credit.account.clone());
                    return Err(BookError::Illegal { asset: self.asset, debit, credit });
                }
            }
        }
        Ok(())
    }
}

/// Refuses parts below zero, and parts that do not come to what the event says they do.
pub(super) fn parts_come_to(
    asset: Asset,
    parts: &[Allocation],
    stated: Units,
    account: impl Fn(&Allocation) -> Account,
    total: Account,
) -> Result<(), BookError> {
    if let Some(part) = parts.iter().find(|part| part.amount.get() < 0) {
        return Err(BookError::Negative { asset, account: account(part), amount: part.amount.get() });
    }
    let sum: i128 = parts.iter().map(|part| i128::from(part.amount.get())).sum();
    if sum == i128::from(stated.get()) {
        return Ok(());
    }
    let accounts = parts.iter().map(account).chain([total]).collect();
    Err(BookError::Unbalanced { asset, debits: sum, credits: i128::from(stated.get()), accounts })
}

/// Checks the legs and nets them into one entry per asset, in the order of [`Asset::ALL`]; nothing for an asset in which
/// nothing moves.
pub(super) fn entries(legs: &[Leg]) -> Result<Vec<Entry>, BookError> {
    for leg in legs {
        leg.check()?;
    }
    let mut entries = Vec::with_capacity(1);
    for asset in Asset::ALL {
        let mut postings: Vec<Posting> = Vec::new();
        for leg in legs.iter().filter(|leg| leg.asset == asset) {
            for debit in &leg.debits {
                post(&mut postings, &debit.account, debit.amount);
            }
            for credit in &leg.credits {
                post(&mut postings, &credit.account, -credit.amount);
            }
        }
        postings.retain(|posting| posting.amount != 0);
        let Some(first) = postings.first() else { continue };
        let account = first.account.clone();
        let entry = Entry { asset, postings };
        in_range(asset, &account, entry.amount())?;
        entries.push(entry);
    }
    Ok(entries)
}

/// When the sum of an entry's debits is within 64 bits, so is each posting.
fn in_range(asset: Asset, account: &Account, amount: i128) -> Result<(), BookError> {
    if i64::try_from(amount).is_ok() {
        return Ok(());
    }
    Err(BookError::OutOfRange { asset, account: account.clone(), amount })
}

fn post(postings: &mut Vec<Posting>, account: &Account, amount: i128) {
    match postings.iter_mut().find(|posting| posting.account == *account) {
        Some(posting) => posting.amount += amount,
        None => postings.push(Posting { account: account.clone(), amount }),
    }
}
