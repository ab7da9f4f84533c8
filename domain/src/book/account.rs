//! The accounts of the book, by the names finance reads: `Liabilities:Wallet:{tenant}:Available:{grant}`.

use std::fmt;
use std::str::FromStr;

use crate::wallet::{AdjustmentReason, GrantKind, Meter};
use crate::{GrantId, HoldId, TenantId};

/// What a provider without a name is booked under.
const PROVIDER_UNNAMED: &str = "unnamed";

const WALLET: &str = "Liabilities:Wallet";
const DEBT: &str = "Assets:Debt";
const AVAILABLE: &str = "Available";
const HELD: &str = "Held";
const UNALLOCATED: &str = "Unallocated";

/// One account of the book. Its full name is its [`fmt::Display`]; [`FromStr`] reads that back.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Account {
    /// What a tenant can still spend of one grant.
    Available(TenantId, GrantId),
    /// What a tenant can spend, but of which grants the event did not say: credit that holds gave back before they said.
    Unallocated(TenantId),
    /// What one hold keeps.
    Held(TenantId, HoldId),
    /// What was given out, by kind of grant, as far as it is not yet earned.
    Issued(GrantKind),
    /// What was used.
    Usage(Meter),
    /// What ran out of time unspent.
    Breakage,
    /// What was claimed back, against what was paid back for it.
    Voided,
    /// What corrections gave and took.
    Adjustment(AdjustmentReason),
    /// What a tenant owes.
    Debt(TenantId),
    /// What lies at Stripe.
    StripeBalance,
    /// What Stripe keeps back while a dispute is open.
    StripeDisputed,
    /// What lies in the bank.
    Bank,
    /// What is paid on other ways than through Stripe.
    OutOfBand,
    /// What was paid for credit that is not yet used.
    Deferred(GrantKind),
    /// What Stripe takes for a payment.
    StripeFees,
    /// What Stripe takes for a dispute.
    DisputeLoss,
    /// What a provider charges. Made by [`Account::provider`].
    Provider(String),
}

/// An account without tenant, grant or hold: what a trial balance lists.
///
/// [`Account::Unallocated`] belongs to [`Self::Available`]: it is credit a tenant can spend.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AccountClass {
    /// See [`Account::Available`] and [`Account::Unallocated`].
    Available,
    /// See [`Account::Held`].
    Held,
    /// See [`Account::Debt`].
    Debt,
    /// See [`Account::Issued`].
    Issued(GrantKind),
    /// See [`Account::Usage`].
    Usage(Meter),
    /// See [`Account::Breakage`].
    Breakage,
    /// See [`Account::Voided`].
    Voided,
    /// See [`Account::Adjustment`].
    Adjustment(AdjustmentReason),
    /// See [`Account::StripeBalance`].
    StripeBalance,
    /// See [`Account::StripeDisputed`].
    StripeDisputed,
    /// See [`Account::Bank`].
    Bank,
    /// See [`Account::OutOfBand`].
    OutOfBand,
    /// See [`Account::Deferred`].
    Deferred(GrantKind),
    /// See [`Account::StripeFees`].
    StripeFees,
    /// See [`Account::DisputeLoss`].
    DisputeLoss,
    /// See [`Account::Provider`].
    Provider(String),
}

/// Why a text names no account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no account of the book")]
pub struct NoAccount(pub String);

