//! Text of many rows in one allocation.

/// Where a row's text lies in a [`Texts`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Text {
    start: u32,
    end: u32,
}

/// Many short texts, one after the other: a row of a read model keeps four numbers instead of four allocations.
#[derive(Default, Debug)]
pub(crate) struct Texts {
    bytes: String,
}

impl Texts {
    /// Keeps a text. None when the texts of this fold would pass four gigabytes together.
    pub(crate) fn keep(&mut self, text: &str) -> Option<Text> {
        let start = u32::try_from(self.bytes.len()).ok()?;
        let end = u32::try_from(self.bytes.len() + text.len()).ok()?;
        self.bytes.push_str(text);
        Some(Text { start, end })
    }

    /// The text kept there.
    pub(crate) fn get(&self, text: Text) -> &str {
        self.bytes.get(text.start as usize..text.end as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_given_back_as_they_were_kept() {
        let mut texts = Texts::default();
        let kept: Vec<Text> = ["gpt-4", "", "é…"].into_iter().map(|text| texts.keep(text).unwrap()).collect();
        assert_eq!(kept.iter().map(|text| texts.get(*text)).collect::<Vec<_>>(), ["gpt-4", "", "é…"]);
    }
}
