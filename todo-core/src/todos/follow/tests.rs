#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use futures_util::FutureExt;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::{
    Secret,
    auth::{self, Client, Signup},
    todos::{self, NewTodo, TodoPatch},
};

const SLACK: Duration = Duration::from_secs(20);

async fn signed_up() -> (Core, Caller) {
    let secret = Secret::new("at least thirty-two random bytes").unwrap();
    let core = Core::builder(secret).open("sqlite::memory:").await.unwrap();
    let form = Signup::parse("a@example.com", "Correct1horse", "Ann Other").unwrap();
    let session = auth::signup(&core, Client::Trusted, form).await.unwrap();
    let caller = auth::authenticate(&core, session.token.as_str()).await.unwrap();
    (core, caller)
}

async fn create(core: &Core, caller: &Caller, title: &str) -> todos::Todo {
    todos::create(core, caller, NewTodo::new(title.parse().unwrap())).await.unwrap()
}

async fn next(follower: &mut Follower) -> Batch {
    timeout(SLACK, follower.next()).await.unwrap()
}

async fn open(core: &Core, caller: &Caller, since: Option<ChangeCursor>) -> Follower {
    Follower::open(core, caller, since, StreamKind::Library).await.unwrap()
}

/// The titles of a batch of todos, and their numbers.
fn titles(batch: Batch) -> Vec<(i64, String)> {
    let Batch::Changes(events) = batch else { panic!("{batch:?}") };
    let title = |event: ChangeEvent| match event.change {
        Change::Todo { todo } => (event.cursor.number(), todo.title.to_string()),
        _ => panic!("{event:?}"),
    };
    events.into_iter().map(title).collect()
}

fn numbered(titles: &[(i64, &str)]) -> Vec<(i64, String)> {
    titles.iter().map(|(number, title)| (*number, (*title).to_owned())).collect()
}

#[tokio::test]
async fn changes_since_the_last_batch_are_in_one_and_a_todo_once() {
    let (core, ann) = signed_up().await;
    let first = create(&core, &ann, "one").await;
    let mut follower = open(&core, &ann, None).await;
    create(&core, &ann, "two").await;
    let patch = TodoPatch { title: Some("changed".parse().unwrap()), ..TodoPatch::default() };
    todos::patch(&core, &ann, first.id, patch).await.unwrap();
    assert_eq!(titles(next(&mut follower).await), numbered(&[(2, "two"), (3, "changed")]));
    create(&core, &ann, "three").await;
    assert_eq!(titles(next(&mut follower).await), numbered(&[(4, "three")]));
    let start = follower.start().clone();
    let again = titles(next(&mut open(&core, &ann, Some(start)).await).await);
    assert_eq!(again, numbered(&[(2, "two"), (3, "changed"), (4, "three")]));
}

#[tokio::test]
async fn a_long_replay_is_read_page_by_page() {
    let (core, ann) = signed_up().await;
    let start = open(&core, &ann, None).await.start().clone();
    let count = 2 * i64::from(PAGE.entries) + 1;
    for number in 0..count {
        create(&core, &ann, &number.to_string()).await;
    }
    let mut follower = open(&core, &ann, Some(start)).await;
    let mut seen = Vec::new();
    for entries in [100, 100, 1] {
        let page = titles(next(&mut follower).await);
        assert_eq!(page.len(), entries);
        seen.extend(page.into_iter().map(|(number, _)| number));
    }
    assert_eq!(seen, (1..=count).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_dropped_wait_loses_no_change() {
    let (core, ann) = signed_up().await;
    let mut follower = open(&core, &ann, None).await;
    for number in 1..=50 {
        let title = number.to_string();
        let (_, found) = tokio::join!(create(&core, &ann, &title), async {
            let mut batch = timeout(Duration::ZERO, follower.next()).await;
            while batch.is_err() {
                // Dropped at any point of the wait and of the read.
                batch = timeout(Duration::from_micros(50), follower.next()).await;
            }
            batch.unwrap()
        });
        assert_eq!(titles(found), vec![(number, title)]);
    }
}

#[tokio::test]
async fn a_dropped_read_is_repeated() {
    let (core, ann) = signed_up().await;
    let mut follower = open(&core, &ann, None).await;
    for number in 1.. {
        create(&core, &ann, "one").await;
        // It takes the wake-up, and waits for the thread of the database.
        if follower.next().now_or_never().is_none() {
            assert!(follower.is_behind, "not only until the next poll");
            assert_eq!(titles(next(&mut follower).await), numbered(&[(number, "one")]));
            break;
        }
    }
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline_with_the_reason() {
    let (core, ann) = signed_up().await;
    let trusted = Caller::trusted(ann.user_id());
    for caller in [&ann, &trusted] {
        let mut follower = open(&core, caller, None).await;
        let age = follower.deadline.duration_since(Instant::now());
        let spread = Duration::from_millis(AGE_SPREAD_MILLIS);
        assert!(age <= MIN_AGE + spread && age + SLACK > MIN_AGE, "{age:?}");
        assert_eq!(follower.ends_as, EndReason::MaxAge);
        follower.deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(next(&mut follower).await, Batch::End(EndReason::MaxAge));
    }
    let expires_at = core.now().timestamp() + 2;
    let expiring = Caller::of_session(ann.user_id(), ann.session().unwrap(), expires_at);
    let mut follower = open(&core, &expiring, None).await;
    assert_eq!(next(&mut follower).await, Batch::End(EndReason::Expired));
    assert!(core.now().timestamp() >= expires_at);
    // A follower that always has a change to deliver ends too.
    follower.is_behind = true;
    assert_eq!(next(&mut follower).await, Batch::End(EndReason::Expired));
}

#[tokio::test]
async fn the_public_stream_ends_after_its_last_item() {
    let (core, ann) = signed_up().await;
    let mut events = follow(&core, &ann, None).await.unwrap();
    let todo = create(&core, &ann, "one").await;
    let item = timeout(SLACK, events.next()).await.unwrap().unwrap();
    let StreamItem::Change(event) = item else { panic!("{item:?}") };
    assert_eq!(event.change, Change::Todo { todo: Box::new(todo) });
    assert_eq!((events.start().number(), event.cursor.number()), (0, 1));
    auth::log_out(&core, ann, None).await.unwrap();
    let rest: Vec<_> = timeout(SLACK, events.collect()).await.unwrap();
    assert_eq!(rest, [StreamItem::End(EndReason::SessionEnded)]);
    let nobody = Caller::trusted(Uuid::nil().into());
    for gone in [ann, nobody] {
        assert!(matches!(follow(&core, &gone, None).await, Err(Error::Unauthenticated)));
    }
}

#[tokio::test]
async fn a_stream_ends_when_the_database_is_gone_for_five_seconds() {
    let (core, ann) = signed_up().await;
    let mut follower = open(&core, &ann, None).await;
    core.db().close().await;
    tokio::time::pause();
    let began = Instant::now();
    // The reads fail too, not only the polls.
    follower.is_behind = true;
    assert_eq!(next(&mut follower).await, Batch::End(EndReason::Unavailable));
    let took = began.elapsed();
    assert!(took + Duration::from_secs(1) >= MAX_OUTAGE, "{took:?}");
    drop(follower);
    tokio::time::resume();
    let (core, ann) = signed_up().await;
    let mut follower = open(&core, &ann, None).await;
    core.close().await;
    assert_eq!(next(&mut follower).await, Batch::End(EndReason::Draining));
}
