//! One tenant of the simulation: what its wallet, payments and adjustments must come to, and what was asked of it.

use calos_domain::TenantId;
use calos_domain::payment::PaymentFact;
use calos_domain::wallet::WalletCommand;

use super::adjustments::Adjustments;
use super::chance::Chance;
use super::model::{Model, Verdict};
use super::payments::Payments;
use super::work::Order;

/// Accepted orders of a tenant that may be repeated, of each sort.
const REMEMBERED_MAX_ORDERS: usize = 200;

/// One tenant.
pub struct Tenant {
    /// Whose wallet.
    pub id: TenantId,
    /// What its wallet must come to.
    pub model: Model,
    /// What its payments must come to.
    pub payments: Payments,
    /// What its adjustments must come to.
    pub adjustments: Adjustments,
    /// Facts that were stored and are not recorded yet. It outlives every crash, as the table of a webhook does.
    pub inbox: Vec<PaymentFact>,
    /// Facts that are recorded, the latest ones.
    pub delivered: Vec<PaymentFact>,
    /// Commands that led to events, the latest ones.
    pub accepted: Vec<WalletCommand>,
    /// Orders it still gets.
    pub left: usize,
}

impl Tenant {
    /// A tenant whose wallet is not open yet.
    pub fn new(chance: &mut Chance, left: usize) -> Self {
        Self {
            id: TenantId(chance.any_id()),
            model: Model::default(),
            payments: Payments::default(),
            adjustments: Adjustments::default(),
            inbox: Vec::new(),
            delivered: Vec::new(),
            accepted: Vec::new(),
            left,
        }
    }

    /// What an order comes to.
    pub fn judge(&self, order: &Order) -> Verdict {
        match order {
            Order::Wallet(command) => self.model.judge(command),
            Order::Fact(fact, at) => self.payments.judge(fact, *at),
            Order::Adjust(asking, by, at) => match self.adjustments.judge(asking, *by, *at) {
                // The last approval is refused when the wallet refuses.
                Verdict::Changes => match self.adjustments.meaning(asking, *at) {
                    Some(command) => match self.model.judge(&command) {
                        Verdict::Refused(why) => Verdict::Refused(why),
                        Verdict::Nothing | Verdict::Changes => Verdict::Changes,
                    },
                    None => Verdict::Changes,
                },
                verdict => verdict,
            },
        }
    }

    /// Changes what the order changes; it must have been judged to.
    ///
    /// # Errors
    /// The model contradicts itself, which would be its own fault.
    pub fn perform(&mut self, order: &Order) -> Result<(), String> {
        let commands = match order {
            Order::Wallet(command) => vec![command.clone()],
            Order::Fact(fact, at) => self.payments.perform(fact, *at),
            Order::Adjust(asking, by, at) => {
                let meaning = self.adjustments.meaning(asking, *at);
                self.adjustments.perform(asking, *by, *at);
                meaning.into_iter().collect()
            }
        };
        for command in commands {
            match self.model.judge(&command) {
                Verdict::Changes => self.model.perform(&command)?,
                Verdict::Nothing => {}
                Verdict::Refused(why) => return Err(format!("{why:?} is what the model says to {command:?}")),
            }
        }
        Ok(())
    }

    /// Takes note of an order that led to events: it may be repeated.
    pub fn remember(&mut self, chance: &mut Chance, order: &Order) {
        match order {
            Order::Wallet(command) => keep(chance, &mut self.accepted, command.clone()),
            Order::Fact(fact, _) => {
                // Mostly it is known to be recorded; now and then that is lost, and it is delivered again.
                if !chance.one_in(5) {
                    self.inbox.retain(|waiting| waiting != fact);
                }
                keep(chance, &mut self.delivered, fact.clone());
            }
            Order::Adjust(..) => {}
        }
    }
}

fn keep<T>(chance: &mut Chance, kept: &mut Vec<T>, one: T) {
    if kept.len() < REMEMBERED_MAX_ORDERS {
        kept.push(one);
    } else {
        let place = chance.below(REMEMBERED_MAX_ORDERS);
        kept[place] = one;
    }
}