impl Account {
    /// What a provider charges. Whatever would not stand in a name, blanks and colons among it, becomes `_`.
    #[must_use]
    pub fn provider(name: &str) -> Self {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '_' };
        let name: String = name.chars().map(plain).collect();
        Self::Provider(if name.is_empty() { PROVIDER_UNNAMED.to_owned() } else { name })
    }

    /// Whose account it is; none for those of CALOS itself.
    #[must_use]
    pub const fn tenant(&self) -> Option<TenantId> {
        match self {
            Self::Available(tenant, _) | Self::Unallocated(tenant) | Self::Held(tenant, _) | Self::Debt(tenant) => {
                Some(*tenant)
            }
            Self::Issued(_)
            | Self::Usage(_)
            | Self::Breakage
            | Self::Voided
            | Self::Adjustment(_)
            | Self::StripeBalance
            | Self::StripeDisputed
            | Self::Bank
            | Self::OutOfBand
            | Self::Deferred(_)
            | Self::StripeFees
            | Self::DisputeLoss
            | Self::Provider(_) => None,
        }
    }

    /// The account with tenant, grant and hold left out.
    #[must_use]
    pub fn class(&self) -> AccountClass {
        match self {
            Self::Available(..) | Self::Unallocated(_) => AccountClass::Available,
            Self::Held(..) => AccountClass::Held,
            Self::Debt(_) => AccountClass::Debt,
            Self::Issued(kind) => AccountClass::Issued(*kind),
            Self::Usage(meter) => AccountClass::Usage(*meter),
            Self::Breakage => AccountClass::Breakage,
            Self::Voided => AccountClass::Voided,
            Self::Adjustment(reason) => AccountClass::Adjustment(*reason),
            Self::StripeBalance => AccountClass::StripeBalance,
            Self::StripeDisputed => AccountClass::StripeDisputed,
            Self::Bank => AccountClass::Bank,
            Self::OutOfBand => AccountClass::OutOfBand,
            Self::Deferred(kind) => AccountClass::Deferred(*kind),
            Self::StripeFees => AccountClass::StripeFees,
            Self::DisputeLoss => AccountClass::DisputeLoss,
            Self::Provider(name) => AccountClass::Provider(name.clone()),
        }
    }
}

impl AccountClass {
    /// The one account of a class that no tenant has a part in; none for what tenants have.
    #[must_use]
    pub fn account(self) -> Option<Account> {
        Some(match self {
            Self::Available | Self::Held | Self::Debt => return None,
            Self::Issued(kind) => Account::Issued(kind),
            Self::Usage(meter) => Account::Usage(meter),
            Self::Breakage => Account::Breakage,
            Self::Voided => Account::Voided,
            Self::Adjustment(reason) => Account::Adjustment(reason),
            Self::StripeBalance => Account::StripeBalance,
            Self::StripeDisputed => Account::StripeDisputed,
            Self::Bank => Account::Bank,
            Self::OutOfBand => Account::OutOfBand,
            Self::Deferred(kind) => Account::Deferred(kind),
            Self::StripeFees => Account::StripeFees,
            Self::DisputeLoss => Account::DisputeLoss,
            Self::Provider(name) => Account::Provider(name),
        })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Available(tenant, grant) => write!(f, "{WALLET}:{tenant}:{AVAILABLE}:{grant}"),
            Self::Unallocated(tenant) => write!(f, "{WALLET}:{tenant}:{UNALLOCATED}"),
            Self::Held(tenant, hold) => write!(f, "{WALLET}:{tenant}:{HELD}:{hold}"),
            Self::Debt(tenant) => write!(f, "{DEBT}:{tenant}"),
            Self::Issued(_)
            | Self::Usage(_)
            | Self::Breakage
            | Self::Voided
            | Self::Adjustment(_)
            | Self::StripeBalance
            | Self::StripeDisputed
            | Self::Bank
            | Self::OutOfBand
            | Self::Deferred(_)
            | Self::StripeFees
            | Self::DisputeLoss
            | Self::Provider(_) => self.class().fmt(f),
        }
    }
}

impl fmt::Display for AccountClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Available => write!(f, "{WALLET}:{AVAILABLE}"),
            Self::Held => write!(f, "{WALLET}:{HELD}"),
            Self::Debt => f.write_str(DEBT),
            Self::Issued(kind) => write!(f, "Equity:Issued:{}", kind.as_str()),
            Self::Usage(meter) => write!(f, "Income:Usage:{}", meter.as_str()),
            Self::Breakage => f.write_str("Income:Breakage"),
            Self::Voided => f.write_str("Equity:Voided"),
            Self::Adjustment(reason) => write!(f, "Equity:Adjustment:{}", reason.as_str()),
            Self::StripeBalance => f.write_str("Assets:Stripe:Balance"),
            Self::StripeDisputed => f.write_str("Assets:Stripe:Disputed"),
            Self::Bank => f.write_str("Assets:Bank"),
            Self::OutOfBand => f.write_str("Assets:OutOfBand"),
            Self::Deferred(kind) => write!(f, "Liabilities:DeferredRevenue:{}", kind.as_str()),
            Self::StripeFees => f.write_str("Expenses:StripeFees"),
            Self::DisputeLoss => f.write_str("Expenses:DisputeLoss"),
            Self::Provider(name) => write!(f, "Expenses:Provider:{name}"),
        }
    }
}

