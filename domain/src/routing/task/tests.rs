use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::Strategy as _;

use super::Strategy;
use super::*;
use crate::pricing::PriceBook;
use Provider::{Anthropic, DeepSeek, Ollama, OpenAi};

const ALL: &[Provider] = &[OpenAi, Anthropic, DeepSeek, Ollama];
const CLAUDE: &str = "claude-sonnet-5";
const HAIKU: &str = "claude-haiku-4-5-20251001";
const LLAMA: &str = LOCAL_DEFAULT_MODEL;

/// In cents.
const RICH: [i64; 3] = [500, 501, 1_000_000];
const MIDDLING: [i64; 3] = [100, 250, 499];
const POOR: [i64; 3] = [10, 45, 99];
const BROKE: [i64; 4] = [-500, 0, 1, 9];

/// A world that a case changes in one place.
#[derive(Clone)]
struct World {
    platform: &'static [Provider],
    byok: &'static [Provider],
    installed: Vec<String>,
    broken: Vec<(Provider, String)>,
}

fn world() -> World {
    let installed = [LLAMA, "codellama:7b", "soulfra:latest", "deathtodata:latest", "saveorsink:latest", "roughsparks"];
    World { platform: ALL, byok: &[], installed: installed.map(str::to_owned).into(), broken: Vec::new() }
}

impl World {
    fn route(&self, asked: &TaskAsked, available: MicroUsd) -> Result<TaskChain, TaskRefusal> {
        let (book, ollama_models) = (PriceBook::current(), self.installed.as_slice());
        let offer = Offer { book, ollama_models, platform: self.platform, byok: self.byok };
        task_route(asked, &offer, Standing { available, broken: &self.broken })
    }

    fn chain(&self, asked: &TaskAsked, cents: i64) -> Vec<(Provider, String)> {
        let chain = self.route(asked, cents_of(cents)).unwrap_or_else(|refusal| panic!("{asked:?} {cents}: {refusal}"));
        chain
            .routes
            .into_iter()
            .map(|entry| (entry.route.provider, shown_model(&entry.route.model).to_owned()))
            .collect()
    }

