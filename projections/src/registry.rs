//! Every read model there is, by name.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use sqlx::PgConnection;

use calos_domain::{Record, upcast};

use crate::copy_in::{CopyError, CopySink};
use crate::projection::{Pace, ProjectError, Projection};
use crate::table::{Growth, Schema, TableSpec};

/// A [`Projection`] whose type is not known where it is used.
pub trait AnyProjection: Send + Sync + 'static {
    /// [`Projection::NAME`]
    fn name(&self) -> &'static str;
    /// [`Projection::GROWTH`]
    fn growth(&self) -> Growth;
    /// [`Projection::PACE`]
    fn pace(&self) -> Pace;
    /// [`Projection::tables`]
    fn tables(&self) -> &'static [TableSpec];
    /// No changes yet.
    fn fold(&self) -> Box<dyn Fold>;
}

/// The [`Projection::Changes`] of a projection whose type is not known where they are folded.
pub trait Fold: Send {
    /// [`Projection::project`]
    ///
    /// # Errors
    /// As there; nothing is folded then.
    fn project(&mut self, record: &Record<'_>) -> Result<(), ProjectError>;

    /// [`Projection::store`]
    fn store<'c>(
        self: Box<Self>,
        schema: Schema,
        connection: &'c mut PgConnection,
    ) -> Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'c>>;

    /// [`Projection::copy`]
    ///
    /// # Errors
    /// As there.
    fn copy(self: Box<Self>, sink: &mut CopySink) -> Result<(), CopyError>;
}

/// Any projection, its type forgotten.
pub struct Of<P>(PhantomData<fn() -> P>);

impl<P> Of<P> {
    /// The projection.
    pub const NEW: Self = Self(PhantomData);
}

struct FoldOf<P: Projection>(P::Changes);

impl<P: Projection> AnyProjection for Of<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn growth(&self) -> Growth {
        P::GROWTH
    }

    fn pace(&self) -> Pace {
        P::PACE
    }

    fn tables(&self) -> &'static [TableSpec] {
        P::tables()
    }

    fn fold(&self) -> Box<dyn Fold> {
        Box::new(FoldOf::<P>(P::Changes::default()))
    }
}

impl<P: Projection> Fold for FoldOf<P> {
    /// The one way into every read model, so here old versions become today's: those who read only parts of a payload
    /// need not know that there were others.
    fn project(&mut self, record: &Record<'_>) -> Result<(), ProjectError> {
        match upcast::raised(record)? {
            None => P::project(&mut self.0, record),
            Some(raised) => P::project(&mut self.0, &raised.record(record)),
        }
    }

    fn store<'c>(
        self: Box<Self>,
        schema: Schema,
        connection: &'c mut PgConnection,
    ) -> Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'c>> {
        Box::pin(P::store(self.0, schema, connection))
    }

    fn copy(self: Box<Self>, sink: &mut CopySink) -> Result<(), CopyError> {
        P::copy(self.0, sink)
    }
}

macro_rules! projections {
    ($($projection:ty),+ $(,)?) => {
        /// Every read model.
        pub const ALL: &[&dyn AnyProjection] = &[$(&Of::<$projection>::NEW),+];
    };
}

projections![
    crate::wallet_balance::WalletBalance,
    crate::wallet_ledger::WalletLedger,
    crate::usage_log::UsageLog,
    crate::rate_limit_windows::RateLimitWindows,
    crate::open_holds::OpenHolds,
    crate::accounts::Accounts,
    crate::tenants::Tenants,
    crate::api_keys::ApiKeys,
    crate::sessions::Sessions,
    crate::provider_keys::ProviderKeys,
    crate::journal::Journal,
    crate::account_balances::AccountBalances,
    crate::trial_balance::TrialBalance,
    crate::wallet_days::WalletDays,
    crate::open_grants::OpenGrants,
    crate::adjustments::Adjustments,
    crate::periods::Periods,
    crate::reconciliations::Reconciliations,
];

/// The read model of that name, if there is one.
#[must_use]
pub fn find(name: &str) -> Option<&'static dyn AnyProjection> {
    ALL.iter().find(|projection| projection.name() == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;
    use crate::samples::Sample;

    #[test]
    fn names_are_distinct_and_name_the_first_table() {
        for (index, projection) in ALL.iter().enumerate() {
            assert_eq!(projection.tables()[0].name, projection.name());
            assert!(ALL[..index].iter().all(|other| other.name() != projection.name()));
            assert_eq!(find(projection.name()).map(AnyProjection::name), Some(projection.name()));
        }
        assert!(find("nothing").is_none());
    }

    #[test]
    fn every_key_is_made_of_columns_and_contains_the_partition() {
        for table in ALL.iter().flat_map(|projection| projection.tables()) {
            assert!(table.key.contains(&"partition"), "{}", table.name);
            assert!(table.key.iter().all(|column| table.column_names.contains(column)), "{}", table.name);
            let names: Vec<_> = table.columns.iter().map(|column| column.name).collect();
            assert_eq!(names, table.column_names, "{}", table.name);
        }
    }

    #[test]
    fn every_read_model_knows_every_aggregate_and_refuses_events_that_its_own_never_wrote() {
        for projection in ALL {
            let mut readers = Vec::new();
            for kind in Kind::ALL {
                let sample = Sample { aggregate_type: kind.as_str(), event_type: "invented", payload: "{}".to_owned() };
                match projection.fold().project(&sample.at(1)) {
                    Ok(()) => {}
                    Err(ProjectError::UnknownEvent { .. }) => readers.push(kind),
                    Err(other) => panic!("{} and {kind:?}: {other}", projection.name()),
                }
            }
            // The book is made of what wallets, payments and payouts do, and where logins came from goes with the person;
            // everything else is about one kind.
            let book = [&Kind::Wallet, &Kind::Payment, &Kind::Payout];
            let of_the_book = ["journal", "account_balances", "trial_balance", "wallet_days"];
            if of_the_book.contains(&projection.name()) {
                assert_eq!(readers, book, "{}", projection.name());
            } else if projection.name() == "sessions" {
                assert_eq!(readers, [&Kind::Account, &Kind::Session]);
            } else {
                assert_eq!(readers.len(), 1, "{} reads {readers:?}", projection.name());
            }
            let stranger = Sample { aggregate_type: "stranger", event_type: "invented", payload: "{}".to_owned() };
            let refused = projection.fold().project(&stranger.at(1));
            assert!(matches!(refused, Err(ProjectError::UnknownAggregate(_))), "{}", projection.name());
        }
    }
}
