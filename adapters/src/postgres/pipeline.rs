//! Batch after batch without a pause: while the database works on one, the next is numbered and sealed on top of it, and
//! the one before is on its way to the disk.

use std::collections::VecDeque;
use std::task::Poll;
use std::time::Instant;

use super::append::{Append, Batch, Head};
use super::confirm::{self, Answer, Confirming, DEFERRED_MIN_COMMANDS, Sent, UNCONFIRMED_MAX_BATCHES};
use super::failure::Failure;
use super::writer::{
    ARRIVALS_MAX_COMMANDS, BATCH_MAX_BYTES, STATEMENT_TIMEOUT, Writer, index_of, now, while_it_answers,
};

/// How many parts everything under way is cut into: one on its way to the disk, one being written, one being sealed. In one piece
/// the callers would all wait for the database and then the database for all of them.
const SHARES: usize = 3;

/// Commands that are numbered and sealed, and not sent yet.
pub(super) struct Building {
    /// The commands, in the order they came.
    pub(super) appends: Vec<Append>,
    /// The same, sealed on top of what comes before.
    batch: Batch,
    /// Whether it has to be looked at again before it is sent: something was decided on what has changed since.
    outdated: bool,
}

/// What was sent before and is not on the disk for all that is known.
#[derive(Default)]
pub(super) struct Unconfirmed {
    /// The batches, in the order they were sent.
    pub(super) sent: VecDeque<Sent>,
    /// What is being asked of the leading ones.
    asked: Option<Confirming>,
    /// Why that came to nothing.
    doubt: Option<String>,
}

/// What the statement of a batch came to; nothing when it was given up.
type Written = Option<Result<(), sqlx::Error>>;

impl Building {
    pub(super) fn on(heads: Vec<Head>) -> Self {
        Self { appends: Vec::new(), batch: Batch::on(heads), outdated: false }
    }

    fn behind(batch: &Batch) -> Self {
        Self { appends: Vec::new(), batch: batch.next(), outdated: false }
    }
}

impl Writer {
    /// Writes batch after batch; each is sent before the callers of the one before are answered. Returns what has arrived
    /// and is not sent; everything else is answered then.
    pub(super) async fn write_pipelined(&mut self, mut current: Building) -> Building {
        let (pulse, mut done) = (self.pulse.clone(), None::<Sent>);
        loop {
            let ready = !current.outdated && !current.batch.is_empty() && self.pulse.is_connected();
            let connection = if ready { self.connection.take() } else { None };
            let Some(mut connection) = connection else {
                self.finish(done.take());
                return self.write_unprepared(current).await;
            };
            let many = current.appends.len() >= DEFERRED_MIN_COMMANDS;
            let deferred = self.may_defer && many && current.batch.moved().is_some();
            let began = Instant::now();
            let mut next = Building::behind(&current.batch);
            let written: Written = {
                let statement = current.batch.write(&mut connection, deferred);
                let mut writing = std::pin::pin!(while_it_answers(&pulse, STATEMENT_TIMEOUT, statement));
                let mut written = match futures_util::poll!(writing.as_mut()) {
                    Poll::Ready(written) => Some(written),
                    Poll::Pending => None,
                };
                self.finish(done.take());
                self.ask_for_confirmation();
                let mut closed = false;
                loop {
                    if let Some(written) = written {
                        break written;
                    }
                    let room = self.room_in(&next, current.appends.len());
                    let arrived = &mut self.arrived;
                    tokio::select! {
                        biased;
                        result = &mut writing => written = Some(result),
                        answer = confirm::answer(&mut self.unconfirmed.asked) => self.take_answer(answer),
                        count = self.queue.recv_many(arrived, room), if room > 0 && !closed => {
                            closed = count == 0;
                            self.take_in(&mut next);
                        }
                    }
                }
            };
            self.connection = Some(connection);
            let committed = matches!(written, Some(Ok(())));
            let sent = Sent { appends: current.appends, batch: current.batch, began, committed };
            if !committed || self.unconfirmed.doubt.is_some() {
                return self.recover(Some((sent, written)), next).await;
            }
            // Behind one that has to be confirmed, another is answered after it.
            if deferred || !self.unconfirmed.sent.is_empty() {
                self.counters.deferred_batches.add(u64::from(deferred));
                self.unconfirmed.sent.push_back(sent);
            } else {
                // Until it is acknowledged, what is decided meanwhile still counts as under way.
                done = Some(sent);
            }
            let poll_due = self.polled_at.elapsed() >= self.poll_interval;
            let pausing = poll_due || next.appends.is_empty();
            if pausing {
                self.finish(done.take());
            }
            self.wait_for_confirmation(&mut next, poll_due).await;
            if self.unconfirmed.doubt.is_some() {
                self.finish(done.take());
                return self.recover(None, next).await;
            }
            if next.appends.is_empty() || poll_due {
                return next;
            }
            current = next;
        }
    }

    /// Writes what cannot be sent as it is: outdated, nothing but barriers, or without a connection.
    async fn write_unprepared(&mut self, current: Building) -> Building {
        let mut behind = Building::on(Vec::new());
        self.wait_for_confirmation(&mut behind, true).await;
        if self.unconfirmed.doubt.is_some() {
            return self.recover(None, current).await;
        }
        self.write(current.appends, None).await;
        Building::on(self.heads.clone())
    }

