//! Brings a streamed answer home, piece by piece.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use calos_domain::pricing::{Cost, Provider};
use calos_domain::wallet::{FailedAttempt, ReleaseCause, UsageOutcome};
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::admit::{Admission, Candidate, HOLD_MAX_SECONDS};
use super::attempts::{Answering, NoAnswer, stopped};
use super::blame::blame;
use super::dispatch::Dispatched;
use super::settle::{Metered, Patience};
use super::whole::with_bill;
use super::{Billing, ChatCall, ChatCaller, ChatFailure, Gateway, Served};
use crate::in_request::carried;
use crate::log::EventLog;
use crate::provider::{Chunk, ChunkKind, ChunkStream, Dialect, Phase, Produced, ProviderError, TokenUsage, Transcript};
use crate::raw_object::RawObject;

/// Pieces that may wait for a slow client.
const PIECES_WAITING_MAX: usize = 32;

/// How long a client may take over one piece before it counts as gone.
const CLIENT_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a stream may take with everything a slow reader adds: it ends, and is charged, while its hold stands.
const STREAM_MAX: Duration = Duration::from_secs(HOLD_MAX_SECONDS.unsigned_abs() - 60);

/// One piece of a streamed answer.
#[derive(Debug)]
pub enum Piece {
    /// The JSON of one chunk.
    Data(Bytes),
    /// The answer is complete and charged; nothing follows.
    Done,
    /// The answer broke off; what was produced is charged, as the bill says. Nothing follows.
    Failed {
        /// Why.
        failure: ChatFailure,
        /// What was charged, if anything was.
        billing: Option<Billing>,
    },
}

/// A streamed answer that has begun: its hold is durable and the provider has given its first piece. Dropping it stops
/// the provider; what was produced is charged all the same. A stream that ends without `Done` or `Failed` was lost.
#[derive(Debug)]
pub struct ChatStream {
    /// In whose words the pieces are.
    pub dialect: Dialect,
    /// Who answers.
    pub served: Served,
    /// What it is charged for; known once the last piece is there.
    pub metered: Arc<OnceLock<TokenUsage>>,
    /// The pieces.
    pub pieces: mpsc::Receiver<Piece>,
}

type Begun = oneshot::Sender<Result<ChatStream, ChatFailure>>;

impl<L: EventLog> Gateway<L> {
    /// Answers a call in pieces. When this future is dropped before it has answered, the call is broken off, and charged
    /// for the prompt if that was on its way.
    ///
    /// # Errors
    /// [`ChatFailure`] for whatever happens before the first piece; nothing is charged then.
    pub async fn stream(&self, caller: ChatCaller, call: ChatCall) -> Result<ChatStream, ChatFailure> {
        let (begun, beginning) = oneshot::channel();
        let left = CancellationToken::new();
        let (gateway, waiting) = (self.clone(), left.clone());
        self.0.tasks.spawn(carried(async move { gateway.pump(caller, call, begun, waiting).await }));
        // By the time there is an answer nobody looks at it any more.
        let _leaves_when_dropped = left.drop_guard();
        beginning.await.unwrap_or(Err(ChatFailure::Lost("its task broke off")))
    }

