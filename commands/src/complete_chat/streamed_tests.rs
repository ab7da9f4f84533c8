use futures_util::stream;

use super::*;

fn chunk(kind: ChunkKind, bytes: u64, usage: Option<TokenUsage>) -> Chunk {
    Chunk { kind, json: Some(Bytes::from_static(b"{}")), model: None, usage, produced: Produced::piece(bytes) }
}

fn broken() -> ProviderError {
    ProviderError::BadAnswer { provider: "openai", detail: "the stream ended without [DONE]".to_owned() }
}

fn counted() -> Option<TokenUsage> {
    TokenUsage::reported(7, 3, 0, 0)
}

type Item = Result<Chunk, ProviderError>;

/// Passes these on to a client that takes everything.
async fn told(first: Chunk, rest: Vec<Item>) -> (Told, Ended) {
    let (sender, mut pieces) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::spawn(async move { while pieces.recv().await.is_some() {} });
    let mut told = Told::new(sender, Provider::OpenAi, Dialect::OpenAi);
    let deadline = Instant::now() + STREAM_MAX;
    let ended = told.pass_on_until(first, Box::pin(stream::iter(rest)), deadline, &CancellationToken::new()).await;
    (told, ended)
}

#[tokio::test]
async fn who_leaves_before_the_first_word_pays_for_the_prompt() {
    let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    drop(pieces);
    let mut told = Told::new(sender, Provider::OpenAi, Dialect::OpenAi);
    let waiting = Box::pin(stream::pending::<Item>());
    let deadline = Instant::now() + STREAM_MAX;
    let role = chunk(ChunkKind::Content, 0, None);
    let ended = told.pass_on_until(role, waiting, deadline, &CancellationToken::new()).await;
    assert!(matches!(ended, Ended::ClientGone), "{ended:?}");
    assert_eq!(told.outcome(&ended), Ok(UsageOutcome::ClientGone));
}

#[tokio::test]
async fn a_provider_that_breaks_off_before_the_first_word_is_paid_nothing() {
    // Also where the prompt was counted with the first piece.
    for usage in [None, counted()] {
        let (told, ended) = told(chunk(ChunkKind::Content, 0, usage), vec![Err(broken())]).await;
        assert_eq!(told.outcome(&ended), Err(ReleaseCause::ProviderFailed));
    }
}

#[tokio::test]
async fn a_stream_ends_while_its_hold_stands() {
    let (sender, _pieces) = mpsc::channel(PIECES_WAITING_MAX);
    let mut told = Told::new(sender, Provider::OpenAi, Dialect::OpenAi);
    let waiting = Box::pin(stream::pending::<Item>());
    let word = chunk(ChunkKind::Content, 4, None);
    let soon = Instant::now() + Duration::from_millis(20);
    let ended = told.pass_on_until(word, waiting, soon, &CancellationToken::new()).await;
    assert!(matches!(ended, Ended::Late(_)), "{ended:?}");
    assert_eq!(told.outcome(&ended), Ok(UsageOutcome::ClientGone));
    assert!(STREAM_MAX < Duration::from_secs(HOLD_MAX_SECONDS.unsigned_abs()));
}

#[tokio::test]
async fn an_answer_with_its_end_and_its_count_is_complete_without_an_end_mark() {
    let word = || chunk(ChunkKind::Content, 4, None);
    let finish = || Ok(chunk(ChunkKind::Finish, 0, None));
    let usage = |usage| Ok(chunk(ChunkKind::Usage, 0, usage));
    let (_, ended) = told(word(), vec![finish(), usage(counted()), Err(broken())]).await;
    assert!(matches!(ended, Ended::Complete), "{ended:?}");
    // One of several answers has ended, the other goes on.
    let (_, ended) = told(word(), vec![finish(), usage(counted()), Ok(word()), Err(broken())]).await;
    assert!(matches!(ended, Ended::Broken(_)), "{ended:?}");
    let (_, ended) = told(word(), vec![usage(counted()), Err(broken())]).await;
    assert!(matches!(ended, Ended::Broken(_)), "{ended:?}");
    let (_, ended) = told(word(), vec![finish(), usage(TokenUsage::reported(0, 0, 0, 0)), Err(broken())]).await;
    assert!(matches!(ended, Ended::Broken(_)), "{ended:?}");
}

#[tokio::test]
async fn a_stream_with_nothing_in_it_is_not_charged() {
    let role = || chunk(ChunkKind::Content, 0, None);
    let (nothing, ended) = told(role(), Vec::new()).await;
    assert_eq!(nothing.outcome(&ended), Err(ReleaseCause::ProviderFailed));
    // An answer that was ended at once is one.
    let (ended_at_once, ended) = told(role(), vec![Ok(chunk(ChunkKind::Finish, 0, None))]).await;
    assert_eq!(ended_at_once.outcome(&ended), Ok(UsageOutcome::Completed));
}
