//! Whether a session token's session still stands.

use calos_adapters::postgres::PgLog;
use calos_adapters::secrets::Secrets;
use calos_commands::ports::{SecretText, SessionClaims, TokenSigner};
use calos_commands::sessions;
use calos_domain::session::{SessionRefusal, Started};
use calos_domain::{SessionId, UserId};

use super::generation::Remembered;
use crate::error::{ApiError, Code};
use crate::request::now;

/// Sessions remembered at a time.
const REMEMBERED_MAX_SESSIONS: u64 = 100_000;

/// How long a session found standing is believed to stand, unless it is seen to end: here at once, elsewhere within a
/// second.
const REMEMBERED_SECONDS: u64 = 30;

/// Checks session tokens.
pub struct SessionDesk {
    log: PgLog,
    secrets: Secrets,
    standing: Remembered<(UserId, SessionId), Started>,
}

fn over(message: &str) -> ApiError {
    ApiError::new(Code::SessionEnded, message)
}

impl SessionDesk {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(log: PgLog, secrets: Secrets) -> Self {
        Self { log, secrets, standing: Remembered::new(REMEMBERED_MAX_SESSIONS, REMEMBERED_SECONDS) }
    }

    /// The session behind a token, if the token is ours and the session stands.
    ///
    /// # Errors
    /// 401 `unauthenticated` for a token that is none or has run out, 401 `session_ended` for a session that ended;
    /// what the log cannot carry out.
    pub async fn check(&self, token: &SecretText) -> Result<Started, ApiError> {
        let claims = self.claims(token).ok_or_else(|| {
            ApiError::new(Code::Unauthenticated, "the session token is not valid or has expired; sign in again")
        })?;
        let at = now();
        let key = (claims.user_id, claims.session_id);
        if let Some(session) = self.standing.get(&key) {
            return if at < session.expires_at {
                Ok(session)
            } else {
                Err(over("this session has expired; sign in again"))
            };
        }
        let begun = self.standing.begin();
        let session = match sessions::check(&self.log, &claims, at).await {
            Ok(session) => session,
            Err(calos_commands::fault::Fault::Refused(SessionRefusal::Expired { .. })) => {
                return Err(over("this session has expired; sign in again"));
            }
            Err(calos_commands::fault::Fault::Refused(_)) => {
                return Err(over("this session has ended; sign in again"));
            }
            Err(fault) => return Err(fault.into()),
        };
        self.standing.remember(begun, &key, session);
        Ok(session)
    }

    /// What a token says, if it is ours and has not run out.
    #[must_use]
    pub fn claims(&self, token: &SecretText) -> Option<SessionClaims> {
        self.secrets.tokens().verify(token.expose()).ok()
    }

    /// A session that has just ended here.
    pub fn forget(&self, user_id: UserId, session_id: SessionId) {
        self.standing.forget(&(user_id, session_id));
    }

    /// A session that was changed elsewhere, by its stream.
    pub(super) fn forget_stream(&self, id: &str) {
        let named = id.split_once('/').and_then(|(user, session)| Some((user.parse().ok()?, session.parse().ok()?)));
        match named {
            Some((user_id, session_id)) => self.forget(user_id, session_id),
            None => self.forget_all(),
        }
    }

    /// Trust nothing that was remembered.
    pub(super) fn forget_all(&self) {
        self.standing.forget_all();
    }
}
