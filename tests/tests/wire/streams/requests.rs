//! The servers treat the request of a stream as any other: HEAD starts nothing, the metrics count
//! it when it ends, and its route sets the deadlines.

use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use todo_core::ErrorChain;
use tokio::time::{Instant, timeout};

use super::{
    AtDrain, CELLS, Connection, Protocol::Http1, SLACK, Streaming, handled, rest, settings,
    streaming_api,
};

/// The value of a metric.
fn metric(text: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_does_not_start_a_live_stream() {
    for (server, protocol) in CELLS {
        let mut streaming = Streaming::start(server, AtDrain::Ignores).await;
        let mut connection = Connection::open(streaming.addr, protocol).await;
        let response = connection.request(Method::HEAD, "/testing/live").await;
        assert_eq!(response.status(), StatusCode::OK);
        let (head, body) = response.into_parts();
        assert_eq!(rest(body).await, "");
        // The connection can be used.
        assert_eq!(connection.get("/health").await.status(), StatusCode::OK);
        assert!(streaming.started.try_recv().is_err(), "{server:?} {protocol:?}: it was started");

        let got = connection.get("/testing/live").await;
        let names = |headers: &HeaderMap| {
            let mut names: Vec<_> = headers.keys().map(ToString::to_string).collect();
            names.retain(|name| name != "transfer-encoding");
            names.sort();
            names
        };
        assert_eq!(names(&head.headers), names(got.headers()), "{server:?} {protocol:?}");
        // Not compressed, although the client accepts it: each chunk is sent when it is ready.
        assert_eq!(got.headers()[header::CONTENT_TYPE], "text/event-stream");
        assert!(!got.headers().contains_key(header::CONTENT_ENCODING), "{server:?} {protocol:?}");
        streaming.next().await;
        drop(got);
        streaming.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_stream_holds_no_memory_and_is_logged_when_it_ends() {
    const ROUTE: &str = r#"http_requests_total{method="GET",route="/testing/live",status="200"}"#;
    for (server, protocol) in CELLS {
        let mut streaming = Streaming::start(server, AtDrain::Ignores).await;
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(streaming.open(protocol).await);
        }
        let mut client = Connection::open(streaming.addr, Http1).await;
        let text = client.text("/metrics").await;
        // The response with the metrics is charged after they are read.
        assert_eq!(metric(&text, "body_memory_bytes"), Some(0.0), "{server:?} {protocol:?}");
        assert_eq!(metric(&text, ROUTE), None, "{server:?} {protocol:?}");
        // A regular end, and a client that leaves.
        let (_connection, body, started) = streams.remove(0);
        drop(started);
        rest(body).await;
        for (connection, body, mut started) in streams {
            connection.close();
            drop(body);
            started.wait_for_drop((server, protocol)).await;
        }
        let mut text = String::new();
        let counted = async {
            while metric(&text, ROUTE) != Some(3.0) {
                text = client.text("/metrics").await;
            }
        };
        let counted = timeout(SLACK, counted).await;
        assert!(counted.is_ok(), "{server:?} {protocol:?}: not three requests: {text}");
        streaming.stop().await;
    }
}

#[tokio::test]
async fn a_route_has_its_own_deadline_for_its_response_and_each_chunk() {
    let (api, mut started) = streaming_api(AtDrain::Ignores).await;
    tokio::time::pause();
    let began = Instant::now();
    assert_eq!(handled(&api, "/testing/late").await.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(began.elapsed() < settings().request_timeout, "the deadline of all routes");

    let mut body = handled(&api, "/testing/finite").await.into_body();
    assert!(!body.is_live());
    let (first, source) = tokio::join!(body.frame(), async {
        let source = started.recv().await.expect("it is started");
        source.send("").await;
        source.send("first").await;
        source
    });
    let first = first.expect("a chunk").expect("no error").into_data().expect("data");
    assert_eq!(first, "first", "an empty chunk is skipped");
    let began = Instant::now();
    let error = timeout(SLACK, body.frame()).await.expect("it ends");
    let error = error.expect("an error").expect_err("no chunk in time");
    let error = ErrorChain(&error).to_string();
    assert_eq!(error, "the response was cut off: no data in time");
    assert!(began.elapsed() < settings().request_timeout, "the deadline of all routes");
    assert!(body.frame().await.is_none());
    drop(source);
}