    async fn pump(self, caller: ChatCaller, call: ChatCall, begun: Begun, left: CancellationToken) {
        // The hold's own time begins a little later.
        let deadline = Instant::now() + STREAM_MAX;
        let dispatched = self
            .dispatch(&caller, &call, left, |provider, request| {
                Box::pin(async move {
                    let mut chunks = provider.stream(&request).await?;
                    // A provider that fails before its first piece can still be answered with a proper status.
                    let Some(first) = chunks.next().await.transpose()? else { return Err(empty(provider.name())) };
                    Ok((first, chunks))
                })
            })
            .await;
        let Dispatched { admission, guard, used, failed, answer } = match dispatched {
            Ok(dispatched) => dispatched,
            Err(failure) => return refuse(begun, failure),
        };
        let Answering { value: (first, chunks), mut turn, transcript } = match answer {
            Ok(answering) => answering,
            Err(NoAnswer::Failed(error)) => {
                self.release(&caller, admission.hold_id, ReleaseCause::ProviderFailed).await;
                guard.disarm();
                return refuse(begun, ChatFailure::of_chain(&call, &used, failed, error));
            }
            Err(NoAnswer::Left { sent }) => {
                self.bill_unanswered(&caller, &call, &admission, &used, failed, sent).await;
                return guard.disarm();
            }
        };
        let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        let served = Served::new(&admission, &used, &failed);
        let mut told = Told::new(sender, used.route.provider, call.dialect);
        told.transcript = transcript;
        told.reads_on = self.writes_unseen(&call, &used);
        let metered = Arc::clone(&told.metered);
        let stream = ChatStream { dialect: call.dialect, served: served.clone(), metered, pieces };
        // A client that left meanwhile drops the receiver with it, which the first piece then finds out.
        drop(begun.send(Ok(stream)));
        let ended = told.pass_on_until(first, chunks, deadline, &self.0.stopping).await;
        match &ended {
            Ended::Complete => turn.succeeded(),
            Ended::Broken(error) if !self.0.stopping.is_cancelled() => {
                self.0.figures.broke_off(used.route.provider);
                if let Some(blame) = blame(error) {
                    turn.failed(blame);
                }
            }
            Ended::Broken(_) | Ended::ClientGone | Ended::Late(_) => {}
        }
        drop(turn);
        let bill = self.bill(&caller, &call, &admission, &used, failed, &told, &ended).await;
        guard.disarm();
        told.finish(&served, &admission, &used, ended, bill).await;
    }

    /// Whether the model writes more than is seen of it, and charges for it: only its report tells how much, so it is
    /// read to its end whoever leaves.
    pub(super) fn writes_unseen(&self, call: &ChatCall, used: &Candidate) -> bool {
        let thinks_unseen = used.route.provider == Provider::Anthropic && call.asks_to_think();
        thinks_unseen || self.0.book.hides_reasoning(&used.route.model)
    }

    /// Charges what was produced, or gives the hold back when nothing was.
    #[expect(clippy::too_many_arguments, reason = "everything a bill is made of")]
    async fn bill(
        &self,
        caller: &ChatCaller,
        call: &ChatCall,
        admission: &Admission,
        used: &Candidate,
        failed: Vec<FailedAttempt>,
        told: &Told,
        ended: &Ended,
    ) -> Result<Option<Cost>, ChatFailure> {
        let outcome = match told.outcome(ended) {
            Ok(outcome) => outcome,
            Err(cause) => {
                self.release(caller, admission.hold_id, cause).await;
                return Ok(None);
            }
        };
        let usage = self.metered_usage(told.usage, told.produced, &told.transcript, call, used).await;
        let metered = Metered { outcome, usage, model: told.model.clone(), failed };
        let settled = self.settle(caller, call, admission, used, metered, None, Patience::UntilExpired).await?;
        // Nobody else sets it, and a stream is billed once.
        let _first = told.metered.set(usage);
        Ok(Some(settled.cost))
    }
}

fn refuse(begun: Begun, failure: ChatFailure) {
    if let Err(Err(failure)) = begun.send(Err(failure)) {
        tracing::debug!(%failure, "failed, but nobody waits for it");
    }
}

/// A stream that has nothing in it.
fn empty(provider: &'static str) -> ProviderError {
    ProviderError::BadAnswer { provider, detail: "a stream without an answer".to_owned() }
}

/// How a stream ended.
#[derive(Debug)]
enum Ended {
    Complete,
    ClientGone,
    /// Its time was up, whoever was slow.
    Late(ProviderError),
    Broken(ProviderError),
}

/// What has been passed on so far.
struct Told {
    sender: mpsc::Sender<Piece>,
    provider: Provider,
    dialect: Dialect,
    /// The last chunk that may turn out to be the last of all: it waits for the bill.
    last: Option<Bytes>,
    /// Whether the provider has said why it stopped, and has said nothing since.
    finished: bool,
    usage: Option<TokenUsage>,
    produced: Produced,
    model: Option<String>,
    metered: Arc<OnceLock<TokenUsage>>,
    /// What was produced, in case nobody reports it.
    transcript: Transcript,
    /// Whether the stream is read to its end when its client leaves.
    reads_on: bool,
}

