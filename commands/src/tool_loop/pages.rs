//! Fetches what a round asks for, within what is left of the conversation's time and room and of its tenant's share.

use std::time::Duration;

use calos_domain::TenantId;
use futures_util::future::join_all;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use super::WebReader;
use super::known::Known;
use super::shares::{NoShare, SHARE_WINDOW, TENANT_MAX_PAGES};
use super::transcript::{Asked, Turn};
use super::{FetchedReport, Limit, PAGES_MAX_CHARACTERS, ROUND_MAX_PAGES, Said, URL_MAX_CHARACTERS, untrusted};
use crate::web::{FetchRefusal, FetchedPage};

/// What a conversation may still read.
pub(super) struct Reading {
    tenant: TenantId,
    time: Duration,
    characters: usize,
    known: Known,
}

impl Reading {
    /// A conversation of `tenant` that may take `time` for its pages.
    pub(super) fn new(tenant: TenantId, time: Duration) -> Self {
        Self { tenant, time, characters: PAGES_MAX_CHARACTERS, known: Known::default() }
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
    #[error("after a first page only addresses that stand in the question or on a page that was read are fetched")]
    NotKnown,
    #[error("{TENANT_MAX_PAGES} pages were read within {} seconds, the next one has to wait", SHARE_WINDOW.as_secs())]
    NoShare,
    #[error("the time for reading pages is over")]
    NoTime,
    #[error("there is no room for another page")]
    NoRoom,
    #[error(transparent)]
    Refused(#[from] FetchRefusal),
}

impl WebReader {
    /// Reads the pages a round asks for, all at once.
    pub(super) async fn read(
        &self,
        said: Said,
        reading: &mut Reading,
        messages: &[Box<RawValue>],
    ) -> (Turn, Vec<FetchedReport>) {
        let beyond = said.tool_calls.len().saturating_sub(ROUND_MAX_PAGES);
        let calls: Vec<_> = said.tool_calls.into_iter().take(ROUND_MAX_PAGES).collect();
        let begun = Instant::now();
        let fetched = join_all(calls.iter().map(|call| self.fetch(call.url(), reading))).await;
        reading.time = reading.time.saturating_sub(begun.elapsed());
        let in_words = calls.iter().all(|call| call.id.is_empty());
        let text = if in_words { String::new() } else { said.text };
        let mut turn = Turn { said: text, thoughts: said.thoughts, asked: Vec::with_capacity(calls.len()) };
        let mut reports = Vec::with_capacity(calls.len());
        for (call, outcome) in calls.into_iter().zip(fetched) {
            let url = call.url().map(shortened);
            let (told, report) = self.tell(url.as_deref().unwrap_or_default(), outcome, reading);
            if let Some(found) = &report.final_url {
                reading.known.page(&report.url, found, &told, messages);
            }
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

    async fn fetch(&self, url: Option<&str>, reading: &Reading) -> Result<FetchedPage, NotRead> {
        let url = url.ok_or(NotRead::NoUrl)?;
        if url.chars().count() > URL_MAX_CHARACTERS {
            return Err(NotRead::LongUrl);
        }
        if !reading.known.admits(url) {
            return Err(NotRead::NotKnown);
        }
        let share = self.shares.take(reading.tenant, Instant::now()).map_err(|none| match none {
            NoShare::Spent => NotRead::NoShare,
            NoShare::Full => NotRead::Refused(FetchRefusal::Busy),
        })?;
        let fetching = async {
            let _permit = share.acquire().await.map_err(|_| FetchRefusal::Busy)?;
            self.fetcher.fetch(url).await
        };
        let page = timeout(reading.time, fetching).await.map_err(|_| NotRead::NoTime)??;
        Ok(page)
    }

    fn tell(&self, url: &str, outcome: Result<FetchedPage, NotRead>, reading: &mut Reading) -> (String, FetchedReport) {
        let outcome = outcome.and_then(|page| if reading.characters == 0 { Err(NotRead::NoRoom) } else { Ok(page) });
        match outcome {
            Ok(page) => {
                let told = untrusted::tell(&page, reading.characters, self.randomness.as_ref());
                reading.characters = reading.characters.saturating_sub(told.characters);
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
