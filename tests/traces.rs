//! One trace tells a chat call whole: from the request through its commands and their appends to the read models.
//!
//! It has a program of its own: where traces go is decided once in a process.

#![expect(clippy::expect_used, reason = "a test's helper fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use calos_api::cli::TierName;
use calos_api::logging;
use calos_api::telemetry::Telemetry;
use calos_tests::app::{Answer, TestApp};
use calos_tests::cluster::until;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Told;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::json;
use sqlx::Row as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

/// The most a request to the collector may hold.
const REQUEST_MAX_BYTES: usize = 16 * 1024 * 1024;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLERS_SPAN_ID: &str = "00f067aa0ba902b7";

/// A collector that keeps what it is told.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// Listens on a free port, and answers its address.
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it has an address"));
        let collector = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = collector.clone();
                tokio::spawn(async move { collector.serve(stream).await });
            }
        });
        address
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut arrived = Vec::new();
        loop {
            let Some((head_bytes, body_bytes)) = lengths(&arrived) else {
                if stream.read_buf(&mut arrived).await.unwrap_or(0) == 0 {
                    return;
                }
                continue;
            };
            assert!(body_bytes <= REQUEST_MAX_BYTES);
            while arrived.len() < head_bytes + body_bytes {
                if stream.read_buf(&mut arrived).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let head = String::from_utf8_lossy(&arrived[..head_bytes]).to_ascii_lowercase();
            assert!(head.starts_with("post /v1/traces ") && head.contains("application/x-protobuf"), "{head}");
            let body = &arrived[head_bytes..head_bytes + body_bytes];
            self.keep(ExportTraceServiceRequest::decode(body).expect("spans as OTLP has them"));
            arrived.drain(..head_bytes + body_bytes);
            let answered = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            answered.expect("the exporter waits for its answer");
        }
    }

    fn keep(&self, told: ExportTraceServiceRequest) {
        let of = told.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(of);
    }

    /// What it was told of one trace.
    fn of(&self, trace_id: &str) -> Vec<Span> {
        let spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|span| hex(&span.trace_id) == trace_id).cloned().collect()
    }
}

/// The length of a request's head and of its body, once the head is there.
fn lengths(arrived: &[u8]) -> Option<(usize, usize)> {
    let end = arrived.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&arrived[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some((end, length.unwrap_or(0)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a span says under a name.
fn said(span: &Span, name: &str) -> Option<String> {
    let value = span.attributes.iter().find(|attribute| attribute.key == name)?.value.as_ref()?;
    match value.value.as_ref()? {
        Told::StringValue(text) => Some(text.clone()),
        Told::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_goes_from_the_request_through_command_and_append_to_the_read_models() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let telemetry = Telemetry::start(&endpoint, Handle::current()).expect("traces are told");
    logging::start(logging::Format::Json, Some(&telemetry));
    let app = TestApp::start().await;
    let who = app.register().await;
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;

    let body = json!({"model": "gpt-4", "max_tokens": 20, "messages": [{"role": "user", "content": "a hushed word"}]});
    let call = app.post("/v1/chat/completions", &body).bearer_auth(&key);
    let answer = call.header("traceparent", format!("00-{TRACE_ID}-{CALLERS_SPAN_ID}-01")).send().await;
    let answer = answer.expect("the server answers");
    assert_eq!(answer.status().as_u16(), 200);
    let position = answer.headers()["calos-position"].to_str().expect("a position").to_owned();
    Answer::of(app.get("/api/credits/balance").bearer_auth(&who.token).header("calos-after", position))
        .await
        .expect(200);

    until("the whole trace was told", 20, async || {
        let names: BTreeSet<String> = collector.of(TRACE_ID).into_iter().map(|span| span.name).collect();
        let wanted = ["POST /v1/chat/completions", "command", "append", "projection wallet_balance"];
        wanted.iter().all(|name| names.contains(*name))
            && names.contains("projection usage_log")
            && names.contains("projection open_holds")
    })
    .await;
    let spans = collector.of(TRACE_ID);
    let by_id: BTreeMap<_, _> = spans.iter().map(|span| (span.span_id.clone(), span)).collect();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();

    let requests = named("POST /v1/chat/completions");
    assert_eq!(requests.len(), 1);
    let request = requests[0];
    assert_eq!(hex(&request.parent_span_id), CALLERS_SPAN_ID);
    assert_eq!(said(request, "http.response.status_code").as_deref(), Some("200"));
    let correlation = said(request, "calos.correlation_id").expect("the request says what it belongs to");
    // Each read model hangs under the append it took, that under its command, and that under the request.
    for name in ["projection wallet_balance", "projection usage_log", "projection open_holds"] {
        for projection in named(name) {
            let append = by_id[&projection.parent_span_id];
            assert_eq!(append.name, "append");
            let command = by_id[&append.parent_span_id];
            assert_eq!(command.name, "command");
            assert_eq!(command.parent_span_id, request.span_id);
            for span in [projection, append, command] {
                assert_eq!(said(span, "calos.correlation_id").as_ref(), Some(&correlation), "{}", span.name);
                assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
            }
        }
    }
    // The hold and its settlement.
    assert!(named("append").len() >= 2, "{} appends", named("append").len());
    let logged =
        sqlx::query("SELECT DISTINCT metadata ->> 'correlation_id' FROM events WHERE event_type = 'hold_placed'")
            .fetch_all(&app.database.pool)
            .await
            .expect("the log can be read");
    let logged: Vec<String> = logged.iter().map(|row| row.get(0)).collect();
    assert_eq!(logged, [correlation], "the trace and the log speak of the same conversation");
    for span in &spans {
        let text = format!("{span:?}");
        assert!(!text.contains(&key) && !text.contains("hushed") && !text.contains(&who.token), "{text}");
    }
    app.stop().await;
}
