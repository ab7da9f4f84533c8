//! What the writer does when a batch does not simply go in: others moved a head, a key was claimed, the database refused
//! or went away, or the answer to a commit was lost.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use calos_commands::log::LogError;

use super::append::{Append, Batch, Head, Outcome};
use super::confirm;
use super::failure::Failure;
use super::heads::{self, Resolution};
use super::log::ChangedStream;
use super::pulse::LOST_AFTER;
use super::warm::{Changed, StreamKey};
use super::writer::{STATEMENT_TIMEOUT, Writer, bounded, index_of, now, partitions_of, while_it_answers};

/// Attempts at one batch against stale heads and deadlocks before its callers decide again.
const BATCH_MAX_ATTEMPTS: u32 = 16;
/// Times a batch may take its connection down with it before its commands are written one by one.
const UNKNOWN_MAX_ATTEMPTS: u32 = 3;
/// Pause between two attempts to reach a database that has gone.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

impl Writer {
    /// Writes commands one batch at a time until each is durable, stale or failed; `known` is a first failure that is
    /// known already, of exactly these commands.
    pub(super) async fn write(&mut self, mut appends: Vec<Append>, mut known: Option<Failure>) {
        let began = Instant::now();
        let (mut attempts, mut unknown) = (0, 0);
        while !appends.is_empty() {
            if known.is_none() {
                appends = self.turn_stale_away(appends);
            }
            attempts += 1;
            if attempts > BATCH_MAX_ATTEMPTS {
                self.fail(appends, || Outcome::Stale);
                return;
            }
            let attempted = match known.take() {
                Some(failure) => Err(failure),
                None => self.attempt(&appends).await,
            };
            match attempted {
                Ok(batch) => {
                    self.down_since = None;
                    self.acknowledge(appends, &batch, began);
                    return;
                }
                Err(Failure::Stale) => self.counters.stale_batches.add(1),
                Err(Failure::Claimed) => appends = self.drop_claimed(appends).await,
                Err(Failure::StreamTaken) => self.forget_streams(&appends),
                Err(Failure::Refused(error)) if appends.len() > 1 => {
                    tracing::error!(%error, commands = appends.len(), "a batch was refused; writing its commands one by one");
                    self.write_one_by_one(appends).await;
                    return;
                }
                Err(Failure::Refused(error)) => {
                    tracing::error!(%error, "the database refused a command's events");
                    self.fail(appends, || Outcome::Failed(LogError::Corrupt(error.clone())));
                    return;
                }
                Err(Failure::Absent(error)) => {
                    let down_since = *self.down_since.get_or_insert(began);
                    if self.is_lost(down_since) {
                        self.fail(appends, || Outcome::Failed(LogError::Unavailable(error.clone())));
                        self.turn_queue_away(&error);
                        return;
                    }
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                    attempts -= 1;
                }
                Err(Failure::Unknown(batch, error)) => {
                    unknown += 1;
                    if self.resolve(&mut appends, *batch, began, &error).await.is_none() {
                        return;
                    }
                    if unknown >= UNKNOWN_MAX_ATTEMPTS {
                        self.give_up_on(appends, &error).await;
                        return;
                    }
                    attempts -= 1;
                }
            }
        }
    }

    /// A batch that ended its connection every time: its commands one by one, and a single one not at all.
    async fn give_up_on(&mut self, appends: Vec<Append>, error: &str) {
        if appends.len() > 1 {
            self.write_one_by_one(appends).await;
        } else {
            self.fail(appends, || Outcome::Failed(LogError::Unavailable(error.to_owned())));
        }
    }

    /// One attempt: the batch as it was written, or why not.
    async fn attempt(&mut self, appends: &[Append]) -> Result<Batch, Failure> {
        let mut batch = Batch::on(self.heads.clone());
        for append in appends {
            batch.push(append, now());
        }
        let pulse = self.pulse.clone();
        let connection = match self.connect().await {
            Ok(connection) => connection,
            Err(error) => return Err(Failure::Absent(error.to_string())),
        };
        if !batch.is_empty() {
            return match while_it_answers(&pulse, STATEMENT_TIMEOUT, batch.write(connection, false)).await {
                Some(Ok(())) => Ok(batch),
                Some(Err(error)) => Err(self.failure(&mut batch, Some(error)).await),
                None => Err(self.failure(&mut batch, None).await),
            };
        }
        // Barriers alone: nothing moves the heads, so look at them.
        let looked = bounded(&pulse, heads::read(connection)).await;
        let adopted = match looked {
            Ok(now) => self.adopt(&now).await,
            Err(error) => Err(error),
        };
        match adopted {
            Ok(false) => Ok(batch),
            Ok(true) => Err(Failure::Stale),
            Err(error) => {
                self.lose_connection(&error);
                Err(Failure::Absent(error.to_string()))
            }
        }
    }

