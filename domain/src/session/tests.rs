use uuid::Uuid;

use super::*;
use crate::{Decider, DeviceId, SessionId, TenantId, Timestamp, UserId};

const START: Timestamp = Timestamp::from_micros(1_000_000);

fn start() -> SessionStarted {
    SessionStarted {
        session_id: SessionId(Uuid::from_u128(1)),
        user_id: UserId(Uuid::from_u128(2)),
        tenant_id: TenantId(Uuid::from_u128(3)),
        device_id: DeviceId(Uuid::from_u128(4)),
        started_at: START,
        expires_at: START.plus_seconds(60),
        address: None,
        user_agent: None,
    }
}

fn given(events: &[SessionEvent]) -> Session {
    let mut session = Session::default();
    events.iter().for_each(|event| session.evolve(event));
    session
}

fn ended(cause: SessionEndCause) -> SessionEvent {
    SessionEvent::SessionEnded(SessionEnded { cause, ended_at: START.plus_seconds(5) })
}

#[test]
fn a_session_starts_once() {
    assert_eq!(given(&[]).decide(SessionCommand::Start(start())), Ok(vec![SessionEvent::SessionStarted(start())]));
    let running = given(&[SessionEvent::SessionStarted(start())]);
    assert_eq!(running.decide(SessionCommand::Start(start())), Ok(Vec::new()));
    let stranger = SessionStarted { user_id: UserId(Uuid::from_u128(9)), ..start() };
    assert_eq!(running.decide(SessionCommand::Start(stranger)), Err(SessionRefusal::AlreadyStarted));
}

#[test]
fn a_session_that_ends_before_it_starts_is_refused() {
    let backwards = SessionStarted { expires_at: START, ..start() };
    assert_eq!(
        given(&[]).decide(SessionCommand::Start(backwards)),
        Err(SessionRefusal::EndsBeforeStart { started_at: START, expires_at: START })
    );
}

#[test]
fn a_session_ends_once_and_keeps_its_first_cause() {
    let mut session = given(&[SessionEvent::SessionStarted(start())]);
    let end = |cause| SessionCommand::End { cause, at: START.plus_seconds(5) };
    let events = session.decide(end(SessionEndCause::LoggedOut)).unwrap();
    assert_eq!(events, [ended(SessionEndCause::LoggedOut)]);
    events.iter().for_each(|event| session.evolve(event));
    assert_eq!(session.decide(end(SessionEndCause::Revoked)), Ok(Vec::new()));
    assert_eq!(session.ended, Some(SessionEndCause::LoggedOut));
}

#[test]
fn a_session_that_never_started_cannot_end() {
    let end = SessionCommand::End { cause: SessionEndCause::Revoked, at: START };
    assert_eq!(given(&[]).decide(end), Err(SessionRefusal::NotStarted));
}

#[test]
fn a_session_stands_until_it_is_ended_or_out_of_time() {
    let running = given(&[SessionEvent::SessionStarted(start())]);
    assert_eq!(running.standing(START).unwrap().user_id, start().user_id);
    assert!(running.standing(START.plus_seconds(59)).is_ok());
    assert_eq!(
        running.standing(START.plus_seconds(60)),
        Err(SessionRefusal::Expired { expired_at: START.plus_seconds(60) })
    );
    let over = given(&[SessionEvent::SessionStarted(start()), ended(SessionEndCause::Revoked)]);
    assert_eq!(over.standing(START), Err(SessionRefusal::Ended { cause: SessionEndCause::Revoked }));
    assert_eq!(given(&[]).standing(START), Err(SessionRefusal::NotStarted));
}
