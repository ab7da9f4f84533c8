//! Invariant 11: what was known at a moment does not change once it has passed; and what is known now is what the book of the
//! simulation says.

use calos_domain::{Asset, TenantId, Timestamp};
use calos_projections::as_of::{self, AsOf, TrialLine, WalletAt};

use super::Fault;
use super::driver::Driver;
use super::figures::Sum;

/// Moments that are asked about again, at each checkpoint: the latest ones.
const ASKED_AGAIN_MAX_COUNT: usize = 4;

/// What was known at a moment.
pub struct KnownAt {
    at: Timestamp,
    trial: Vec<TrialLine>,
    wallets: Vec<(TenantId, Vec<WalletAt>)>,
}

impl Driver {
    /// With every read model at the head and no server writing: the figures as of now are the model's, and those as known
    /// at earlier checkpoints are what they were.
    pub(super) async fn known_figures_stand(&mut self) -> Result<(), Fault> {
        let now: i64 = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8")
            .fetch_one(&mut self.owner)
            .await?;
        let all = self.known(AsOf::default(), self.tenants.iter().map(|tenant| tenant.id).collect()).await?;
        self.is_the_book(&all.trial)?;
        for ((tenant, shown), place) in all.wallets.iter().zip(0..) {
            let figures = &self.tenants[place].model.figures;
            for asset in Asset::ALL {
                let shown = shown.iter().find(|wallet| wallet.asset == asset);
                let shown = shown.map_or([0; 3], |known| [known.available, known.held, known.debt].map(Sum::from));
                let expected = [figures.available(asset), figures.held(asset), figures.debt(asset)];
                if shown != expected {
                    let fault = format!("{tenant} in {asset}: as of now it is {shown:?}, the model has {expected:?}");
                    return Err(Fault::Violation(fault));
                }
            }
        }
        let earlier = self.known_at.len().saturating_sub(ASKED_AGAIN_MAX_COUNT);
        for place in earlier..self.known_at.len() {
            let before = &self.known_at[place];
            let tenants = before.wallets.iter().map(|wallet| wallet.0).collect();
            let as_of = AsOf { effective: None, recorded: Some(before.at) };
            let again = self.known(as_of, tenants).await?;
            let before = &self.known_at[place];
            if again.trial != before.trial {
                let fault = format!("known at {:?} were {:?}, now {:?}", before.at, before.trial, again.trial);
                return Err(Fault::Violation(fault));
            }
            if again.wallets != before.wallets {
                let fault = format!("known at {:?} were {:?}, now {:?}", before.at, before.wallets, again.wallets);
                return Err(Fault::Violation(fault));
            }
        }
        self.known_at.push(KnownAt { at: Timestamp::from_micros(now), ..all });
        Ok(())
    }

    async fn known(&mut self, at: AsOf, tenants: Vec<TenantId>) -> Result<KnownAt, Fault> {
        let process = self.process().await?;
        let pool = process.pool.clone();
        let asking = process.spawn(async move {
            let trial = as_of::trial_balance(&pool, at).await?;
            let mut wallets = Vec::with_capacity(tenants.len());
            for tenant in tenants {
                wallets.push((tenant, as_of::wallet(&pool, tenant, at).await?));
            }
            Ok::<_, as_of::AsOfError>(KnownAt { at: Timestamp::from_micros(0), trial, wallets })
        })?;
        match asking.await {
            Ok(Ok(known)) => Ok(known),
            Ok(Err(error)) => Err(Fault::Violation(format!("the figures as of a moment: {error}"))),
            Err(error) => Err(Fault::Environment(format!("asking was lost: {error}"))),
        }
    }

    /// The trial balance that is shown has the balances of this book, class by class.
    fn is_the_book(&self, shown: &[TrialLine]) -> Result<(), Fault> {
        let mut booked = self.ledger.classes();
        for line in shown {
            let balance = Sum::from(line.debit) - Sum::from(line.credit);
            let expected = booked.remove(&(line.account.to_string(), line.asset)).unwrap_or_default();
            if balance != expected {
                let fault = format!("{} in {}: shown is {balance}, booked {expected}", line.account, line.asset);
                return Err(Fault::Violation(fault));
            }
        }
        match booked.into_iter().find(|(_, balance)| *balance != 0) {
            None => Ok(()),
            Some(((account, asset), balance)) => {
                Err(Fault::Violation(format!("{account} in {asset}: booked is {balance}, shown nothing")))
            }
        }
    }
}
