//! The prices themselves. A change is a new edition with a new version: usage records keep pointing at the one they
//! were charged by.
//!
//! Models whose list price depends on the length of the prompt (gpt-5.4 to gpt-6, Claude Haiku 5.5) are not here: the
//! book has one price per model, and one that is right for short prompts would sell long ones at half of what they
//! cost. An alias or a dated snapshot is another name of an entry as long as it costs and can do the same; one that does
//! not is an entry of its own. A model that its maker has retired stays at its last list price: compatible backends still serve it, and a
//! call the maker refuses costs nothing.

use super::Provider::{Anthropic, DeepSeek, OpenAi};
use super::{IMAGE_MAX_TOKENS, ModelEntry, ModelKind, Price, PriceBook, Provider};

/// The edition in force. Providers' own prices are the contract's (0.03/0.06, 0.015/0.075 and 0.001/0.001 dollars per
/// thousand tokens); a model's own price is its maker's list price on the day the edition counts from.
pub(super) const CURRENT: PriceBook =
    PriceBook { version: "2026-11-22.2", effective_on: "2026-11-22", models: MODELS, byok_fee_micros: 0 };

/// What a provider's models cost that have no price of their own.
pub(super) const fn default_price(provider: Provider) -> Price {
    match provider {
        Provider::OpenAi => flat(30_000_000, 60_000_000),
        Provider::Anthropic => anthropic(15_000_000, 75_000_000),
        Provider::DeepSeek => flat(1_000_000, 1_000_000),
        Provider::Ollama => flat(0, 0),
    }
}

/// No discount for cached tokens.
const fn flat(input: u64, output: u64) -> Price {
    Price { input, output, cached_input: input, cache_write: input, cache_write_hour: input }
}

/// Cached tokens at a price of their own; writing to the cache costs nothing extra.
const fn cached(input: u64, cached_input: u64, output: u64) -> Price {
    Price { input, output, cached_input, cache_write: input, cache_write_hour: input }
}

/// Anthropic's list: reading its cache costs a tenth of the input, writing for five minutes a quarter more than it, for
/// an hour twice as much.
const fn anthropic(input: u64, output: u64) -> Price {
    Price { input, output, cached_input: input / 10, cache_write: input / 4 * 5, cache_write_hour: input * 2 }
}

/// A model at its provider's price.
const fn plain(name: &'static str, provider: Provider, max_output_tokens: u64) -> ModelEntry {
    ModelEntry {
        name,
        aliases: &[],
        provider,
        kind: ModelKind::Chat { hidden_reasoning: false },
        max_output_tokens,
        image_max_tokens: IMAGE_MAX_TOKENS,
        price: None,
    }
}

/// A model at a price of its own.
const fn priced(name: &'static str, provider: Provider, max_output_tokens: u64, price: Price) -> ModelEntry {
    ModelEntry { price: Some(price), ..plain(name, provider, max_output_tokens) }
}

/// A model of vectors, which writes no tokens.
const fn embedding(name: &'static str, dimensions: u64, input: u64) -> ModelEntry {
    ModelEntry { kind: ModelKind::Embedding { dimensions }, ..priced(name, OpenAi, 0, flat(input, 0)) }
}

/// A picture is scaled until it covers eight tiles at most (2,048 x 768): so much for itself, and so much for each.
const fn tiles(base: u64, tile: u64) -> u64 {
    base + 8 * tile
}

/// A picture is scaled until it covers 1,536 patches at most, each counted as so many hundredths of a token.
const fn patches(hundredths: u64) -> u64 {
    (1_536 * hundredths).div_ceil(100)
}

/// Anthropic scales a picture down to 1,568 tokens; rounded up.
const ANTHROPIC_IMAGE: u64 = 1_600;

/// Its newer models read pictures three times as large.
const ANTHROPIC_LARGE_IMAGE: u64 = 5_000;

impl ModelEntry {
    /// The same model, whose pictures have a bound of their own.
    const fn sees(self, image_max_tokens: u64) -> Self {
        Self { image_max_tokens, ..self }
    }

