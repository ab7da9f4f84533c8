//! What a signed-in person may know about themselves, the tenant they act for, and the device they are on.

use calos_domain::account::{Account, StaffRole};
use calos_domain::device::{Device, TrustLevel};
use calos_domain::licence::Licence;
use calos_domain::session::Started;
use calos_domain::tenant::{MemberRole, Tenant};
use calos_domain::tiers::Tier;
use calos_domain::wallet::Wallet;
use calos_domain::{Asset, MicroUsd, StreamId, Timestamp};

use crate::accounts::{account_stream, looking};
use crate::fault::{Fault, Never};
use crate::log::{EventLog, Plan, Unit};
use crate::ports::{World, label};
use crate::sessions::device_stream;

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct WhoAmI {
    /// The address as typed.
    pub email: String,
    /// What they want to be called.
    pub display_name: Option<String>,
    /// What they are in the tenant they act for; none once they no longer belong to it.
    pub role: Option<MemberRole>,
    /// What they may do for CALOS itself.
    pub staff_roles: Vec<StaffRole>,
    /// How far the device is trusted.
    pub trust: Option<TrustLevel>,
    /// What the tenant can spend.
    pub available: MicroUsd,
    /// What the tenant subscribes to.
    pub tier: Option<Tier>,
}

/// Looks everything up as of now; none for an account that is not there.
///
/// # Errors
/// The log's, or the key store's.
pub async fn who_am_i<L: EventLog>(
    log: &L,
    world: &World,
    session: &Started,
    now: Timestamp,
) -> Result<Option<WhoAmI>, Fault<Never>> {
    let mut plan = Plan::default();
    let of_tenant = StreamId::key(session.tenant_id);
    let account = plan.stream::<Account>(account_stream(session.user_id));
    let device = plan.stream::<Device>(device_stream(session.user_id, session.device_id));
    let tenant = plan.stream::<Tenant>(of_tenant.clone());
    let licence = plan.stream::<Licence>(of_tenant.clone());
    let wallet = plan.stream::<Wallet>(of_tenant);
    let look = |unit: &mut Unit<'_>| {
        let found = (
            unit.read(account),
            unit.with(device, |device| device.trust),
            unit.with(tenant, |tenant| tenant.members.get(&session.user_id).copied()),
            unit.with(licence, Licence::tier),
            unit.with(wallet, |wallet| wallet.available_at(Asset::Usd, now)),
        );
        Ok::<_, Never>(found)
    };
    let (account, trust, role, tier, available) = log.execute(&plan, looking().into(), look).await?.answer;
    let Some(profile) = account.profile else { return Ok(None) };
    let email = world.personal_data.open(&profile.email, label::EMAIL).await?;
    let display_name = match &profile.display_name {
        Some(sealed) => Some(world.personal_data.open(sealed, label::DISPLAY_NAME).await?),
        None => None,
    };
    Ok(Some(WhoAmI {
        email,
        display_name,
        role,
        staff_roles: account.staff_roles.into_iter().collect(),
        trust,
        available: MicroUsd::new(available.get()),
        tier,
    }))
}
