//! The effect of one user's load on other users, and of a user's abandoned requests on the same
//! user's other requests. A user who sends many requests waits for them; other users do not.
//!
//! Times are compared within a run: with those of the loading user, or with those of a quiet round
//! just before.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};

use todo_tests::{Actor, App, at_once, on_every_target};

use crate::ALONE;

/// Connections of the loading user.
const CONNECTIONS: usize = 64;
const ROUND: Duration = Duration::from_secs(3);
/// A median below this always passes: the time of a request in a debug build on a busy machine.
const FLOOR: Duration = Duration::from_millis(10);

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().expect("at least one response")
}

/// The times of `actor`'s reads of one todo, until `over`.
async fn reads(actor: Actor, path: String, over: Arc<AtomicBool>) -> Vec<Duration> {
    let mut times = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        actor.get(&path).await.expect(200);
        times.push(began.elapsed());
        sleep(Duration::from_millis(5)).await;
    }
    times
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Create,
    List,
}

/// The times of `actor`'s requests on many connections, until `over`.
async fn load(actor: &Actor, work: Work, over: &Arc<AtomicBool>) -> Vec<Duration> {
    let times = at_once(CONNECTIONS, |i| {
        let (actor, over) = (actor.clone(), over.clone());
        async move {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                match work {
                    Work::Create => {
                        let todo = json!({ "title": format!("todo {i}") });
                        actor.post(&actor.todos(), todo).await.expect(201);
                    }
                    Work::List => {
                        actor.get(&format!("{}?limit=50", actor.todos())).await.expect(200);
                    }
                }
                times.push(began.elapsed());
            }
            times
        }
    })
    .await;
    times.concat()
}

/// Repeatedly sends a whole request, disconnects 0 to `longest` later, and pauses.
async fn abandon(
    addr: SocketAddr,
    request: String,
    [longest, pause]: [Duration; 2],
    over: Arc<AtomicBool>,
) -> usize {
    let (mut abandoned, mut random) = (0, 0x9e37_79b9_7f4a_7c15_u64);
    while !over.load(Ordering::Relaxed) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if let Ok(mut stream) = TcpStream::connect(addr).await {
            let _ = stream.set_nodelay(true);
            if stream.write_all(request.as_bytes()).await.is_ok() {
                sleep(longest.mul_f64((random >> 33) as f64 / f64::from(1_u32 << 31))).await;
                abandoned += 1;
            }
        }
        sleep(pause).await;
    }
    abandoned
}

fn request(addr: SocketAddr, actor: &Actor, method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        actor.token(),
        body.len(),
    )
}

/// Sets `over` after `time`.
async fn after(time: Duration, over: &AtomicBool) {
    sleep(time).await;
    over.store(true, Ordering::Relaxed);
}

on_every_target! {
    /// Without fair shares, the other user waits in the same queue, as long as the loading user.
    #[ignore = "slow: run by .ci/run"]
    async fn one_users_load_does_not_slow_another_user(target) {
        let _alone = ALONE.lock().await;
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let todo = bob.todo("Buy milk").await;
        let path = format!("{}/{}", bob.todos(), todo["id"].as_str().expect("an id"));
        for work in [Work::Create, Work::List] {
            let over = Arc::new(AtomicBool::new(false));
            let bobs = tokio::spawn(reads(bob.clone(), path.clone(), over.clone()));
            let (anns, ()) = tokio::join!(load(&ann, work, &over), after(ROUND, &over));
            let (bobs, anns) = (median(bobs.await.expect("all responses")), median(anns));
            println!("{target:?}: {work:?}: another user's read {bobs:?}, own requests {anns:?}");
            // SQLite reads do not wait for writes, but for cores, which a debug build keeps busy.
            assert!(bobs < FLOOR.max(anns * 3 / 4), "{target:?}: {work:?}: {bobs:?}, own {anns:?}");
        }
        app.stop().await.expect("a clean stop");
    }

    /// Abandoned requests must give up their slots, or other users wait for all of them.
    #[ignore = "slow: run by .ci/run"]
    async fn abandoned_requests_do_not_delay_other_users(target) {
        let _alone = ALONE.lock().await;
        let app = App::start(target).await;
        let ann = Actor::with_a_large_list(&app.anonymous()).await;
        let bob = app.signed_up().await;
        let todo = bob.todo("Buy milk").await;
        let path = format!("{}/{}", bob.todos(), todo["id"].as_str().expect("an id"));
        let list = request(app.addr(), &ann, "GET", &ann.todos(), "");
        let (times, over) = ([20, 5].map(Duration::from_millis), Arc::new(AtomicBool::new(false)));
        let abandoning: JoinSet<usize> = (0..50)
            .map(|_| abandon(app.addr(), list.clone(), times, over.clone()))
            .collect();
        let bobs = tokio::spawn(reads(bob.clone(), path, over.clone()));
        after(ROUND, &over).await;
        let abandoned: usize = abandoning.join_all().await.into_iter().sum();
        let bobs = bobs.await.expect("all responses");
        let (reads, bobs) = (bobs.len(), median(bobs));
        println!("{target:?}: {reads} reads of another user, {bobs:?} each; {abandoned} lists");
        assert!(abandoned > 500, "{target:?}: too few: {abandoned}");
        assert!(bobs < 5 * FLOOR, "{target:?}: {bobs:?}");
        app.stop().await.expect("a clean stop");
    }

    /// The same user's other writes keep most of their throughput. It is compared with that beside
    /// as many connections cut during requests that need no database: in a debug build, these
    /// alone cost a core that the clients of this test share.
    #[ignore = "slow: run by .ci/run"]
    async fn abandoned_writes_slow_their_own_user_little(target) {
        const WRITERS: usize = 16;
        let _alone = ALONE.lock().await;
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let body = json!({ "title": "never mind" }).to_string();
        let create = request(app.addr(), &ann, "POST", &ann.todos(), &body);
        let (over, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let writing: JoinSet<()> = (0..WRITERS)
            .map(|_| {
                let (ann, over, written) = (ann.clone(), over.clone(), written.clone());
                async move {
                    while !over.load(Ordering::Relaxed) {
                        ann.todo("Buy milk").await;
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
            .collect();
        let health = request(app.addr(), &ann, "GET", "/health", "");
        let times = [5, 0].map(Duration::from_millis);
        // The writes beside each kind of abandoned requests, and the number of these.
        let (mut beside, mut abandoned) = ([0, 0], [0, 0]);
        for _ in 0..3 {
            for (kind, request) in [&health, &create].into_iter().enumerate() {
                let before = written.load(Ordering::Relaxed);
                let ended = Arc::new(AtomicBool::new(false));
                let abandoning: JoinSet<usize> = (0..6)
                    .map(|_| abandon(app.addr(), request.clone(), times, ended.clone()))
                    .collect();
                after(ROUND / 2, &ended).await;
                beside[kind] += written.load(Ordering::Relaxed) - before;
                abandoned[kind] += abandoning.join_all().await.into_iter().sum::<usize>();
            }
        }
        over.store(true, Ordering::Relaxed);
        writing.join_all().await;
        let [calm, stormy] = beside;
        println!("{target:?}: {calm} and {stormy} writes beside {abandoned:?} abandoned requests");
        assert!(abandoned.iter().all(|count| *count > 300), "{target:?}: too few: {abandoned:?}");
        assert!(5 * stormy > 3 * calm, "{target:?}: {stormy} of {calm}");
        app.stop().await.expect("a clean stop");
    }
}
