//! A stream of changes over a WebSocket (RFC 6455): the client's first message has the position at
//! which it begins, then each change is a JSON text.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt, future::BoxFuture};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Bytes, Error as SocketError, Message, Utf8Bytes,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{
    auth::Caller,
    error::{BoxError, Error},
    http::{
        Api,
        budget::{Budget, Payer, Reservation},
        upgrade::{Duplex, Upgraded},
    },
    streams::{EndReason, StreamSlot},
    todos::{Batch, ChangeCursor, ChangeEvent, Follower},
};

pub(crate) mod handshake;

/// Maximum size in bytes of a frame and of a message of the client.
const MAX_MESSAGE_BYTES: usize = 4 << 10;
/// Bytes of messages that are written together.
const WRITE_BUFFER_BYTES: usize = 16 << 10;
/// Time for the client's first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// Time in which the client must take a page of events.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// Time for the client to close after the server's close frame, and maximum number of bytes that
/// are read meanwhile.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_DRAINED_BYTES: u64 = 1 << 20;
/// The heartbeats without a sign of the client after which its connection is closed.
const MAX_SILENT_HEARTBEATS: u32 = 2;

/// Close codes of this API (RFC 6455, section 7.4.2), after the HTTP statuses 401 and 410.
const SESSION_ENDED: u16 = 4401;
const CURSOR_EXPIRED: u16 = 4410;

type Socket = WebSocketStream<Box<dyn Duplex>>;

