//! WebSockets on their connections: pings in silence, a client that does not answer, and the limit
//! of connections. The times of the servers are shortened, as those of [`crate::events`].

use std::time::Duration;

use todo_tests::{Client, Server, WebSocket, eventually};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;

use crate::events::{HEARTBEAT, LIMIT, SLACK, Site};

const SERVERS: [Server; 2] = [Server::Salvo, Server::Hyper];
const OPEN: &str = "change_streams{kind=\"websocket\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_pinged_and_kept() {
    for server in SERVERS {
        let site = Site::start(server).await;
        let (mut socket, _) = WebSocket::open(&site.ann, "{}").await;
        let began = Instant::now();
        let mut pings = 0;
        // Beyond the times of requests and of idle connections.
        while began.elapsed() < 3 * LIMIT {
            let message = socket.next_message().await;
            assert_eq!(message, Some(Message::Ping("".into())), "{server:?}");
            pings += 1;
        }
        let took = began.elapsed().as_secs_f64();
        assert!(f64::from(pings) <= took / HEARTBEAT.as_secs_f64() + 1.0, "{pings} in {took} s");
        // It answers pings meanwhile.
        let (todo, event) = tokio::join!(site.ann.todo("after a silence"), socket.next());
        assert_eq!(event["data"]["todo"], todo, "{server:?}");
        socket.close().await;
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_answers_no_ping_is_disconnected() {
    for server in SERVERS {
        let site = Site::start(server).await;
        let (silent, _) = WebSocket::open(&site.ann, "{}").await;
        let began = Instant::now();
        assert_eq!(site.metric(OPEN).await, Some(1.0));
        // A client that reads nothing answers nothing.
        let is_gone = async || site.metric(OPEN).await == Some(0.0);
        assert!(eventually(SLACK, is_gone).await, "{server:?}: it is not disconnected");
        assert!(began.elapsed() > 2 * HEARTBEAT, "{server:?}: after {:?}", began.elapsed());
        drop(silent);
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_a_first_message_is_disconnected_after_ten_seconds() {
    let silent = |server| async move {
        let site = Site::start(server).await;
        let bearer = format!("Bearer {}", site.ann.token());
        let path = format!("/api/users/{}/ws", site.ann.id());
        let headers = [("authorization", bearer.as_str())];
        let mut socket = WebSocket::connect(site.addr, &path, &headers).await;
        let began = Instant::now();
        socket.expect_close(1008).await;
        let took = began.elapsed();
        assert!(took > Duration::from_secs(9) && took < Duration::from_secs(20), "{took:?}");
        site.stop().await;
    };
    tokio::join!(silent(Server::Salvo), silent(Server::Hyper));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_counts_as_a_connection_until_it_is_closed() {
    for server in SERVERS {
        let site = Site::start_with(server, "2").await;
        let health = async || Client::of(site.addr).get("/api/auth/me").await.status;
        let (first, _) = WebSocket::open(&site.ann, "{}").await;
        let (second, _) = WebSocket::open(&site.ann, "{}").await;
        // The actor's own connection ends after its request.
        let is_full = async || health().await == 503;
        assert!(eventually(SLACK, is_full).await, "{server:?}: no limit");
        sleep(HEARTBEAT).await;
        assert_eq!(health().await, 503, "{server:?}");
        first.close().await;
        second.close().await;
        let has_room = async || health().await == 401;
        assert!(eventually(SLACK, has_room).await, "{server:?}: it counts on");
        site.stop().await;
    }
}
