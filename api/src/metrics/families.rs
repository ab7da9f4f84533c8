//! Every family there is, by room.

use std::fmt;

use calos_commands::complete_chat::ProviderFigures;
use calos_domain::pricing::Provider;

use super::exposition::{Label, Page};
use crate::wiring::App;

/// Microseconds in a second.
const MICROS: f64 = 1e6;

/// Writes all of them.
pub(super) fn all(app: &App, page: &mut Page<'_>) -> fmt::Result {
    process(app, page)?;
    log(app, page)?;
    read_models(app, page)?;
    holds(app, page)?;
    providers(app, page)?;
    charges(app, page)?;
    http(app, page)
}

/// One series without labels.
fn alone<V>(value: V) -> [(Vec<Label<'static>>, V); 1] {
    [(Vec::new(), value)]
}

fn process(app: &App, page: &mut Page<'_>) -> fmt::Result {
    let version = vec![("version", env!("CARGO_PKG_VERSION"))];
    page.gauge("calos_build", "The program that runs; always 1", [(version, 1_u64)])?;
    page.gauge("calos_uptime_seconds", "Whole seconds since the start", alone(app.uptime_seconds()))?;
    let up = u64::from(app.log.pulse().is_connected());
    page.gauge("calos_database_up", "Whether the database answered about a second ago", alone(up))?;
    let age = app.metrics.seen().told.as_ref().map(|told| told.at.elapsed().as_secs_f64());
    page.gauge(
        "calos_database_look_age_seconds",
        "How old the figures are that only the database knows: holds, dead letters, halted partitions",
        alone(age.unwrap_or_else(|| app.uptime_seconds() as f64)),
    )
}

fn log(app: &App, page: &mut Page<'_>) -> fmt::Result {
    let counters = app.log.counters();
    page.histogram(
        "calos_log_append_seconds",
        "From taking a batch to its commit",
        MICROS,
        alone(counters.append.read()),
    )?;
    page.histogram(
        "calos_log_batch_commands",
        "Commands in a committed batch",
        1.0,
        alone(counters.batch_commands.read()),
    )?;
    page.counter(
        "calos_log_deferred_batches",
        "Batches that committed while another connection waited for the disk",
        alone(counters.deferred_batches.get()),
    )?;
    page.counter("calos_log_commands", "Commands committed", alone(counters.commands.get()))?;
    page.counter("calos_log_events", "Events committed", alone(counters.events.get()))?;
    let (depth, capacity) = app.log.queue_depth();
    page.gauge("calos_log_queue_depth", "Decided commands that wait for the writer", alone(depth))?;
    page.gauge("calos_log_queue_capacity", "How many may wait; more are answered 503", alone(capacity))?;
    let decisions = [
        (vec![("outcome", "accepted")], counters.decided.get()),
        (vec![("outcome", "refused")], counters.refused.get()),
    ];
    page.counter("calos_log_decisions", "Decisions, each attempt for itself", decisions)?;
    let conflicts = [
        (vec![("kind", "stale_batch")], counters.stale_batches.get()),
        (vec![("kind", "redecided")], counters.redecided.get()),
    ];
    page.counter(
        "calos_log_conflicts",
        "Batches that met a head another process had moved, and commands decided again for it",
        conflicts,
    )?;
    page.counter(
        "calos_log_overloaded",
        "Commands turned away because the queue was full",
        alone(counters.overloaded.get()),
    )?;
    page.counter("calos_log_cold_loads", "Streams loaded from the database", alone(counters.cold_loads.get()))
}

fn read_models(app: &App, page: &mut Page<'_>) -> fmt::Result {
    let (lags, told) = {
        let seen = app.metrics.seen();
        (seen.lags.clone(), seen.told.clone())
    };
    let events = lags.iter().map(|(name, lag)| (vec![("projection", name.as_str())], lag.events));
    page.gauge("calos_projection_lag_events", "Events a read model has not taken", events)?;
    let seconds = lags.iter().map(|(name, lag)| (vec![("projection", name.as_str())], lag.seconds));
    page.gauge(
        "calos_projection_lag_seconds",
        "About how long the oldest event a read model has not taken has been waiting",
        seconds,
    )?;
    let none = Default::default();
    let halted = told.as_ref().map_or(&none, |told| &told.halted);
    let halted = halted.iter().map(|(name, count)| (vec![("projection", name.as_str())], *count));
    page.gauge("calos_projection_halted_partitions", "Partitions in which a read model has halted", halted)?;
    let letters = told.as_ref().map_or(&none, |told| &told.dead_letters);
    let letters = letters.iter().map(|(name, count)| (vec![("projection", name.as_str())], *count));
    page.gauge("calos_dead_letters", "Events set aside, those waiting behind one included", letters)
}

fn holds(app: &App, page: &mut Page<'_>) -> fmt::Result {
    let told = app.metrics.seen().told.clone();
    let of = |figure: fn(&super::watch::Told) -> i64| alone(told.as_ref().map_or(0, figure));
    page.gauge("calos_holds_open", "Holds that have not ended", of(|told| told.holds_open))?;
    page.gauge(
        "calos_holds_overdue",
        "Holds that should have ended and wait to be expired",
        of(|told| told.holds_overdue),
    )?;
    page.counter(
        "calos_holds_expired",
        "Holds this process expired because their owner was gone",
        alone(app.metrics.holds_expired.get()),
    )
}

fn labelled<'a>(provider: Provider, rest: &[Label<'a>]) -> Vec<Label<'a>> {
    std::iter::once(("provider", provider.as_str())).chain(rest.iter().copied()).collect()
}

