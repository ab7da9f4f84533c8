//! What the server logged, so that a test can count lines.

use std::fmt::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{EnvFilter, registry};

/// One logged line.
#[derive(Clone, Debug)]
pub struct Line {
    /// `ERROR`, `WARN`, ….
    pub level: String,
    /// Where it comes from: `calos::refused` for refusals and failures.
    pub target: String,
    /// Every field as `name=value`, separated by spaces.
    pub text: String,
}

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

static SPANS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        push(event.metadata(), text);
    }

    fn on_new_span(&self, span: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let mut text = Text(format!("span={} ", span.metadata().name()));
        span.record(&mut text);
        push_span(text);
    }

    fn on_record(&self, _: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut text = Text(String::new());
        values.record(&mut text);
        push_span(text);
    }
}

fn push(metadata: &Metadata<'_>, text: Text) {
    let line = Line { level: metadata.level().to_string(), target: metadata.target().to_owned(), text: text.0 };
    LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
}

/// Spans are no lines of their own; what they carry is shown with the lines inside them.
fn push_span(text: Text) {
    SPANS.lock().unwrap_or_else(PoisonError::into_inner).push(text.0);
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, "{}={value} ", field.name());
    }
}

/// Begins to keep what is logged in this process; further calls change nothing.
pub fn keep() {
    keep_what_passes("info,calos=debug,sqlx=warn");
}

/// The same, down to the last trace of CALOS and the debug lines of what it uses. It has to be called before anything
/// else begins to keep lines.
pub fn keep_everything() {
    keep_what_passes("debug,calos=trace,sqlx=trace,reqwest=trace,hyper=trace,hyper_util=trace");
}

/// `RUST_LOG` chooses what is shown of a failing test, and nothing of what is kept.
fn keep_what_passes(filter: &str) {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        let asked_for = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
        let shown = tracing_subscriber::fmt::layer().with_test_writer().with_filter(asked_for);
        let kept = Keep.with_filter(EnvFilter::new(filter));
        // Whoever was first keeps the lines; there is only this one in a test process.
        let _ = tracing::subscriber::set_global_default(registry().with(shown).with(kept));
    });
}

/// Everything that was logged so far, spans included, as one text.
#[must_use]
pub fn everything() -> String {
    let mut all = SPANS.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
    for line in LINES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = write!(all, "\n{} {} {}", line.level, line.target, line.text);
    }
    all
}

/// The lines that name a request, debug lines left out.
#[must_use]
pub fn lines_of(request_id: &str) -> Vec<Line> {
    let named = format!("request_id={request_id} ");
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let shown = |line: &&Line| line.text.contains(&named) && line.level != "DEBUG" && line.level != "TRACE";
    lines.iter().filter(shown).cloned().collect()
}
