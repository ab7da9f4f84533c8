//! Who works for CALOS itself. Decided at the console of the machine.

use calos_domain::account::{Account, AccountCommand, AccountRefusal, StaffRole};
use calos_domain::email_claim::EmailAddress;
use calos_domain::{Timestamp, UserId};

use crate::accounts::{account_stream, holder_of};
use crate::fault::Fault;
use crate::log::{Done, EventLog, Plan, Request};
use crate::ports::World;

/// Gives a person a role; giving it again changes nothing. Answers who it was.
///
/// # Errors
/// [`AccountRefusal::NotRegistered`] when nobody has the address; the log's.
pub async fn grant<L: EventLog>(
    log: &L,
    world: &World,
    email: &EmailAddress,
    role: StaffRole,
    at: Timestamp,
    request: Request,
) -> Result<Done<UserId>, Fault<AccountRefusal>> {
    change(log, world, email, AccountCommand::GrantStaffRole { role, at }, request).await
}

/// Takes a role away; taking it again changes nothing. Answers who it was.
///
/// # Errors
/// [`AccountRefusal::NotRegistered`] when nobody has the address; the log's.
pub async fn revoke<L: EventLog>(
    log: &L,
    world: &World,
    email: &EmailAddress,
    role: StaffRole,
    at: Timestamp,
    request: Request,
) -> Result<Done<UserId>, Fault<AccountRefusal>> {
    change(log, world, email, AccountCommand::RevokeStaffRole { role, at }, request).await
}

async fn change<L: EventLog>(
    log: &L,
    world: &World,
    email: &EmailAddress,
    command: AccountCommand,
    request: Request,
) -> Result<Done<UserId>, Fault<AccountRefusal>> {
    let holder =
        holder_of(log, &world.digests.email(email)).await.map_err(|fault| fault.map(|never| match never {}))?;
    let user_id = holder.ok_or(Fault::Refused(AccountRefusal::NotRegistered))?;
    let mut plan = Plan::default();
    let account = plan.stream::<Account>(account_stream(user_id));
    let done = log.execute(&plan, request, |unit| unit.decide(account, command.clone()).map(|_| user_id)).await?;
    Ok(done)
}
