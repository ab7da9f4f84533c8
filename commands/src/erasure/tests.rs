use calos_domain::OperationId;
use calos_domain::account::{AccountRegistered, StaffRole};
use calos_domain::device::{DeviceTrusted, TrustLevel, TrustPath};
use calos_domain::sealed::Sealed;
use calos_domain::session::SessionStarted;
use calos_domain::tenant::TenantCreated;
use uuid::Uuid;

use super::*;
use crate::memory_log::MemoryLog;

const AT: Timestamp = Timestamp::from_micros(1_000_000);
const ANNA: UserId = UserId(Uuid::from_u128(1));
const BEN: UserId = UserId(Uuid::from_u128(2));
const TENANT: TenantId = TenantId(Uuid::from_u128(3));
const DEVICE: DeviceId = DeviceId(Uuid::from_u128(4));
const SESSIONS: [SessionId; 2] = [SessionId(Uuid::from_u128(5)), SessionId(Uuid::from_u128(6))];

fn sealed() -> Sealed {
    Sealed { subject: SubjectId(ANNA.0), ciphertext: "AAEC".to_owned() }
}

fn run() -> RunBy {
    RunBy {
        operation_id: OperationId(Uuid::from_u128(9)),
        user_id: None,
        operator: "olga".to_owned(),
        reason: "a letter".to_owned(),
    }
}

fn signed_in() -> SignedIn {
    SignedIn { sessions: SESSIONS.to_vec(), devices: vec![DEVICE] }
}

fn started(session_id: SessionId, expires_at: Timestamp) -> SessionStarted {
    SessionStarted {
        session_id,
        user_id: ANNA,
        tenant_id: TENANT,
        device_id: DEVICE,
        started_at: Timestamp::from_micros(1),
        expires_at,
        address: Some(sealed()),
        user_agent: None,
    }
}

/// Anna, with a device, a session that stands and one that has run out.
async fn anna() -> MemoryLog {
    let log = MemoryLog::default();
    let registered = AccountRegistered {
        user_id: ANNA,
        email: sealed(),
        email_hash: "hash".to_owned(),
        display_name: None,
        password_hash: sealed(),
        personal_tenant_id: TENANT,
        referred_by: None,
        registered_at: AT,
    };
    log.ask::<Account>(account_stream(ANNA), AccountCommand::Register(registered)).await.unwrap();
    let role = AccountCommand::GrantStaffRole { role: StaffRole::Finance, at: AT };
    log.ask::<Account>(account_stream(ANNA), role).await.unwrap();
    let claim = EmailClaimCommand::Claim { user_id: ANNA, at: AT };
    log.ask::<EmailClaim>(claim_stream("hash"), claim).await.unwrap();
    let trusted = DeviceTrusted {
        device_id: DEVICE,
        user_id: ANNA,
        fingerprint: "aa".to_owned(),
        nickname: sealed(),
        platform: "Linux".to_owned(),
        trust_level: TrustLevel::Password,
        path: TrustPath::Registration,
        trusted_at: AT,
    };
    log.ask::<Device>(device_stream(ANNA, DEVICE), DeviceCommand::Trust(trusted)).await.unwrap();
    for (session, expires_at) in SESSIONS.into_iter().zip([AT.plus_seconds(60), AT]) {
        let start = SessionCommand::Start(started(session, expires_at));
        log.ask::<Session>(session_stream(ANNA, session), start).await.unwrap();
    }
    log
}

#[tokio::test]
async fn an_erasure_closes_ends_and_records_everything_in_one_append() {
    let log = anna().await;
    let done = close(&log, ANNA, &signed_in(), &run(), AT).await.unwrap();
    assert_eq!(done.answer, Some(Ended { sessions: 1, devices: 1 }));
    assert_eq!(log.names::<Account>(&account_stream(ANNA)).last(), Some(&"account_erased"));
    assert_eq!(log.state::<EmailClaim>(&claim_stream("hash")).holder, None);
    assert_eq!(log.names::<Operation>(&StreamId::key(run().operation_id)), ["subject_erased"]);
    assert!(log.state::<Session>(&session_stream(ANNA, SESSIONS[0])).standing(AT).is_err());
    assert_eq!(log.names::<Session>(&session_stream(ANNA, SESSIONS[1])), ["session_started"]);
    assert_eq!(log.state::<Device>(&device_stream(ANNA, DEVICE)).trust, None);

    let again = RunBy { operation_id: OperationId(Uuid::from_u128(10)), ..run() };
    assert_eq!(close(&log, ANNA, &signed_in(), &again, AT).await.unwrap().answer, None);
    assert!(log.names::<Operation>(&StreamId::key(again.operation_id)).is_empty());
    assert_eq!(end_rest(&log, ANNA, &signed_in(), &again, AT).await.unwrap().answer, Ended::default());
}

