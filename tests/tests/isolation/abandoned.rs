//! Requests whose clients disconnect while another transaction holds their user's row on
//! PostgreSQL: those without a permit of their caller never reach the database, and other users do
//! not wait for those with one.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use sqlx::{Connection, PgConnection};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use todo_tests::{Actor, App, Database, Server, Target, at_once};

use crate::ALONE;

/// Abandoned requests: more than twice the connections of the pool.
const ABANDONED: usize = 48;
/// A quarter of the 20 connections of the pool: the permits of one caller.
const PERMITS: i64 = 5;

/// Sends the whole request of a creation, and disconnects while it waits.
async fn abandon(addr: SocketAddr, actor: Actor) {
    let body = json!({ "title": "never mind" }).to_string();
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        actor.todos(),
        addr,
        actor.token(),
        body.len()
    );
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("the request");
    sleep(Duration::from_millis(300)).await;
}

async fn abandoned_requests_do_not_reach_the_database(server: Server) {
    let _alone = ALONE.lock().await;
    let target = Target { server, database: Database::Postgres };
    let app = App::start_with(target, &[("DATABASE_POOL_MAX", "20")]).await;
    let (ann, bob) = (app.signed_up().await, app.signed_up().await);
    let kept = bob.todo("kept").await;

    let mut other = PgConnection::connect(app.database_url()).await.expect("a connection");
    let mut holding = other.begin().await.expect("a transaction");
    sqlx::query("SELECT 1 FROM todo_counts WHERE user_id = CAST($1 AS uuid) FOR UPDATE")
        .bind(ann.id())
        .execute(&mut *holding)
        .await
        .expect("the lock");
    let addr = app.addr();
    at_once(ABANDONED, |_| abandon(addr, ann.clone())).await;

    // The permits that the abandoned requests hold leave connections to others.
    let began = Instant::now();
    bob.get(&format!("{}/{}", bob.todos(), kept["id"].as_str().expect("an id"))).await.expect(200);
    bob.todo("another").await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

    holding.rollback().await.expect("the lock's end");
    let count = "SELECT pending FROM todo_counts WHERE user_id = CAST($1 AS uuid)";
    let mut counted = -1;
    let settled = async {
        loop {
            let (now,): (i64,) =
                sqlx::query_as(count).bind(ann.id()).fetch_one(&mut other).await.expect("rows");
            if now == counted {
                return;
            }
            counted = now;
            sleep(Duration::from_millis(300)).await;
        }
    };
    timeout(Duration::from_secs(20), settled).await.expect("the writes end");
    assert!((1..=PERMITS).contains(&counted), "{counted} of {ABANDONED} reached the database");
    app.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abandoned_requests_do_not_reach_the_database_by_todo_server() {
    abandoned_requests_do_not_reach_the_database(Server::Salvo).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abandoned_requests_do_not_reach_the_database_by_todo_hyper_min() {
    abandoned_requests_do_not_reach_the_database(Server::Hyper).await;
}
