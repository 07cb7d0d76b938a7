//! Thousands of open streams of changes: what they cost a server's memory, and other requests.

use std::time::Duration;

use todo_tests::{
    Actor, Client, EventStream, PROGRAMS, Process, WebSocket, at_once, empty_dir, eventually,
};
use tokio::time::Instant;

/// Maximum number of streams of a server, half of which are WebSockets here.
const STREAMS: usize = 2000;
const USERS: usize = 20;
/// Maximum memory of a stream with its connection, in bytes.
const STREAM_BYTES: u64 = 40 << 10;
/// Maximum of the p99 of a request among the streams, as a multiple of that without.
const MAX_SLOWDOWN: u32 = 3;

/// The p99 of reads of one todo.
async fn p99(actor: &Actor, path: &str) -> Duration {
    let mut took = Vec::new();
    for _ in 0..3000 {
        let began = Instant::now();
        actor.get(path).await.expect(200);
        took.push(began.elapsed());
    }
    took.sort();
    took[took.len() * 99 / 100]
}

async fn open_streams(client: &Client) -> i64 {
    let text = client.get("/metrics").await.text();
    let kinds = text.lines().filter(|line| line.starts_with("change_streams{"));
    let value = |line: &str| line.rsplit_once(' ').expect("a value").1.parse::<i64>();
    kinds.map(|line| value(line).expect("a number")).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run by .ci/run"]
async fn two_thousand_streams_cost_little_memory_and_no_time() {
    rlimit::increase_nofile_limit(16_384).expect("descriptors");
    for program in PROGRAMS {
        let dir = empty_dir();
        let settings = [("RATE_LIMIT_PER_MINUTE", "0"), ("MAX_STREAMS_PER_USER", "0")];
        let server = Process::start(program, dir.path(), &settings).await;
        let client = Client::of(server.addr);
        let mut users = Vec::new();
        for _ in 0..USERS {
            users.push(Actor::sign_up_to(&client).await);
        }
        let todo = users[0].todo("read").await;
        let path = format!("{}/{}", users[0].todos(), todo["id"].as_str().expect("an id"));
        p99(&users[0], &path).await;
        let idle = p99(&users[0], &path).await;
        let before = server.memory();

        let each = STREAMS / 2 / USERS;
        let opened = at_once(USERS, |user| {
            let user = users[user].clone();
            async move {
                let mut streams = Vec::new();
                for _ in 0..each {
                    let mut events = EventStream::open(&user, "", &[]).await;
                    events.next().await;
                    streams.push((events, WebSocket::open(&user, "{}").await.0));
                }
                (user, streams)
            }
        });
        let mut opened = opened.await;
        assert_eq!(open_streams(&client).await, i64::try_from(STREAMS).expect("small"));
        let more = client.bearing(users[0].token());
        let events = format!("/api/users/{}/events", users[0].id());
        more.get(&events).await.problem(503, "unavailable");
        // Some polls of all streams.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let stream = server.memory().saturating_sub(before) / STREAMS as u64;
        let mut among = p99(&users[0], &path).await;
        for _ in 0..4 {
            if among > MAX_SLOWDOWN * idle {
                among = p99(&users[0], &path).await;
            }
        }
        println!("{program}: {} KiB a stream, p99 {idle:?} without, {among:?} with", stream >> 10);
        assert!(stream <= STREAM_BYTES, "{program}: {stream} bytes a stream");
        assert!(among <= MAX_SLOWDOWN * idle, "{program}: p99 {idle:?} without, {among:?} with");

        // One user's change reaches all of that user's streams.
        let began = Instant::now();
        let todo = users[1].todo("for all").await;
        for (user, streams) in &mut opened {
            for (events, socket) in streams {
                if user.id() == todo["user_id"] {
                    assert_eq!(events.next().await.data.expect("data")["todo"], todo);
                    assert_eq!(socket.next().await["data"]["todo"], todo);
                }
            }
        }
        println!(
            "{program}: {} streams of a user have a change in {:?}",
            2 * each,
            began.elapsed()
        );
        drop(opened);
        let are_closed = async || open_streams(&client).await == 0;
        assert!(eventually(Duration::from_secs(60), are_closed).await, "{program}");
        server.stop().await;
    }
}
