//! Fetches what a round asks for, within what is left of the conversation's time and room.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::WebReader;
use super::transcript::{Asked, Turn};
use super::{FetchedReport, Limit, PAGES_MAX_CHARACTERS, ROUND_MAX_PAGES, Said, URL_MAX_CHARACTERS, untrusted};
use crate::web::{FetchRefusal, FetchedPage};

/// What is left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    time: Duration,
    characters: usize,
}

impl Budget {
    /// A conversation's whole budget.
    pub(super) fn new(time: Duration) -> Self {
        Self { time, characters: PAGES_MAX_CHARACTERS }
    }

    /// What has run out, if anything has.
    pub(super) fn spent(&self) -> Option<Limit> {
        if self.time.is_zero() { Some(Limit::Time) } else { (self.characters == 0).then_some(Limit::Characters) }
    }
}

/// Why a page was not read; told to the model, and to the caller.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum NotRead {
    #[error("the call names no page: its arguments are {{\"url\": \"https://…\"}}")]
    NoUrl,
    #[error("a URL has {URL_MAX_CHARACTERS} characters at most")]
    LongUrl,
    #[error("the time for reading pages is over")]
    NoTime,
    #[error("there is no room for another page")]
    NoRoom,
    #[error(transparent)]
    Refused(#[from] FetchRefusal),
}

impl WebReader {
    /// Reads the pages a round asks for, all at once.
    pub(super) async fn read(&self, said: Said, budget: &mut Budget) -> (Turn, Vec<FetchedReport>) {
        let beyond = said.tool_calls.len().saturating_sub(ROUND_MAX_PAGES);
        let calls: Vec<_> = said.tool_calls.into_iter().take(ROUND_MAX_PAGES).collect();
        let begun = Instant::now();
        let time = budget.time;
        let fetched = join_all(calls.iter().map(|call| self.fetch(call.url(), time))).await;
        budget.time = budget.time.saturating_sub(begun.elapsed());
        let in_words = calls.iter().all(|call| call.id.is_empty());
        let mut turn =
            Turn { said: if in_words { String::new() } else { said.text }, asked: Vec::with_capacity(calls.len()) };
        let mut reports = Vec::with_capacity(calls.len());
        for (call, outcome) in calls.into_iter().zip(fetched) {
            let url = call.url().map(shortened);
            let (told, report) = self.tell(url.as_deref().unwrap_or_default(), outcome, budget);
            turn.asked.push(Asked { id: call.id, url, told });
            reports.push(report);
        }
        if let Some(last) = turn.asked.last_mut().filter(|_| beyond > 0) {
            last.told.push_str(&format!(
                "\n\n{beyond} more pages were asked for and not read: {ROUND_MAX_PAGES} are read at a time."
            ));
        }
        (turn, reports)
    }

    async fn fetch(&self, url: Option<&str>, time: Duration) -> Result<FetchedPage, NotRead> {
        let url = url.ok_or(NotRead::NoUrl)?;
        if url.chars().count() > URL_MAX_CHARACTERS {
            return Err(NotRead::LongUrl);
        }
        let page = timeout(time, self.fetcher.fetch(url)).await.map_err(|_| NotRead::NoTime)??;
        Ok(page)
    }

    fn tell(&self, url: &str, outcome: Result<FetchedPage, NotRead>, budget: &mut Budget) -> (String, FetchedReport) {
        let outcome = outcome.and_then(|page| if budget.characters == 0 { Err(NotRead::NoRoom) } else { Ok(page) });
        match outcome {
            Ok(page) => {
                let told = untrusted::tell(&page, budget.characters, self.randomness.as_ref());
                budget.characters = budget.characters.saturating_sub(told.characters);
                let report = FetchedReport {
                    url: url.to_owned(),
                    final_url: Some(page.final_url),
                    status: Some(page.status),
                    characters: told.characters,
                    refused: None,
                };
                (told.text, report)
            }
            Err(refusal) => {
                let refused = Some(refusal.to_string());
                let report =
                    FetchedReport { url: url.to_owned(), final_url: None, status: None, characters: 0, refused };
                (format!("The page was not fetched: {refusal}."), report)
            }
        }
    }
}

fn shortened(url: &str) -> String {
    url.chars().take(URL_MAX_CHARACTERS).collect()
}
