//! The aggregates a projection can meet in the log.

use crate::ProjectError;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident => $name:literal),+ $(,)?) => {
        /// The aggregate types of the log, named one by one: a projection matches on all of them, so a new aggregate
        /// does not compile until every projection has said whether it cares.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Kind {
            $($(#[$doc])* $kind),+
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// The stored name, in the `aggregate_type` column.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name),+ }
            }

            /// From the stored name.
            ///
            /// # Errors
            /// [`ProjectError::UnknownAggregate`]: written by a newer binary, or not by CALOS.
            pub fn of(aggregate_type: &str) -> Result<Self, ProjectError> {
                match aggregate_type {
                    $($name => Ok(Self::$kind),)+
                    unknown => Err(ProjectError::UnknownAggregate(unknown.to_owned())),
                }
            }
        }
    };
}

kinds! {
    /// A tenant's credit.
    Wallet => "wallet",
    /// A tenant and its members.
    Tenant => "tenant",
    /// A tenant's tier and limits.
    Licence => "licence",
    /// One API key of a tenant.
    ApiKey => "api_key",
    /// A person.
    Account => "account",
    /// One login.
    Session => "session",
    /// One browser or phone.
    Device => "device",
    /// Who holds an email address.
    EmailClaim => "email_claim",
    /// A run of an operator's tool.
    Operation => "operation",
    /// One payment of a tenant, with its refunds and disputes.
    Payment => "payment",
    /// What was sent from where payments arrive to the bank.
    Payout => "payout",
    /// One correction of a wallet by hand.
    Adjustment => "adjustment",
    /// The months that are closed.
    Period => "period",
    /// One comparison of the books with what somebody else's say.
    Reconciliation => "reconciliation",
    /// Who of the staff looked at a tenant's ledger.
    LedgerAccess => "ledger_access",
}
