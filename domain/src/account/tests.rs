use uuid::Uuid;

use super::*;
use crate::sealed::Sealed;
use crate::{Decider, OperationId, SubjectId, TenantId, Timestamp, UserId};

const AT: Timestamp = Timestamp::from_micros(1_000_000);

fn sealed(text: &str) -> Sealed {
    Sealed { subject: SubjectId(Uuid::from_u128(1)), ciphertext: text.to_owned() }
}

fn registration(email_hash: &str) -> AccountRegistered {
    AccountRegistered {
        user_id: UserId(Uuid::from_u128(1)),
        email: sealed("email"),
        email_hash: email_hash.to_owned(),
        display_name: None,
        password_hash: sealed("hash"),
        personal_tenant_id: TenantId(Uuid::from_u128(2)),
        referred_by: None,
        registered_at: AT,
    }
}

fn given(events: &[AccountEvent]) -> Account {
    let mut account = Account::default();
    events.iter().for_each(|event| account.evolve(event));
    account
}

fn registered() -> AccountEvent {
    AccountEvent::AccountRegistered(registration("one"))
}

#[test]
fn a_registration_is_recorded_once() {
    let command = || AccountCommand::Register(registration("one"));
    assert_eq!(given(&[]).decide(command()), Ok(vec![registered()]));
    assert_eq!(given(&[registered()]).decide(command()), Ok(Vec::new()));
}

#[test]
fn an_account_is_never_registered_over_with_another_address() {
    let command = AccountCommand::Register(registration("two"));
    assert_eq!(given(&[registered()]).decide(command), Err(AccountRefusal::AlreadyRegistered));
}

#[test]
fn nothing_but_a_registration_is_taken_by_an_unknown_account() {
    let unknown = given(&[]);
    for command in [
        AccountCommand::ChangePassword { password_hash: sealed("new"), at: AT },
        AccountCommand::GrantStaffRole { role: StaffRole::Finance, at: AT },
        AccountCommand::RevokeStaffRole { role: StaffRole::Finance, at: AT },
        AccountCommand::FoundTenant { tenant_id: TenantId(Uuid::from_u128(3)), at: AT },
    ] {
        assert_eq!(unknown.decide(command), Err(AccountRefusal::NotRegistered));
    }
}

#[test]
fn a_changed_password_replaces_the_one_before() {
    let mut account = given(&[registered()]);
    let events = account.decide(AccountCommand::ChangePassword { password_hash: sealed("new"), at: AT }).unwrap();
    assert_eq!(events.len(), 1);
    events.iter().for_each(|event| account.evolve(event));
    assert_eq!(account.profile.as_ref().unwrap().password_hash, sealed("new"));
    assert_eq!(account.decide(AccountCommand::ChangePassword { password_hash: sealed("new"), at: AT }), Ok(Vec::new()));
}

#[test]
fn a_staff_role_is_granted_and_revoked_once_each() {
    let mut account = given(&[registered()]);
    let grant = || AccountCommand::GrantStaffRole { role: StaffRole::Operator, at: AT };
    let revoke = || AccountCommand::RevokeStaffRole { role: StaffRole::Operator, at: AT };
    assert_eq!(account.decide(revoke()), Ok(Vec::new()));
    let granted = account.decide(grant()).unwrap();
    assert_eq!(
        granted,
        [AccountEvent::StaffRoleGranted(StaffRoleGranted { role: StaffRole::Operator, granted_at: AT })]
    );
    granted.iter().for_each(|event| account.evolve(event));
    assert_eq!(account.decide(grant()), Ok(Vec::new()));
    let revoked = account.decide(revoke()).unwrap();
    revoked.iter().for_each(|event| account.evolve(event));
    assert!(account.staff_roles.is_empty());
}

#[test]
fn one_person_creates_ten_tenants_and_a_repetition_counts_once() {
    let mut account = given(&[registered()]);
    let found = |n: u128| AccountCommand::FoundTenant { tenant_id: TenantId(Uuid::from_u128(n)), at: AT };
    for n in 10..20 {
        let founded = TenantFounded { tenant_id: TenantId(Uuid::from_u128(n)), founded_at: AT };
        let events = account.decide(found(n)).unwrap();
        assert_eq!(events, [AccountEvent::TenantFounded(founded)]);
        account.evolve(&events[0]);
        assert_eq!(account.decide(found(n)), Ok(Vec::new()));
    }
    assert_eq!(account.decide(found(20)), Err(AccountRefusal::TooManyTenants { founded: TENANTS_FOUNDED_MAX }));
}

fn erase() -> AccountCommand {
    AccountCommand::Erase { operation_id: OperationId(Uuid::from_u128(7)), at: AT }
}

#[test]
fn an_erased_account_keeps_its_tenants_and_nothing_of_the_person() {
    let founded = TenantFounded { tenant_id: TenantId(Uuid::from_u128(3)), founded_at: AT };
    let role = StaffRoleGranted { role: StaffRole::Operator, granted_at: AT };
    let mut account =
        given(&[registered(), AccountEvent::TenantFounded(founded), AccountEvent::StaffRoleGranted(role)]);
    let events = account.decide(erase()).unwrap();
    let erased = AccountErased {
        subject: SubjectId(Uuid::from_u128(1)),
        operation_id: OperationId(Uuid::from_u128(7)),
        erased_at: AT,
    };
    assert_eq!(events, [AccountEvent::AccountErased(erased)]);
    account.evolve(&events[0]);
    let left = Erased { erased_at: AT, personal_tenant_id: Some(TenantId(Uuid::from_u128(2))) };
    assert_eq!((account.profile.clone(), account.erased, account.founded.len()), (None, Some(left), 1));
    assert!(account.staff_roles.is_empty());
    assert_eq!(account.decide(erase()), Ok(Vec::new()));
}

#[test]
fn an_erased_account_takes_nothing_any_more() {
    let mut account = given(&[registered()]);
    assert_eq!(given(&[]).decide(erase()), Err(AccountRefusal::NotRegistered));
    for event in account.decide(erase()).unwrap() {
        account.evolve(&event);
    }
    for command in [
        AccountCommand::Register(registration("one")),
        AccountCommand::Register(registration("two")),
        AccountCommand::ChangePassword { password_hash: sealed("new"), at: AT },
        AccountCommand::GrantStaffRole { role: StaffRole::Finance, at: AT },
        AccountCommand::RevokeStaffRole { role: StaffRole::Finance, at: AT },
        AccountCommand::FoundTenant { tenant_id: TenantId(Uuid::from_u128(3)), at: AT },
    ] {
        assert_eq!(account.decide(command), Err(AccountRefusal::Erased));
    }
}
