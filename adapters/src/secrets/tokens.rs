//! Session tokens: JWT under HS256 and nothing else.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use calos_commands::ports::{NoToken, SecretText, SessionClaims, TokenSigner};
use calos_domain::time::MICROS_PER_SECOND;
use calos_domain::{SessionId, TenantId, Timestamp, UserId};

use crate::config::Secret;

/// Whom the tokens are for.
const AUDIENCE: &str = "calos";

/// The longest token that is looked at.
const TOKEN_MAX_BYTES: usize = 2_048;

/// Signs with `JWT_SECRET`.
pub struct SessionTokens {
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
    issuer: String,
}

impl fmt::Debug for SessionTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTokens").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: UserId,
    tenant: TenantId,
    sid: SessionId,
    aud: String,
    iss: String,
    exp: i64,
}

impl SessionTokens {
    /// Tokens of this issuer under this secret.
    #[must_use]
    pub fn new(secret: &Secret, issuer: &str) -> Self {
        let secret = secret.expose().as_bytes();
        // The algorithm is fixed here: what a token says about its own algorithm only ever makes it refused.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp", "sub", "aud", "iss"]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[issuer]);
        validation.leeway = 0;
        Self {
            signing: EncodingKey::from_secret(secret),
            checking: DecodingKey::from_secret(secret),
            validation,
            issuer: issuer.to_owned(),
        }
    }
}

impl TokenSigner for SessionTokens {
    fn sign(&self, claims: &SessionClaims) -> Result<SecretText, NoToken> {
        let claims = Claims {
            sub: claims.user_id,
            tenant: claims.tenant_id,
            sid: claims.session_id,
            aud: AUDIENCE.to_owned(),
            iss: self.issuer.clone(),
            exp: claims.expires_at.micros().div_euclid(MICROS_PER_SECOND),
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing);
        token.map(SecretText::new).map_err(|_| NoToken)
    }

    fn verify(&self, token: &str) -> Result<SessionClaims, NoToken> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(NoToken);
        }
        let claims =
            jsonwebtoken::decode::<Claims>(token, &self.checking, &self.validation).map_err(|_| NoToken)?.claims;
        Ok(SessionClaims {
            user_id: claims.sub,
            tenant_id: claims.tenant,
            session_id: claims.sid,
            expires_at: Timestamp::from_micros(claims.exp.saturating_mul(MICROS_PER_SECOND)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};
    use uuid::Uuid;

    const SECRET: &str = "a secret of more than thirty-two characters";

    fn tokens() -> SessionTokens {
        SessionTokens::new(&Secret::new(SECRET), "localhost")
    }

    fn claims(expires_at: Timestamp) -> SessionClaims {
        SessionClaims {
            user_id: UserId(Uuid::from_u128(1)),
            tenant_id: TenantId(Uuid::from_u128(2)),
            session_id: SessionId(Uuid::from_u128(3)),
            expires_at,
        }
    }

    fn later() -> Timestamp {
        Timestamp::from_micros(4_000_000_000 * MICROS_PER_SECOND)
    }

    fn payload() -> Value {
        json!({
            "sub": Uuid::from_u128(1), "tenant": Uuid::from_u128(2), "sid": Uuid::from_u128(3),
            "aud": "calos", "iss": "localhost", "exp": 4_000_000_000_i64,
        })
    }

    fn signed(algorithm: Algorithm, payload: &Value) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), payload, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    }

    #[test]
    fn a_token_says_again_what_was_signed() {
        let token = tokens().sign(&claims(later())).unwrap();
        assert_eq!(tokens().verify(token.expose()), Ok(claims(later())));
        assert_eq!(tokens().verify(&signed(Algorithm::HS256, &payload())), Ok(claims(later())));
    }

    #[test]
    fn an_unsigned_token_is_refused() {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        for algorithm in ["none", "None", "NONE"] {
            let header = encode(&json!({"alg": algorithm, "typ": "JWT"}));
            let body = encode(&payload());
            assert_eq!(tokens().verify(&format!("{header}.{body}.")), Err(NoToken));
            assert_eq!(tokens().verify(&format!("{header}.{body}")), Err(NoToken));
        }
    }

    #[test]
    fn another_algorithm_is_refused_though_its_signature_holds() {
        for algorithm in [Algorithm::HS384, Algorithm::HS512] {
            assert_eq!(tokens().verify(&signed(algorithm, &payload())), Err(NoToken));
        }
    }

    #[test]
    fn a_token_that_is_over_is_refused() {
        let past = Timestamp::from_micros(1_000_000_000 * MICROS_PER_SECOND);
        assert_eq!(tokens().verify(tokens().sign(&claims(past)).unwrap().expose()), Err(NoToken));
    }

    #[test]
    fn a_token_that_lacks_a_claim_or_has_another_ones_is_refused() {
        for claim in ["sub", "tenant", "sid", "aud", "iss", "exp"] {
            let mut without = payload();
            without.as_object_mut().unwrap().remove(claim);
            assert_eq!(tokens().verify(&signed(Algorithm::HS256, &without)), Err(NoToken), "{claim}");
        }
        for (claim, value) in [("aud", json!("others")), ("iss", json!("elsewhere")), ("sub", json!("not an id"))] {
            let mut other = payload();
            other[claim] = value;
            assert_eq!(tokens().verify(&signed(Algorithm::HS256, &other)), Err(NoToken), "{claim}");
        }
    }

    #[test]
    fn a_tampered_or_foreign_token_is_refused() {
        let token = tokens().sign(&claims(later())).unwrap();
        let (head, signature) = token.expose().rsplit_once('.').unwrap();
        let forged = URL_SAFE_NO_PAD.encode(payload().to_string().replace("00000001", "00000009"));
        let header = head.split_once('.').unwrap().0;
        assert_eq!(tokens().verify(&format!("{header}.{forged}.{signature}")), Err(NoToken));
        let other = SessionTokens::new(&Secret::new("another secret of some length, as it is"), "localhost");
        assert_eq!(other.verify(token.expose()), Err(NoToken));
        assert_eq!(tokens().verify(""), Err(NoToken));
        assert_eq!(tokens().verify(&"a.".repeat(2_000)), Err(NoToken));
    }

    #[test]
    fn neither_the_signer_nor_a_token_shows_a_secret() {
        assert!(!format!("{:?}", tokens()).contains("secret"));
        assert_eq!(format!("{:?}", tokens().sign(&claims(later())).unwrap()), "SecretText(..)");
    }
}