    /// What the failure of a batch's statement means; `None` stands for a statement that took too long.
    pub(super) async fn failure(&mut self, batch: &mut Batch, error: Option<sqlx::Error>) -> Failure {
        let known = error.as_ref().and_then(Failure::of);
        let text = error.map_or_else(|| "the statement took too long".to_owned(), |error| error.to_string());
        match known {
            Some(Failure::Stale) => self.look_at_heads().await,
            Some(Failure::Absent(text)) => {
                self.lose_connection(&text);
                Failure::Absent(text)
            }
            Some(failure) => failure,
            None => {
                self.lose_connection(&text);
                Failure::Unknown(Box::new(std::mem::take(batch)), text)
            }
        }
    }

    /// A head was not where it was expected: takes over where it is.
    async fn look_at_heads(&mut self) -> Failure {
        let pulse = self.pulse.clone();
        let looked = match self.connect().await {
            Ok(connection) => bounded(&pulse, heads::read(connection)).await,
            Err(error) => Err(error),
        };
        let adopted = match looked {
            Ok(now) => self.adopt(&now).await,
            Err(error) => Err(error),
        };
        match adopted {
            Ok(_) => Failure::Stale,
            Err(error) => {
                self.lose_connection(&error);
                Failure::Absent(error.to_string())
            }
        }
    }

    /// Takes over heads that others moved: their streams are forgotten, and what waits on those partitions is stale.
    pub(super) async fn adopt(&mut self, now: &[Head]) -> Result<bool, sqlx::Error> {
        let (pulse, mut moved) = (self.pulse.clone(), false);
        let is_foreign = |head: &Head, known: &Head| head.position != known.position || head.hash != known.hash;
        if self.may_defer && now.iter().zip(&self.heads).any(|(head, known)| is_foreign(head, known)) {
            // First of all: nothing is decided on what a crash of the server could still take back.
            let connection = self.connect().await?;
            bounded(&pulse, confirm::flush_on(connection)).await?;
        }
        for (index, head) in now.iter().enumerate() {
            let known = self.heads[index];
            if *head == known {
                continue;
            }
            let partition = i32::try_from(index).unwrap_or_default();
            if !is_foreign(head, &known) {
                // Only its clock was moved, by whoever asked what became of a lost commit.
                self.heads[index] = *head;
                continue;
            }
            let connection = self.connect().await?;
            let changed = bounded(&pulse, heads::changed_since(connection, partition, &known)).await?;
            self.invalidate(partition, &changed);
            self.heads[index] = *head;
            self.announce_foreign(&changed);
            moved = true;
        }
        if moved {
            self.publish();
        }
        Ok(moved)
    }

    fn announce_foreign(&self, changed: &Changed) {
        // Without a listener there is nobody to tell, which is what the send's error says.
        match changed {
            Changed::Streams(streams) => {
                for key in streams {
                    drop(self.foreign.send(ChangedStream::Stream { kind: key.kind.clone(), id: key.id.clone() }));
                }
            }
            Changed::Any => drop(self.foreign.send(ChangedStream::Any)),
        }
    }

