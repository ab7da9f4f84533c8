//! The last of what happened, kept so that a failure can be understood.

use std::collections::VecDeque;

use calos_domain::TenantId;

use super::work::Order;

/// Lines kept.
const KEPT_MAX_LINES: usize = 4_000;
/// Lines shown of a failure.
const SHOWN_MAX_LINES: usize = 30;

/// One thing that happened.
struct Line {
    step: u64,
    tenant: Option<TenantId>,
    what: What,
}

enum What {
    Order(Box<Order>, String),
    Event(String),
}

/// What happened, latest last.
#[derive(Default)]
pub struct History(VecDeque<Line>);

impl History {
    /// An order, and what came of it.
    pub fn order(&mut self, step: u64, tenant: TenantId, order: &Order, outcome: String) {
        self.push(Line { step, tenant: Some(tenant), what: What::Order(Box::new(order.clone()), outcome) });
    }

    /// Anything else.
    pub fn event(&mut self, step: u64, tenant: Option<TenantId>, text: String) {
        self.push(Line { step, tenant, what: What::Event(text) });
    }

    fn push(&mut self, line: Line) {
        if self.0.len() == KEPT_MAX_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    /// The last lines, those of other tenants left out when one is named.
    pub fn tail(&self, tenant: Option<TenantId>) -> Vec<String> {
        let of_it = |line: &&Line| tenant.is_none() || line.tenant.is_none() || line.tenant == tenant;
        let mut lines: Vec<String> = self.0.iter().rev().filter(of_it).take(SHOWN_MAX_LINES).map(Line::text).collect();
        lines.reverse();
        lines
    }
}

impl Line {
    fn text(&self) -> String {
        let whose = self.tenant.map(|tenant| format!(" {tenant}")).unwrap_or_default();
        match &self.what {
            What::Order(order, outcome) => format!("[{}]{whose} {order:?} -> {outcome}", self.step),
            What::Event(text) => format!("[{}]{whose} {text}", self.step),
        }
    }
}