impl Told {
    fn new(sender: mpsc::Sender<Piece>, provider: Provider, dialect: Dialect) -> Self {
        let (produced, usage) = (Produced::default(), None);
        let (transcript, metered) = (Transcript::default(), Arc::default());
        let (last, finished, model, reads_on) = (None, false, None, false);
        Self { sender, provider, dialect, last, finished, usage, produced, model, metered, transcript, reads_on }
    }

    /// Whether the provider has reported what can be true.
    fn is_counted(&self) -> bool {
        self.usage.is_some_and(|usage| usage.explains(self.produced))
    }

    /// Whether nothing is missing but the provider's own end mark.
    fn is_complete(&self) -> bool {
        self.finished && self.is_counted()
    }

    /// What the bill says of how it ended, or why there is none. A provider that breaks off with nothing given charges
    /// nothing; one whose client leaves has read the prompt, and charges for it.
    fn outcome(&self, ended: &Ended) -> Result<UsageOutcome, ReleaseCause> {
        match ended {
            Ended::Complete => Ok(UsageOutcome::Completed),
            Ended::ClientGone | Ended::Late(_) => Ok(UsageOutcome::ClientGone),
            Ended::Broken(_) if self.produced.pieces == 0 => Err(ReleaseCause::ProviderFailed),
            Ended::Broken(_) => Ok(UsageOutcome::ProviderFailed),
        }
    }

    /// Passes pieces on until one side ends, the time is up, or CALOS stops.
    async fn pass_on_until(
        &mut self,
        first: Chunk,
        chunks: ChunkStream,
        deadline: Instant,
        stopping: &CancellationToken,
    ) -> Ended {
        let provider = self.provider;
        let ended = tokio::select! {
            ended = self.pass_on(first, chunks) => ended,
            () = stopping.cancelled() => Ended::Broken(stopped(provider)),
            () = sleep_until(deadline) => {
                let provider = provider.as_str();
                Ended::Late(ProviderError::Timeout { provider, phase: Phase::Whole, limit: STREAM_MAX })
            }
        };
        match ended {
            Ended::Broken(error) if self.is_complete() => {
                tracing::debug!(%error, "a stream was complete but for its end mark");
                Ended::Complete
            }
            Ended::Complete if !self.finished && !self.is_counted() && self.produced.pieces == 0 => {
                Ended::Broken(empty(provider.as_str()))
            }
            ended => ended,
        }
    }

    /// Passes pieces on until one side ends. The provider's stream is dropped, and so cancelled, on return.
    async fn pass_on(&mut self, first: Chunk, chunks: ChunkStream) -> Ended {
        let mut chunks = pin!(chunks);
        let mut next = Some(Ok(first));
        loop {
            match next {
                None => return Ended::Complete,
                Some(Err(error)) => return Ended::Broken(error),
                Some(Ok(chunk)) => {
                    if !self.take(chunk).await {
                        return self.left_by_client(chunks).await;
                    }
                }
            }
            next = tokio::select! {
                biased;
                () = self.sender.closed() => return self.left_by_client(chunks).await,
                next = chunks.next() => next,
            };
        }
    }

    /// A model that thinks unseen has written more than was seen of it, and charges for it: it is read to the end, for
    /// its report, as long as a stream may take. Others are stopped by being dropped.
    async fn left_by_client(&mut self, mut chunks: std::pin::Pin<&mut ChunkStream>) -> Ended {
        while self.reads_on
            && let Some(Ok(chunk)) = chunks.next().await
        {
            self.count(&chunk);
        }
        Ended::ClientGone
    }

    fn count(&mut self, chunk: &Chunk) {
        self.produced.add(chunk.produced);
        self.usage = chunk.usage.or(self.usage);
    }

