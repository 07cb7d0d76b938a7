//! The changes of a user's todos over a WebSocket.

mod ends;
mod handshake;

use serde_json::{Value, json};
use todo_tests::{Actor, App, WebSocket, on_every_target};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use crate::text;

fn path(owner: &Actor) -> String {
    format!("/api/users/{}/ws", owner.id())
}

/// Connects as `owner`, without a first message.
async fn connected(owner: &Actor) -> WebSocket {
    let bearer = format!("Bearer {}", owner.token());
    WebSocket::connect(owner.addr(), &path(owner), &[("authorization", &bearer)]).await
}

fn changed(todo: &Value) -> Value {
    json!({"type": "todo", "todo": todo})
}

on_every_target! {
    async fn each_change_is_a_text_and_a_new_connection_continues(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let old = ann.todo("old").await;
        let (mut socket, start) = WebSocket::open(&ann, "{}").await;
        let changes = format!("/api/users/{}/changes", ann.id());
        assert_eq!(ann.get(&changes).await.expect(200)["next"], start);
        let new = ann.todo("new \u{2028} \u{1f600}").await;
        let first = socket.next().await;
        assert_eq!((&first["event"], &first["data"]), (&json!("todo"), &changed(&new)));
        let members = first.as_object().expect("an object").keys();
        assert_eq!(members.collect::<Vec<_>>(), ["data", "event", "id"]);
        ann.delete(&format!("{}/{}", ann.todos(), text(&old, "id"))).await.expect(200);
        let second = socket.next().await;
        assert_eq!(second["event"], "deleted");
        assert_eq!(second["data"], json!({"type": "deleted", "id": old["id"]}));
        let number = |event: &Value| {
            let (_, number) = text(event, "id").split_once('.').expect("a position");
            number.parse::<u64>().expect("a number")
        };
        assert_eq!(number(&second), number(&first) + 1);
        socket.close().await;

        let resume = json!({"resume": first["id"], "unknown": 1}).to_string();
        let (mut again, position) = WebSocket::open(&ann, &resume).await;
        assert_eq!(position, text(&first, "id"));
        assert_eq!(again.next().await, second);
        // From the beginning.
        let resume = json!({"resume": start}).to_string();
        let (mut again, _) = WebSocket::open(&ann, &resume).await;
        assert_eq!([again.next().await, again.next().await], [first, second]);
    }

    async fn a_long_replay_comes_whole(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let (socket, start) = WebSocket::open(&ann, "{}").await;
        socket.close().await;
        let long = json!({"title": "t", "description": "\u{1}".repeat(1000)});
        for _ in 0..60 {
            ann.post(&ann.todos(), long.clone()).await.expect(201);
        }
        let (mut socket, _) = WebSocket::open(&ann, &json!({"resume": start}).to_string()).await;
        for number in 1..=60 {
            let event = socket.next().await;
            assert!(text(&event, "id").ends_with(&format!(".{number}")), "{event}");
        }
    }

    async fn a_client_that_breaks_the_rules_is_disconnected(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let padded = |length: usize| {
            let text = json!({"padding": ""}).to_string();
            text.replace("\"\"", &format!("\"{}\"", "x".repeat(length - text.len())))
        };
        // The largest first message.
        let (socket, _) = WebSocket::open(&ann, &padded(4096)).await;
        socket.close().await;
        for (first, code) in [
            (Message::text("no JSON"), 1007),
            (Message::text("[]"), 1007),
            (Message::text("{\"resume\": 1}"), 1007),
            (Message::text("{\"resume\": \"x\"}"), 1007),
            (Message::text("{} {}"), 1007),
            (Message::binary("{}"), 1003),
            (Message::text(padded(4097)), 1009),
            (Message::text("x".repeat(128 << 10)), 1009),
        ] {
            let mut socket = connected(&ann).await;
            socket.send(first.clone()).await;
            socket.expect_close(code).await;
        }
        for (second, code) in [
            (Message::text("{}"), 1008),
            (Message::binary(""), 1003),
            (Message::text("x".repeat(5000)), 1009),
        ] {
            let (mut socket, _) = WebSocket::open(&ann, "{}").await;
            socket.send(Message::Ping("a".into())).await;
            assert_eq!(socket.next_message().await, Some(Message::Pong("a".into())));
            socket.send(second).await;
            socket.expect_close(code).await;
        }
        // Frames of one byte: a text that is not UTF-8, an unmasked one, one of an unknown type.
        for (frame, code) in [
            (&[0x81, 0x81, 0, 0, 0, 0, 0xff][..], 1007),
            (&[0x81, 0x01, b'x'], 1002),
            (&[0x83, 0x81, 0, 0, 0, 0, b'x'], 1002),
        ] {
            let mut socket = connected(&ann).await;
            socket.raw().write_all(frame).await.expect("an open connection");
            socket.expect_close(code).await;
        }
    }
}
