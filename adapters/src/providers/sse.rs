//! Reads server-sent events, as the HTML standard describes their parsing.

use super::lines::{LineTooLong, Lines};

/// One dispatched event.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Event {
    /// Its `event` field; empty when there was none.
    pub name: String,
    /// Its `data` lines, joined by newlines.
    pub data: Vec<u8>,
}

/// Turns the pieces of a body into events. Comments (a keep-alive) and unknown fields are skipped.
#[derive(Debug)]
pub struct Sse {
    lines: Lines,
    event: Event,
    has_data: bool,
    at_start: bool,
    limit: usize,
}

impl Default for Sse {
    fn default() -> Self {
        Self::with_limit(super::lines::LINE_MAX_BYTES)
    }
}

impl Sse {
    /// With another bound on one event than a line's.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { lines: Lines::with_limit(limit), event: Event::default(), has_data: false, at_start: true, limit }
    }

    /// Takes the next piece of the body.
    pub fn push(&mut self, piece: &[u8]) {
        self.lines.push(piece);
    }

    /// The next whole event.
    ///
    /// # Errors
    /// [`LineTooLong`] when a line, or the data of one event, passes the bound.
    pub fn next_event(&mut self) -> Result<Option<Event>, LineTooLong> {
        while let Some(line) = self.lines.next_line()? {
            let line = if std::mem::take(&mut self.at_start) { without_mark(&line) } else { &line[..] };
            if !line.is_empty() {
                self.take_field(line)?;
            } else if std::mem::take(&mut self.has_data) {
                return Ok(Some(std::mem::take(&mut self.event)));
            } else {
                self.event = Event::default();
            }
        }
        Ok(None)
    }

    fn take_field(&mut self, line: &[u8]) -> Result<(), LineTooLong> {
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(0) => return Ok(()),
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.event.data.len() + value.len() > self.limit {
                    return Err(LineTooLong { limit: self.limit });
                }
                if self.has_data {
                    self.event.data.push(b'\n');
                }
                self.event.data.extend_from_slice(value);
                self.has_data = true;
            }
            b"event" => self.event.name = String::from_utf8_lossy(value).into_owned(),
            _ => {}
        }
        Ok(())
    }
}

fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], cut: usize) -> Vec<(String, String)> {
        let mut sse = Sse::default();
        let mut found = Vec::new();
        for piece in [&text[..cut], &text[cut..]] {
            sse.push(piece);
            while let Some(event) = sse.next_event().unwrap() {
                found.push((event.name, String::from_utf8(event.data).unwrap()));
            }
        }
        found
    }

    #[test]
    fn events_are_the_same_wherever_the_pieces_are_cut() {
        let text = "\u{feff}: keep-alive\r\n\r\ndata: {\"a\":1}\r\n\r\nevent: ping\ndata:two\ndata: lines\nid: 7\n\n\n: x\ndata\n\ndata: unfinished".as_bytes();
        let whole = all(text, 0);
        let expected = [("", "{\"a\":1}"), ("ping", "two\nlines"), ("", "")];
        assert_eq!(whole, expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
        for cut in 0..=text.len() {
            assert_eq!(all(text, cut), whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_event_of_many_lines_stops_at_the_bound() {
        let mut sse = Sse::with_limit(10);
        sse.push(b"data: 123456\ndata: 123456\n\n");
        assert_eq!(sse.next_event(), Err(LineTooLong { limit: 10 }));
    }
}
