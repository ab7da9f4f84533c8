//! Voices, and models with hosts of their own.

use std::sync::Arc;

use calos_adapters::providers::{HttpSettings, Ollama, ProviderHttp};
use calos_api::simulated::SimulatedProviders;
use calos_commands::provider::ChatProvider;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_persona_answers_by_its_name_and_for_its_task() {
    let app = TestApp::start().await;
    let person = Person::with(&app, 50 * CENT).await;
    for (persona, task) in [
        ("soulfra", "creative"),
        ("deathtodata", "analytics"),
        ("saveorsink", "triage"),
        ("roughsparks", "reasoning"),
        ("codellama", "code"),
    ] {
        for body in [json!({"prompt": "Hi", "persona": persona}), json!({"prompt": "Hi", "taskType": task})] {
            let answer = person.ask(&body).await.expect(200);
            assert_eq!((served(&answer), answer.body["persona"].as_str()), (("ollama", persona), Some(persona)));
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_plays_a_persona_by_its_prompt_and_the_answer_names_both() {
    let app = TestApp::start().await;
    let person = Person::with(&app, TRIAL_MICROS).await;
    let plain = json!({"prompt": "Hi", "model": "gpt-4", "maxTokens": 50});
    let played = json!({"prompt": "Hi", "model": "gpt-4", "persona": "soulfra", "maxTokens": 50});
    let (plain, played) = (person.ask(&plain).await.expect(200), person.ask(&played).await.expect(200));
    assert_eq!((served(&played), played.body["persona"].as_str()), (("openai", "gpt-4"), Some("soulfra")));
    assert!(plain.body["persona"].is_null());
    let prompt = |answer: &Answer| whole(&answer.body["usage"]["prompt_tokens"]);
    assert!(prompt(&played) > prompt(&plain) + 30, "the voice was sent along: {} {}", plain.text, played.text);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persona_with_a_host_of_its_own_is_asked_there() {
    let (main, own) = (
        SimulatedProviders::start().await.expect("simulated providers"),
        SimulatedProviders::start().await.expect("simulated providers"),
    );
    let http = ProviderHttp::new(HttpSettings::default()).expect("a client");
    let url = own.ollama_url();
    let ollama = Ollama::new(http, &main.ollama_url())
        .with_hosts([("soulfra", url.as_str()), ("saveorsink", "http://127.0.0.1:1")]);
    let ollama: Arc<dyn ChatProvider> = Arc::new(ollama);
    let listed = ollama.models().await.expect("models");
    let count = |name: &str| listed.iter().filter(|model| model.id.starts_with(name)).count();
    assert_eq!((count("soulfra"), count("llama3.2"), count("saveorsink")), (1, 1, 0), "{listed:?}");
    for model in ["soulfra:latest", "soulfra", "llama3.2:3b"] {
        ollama.complete(&crate::providers::request(model, "Hi")).await.expect("an answer");
    }
    let calls = |simulated: &SimulatedProviders| simulated.produced().values().map(|tally| tally.calls).sum::<u64>();
    assert_eq!((calls(&own), calls(&main)), (2, 1));
}