    /// Finds out what became of a batch whose answer was lost. `Some` when the appends left over are to be tried again.
    async fn resolve(&mut self, appends: &mut Vec<Append>, batch: Batch, began: Instant, error: &str) -> Option<()> {
        tracing::warn!(error, "the answer to a commit was lost; asking the log");
        // Behind an earlier batch that took long, these have been told already.
        let (pulse, mut told) = (self.pulse.clone(), appends.iter().all(|append| append.reply.is_none()));
        loop {
            let resolution = match self.connect().await {
                Ok(connection) => bounded(&pulse, heads::resolve(connection, &batch)).await,
                Err(error) => Err(error),
            };
            match resolution {
                Ok(Resolution::Committed) => {
                    if told {
                        // Meanwhile others were turned away, and streams of this batch may have been loaded without it.
                        self.forget_streams_of(appends);
                    }
                    self.acknowledge(std::mem::take(appends), &batch, began);
                    return None;
                }
                Ok(Resolution::Absent) if told => {
                    // Nobody waits for them any more, and what was decided on top of them cannot stand.
                    self.fail(std::mem::take(appends), || Outcome::Failed(LogError::Unresolved));
                    return None;
                }
                Ok(Resolution::Absent) => return Some(()),
                Err(error) => {
                    self.lose_connection(&error);
                    if !told && self.is_lost(began) {
                        told = true;
                        let behind = self.unconfirmed.sent.iter_mut().flat_map(|sent| &mut sent.appends);
                        for append in appends.iter_mut().chain(behind) {
                            append.answer_now(Outcome::Failed(LogError::Unresolved));
                        }
                    }
                    // The partitions take no further append until this is known; the queue's bound turns callers away.
                    if self.queue.is_closed() && told {
                        self.fail(std::mem::take(appends), || Outcome::Failed(LogError::Unresolved));
                        return None;
                    }
                    if told {
                        self.turn_queue_away(&error.to_string());
                    }
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
            }
        }
    }

    /// Whether callers are told that the database is away, rather than kept waiting for it: after [`LOST_AFTER`], as it
    /// looks from here or as the pulse finds it, whichever began earlier.
    fn is_lost(&self, down_since: Instant) -> bool {
        let since = self.pulse.away_since().map_or(down_since, |away_since| away_since.min(down_since));
        since.elapsed() >= LOST_AFTER
    }

    /// Answers everybody who waits behind an outage: nothing of theirs was sent.
    fn turn_queue_away(&mut self, error: &str) {
        let mut waiting = std::mem::take(&mut self.waiting_behind);
        while let Ok(append) = self.queue.try_recv() {
            waiting.push(append);
        }
        self.fail(waiting, || Outcome::Failed(LogError::Unavailable(error.to_owned())));
    }

    async fn write_one_by_one(&mut self, appends: Vec<Append>) {
        for append in appends {
            Box::pin(self.write(vec![append], None)).await;
        }
    }

    /// Sends back what was decided before its partition changed under it.
    ///
    /// A command over several partitions is stale as soon as one of them changed; what it decided on the others then
    /// stands in memory without ever being written, so those partitions are decided again as well, and so on.
    fn turn_stale_away(&mut self, mut appends: Vec<Append>) -> Vec<Append> {
        loop {
            let generations = &self.generations;
            let is_current = |append: &Append| {
                append.basis.iter().all(|basis| generations[index_of(basis.partition)] == basis.generation)
            };
            let (current, stale): (Vec<_>, Vec<_>) = appends.into_iter().partition(is_current);
            if stale.is_empty() {
                return current;
            }
            for append in &stale {
                self.forget_what_stands_on(append);
            }
            for append in stale {
                self.settle_where_outdated(&append);
                append.answer(Outcome::Stale);
            }
            appends = current;
        }
    }

    /// Invalidates the partitions a stale command wrote in memory and that are not invalid yet. One that is already has
    /// nothing of it left, and raising its generation again would only send newer decisions back as well.
    fn forget_what_stands_on(&mut self, append: &Append) {
        for basis in &append.basis {
            let is_written = append.streams.iter().any(|stream| stream.partition == basis.partition);
            if is_written && self.generations[index_of(basis.partition)] == basis.generation {
                self.invalidate(basis.partition, &Changed::nothing());
            }
        }
    }

    /// Resolves a stale command's tickets, but only where its partition is invalid for it: where it is not, tickets before
    /// its own may belong to commands that are still to be written, and whatever resolves those resolves this one.
    fn settle_where_outdated(&self, append: &Append) {
        for basis in &append.basis {
            if self.generations[index_of(basis.partition)] != basis.generation {
                self.warm(basis.partition).resolve(basis.ticket);
            }
        }
    }

    /// Finds the commands whose key is taken and tells them; what shares a partition with them is decided again.
    async fn drop_claimed(&mut self, appends: Vec<Append>) -> Vec<Append> {
        let claims: Vec<_> = appends.iter().filter_map(Append::claim_key).collect();
        let pulse = self.pulse.clone();
        let taken = match self.connect().await {
            Ok(connection) => bounded(&pulse, heads::taken_claims(connection, &claims)).await,
            Err(error) => Err(error),
        };
        let mut taken = match taken {
            Ok(taken) => taken,
            Err(error) => {
                self.lose_connection(&error);
                return appends;
            }
        };
        let mut losers = Vec::new();
        let mut rest = Vec::new();
        for append in appends {
            // Two commands with one key in one batch: the first may stay, the second finds its key taken.
            let lost = append.claim_key().is_some_and(|key| !taken.insert(key));
            if lost { losers.push(append) } else { rest.push(append) }
        }
        self.fail(losers, || Outcome::Failed(LogError::Claimed));
        rest
    }

    /// A stream already has an event of that sequence: what is in memory is not what is stored. Load it again.
    fn forget_streams(&mut self, appends: &[Append]) {
        tracing::warn!("a stream was written behind the head; its state is loaded again");
        self.forget_streams_of(appends);
    }

    fn forget_streams_of(&mut self, appends: &[Append]) {
        let keys: HashSet<StreamKey> =
            appends.iter().flat_map(|append| &append.streams).map(|stream| stream.key.clone()).collect();
        let changed = Changed::Streams(keys);
        for partition in partitions_of(appends) {
            self.invalidate(partition, &changed);
        }
    }
}
