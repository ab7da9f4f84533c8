//! Brings a streamed answer home, piece by piece.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use calos_domain::pricing::Cost;
use calos_domain::wallet::{ReleaseCause, UsageOutcome};
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::admit::Admission;
use super::dispatch::{Dispatched, stopped};
use super::settle::{Metered, metered_usage};
use super::whole::with_bill;
use super::{Billing, ChatCall, ChatCaller, ChatFailure, Gateway, Served};
use crate::log::EventLog;
use crate::provider::{Chunk, ChunkKind, ChunkStream, Produced, ProviderError, TokenUsage};
use crate::raw_object::RawObject;

/// Pieces that may wait for a slow client.
const PIECES_WAITING_MAX: usize = 32;

/// How long a client may take over one piece before it counts as gone.
const CLIENT_STALL_TIMEOUT: Duration = Duration::from_secs(60);

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
    /// Who answers.
    pub served: Served,
    /// The pieces.
    pub pieces: mpsc::Receiver<Piece>,
}

type Begun = oneshot::Sender<Result<ChatStream, ChatFailure>>;

impl<L: EventLog> Gateway<L> {
    /// Answers a call in pieces.
    ///
    /// # Errors
    /// [`ChatFailure`] for whatever happens before the first piece; nothing is charged then.
    pub async fn stream(&self, caller: ChatCaller, call: ChatCall) -> Result<ChatStream, ChatFailure> {
        let (begun, beginning) = oneshot::channel();
        let gateway = self.clone();
        self.0.tasks.spawn(async move { gateway.pump(caller, call, begun).await });
        beginning.await.unwrap_or(Err(ChatFailure::Lost("its task broke off")))
    }

    async fn pump(self, caller: ChatCaller, call: ChatCall, begun: Begun) {
        let dispatched = self
            .dispatch(&caller, &call, |provider, request| {
                Box::pin(async move {
                    let mut chunks = provider.stream(&request).await?;
                    // A provider that fails before its first piece can still be answered with a proper status.
                    let first = chunks.next().await.transpose()?;
                    Ok((first, chunks))
                })
            })
            .await;
        let Dispatched { admission, guard, answer } = match dispatched {
            Ok(dispatched) => dispatched,
            Err(failure) => return refuse(begun, failure),
        };
        let (first, chunks) = match answer {
            Ok(begun) => begun,
            Err(error) => {
                self.release(&caller, admission.hold_id, ReleaseCause::ProviderFailed).await;
                guard.disarm();
                return refuse(begun, error.into());
            }
        };
        let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        let served = Served {
            provider: admission.route.provider,
            model: admission.route.model.clone(),
            substituted_for: admission.route.substituted_for.clone(),
            usage_id: admission.usage_id,
        };
        let stream = ChatStream { served: served.clone(), pieces };
        // A client that left meanwhile drops the receiver with it, which the first piece then finds out.
        drop(begun.send(Ok(stream)));
        let mut told = Told::new(sender);
        let stopping = self.0.stopping.clone();
        let ended = tokio::select! {
            ended = told.pass_on(first, chunks) => Some(ended),
            () = stopping.cancelled() => None,
        };
        let ended = ended.unwrap_or_else(|| Ended::Broken(stopped(admission.route.provider)));
        let bill = self.bill(&caller, &call, &admission, &told, &ended).await;
        guard.disarm();
        told.finish(&served, &admission, ended, bill).await;
    }

    /// Charges what was produced, or gives the hold back when nothing was.
    async fn bill(
        &self,
        caller: &ChatCaller,
        call: &ChatCall,
        admission: &Admission,
        told: &Told,
        ended: &Ended,
    ) -> Result<Option<Cost>, ChatFailure> {
        let outcome = match ended {
            Ended::Complete => UsageOutcome::Completed,
            Ended::ClientGone => UsageOutcome::ClientGone,
            Ended::Broken(_) => UsageOutcome::ProviderFailed,
        };
        if outcome != UsageOutcome::Completed && told.usage.is_none() && told.produced.pieces == 0 {
            let cause = match ended {
                Ended::ClientGone => ReleaseCause::ClientGone,
                Ended::Complete | Ended::Broken(_) => ReleaseCause::ProviderFailed,
            };
            self.release(caller, admission.hold_id, cause).await;
            return Ok(None);
        }
        let usage = metered_usage(told.usage, told.produced, call, admission);
        let metered = Metered { outcome, usage, model: told.model.clone() };
        let settled = self.settle(caller, admission, metered, None).await?;
        Ok(Some(settled.cost))
    }
}

fn refuse(begun: Begun, failure: ChatFailure) {
    if let Err(Err(failure)) = begun.send(Err(failure)) {
        tracing::debug!(%failure, "failed, but nobody waits for it");
    }
}

/// How a stream ended.
enum Ended {
    Complete,
    ClientGone,
    Broken(ProviderError),
}

/// What has been passed on so far.
struct Told {
    sender: mpsc::Sender<Piece>,
    /// The last chunk that may turn out to be the last of all: it waits for the bill.
    last: Option<Bytes>,
    usage: Option<TokenUsage>,
    produced: Produced,
    model: Option<String>,
}

impl Told {
    fn new(sender: mpsc::Sender<Piece>) -> Self {
        Self { sender, last: None, usage: None, produced: Produced::default(), model: None }
    }

    /// Passes pieces on until one side ends. The provider's stream is dropped, and so cancelled, on return.
    async fn pass_on(&mut self, first: Option<Chunk>, chunks: ChunkStream) -> Ended {
        let mut chunks = pin!(chunks);
        let mut next = first.map(Ok);
        loop {
            match next {
                None => return Ended::Complete,
                Some(Err(error)) => return Ended::Broken(error),
                Some(Ok(chunk)) => {
                    if !self.take(chunk).await {
                        return Ended::ClientGone;
                    }
                }
            }
            next = tokio::select! {
                biased;
                () = self.sender.closed() => return Ended::ClientGone,
                next = chunks.next() => next,
            };
        }
    }

    /// Counts a chunk and passes it on; false when nobody takes it.
    async fn take(&mut self, chunk: Chunk) -> bool {
        self.produced.add(chunk.produced);
        self.usage = chunk.usage.or(self.usage);
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
            (Ended::Broken(error), Ok(cost)) => (error.into(), cost),
            (Ended::Broken(error), Err(failure)) => {
                tracing::error!(usage = %usage_id, %failure, "what a provider left behind is not charged");
                (error.into(), None)
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
            None => bare_chunk(served, usage_id).map_err(unreadable)?,
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