#[tokio::test]
async fn an_address_that_somebody_else_claimed_since_stays_theirs() {
    let log = anna().await;
    let release = EmailClaimCommand::Release { user_id: ANNA, at: AT };
    log.ask::<EmailClaim>(claim_stream("hash"), release).await.unwrap();
    log.ask::<EmailClaim>(claim_stream("hash"), EmailClaimCommand::Claim { user_id: BEN, at: AT }).await.unwrap();
    assert!(close(&log, ANNA, &SignedIn::default(), &run(), AT).await.unwrap().answer.is_some());
    assert_eq!(log.state::<EmailClaim>(&claim_stream("hash")).holder, Some(BEN));
}

#[tokio::test]
async fn nobody_who_never_registered_is_erased_and_no_run_without_a_reason() {
    let log = MemoryLog::default();
    let refused = close(&log, ANNA, &SignedIn::default(), &run(), AT).await;
    assert!(matches!(refused, Err(Fault::Refused(ErasureRefusal::Account(AccountRefusal::NotRegistered)))));
    let log = anna().await;
    let silent = RunBy { reason: String::new(), ..run() };
    let refused = close(&log, ANNA, &SignedIn::default(), &silent, AT).await;
    assert!(matches!(refused, Err(Fault::Refused(ErasureRefusal::Operation(_)))));
    assert!(log.state::<Account>(&account_stream(ANNA)).profile.is_some());
}

#[tokio::test]
async fn a_session_of_an_erased_person_does_not_stand_even_before_it_is_ended() {
    use crate::ports::SessionClaims;
    let log = anna().await;
    let claims =
        SessionClaims { user_id: ANNA, tenant_id: TENANT, session_id: SESSIONS[0], expires_at: AT.plus_seconds(60) };
    assert!(crate::sessions::check(&log, &claims, AT).await.is_ok());
    close(&log, ANNA, &SignedIn::default(), &run(), AT).await.unwrap();
    let refused = crate::sessions::check(&log, &claims, AT).await;
    let erased = SessionRefusal::Ended { cause: SessionEndCause::Erased };
    assert!(matches!(refused, Err(Fault::Refused(refusal)) if refusal == erased));
}

async fn tenant_with(others: &[(UserId, MemberRole)]) -> MemoryLog {
    let log = MemoryLog::default();
    let created =
        TenantCreated { tenant_id: TENANT, name: "Acme".to_owned(), personal: false, owner: ANNA, created_at: AT };
    log.ask::<Tenant>(tenant_stream(TENANT), TenantCommand::Create(created)).await.unwrap();
    for (user_id, role) in others {
        let add = TenantCommand::AddMember { user_id: *user_id, role: *role, at: AT };
        log.ask::<Tenant>(tenant_stream(TENANT), add).await.unwrap();
    }
    log
}

#[tokio::test]
async fn a_tenant_goes_on_with_its_other_members_and_never_without_an_owner() {
    let alone = tenant_with(&[]).await;
    assert!(matches!(leave(&alone, TENANT, ANNA, &run(), AT).await.unwrap(), Left::Alone(_)));
    let with_an_owner = tenant_with(&[(BEN, MemberRole::Owner)]).await;
    assert_eq!(leave(&with_an_owner, TENANT, ANNA, &run(), AT).await.unwrap(), Left::ToOthers);
    assert_eq!(leave(&with_an_owner, TENANT, ANNA, &run(), AT).await.unwrap(), Left::NotAMember);
    let without = tenant_with(&[(BEN, MemberRole::Admin)]).await;
    assert_eq!(leave(&without, TENANT, ANNA, &run(), AT).await.unwrap(), Left::WithoutAnOwner);
    assert!(without.state::<Tenant>(&tenant_stream(TENANT)).members.contains_key(&ANNA));
}
