use calos_commands::provider::MaxTokensField;

use super::*;

fn request(fields: &str) -> ChatRequest {
    ChatRequest {
        answer_id: "chatcmpl-test".to_owned(),
        dialect: calos_commands::provider::Dialect::OpenAi,
        key: None,
        model: "gpt-4".to_owned(),
        fields: Arc::new(serde_json::from_str(fields).unwrap()),
        betas: None,
        max_tokens: 64,
        max_tokens_field: MaxTokensField::MaxTokens,
        show_usage: false,
        prompt_estimate_tokens: 10,
        transcript: calos_commands::provider::Transcript::default(),
    }
}

#[test]
fn what_calos_decided_goes_upstream_and_the_rest_as_it_came() {
    let request = request(r#"{"messages":[{"role":"user","content":"hi"}],"temperature":0.10,"new_field":{"x":1}}"#);
    let plain = String::from_utf8(body(&OPENAI, &request, false).unwrap()).unwrap();
    assert_eq!(
        plain,
        r#"{"messages":[{"role":"user","content":"hi"}],"temperature":0.10,"new_field":{"x":1},"model":"gpt-4","max_tokens":64}"#
    );
    let streaming = String::from_utf8(body(&OPENAI, &request, true).unwrap()).unwrap();
    assert!(streaming.ends_with(r#""stream":true,"stream_options":{"include_usage":true}}"#), "{streaming}");
}

#[test]
fn a_streams_options_are_the_clients_but_for_the_usage() {
    let request = request(r#"{"messages":[],"stream_options":{"include_obfuscation":false,"include_usage":false}}"#);
    let sent = |streaming| -> serde_json::Value {
        serde_json::from_slice(&body(&OPENAI, &request, streaming).unwrap()).unwrap()
    };
    let options = serde_json::json!({"include_obfuscation": false, "include_usage": true});
    assert_eq!(sent(true)["stream_options"], options);
    assert_eq!(sent(false).get("stream_options"), None);
}

#[test]
fn thoughts_go_back_to_who_wants_them_alone() {
    let request = request(
        r#"{"messages":[{"role":"user","content":"hi"},
        {"role":"assistant","content":null,"reasoning_content":"hm","thinking_blocks":[{"type":"thinking"}],"tool_calls":[{"id":"a"}]},
        {"role":"assistant","content":null,"tool_calls":[{"id":"b"}]},{"role":"assistant","content":"x","tool_calls":[]}]}"#,
    );
    let thoughts = |vendor: &Vendor| {
        let body: serde_json::Value = serde_json::from_slice(&body(vendor, &request, false).unwrap()).unwrap();
        let messages = body["messages"].as_array().unwrap().clone();
        assert!(messages.iter().all(|message| message.get("thinking_blocks").is_none()));
        messages.iter().map(|message| message["reasoning_content"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(thoughts(&OPENAI), [None, None, None, None]);
    let (hm, empty) = (Some("hm".to_owned()), Some(String::new()));
    assert_eq!(thoughts(&super::super::deepseek::DEEPSEEK), [None, hm, empty, None]);
}

/// What a stream of these events yields before its body ends.
async fn streamed(events: &str) -> Vec<Result<Chunk, ProviderError>> {
    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{events}", events.len());
    let server = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let _request = connection.read(&mut [0; 8_192]).await.unwrap();
        connection.write_all(answer.as_bytes()).await.unwrap();
    });
    let http = ProviderHttp::new(super::super::HttpSettings::default()).unwrap();
    let account = OpenAi::new(http, &base, "sk-test").unwrap();
    let chunks = account.stream(&request(r#"{"messages":[]}"#)).await.unwrap().collect().await;
    server.await.unwrap();
    chunks
}

#[tokio::test]
async fn an_answer_that_has_had_its_end_needs_no_mark_of_it() {
    const SAID: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    const FINISHED: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let whole = streamed(&format!("{SAID}{FINISHED}")).await;
    assert_eq!(whole.len(), 2);
    assert!(whole.iter().all(Result::is_ok));
    let broken = streamed(SAID).await;
    assert!(matches!(broken.last(), Some(Err(ProviderError::BadAnswer { .. }))));
}

#[test]
fn the_version_stands_once_in_the_address() {
    assert_eq!(&*versioned("https://api.openai.com"), "https://api.openai.com/v1");
    assert_eq!(&*versioned("https://api.openai.com/v1/"), "https://api.openai.com/v1");
    assert_eq!(&*versioned("http://127.0.0.1:8000/openai"), "http://127.0.0.1:8000/openai/v1");
}

#[test]
fn a_listing_is_read() {
    let text = r#"{"object":"list","data":[{"id":"gpt-4","object":"model","created":1687882411,"owned_by":"openai"},{"id":"x"}]}"#;
    let models = read_listing(NAME, text.as_bytes()).unwrap();
    let gpt_4 = ModelListing { id: "gpt-4".into(), created: 1_687_882_411, owned_by: "openai".into(), local: None };
    assert_eq!(models[0], gpt_4);
    assert_eq!(models[1].owned_by, "openai");
    assert!(read_listing(NAME, b"{}").is_err());
}

#[test]
fn a_key_that_breaks_the_header_is_refused_and_a_good_one_is_never_shown() {
    let http = ProviderHttp::new(super::super::HttpSettings::default()).unwrap();
    assert!(OpenAi::new(http.clone(), DEFAULT_BASE_URL, "sk-a\nb").is_err());
    let account = OpenAi::new(http, DEFAULT_BASE_URL, "sk-secret").unwrap();
    assert!(!format!("{account:?}").contains("secret"));
}

#[test]
fn a_model_that_may_reason_unseen_is_waited_for() {
    let settings = HttpSettings::default();
    for (model, first_byte) in [
        ("gpt-4", settings.first_byte),
        ("gpt-4o-mini", settings.first_byte),
        ("o3-mini", settings.whole),
        ("a-model-nobody-has-priced", settings.whole),
    ] {
        assert_eq!(limits(settings, model).first_byte, first_byte, "{model}");
    }
}
