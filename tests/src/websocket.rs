//! A client of WebSockets.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request, header};
use serde_json::Value;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, handshake::client::generate_key},
};

use crate::Actor;

/// The time in which something must happen on a busy machine.
const SLACK: Duration = Duration::from_secs(30);

/// An open WebSocket. Dropped, it closes its connection without a close frame.
#[derive(Debug)]
pub struct WebSocket {
    /// The header fields of the response.
    pub headers: HeaderMap,
    stream: WebSocketStream<TcpStream>,
}

impl WebSocket {
    /// Opens a stream of `actor`'s changes by its first message; returns it with the position at
    /// which it begins.
    ///
    /// # Panics
    /// When the response is an error.
    pub async fn open(actor: &Actor, first: &str) -> (WebSocket, String) {
        let bearer = format!("Bearer {}", actor.token());
        let path = format!("/api/users/{}/ws", actor.id());
        let mut socket =
            WebSocket::connect(actor.addr(), &path, &[("authorization", &bearer)]).await;
        socket.send(Message::text(first)).await;
        let start = socket.next().await;
        assert_eq!(start["event"], "start", "{start}");
        let id = start["id"].as_str().expect("a position").to_owned();
        (socket, id)
    }

    /// Connects with these header fields besides those of every handshake.
    ///
    /// # Panics
    /// When the response is an error.
    pub async fn connect(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> WebSocket {
        let mut request = Request::get(format!("ws://{addr}{path}"))
            .header(header::HOST, "localhost")
            .header(header::CONNECTION, "keep-alive, Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, generate_key());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 << 10).expect("a small buffer");
        let stream = socket.connect(addr).await.expect("it listens");
        let opened = timeout(SLACK, client_async(request, stream)).await.expect("a response");
        let (stream, response) = opened.expect("a handshake");
        WebSocket { headers: response.headers().clone(), stream }
    }

    /// Sends a message.
    ///
    /// # Panics
    /// When the connection is closed.
    pub async fn send(&mut self, message: Message) {
        self.stream.send(message).await.expect("an open connection");
    }

    /// The next message; `None` at the end of the connection.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn next_message(&mut self) -> Option<Message> {
        let message = timeout(SLACK, self.stream.next()).await.expect("a message in time");
        message?.ok()
    }

    /// The next text, which is JSON. Pings are answered.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn next(&mut self) -> Value {
        // Pings may come without an end.
        let next = async {
            loop {
                match self.next_message().await {
                    Some(Message::Text(text)) => return serde_json::from_str(&text).expect("JSON"),
                    Some(Message::Ping(_)) => {}
                    other => panic!("no text but {other:?}"),
                }
            }
        };
        timeout(SLACK, next).await.expect("a text in time")
    }

    /// Expects the close frame with this code as the next message, and the end of the connection.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn expect_close(&mut self, code: u16) {
        loop {
            match self.next_message().await {
                Some(Message::Close(Some(frame))) => {
                    assert_eq!(u16::from(frame.code), code, "{frame:?}");
                    break;
                }
                Some(Message::Ping(_)) => {}
                other => panic!("no close frame with {code} but {other:?}"),
            }
        }
        assert_eq!(self.next_message().await, None, "after the close frame");
    }

    /// Expects the last event with this reason, then the close frame with this code.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn expect_end(&mut self, reason: &str, code: u16) {
        let end = self.next().await;
        assert_eq!(end["event"], "end", "{end}");
        assert_eq!(end["data"], serde_json::json!({"type": "end", "reason": reason}));
        self.expect_close(code).await;
    }

    /// Closes it with a close frame, and waits for the server's.
    ///
    /// # Panics
    /// When the server does not close.
    pub async fn close(mut self) {
        self.stream.close(None).await.expect("an open connection");
        while let Some(message) = self.next_message().await {
            assert!(!message.is_binary(), "{message:?}");
        }
    }

    /// The connection below, for frames that break the rules.
    pub fn raw(&mut self) -> &mut TcpStream {
        self.stream.get_mut()
    }
}
