use proptest::prelude::*;

use super::*;

const PRO: Payer = Payer::Platform { markup_percent: 30 };

fn book() -> &'static PriceBook {
    PriceBook::current()
}

fn tokens(prompt: u64, completion: u64) -> TokenCounts {
    TokenCounts { prompt, completion, ..TokenCounts::default() }
}

fn micros(cost: Cost) -> (i64, i64, i64) {
    (cost.provider_cost.get(), cost.markup.get(), cost.total.get())
}

#[test]
fn the_contracts_prices_hold_to_the_micro_dollar() {
    let one = |provider, model| micros(book().cost(provider, model, tokens(1, 0), NO_MARKUP).unwrap()).0;
    let out = |provider, model| micros(book().cost(provider, model, tokens(0, 1), NO_MARKUP).unwrap()).0;
    assert_eq!((one(Provider::OpenAi, "gpt-4"), out(Provider::OpenAi, "gpt-4")), (30, 60));
    let opus = "claude-3-opus-20240229";
    assert_eq!((one(Provider::Anthropic, opus), out(Provider::Anthropic, opus)), (15, 75));
    assert_eq!((one(Provider::DeepSeek, "deepseek-chat"), out(Provider::DeepSeek, "deepseek-chat")), (1, 1));
    assert_eq!((one(Provider::Ollama, "anything:1b"), out(Provider::Ollama, "anything:1b")), (0, 0));
}

const NO_MARKUP: Payer = Payer::Platform { markup_percent: 0 };

#[test]
fn a_pro_tenant_pays_thirty_percent_on_top() {
    let cost = book().cost(Provider::OpenAi, "gpt-4", tokens(10, 20), PRO).unwrap();
    assert_eq!(micros(cost), (1_500, 450, 1_950));
}

#[test]
fn a_total_is_rounded_half_up_once() {
    // 3 tokens of gpt-4o-mini at 0.15 micro-dollars: 0.45 rounds to 0 for the provider, 0.585 with markup to 1.
    let cost = book().cost(Provider::OpenAi, "gpt-4o-mini", tokens(3, 0), PRO).unwrap();
    assert_eq!(micros(cost), (0, 1, 1));
    // 10 tokens of gpt-4.1-nano at 0.1: exactly 1. 5 tokens: exactly a half, which goes up.
    assert_eq!(micros(book().cost(Provider::OpenAi, "gpt-4.1-nano", tokens(5, 0), NO_MARKUP).unwrap()), (1, 0, 1));
    assert_eq!(micros(book().cost(Provider::OpenAi, "gpt-4.1-nano", tokens(4, 0), NO_MARKUP).unwrap()), (0, 0, 0));
}

#[test]
fn cached_and_cache_written_tokens_have_prices_of_their_own() {
    let counts = TokenCounts { prompt: 1_000, cached: 600, cache_write: 300, cache_write_hour: 0, completion: 10 };
    let cost = book().cost(Provider::Anthropic, "claude-sonnet-4-20250514", counts, NO_MARKUP).unwrap();
    // 100 x 3 + 600 x 0.3 + 300 x 3.75 + 10 x 15
    assert_eq!(micros(cost).0, 300 + 180 + 1_125 + 150);
}

#[test]
fn more_cached_tokens_than_tokens_are_not_believed() {
    let counts =
        TokenCounts { prompt: 10, cached: u64::MAX, cache_write: u64::MAX, cache_write_hour: u64::MAX, completion: 0 };
    let cost = book().cost(Provider::OpenAi, "gpt-4", counts, NO_MARKUP).unwrap();
    assert_eq!(micros(cost).0, 300);
}

#[test]
fn a_tenants_own_key_costs_the_fee_alone() {
    let cost = book().cost(Provider::OpenAi, "gpt-4", tokens(1_000, 1_000), Payer::Byok).unwrap();
    assert_eq!(micros(cost), (0, 0, 0));
    assert_eq!(book().byok_fee(), MicroUsd::ZERO);
}

