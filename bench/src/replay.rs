//! `calos-bench replay`: read models rebuilt by `QueryReplay`, by `COPY` alone, and by CALOS, in turn.

use std::time::Duration;

use calos_replay::ReadModel;
use sqlx::Connection;

use crate::arena::{Arena, Fresh};
use crate::calos::CalosLog;
use crate::cli::ReplayArguments;
use crate::copy_baseline::{self, CapturedRows, Keys, Plan};
use crate::error::BenchError;
use crate::progress::{Progress, QUICK_LIMIT_SECONDS};
use crate::query_replay::{self, Sample};
use crate::rebuild::{self, Models};
use crate::report::{Measured, Ratio, Target};
use crate::stats::{Label, Run, Scenario};

const EVENTS: u64 = 2_000_000;
const QUICK_EVENTS: u64 = 300_000;
/// A quick measurement takes the log as long as it is after this time.
const QUICK_FILL: Duration = Duration::from_secs(10);
/// Connections of the pool under `QueryReplay`: it uses one for reading and one for its views.
const QUERY_REPLAY_CONNECTIONS: u32 = 4;

const REBUILD_VS_QUERY_REPLAY: Target = Target { name: "rebuild_vs_query_replay", target: 1_500.0, goal: None };
const REBUILD_VS_COPY: Target = Target { name: "rebuild_vs_copy", target: 0.7, goal: None };
const ROW_VIEWS_VS_COPY_IN: Target = Target { name: "row_views_vs_copy_in", target: 0.5, goal: None };

/// Ways to drain the log that are tried; the best of each round counts.
const DRAINS: [(usize, Plan); 4] = [(1, Plan::Free), (2, Plan::Free), (1, Plan::Index), (2, Plan::Index)];

/// Runs of one thing over all rounds.
#[derive(Default)]
struct Rounds {
    query_replay: Vec<Run>,
    copy_out: Vec<Run>,
    balance: Vec<Run>,
    copy_in_keys_first: Vec<Run>,
    copy_in_keys_last: Vec<Run>,
    row_views: Vec<Run>,
    notes: Vec<String>,
}

struct Replay<'a> {
    arena: &'a Arena,
    progress: &'a Progress,
    fresh: &'a Fresh,
    models: &'a Models,
    sample: Sample,
    rest: Duration,
}

/// Runs everything.
pub async fn run(arena: &Arena, arguments: &ReplayArguments, progress: &Progress) -> Result<Measured, BenchError> {
    let quick = arguments.common.quick;
    let events = arguments.events.unwrap_or(if quick { QUICK_EVENTS } else { EVENTS });
    let rounds_count = arguments.common.rounds.unwrap_or(if quick { 2 } else { 5 });
    let wallets = usize::try_from(arguments.common.wallets).unwrap_or(usize::MAX);

    progress.say(&format!("charging {wallets} wallets until the log holds {events} events"));
    let mut log = CalosLog::open(arena, wallets).await?;
    log.fill(events, quick.then_some(QUICK_FILL)).await?;
    log.check().await?;
    let events = log.events();
    analyze(&log.fresh).await?;
    let (balance, row_views) = (rebuild::wallet_balance()?, rebuild::row_views()?);
    let [ledger, usage] = row_views;
    let models = Models::live(&log, &[balance, ledger, usage]).await?;

    let sample = Sample {
        events: usize::try_from(arguments.sample).unwrap_or(usize::MAX),
        wallets: usize::from(arguments.sample_wallets),
    };
    let rest = Duration::from_secs(u64::from(arguments.rest));
    let replay = Replay { arena, progress, fresh: &log.fresh, models: &models, sample, rest };
    let mut rounds = Rounds::default();
    for round in 1..=rounds_count {
        let began = progress.seconds();
        progress.say(&format!("round {round} of {rounds_count}"));
        replay.balances(balance, &mut rounds).await?;
        replay.row_views(&row_views, &mut rounds).await?;
        if quick && !progress.allows(began, QUICK_LIMIT_SECONDS) {
            progress.say("the machine is too slow for another round within the time of a quick measurement");
            break;
        }
    }
    models.close().await;
    log.finish(arena).await?;
    Ok(measured(rounds, events, wallets, sample))
}

/// As autovacuum leaves a log that has been at rest for a while: the visibility map and statistics are there.
async fn analyze(fresh: &Fresh) -> Result<(), BenchError> {
    let mut owner = fresh.connect().await?;
    sqlx::raw_sql("VACUUM ANALYZE events").execute(&mut owner).await?;
    owner.close().await?;
    Ok(())
}

