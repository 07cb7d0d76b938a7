#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use futures_util::FutureExt;
use tokio::time::{pause, timeout};

use super::*;
use crate::{
    Core, Secret,
    auth::{self, Client, Signup},
    core::CoreBuilder,
    error::BoxError,
};

async fn core(build: impl FnOnce(CoreBuilder) -> CoreBuilder) -> Core {
    let secret = Secret::new("at least thirty-two random bytes").unwrap();
    build(Core::builder(secret)).open("sqlite::memory:").await.unwrap()
}

fn trusted(user: u128) -> Caller {
    Caller::trusted(Uuid::from_u128(user).into())
}

async fn signed_up(core: &Core, email: &str) -> Caller {
    let form = Signup::parse(email, "Correct1horse", "Ann Other").unwrap();
    let session = auth::signup(core, Client::Trusted, form).await.unwrap();
    auth::authenticate(core, session.token.as_str()).await.unwrap()
}

#[tokio::test]
async fn a_user_and_the_process_have_limits_and_a_dropped_slot_is_free() {
    let core = core(|core| core.max_streams(2)).await;
    let streams = core.streams();
    let open = |user| streams.open(&trusted(user), StreamKind::Library);
    let first = open(1).unwrap();
    let second = open(1).unwrap();
    assert!(matches!(open(1), Err(Error::TooManyStreams { limit: 2 })));
    let other = open(2).unwrap();
    drop(first);
    let third = open(1).unwrap();
    assert_eq!(streams.0.open.load(Ordering::SeqCst), 3);
    drop((second, other, third));
    assert!(streams.registry().by_user.is_empty());
    let mut all: Vec<_> = (0..MAX_STREAMS as u128).map(|user| open(user).unwrap()).collect();
    assert!(matches!(open(9999), Err(Error::Busy)));
    all.pop();
    drop(open(9999).unwrap());
    assert!(streams.until_all_closed().now_or_never().is_none());
    drop(all);
    streams.until_all_closed().await;
    assert_eq!(streams.counts(), [0; 3]);
}

#[tokio::test]
async fn zero_is_no_limit_for_a_user() {
    let core = core(|core| core.max_streams(0)).await;
    let open = || core.streams().open(&trusted(1), StreamKind::WebSocket);
    let all: Vec<_> = (0..100).map(|_| open().unwrap()).collect();
    assert_eq!(core.streams().counts(), [0, 0, 100]);
    drop(all);
}

#[tokio::test]
async fn a_write_wakes_its_users_streams_however_it_ends() {
    let core = core(|core| core).await;
    let ann = trusted(1);
    let bob = trusted(2);
    let anns = core.streams().open(&ann, StreamKind::Library).unwrap();
    let bobs = core.streams().open(&bob, StreamKind::Library).unwrap();
    let write = |outcome: Result<()>| core.write(ann.user_id(), async move { outcome });
    write(Ok(())).await.unwrap();
    // A wake-up is kept.
    anns.woken().now_or_never().expect("woken");
    assert!(anns.woken().now_or_never().is_none());
    // Whether such a write was committed is not known.
    let lost = Err(Error::Unavailable(BoxError::new("the connection was lost")));
    write(lost).await.unwrap_err();
    anns.woken().now_or_never().expect("woken");
    core.read(ann.user_id(), async { Ok(()) }).await.unwrap();
    assert!(anns.woken().now_or_never().is_none() && bobs.woken().now_or_never().is_none());
}

#[tokio::test]
async fn the_end_of_a_session_ends_its_streams_alone() {
    let core = core(|core| core).await;
    let ann = signed_up(&core, "a@example.com").await;
    let bob = signed_up(&core, "b@example.com").await;
    let open = |caller| core.streams().open(caller, StreamKind::Library).unwrap();
    let same_user = Caller::trusted(ann.user_id());
    let anns = open(&ann);
    let others = open(&bob);
    let trusted = open(&same_user);
    auth::log_out(&core, ann, None).await.unwrap();
    assert_eq!(anns.end_reason(), Some(EndReason::SessionEnded));
    anns.woken().now_or_never().expect("woken");
    assert_eq!((others.end_reason(), trusted.end_reason()), (None, None));
    core.streams().end_all(EndReason::Draining);
    assert_eq!(anns.end_reason(), Some(EndReason::SessionEnded), "the first reason");
    assert_eq!(others.end_reason(), Some(EndReason::Draining));
}

#[tokio::test]
async fn without_a_poll_for_five_seconds_streams_end() {
    let core = core(|core| core).await;
    let ann = signed_up(&core, "a@example.com").await;
    let slot = core.streams().open(&ann, StreamKind::Library).unwrap();
    core.db().close().await;
    pause();
    let began = Instant::now();
    while slot.end_reason().is_none() {
        timeout(10 * MAX_OUTAGE, slot.woken()).await.unwrap();
    }
    assert_eq!(slot.end_reason(), Some(EndReason::Unavailable));
    let took = began.elapsed();
    assert!(took + POLL_INTERVAL >= MAX_OUTAGE && took <= MAX_OUTAGE + POLL_INTERVAL, "{took:?}");
}

#[tokio::test]
async fn polling_lasts_as_long_as_there_are_streams() {
    let core = core(|core| core).await;
    let streams = core.streams();
    for _ in 0..2 {
        assert!(!streams.registry().is_polling);
        let slot = streams.open(&trusted(1), StreamKind::Library).unwrap();
        assert!(streams.registry().is_polling);
        drop(slot);
        let ends = async {
            while streams.registry().is_polling {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), ends).await.unwrap();
    }
}

#[test]
fn polling_begins_again_in_another_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let core = first.block_on(core(|core| core));
    let slot = first.block_on(async { core.streams().open(&trusted(1), StreamKind::Library) });
    drop(first);
    assert!(!core.streams().registry().is_polling);
    runtime().block_on(async {
        let second = core.streams().open(&trusted(1), StreamKind::Library).unwrap();
        assert!(core.streams().registry().is_polling);
        drop(second);
    });
    drop(slot);
}

#[test]
fn jitter_is_spread_up_to_its_maximum() {
    let numbers: HashSet<u64> = (0..1000).map(|_| jitter(9)).collect();
    assert_eq!(numbers, (0..=9).collect());
}
