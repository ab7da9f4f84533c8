//! Markup to text: the title, headings, paragraphs, lists and links stay, scripts and styles go.
//!
//! It reads the tokens of HTML, not its tree: a page without end tags, or nested a million deep, costs no more than any
//! other page of its size.

use std::time::Instant;

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Span, Tokenizer};
use url::Url;

use super::media::Form;
use super::writer::{Writer, is_shown};

/// The longest title, in characters.
pub const TITLE_MAX_CHARACTERS: usize = 300;
/// The longest address of a link that is shown beside its words, as written and as understood; a page's own base is no
/// longer either, because every link to be understood copies it.
pub(super) const LINK_MAX_BYTES: usize = 300;
/// How many links of a page are understood; the others keep their words alone.
pub(super) const LINKS_MAX: usize = 2_000;
/// How many tokens are read between two looks at the clock.
const TOKENS_PER_LOOK: usize = 256;
/// Elements whose content nobody reads, or that are meant for a browser without scripts.
const DROPPED: [&[u8]; 12] = [
    b"script",
    b"style",
    b"noscript",
    b"template",
    b"svg",
    b"math",
    b"iframe",
    b"object",
    b"canvas",
    b"noembed",
    b"textarea",
    b"select",
];
/// Elements around which a paragraph ends. Headings and lists' items are looked at apart.
const PARAGRAPHS: [&[u8]; 20] = [
    b"p",
    b"ul",
    b"ol",
    b"dl",
    b"table",
    b"pre",
    b"blockquote",
    b"section",
    b"article",
    b"header",
    b"footer",
    b"main",
    b"nav",
    b"aside",
    b"figure",
    b"form",
    b"fieldset",
    b"details",
    b"hr",
    b"address",
];
/// Elements around which a line ends.
const LINES: [&[u8]; 10] =
    [b"div", b"br", b"li", b"tr", b"dt", b"dd", b"caption", b"figcaption", b"summary", b"legend"];

/// What can be read of a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Readable {
    /// The title, for HTML that has one.
    pub title: Option<String>,
    /// The text, at most as many characters as were asked for.
    pub text: String,
    /// Whether there was more.
    pub truncated: bool,
}

/// Reads a decoded body. Links are resolved against `base`, the document's own address; `limit` is in characters. What
/// was not read by `deadline` is cut off.
#[must_use]
pub fn readable(body: &str, form: Form, base: &Url, limit: usize, deadline: Instant) -> Readable {
    match form {
        Form::Html | Form::Xhtml => html(body, form, base, limit, deadline),
        Form::Xml | Form::Plain => plain(body, limit),
    }
}

/// Text as it is, less what is not shown.
fn plain(body: &str, limit: usize) -> Readable {
    let mut shown = body.chars().filter(|c| is_shown(*c));
    let text: String = shown.by_ref().take(limit).collect();
    Readable { title: None, text, truncated: shown.next().is_some() }
}

fn html(body: &str, form: Form, base: &Url, limit: usize, deadline: Instant) -> Readable {
    let mut reader = Reader::new(form, base.clone(), limit, deadline);
    let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _span: Span<()>| reader.read(&event));
    // In HTML a script's content is no markup. In XML it is, and a script may close itself.
    emitter.naively_switch_states(form == Form::Html);
    // One token says that no more is read; without it the tokens end with the page.
    let _enough = Tokenizer::new_with_emitter(body, emitter).next();
    reader.finish()
}

/// The text is full, or the time is over: nothing further is read.
struct Enough;

/// A start tag as far as it was read.
#[derive(Default)]
struct Tag {
    name: Vec<u8>,
    is_href: bool,
    href: Option<String>,
}

/// A link that was opened: where its words begin, and where it leads.
struct Link {
    place: usize,
    url: String,
}

/// The element being dropped, and how many of its name are open inside each other.
struct Dropping {
    name: Vec<u8>,
    depth: usize,
}

struct Reader {
    form: Form,
    base: Url,
    base_given: bool,
    text: Writer,
    title: Writer,
    in_title: bool,
    title_done: bool,
    tag: Option<Tag>,
    dropping: Option<Dropping>,
    link: Option<Link>,
    preformatted: usize,
    cells: usize,
    links: usize,
    tokens: usize,
    deadline: Instant,
    late: bool,
}

impl Reader {
    fn new(form: Form, base: Url, limit: usize, deadline: Instant) -> Self {
        Self {
            form,
            base,
            base_given: false,
            text: Writer::new(limit),
            title: Writer::new(TITLE_MAX_CHARACTERS),
            in_title: false,
            title_done: false,
            tag: None,
            dropping: None,
            link: None,
            preformatted: 0,
            cells: 0,
            links: 0,
            tokens: 0,
            deadline,
            late: false,
        }
    }

    fn finish(mut self) -> Readable {
        self.close_link();
        let (text, truncated) = self.text.finish();
        let (title, _longer) = self.title.finish();
        Readable { title: Some(title).filter(|title| !title.is_empty()), text, truncated: truncated || self.late }
    }

