//! Creations with an idempotency key whose connections are cut between request and answer: repeated
//! until they are answered, there is one todo for each, and every further answer is equal.

use std::time::Duration;

use serde_json::json;
use todo_tests::{Actor, App, TestResponse, at_once, on_every_target};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::sleep};

/// Clients at once, and creations of each.
const CLIENTS: usize = 10;
const CREATIONS: usize = 50;

/// Sends a whole creation, and disconnects 0 to 20 ms later, with or without a reset.
async fn cut(actor: &Actor, key: &str, body: &str, random: u64) {
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Idempotency-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        actor.todos(),
        actor.token(),
        body.len()
    );
    let mut stream = TcpStream::connect(actor.addr()).await.expect("a connection");
    stream.set_nodelay(true).expect("an option");
    stream.write_all(request.as_bytes()).await.expect("the request");
    sleep(Duration::from_micros(random % 20_000)).await;
    if random.is_multiple_of(2) {
        stream.set_zero_linger().expect("an option");
    }
}

async fn create(actor: &Actor, key: &str, body: &str) -> TestResponse {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    actor.send("POST", &actor.todos(), &headers, body).await
}

/// Cuts, then repeats, creations. Returns how many had taken effect when they were cut.
async fn create_with_cuts(actor: Actor, number: usize) -> usize {
    let (mut random, mut replayed) = (number as u64 + 1, 0);
    for index in 0..CREATIONS {
        let key = format!("{number}-{index}");
        let body = json!({ "title": key }).to_string();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        cut(&actor, &key, &body, random >> 33).await;
        let answer = create(&actor, &key, &body).await;
        assert_eq!(answer.status, 201, "{answer}");
        let again = create(&actor, &key, &body).await;
        let is_equal = |name: &str| answer.headers.get(name) == again.headers.get(name);
        assert!(again.status == 201 && again.body == answer.body, "{again} after {answer}");
        assert!(is_equal("location") && is_equal("etag"), "{again} after {answer}");
        assert_eq!(again.headers["idempotency-replayed"], "true");
        replayed += usize::from(answer.headers.contains_key("idempotency-replayed"));
    }
    replayed
}

on_every_target! {
    async fn five_hundred_cut_creations_are_made_once_each(target) {
        let app = App::start(target).await;
        let actor = app.signed_up().await;
        let replayed = at_once(CLIENTS, |i| create_with_cuts(actor.clone(), i)).await;
        let replayed: usize = replayed.iter().sum();
        let all = CLIENTS * CREATIONS;
        eprintln!("{replayed} of {all} had taken effect when they were cut");
        assert!((1..all).contains(&replayed), "{replayed} of {all}: cuts at one moment only");
        let list = actor.get(&format!("{}?limit=500", actor.todos())).await.expect(200);
        assert_eq!(list["total"], all);
        app.stop().await.expect("a clean stop");
    }
}
