//! The machine's own clock and random numbers.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng;
use rand::distr::Alphanumeric;
use uuid::Uuid;

use calos_commands::ports::{Clock, Randomness, SecretText};
use calos_domain::{KEY_ID_CHARACTERS, KeyId, Timestamp};

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 is held at its beginning rather than trusted.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// The machine's random numbers, reseeded from the operating system.
#[derive(Clone, Copy, Debug)]
pub struct SystemRandomness;

/// `count` letters and digits, each of 62 equally likely.
pub(super) fn letters(count: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(count).map(char::from).collect()
}

impl Randomness for SystemRandomness {
    fn id(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn ordered_id(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn key_id(&self) -> KeyId {
        loop {
            // Letters and digits of this length are always a key id.
            if let Ok(id) = letters(KEY_ID_CHARACTERS).parse() {
                return id;
            }
        }
    }

    fn secret(&self) -> SecretText {
        SecretText::new(URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 32]>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_key_ids_are_drawn_anew_each_time() {
        assert_ne!(SystemRandomness.secret(), SystemRandomness.secret());
        assert_ne!(SystemRandomness.key_id(), SystemRandomness.key_id());
        assert_eq!(SystemRandomness.secret().expose().len(), 43);
    }
}
