//! The short form of `calos-bench simulate`: some seeds that stay, and one that is drawn each time.

use calos_bench::simulate::{Broken, Options, Summary, run};
use calos_tests::database::TestDatabase;

/// Seeds that are simulated every time.
const SEEDS: [u64; 2] = [1, 20_250_101];

fn options(seed: u64) -> Options {
    Options { seed, commands: 1_500, tenants: 4, check_every_commands: 600, broken: None }
}

async fn simulate(options: Options) -> Result<Summary, String> {
    let database = TestDatabase::create().await;
    run(&database.url, options, |_| {}).await.map_err(|failure| failure.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_doubled() {
    for seed in SEEDS {
        let summary = simulate(options(seed)).await.unwrap_or_else(|failure| panic!("{failure}"));
        println!("seed {seed}: {summary:?}");
        assert!(summary.checkpoints >= 2, "{summary:?}");
        assert!(summary.interruptions.len() >= 4, "{summary:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_is_the_same_history() {
    let mut before = None;
    for _ in 0..2 {
        let options = Options { commands: 1_000, ..options(3) };
        let summary = simulate(options).await.unwrap_or_else(|failure| panic!("{failure}"));
        let Summary { steps, commands, refused, repeated, events, tenants, kinds, .. } = summary;
        let history = Some((steps, commands, refused, repeated, events, tenants, kinds));
        assert!(before.is_none() || before == history, "{before:?} and {history:?}");
        before = history;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_doubled_whatever_the_seed() {
    let seed = rand::random();
    println!("seed {seed}");
    simulate(options(seed)).await.unwrap_or_else(|failure| panic!("{failure}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_rule_is_found() {
    for broken in Broken::ALL {
        let options = Options { broken: Some(broken), commands: 6_000, ..options(7) };
        let Err(failure) = simulate(options).await else { panic!("{broken:?} was not found") };
        let last = failure.lines().last().unwrap_or_default().to_owned();
        println!("{broken:?}: {}", last.chars().take(160).collect::<String>());
    }
}
