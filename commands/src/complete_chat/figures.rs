//! What the gateway counts: how each provider answers, and what was charged for it.
//!
//! Nothing of a caller's or a provider's own words becomes a name here, so there are never more figures than these.

use std::collections::BTreeMap;
use std::time::Duration;

use calos_domain::pricing::{Cost, Provider};

use super::breaker::CircuitState;
use super::{EventLog, Gateway};
use crate::figures::{Counter, Histogram, SLOW_BOUNDS_MICROS};
use crate::provider::ProviderError;

/// How a request to a provider failed, or why none was sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FailureKind {
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// 429.
    RateLimited,
    /// Another status below 500: the request, or the account, was refused.
    Rejected,
    /// 500 and above.
    ServerError,
    /// An answer that cannot be read.
    BadAnswer,
    /// A stream that broke off after it had begun.
    BrokenStream,
    /// Not sent: the circuit is open.
    CircuitOpen,
    /// Not sent: too many calls are under way.
    Busy,
    /// Not sent: the tenant's own key does not open.
    KeyUnavailable,
    /// Not sent: the provider cannot do it.
    Unsupported,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Unreachable,
        Self::Timeout,
        Self::RateLimited,
        Self::Rejected,
        Self::ServerError,
        Self::BadAnswer,
        Self::BrokenStream,
        Self::CircuitOpen,
        Self::Busy,
        Self::KeyUnavailable,
        Self::Unsupported,
    ];

    /// The name in figures.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate_limited",
            Self::Rejected => "rejected",
            Self::ServerError => "server_error",
            Self::BadAnswer => "bad_answer",
            Self::BrokenStream => "broken_stream",
            Self::CircuitOpen => "circuit_open",
            Self::Busy => "busy",
            Self::KeyUnavailable => "key_unavailable",
            Self::Unsupported => "unsupported",
        }
    }

    const fn of(error: &ProviderError) -> Self {
        match error {
            ProviderError::Unreachable { .. } => Self::Unreachable,
            ProviderError::Timeout { .. } => Self::Timeout,
            ProviderError::Status { status: 429, .. } => Self::RateLimited,
            ProviderError::Status { status: 500.., .. } => Self::ServerError,
            ProviderError::Status { .. } => Self::Rejected,
            ProviderError::BadAnswer { .. } => Self::BadAnswer,
            ProviderError::CircuitOpen { .. } => Self::CircuitOpen,
            ProviderError::Busy { .. } => Self::Busy,
            ProviderError::KeyUnavailable { .. } => Self::KeyUnavailable,
            ProviderError::Unsupported { .. } => Self::Unsupported,
        }
    }
}

/// What is counted about one provider.
#[derive(Debug)]
pub struct ProviderFigures {
    /// Requests that began to be answered.
    pub answered: Counter,
    /// From the request to its whole answer, or to the beginning of its stream; in microseconds.
    pub latency: Histogram,
    /// What the provider costs, in micro-dollars; of tenants' own keys nothing.
    pub provider_cost_micros: Counter,
    /// What was charged on top, in micro-dollars.
    pub markup_micros: Counter,
    /// Tokens of prompts that were charged or counted.
    pub prompt_tokens: Counter,
    /// Tokens of answers.
    pub completion_tokens: Counter,
    failures: BTreeMap<FailureKind, Counter>,
}

impl Default for ProviderFigures {
    fn default() -> Self {
        Self {
            answered: Counter::default(),
            latency: Histogram::new(SLOW_BOUNDS_MICROS),
            provider_cost_micros: Counter::default(),
            markup_micros: Counter::default(),
            prompt_tokens: Counter::default(),
            completion_tokens: Counter::default(),
            failures: FailureKind::ALL.into_iter().map(|kind| (kind, Counter::default())).collect(),
        }
    }
}

impl ProviderFigures {
    /// How often each thing went wrong.
    pub fn failures(&self) -> impl Iterator<Item = (FailureKind, u64)> {
        self.failures.iter().map(|(kind, count)| (*kind, count.get()))
    }

    fn count(&self, kind: FailureKind) {
        if let Some(count) = self.failures.get(&kind) {
            count.add(1);
        }
    }
}

/// What is counted about every provider.
#[derive(Debug)]
pub struct GatewayFigures(BTreeMap<Provider, ProviderFigures>);

impl Default for GatewayFigures {
    fn default() -> Self {
        Self(Provider::ALL.into_iter().map(|provider| (provider, ProviderFigures::default())).collect())
    }
}

impl GatewayFigures {
    /// Every provider, with its figures.
    pub fn providers(&self) -> impl Iterator<Item = (Provider, &ProviderFigures)> {
        self.0.iter().map(|(provider, figures)| (*provider, figures))
    }

