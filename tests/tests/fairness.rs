//! What one user's load does to the others, and what a user's own abandoned requests do to the rest
//! of theirs. Who sends many requests waits for them; nobody else does.
//!
//! Times are compared within a run: with those of the user whose load it is, or with those of a
//! calm turn a moment before.

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
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep},
};

use todo_tests::{Actor, App, at_once, on_every_cell};

/// Connections of the one user.
const CONNECTIONS: usize = 64;
const TURN: Duration = Duration::from_secs(3);
/// A median below this is good, whatever it is compared with: a request's time in a debug build on
/// a machine that does other work too.
const FLOOR: Duration = Duration::from_millis(10);

/// One trial at a time: they compare times.
static ALONE: Mutex<()> = Mutex::const_new(());

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().expect("at least one answer")
}

/// How long `actor`'s reads of one todo take until `over`.
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

/// How long each of `actor`'s requests takes, of many connections that ask until `over`.
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

/// A socket that sends a whole request again and again, leaves 0 to `longest` later, and pauses.
async fn leave(
    addr: SocketAddr,
    request: String,
    [longest, pause]: [Duration; 2],
    over: Arc<AtomicBool>,
) -> usize {
    let (mut left, mut random) = (0, 0x9e37_79b9_7f4a_7c15_u64);
    while !over.load(Ordering::Relaxed) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if let Ok(mut stream) = TcpStream::connect(addr).await {
            let _ = stream.set_nodelay(true);
            if stream.write_all(request.as_bytes()).await.is_ok() {
                sleep(longest.mul_f64((random >> 33) as f64 / f64::from(1_u32 << 31))).await;
                left += 1;
            }
        }
        sleep(pause).await;
    }
    left
}

fn request(addr: SocketAddr, actor: &Actor, method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        actor.token(),
        body.len(),
    )
}

/// Ends what looks at it after a while.
async fn after(turn: Duration, over: &AtomicBool) {
    sleep(turn).await;
    over.store(true, Ordering::Relaxed);
}

on_every_cell! {
    /// Without shares, the other user waits in the same line: as long as the one user does.
    #[ignore = "slow: run by .ci/run"]
    async fn one_users_load_is_not_felt_by_another(cell) {
        let _alone = ALONE.lock().await;
        let app = App::start(cell).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let todo = bob.todo("Buy milk").await;
        let path = format!("{}/{}", bob.todos(), todo["id"].as_str().expect("an id"));
        for work in [Work::Create, Work::List] {
            let over = Arc::new(AtomicBool::new(false));
            let bobs = tokio::spawn(reads(bob.clone(), path.clone(), over.clone()));
            let (anns, ()) = tokio::join!(load(&ann, work, &over), after(TURN, &over));
            let (bobs, anns) = (median(bobs.await.expect("all answers")), median(anns));
            println!("{cell:?}: {work:?}: another user's read {bobs:?}, own requests {anns:?}");
            // On SQLite reads wait for no write, but for the cores that a build for tests keeps busy.
            assert!(bobs < FLOOR.max(anns * 3 / 4), "{cell:?}: {work:?}: {bobs:?}, own {anns:?}");
        }
        app.stop().await.expect("a clean stop");
    }

    /// Without turns that end with their client, what was left is worked off first.
    #[ignore = "slow: run by .ci/run"]
    async fn requests_that_were_left_hold_up_nobody(cell) {
        let _alone = ALONE.lock().await;
        let app = App::start(cell).await;
        let ann = Actor::with_a_large_list(&app.anonymous()).await;
        let bob = app.signed_up().await;
        let todo = bob.todo("Buy milk").await;
        let path = format!("{}/{}", bob.todos(), todo["id"].as_str().expect("an id"));
        let list = request(app.addr(), &ann, "GET", &ann.todos(), "");
        let (times, over) = ([20, 5].map(Duration::from_millis), Arc::new(AtomicBool::new(false)));
        let leaving: JoinSet<usize> = (0..50)
            .map(|_| leave(app.addr(), list.clone(), times, over.clone()))
            .collect();
        let bobs = tokio::spawn(reads(bob.clone(), path, over.clone()));
        after(TURN, &over).await;
        let left: usize = leaving.join_all().await.into_iter().sum();
        let bobs = bobs.await.expect("all answers");
        let (answers, bobs) = (bobs.len(), median(bobs));
        println!("{cell:?}: {answers} reads of another user, {bobs:?} each, beside {left} lists");
        assert!(left > 500, "{cell:?}: too few to tell: {left}");
        assert!(bobs < 5 * FLOOR, "{cell:?}: {bobs:?}");
        app.stop().await.expect("a clean stop");
    }

    /// Of the same user: those who wait for their answers get on with much of their work, though
    /// the others' connections cost the machine something as well.
    #[ignore = "slow: run by .ci/run"]
    async fn writes_that_were_left_cost_their_own_user_little(cell) {
        const WRITERS: usize = 16;
        let _alone = ALONE.lock().await;
        let app = App::start(cell).await;
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
        let times = [5, 0].map(Duration::from_millis);
        let (mut calm, mut stormy, mut left) = (0, 0, 0);
        for _ in 0..3 {
            let before = written.load(Ordering::Relaxed);
            sleep(TURN / 2).await;
            let between = written.load(Ordering::Relaxed);
            let calms = Arc::new(AtomicBool::new(false));
            let leaving: JoinSet<usize> = (0..6)
                .map(|_| leave(app.addr(), create.clone(), times, calms.clone()))
                .collect();
            after(TURN / 2, &calms).await;
            calm += between - before;
            stormy += written.load(Ordering::Relaxed) - between;
            left += leaving.join_all().await.into_iter().sum::<usize>();
        }
        over.store(true, Ordering::Relaxed);
        writing.join_all().await;
        println!("{cell:?}: {calm} writes in calm turns, {stormy} beside {left} that were left");
        assert!(left > 300, "{cell:?}: too few to tell: {left}");
        assert!(5 * stormy > 2 * calm, "{cell:?}: {stormy} of {calm}");
        app.stop().await.expect("a clean stop");
    }
}