#[test]
fn a_model_without_a_price_is_refused_and_never_free() {
    let refused = book().cost(Provider::OpenAi, "gpt-99", tokens(1, 1), PRO);
    assert_eq!(refused, Err(PriceRefusal::NoPrice { provider: Provider::OpenAi, model: "gpt-99".to_owned() }));
    // Neither does another provider's name buy a cheaper price.
    assert!(book().cost(Provider::DeepSeek, "gpt-4", tokens(1, 1), PRO).is_err());
}

#[test]
fn an_alias_is_priced_and_bounded_as_its_model() {
    for (alias, name) in [
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("claude-haiku-4-5", "claude-haiku-4-5-20251001"),
        ("claude-opus-4-5", "claude-opus-4-5-20251101"),
        ("claude-opus-4-1", "claude-opus-4-1-20250805"),
        ("claude-opus-4-0", "claude-opus-4-20250514"),
        ("claude-sonnet-4-0", "claude-sonnet-4-20250514"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku-20241022"),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
        ("claude-3-7-sonnet-latest", "claude-3-7-sonnet-20250219"),
        ("claude-3-opus-latest", "claude-3-opus-20240229"),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-4-turbo-2024-04-09", "gpt-4-turbo"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4.1-2025-04-14", "gpt-4.1"),
        ("gpt-5-2025-08-07", "gpt-5"),
        ("gpt-3.5-turbo-0125", "gpt-3.5-turbo"),
        ("o3-2025-04-16", "o3"),
    ] {
        let entry = book().model(name).unwrap();
        let provider = entry.provider;
        assert_eq!((book().model(alias), entry.name), (Some(entry), name), "{alias}");
        assert_eq!(book().price(provider, alias), book().price(provider, name), "{alias}");
        assert_eq!(book().max_output_tokens(provider, alias), entry.max_output_tokens, "{alias}");
        assert_eq!(book().output_tokens(provider, alias, Some(u64::MAX)), entry.max_output_tokens, "{alias}");
        assert_eq!(book().image_max_tokens(provider, alias), entry.image_max_tokens, "{alias}");
        assert_eq!(book().hides_reasoning(alias), book().hides_reasoning(name), "{alias}");
        let names: Vec<_> = book().names_of(alias).collect();
        assert!(names.contains(&alias) && names.contains(&name), "{names:?}");
    }
    assert_eq!(book().names_of("llama3.2:3b").collect::<Vec<_>>(), ["llama3.2:3b"]);
}

#[test]
fn a_snapshot_with_a_price_of_its_own_is_a_model_of_its_own() {
    let price = |model| book().price(Provider::OpenAi, model).unwrap();
    let (first, now) = (price("gpt-4o-2024-05-13"), price("gpt-4o"));
    assert_eq!((first.input, first.output, first.cached_input), (5_000_000, 15_000_000, 5_000_000));
    assert_eq!((now.input, now.output, now.cached_input), (2_500_000, 10_000_000, 1_250_000));
    assert!(book().price(Provider::OpenAi, "gpt-4o-2099-01-01").is_err(), "a date alone prices nothing");
}

#[test]
fn a_tenants_own_key_needs_no_price_and_no_limit_of_ours() {
    let allowance = Allowance { prompt_tokens: 1_000_000, output_tokens: 1_000_000, answers: 8 };
    for (provider, model) in [(Provider::OpenAi, "gpt-99"), (Provider::Anthropic, "claude-next")] {
        let cost = book().cost(provider, model, tokens(1_000, 1_000), Payer::Byok).unwrap();
        assert_eq!(cost.total, book().byok_fee());
        assert_eq!(book().worst_case(provider, model, allowance, Payer::Byok).unwrap().total, book().byok_fee());
        let within = book().output_tokens_within(MicroUsd::ZERO, provider, model, allowance, Payer::Byok);
        assert_eq!(within, Ok(Some(u64::MAX)));
        assert_eq!(book().output_tokens(provider, model, Some(200_000)), 200_000);
        assert_eq!(book().output_tokens(provider, model, None), DEFAULT_OUTPUT_TOKENS);
        assert!(book().worst_case(provider, model, allowance, PRO).is_err(), "the platform's key does");
        assert!(book().output_tokens_within(MicroUsd::ZERO, provider, model, allowance, PRO).is_err());
    }
}

