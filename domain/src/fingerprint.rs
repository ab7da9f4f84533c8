//! A short, stable mark of a command's content, to tell a repetition from another command under the same id.

use uuid::Uuid;

/// Odd, so that multiplying by it loses nothing: contents that differ in a single word never share a fingerprint.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Folds content into 64 bits. The result stands in snapshots, so the way it is computed never changes.
///
/// It guards against mistakes, not against an attacker: ids are given out by CALOS itself.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(MULTIPLIER)
    }
}

impl Fingerprint {
    /// Takes in one word.
    #[must_use]
    pub const fn word(self, word: u64) -> Self {
        let mixed = (self.0.rotate_left(29) ^ word).wrapping_mul(MULTIPLIER);
        Self(mixed ^ (mixed >> 32))
    }

    /// Takes in a signed number.
    #[must_use]
    pub const fn number(self, number: i64) -> Self {
        self.word(number.cast_unsigned())
    }

    /// Takes in an id.
    #[must_use]
    pub const fn id(self, id: Uuid) -> Self {
        let (high, low) = id.as_u64_pair();
        self.word(high).word(low)
    }

    /// Takes in a text, its length first, so that neighbouring texts cannot run into each other.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        let mut print = self.word(text.len() as u64);
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            print = print.word(u64::from_le_bytes(word));
        }
        print
    }

    /// Takes in something that may be absent.
    #[must_use]
    pub fn optional<T>(self, value: Option<T>, take: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            None => self.word(0),
            Some(value) => take(self.word(1), value),
        }
    }

    /// The fingerprint of everything taken in.
    #[must_use]
    pub const fn finish(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Fingerprint;

    #[test]
    fn a_fingerprint_never_changes_between_builds() {
        let print = Fingerprint::default().text("openai").number(-7).optional(Some(3), Fingerprint::word).finish();
        assert_eq!(print, 5_746_738_015_115_112_799);
    }

    #[test]
    fn texts_do_not_run_into_each_other() {
        let one = Fingerprint::default().text("ab").text("c").finish();
        let other = Fingerprint::default().text("a").text("bc").finish();
        assert_ne!(one, other);
    }
}
