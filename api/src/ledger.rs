//! What the pages of tenants and of finance share: up to which moment a ledger is known, which months are closed, and
//! whether a tenant exists at all. Closings and tenants are asked of their aggregates, not of a read model.

use std::collections::BTreeMap;

use sqlx::Row as _;

use calos_adapters::postgres::Timestamptz;
use calos_commands::fault::Never;
use calos_commands::log::{EventLog, Failed, Plan, Positions};
use calos_commands::metadata::{Actor, Metadata};
use calos_domain::period::{ClosedMonth, Month, PERIODS_STREAM, Periods};
use calos_domain::tenant::Tenant;
use calos_domain::{StreamId, TenantId, Timestamp};

use crate::error::ApiError;
use crate::wiring::App;

/// Up to where one tenant's ledger is known: the head of its partition of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The partition.
    pub partition: i32,
    /// Its last position.
    pub position: i64,
    /// When that one was recorded; nothing later is known.
    pub known_at: Timestamp,
}

impl Cut {
    /// Where a tenant's partition is now.
    ///
    /// # Errors
    /// The database's.
    pub async fn of(app: &App, tenant: TenantId) -> Result<Self, ApiError> {
        Self::of_key(app, &tenant.to_string()).await
    }

    /// Where the partition of a stream key is now.
    ///
    /// # Errors
    /// The database's.
    pub async fn of_key(app: &App, key: &str) -> Result<Self, ApiError> {
        let partition = app.log.partition_of(key);
        let head = sqlx::query("SELECT last_position, last_recorded_at FROM heads WHERE partition = $1");
        let head = head.bind(partition).fetch_one(&app.pool).await?;
        let known_at: Timestamptz = head.try_get("last_recorded_at")?;
        Ok(Self { partition, position: head.try_get("last_position")?, known_at: known_at.0 })
    }

    /// Waits until read models have seen everything up to here, so that they tell one story.
    ///
    /// # Errors
    /// 503 `projection_behind`.
    pub async fn seen_by(&self, app: &App, projections: &[&'static str]) -> Result<(), ApiError> {
        let positions = Positions(BTreeMap::from([(self.partition, self.position)]));
        for projection in projections {
            app.wait_for(projection, &positions).await?;
        }
        Ok(())
    }
}

/// The months that are closed, in order.
///
/// # Errors
/// The log's.
pub async fn closings(app: &App) -> Result<Vec<ClosedMonth>, ApiError> {
    let mut plan = Plan::default();
    let periods = plan.stream::<Periods>(StreamId::key(PERIODS_STREAM));
    let found: Result<_, Failed<Never>> = app
        .log
        .execute(&plan, looking().into(), |unit| Ok(unit.with(periods, |periods| periods.closed().to_vec())))
        .await;
    Ok(found?.answer)
}

/// The closing that fixed what is known of a month: its own, or the first one after it. The first month ever closed
/// fixed everything before it as well.
#[must_use]
pub fn closing_of(closings: &[ClosedMonth], month: Month) -> Option<&ClosedMonth> {
    closings.iter().find(|closed| closed.month >= month)
}

/// The closing that fixed the months before this one.
#[must_use]
pub fn closing_before(closings: &[ClosedMonth], month: Month) -> Option<&ClosedMonth> {
    closings.iter().find(|closed| closed.month.next() >= month)
}

/// What people call a tenant.
///
/// # Errors
/// 404 where there is none; the log's.
pub async fn tenant_name(app: &App, tenant_id: TenantId) -> Result<String, ApiError> {
    let mut plan = Plan::default();
    let tenant = plan.stream::<Tenant>(StreamId::key(tenant_id));
    let found: Result<_, Failed<Never>> =
        app.log.execute(&plan, looking().into(), |unit| Ok(unit.with(tenant, |tenant| tenant.name.clone()))).await;
    found?.answer.ok_or_else(|| ApiError::not_found("tenant"))
}

fn looking() -> Metadata {
    Metadata::new(Actor::System("look-up"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(month: &str, known_at: i64) -> ClosedMonth {
        let at = Timestamp::from_micros(known_at);
        ClosedMonth { month: month.parse().unwrap(), closed_at: at, as_known_at: at, hash: String::new() }
    }

    #[test]
    fn a_month_is_fixed_by_its_own_closing_or_the_first_one_after_it() {
        let closings = [closed("2026-08", 8), closed("2026-09", 9)];
        let known = |found: Option<&ClosedMonth>| found.map(|closed| closed.as_known_at.micros());
        for (month, own, before) in [
            ("2026-06", Some(8), Some(8)),
            ("2026-08", Some(8), Some(8)),
            ("2026-09", Some(9), Some(8)),
            ("2026-10", None, Some(9)),
            ("2026-11", None, None),
        ] {
            let month = month.parse().unwrap();
            assert_eq!((known(closing_of(&closings, month)), known(closing_before(&closings, month))), (own, before));
        }
        assert_eq!(closing_before(&[], "2026-01".parse().unwrap()), None);
    }
}
