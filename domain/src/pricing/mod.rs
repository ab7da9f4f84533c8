//! What a model call costs. One versioned price book in the repository; every usage record carries its version.
//!
//! Prices are integer micro-dollars per million tokens. A cost is rounded half up once, on the total, and nothing here
//! can overflow silently: intermediates are 128-bit, results that do not fit are refused.

mod book;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::MicroUsd;
use crate::money::OutOfRange;

/// Tokens a price is given for.
const PRICED_TOKENS: i128 = 1_000_000;

/// One whole, in percent.
const WHOLE_PERCENT: i128 = 100;

/// Tokens of answer a request without a limit of its own is held for, and sent with, at most.
pub const DEFAULT_OUTPUT_TOKENS: u64 = 4_096;

/// What one picture is held for where the model's own bound is not known: the largest of any model in the book.
pub const IMAGE_MAX_TOKENS: u64 = 48_169;

/// Who runs models.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// OpenAI, or whoever speaks its dialect at `OPENAI_BASE_URL`.
    OpenAi,
    /// Anthropic.
    Anthropic,
    /// DeepSeek.
    DeepSeek,
    /// The platform's own Ollama.
    Ollama,
}

/// Why a text names no provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a provider is openai, anthropic, deepseek or ollama")]
pub struct NoProvider;

impl Provider {
    /// Every provider.
    pub const ALL: [Self; 4] = [Self::OpenAi, Self::Anthropic, Self::DeepSeek, Self::Ollama];

    /// The name in events, answers and the price book.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::DeepSeek => "deepseek",
            Self::Ollama => "ollama",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = NoProvider;
    fn from_str(text: &str) -> Result<Self, NoProvider> {
        Self::ALL.into_iter().find(|provider| provider.as_str() == text).ok_or(NoProvider)
    }
}

/// Prices in micro-dollars per million tokens. Prices of cached tokens are absolute, not factors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Price {
    /// A million tokens in.
    pub input: u64,
    /// A million tokens out, reasoning included.
    pub output: u64,
    /// A million tokens in that were read from the provider's cache.
    pub cached_input: u64,
    /// A million tokens in that were written to the provider's cache for minutes.
    pub cache_write: u64,
    /// A million tokens in that were written to the provider's cache for an hour.
    pub cache_write_hour: u64,
}

/// What a model gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModelKind {
    /// Words.
    Chat {
        /// Whether it thinks in tokens nobody sees, which only its own report counts: who leaves its answer early is
        /// charged by that report.
        hidden_reasoning: bool,
    },
    /// Vectors.
    Embedding {
        /// How many numbers each has, unless fewer are asked for.
        dimensions: u64,
    },
}

impl ModelKind {
    /// Whether it gives vectors.
    #[must_use]
    pub const fn is_embedding(self) -> bool {
        matches!(self, Self::Embedding { .. })
    }
}

/// One model of the price book.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ModelEntry {
    /// By the provider's name for it.
    pub name: &'static str,
    /// The provider's other names for it, dated snapshots included: what they name costs and can do the same.
    pub aliases: &'static [&'static str],
    /// Who runs it.
    pub provider: Provider,
    /// What it gives.
    pub kind: ModelKind,
    /// The most tokens one answer can have.
    pub max_output_tokens: u64,
    /// The most tokens one picture of a prompt counts as.
    pub image_max_tokens: u64,
    /// Its own price; without one the provider's counts.
    pub price: Option<Price>,
}

impl ModelEntry {
    /// Its name, then its aliases.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

/// Tokens of one call, as the provider counts them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TokenCounts {
    /// In, cached and cache-written ones included.
    pub prompt: u64,
    /// Out, reasoning included.
    pub completion: u64,
    /// Of those in: read from the provider's cache.
    pub cached: u64,
    /// Of those in: written to the provider's cache for minutes.
    pub cache_write: u64,
    /// Of those in: written to the provider's cache for an hour.
    pub cache_write_hour: u64,
}

/// What a call costs: `total = provider_cost + markup`, always.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// What the provider charges CALOS.
    pub provider_cost: MicroUsd,
    /// What CALOS adds.
    pub markup: MicroUsd,
    /// What the tenant pays.
    pub total: MicroUsd,
}

/// The most a call may use, before it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowance {
    /// Tokens in, as counted beforehand, pictures included.
    pub prompt_tokens: u64,
    /// Tokens out, at most, in one answer.
    pub output_tokens: u64,
    /// How many answers are asked for (`n`); the prompt is paid once.
    pub answers: u64,
}