    fn check(&self, asked: &TaskAsked, cents: i64, expected: &[(Provider, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(provider, model)| (*provider, (*model).to_owned())).collect();
        assert_eq!(self.chain(asked, cents), expected, "{asked:?} with {cents} cents");
    }

    fn without(mut self, provider: Provider, model: &str) -> Self {
        self.broken.push((provider, model.to_owned()));
        self
    }
}

fn cents_of(cents: i64) -> MicroUsd {
    MicroUsd::from_cents(cents).unwrap()
}

fn task(task: Task) -> TaskAsked {
    TaskAsked { task: Some(task), ..TaskAsked::default() }
}

fn cheapest(asked: TaskAsked) -> TaskAsked {
    TaskAsked { strategy: Strategy::Cheapest, ..asked }
}

fn preferring(provider: Provider, asked: TaskAsked) -> TaskAsked {
    TaskAsked { preferred: Some(provider), ..asked }
}

fn model(name: &str) -> TaskAsked {
    TaskAsked { model: Some(name.to_owned()), ..TaskAsked::default() }
}

/// task → chain with $5 and more, with $1 to $4.99, with 10 to 99 cents.
type Row<'a> = (Task, &'a [(Provider, &'a str)], &'a [(Provider, &'a str)], &'a [(Provider, &'a str)]);

const GPT: (Provider, &str) = (OpenAi, "gpt-4");
const SONNET: (Provider, &str) = (Anthropic, CLAUDE);
const CHAT: (Provider, &str) = (DeepSeek, "deepseek-chat");
const REASONER: (Provider, &str) = (DeepSeek, "deepseek-reasoner");
const LOCAL: (Provider, &str) = (Ollama, LLAMA);
const CODELLAMA: (Provider, &str) = (Ollama, "codellama:7b");
const SOULFRA: (Provider, &str) = (Ollama, "soulfra");
const SPARKS: (Provider, &str) = (Ollama, "roughsparks");
const DATA: (Provider, &str) = (Ollama, "deathtodata");
const SINK: (Provider, &str) = (Ollama, "saveorsink");

const SMART: [Row<'_>; 9] = [
    (Task::Chat, &[GPT, SONNET, LOCAL], &[CHAT, LOCAL], &[LOCAL]),
    (Task::Code, &[GPT, SONNET, CODELLAMA], &[CODELLAMA, CHAT, LOCAL], &[CODELLAMA, LOCAL]),
    (Task::Creative, &[SONNET, GPT, SOULFRA], &[SOULFRA, CHAT, LOCAL], &[SOULFRA, LOCAL]),
    (Task::Reasoning, &[GPT, SONNET, SPARKS], &[SPARKS, REASONER, LOCAL], &[SPARKS, LOCAL]),
    (Task::Analytics, &[DATA, CHAT, LOCAL], &[DATA, CHAT, LOCAL], &[DATA, LOCAL]),
    (Task::Fact, &[CHAT, LOCAL], &[CHAT, LOCAL], &[LOCAL]),
    (Task::Summarization, &[SONNET, GPT, DATA], &[DATA, CHAT, LOCAL], &[DATA, LOCAL]),
    (Task::Moderation, &[CHAT, LOCAL], &[CHAT, LOCAL], &[LOCAL]),
    (Task::Triage, &[SINK, CHAT, LOCAL], &[SINK, CHAT, LOCAL], &[SINK, LOCAL]),
];

#[test]
fn the_whole_table_of_tasks_and_balances() {
    let world = world();
    assert_eq!(SMART.map(|row| row.0), Task::ALL);
    for (asked, rich, middling, poor) in SMART {
        for (balances, expected) in [(RICH, rich), (MIDDLING, middling), (POOR, poor)] {
            for cents in balances {
                world.check(&task(asked), cents, expected);
            }
        }
        for cents in BROKE {
            let refused = world.route(&task(asked), cents_of(cents));
            let (needed, available) = (ANY_CALL_MIN, cents_of(cents));
            assert_eq!(refused, Err(TaskRefusal::TooLittle { needed, available }), "{asked}");
        }
    }
}

#[test]
fn the_cheapest_is_local_then_the_lowest_list_price_the_wallet_reaches() {
    let world = world();
    for (asked, local) in
        [(Task::Code, CODELLAMA), (Task::Creative, SOULFRA), (Task::Reasoning, SPARKS), (Task::Summarization, DATA)]
    {
        let asked = cheapest(task(asked));
        for cents in RICH {
            world.check(&asked, cents, &[local, (OpenAi, "gpt-4o-mini"), LOCAL]);
        }
        for cents in MIDDLING {
            world.check(&asked, cents, &[local, CHAT, LOCAL]);
        }
        for cents in POOR {
            world.check(&asked, cents, &[local, LOCAL]);
        }
    }
    // Where the local model is the only local one, it is asked once more when everybody else has failed.
    for asked in [Task::Fact, Task::Moderation] {
        world.check(&cheapest(task(asked)), 500, &[LOCAL, CHAT, LOCAL]);
        world.check(&cheapest(task(asked)), 99, &[LOCAL]);
    }
    let two = World { platform: &[Anthropic, DeepSeek], ..world };
    two.check(&cheapest(task(Task::Code)), 500, &[CHAT, (Anthropic, HAIKU)]);
}

#[test]
fn exactly_a_threshold_is_enough_and_a_micro_dollar_less_is_not() {
    let world = world();
    let first = |micros| {
        let chain = world.route(&task(Task::Chat), MicroUsd::new(micros));
        chain.map(|chain| chain.routes[0].route.provider).ok()
    };
    assert_eq!((first(5_000_000), first(4_999_999)), (Some(OpenAi), Some(DeepSeek)));
    assert_eq!((first(1_000_000), first(999_999)), (Some(DeepSeek), Some(Ollama)));
    assert_eq!((first(100_000), first(99_999)), (Some(Ollama), None));
}

#[test]
fn who_is_preferred_comes_first_as_far_as_the_wallet_reaches() {
    let world = world();
    world.check(&preferring(Anthropic, task(Task::Code)), 500, &[SONNET, GPT, CODELLAMA]);
    world.check(&preferring(DeepSeek, task(Task::Code)), 500, &[CHAT, GPT, CODELLAMA]);
    world.check(&preferring(DeepSeek, task(Task::Reasoning)), 100, &[REASONER, SPARKS, LOCAL]);
    world.check(&preferring(OpenAi, cheapest(task(Task::Fact))), 500, &[(OpenAi, "gpt-4o-mini"), CHAT, LOCAL]);
    // Beyond the wallet the task decides, and the answer says so.
    world.check(&preferring(OpenAi, task(Task::Creative)), 499, &[SOULFRA, CHAT, LOCAL]);
    world.check(&preferring(DeepSeek, task(Task::Fact)), 99, &[LOCAL]);
    let chain = world.route(&preferring(OpenAi, task(Task::Creative)), cents_of(499)).unwrap();
    let over: Vec<_> = chain.passed_over.iter().map(|over| (over.provider, over.reason.as_str())).collect();
    let openai = (OpenAi, "openai needs $5.00 available, the wallet has $4.99");
    assert_eq!(over, [openai, (Anthropic, "anthropic needs $5.00 available, the wallet has $4.99")]);
}

#[test]
fn who_chooses_what_is_free_is_never_sent_on_to_what_costs() {
    let world = world();
    for cents in BROKE.into_iter().chain(POOR).chain(MIDDLING).chain(RICH) {
        world.check(&preferring(Ollama, task(Task::Code)), cents, &[CODELLAMA, LOCAL]);
        world.check(&preferring(Ollama, TaskAsked::default()), cents, &[LOCAL]);
        world.check(&preferring(Ollama, model("soulfra")), cents, &[SOULFRA, LOCAL]);
        world.check(&model("soulfra"), cents, &[SOULFRA, LOCAL]);
        world.check(&TaskAsked { persona: Some(Persona::SaveOrSink), ..TaskAsked::default() }, cents, &[SINK, LOCAL]);
    }
}

#[test]
fn a_model_by_name_is_its_providers_or_refused() {
    let world = world();
    world.check(&model("gpt-4o"), 500, &[(OpenAi, "gpt-4o"), SONNET, LOCAL]);
    world.check(&model("deepseek-chat"), 100, &[CHAT, LOCAL]);
    world.check(&model("gpt-4o"), 499, &[CHAT, LOCAL]);
    world.check(&preferring(Ollama, model("codellama:7b")), 0, &[CODELLAMA, LOCAL]);
    for unknown in ["gpt-99", "codellama:70b", "soulfra:v2", ""] {
        let refused = world.route(&model(unknown), cents_of(500)).unwrap_err();
        assert_eq!(refused, RouteRefusal::UnknownModel { model: unknown.to_owned() }.into());
    }
    let vectors = world.route(&model("text-embedding-3-small"), cents_of(500)).unwrap_err();
    assert_eq!(vectors, RouteRefusal::NoWords { model: "text-embedding-3-small".to_owned() }.into());
    let refused = world.route(&preferring(Ollama, model("gpt-4")), cents_of(500)).unwrap_err();
    let another = RouteRefusal::AnotherProvider { model: "gpt-4".to_owned(), provider: OpenAi, asked: Ollama };
    assert_eq!(refused, another.into());
}

#[test]
fn a_persona_without_a_model_of_its_own_is_played_by_the_local_default() {
    let bare = World { installed: vec![LLAMA.to_owned()], ..world() };
    for persona in Persona::ALL {
        let by_persona = TaskAsked { persona: Some(persona), ..TaskAsked::default() };
        for asked in [by_persona, model(persona.as_str()), task(persona.task())] {
            let chain = bare.route(&asked, cents_of(50)).unwrap();
            assert_eq!(chain.routes.len(), 1, "{persona}");
            assert_eq!((chain.routes[0].route.model.as_str(), chain.routes[0].persona), (LLAMA, Some(persona)));
            assert_eq!(asked.task(), persona.task());
        }
        let own = World { installed: vec![format!("{persona}:8b"), format!("{persona}:latest")], ..world() };
        let chain = own.route(&model(persona.as_str()), cents_of(0)).unwrap();
        assert_eq!(chain.routes[0].route.model, format!("{persona}:latest"));
    }
    // A voice that was asked for is that of every model of the chain; a task's own is that of the local ones.
    let voices = |asked: &TaskAsked| {
        let chain = bare.route(asked, cents_of(500)).unwrap();
        chain.routes.into_iter().map(|entry| entry.persona).collect::<Vec<_>>()
    };
    let soulfra = Some(Persona::Soulfra);
    assert_eq!(voices(&TaskAsked { persona: soulfra, ..preferring(OpenAi, task(Task::Code)) }), [soulfra; 3]);
    assert_eq!(voices(&task(Task::Creative)), [None, None, soulfra]);
}

#[test]
fn whom_a_provider_has_failed_of_late_is_asked_behind_the_others() {
    let world = world();
    let no_gpt = world.clone().without(OpenAi, "gpt-4");
    no_gpt.check(&task(Task::Code), 500, &[SONNET, CHAT, CODELLAMA]);
    no_gpt.check(&preferring(OpenAi, task(Task::Code)), 500, &[SONNET, CHAT, CODELLAMA]);
    no_gpt.check(&model("gpt-4o"), 500, &[(OpenAi, "gpt-4o"), SONNET, LOCAL]);
    let chain = no_gpt.route(&task(Task::Code), cents_of(500)).unwrap();
    assert_eq!(chain.passed_over[0].reason, "openai has failed too often of late with this model");
    no_gpt.without(Anthropic, CLAUDE).check(&task(Task::Code), 500, &[CODELLAMA, CHAT, LOCAL]);
    let no_codellama = world.clone().without(Ollama, "codellama:7b");
    no_codellama.check(&task(Task::Code), 499, &[CHAT, LOCAL, CODELLAMA]);
    no_codellama.check(&task(Task::Code), 500, &[GPT, SONNET, LOCAL]);
    // With nobody else there, it is asked all the same.
    let nothing = ALL
        .iter()
        .fold(World { platform: &[DeepSeek], ..world }, |world, provider| world.without(*provider, "deepseek-chat"));
    nothing.check(&task(Task::Fact), 500, &[CHAT]);
}

#[test]
fn a_tenants_own_key_opens_its_provider_to_any_wallet() {
    let own = World { byok: &[OpenAi], platform: &[Ollama], ..world() };
    for cents in POOR.into_iter().chain(MIDDLING) {
        own.check(&task(Task::Code), cents, &[GPT, CODELLAMA, LOCAL]);
    }
    let chain = own.route(&task(Task::Code), cents_of(50)).unwrap();
    assert_eq!(chain.routes.iter().map(|entry| entry.route.byok).collect::<Vec<_>>(), [true, false, false]);
    assert!(chain.routes[0].reason.ends_with("it is paid by the tenant's own openai key"));
    // With next to nothing it has to be asked for by name.
    own.check(&preferring(OpenAi, task(Task::Code)), 0, &[GPT, CODELLAMA, LOCAL]);
    assert!(own.route(&task(Task::Code), cents_of(9)).is_err());
    assert!(own.route(&preferring(DeepSeek, task(Task::Code)), cents_of(9)).is_err());
}

#[test]
fn what_is_not_there_is_told_from_what_cannot_be_paid() {
    let refused = |platform, asked: &TaskAsked, cents| World { platform, ..world() }.route(asked, cents_of(cents));
    let too_little = |needed, cents| Err(TaskRefusal::TooLittle { needed, available: cents_of(cents) });
    assert_eq!(refused(&[OpenAi, DeepSeek], &task(Task::Code), 50), too_little(CHEAP_MODEL_MIN, 50));
    assert_eq!(refused(&[OpenAi], &task(Task::Code), 499), too_little(ANY_MODEL_MIN, 499));
    let nobody = RouteRefusal::NotConfigured { provider: Ollama, model: LLAMA.to_owned() };
    assert_eq!(refused(&[], &task(Task::Code), 500), Err(nobody.clone().into()));
    assert_eq!(refused(&[OpenAi], &preferring(Ollama, task(Task::Code)), 500), Err(nobody.into()));
}

#[test]
fn every_choice_says_why() {
    let reason = |asked: &TaskAsked, cents| world().route(asked, cents_of(cents)).unwrap().routes[0].reason.clone();
    let best = "the best open choice for the task code; it needs $5.00 available, the wallet has $8.50";
    assert_eq!(reason(&task(Task::Code), 850), best);
    let free = "the best open choice for the task creative; it is free, and the wallet has $0.45";
    assert_eq!(reason(&task(Task::Creative), 45), free);
    let named = "the model soulfra was asked for; it is free, and the wallet has -$0.05";
    assert_eq!(reason(&model("soulfra"), -5), named);
    let chain = world().route(&task(Task::Code), cents_of(850)).unwrap();
    assert_eq!(chain.routes[1].reason, "a fallback should openai gpt-4 not answer");
}

#[test]
fn names_are_read_back() {
    for task in Task::ALL {
        assert_eq!(task.as_str().parse(), Ok(task));
        assert_eq!(serde_json::to_value(task).unwrap(), task.as_str());
    }
    assert_eq!("general".parse(), Ok(Task::Chat));
    assert_eq!("Code".parse::<Task>(), Err(NoTask));
    assert_eq!(("smart".parse(), "cheapest".parse()), (Ok(Strategy::Smart), Ok(Strategy::Cheapest)));
}

#[test]
fn every_model_of_the_table_has_a_price() {
    let book = PriceBook::current();
    for (provider, model) in [GPT, SONNET, CHAT, REASONER, (Anthropic, HAIKU), (OpenAi, "gpt-4o-mini")] {
        assert!(book.price(provider, model).is_ok(), "{model}");
    }
}

fn providers() -> impl proptest::strategy::Strategy<Value = Vec<Provider>> {
    proptest::sample::subsequence(ALL.to_vec(), 0..=4)
}

fn asked() -> impl proptest::strategy::Strategy<Value = TaskAsked> {
    use proptest::option::of;
    use proptest::sample::select;
    let models = vec!["gpt-4", "deepseek-chat", CLAUDE, "soulfra", "codellama", LLAMA, "mistral"];
    (of(select(&Task::ALL[..])), any::<bool>(), of(select(ALL)), of(select(models)), of(select(&Persona::ALL[..])))
        .prop_map(|(task, cheap, preferred, model, persona)| TaskAsked {
            task,
            strategy: if cheap { Strategy::Cheapest } else { Strategy::Smart },
            preferred,
            model: model.map(str::to_owned),
            persona,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn whatever_is_asked_the_rules_of_the_wallet_hold(
        asked in asked(), platform in providers(), byok in providers(), broken in providers(),
        micros in prop_oneof![-1_000_000..10_000_000_i64, Just(99_999), Just(999_999), Just(4_999_999)],
    ) {
        let (book, installed) = (PriceBook::current(), world().installed);
        let offer = Offer { book, ollama_models: &installed, platform: &platform, byok: &byok };
        let models = ["gpt-4", CLAUDE, "deepseek-chat", LLAMA];
        let broken: Vec<_> = broken.into_iter().zip(models.map(str::to_owned)).collect();
        let available = MicroUsd::new(micros);
        let Ok(chain) = task_route(&asked, &offer, Standing { available, broken: &broken }) else { return Ok(()) };
        let routes: Vec<_> = chain.routes.iter().map(|entry| &entry.route).collect();
        prop_assert!((1..=CHAIN_MAX_ROUTES).contains(&routes.len()));
        if platform.contains(&Ollama) {
            prop_assert_eq!(routes.last().map(|last| last.provider), Some(Ollama));
        }
        for route in &routes {
            let own = route.provider != Ollama && byok.contains(&route.provider);
            prop_assert_eq!(route.byok, own);
            prop_assert!(own || platform.contains(&route.provider), "{:?} is not there", route);
            let reached = route.provider == Ollama || available >= needed_for(route.provider);
            prop_assert!(own || reached, "{:?} with {}", route, micros);
            prop_assert!(book.price(route.provider, &route.model).is_ok());
        }
        if asked.preferred == Some(Ollama) {
            prop_assert!(routes.iter().all(|route| route.provider == Ollama));
        }
        let paid: Vec<_> = routes.iter().filter(|route| route.provider != Ollama).map(|route| route.provider).collect();
        prop_assert_eq!(paid.iter().collect::<BTreeSet<_>>().len(), paid.len());
        prop_assert!(chain.routes.iter().all(|entry| !entry.reason.is_empty()));
    }
}