#[test]
fn a_cost_beyond_all_money_is_refused() {
    let refused = book().cost(Provider::OpenAi, "gpt-4", tokens(u64::MAX, u64::MAX), PRO);
    assert_eq!(refused, Err(PriceRefusal::OutOfRange(OutOfRange)));
    let greedy = Allowance { prompt_tokens: 1, output_tokens: u64::MAX, answers: u64::MAX };
    assert!(book().worst_case(Provider::OpenAi, "gpt-4", greedy, PRO).is_err());
}

#[test]
fn an_answer_is_held_for_the_default_unless_asked_otherwise_and_never_beyond_the_model() {
    let limit = |model, asked| book().output_tokens(Provider::OpenAi, model, asked);
    assert_eq!(limit("gpt-4", None), 4_096);
    assert_eq!(limit("gpt-4", Some(100)), 100);
    assert_eq!(limit("gpt-4", Some(1_000_000)), 8_192);
    assert_eq!(book().output_tokens(Provider::Ollama, "llama3.2:3b", Some(9_000)), 9_000);
    assert_eq!(book().output_tokens(Provider::Ollama, "llama3.2:3b", None), 4_096);
}

#[test]
fn a_worst_case_pays_the_prompt_once_and_every_answer() {
    let allowance = Allowance { prompt_tokens: 100, output_tokens: 1_000, answers: 3 };
    let cost = book().worst_case(Provider::OpenAi, "gpt-4", allowance, PRO).unwrap();
    assert_eq!(micros(cost), (183_000, 54_900, 237_900));
}

#[test]
fn a_budget_does_not_carry_the_half_that_rounds_up() {
    // Five tokens of gpt-4.1-nano cost half a micro-dollar, which a budget of nothing does not carry; four do.
    let within = |prompt_tokens| {
        let allowance = Allowance { prompt_tokens, output_tokens: 0, answers: 1 };
        book().output_tokens_within(MicroUsd::ZERO, Provider::OpenAi, "gpt-4.1-nano", allowance, NO_MARKUP)
    };
    assert_eq!(within(5), Ok(None));
    assert_eq!(within(4), Ok(Some(0)));
}

#[test]
fn a_picture_is_held_for_what_the_model_counts_for_the_largest() {
    let most = |model| book().image_max_tokens(Provider::OpenAi, model);
    assert_eq!((most("gpt-4o"), most("gpt-4o-mini"), most("gpt-4.1-mini")), (1_445, 48_169, 2_489));
    // What is not known is held for the most.
    assert_eq!((most("gpt-4"), most("gpt-99")), (IMAGE_MAX_TOKENS, IMAGE_MAX_TOKENS));
    assert!(book().models().iter().all(|entry| (1..=IMAGE_MAX_TOKENS).contains(&entry.image_max_tokens)));
}

#[test]
fn names_are_unique_and_every_model_can_answer() {
    let mut names: Vec<_> = book().models().iter().flat_map(ModelEntry::names).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(book().models().iter().all(|entry| entry.provider != Provider::Ollama));
    let answers = |entry: &ModelEntry| (entry.max_output_tokens > 0) != entry.kind.is_embedding();
    assert!(book().models().iter().all(answers));
}

#[test]
fn a_provider_is_read_back_from_its_name() {
    for provider in Provider::ALL {
        assert_eq!(provider.as_str().parse(), Ok(provider));
        assert_eq!(serde_json::to_value(provider).unwrap(), provider.as_str());
    }
}

