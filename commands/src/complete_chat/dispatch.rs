//! Calls the provider while the hold commits.
//!
//! The call begins the moment the hold is decided; nothing of its answer is used before the hold is durable. Should the
//! hold fail after all, the call is dropped, and what the provider may charge for it is CALOS's own loss.

use std::pin::pin;

use calos_domain::routing::Offer;
use calos_domain::wallet::FailedAttempt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::admit::{Admission, Candidate, Question, Streams};
use super::attempts::{Answering, Attempted, NoAnswer, Start, Waiting};
use super::hold::HoldGuard;
use super::{ChatCall, ChatCaller, ChatFailure, Gateway};
use crate::log::{Boxed, EventLog, Failed, LogError, Plan};

/// A call that was admitted, with its hold durable, and what came of asking.
pub(super) struct Dispatched<L: EventLog, T> {
    pub(super) admission: Admission,
    pub(super) guard: HoldGuard<L>,
    /// Who answered, or failed last.
    pub(super) used: Candidate,
    /// What was tried in vain before.
    pub(super) failed: Vec<FailedAttempt>,
    pub(super) answer: Result<Answering<T>, NoAnswer>,
}

/// A call on its way, or its answer while the hold is still on its way.
enum Early<T> {
    None,
    Calling(Admission, Boxed<'static, Attempted<T>>),
    Answered(Admission, Attempted<T>),
}

impl<T> Early<T> {
    /// What the call was begun on.
    fn begun(&self) -> Option<&Admission> {
        match self {
            Self::None => None,
            Self::Calling(begun, _) | Self::Answered(begun, _) => Some(begun),
        }
    }
}

impl<L: EventLog> Gateway<L> {
    /// Admits the call and makes it. Once `left` is cancelled nobody is asked any more; its hold is placed all the same,
    /// for whatever was sent by then.
    ///
    /// # Errors
    /// What the admission is refused for; the provider's own failure stands in the answer.
    pub(super) async fn dispatch<T: Send + 'static>(
        &self,
        caller: &ChatCaller,
        call: &ChatCall,
        left: CancellationToken,
        start: impl Start<T>,
    ) -> Result<Dispatched<L, T>, ChatFailure> {
        let waiting = Waiting { tenant_id: caller.tenant_id, left };
        self.make_known_for(call).await;
        let (installed, broken) = (self.installed_locally(), self.broken_for(call));
        let mut plan = Plan::default();
        let streams = Streams::plan(&mut plan, caller);
        let question = Question {
            caller,
            call,
            offer: Offer {
                book: self.0.book,
                ollama_models: &installed,
                platform: &self.0.platform,
                // The tenant's own keys are read from the tenant itself, within the decision.
                byok: &[],
            },
            broken: &broken,
            hold_id: calos_domain::HoldId(self.0.randomness.ordered_id()),
            at: self.0.clock.now(),
        };
        let guard = HoldGuard::new(self, caller, question.hold_id);
        let (decided, mut decisions) = watch::channel(None::<Admission>);
        let holding = self.0.log.execute(&plan, caller.metadata.clone().into(), |unit| {
            let admission = question.admit(unit, &streams)?;
            decided.send_if_modified(|before| {
                let differs = before.as_ref() != Some(&admission);
                if differs {
                    *before = Some(admission.clone());
                }
                differs
            });
            Ok(admission)
        });
        let mut holding = pin!(holding);
        let mut early = Early::None;
        let held = loop {
            let answering = async {
                match &mut early {
                    Early::Calling(_, answer) => answer.await,
                    Early::None | Early::Answered(..) => std::future::pending().await,
                }
            };
            let answer = tokio::select! {
                biased;
                held = holding.as_mut() => break held,
                answer = answering => Some(answer),
                Ok(()) = decisions.changed() => None,
            };
            match answer {
                Some(answer) => {
                    if let Early::Calling(admission, _) = early {
                        early = Early::Answered(admission, answer);
                    } else {
                        early = Early::None;
                    }
                }
                // Decided anew, after another process wrote: what was begun on another decision is dropped.
                None => {
                    let admission = decisions.borrow_and_update().clone();
                    if admission.is_some() && early.begun() == admission.as_ref() {
                        continue;
                    }
                    early = admission.map_or(Early::None, |admission| {
                        let answer = self.attempt(&admission, call, &waiting, &start);
                        Early::Calling(admission, answer)
                    });
                }
            }
        };
        let admission = match held {
            Ok(done) => done.answer,
            Err(failed) => return Err(not_held(failed, guard, !matches!(early, Early::None))),
        };
        let Attempted { used, failed, answer } = match early {
            Early::Calling(begun, answer) if begun == admission => answer.await,
            Early::Answered(begun, answer) if begun == admission => answer,
            Early::None | Early::Calling(..) | Early::Answered(..) => {
                self.attempt(&admission, call, &waiting, &start).await
            }
        };
        let Some(used) = admission.chain.get(used).cloned() else {
            drop(guard);
            return Err(ChatFailure::Lost("nobody was there to ask"));
        };
        Ok(Dispatched { admission, guard, used, failed, answer })
    }
}

/// A hold that did not come about. Only where its outcome is unknown does the guard have something to end.
fn not_held<L: EventLog>(failed: Failed<ChatFailure>, guard: HoldGuard<L>, called: bool) -> ChatFailure {
    if called {
        tracing::warn!(error = %failed, "a provider was called for a hold that failed; what it charges is our loss");
    }
    match failed {
        Failed::Refused(refusal) => {
            guard.disarm();
            refusal
        }
        Failed::Log(error) => {
            if matches!(error, LogError::Unresolved) {
                drop(guard)
            } else {
                guard.disarm()
            }
            error.into()
        }
    }
}
