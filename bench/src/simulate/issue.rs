//! Asking, through crashes and lost connections: whoever has no answer asks again with the same id.

use std::time::Duration;

use calos_commands::log::LogError;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Fault;
use super::chance::Chance;
use super::driver::Driver;
use super::verify::Issued;
use super::work::{Asked, carry_out};

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Times a command is asked, at the most.
const ATTEMPTS_MAX: u32 = 200;
/// The longest wait before asking again.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// How long the server may go on before it is struck, in microseconds: a commit takes about as long.
const STRIKE_MAX_MICROS: i64 = 4_000;

/// Where something strikes the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interruption {
    /// Nowhere.
    None,
    /// It crashes with the order accepted and nothing begun.
    Stored,
    /// It crashes so long after it began, perhaps in the middle of an append.
    Appending(Duration),
    /// Its connections are cut so long after it began.
    Disconnected(Duration),
    /// It crashes with everything appended and no answer sent.
    Appended,
    /// It crashes so long after the answers, while read models follow.
    Projecting(Duration),
    /// It crashes with effects decided and none sent.
    EffectsDecided,
    /// It crashes so long after it began to send effects.
    EffectsSending(Duration),
    /// It crashes with all effects sent, before it knows.
    EffectsSent,
}

impl Interruption {
    /// Where an order is struck: mostly nowhere.
    pub fn draw(chance: &mut Chance) -> Self {
        match chance.below(60) {
            0 => Self::Stored,
            1 => Self::Appending(moment(chance)),
            2 => Self::Disconnected(moment(chance)),
            3 => Self::Appended,
            4 => Self::Projecting(moment(chance) * 10),
            _ => Self::None,
        }
    }

    /// Where a process manager is struck.
    pub fn draw_of_effects(chance: &mut Chance) -> Self {
        match chance.below(6) {
            0 => Self::EffectsDecided,
            1 => Self::EffectsSending(moment(chance)),
            2 => Self::EffectsSent,
            3 => Self::Disconnected(moment(chance)),
            _ => Self::None,
        }
    }

    /// Whether some of what is in flight may be in the log and some not.
    pub const fn cuts_off(self) -> bool {
        matches!(self, Self::Appending(_) | Self::Disconnected(_))
    }
}

fn moment(chance: &mut Chance) -> Duration {
    Duration::from_micros(u64::try_from(chance.between(0, STRIKE_MAX_MICROS)).unwrap_or_default())
}

impl Driver {
    /// Asks until there is an answer to everything.
    pub(super) async fn issue(&mut self, issued: &mut [Issued], interruption: Interruption) -> Result<(), Fault> {
        for attempt in 0..ATTEMPTS_MAX {
            let pending: Vec<Asked> = issued
                .iter_mut()
                .enumerate()
                .filter(|(_, one)| one.answer.is_none())
                .map(|(place, one)| {
                    one.attempts += 1;
                    let (tenant, again) = (self.tenants[one.place].id, one.attempts > 1);
                    Asked { place, tenant, command_id: one.command_id, again, order: one.order.clone() }
                })
                .collect();
            if pending.is_empty() {
                return Ok(());
            }
            if attempt > 0 {
                self.summary.asked_again += pending.len() as u64;
                tokio::time::sleep(Duration::from_millis(2_u64.pow(attempt.min(7))).min(PAUSE_MAX)).await;
            }
            let interruption = if attempt == 0 { interruption } else { Interruption::None };
            if interruption == Interruption::Stored {
                self.crash("order stored");
                continue;
            }
            self.attempt(issued, pending, interruption).await?;
        }
        Err(Fault::Violation(format!("no answer after {ATTEMPTS_MAX} attempts")))
    }

    async fn attempt(
        &mut self,
        issued: &mut [Issued],
        pending: Vec<Asked>,
        interruption: Interruption,
    ) -> Result<(), Fault> {
        let (sender, mut answers) = mpsc::unbounded_channel();
        let broken = self.options.broken;
        let process = self.process().await?;
        drop(process.spawn(carry_out(process.log.clone(), pending, broken, sender))?);
        if interruption.cuts_off() {
            self.strike(interruption).await?;
        }
        loop {
            match timeout(ANSWER_MAX, answers.recv()).await {
                Ok(None) => break,
                Ok(Some((place, Ok(answer)))) => issued[place].answer = Some(answer),
                Ok(Some((_, Err(error @ (LogError::Corrupt(_) | LogError::Claimed))))) => {
                    return Err(Fault::Violation(error.to_string()));
                }
                // Away, or not known: asked again.
                Ok(Some((_, Err(_)))) => {}
                Err(_) => return Err(Fault::Violation(format!("no answer within {} s", ANSWER_MAX.as_secs()))),
            }
        }
        match interruption {
            Interruption::Appended => {
                self.crash("appended, not answered");
                issued.iter_mut().for_each(|one| one.answer = None);
            }
            Interruption::Projecting(_) => self.strike(interruption).await?,
            _ => {}
        }
        Ok(())
    }

    /// Waits for the moment, and strikes.
    pub(super) async fn strike(&mut self, interruption: Interruption) -> Result<(), Fault> {
        let (Interruption::Appending(moment)
        | Interruption::Disconnected(moment)
        | Interruption::Projecting(moment)
        | Interruption::EffectsSending(moment)) = interruption
        else {
            if interruption == Interruption::EffectsDecided {
                self.crash("effects decided");
            }
            return Ok(());
        };
        // Shorter than the runtime's clock can tell.
        let struck = tokio::task::spawn_blocking(move || std::thread::sleep(moment)).await;
        struck.map_err(|error| Fault::Environment(error.to_string()))?;
        match interruption {
            Interruption::Appending(_) => self.crash("while appending"),
            Interruption::Projecting(_) => self.crash("while projecting"),
            Interruption::EffectsSending(_) => self.crash("while sending effects"),
            _ => self.disconnect().await?,
        }
        Ok(())
    }

    /// Cuts every connection of the server.
    async fn disconnect(&mut self) -> Result<(), Fault> {
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'calos' AND pid <> pg_backend_pid()",
        )
        .execute(&mut self.owner)
        .await?;
        *self.summary.interruptions.entry("connections cut").or_default() += 1;
        self.history.event(self.summary.steps, None, "connections cut".to_owned());
        Ok(())
    }
}