    /// The same model, by further names.
    const fn also(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    /// The same model, which thinks without showing it.
    const fn thinks(self) -> Self {
        Self { kind: ModelKind::Chat { hidden_reasoning: true }, ..self }
    }
}

/// Claude with a price of its own for reading the cache.
const fn claude(name: &'static str, max_output_tokens: u64, price: Price) -> ModelEntry {
    priced(name, Anthropic, max_output_tokens, price).sees(ANTHROPIC_IMAGE)
}

/// The same list, with cache reads at a twentieth of the input.
const fn anthropic_twentieth(input: u64, output: u64) -> Price {
    Price { cached_input: input / 20, ..anthropic(input, output) }
}

const MODELS: &[ModelEntry] = &[
    // developers.openai.com/api/docs/pricing and …/models/<name>. GPT-4, its turbo, GPT-3.5, GPT-4.1 nano, o1, o3-mini
    // and o4-mini left OpenAI's API on 2026-10-23 (…/deprecations).
    plain("gpt-4", OpenAi, 8_192).also(&["gpt-4-0613", "gpt-4-0314"]),
    priced("gpt-4-turbo", OpenAi, 4_096, flat(10_000_000, 30_000_000)).sees(tiles(85, 170)).also(&[
        "gpt-4-turbo-2024-04-09",
        "gpt-4-turbo-preview",
        "gpt-4-0125-preview",
        "gpt-4-1106-preview",
    ]),
    priced("gpt-4o", OpenAi, 16_384, cached(2_500_000, 1_250_000, 10_000_000))
        .sees(tiles(85, 170))
        .also(&["gpt-4o-2024-08-06", "gpt-4o-2024-11-20"]),
    priced("gpt-4o-2024-05-13", OpenAi, 4_096, flat(5_000_000, 15_000_000)).sees(tiles(85, 170)),
    priced("chatgpt-4o-latest", OpenAi, 16_384, flat(5_000_000, 15_000_000)).sees(tiles(85, 170)),
    priced("gpt-4o-mini", OpenAi, 16_384, cached(150_000, 75_000, 600_000))
        .sees(tiles(2_833, 5_667))
        .also(&["gpt-4o-mini-2024-07-18"]),
    priced("gpt-4.1", OpenAi, 32_768, cached(2_000_000, 500_000, 8_000_000))
        .sees(tiles(85, 170))
        .also(&["gpt-4.1-2025-04-14"]),
    priced("gpt-4.1-mini", OpenAi, 32_768, cached(400_000, 100_000, 1_600_000))
        .sees(patches(162))
        .also(&["gpt-4.1-mini-2025-04-14"]),
    priced("gpt-4.1-nano", OpenAi, 32_768, cached(100_000, 25_000, 400_000))
        .sees(patches(246))
        .also(&["gpt-4.1-nano-2025-04-14"]),
    priced("gpt-3.5-turbo", OpenAi, 4_096, flat(500_000, 1_500_000)).also(&["gpt-3.5-turbo-0125"]),
    priced("gpt-3.5-turbo-1106", OpenAi, 4_096, flat(1_000_000, 2_000_000)),
    priced("gpt-5", OpenAi, 128_000, cached(1_250_000, 125_000, 10_000_000))
        .sees(tiles(70, 140))
        .thinks()
        .also(&["gpt-5-2025-08-07"]),
    priced("gpt-5-chat-latest", OpenAi, 16_384, cached(1_250_000, 125_000, 10_000_000)).sees(tiles(70, 140)),
    priced("gpt-5-mini", OpenAi, 128_000, cached(250_000, 25_000, 2_000_000))
        .sees(patches(162))
        .thinks()
        .also(&["gpt-5-mini-2025-08-07"]),
    priced("gpt-5-nano", OpenAi, 128_000, cached(50_000, 5_000, 400_000))
        .sees(patches(246))
        .thinks()
        .also(&["gpt-5-nano-2025-08-07"]),
    priced("gpt-5.1", OpenAi, 128_000, cached(1_250_000, 125_000, 10_000_000)).thinks().also(&["gpt-5.1-2025-11-13"]),
    priced("gpt-5.1-chat-latest", OpenAi, 16_384, cached(1_250_000, 125_000, 10_000_000)).thinks(),
    priced("gpt-5.2", OpenAi, 128_000, cached(1_750_000, 175_000, 14_000_000)).thinks().also(&["gpt-5.2-2025-12-11"]),
    priced("gpt-5.2-chat-latest", OpenAi, 16_384, cached(1_750_000, 175_000, 14_000_000)).thinks(),
    priced("gpt-5.4-mini", OpenAi, 128_000, cached(750_000, 75_000, 4_500_000))
        .thinks()
        .also(&["gpt-5.4-mini-2026-03-17"]),
    priced("gpt-5.4-nano", OpenAi, 128_000, cached(200_000, 20_000, 1_250_000))
        .thinks()
        .also(&["gpt-5.4-nano-2026-03-17"]),
    priced("o1", OpenAi, 100_000, cached(15_000_000, 7_500_000, 60_000_000))
        .sees(tiles(75, 150))
        .thinks()
        .also(&["o1-2024-12-17"]),
    priced("o3", OpenAi, 100_000, cached(2_000_000, 500_000, 8_000_000))
        .sees(tiles(75, 150))
        .thinks()
        .also(&["o3-2025-04-16"]),
    priced("o3-mini", OpenAi, 100_000, cached(1_100_000, 550_000, 4_400_000)).thinks().also(&["o3-mini-2025-01-31"]),
    priced("o4-mini", OpenAi, 100_000, cached(1_100_000, 275_000, 4_400_000))
        .sees(patches(172))
        .thinks()
        .also(&["o4-mini-2025-04-16"]),
    embedding("text-embedding-3-small", 1_536, 20_000),
    embedding("text-embedding-3-large", 3_072, 130_000),
    embedding("text-embedding-ada-002", 1_536, 100_000),
    // platform.claude.com/docs/en/about-claude/pricing and …/models/<name>/overview. Claude 3 to 4.1 are retired there.
    plain("claude-3-opus-20240229", Anthropic, 4_096).sees(ANTHROPIC_IMAGE).also(&["claude-3-opus-latest"]),
    plain("claude-opus-4-20250514", Anthropic, 32_000).sees(ANTHROPIC_IMAGE).also(&["claude-opus-4-0"]),
    plain("claude-opus-4-1-20250805", Anthropic, 32_000).sees(ANTHROPIC_IMAGE).also(&["claude-opus-4-1"]),
    claude("claude-opus-4-5-20251101", 64_000, anthropic(5_000_000, 25_000_000)).also(&["claude-opus-4-5"]),
    claude("claude-opus-4-6", 128_000, anthropic(5_000_000, 25_000_000)),
    claude("claude-opus-4-7", 128_000, anthropic(5_000_000, 25_000_000)).sees(ANTHROPIC_LARGE_IMAGE),
    claude("claude-opus-4-8", 128_000, anthropic(5_000_000, 25_000_000)).sees(ANTHROPIC_LARGE_IMAGE),
    claude("claude-opus-5", 128_000, anthropic(5_000_000, 25_000_000)).sees(ANTHROPIC_LARGE_IMAGE),
    claude("claude-3-5-sonnet-20241022", 8_192, anthropic(3_000_000, 15_000_000))
        .also(&["claude-3-5-sonnet-latest", "claude-3-5-sonnet-20240620"]),
    claude("claude-3-7-sonnet-20250219", 64_000, anthropic(3_000_000, 15_000_000)).also(&["claude-3-7-sonnet-latest"]),
    claude("claude-sonnet-4-20250514", 64_000, anthropic(3_000_000, 15_000_000)).also(&["claude-sonnet-4-0"]),
    claude("claude-sonnet-4-5-20250929", 64_000, anthropic(3_000_000, 15_000_000)).also(&["claude-sonnet-4-5"]),
    claude("claude-sonnet-4-6", 128_000, anthropic(3_000_000, 15_000_000)),
    claude("claude-sonnet-5", 128_000, anthropic(2_000_000, 10_000_000)).sees(ANTHROPIC_LARGE_IMAGE),
    claude("claude-sonnet-5-5", 128_000, anthropic_twentieth(2_000_000, 10_000_000)).sees(ANTHROPIC_LARGE_IMAGE),
    claude("claude-3-5-haiku-20241022", 8_192, anthropic(800_000, 4_000_000)).also(&["claude-3-5-haiku-latest"]),
    claude("claude-haiku-4-5-20251001", 64_000, anthropic(1_000_000, 5_000_000)).also(&["claude-haiku-4-5"]),
    // api-docs.deepseek.com/quick_start/pricing. The older names are at the contract's price; the newer models have a
    // price by the hour, and are charged at the dearer one.
    plain("deepseek-chat", DeepSeek, 8_192),
    plain("deepseek-reasoner", DeepSeek, 64_000),
    priced("deepseek-flash", DeepSeek, 393_216, cached(300_000, 6_000, 1_200_000)),
    priced("deepseek-v4-pro", DeepSeek, 393_216, cached(1_320_000, 44_000, 3_960_000)),
];
