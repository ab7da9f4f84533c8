//! Text that is laid out while it is written: blanks fold, breaks wait for the next word, and there is an end.

/// Whether a character is shown to a model. Controls are not, nor what no reader would see: marks that turn the direction
/// of writing, widthless blanks, and the tags and selectors that hide words inside others.
pub(super) fn is_shown(c: char) -> bool {
    match c {
        '\n' | '\t' => true,
        '\u{ad}' | '\u{200b}' | '\u{2060}' | '\u{feff}' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        '\u{e0000}'..='\u{e01ef}' => false,
        _ => !c.is_control(),
    }
}

/// A bounded text under construction.
#[derive(Debug)]
pub(super) struct Writer {
    out: String,
    characters: usize,
    limit: usize,
    breaks: u8,
    space: bool,
    prefix: &'static str,
    full: bool,
}

impl Writer {
    /// Writes at most `limit` characters.
    pub(super) fn new(limit: usize) -> Self {
        Self { out: String::new(), characters: 0, limit, breaks: 0, space: false, prefix: "", full: false }
    }

    /// Whether something did not fit.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Where the next word will stand, for [`Self::since`].
    pub(super) fn place(&self) -> usize {
        self.out.len()
    }

    /// What was written since `place`, without the blanks around it.
    pub(super) fn since(&self, place: usize) -> &str {
        self.out.get(place..).unwrap_or_default().trim()
    }

    /// The next word begins a new line (1) or a new paragraph (2).
    pub(super) fn break_lines(&mut self, lines: u8) {
        self.breaks = self.breaks.max(lines);
        self.space = false;
    }

    /// The next word is preceded by `prefix`; an empty one takes back what was said before.
    pub(super) fn prefix(&mut self, prefix: &'static str) {
        self.prefix = prefix;
    }

    /// Writes words; any run of blanks is one.
    pub(super) fn words(&mut self, text: &str) {
        for c in text.chars().filter(|c| is_shown(*c)) {
            if self.full {
                return;
            }
            if c.is_whitespace() {
                self.space = true;
            } else {
                self.settle();
                self.push(c);
            }
        }
    }

    /// Writes text whose lines and blanks mean something.
    pub(super) fn verbatim(&mut self, text: &str) {
        for c in text.chars().filter(|c| is_shown(*c)) {
            if self.full {
                return;
            }
            if c == '\n' && (self.breaks > 0 || self.out.is_empty()) {
                continue;
            }
            self.settle();
            self.push(c);
        }
    }

    /// The text, and whether something did not fit.
    pub(super) fn finish(mut self) -> (String, bool) {
        self.out.truncate(self.out.trim_end().len());
        (self.out, self.full)
    }

    fn settle(&mut self) {
        if !self.out.is_empty() {
            for _line in 0..self.breaks {
                self.push('\n');
            }
            if self.space && self.breaks == 0 {
                self.push(' ');
            }
        }
        (self.breaks, self.space) = (0, false);
        for c in std::mem::take(&mut self.prefix).chars() {
            self.push(c);
        }
    }

    fn push(&mut self, c: char) {
        if self.characters >= self.limit {
            self.full = true;
            return;
        }
        self.out.push(c);
        self.characters += 1;
    }
}