/// Whose key pays, and what CALOS adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payer {
    /// The platform's key: the provider's price and a markup, in percent.
    Platform {
        /// From the tenant's licence.
        markup_percent: u32,
    },
    /// The tenant's own key: the fee alone, whatever the model; it needs no price.
    Byok,
}

/// Why there is no cost to tell.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PriceRefusal {
    /// A model without a price is refused, never free.
    #[error("the price book has no price for {model} at {provider}")]
    NoPrice {
        /// The provider.
        provider: Provider,
        /// The model.
        model: String,
    },
    /// The cost would leave the range of money.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

/// One edition of the prices. It never changes once it was used; a new edition gets a new version.
#[derive(Clone, Copy, Debug)]
pub struct PriceBook {
    version: &'static str,
    effective_on: &'static str,
    models: &'static [ModelEntry],
    byok_fee_micros: i64,
}

impl PriceBook {
    /// The edition in force.
    #[must_use]
    pub const fn current() -> &'static Self {
        &book::CURRENT
    }

    /// The edition's name, in every usage record.
    #[must_use]
    pub const fn version(&self) -> &'static str {
        self.version
    }

    /// From which day it counts, `YYYY-MM-DD`.
    #[must_use]
    pub const fn effective_on(&self) -> &'static str {
        self.effective_on
    }

    /// What a call with the tenant's own key costs.
    #[must_use]
    pub const fn byok_fee(&self) -> MicroUsd {
        MicroUsd::new(self.byok_fee_micros)
    }

    /// The models of paid providers that are known by name. Ollama's are whatever it has installed.
    #[must_use]
    pub const fn models(&self) -> &'static [ModelEntry] {
        self.models
    }

    /// The model of that name or alias.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&'static ModelEntry> {
        self.models.iter().find(|entry| entry.names().any(|known| known == name))
    }

    /// The names that mean the same model: those of its entry, or the name alone where the book does not have it.
    pub fn names_of<'a>(&self, name: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        let known = self.model(name).into_iter().flat_map(ModelEntry::names);
        std::iter::once(name).chain(known.map(|known| -> &'a str { known }))
    }

    /// The provider's model of that name or alias.
    fn model_at(&self, provider: Provider, name: &str) -> Option<&'static ModelEntry> {
        self.model(name).filter(|entry| entry.provider == provider)
    }

    /// Whether the model of that name thinks in tokens nobody sees.
    #[must_use]
    pub fn hides_reasoning(&self, name: &str) -> bool {
        self.model(name).is_some_and(|entry| entry.kind == ModelKind::Chat { hidden_reasoning: true })
    }

    /// The price of a model: its own, or its provider's.
    ///
    /// # Errors
    /// [`PriceRefusal::NoPrice`] for a model the provider is not known to have.
    pub fn price(&self, provider: Provider, model: &str) -> Result<Price, PriceRefusal> {
        if provider == Provider::Ollama {
            return Ok(book::default_price(provider));
        }
        let entry = self.model_at(provider, model);
        let entry = entry.ok_or_else(|| PriceRefusal::NoPrice { provider, model: model.to_owned() })?;
        Ok(entry.price.unwrap_or(book::default_price(provider)))
    }

    /// The most tokens one answer of the model can have; [`DEFAULT_OUTPUT_TOKENS`] where nothing is known.
    #[must_use]
    pub fn max_output_tokens(&self, provider: Provider, model: &str) -> u64 {
        self.model_at(provider, model).map_or(DEFAULT_OUTPUT_TOKENS, |entry| entry.max_output_tokens)
    }

    /// The most tokens one picture counts as in a prompt for the model; [`IMAGE_MAX_TOKENS`] where nothing is known.
    #[must_use]
    pub fn image_max_tokens(&self, provider: Provider, model: &str) -> u64 {
        self.model_at(provider, model).map_or(IMAGE_MAX_TOKENS, |entry| entry.image_max_tokens)
    }

    /// The most tokens an answer is held for and sent with: what was asked for, else the default; never more than the
    /// model can give. Of Ollama's models, and of those only a tenant's own key reaches, nobody knows what they can
    /// give: there, what was asked for counts.
    #[must_use]
    pub fn output_tokens(&self, provider: Provider, model: &str, requested: Option<u64>) -> u64 {
        let most = self.model_at(provider, model).map(|entry| entry.max_output_tokens);
        let wanted = requested.unwrap_or(DEFAULT_OUTPUT_TOKENS);
        most.map_or(wanted, |most| wanted.min(most))
    }

    /// What a finished call costs.
    ///
    /// # Errors
    /// See [`PriceRefusal`].
    pub fn cost(
        &self,
        provider: Provider,
        model: &str,
        tokens: TokenCounts,
        payer: Payer,
    ) -> Result<Cost, PriceRefusal> {
        let Payer::Platform { markup_percent } = payer else { return Ok(self.byok_cost()) };
        let price = self.price(provider, model)?;
        let cached = tokens.cached.min(tokens.prompt);
        let written = tokens.cache_write.min(tokens.prompt - cached);
        let written_hour = tokens.cache_write_hour.min(tokens.prompt - cached - written);
        let plain = tokens.prompt - cached - written - written_hour;
        let exact = product(plain, price.input)
            + product(cached, price.cached_input)
            + product(written, price.cache_write)
            + product(written_hour, price.cache_write_hour)
            + product(tokens.completion, price.output);
        Ok(marked_up(exact, markup_percent)?)
    }

    /// The most a call within its allowance can cost: what is held for it.
    ///
    /// # Errors
    /// See [`PriceRefusal`].
    pub fn worst_case(
        &self,
        provider: Provider,
        model: &str,
        allowance: Allowance,
        payer: Payer,
    ) -> Result<Cost, PriceRefusal> {
        let Payer::Platform { markup_percent } = payer else { return Ok(self.byok_cost()) };
        let price = self.price(provider, model)?;
        let output = u64::try_from(product(allowance.output_tokens, allowance.answers)).map_err(|_| OutOfRange)?;
        let exact = product(allowance.prompt_tokens, price.dearest_input()) + product(output, price.output);
        Ok(marked_up(exact, markup_percent)?)
    }

    /// The most tokens each of `answers` answers may have so that the worst case stays within `budget`; none when not
    /// even the prompt does, [`u64::MAX`] when answers cost nothing.
    ///
    /// # Errors
    /// See [`PriceRefusal`].
    pub fn output_tokens_within(
        &self,
        budget: MicroUsd,
        provider: Provider,
        model: &str,
        allowance: Allowance,
        payer: Payer,
    ) -> Result<Option<u64>, PriceRefusal> {
        let markup_percent = match payer {
            Payer::Platform { markup_percent } => markup_percent,
            Payer::Byok => return Ok((self.byok_fee() <= budget).then_some(u64::MAX)),
        };
        let price = self.price(provider, model)?;
        // Rounded half up, `exact` stays within the budget as long as it is below the budget and a half.
        let scale = PRICED_TOKENS * WHOLE_PERCENT;
        let most = i128::from(budget.get()) * scale + scale / 2 - 1;
        let for_prompt = product(allowance.prompt_tokens, price.dearest_input());
        let for_answers = most.div_euclid(WHOLE_PERCENT + i128::from(markup_percent)) - for_prompt;
        let per_token = product(allowance.answers, price.output);
        if for_answers < 0 {
            return Ok(None);
        }
        if per_token == 0 {
            return Ok(Some(u64::MAX));
        }
        Ok(Some(u64::try_from(for_answers / per_token).unwrap_or(u64::MAX)))
    }

    fn byok_cost(&self) -> Cost {
        Cost { provider_cost: MicroUsd::ZERO, markup: self.byok_fee(), total: self.byok_fee() }
    }
}