    fn read(&mut self, event: &CallbackEvent<'_>) -> Option<Enough> {
        self.late = self.late || (self.tokens.is_multiple_of(TOKENS_PER_LOOK) && Instant::now() >= self.deadline);
        self.tokens += 1;
        if self.late {
            return Some(Enough);
        }
        match event {
            CallbackEvent::OpenStartTag { name } => self.tag = Some(Tag { name: name.to_vec(), ..Tag::default() }),
            CallbackEvent::AttributeName { name } => {
                if let Some(tag) = &mut self.tag {
                    // Of an attribute given twice the first counts.
                    tag.is_href = *name == b"href" && tag.href.is_none();
                }
            }
            CallbackEvent::AttributeValue { value } => {
                if let Some(tag) = self.tag.as_mut().filter(|tag| tag.is_href) {
                    tag.href = std::str::from_utf8(value).ok().map(str::to_owned);
                }
            }
            CallbackEvent::CloseStartTag { self_closing } => {
                if let Some(tag) = self.tag.take() {
                    self.start(tag, *self_closing);
                }
            }
            CallbackEvent::EndTag { name } => self.end(name),
            CallbackEvent::String { value } => self.string(&String::from_utf8_lossy(value)),
            CallbackEvent::Comment { .. } | CallbackEvent::Doctype { .. } | CallbackEvent::Error(_) => {}
        }
        self.text.is_full().then_some(Enough)
    }

    fn string(&mut self, text: &str) {
        if self.dropping.is_some() {
            return;
        }
        if self.in_title {
            // A second title says nothing about the page.
            if !self.title_done {
                self.title.words(text);
            }
        } else if self.preformatted > 0 {
            self.text.verbatim(text);
        } else {
            self.text.words(text);
        }
    }

    fn start(&mut self, tag: Tag, self_closing: bool) {
        if let Some(dropping) = &mut self.dropping {
            dropping.depth += usize::from(dropping.name == tag.name && !self_closing);
            return;
        }
        let name = tag.name.as_slice();
        if DROPPED.contains(&name) {
            // HTML lets only foreign elements close themselves.
            let closed = self_closing && (self.form == Form::Xhtml || matches!(name, b"svg" | b"math"));
            self.dropping = (!closed).then_some(Dropping { name: tag.name, depth: 1 });
            return;
        }
        self.lay_out(name);
        match name {
            b"title" => self.in_title = !(self_closing && self.form == Form::Xhtml),
            b"h1" => self.text.prefix("# "),
            b"h2" => self.text.prefix("## "),
            b"h3" => self.text.prefix("### "),
            b"h4" => self.text.prefix("#### "),
            b"h5" => self.text.prefix("##### "),
            b"h6" => self.text.prefix("###### "),
            b"li" => self.text.prefix("- "),
            b"pre" => self.preformatted += 1,
            b"tr" => self.cells = 0,
            b"td" | b"th" => {
                if self.cells > 0 {
                    self.text.words(" | ");
                }
                self.cells += 1;
            }
            b"a" => self.open_link(tag.href.as_deref()),
            b"base" => self.set_base(tag.href.as_deref()),
            _ => {}
        }
    }

    fn end(&mut self, name: &[u8]) {
        if let Some(dropping) = &mut self.dropping {
            dropping.depth -= usize::from(dropping.name == name);
            if dropping.depth == 0 {
                self.dropping = None;
            }
            return;
        }
        self.lay_out(name);
        match name {
            b"title" => {
                self.in_title = false;
                self.title_done = self.title.place() > 0;
            }
            b"h1" | b"h2" | b"h3" | b"h4" | b"h5" | b"h6" | b"li" => self.text.prefix(""),
            b"pre" => self.preformatted = self.preformatted.saturating_sub(1),
            b"a" => self.close_link(),
            _ => {}
        }
    }

    /// A break lies on both sides of an element that stands by itself.
    fn lay_out(&mut self, name: &[u8]) {
        if PARAGRAPHS.contains(&name) || matches!(name, b"h1" | b"h2" | b"h3" | b"h4" | b"h5" | b"h6") {
            self.text.break_lines(2);
        } else if LINES.contains(&name) {
            self.text.break_lines(1);
        }
    }

    /// A document's own word on what its links are relative to; the first counts.
    fn set_base(&mut self, href: Option<&str>) {
        if let Some(base) = href.and_then(|href| self.resolved(href)).filter(|_| !self.base_given) {
            (self.base, self.base_given) = (base, true);
        }
    }

    /// Notes a link to another page of the web; one that is still open ends here.
    fn open_link(&mut self, href: Option<&str>) {
        self.close_link();
        let Some(href) = href.map(str::trim).filter(|href| !href.starts_with('#')) else { return };
        let Some(url) = self.resolved(href) else { return };
        if matches!(url.scheme(), "http" | "https") {
            self.link = Some(Link { place: self.text.place(), url: url.into() });
        }
    }

    /// What an address means on this page, for as many as a page may have. Its length is looked at on both sides:
    /// before, because reading it costs as much as it is long, and after, because escaping makes it longer.
    fn resolved(&mut self, href: &str) -> Option<Url> {
        if href.len() > LINK_MAX_BYTES || self.links >= LINKS_MAX {
            return None;
        }
        self.links += 1;
        self.base.join(href).ok().filter(|url| url.as_str().len() <= LINK_MAX_BYTES)
    }

    /// Puts the address behind the words of a link, if it has any and they do not say it already.
    fn close_link(&mut self) {
        let Some(Link { place, url }) = self.link.take() else { return };
        let words = self.text.since(place);
        if !words.is_empty() && words != url {
            self.text.words(&format!(" ({url})"));
        }
    }
}
