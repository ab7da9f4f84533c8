//! How much of the fetcher one tenant's conversations get.

use futures_util::future::{join, join_all};

use super::shares::{TENANT_MAX_FETCHES, TENANT_MAX_PAGES};
use super::*;

/// A conversation of `tenant` that reads a round of pages: why each was not read, if it was not.
async fn reads(reader: &WebReader, tenant: u128) -> Vec<Option<String>> {
    let lines = Mutex::new(vec![Ok(fetching(&[A, A, A])), Ok(words("Done."))]);
    let script = Script { tenant, lines, ..Script::default() };
    let body = serde_json::from_value(question()).unwrap();
    let (_, finished) = reader.converse(&script, body, Arc::new(|_, _| None)).await.unwrap();
    finished.rounds.into_iter().flat_map(|round| round.fetched).map(|page| page.refused).collect()
}

#[tokio::test]
async fn a_tenant_reads_four_pages_at_a_time_and_its_others_wait() {
    let web = Arc::new(Web { takes: SHORT / 4, ..web(&[(A, "a")]) });
    let reader = WebReader::new(web.clone(), Arc::new(Counting::default()));
    let most = || web.most_at_once.load(Ordering::Relaxed);
    let all = join_all((0..4).map(|_| reads(&reader, 1))).await;
    assert!(all.iter().flatten().all(Option::is_none), "{all:?}");
    assert_eq!(most(), TENANT_MAX_FETCHES as u64);
    let _both = join(join_all((0..4).map(|_| reads(&reader, 1))), reads(&reader, 2)).await;
    assert_eq!(most(), (TENANT_MAX_FETCHES + ROUND_MAX_PAGES) as u64, "another tenant does not wait for this one");
}

#[tokio::test]
async fn a_tenant_reads_so_many_pages_a_minute_and_keeps_no_other_from_it() {
    let web = Arc::new(web(&[(A, "a")]));
    let reader = WebReader::new(web.clone(), Arc::new(Counting::default()));
    for _conversation in 0..TENANT_MAX_PAGES / ROUND_MAX_PAGES {
        assert_eq!(reads(&reader, 1).await, [None, None, None]);
    }
    let refused = reads(&reader, 1).await;
    assert!(refused.iter().all(|page| page.as_ref().is_some_and(|why| why.starts_with("60 pages"))), "{refused:?}");
    assert_eq!(web.fetched.lock().unwrap().len(), TENANT_MAX_PAGES);
    assert_eq!(reads(&reader, 2).await, [None, None, None]);
}