/// How a connection ends.
enum Ending {
    /// The server closes it, with this code and reason.
    Close(CloseCode, &'static str),
    /// The client has begun to close it.
    ClosedByClient,
    /// The client is gone.
    Gone,
}

impl Ending {
    fn of(reason: EndReason) -> Self {
        let code = match reason {
            EndReason::SessionEnded | EndReason::Expired => CloseCode::Library(SESSION_ENDED),
            EndReason::CursorExpired => CloseCode::Library(CURSOR_EXPIRED),
            EndReason::MaxAge | EndReason::Draining => CloseCode::Away,
            EndReason::Unavailable => CloseCode::Again,
        };
        Self::Close(code, reason.as_str())
    }
}

/// Serves the stream of `caller` on an upgraded connection until it is closed. `slot` is its place.
pub(crate) async fn serve(
    api: Api,
    caller: Caller,
    payer: Payer,
    slot: StreamSlot,
    upgrade: BoxFuture<'static, std::io::Result<Upgraded>>,
) {
    // An error if the client has left before the response.
    let Ok(Upgraded { stream, held }) = upgrade.await else { return };
    let config = WebSocketConfig::default()
        .read_buffer_size(MAX_MESSAGE_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    // A stop of the server waits for the close frame.
    let _connected = api.core().streams().connected();
    let draining = Box::pin(api.until_draining());
    let mut session = Session { api, caller, payer, socket, draining };
    let ending = session.run(slot).await;
    // The place is free by now, for a client that connects again at once.
    session.close(ending).await;
    drop((session, held));
}

struct Session {
    api: Api,
    caller: Caller,
    payer: Payer,
    socket: Socket,
    draining: BoxFuture<'static, ()>,
}

impl Session {
    async fn run(&mut self, slot: StreamSlot) -> Ending {
        match self.follow(slot).await {
            Ok(reason) => {
                let end = json!({ "event": "end", "data": { "type": "end", "reason": reason } });
                match self.send([end.to_string().into()]).await {
                    Ok(()) => Ending::of(reason),
                    Err(ending) => ending,
                }
            }
            Err(ending) => ending,
        }
    }

    /// Sends the events, and returns why the stream has ended.
    ///
    /// # Errors
    /// The connection must end without the last event.
    async fn follow(&mut self, slot: StreamSlot) -> Result<EndReason, Ending> {
        let first = tokio::select! {
            biased;
            () = &mut self.draining => return Ok(EndReason::Draining),
            first = timeout(FIRST_MESSAGE, first_message(&mut self.socket)) => first,
        };
        let since = first.unwrap_or_else(|_elapsed| Err(violation("no first message")))?;
        let opened = Follower::with_slot(self.api.core(), &self.caller, since, slot).await;
        let mut follower = match opened {
            Ok(follower) => follower,
            Err(Error::Unauthenticated) => return Ok(EndReason::SessionEnded),
            Err(Error::CursorExpired) => return Ok(EndReason::CursorExpired),
            Err(_) => return Ok(EndReason::Unavailable),
        };
        let start = json!({ "id": follower.start(), "event": "start" });
        self.send([start.to_string().into()]).await?;
        let heartbeat = self.api.config().event_heartbeat;
        let mut ticks = interval(heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut heard = Instant::now();
        loop {
            let batch = tokio::select! {
                () = &mut self.draining => return Ok(EndReason::Draining),
                message = self.socket.next() => {
                    heard = Instant::now();
                    match received(message)? {
                        Message::Text(_) => return Err(violation("one message only")),
                        _ => continue,
                    }
                }
                _ = ticks.tick() => {
                    if heard.elapsed() > MAX_SILENT_HEARTBEATS * heartbeat {
                        return Err(Ending::Gone);
                    }
                    self.send_messages([Message::Ping(Bytes::new())]).await?;
                    continue;
                }
                batch = follower.next() => batch,
            };
            match batch {
                Batch::End(reason) => return Ok(reason),
                Batch::Changes(events) => {
                    let encoded = encode(self.api.budget(), self.payer, &events).await;
                    drop(events);
                    let Some((texts, _held)) = encoded else {
                        return Ok(EndReason::Unavailable);
                    };
                    self.send(texts).await?;
                }
            }
            // The database may return pages without a pause: other tasks must run in between.
            tokio::task::yield_now().await;
        }
    }

    async fn send(&mut self, texts: impl IntoIterator<Item = Utf8Bytes>) -> Result<(), Ending> {
        self.send_messages(texts.into_iter().map(Message::Text)).await
    }

    async fn send_messages(
        &mut self,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<(), Ending> {
        let sent = timeout(WRITE_STALL, async {
            for message in messages {
                self.socket.feed(message).await?;
            }
            self.socket.flush().await
        });
        match sent.await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Ending::Gone),
        }
    }

    /// Closes the connection (RFC 6455, section 7.1.2): both sides send a close frame.
    async fn close(&mut self, ending: Ending) {
        let closed = timeout(CLOSE_TIMEOUT, async {
            match ending {
                Ending::Gone => return,
                Ending::ClosedByClient => {}
                Ending::Close(code, reason) => {
                    let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
                    if self.socket.close(Some(frame)).await.is_err() {
                        return;
                    }
                }
            }
            loop {
                match self.socket.next().await {
                    Some(Ok(_)) => {}
                    // The client has closed too: the server ends the connection.
                    None => return,
                    Some(Err(_)) => break,
                }
            }
            // The rest of a frame that is too large. With unread bytes, the close would reset the
            // connection, and the client would not receive the close frame.
            let stream = self.socket.get_mut();
            if stream.shutdown().await.is_err() {
                return;
            }
            let mut rest = stream.take(MAX_DRAINED_BYTES);
            let mut bytes = [0; 1024];
            while let Ok(1..) = rest.read(&mut bytes).await {}
        });
        // The client has had its time.
        let _ = closed.await;
    }
}

/// Waits for the client's first message, and returns the position that it contains.
async fn first_message(socket: &mut Socket) -> Result<Option<ChangeCursor>, Ending> {
    loop {
        let message = socket.next().await;
        if let Message::Text(text) = received(message)? {
            return resumed(&text).ok_or(Ending::Close(
                CloseCode::Invalid,
                "the first message must be {\"resume\": \"an event's id\"} or {}",
            ));
        }
    }
}

/// The position in a first message: none in `{}`; `None` if the message is invalid.
fn resumed(text: &str) -> Option<Option<ChangeCursor>> {
    let members: Map<String, Value> = serde_json::from_str(text).ok()?;
    match members.get("resume") {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(position)) => ChangeCursor::parse(position).ok().map(Some),
        Some(_) => None,
    }
}

/// Checks a message of the client: a text, a ping or a pong.
fn received(message: Option<Result<Message, SocketError>>) -> Result<Message, Ending> {
    match message {
        Some(Ok(Message::Binary(_))) => {
            Err(Ending::Close(CloseCode::Unsupported, "text messages only"))
        }
        Some(Ok(Message::Close(_))) => Err(Ending::ClosedByClient),
        Some(Ok(message)) => Ok(message),
        Some(Err(SocketError::Capacity(_))) => {
            Err(Ending::Close(CloseCode::Size, "a message has at most 4096 bytes"))
        }
        Some(Err(SocketError::Utf8(_))) => Err(Ending::Close(CloseCode::Invalid, "not UTF-8")),
        Some(Err(SocketError::Protocol(_))) => {
            Err(Ending::Close(CloseCode::Protocol, "a malformed frame"))
        }
        Some(Err(_)) | None => Err(Ending::Gone),
    }
}

fn violation(reason: &'static str) -> Ending {
    Ending::Close(CloseCode::Policy, reason)
}

/// The messages of events, charged until they are sent; `None` if there is no memory for them.
async fn encode(
    budget: &Budget,
    payer: Payer,
    events: &[ChangeEvent],
) -> Option<(Vec<Utf8Bytes>, Option<Reservation>)> {
    let encoded: Result<Vec<_>, _> = events.iter().map(text).collect();
    let texts = match encoded {
        Ok(texts) => texts,
        Err(error) => {
            let error = Error::Internal(BoxError::new(error));
            tracing::error!(%error, "an event was not encoded");
            return None;
        }
    };
    let size: usize = texts.iter().map(|text| text.len()).sum();
    let held = budget.charge_or_wait(payer, size).await.ok()?;
    Some((texts, held))
}

/// An event as a message.
fn text(event: &ChangeEvent) -> serde_json::Result<Utf8Bytes> {
    #[derive(serde::Serialize)]
    struct Text<'a> {
        id: &'a ChangeCursor,
        event: &'static str,
        data: &'a crate::todos::Change,
    }
    let ChangeEvent { cursor, change } = event;
    let text = Text { id: cursor, event: change.kind(), data: change };
    serde_json::to_string(&text).map(Utf8Bytes::from)
}
