//! Looking accounts up by what is known of them.

use calos_domain::account::{Account, Profile};
use calos_domain::email_claim::{EmailAddress, EmailClaim};
use calos_domain::{StreamId, UserId};

use crate::fault::{Fault, Never};
use crate::log::{EventLog, Plan};
use crate::metadata::{Actor, Metadata};
use crate::ports::Digests;

/// The stream of the claim on an address.
#[must_use]
pub fn claim_stream(email_hash: &str) -> StreamId {
    StreamId::key(email_hash)
}

/// The stream of an account.
#[must_use]
pub fn account_stream(user_id: UserId) -> StreamId {
    StreamId::key(user_id)
}

/// The envelope of a look that appends nothing.
pub(crate) fn looking() -> Metadata {
    Metadata::new(Actor::System("look-up"))
}

/// Who holds an address, by the hash that names its claim.
///
/// # Errors
/// The log's.
pub async fn holder_of<L: EventLog>(log: &L, email_hash: &str) -> Result<Option<UserId>, Fault<Never>> {
    let mut plan = Plan::default();
    let claim = plan.stream::<EmailClaim>(claim_stream(email_hash));
    let found = log.execute(&plan, looking().into(), |unit| Ok::<_, Never>(unit.read(claim).holder)).await?;
    Ok(found.answer)
}

/// An account's state; the default one for an unknown user.
///
/// # Errors
/// The log's.
pub async fn account_of<L: EventLog>(log: &L, user_id: UserId) -> Result<Account, Fault<Never>> {
    let mut plan = Plan::default();
    let account = plan.stream::<Account>(account_stream(user_id));
    let found = log.execute(&plan, looking().into(), |unit| Ok::<_, Never>(unit.read(account))).await?;
    Ok(found.answer)
}

/// The profile behind an address, if anybody registered with it.
///
/// # Errors
/// The log's.
pub async fn profile_by_email<L: EventLog>(
    log: &L,
    digests: &dyn Digests,
    email: &EmailAddress,
) -> Result<Option<Profile>, Fault<Never>> {
    match holder_of(log, &digests.email(email)).await? {
        Some(user_id) => Ok(account_of(log, user_id).await?.profile),
        None => Ok(None),
    }
}
