//! A client of server-sent events, over HTTP/1.1 and HTTP/2.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use crate::{Actor, TestResponse};

/// The time in which something must happen on a busy machine.
const SLACK: Duration = Duration::from_secs(30);
/// A small buffer, so that a client that does not read is noticed soon.
const BUFFER_BYTES: u32 = 64 << 10;

/// The lines of an event stream up to an empty one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// `id`
    pub id: Option<String>,
    /// `event`
    pub event: Option<String>,
    /// `data`, which is JSON.
    pub data: Option<Value>,
    /// `retry`, in milliseconds.
    pub retry: Option<u64>,
    /// Whether it has a comment.
    pub is_comment: bool,
}

impl Event {
    fn parse(block: &str) -> Event {
        let mut event = Event::default();
        for line in block.lines() {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "" => event.is_comment = true,
                "id" => event.id = Some(value.to_owned()),
                "event" => event.event = Some(value.to_owned()),
                "data" => event.data = Some(serde_json::from_str(value).expect("JSON")),
                "retry" => event.retry = Some(value.parse().expect("milliseconds")),
                other => panic!("the field {other} in {block}"),
            }
        }
        event
    }

    /// Whether this is the last event, with this reason.
    pub fn is_end(&self, reason: &str) -> bool {
        let data = self.data.as_ref();
        self.event.as_deref() == Some("end")
            && self.id.is_none()
            && data.is_some_and(|data| data["reason"] == reason && data["type"] == "end")
    }
}

/// An open stream of events. Dropped, it closes its connection.
#[derive(Debug)]
pub struct EventStream {
    /// The header fields of the response.
    pub headers: HeaderMap,
    body: Incoming,
    text: String,
    received: VecDeque<Event>,
    connection: JoinHandle<()>,
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl EventStream {
    /// Opens a stream of `actor`'s changes with these header fields.
    ///
    /// # Panics
    /// When the response is an error.
    pub async fn open(actor: &Actor, query: &str, headers: &[(&str, &str)]) -> EventStream {
        let opened = EventStream::try_open(actor.addr(), Version::HTTP_11, actor, query, headers);
        opened.await.unwrap_or_else(|answer| panic!("{answer}"))
    }

    /// Opens a stream at the server at `addr`.
    ///
    /// # Errors
    /// The response, if its status is not 200.
    pub async fn try_open(
        addr: SocketAddr,
        version: Version,
        actor: &Actor,
        query: &str,
        headers: &[(&str, &str)],
    ) -> Result<EventStream, TestResponse> {
        let path = format!("/api/users/{}/events{query}", actor.id());
        let mut request = Request::get(format!("http://{addr}{path}")).version(version);
        if version == Version::HTTP_11 {
            request = Request::get(&path).header(header::HOST, "localhost");
        }
        let bearer = format!("Bearer {}", actor.token());
        request = request.header(header::AUTHORIZATION, bearer);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let sent = timeout(SLACK, send(addr, version, request));
        let (response, connection) = sent.await.expect("a response in time");
        let status = response.status().as_u16();
        let (head, body) = response.into_parts();
        if status != 200 {
            let body = body.collect().await.expect("a body").to_bytes().to_vec();
            connection.abort();
            return Err(TestResponse {
                status,
                headers: head.headers,
                body,
                request: format!("GET {path}"),
            });
        }
        Ok(EventStream {
            headers: head.headers,
            body,
            text: String::new(),
            received: VecDeque::new(),
            connection,
        })
    }

    /// The next block, comments included; `None` at the regular end.
    ///
    /// # Panics
    /// When none comes in time, or the stream is cut off.
    pub async fn next_block(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.received.pop_front() {
                return Some(event);
            }
            let frame = timeout(SLACK, self.body.frame()).await.expect("an event in time")?;
            let data = frame.expect("it is not cut off").into_data().expect("data");
            self.text.push_str(std::str::from_utf8(&data).expect("UTF-8"));
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                self.received.push_back(Event::parse(block));
                self.text = rest.to_owned();
            }
        }
    }

    /// The next event that is not a comment.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn next(&mut self) -> Event {
        // Comments may come without an end.
        let next = async {
            loop {
                let event = self.next_block().await.expect("another event");
                if !event.is_comment {
                    return event;
                }
            }
        };
        timeout(SLACK, next).await.expect("an event in time")
    }

    /// Expects the end with this reason as the next event, and nothing after it.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn expect_end(&mut self, reason: &str) {
        let event = self.next().await;
        assert!(event.is_end(reason), "not the end by {reason}: {event:?}");
        assert_eq!(self.next_block().await, None, "after the end");
    }
}

/// Sends the request over a connection of its own.
async fn send(
    addr: SocketAddr,
    version: Version,
    request: Request<Empty<Bytes>>,
) -> (Response<Incoming>, JoinHandle<()>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(BUFFER_BYTES).expect("a small buffer");
    let stream: TcpStream = socket.connect(addr).await.expect("it listens");
    let stream = TokioIo::new(stream);
    if version == Version::HTTP_2 {
        let mut client = http2::Builder::new(TokioExecutor::new());
        let client = client.initial_stream_window_size(BUFFER_BYTES);
        let client = client.initial_connection_window_size(BUFFER_BYTES);
        let (mut sender, io) = client.handshake(stream).await.expect("a connection");
        let connection = tokio::spawn(async move { drop(io.await) });
        (sender.send_request(request).await.expect("a response"), connection)
    } else {
        let (mut sender, io) = http1::handshake(stream).await.expect("a connection");
        let connection = tokio::spawn(async move { drop(io.await) });
        (sender.send_request(request).await.expect("a response"), connection)
    }
}