impl Replay<'_> {
    async fn balances(&self, model: ReadModel, rounds: &mut Rounds) -> Result<(), BenchError> {
        let run = query_replay::run(self.arena, self.sample, QUERY_REPLAY_CONNECTIONS).await?;
        self.progress.rate("QueryReplay", run.rate(), "event");
        rounds.query_replay.push(run);

        let mut best: Option<(Run, String)> = None;
        for (connections, plan) in DRAINS {
            let run = copy_baseline::drain(self.arena, self.fresh, connections, plan).await?;
            let how = match plan {
                Plan::Free => format!("{connections} connections, planned freely"),
                Plan::Index => format!("{connections} connections, along the index"),
            };
            self.progress.rate(&format!("COPY to nowhere, {how}"), run.rate(), "event");
            if best.as_ref().is_none_or(|(best, _)| run.rate() > best.rate()) {
                best = Some((run, how));
            }
        }
        if let Some((run, how)) = best {
            rounds.copy_out.push(run);
            rounds.notes.push(format!("COPY to nowhere was fastest with {how}."));
        }

        let rebuilt = self.models.rebuild(self.arena, &[model]).await?;
        self.progress.rate(&format!("CALOS, {} balances", rebuilt.rows), rebuilt.run.rate(), "event");
        rounds.notes.push(rebuilt.noted("Balances"));
        rounds.balance.push(rebuilt.run);
        Ok(())
    }

    /// Writes out what is left in memory, and lets the disk gather its allowance.
    async fn rest(&self) -> Result<(), BenchError> {
        self.arena.settle().await?;
        tokio::time::sleep(self.rest).await;
        Ok(())
    }

    /// Reads the log once: the balances find it in memory, as far as it fits, and a system may have given it up during the
    /// minutes since.
    async fn warm(&self) -> Result<(), BenchError> {
        copy_baseline::drain(self.arena, self.fresh, 1, Plan::Free).await.map(drop)
    }

    async fn row_views(&self, models: &[ReadModel], rounds: &mut Rounds) -> Result<(), BenchError> {
        let captured = self.captured(models).await?;
        for keys in [Keys::First, Keys::Last] {
            self.rest().await?;
            let run = copy_baseline::load(self.arena, self.fresh, &captured, keys).await?;
            let (how, runs) = match keys {
                Keys::First => ("into the row views' tables, keys and all", &mut rounds.copy_in_keys_first),
                Keys::Last => ("into tables without keys, keys built afterwards", &mut rounds.copy_in_keys_last),
            };
            self.progress.rate(&format!("COPY {how}"), run.rate(), "row");
            runs.push(run);
        }
        drop(captured);

        self.rest().await?;
        self.warm().await?;
        let rebuilt = self.models.rebuild(self.arena, models).await?;
        // CPU time is known for the whole rebuild only, of which the build is a part.
        let run = Run::bulk(rebuilt.rows, rebuilt.build, None)?;
        self.progress.rate("CALOS, row views", run.rate(), "row");
        rounds.notes.push(rebuilt.noted("Row views"));
        rounds.row_views.push(run);
        Ok(())
    }

    async fn captured(&self, models: &[ReadModel]) -> Result<Vec<CapturedRows>, BenchError> {
        let mut owner = self.fresh.connect().await?;
        let mut captured = Vec::new();
        for table in models.iter().flat_map(|model| model.tables()) {
            captured.push(copy_baseline::capture(&mut owner, table).await?);
        }
        owner.close().await?;
        Ok(captured)
    }
}

fn measured(rounds: Rounds, events: u64, wallets: usize, sample: Sample) -> Measured {
    let label =
        |name, what: String, unit| Label { name, what, callers: 1, connections: None, unit, events_per_operation: 1 };
    let query_replay = Scenario::of(
        label(
            "query_replay",
            format!("QueryReplay + GenericQuery, {} events of {}", sample.events, sample.wallets),
            "event",
        ),
        &rounds.query_replay,
    );
    let copy_out = Scenario::of(label("copy_out", "COPY to nowhere".to_owned(), "event"), &rounds.copy_out);
    let balance = Scenario::of(
        label("rebuild_wallet_balance", format!("CALOS, balances of {wallets} wallets"), "event"),
        &rounds.balance,
    );
    let copy_in_keys_first = Scenario::of(
        label("copy_in_keys_first", "COPY into ledger and usage with keys".to_owned(), "row"),
        &rounds.copy_in_keys_first,
    );
    let copy_in_keys_last = Scenario::of(
        label("copy_in_keys_last", "COPY into the same, then keys".to_owned(), "row"),
        &rounds.copy_in_keys_last,
    );
    let row_views =
        Scenario::of(label("rebuild_row_views", "CALOS, ledger and usage".to_owned(), "row"), &rounds.row_views);
    let ratios = vec![
        Ratio::between(REBUILD_VS_QUERY_REPLAY, &balance, &query_replay),
        Ratio::between(REBUILD_VS_COPY, &balance, &copy_out),
        Ratio::between(ROW_VIEWS_VS_COPY_IN, &row_views, &copy_in_keys_first),
    ];
    let mut notes = vec![
        format!("The log held {events} events of {wallets} wallets."),
        "A rebuild of balances counts whole: fold, load, keys, comparison with the live rows, switch.".to_owned(),
        "A rebuild of row views reads, folds and loads both from one reading, and counts until every row and key stands; \
         its comparison comes after that. The log has been read once just before, as it has before the balances."
            .to_owned(),
        format!(
            "It stands against COPY of the same rows, already made, into the same tables, all cores at work. Against a load \
             that builds the keys afterwards, as the rebuild itself does, it reaches {:.2}.",
            row_views.per_second / copy_in_keys_last.per_second.max(1.0)
        ),
    ];
    let mut ways = rounds.notes;
    ways.sort();
    ways.dedup();
    notes.extend(ways);
    Measured {
        scenarios: vec![query_replay, copy_out, balance, copy_in_keys_first, copy_in_keys_last, row_views],
        ratios,
        tables: Vec::new(),
        notes,
    }
}