    /// Waits until everything committed is confirmed, if `all` of it has to be; else until there is something to send and
    /// not too much is under way. Takes in what arrives meanwhile, unless all is waited for.
    async fn wait_for_confirmation(&mut self, next: &mut Building, all: bool) {
        let mut closed = all;
        while !self.unconfirmed.sent.is_empty() && self.unconfirmed.doubt.is_none() {
            if !all && !next.appends.is_empty() && self.unconfirmed.sent.len() < UNCONFIRMED_MAX_BATCHES {
                return;
            }
            self.ask_for_confirmation();
            let room = self.room_in(next, 0);
            let arrived = &mut self.arrived;
            tokio::select! {
                biased;
                answer = confirm::answer(&mut self.unconfirmed.asked) => self.take_answer(answer),
                count = self.queue.recv_many(arrived, room), if room > 0 && !closed => {
                    closed = count == 0;
                    self.take_in(next);
                }
            }
        }
    }

    /// Asks for whatever is committed and not asked for.
    fn ask_for_confirmation(&mut self) {
        let unconfirmed = &self.unconfirmed;
        if unconfirmed.asked.is_some() || unconfirmed.doubt.is_some() {
            return;
        }
        let batches = unconfirmed.sent.iter().take_while(|sent| sent.committed).count();
        if batches == 0 {
            return;
        }
        let moved = unconfirmed.sent.range(..batches).rev().find_map(|sent| sent.batch.moved());
        let last = moved.map(|(partition, head)| (partition, head.to));
        let connection = self.confirmer.take();
        let asked = Confirming::of(batches, last, connection, self.pool.clone(), self.pulse.clone());
        self.unconfirmed.asked = Some(asked);
    }

    /// Answers the callers of what is confirmed, and asks for what was committed meanwhile.
    fn take_answer(&mut self, answer: Answer) {
        let asked = self.unconfirmed.asked.take();
        self.confirmer = answer.connection;
        if let Some(reason) = answer.failed {
            self.unconfirmed.doubt = Some(reason);
            return;
        }
        let batches = asked.map_or(0, |asked| asked.batches);
        let confirmed: Vec<Sent> = self.unconfirmed.sent.drain(..batches).collect();
        self.ask_for_confirmation();
        for sent in confirmed {
            self.finish(Some(sent));
        }
    }

    /// Something went wrong while batches were under way: finds out what became of each, in the order they were sent.
    async fn recover(&mut self, last: Option<(Sent, Written)>, next: Building) -> Building {
        self.waiting_behind = next.appends;
        let mut refused = None;
        let mut reason = String::new();
        match last {
            Some((sent, Some(Err(error)))) if Failure::of(&error).is_some() => refused = Some((sent, error)),
            Some((sent, written)) => {
                if !sent.committed {
                    reason = match written {
                        Some(Err(error)) => error.to_string(),
                        _ => "the statement took too long".to_owned(),
                    };
                    self.lose_connection(&reason);
                }
                self.unconfirmed.sent.push_back(sent);
            }
            None => {}
        }
        // What was committed can mostly still be confirmed, all at once.
        while self.unconfirmed.doubt.is_none() && self.unconfirmed.sent.front().is_some_and(|sent| sent.committed) {
            self.ask_for_confirmation();
            let answer = confirm::answer(&mut self.unconfirmed.asked).await;
            self.take_answer(answer);
        }
        let reason = self.unconfirmed.doubt.take().unwrap_or(reason);
        while let Some(sent) = self.unconfirmed.sent.pop_front() {
            self.write(sent.appends, Some(Failure::Unknown(Box::new(sent.batch), reason.clone()))).await;
        }
        if let Some((mut sent, error)) = refused {
            let failure = self.failure(&mut sent.batch, Some(error)).await;
            self.write(sent.appends, Some(failure)).await;
        }
        let behind = std::mem::take(&mut self.waiting_behind);
        self.again(behind)
    }

    fn finish(&mut self, done: Option<Sent>) {
        if let Some(sent) = done {
            self.down_since = None;
            self.acknowledge(sent.appends, &sent.batch, sent.began);
        }
    }

    /// Commands whose numbers and seals no longer hold.
    pub(super) fn again(&self, appends: Vec<Append>) -> Building {
        let outdated = !appends.is_empty();
        Building { appends, outdated, ..Building::on(self.heads.clone()) }
    }

    /// Numbers and seals what has arrived. What was decided before its partition changed waits for [`Self::write`].
    pub(super) fn take_in(&mut self, next: &mut Building) {
        for append in self.arrived.drain(..) {
            let current =
                append.basis.iter().all(|basis| self.generations[index_of(basis.partition)] == basis.generation);
            if current && !next.outdated {
                next.batch.push(&append, now());
            } else {
                next.outdated = true;
            }
            next.appends.push(append);
        }
    }

    /// Takes what has arrived, without waiting.
    pub(super) fn drain(&mut self) {
        while self.arrived.len() < self.batch_max_commands.min(ARRIVALS_MAX_COMMANDS)
            && let Ok(append) = self.queue.try_recv()
        {
            self.arrived.push(append);
        }
    }

    /// How many more commands may be taken in at once, beside so many that are being written.
    fn room_in(&self, next: &Building, writing: usize) -> usize {
        if next.batch.bytes() >= BATCH_MAX_BYTES {
            return 0;
        }
        let unconfirmed: usize = self.unconfirmed.sent.iter().map(|sent| sent.appends.len()).sum();
        let under_way = unconfirmed + writing + next.appends.len() + self.queue.len();
        let limit = (under_way / SHARES).max(DEFERRED_MIN_COMMANDS).min(self.batch_max_commands);
        limit.saturating_sub(next.appends.len()).min(ARRIVALS_MAX_COMMANDS)
    }
}