    /// Counts a chunk and passes it on; false when nobody takes it.
    async fn take(&mut self, chunk: Chunk) -> bool {
        self.count(&chunk);
        match chunk.kind {
            ChunkKind::Finish => self.finished = true,
            ChunkKind::Content if chunk.produced.pieces > 0 => self.finished = false,
            ChunkKind::Content | ChunkKind::Usage => {}
        }
        if self.model.is_none() {
            self.model = chunk.model;
        }
        let Some(json) = chunk.json else { return true };
        let now = match chunk.kind {
            ChunkKind::Content => [self.last.take(), Some(json)],
            ChunkKind::Finish | ChunkKind::Usage => [self.last.replace(json), None],
        };
        for json in now.into_iter().flatten() {
            if !self.send(Piece::Data(json)).await {
                return false;
            }
        }
        true
    }

    async fn send(&self, piece: Piece) -> bool {
        matches!(timeout(CLIENT_STALL_TIMEOUT, self.sender.send(piece)).await, Ok(Ok(())))
    }

    /// The last words: the bill in the last chunk, or what went wrong.
    async fn finish(
        mut self,
        served: &Served,
        admission: &Admission,
        used: &Candidate,
        ended: Ended,
        bill: Result<Option<Cost>, ChatFailure>,
    ) {
        let usage_id = admission.usage_id;
        let (failure, cost) = match (ended, bill) {
            (Ended::ClientGone, Ok(_)) => return,
            (Ended::ClientGone, Err(failure)) => {
                tracing::error!(usage = %usage_id, %failure, "what a client left behind is not charged");
                return;
            }
            (Ended::Complete, Ok(Some(cost))) => match self.last_chunk(served, cost, usage_id) {
                Ok(json) => {
                    if self.send(Piece::Data(json)).await {
                        self.send(Piece::Done).await;
                    }
                    return;
                }
                Err(failure) => (failure, Some(cost)),
            },
            (Ended::Complete, Ok(None)) => (ChatFailure::Lost("it was complete but not charged"), None),
            (Ended::Complete, Err(failure)) => (failure, None),
            (Ended::Broken(error) | Ended::Late(error), Ok(cost)) => (ChatFailure::of(used, error), cost),
            (Ended::Broken(error) | Ended::Late(error), Err(failure)) => {
                tracing::error!(usage = %usage_id, %failure, "what a provider left behind is not charged");
                (ChatFailure::of(used, error), None)
            }
        };
        let billing = cost.map(|cost| Billing::new(cost, usage_id));
        self.send(Piece::Failed { failure, billing }).await;
    }

    fn last_chunk(
        &mut self,
        served: &Served,
        cost: Cost,
        usage_id: calos_domain::UsageId,
    ) -> Result<Bytes, ChatFailure> {
        let unreadable = |_| ChatFailure::Lost("its last chunk could not be written");
        let mut body = match self.last.take() {
            Some(json) => serde_json::from_slice(&json).map_err(unreadable)?,
            // A backend that never says why it stopped still owes a bill.
            None => match self.dialect {
                Dialect::OpenAi => bare_chunk(served, usage_id).map_err(unreadable)?,
                Dialect::Anthropic => bare_stop().map_err(unreadable)?,
            },
        };
        with_bill(&mut body, served, cost, usage_id)?;
        serde_json::to_vec(&body).map(Bytes::from).map_err(unreadable)
    }
}

fn bare_chunk(served: &Served, usage_id: calos_domain::UsageId) -> Result<RawObject, serde_json::Error> {
    let mut body = RawObject::default();
    body.set("id", &format!("chatcmpl-{}", usage_id.0.simple()))?;
    body.set("object", "chat.completion.chunk")?;
    body.set("created", &0)?;
    body.set("model", &served.model)?;
    body.set("choices", &[(); 0])?;
    Ok(body)
}

fn bare_stop() -> Result<RawObject, serde_json::Error> {
    let mut body = RawObject::default();
    body.set("type", "message_stop")?;
    Ok(body)
}

#[cfg(test)]
#[path = "streamed_tests.rs"]
mod tests;