    pub(super) fn answered(&self, provider: Provider, took: Duration) {
        if let Some(figures) = self.0.get(&provider) {
            figures.answered.add(1);
            figures.latency.record_micros(took);
        }
    }

    /// A request that was sent and failed.
    pub(super) fn failed(&self, provider: Provider, error: &ProviderError) {
        if let Some(figures) = self.0.get(&provider) {
            figures.count(FailureKind::of(error));
        }
    }

    /// What kept a request from being sent, when that was it; failures of sent ones are counted as they happen.
    pub(super) fn turned_away(&self, provider: Provider, error: &ProviderError) {
        match error {
            ProviderError::CircuitOpen { .. } | ProviderError::Busy { .. } | ProviderError::KeyUnavailable { .. } => {
                self.failed(provider, error);
            }
            ProviderError::Unreachable { .. }
            | ProviderError::Timeout { .. }
            | ProviderError::Status { .. }
            | ProviderError::BadAnswer { .. }
            | ProviderError::Unsupported { .. } => {}
        }
    }

    pub(super) fn broke_off(&self, provider: Provider) {
        if let Some(figures) = self.0.get(&provider) {
            figures.count(FailureKind::BrokenStream);
        }
    }

    pub(super) fn charged(&self, provider: Provider, cost: Cost, prompt_tokens: u64, completion_tokens: u64) {
        let Some(figures) = self.0.get(&provider) else { return };
        // A price book has no negative price; should one ever come, it must not turn a counter back.
        figures.provider_cost_micros.add(u64::try_from(cost.provider_cost.get()).unwrap_or_default());
        figures.markup_micros.add(u64::try_from(cost.markup.get()).unwrap_or_default());
        figures.prompt_tokens.add(prompt_tokens);
        figures.completion_tokens.add(completion_tokens);
    }
}

impl<L: EventLog> Gateway<L> {
    /// What was counted about the providers since the start.
    #[must_use]
    pub fn figures(&self) -> &GatewayFigures {
        &self.0.figures
    }

    /// How many calls are under way at a provider.
    #[must_use]
    pub fn calls_under_way(&self, provider: Provider) -> usize {
        self.0.traffic.under_way(provider)
    }

    /// How many models of the platform's own account at a provider have a circuit that is open, and half open.
    #[must_use]
    pub fn troubled_circuits(&self) -> BTreeMap<Provider, (usize, usize)> {
        let mut troubled: BTreeMap<_, _> = Provider::ALL.into_iter().map(|provider| (provider, (0, 0))).collect();
        for circuit in self.circuits() {
            let (open, half_open) = troubled.entry(circuit.provider).or_default();
            match circuit.state {
                CircuitState::Open => *open += 1,
                CircuitState::HalfOpen => *half_open += 1,
                CircuitState::Closed => {}
            }
        }
        troubled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use calos_domain::MicroUsd;

    fn status(status: u16) -> ProviderError {
        let (message, code, param, retry_after) = (String::new(), None, None, None);
        ProviderError::Status { provider: "openai", status, message, code, param, retry_after }
    }

    fn of_openai(figures: &GatewayFigures) -> &ProviderFigures {
        &figures.0[&Provider::OpenAi]
    }

    #[test]
    fn a_failure_counts_under_its_kind_and_never_under_a_status_of_its_own() {
        let figures = GatewayFigures::default();
        for code in [400, 404, 429, 500, 503, 529] {
            figures.failed(Provider::OpenAi, &status(code));
        }
        figures.turned_away(Provider::OpenAi, &status(500));
        figures.turned_away(Provider::OpenAi, &ProviderError::Busy { provider: "openai", limit: 1, of_tenant: false });
        let counted: Vec<_> = of_openai(&figures).failures().filter(|(_, count)| *count > 0).collect();
        let expected = [
            (FailureKind::RateLimited, 1),
            (FailureKind::Rejected, 2),
            (FailureKind::ServerError, 3),
            (FailureKind::Busy, 1),
        ];
        assert_eq!(counted, expected);
    }

    #[test]
    fn what_is_charged_adds_up() {
        let figures = GatewayFigures::default();
        let cost = Cost { provider_cost: MicroUsd::new(700), markup: MicroUsd::new(210), total: MicroUsd::new(910) };
        figures.charged(Provider::OpenAi, cost, 11, 5);
        figures.charged(Provider::OpenAi, cost, 11, 5);
        let of = of_openai(&figures);
        assert_eq!((of.provider_cost_micros.get(), of.markup_micros.get()), (1_400, 420));
        assert_eq!((of.prompt_tokens.get(), of.completion_tokens.get()), (22, 10));
    }
}
