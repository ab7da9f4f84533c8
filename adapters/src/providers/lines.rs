//! Cuts a body that arrives in pieces into lines, with a bound on how long one may get.

use bytes::{Buf, BytesMut};

/// The longest line a provider may send. Tool arguments and answers in one piece stay far below it.
pub const LINE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// A line went over its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {limit} bytes")]
pub struct LineTooLong {
    /// The bound.
    pub limit: usize,
}

/// Splits at LF, CRLF or CR, across any boundaries between the pieces.
#[derive(Debug)]
pub struct Lines {
    buffer: BytesMut,
    /// Bytes of the buffer known to hold no line end.
    searched: usize,
    /// The last line ended in CR: an LF right after it belongs to it.
    after_cr: bool,
    limit: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self::with_limit(LINE_MAX_BYTES)
    }
}

impl Lines {
    /// With another bound than [`LINE_MAX_BYTES`].
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, after_cr: false, limit }
    }

    /// Takes the next piece of the body.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole line, without its end.
    ///
    /// # Errors
    /// [`LineTooLong`] once the unfinished line passes the bound.
    pub fn next_line(&mut self) -> Result<Option<BytesMut>, LineTooLong> {
        if self.after_cr && !self.buffer.is_empty() {
            if self.buffer[0] == b'\n' {
                self.buffer.advance(1);
            }
            self.after_cr = false;
        }
        let end = self.buffer[self.searched..].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(end) = end.map(|offset| offset + self.searched) else {
            self.searched = self.buffer.len();
            return if self.searched > self.limit { Err(LineTooLong { limit: self.limit }) } else { Ok(None) };
        };
        let line = self.buffer.split_to(end);
        self.after_cr = self.buffer[0] == b'\r';
        self.buffer.advance(1);
        self.searched = 0;
        if line.len() > self.limit { Err(LineTooLong { limit: self.limit }) } else { Ok(Some(line)) }
    }

    /// What is left when the body has ended: an unfinished line, or nothing.
    pub fn rest(&mut self) -> BytesMut {
        self.searched = 0;
        self.buffer.split()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&str]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.push(piece.as_bytes());
            while let Some(line) = lines.next_line().unwrap() {
                found.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        found
    }

    #[test]
    fn every_line_end_is_one_wherever_the_pieces_are_cut() {
        let text = "one\r\ntwo\n\rthree\r\n\r\nfour\n";
        let whole = all(&[text]);
        assert_eq!(whole, ["one", "two", "", "three", "", "four"]);
        for cut in 0..text.len() {
            assert_eq!(all(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_line_without_an_end_stops_at_the_bound() {
        let mut lines = Lines::with_limit(8);
        lines.push(b"12345678");
        assert_eq!(lines.next_line(), Ok(None));
        lines.push(b"9");
        assert_eq!(lines.next_line(), Err(LineTooLong { limit: 8 }));
    }

    #[test]
    fn what_has_no_line_end_is_left_over() {
        let mut lines = Lines::default();
        lines.push(b"a\nb");
        assert!(lines.next_line().unwrap().is_some());
        assert_eq!(lines.next_line().unwrap(), None);
        assert_eq!(&lines.rest()[..], b"b");
    }
}