impl FromStr for Account {
    type Err = NoAccount;
    fn from_str(text: &str) -> Result<Self, NoAccount> {
        let parts: Vec<&str> = text.split(':').collect();
        let read = match parts.as_slice() {
            ["Liabilities", "Wallet", tenant, AVAILABLE, grant] => {
                id(tenant).zip(id(grant)).map(owned(Self::Available))
            }
            ["Liabilities", "Wallet", tenant, HELD, hold] => id(tenant).zip(id(hold)).map(owned(Self::Held)),
            ["Liabilities", "Wallet", tenant, UNALLOCATED] => id(tenant).map(Self::Unallocated),
            ["Assets", "Debt", tenant] => id(tenant).map(Self::Debt),
            _ => text.parse::<AccountClass>().ok().and_then(AccountClass::account),
        };
        read.ok_or_else(|| NoAccount(text.to_owned()))
    }
}

impl FromStr for AccountClass {
    type Err = NoAccount;
    fn from_str(text: &str) -> Result<Self, NoAccount> {
        let parts: Vec<&str> = text.split(':').collect();
        let read = match parts.as_slice() {
            ["Liabilities", "Wallet", AVAILABLE] => Some(Self::Available),
            ["Liabilities", "Wallet", HELD] => Some(Self::Held),
            ["Assets", "Debt"] => Some(Self::Debt),
            ["Equity", "Issued", kind] => kind_named(kind).map(Self::Issued),
            ["Income", "Usage", meter] => {
                Meter::ALL.into_iter().find(|known| known.as_str() == *meter).map(Self::Usage)
            }
            ["Income", "Breakage"] => Some(Self::Breakage),
            ["Equity", "Voided"] => Some(Self::Voided),
            ["Equity", "Adjustment", reason] => {
                AdjustmentReason::ALL.into_iter().find(|known| known.as_str() == *reason).map(Self::Adjustment)
            }
            ["Assets", "Stripe", "Balance"] => Some(Self::StripeBalance),
            ["Assets", "Stripe", "Disputed"] => Some(Self::StripeDisputed),
            ["Assets", "Bank"] => Some(Self::Bank),
            ["Assets", "OutOfBand"] => Some(Self::OutOfBand),
            ["Liabilities", "DeferredRevenue", kind] => kind_named(kind).map(Self::Deferred),
            ["Expenses", "StripeFees"] => Some(Self::StripeFees),
            ["Expenses", "DisputeLoss"] => Some(Self::DisputeLoss),
            ["Expenses", "Provider", name] => provider_named(name),
            _ => None,
        };
        read.ok_or_else(|| NoAccount(text.to_owned()))
    }
}

fn owned<T>(account: fn(TenantId, T) -> Account) -> impl FnOnce((TenantId, T)) -> Account {
    move |(tenant, id)| account(tenant, id)
}

/// An id as it is written, and in no other spelling: an account has one name.
fn id<T: FromStr + fmt::Display>(text: &str) -> Option<T> {
    text.parse().ok().filter(|id: &T| id.to_string() == text)
}

fn kind_named(name: &str) -> Option<GrantKind> {
    GrantKind::ALL.into_iter().find(|kind| kind.as_str() == name)
}

fn provider_named(name: &str) -> Option<AccountClass> {
    let account = Account::provider(name);
    matches!(&account, Account::Provider(plain) if plain == name).then(|| account.class())
}