fn providers(app: &App, page: &mut Page<'_>) -> fmt::Result {
    let figures = app.gateway.figures();
    let answered = figures.providers().map(|(of, figures)| (labelled(of, &[]), figures.answered.get()));
    page.counter("calos_provider_answers", "Requests a provider began to answer", answered)?;
    let failures = figures.providers().flat_map(|(of, figures)| {
        figures.failures().map(move |(kind, count)| (labelled(of, &[("kind", kind.as_str())]), count))
    });
    page.counter("calos_provider_errors", "Requests that failed or were not sent, by kind", failures)?;
    let latencies = figures.providers().map(|(of, figures)| (labelled(of, &[]), figures.latency.read()));
    page.histogram(
        "calos_provider_latency_seconds",
        "From a request to its whole answer, or to the beginning of its stream",
        MICROS,
        latencies,
    )?;
    let under_way = Provider::ALL.map(|of| (labelled(of, &[]), app.gateway.calls_under_way(of)));
    page.gauge("calos_provider_calls_in_flight", "Calls under way", under_way)?;
    let circuits = app.gateway.troubled_circuits();
    let circuits = circuits.iter().flat_map(|(of, (open, half_open))| {
        [(labelled(*of, &[("state", "open")]), *open), (labelled(*of, &[("state", "half_open")]), *half_open)]
    });
    page.gauge("calos_provider_circuits", "Models of the platform's account whose circuit is not closed", circuits)
}

fn charges(app: &App, page: &mut Page<'_>) -> fmt::Result {
    let figures = app.gateway.figures();
    let both = |label: &'static str, names: [&'static str; 2], read: fn(&ProviderFigures) -> [u64; 2]| {
        figures.providers().flat_map(move |(of, figures)| {
            let values = names.into_iter().zip(read(figures));
            values.map(move |(name, value)| (labelled(of, &[(label, name)]), value))
        })
    };
    page.counter(
        "calos_cost_micros",
        "Charged in micro-dollars: what the provider costs, and the markup",
        both("part", ["provider", "markup"], |of| [of.provider_cost_micros.get(), of.markup_micros.get()]),
    )?;
    page.counter(
        "calos_tokens",
        "Tokens that were metered",
        both("kind", ["prompt", "completion"], |of| [of.prompt_tokens.get(), of.completion_tokens.get()]),
    )
}

fn http(app: &App, page: &mut Page<'_>) -> fmt::Result {
    let figures = &app.metrics.http;
    let mut answers = Vec::new();
    figures.each_answer(|route, method, class, count| answers.push((route.to_owned(), method, class, count)));
    let answers = answers.iter().map(|(route, method, class, count)| {
        (vec![("route", route.as_str()), ("method", *method), ("status", *class)], *count)
    });
    page.counter("calos_http_requests", "Requests answered, by route, method and class of status", answers)?;
    let mut routes = Vec::new();
    figures.each_route(|route, took| routes.push((route.to_owned(), took.read())));
    let routes = routes.into_iter();
    let (names, read): (Vec<_>, Vec<_>) = routes.unzip();
    let took = names.iter().zip(read).map(|(route, read)| (vec![("route", route.as_str())], read));
    page.histogram("calos_http_request_seconds", "From a request to the head of its answer", MICROS, took)?;
    page.gauge("calos_http_requests_in_flight", "Requests being worked on", alone(figures.in_flight.get()))?;
    page.gauge("calos_http_connections_open", "Connections that are open", alone(app.metrics.connections.get()))?;
    let refusals = figures.refusals().map(|(code, count)| (vec![("code", code.as_str())], count));
    page.counter("calos_refusals", "Refusals and failures, by code", refusals)?;
    let limited = figures.refusals().filter(|(code, _)| code.status().as_u16() == 429).map(|(_, count)| count).sum();
    page.counter("calos_rate_limit_refusals", "Refusals for a limit or a pace, all codes of status 429", alone(limited))
}