fn any_model() -> impl Strategy<Value = ModelEntry> {
    proptest::sample::select(book().models())
}

fn any_chat_model() -> impl Strategy<Value = ModelEntry> {
    any_model().prop_filter("vectors have no output to carry", |entry| !entry.kind.is_embedding())
}

proptest! {
    #[test]
    fn parts_always_add_up_and_markup_is_never_negative(
        entry in any_model(), prompt in 0..10_000_000u64, completion in 0..1_000_000u64,
        cached in 0..10_000_000u64, cache_write in 0..10_000_000u64, markup_percent in 0..1_000u32,
    ) {
        let counts = TokenCounts { prompt, completion, cached, cache_write, cache_write_hour: cache_write / 2 };
        let cost = book().cost(entry.provider, entry.name, counts, Payer::Platform { markup_percent }).unwrap();
        prop_assert_eq!(cost.provider_cost.get() + cost.markup.get(), cost.total.get());
        prop_assert!(cost.markup.get() >= 0 && cost.provider_cost.get() >= 0);
    }

    #[test]
    fn a_call_within_its_allowance_never_costs_more_than_its_worst_case(
        entry in any_model(), prompt in 0..1_000_000u64, output in 0..100_000u64, answers in 1..8u64,
        cached in 0..1_000_000u64, cache_write in 0..1_000_000u64, used in 0..=100u64, markup_percent in 0..100u32,
    ) {
        let payer = Payer::Platform { markup_percent };
        let allowance = Allowance { prompt_tokens: prompt, output_tokens: output, answers };
        let completion = output * answers * used / 100;
        let counts = TokenCounts { prompt, completion, cached, cache_write, cache_write_hour: cache_write / 2 };
        let worst = book().worst_case(entry.provider, entry.name, allowance, payer).unwrap();
        prop_assert!(book().cost(entry.provider, entry.name, counts, payer).unwrap().total <= worst.total);
    }

    #[test]
    fn what_a_budget_carries_is_the_most_it_carries(
        entry in any_chat_model(), budget in 0..100_000_000i64, prompt in 0..100_000u64, answers in 1..8u64,
        markup_percent in 0..100u32,
    ) {
        let payer = Payer::Platform { markup_percent };
        let budget = MicroUsd::new(budget);
        let with = |output_tokens| {
            let allowance = Allowance { prompt_tokens: prompt, output_tokens, answers };
            book().worst_case(entry.provider, entry.name, allowance, payer).unwrap().total
        };
        let allowance = Allowance { prompt_tokens: prompt, output_tokens: 0, answers };
        match book().output_tokens_within(budget, entry.provider, entry.name, allowance, payer).unwrap() {
            None => prop_assert!(with(0) > budget),
            Some(most) => {
                prop_assert!(with(most) <= budget);
                prop_assert!(with(most + 1) > budget);
            }
        }
    }
}

#[test]
fn an_embedding_costs_its_prompt_alone() {
    let cost = |model, prompt| micros(book().cost(Provider::OpenAi, model, tokens(prompt, 0), NO_MARKUP).unwrap()).0;
    assert_eq!(cost("text-embedding-3-small", 1_000_000), 20_000);
    assert_eq!(cost("text-embedding-3-large", 1_000_000), 130_000);
    assert_eq!(cost("text-embedding-ada-002", 1_000_000), 100_000);
    assert_eq!(book().max_output_tokens(Provider::OpenAi, "text-embedding-3-small"), 0);
}

#[test]
fn only_models_that_think_unseen_hide_their_reasoning() {
    for model in ["o1", "o3", "o4-mini", "gpt-5", "gpt-5-nano", "gpt-5.2"] {
        assert!(book().hides_reasoning(model), "{model}");
    }
    for model in ["gpt-4", "gpt-4.1", "deepseek-reasoner", "text-embedding-3-small", "llama3.2:3b"] {
        assert!(!book().hides_reasoning(model), "{model}");
    }
}
