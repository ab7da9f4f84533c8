//! One decision under its partitions' locks: take the streams, decide, enqueue, give the streams back.

use std::sync::MutexGuard;

use tokio::sync::{mpsc, oneshot};

use calos_commands::in_request::may_act;
use calos_commands::log::{Failed, LogError, Plan, Request, Unit, UnitStream};
use calos_commands::metadata::{Metadata, StoredMetadata};

use super::append::{Append, Basis, Outcome, StreamEvents};
use super::log::{PgLog, lost};
use super::observed::Followed;
use super::warm::{DueSnapshot, StreamKey, Warm};

/// How far a decision got.
pub enum Decided<T, E> {
    /// The plan's stream of this index has to be loaded first.
    Cold(usize),
    /// Decided and enqueued; the answer or refusal counts once the receiver says durable.
    Waiting(Result<T, E>, oneshot::Receiver<Outcome>),
}

/// Decides a plan. Never waits: the partitions stay locked for as long as the decision computes.
///
/// # Errors
/// A full or closed queue, or a decision that could not be carried out at all; nothing was decided then.
pub fn decide<T, E>(
    log: &PgLog,
    queue: &mpsc::Sender<Append>,
    plan: &Plan<PgLog>,
    request: &Request,
    choose: &mut impl FnMut(&mut Unit<'_>) -> Result<T, E>,
) -> Result<Decided<T, E>, Failed<E>> {
    // Room in the queue first: what has been decided must be enqueued.
    let permit = queue.try_reserve().map_err(|error| Failed::Log(log.refuse(&error)))?;
    let mut locked = Locked::of(log, plan, request);
    let (mut streams, sequences) = match locked.take(plan) {
        Ok(taken) => taken,
        Err(index) => return Ok(Decided::Cold(index)),
    };
    let mut fault = None;
    let chosen = choose(&mut Unit::new(&mut streams, &mut fault));
    if let Some(fault) = fault {
        locked.forget(plan);
        return Err(Failed::Log(LogError::Corrupt(fault)));
    }
    let changes =
        chosen.is_ok() && (request.idempotency.is_some() || streams.iter().any(|stream| !stream.decided.is_empty()));
    if changes && !may_act() {
        // Its caller was told that nothing happened, while the database did not answer.
        locked.forget(plan);
        return Err(Failed::Log(lost()));
    }
    let (reply, receiver) = oneshot::channel();
    let counters = log.counters();
    if chosen.is_ok() {
        counters.decided.add(1)
    } else {
        counters.refused.add(1)
    }
    let append = match &chosen {
        Ok(_) => {
            let mut append = locked.enqueueable(plan, request, streams, &sequences, reply);
            append.followed = log.is_observed().then(|| Followed::current(&request.metadata)).flatten();
            append
        }
        Err(_) => {
            locked.give_back_undecided(plan, streams);
            Append::barrier(locked.basis(), reply)
        }
    };
    permit.send(append);
    Ok(Decided::Waiting(chosen, receiver))
}

/// The partitions of a plan, locked in ascending order so that no two plans wait for each other.
struct Locked<'a> {
    partitions: Vec<(i32, MutexGuard<'a, Warm>)>,
    of_stream: Vec<usize>,
    of_claim: i32,
}

impl<'a> Locked<'a> {
    fn of(log: &'a PgLog, plan: &Plan<PgLog>, request: &Request) -> Self {
        let claim = request.idempotency.as_ref().map(|claim| log.partition_of(&claim.partition_key));
        let numbers: Vec<i32> = plan.streams().iter().map(|stream| log.partition_of(stream.id.as_str())).collect();
        let mut distinct: Vec<i32> = numbers.iter().copied().chain(claim).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let of_stream = numbers.iter().map(|number| distinct.binary_search(number).unwrap_or_default()).collect();
        let partitions = distinct.into_iter().map(|number| (number, Warm::lock(log.partition(number)))).collect();
        Self { partitions, of_stream, of_claim: claim.unwrap_or_default() }
    }

    /// Takes every stream of the plan out, or says which one is not in memory.
    fn take(&mut self, plan: &Plan<PgLog>) -> Result<(Vec<UnitStream>, Vec<i64>), usize> {
        let mut streams = Vec::with_capacity(plan.streams().len());
        let mut sequences = Vec::with_capacity(plan.streams().len());
        for (index, stream) in plan.streams().iter().enumerate() {
            let Some(taken) = self.warm(index).take(stream.kind, stream.id.as_str()) else {
                self.give_back_undecided(plan, streams);
                return Err(index);
            };
            streams.push(taken.stream);
            sequences.push(taken.sequence);
        }
        Ok((streams, sequences))
    }

    /// Gives streams back that nothing was decided on; one that was decided on is forgotten, with its decision.
    fn give_back_undecided(&mut self, plan: &Plan<PgLog>, streams: Vec<UnitStream>) {
        for (index, (stream, planned)) in streams.into_iter().zip(plan.streams()).enumerate() {
            let warm = self.warm(index);
            if stream.decided.is_empty() {
                drop(warm.give_back(planned.kind, planned.id.as_str(), stream.aggregate, 0));
            } else {
                warm.remove(&StreamKey::of(planned.kind, planned.id.as_str()));
            }
        }
    }

    /// Forgets every stream of a plan: what a fault left of their state is not known.
    fn forget(&mut self, plan: &Plan<PgLog>) {
        for (index, planned) in plan.streams().iter().enumerate() {
            self.warm(index).remove(&StreamKey::of(planned.kind, planned.id.as_str()));
        }
    }

    fn enqueueable(
        &mut self,
        plan: &Plan<PgLog>,
        request: &Request,
        streams: Vec<UnitStream>,
        sequences: &[i64],
        reply: oneshot::Sender<Outcome>,
    ) -> Append {
        let mut append = Append::barrier(self.basis(), reply);
        append.metadata_rest = metadata_rest(&request.metadata);
        append.claim.clone_from(&request.idempotency);
        append.claim_partition = self.of_claim;
        for (index, (stream, planned)) in streams.into_iter().zip(plan.streams()).enumerate() {
            let UnitStream { aggregate, decided } = stream;
            let count = i64::try_from(decided.len()).unwrap_or(i64::MAX);
            let key = StreamKey::of(planned.kind, planned.id.as_str());
            let partition = self.partitions[self.of_stream[index]].0;
            if let Some((sequence, version, payload)) =
                self.warm(index).give_back(planned.kind, planned.id.as_str(), aggregate, count)
            {
                append.snapshots.push(DueSnapshot { key: key.clone(), partition, sequence, version, payload });
            }
            if count > 0 {
                let first_sequence = sequences[index] + 1;
                append.streams.push(StreamEvents { key, partition, first_sequence, events: decided });
            }
        }
        append
    }

    /// The generations decided on, each with the next ticket of its partition.
    fn basis(&mut self) -> Vec<Basis> {
        self.partitions
            .iter_mut()
            .map(|(partition, warm)| Basis { partition: *partition, generation: warm.generation, ticket: warm.issue() })
            .collect()
    }

    fn warm(&mut self, stream: usize) -> &mut Warm {
        &mut self.partitions[self.of_stream[stream]].1
    }
}

impl Append {
    /// An append of nothing.
    pub fn barrier(basis: Vec<Basis>, reply: oneshot::Sender<Outcome>) -> Self {
        Self {
            basis,
            streams: Vec::new(),
            metadata_rest: String::new(),
            claim: None,
            claim_partition: 0,
            snapshots: Vec::new(),
            followed: None,
            reply: Some(reply),
        }
    }
}

/// The metadata object of a command's events behind its opening brace; the event id goes before it, one per event.
fn metadata_rest(metadata: &Metadata) -> String {
    let stored = StoredMetadata {
        event_id: uuid::Uuid::nil(),
        command_id: metadata.command_id,
        correlation_id: metadata.correlation_id,
        causation_id: metadata.causation_id,
        actor: metadata.actor.to_string(),
        on_behalf_of: metadata.on_behalf_of.clone(),
        reason: metadata.reason.clone(),
        request_id: metadata.request_id.clone(),
    };
    // A struct of strings always serialises; an empty rest would show as broken JSON in the statement, not in the log.
    let text = serde_json::to_string(&stored).unwrap_or_default();
    text.split_once(',').map(|(_, rest)| rest.to_owned()).unwrap_or_default()
}
