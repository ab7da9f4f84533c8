//! Which events a command on a session leads to.

use super::{Session, SessionEndCause, SessionEnded, SessionEvent, SessionStarted};
use crate::{Decider, Timestamp};

/// What can be asked of a session.
#[derive(Clone, PartialEq, Debug)]
pub enum SessionCommand {
    /// Sign somebody in, who has proved who they are.
    Start(SessionStarted),
    /// Sign them out.
    End {
        /// Why.
        cause: SessionEndCause,
        /// When.
        at: Timestamp,
    },
}

/// Why a session refuses, or does not stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SessionRefusal {
    /// There is no such session.
    #[error("there is no such session")]
    NotStarted,
    /// The id belongs to a session that started before.
    #[error("this session has started already")]
    AlreadyStarted,
    /// A session that would be over before it begins.
    #[error("a session cannot end at {expires_at:?} when it starts at {started_at:?}")]
    EndsBeforeStart {
        /// Its start.
        started_at: Timestamp,
        /// Its end.
        expires_at: Timestamp,
    },
    /// It ended before its time.
    #[error("this session has ended; sign in again")]
    Ended {
        /// Why.
        cause: SessionEndCause,
    },
    /// It ran out of time.
    #[error("this session has expired; sign in again")]
    Expired {
        /// When.
        expired_at: Timestamp,
    },
}

impl Decider for Session {
    const KIND: &'static str = "session";
    const SNAPSHOT_VERSION: i32 = 1;
    type Command = SessionCommand;
    type Event = SessionEvent;
    type Refusal = SessionRefusal;

    fn decide(&self, command: SessionCommand) -> Result<Vec<SessionEvent>, SessionRefusal> {
        match (command, &self.started) {
            (SessionCommand::Start(start), None) => {
                if start.expires_at <= start.started_at {
                    return Err(SessionRefusal::EndsBeforeStart {
                        started_at: start.started_at,
                        expires_at: start.expires_at,
                    });
                }
                Ok(vec![SessionEvent::SessionStarted(start)])
            }
            (SessionCommand::Start(start), Some(known)) => {
                let same = known.user_id == start.user_id && known.started_at == start.started_at;
                if same { Ok(Vec::new()) } else { Err(SessionRefusal::AlreadyStarted) }
            }
            (SessionCommand::End { .. }, None) => Err(SessionRefusal::NotStarted),
            (SessionCommand::End { .. }, Some(_)) if self.ended.is_some() => Ok(Vec::new()),
            (SessionCommand::End { cause, at }, Some(_)) => {
                Ok(vec![SessionEvent::SessionEnded(SessionEnded { cause, ended_at: at })])
            }
        }
    }

    fn evolve(&mut self, event: &SessionEvent) {
        self.fold(event);
    }
}
