//! Which pages a model may still choose after it has read one.
//!
//! Until then it knows what its caller said, and chooses freely. A page can tell it to put what it knows of the caller
//! into an address and read that. So from then on an address must stand, as it is, in the caller's own messages or on a
//! page that was told: both were written before anything of this conversation could go into them.

use std::collections::HashSet;

use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use super::URL_MAX_CHARACTERS;

/// How many addresses of the caller's messages are remembered, and how many of all pages; those beyond are not read.
const SOURCE_MAX_URLS: usize = 8_192;

/// Whose messages are the caller's own. What the model said before, or a tool of the caller's found, may be a page's
/// doing.
const OWN_ROLES: [&str; 3] = ["user", "system", "developer"];

/// The addresses that may be read, as one way of writing each.
#[derive(Default)]
pub(super) struct Known {
    asked: HashSet<String>,
    /// None until a page was told.
    told: Option<HashSet<String>>,
}

impl Known {
    /// Whether `url` may be read.
    pub(super) fn admits(&self, url: &str) -> bool {
        let Some(told) = &self.told else { return true };
        normal(url).is_some_and(|url| self.asked.contains(&url) || told.contains(&url))
    }

    /// A page was told: what stands in it may be read, the page itself again, under the address `asked` for too.
    pub(super) fn page(&mut self, asked: &str, found: &str, told: &str, messages: &[Box<RawValue>]) {
        if self.told.is_none() {
            // The newest first: where there are too many, it is they that are asked about.
            for message in messages.iter().rev() {
                collect(&own_words(message), &mut self.asked);
            }
        }
        let known = self.told.get_or_insert_default();
        known.extend([asked, found].into_iter().filter_map(normal));
        collect(told, known);
    }
}

/// The texts of a message, if it is the caller's own.
fn own_words(message: &RawValue) -> String {
    let message: Value = serde_json::from_str(message.get()).unwrap_or_default();
    if !message["role"].as_str().is_some_and(|role| OWN_ROLES.contains(&role)) {
        return String::new();
    }
    match &message["content"] {
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}

/// One way of writing an address, without the fragment, which no site is told.
fn normal(url: &str) -> Option<String> {
    let mut url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    url.set_fragment(None);
    Some(url.into())
}

/// Finds the addresses in a text. Each is read once, from its scheme to the next blank, so the whole text is too.
fn collect(text: &str, found: &mut HashSet<String>) {
    let mut rest = text;
    while let Some(place) = next(rest) {
        let from = rest.get(place..).unwrap_or_default();
        let end = from.find(ends).unwrap_or(from.len());
        let (token, behind) = from.split_at(end);
        for written in readings(token) {
            if found.len() >= SOURCE_MAX_URLS {
                return;
            }
            found.extend(normal(written));
        }
        rest = behind;
    }
}

/// Where the next address begins.
fn next(text: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(place) = text.get(from..)?.find("://").map(|place| from + place) {
        for scheme in ["https", "http"] {
            let begins = place.checked_sub(scheme.len()).filter(|begins| *begins >= from);
            let stands = begins.and_then(|begins| text.get(begins..place));
            if stands.is_some_and(|stands| stands.eq_ignore_ascii_case(scheme)) {
                return begins;
            }
        }
        from = place + 3;
    }
    None
}

/// What ends an address wherever it stands.
fn ends(character: char) -> bool {
    character.is_whitespace() || character.is_control() || "<>\"`{}|\\^".contains(character)
}

/// The addresses that a run of characters may mean: all of it, without the sentence's own marks at its end, and up to
/// the first mark that may be the sentence's. Which one was meant is not known, and any of them was written there.
fn readings(token: &str) -> impl Iterator<Item = &str> {
    let marks = |character: char| ".,;:!?'*_)]".contains(character) || !character.is_ascii();
    let inner = |character: char| ",;')]".contains(character) || !character.is_ascii();
    let trimmed = token.trim_end_matches(marks);
    let first = token.split(inner).next().unwrap_or_default().trim_end_matches(marks);
    // Of several marks at the end some may be the address's: `(see http://a.example/b_(c))`.
    let closed = token.trim_end_matches(['.', ',', ';', ':', '!', '?', '\'']);
    let opened = closed.strip_suffix([')', ']']).unwrap_or(closed);
    [token, closed, opened, trimmed, first].into_iter().filter(|url| url.len() <= URL_MAX_CHARACTERS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::value::to_raw_value;

    use super::*;

    fn known(messages: &Value, told: &str) -> Known {
        let messages: Vec<Box<RawValue>> =
            messages.as_array().unwrap().iter().map(|message| to_raw_value(message).unwrap()).collect();
        let mut known = Known::default();
        known.page("http://asked.example/", "http://found.example/x#y", told, &messages);
        known
    }

    #[test]
    fn before_a_page_was_read_every_address_may_be() {
        assert!(Known::default().admits("http://anywhere.example/?a=b"));
    }

    #[test]
    fn afterwards_only_what_stands_somewhere_as_it_is() {
        let messages = json!([
            {"role": "system", "content": "Prefer HTTP://Rules.example."},
            {"role": "assistant", "content": "http://model.example/"},
            {"role": "tool", "content": "http://tool.example/"},
            {"role": "user", "content": [{"type": "text", "text": "see http://user.example/a?b=c#d, please"}]}]);
        let known = known(&messages, "News (https://page.example/one) and https://page.example/two/../three");
        for url in [
            "http://asked.example/",
            "http://asked.example",
            "http://found.example/x",
            "http://rules.example/",
            "http://user.example/a?b=c",
            "http://USER.example:80/a?b=c#other",
            "https://page.example/one",
            "https://page.example/three",
        ] {
            assert!(known.admits(url), "{url}");
        }
        for url in [
            "http://model.example/",
            "http://tool.example/",
            "http://user.example/",
            "http://user.example/a?b=secret",
            "http://user.example/a",
            "https://page.example/one?secret",
            "https://page.example/on",
            "https://secret.page.example/one",
            "http://page.example/one",
            "https://user:secret@page.example/one",
            "https://page.example:8443/one",
            "https://page.example/",
            "file:///etc/passwd",
            "page.example/one",
            "",
        ] {
            assert!(!known.admits(url), "{url}");
        }
    }

    #[test]
    fn an_address_is_found_in_whatever_it_stands_in() {
        let told = "[a](https://a.example/a) <https://a.example/b> \"https://a.example/c\", (https://a.example/d_(e)). \
            'https://a.example/f' https://a.example/g\u{3002} [https://a.example/h](https://a.example/h)! \
            <link>https://a.example/i</link> **https://a.example/j** say:https://a.example/k?l=m,n; ftp://a.example/o";
        let known = known(&json!([]), told);
        for path in ["a", "b", "c", "d_(e)", "f", "g", "h", "i", "j", "k?l=m,n"] {
            assert!(known.admits(&format!("https://a.example/{path}")), "{path}");
        }
        assert!(!known.admits("ftp://a.example/o") && !known.admits("https://a.example/"));
    }

    #[test]
    fn addresses_without_end_are_read_to_a_bound_and_in_good_time() {
        let begun = std::time::Instant::now();
        let mut found = HashSet::new();
        collect(&"http://".repeat(200_000), &mut found);
        collect(&"://".repeat(200_000), &mut found);
        let many: String = (0..100_000).map(|number| format!("http://a.example/{number} ")).collect();
        collect(&many, &mut found);
        assert_eq!(found.len(), SOURCE_MAX_URLS);
        // A debug build beside other tests; what is quadratic takes minutes.
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}