impl Price {
    /// Nobody knows beforehand what a provider will cache, so the dearest way in is held for.
    fn dearest_input(self) -> u64 {
        self.input.max(self.cache_write).max(self.cache_write_hour).max(self.cached_input)
    }
}

/// Two 64-bit factors always fit 128 bits; prices are far below 2^60, so a sum of four such products does too.
fn product(tokens: u64, price: u64) -> i128 {
    i128::try_from(u128::from(tokens) * u128::from(price)).unwrap_or(i128::MAX / 8)
}

/// `exact` is in micro-dollars times [`PRICED_TOKENS`].
fn marked_up(exact: i128, markup_percent: u32) -> Result<Cost, OutOfRange> {
    let whole = WHOLE_PERCENT + i128::from(markup_percent);
    let provider_cost = half_up(exact, PRICED_TOKENS)?;
    let total = half_up(exact.checked_mul(whole).ok_or(OutOfRange)?, PRICED_TOKENS * WHOLE_PERCENT)?;
    Ok(Cost { provider_cost, markup: total.minus(provider_cost)?, total })
}

fn half_up(exact: i128, scale: i128) -> Result<MicroUsd, OutOfRange> {
    let rounded = exact.checked_add(scale / 2).ok_or(OutOfRange)?.div_euclid(scale);
    i64::try_from(rounded).map(MicroUsd::new).map_err(|_| OutOfRange)
}
