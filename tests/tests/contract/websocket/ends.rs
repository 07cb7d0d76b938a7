//! How a WebSocket ends, and that its place is given back.

use std::time::Duration;

use serde_json::{Value, json};
use todo_tests::{App, WebSocket, eventually, execute_sql, on_every_target};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::{changed, connected, path};
use crate::{text, tokens::expiring};

async fn open_sockets(app: &App) -> String {
    let text = app.anonymous().get("/metrics").await.text();
    let gauge = "change_streams{kind=\"websocket\"} ";
    text.lines().find_map(|line| line.strip_prefix(gauge)).expect("a gauge").to_owned()
}

on_every_target! {
    async fn it_ends_with_its_session_here_and_on_another_server(target) {
        let app = App::start(target).await;
        let replica = app.replica().await;
        let mut attempts = 0;
        loop {
            let ann = app.signed_up().await;
            let (mut here, _) = WebSocket::open(&ann, "{}").await;
            let (mut there, _) = WebSocket::open(&ann.at(&replica.anonymous()), "{}").await;
            // This one has not sent its first message.
            let mut silent = connected(&ann).await;
            ann.post("/api/auth/logout", Value::Null).await.expect(200);
            let began = Instant::now();
            here.expect_end("session_ended", 4401).await;
            let took_here = began.elapsed();
            there.expect_end("session_ended", 4401).await;
            let took_there = began.elapsed();
            silent.send(Message::text("{}")).await;
            silent.expect_end("session_ended", 4401).await;
            println!("{took_here:?} here, {took_there:?} there");
            if took_here < Duration::from_millis(50) && took_there < Duration::from_millis(1200) {
                break;
            }
            attempts += 1;
            assert!(attempts < 5, "{took_here:?} here, {took_there:?} there");
        }
    }

    async fn it_ends_when_its_token_expires_or_the_log_is_another(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let soon = chrono::Utc::now().timestamp() + 3;
        let (mut socket, start) = WebSocket::open(&expiring(&app, &ann, soon), "{}").await;
        socket.expect_end("expired", 4401).await;
        assert!(chrono::Utc::now().timestamp() >= soon);
        let (mut socket, _) = WebSocket::open(&ann, "{}").await;
        execute_sql(app.database_url(), "UPDATE meta SET value = 'another' WHERE name = 'epoch'").await;
        ann.todo("of another epoch").await;
        socket.expect_end("cursor_expired", 4410).await;
        let mut socket = connected(&ann).await;
        socket.send(Message::text(json!({"resume": start}).to_string())).await;
        socket.expect_end("cursor_expired", 4410).await;
    }

    async fn it_ends_when_the_server_stops(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let (mut socket, _) = WebSocket::open(&ann, "{}").await;
        let mut silent = connected(&ann).await;
        let began = Instant::now();
        let (stopped, ..) = tokio::join!(
            app.stop(),
            socket.expect_end("draining", 1001),
            silent.expect_end("draining", 1001),
        );
        stopped.expect("a clean stop");
        assert!(began.elapsed() < Duration::from_secs(4), "after {:?}", began.elapsed());
    }

    async fn a_user_has_five_and_each_place_is_given_back(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mut sockets = Vec::new();
        for _ in 0..4 {
            sockets.push(WebSocket::open(&ann, "{}").await.0);
        }
        // Its place is taken before its first message, and given back after an invalid one.
        let mut invalid = connected(&ann).await;
        assert_eq!(open_sockets(&app).await, "5");
        let handshake = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let sixth = ann.send("GET", &path(&ann), &handshake, "").await;
        assert_eq!(sixth.header("retry-after"), Some("5"));
        sixth.problem(429, "rate_limited");
        // The limit is for both kinds of streams.
        let events = format!("/api/users/{}/events", ann.id());
        ann.get(&events).await.problem(429, "rate_limited");
        invalid.send(Message::text("x")).await;
        invalid.expect_close(1007).await;
        sockets.pop().expect("a socket").close().await;
        drop(sockets.pop());
        let are_given_back = async || open_sockets(&app).await == "2";
        assert!(eventually(Duration::from_secs(20), are_given_back).await);
        let (mut socket, _) = WebSocket::open(&ann, "{}").await;
        let todo = ann.todo("for three").await;
        for socket in sockets.iter_mut().chain([&mut socket]) {
            assert_eq!(socket.next().await["data"], changed(&todo));
        }
        assert!(!text(&todo, "id").is_empty());
    }
}
