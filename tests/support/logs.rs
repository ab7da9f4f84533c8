//! What the server logged, so that a test can count lines.

use std::fmt::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
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

struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let metadata = event.metadata();
        let line = Line { level: metadata.level().to_string(), target: metadata.target().to_owned(), text: text.0 };
        LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
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
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,calos=debug,sqlx=warn"));
        let shown = tracing_subscriber::fmt::layer().with_test_writer();
        // Whoever was first keeps the lines; there is only this one in a test process.
        let _ = tracing::subscriber::set_global_default(registry().with(filter).with(shown).with(Keep));
    });
}

/// The lines that name a request, debug lines left out.
#[must_use]
pub fn lines_of(request_id: &str) -> Vec<Line> {
    let named = format!("request_id={request_id} ");
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let shown = |line: &&Line| line.text.contains(&named) && line.level != "DEBUG" && line.level != "TRACE";
    lines.iter().filter(shown).cloned().collect()
}
