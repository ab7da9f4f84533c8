//! Requests by route, method and class of their status, how long they took, and what was refused why.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::{Method, StatusCode};

use calos_commands::figures::{Counter, Histogram, Level, QUICK_BOUNDS_MICROS};

use crate::codes::Code;

/// Routes that are told apart; there are fewer patterns in the program, so this only guards against a mistake in it.
const ROUTES_MAX: usize = 512;

/// The route of requests that match none.
const UNMATCHED: &str = "unmatched";

/// The methods that are told apart; whatever else comes is the last.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "other"];

/// The classes of statuses.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What is counted about one route.
#[derive(Debug)]
struct RouteFigures {
    answers: [[Counter; CLASSES.len()]; METHODS.len()],
    took: Histogram,
}

impl Default for RouteFigures {
    fn default() -> Self {
        Self { answers: Default::default(), took: Histogram::new(QUICK_BOUNDS_MICROS) }
    }
}

/// What is counted about requests.
#[derive(Debug)]
pub struct HttpFigures {
    /// Requests being worked on.
    pub in_flight: Level,
    routes: RwLock<BTreeMap<String, Arc<RouteFigures>>>,
    refusals: BTreeMap<Code, Counter>,
}

impl Default for HttpFigures {
    fn default() -> Self {
        let refusals = Code::ALL.iter().map(|code| (*code, Counter::default())).collect();
        Self { in_flight: Level::default(), routes: RwLock::default(), refusals }
    }
}

impl HttpFigures {
    /// Counts an answer whose head is ready. `route` is the pattern that matched.
    pub fn answered(&self, route: Option<&str>, method: &Method, status: StatusCode, took: Duration) {
        let route = self.route(route.unwrap_or(UNMATCHED));
        let method = METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1);
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        route.answers[method][class].add(1);
        route.took.record_micros(took);
    }

    /// Counts a refusal or failure.
    pub fn refused(&self, code: Code) {
        if let Some(count) = self.refusals.get(&code) {
            count.add(1);
        }
    }

    /// How often each code was answered.
    pub fn refusals(&self) -> impl Iterator<Item = (Code, u64)> {
        self.refusals.iter().map(|(code, count)| (*code, count.get()))
    }

    /// Hands over every count that is not zero: route, method, class of status, how many.
    pub fn each_answer(&self, mut take: impl FnMut(&str, &'static str, &'static str, u64)) {
        for (name, route) in self.known() {
            for (method, classes) in METHODS.iter().zip(&route.answers) {
                for (class, count) in CLASSES.iter().zip(classes) {
                    if count.get() > 0 {
                        take(&name, method, class, count.get());
                    }
                }
            }
        }
    }

    /// Hands over how long the requests of each route took, in microseconds.
    pub fn each_route(&self, mut take: impl FnMut(&str, &Histogram)) {
        for (name, route) in self.known() {
            take(&name, &route.took);
        }
    }

    fn known(&self) -> Vec<(String, Arc<RouteFigures>)> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        routes.iter().map(|(name, route)| (name.clone(), Arc::clone(route))).collect()
    }

    fn route(&self, name: &str) -> Arc<RouteFigures> {
        {
            let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(route) = routes.get(name) {
                return Arc::clone(route);
            }
        }
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let name = if routes.len() < ROUTES_MAX { name } else { UNMATCHED };
        Arc::clone(routes.entry(name.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_never_becomes_a_name_of_its_own() {
        let figures = HttpFigures::default();
        let strange = Method::from_bytes(b"BREW").unwrap();
        figures.answered(Some("/api/tenants/{id}"), &Method::GET, StatusCode::OK, Duration::from_millis(1));
        figures.answered(None, &strange, StatusCode::NOT_FOUND, Duration::from_millis(1));
        figures.answered(None, &strange, StatusCode::NOT_FOUND, Duration::from_millis(1));
        let mut told = Vec::new();
        figures.each_answer(|route, method, class, count| told.push((route.to_owned(), method, class, count)));
        let expected = [("/api/tenants/{id}".to_owned(), "GET", "2xx", 1), (UNMATCHED.to_owned(), "other", "4xx", 2)];
        assert_eq!(told, expected);
    }

    #[test]
    fn there_are_never_more_routes_than_the_bound() {
        let figures = HttpFigures::default();
        for number in 0..2 * ROUTES_MAX {
            let route = format!("/{number}");
            figures.answered(Some(&route), &Method::GET, StatusCode::OK, Duration::ZERO);
        }
        let mut routes = 0;
        figures.each_route(|_, _| routes += 1);
        assert!(routes <= ROUTES_MAX + 1, "{routes}");
    }
}
