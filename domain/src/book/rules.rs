//! Which accounts may ever stand against each other.

use crate::Asset;

use super::Account;

/// Whether a debit on one account may stand against a credit on the other, in this asset.
///
/// What is not listed is refused. Accounts of two tenants never meet, and what was paid for one kind of credit is never
/// earned as another.
#[must_use]
pub fn may_meet(debit: &Account, credit: &Account, asset: Asset) -> bool {
    let one_tenant = debit.tenant().zip(credit.tenant()).is_none_or(|(one, other)| one == other);
    one_tenant
        && match asset {
            Asset::Usd => credit_may_meet(debit, credit) || money_may_meet(debit, credit),
            Asset::Credit => credit_may_meet(debit, credit),
        }
}

/// How credit moves, in either asset.
const fn credit_may_meet(debit: &Account, credit: &Account) -> bool {
    use Account::{Adjustment, Available, Breakage, Debt, Held, Issued, Unallocated, Usage, Voided};
    matches!(
        (debit, credit),
        (Issued(_) | Adjustment(_) | Voided | Usage(_), Available(..))
            | (Available(..), Held(..) | Usage(_) | Breakage | Voided | Adjustment(_) | Debt(_))
            | (Held(..), Available(..) | Unallocated(_) | Usage(_))
            | (Debt(_), Usage(_) | Voided)
            | (Voided, Debt(_))
    )
}

/// How money moves, and how what was paid for credit is earned.
fn money_may_meet(debit: &Account, credit: &Account) -> bool {
    use Account::{
        Bank, Breakage, Deferred, DisputeLoss, Issued, OutOfBand, Provider, StripeBalance, StripeDisputed, StripeFees,
        Usage, Voided,
    };
    match (debit, credit) {
        (Deferred(paid), Issued(given)) | (Issued(given), Deferred(paid)) => paid == given,
        (Deferred(_), Usage(_) | Breakage | Voided) | (Usage(_) | Voided, Deferred(_)) => true,
        (StripeBalance | OutOfBand, Deferred(_)) => true,
        (StripeFees | DisputeLoss | StripeDisputed | Bank, StripeBalance) => true,
        (StripeBalance, StripeDisputed | Bank) => true,
        (Voided, StripeBalance | StripeDisputed | OutOfBand) => true,
        (Provider(_), OutOfBand) => true,
        _ => false,
    }
}
