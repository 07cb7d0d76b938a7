use std::sync::mpsc;

use super::*;

const ALL: usize = 128;

fn network(n: u32) -> Network {
    Network::V4(n)
}

/// Waits in the queue, and sends `name` once it has the permit.
fn wait(slot: QueueSlot, name: &'static str, done: &mpsc::Sender<&'static str>) {
    let done = done.clone();
    tokio::spawn(async move {
        if let Ok(permit) = slot.acquire().await {
            let _ = done.send(name);
            drop(permit);
        }
    });
}

async fn settle() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

/// A queue with one core, which is busy.
async fn busy() -> (HashQueue, RunPermit) {
    let queue = HashQueue::new(1);
    let permit = queue.reserve(Network::None, None, ALL).unwrap().acquire().await.unwrap();
    (queue, permit)
}

#[test]
fn a_network_is_a_24_or_a_48() {
    let of = |text: &str| Network::of(Some(text.parse().unwrap()));
    assert_eq!(of("192.0.2.1"), of("192.0.2.200"));
    assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.9"));
    assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
    assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:ffff::9"));
    assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
}

#[tokio::test]
async fn networks_alternate_however_many_of_each_wait() {
    let (queue, running) = busy().await;
    let (done, order) = mpsc::channel();
    for _ in 0..10 {
        wait(queue.reserve(network(1), None, ALL).unwrap(), "many", &done);
    }
    settle().await;
    wait(queue.reserve(network(2), None, ALL).unwrap(), "one", &done);
    wait(queue.reserve(network(3), None, ALL).unwrap(), "other", &done);
    settle().await;
    drop(running);
    settle().await;
    let order: Vec<_> = order.try_iter().collect();
    assert_eq!(order.len(), 12);
    assert_eq!(order[..4], ["many", "one", "other", "many"], "{order:?}");
}

#[tokio::test]
async fn a_full_queue_makes_room_for_a_network_with_fewer_slots() {
    let (queue, _running) = busy().await;
    let many: Vec<_> = (1..4).map(|_| queue.reserve(network(1), None, 4).unwrap()).collect();
    assert_eq!(queue.len(), 4);
    assert!(matches!(queue.reserve(network(1), None, 4), Err(Error::Busy)));
    let one = queue.reserve(network(2), None, 4).unwrap();
    assert_eq!(queue.len(), 4, "it took the last slot of the other network");
    // Both precede the last slot of the first network.
    let two = queue.reserve(network(3), None, 4).unwrap();
    assert!(
        matches!(queue.reserve(network(4), None, 4), Err(Error::Busy)),
        "each network has one slot left"
    );
    let mut lost = 0;
    for slot in many {
        let waits = tokio::time::timeout(Duration::from_millis(10), slot.acquire()).await;
        lost += usize::from(matches!(waits, Ok(Err(Error::Busy))));
    }
    assert_eq!(lost, 2);
    drop((one, two));
    assert_eq!(queue.len(), 1);
}

#[tokio::test]
async fn a_network_without_failures_gets_most_permits_and_a_slot() {
    let (queue, running) = busy().await;
    let (done, order) = mpsc::channel();
    for n in 0..8 {
        queue.failed(network(n), "a@b.co");
        wait(queue.reserve(network(n), None, ALL).unwrap(), "failed", &done);
    }
    settle().await;
    for n in 100..108 {
        wait(queue.reserve(network(n), None, ALL).unwrap(), "clean", &done);
    }
    settle().await;
    let full = queue.len();
    let late = queue.reserve(network(200), None, full).unwrap();
    assert_eq!(queue.len(), full, "a network with failures lost its slot to it");
    drop(late);
    drop(running);
    settle().await;
    let order: Vec<_> = order.try_iter().collect();
    assert_eq!(order[..4], ["clean", "clean", "clean", "failed"], "{order:?}");
    assert_eq!(order.len(), 15);
}

#[tokio::test(start_paused = true)]
async fn hashes_of_an_account_with_many_failures_run_one_at_a_time() {
    let queue = HashQueue::new(4);
    let email = "ada@example.com";
    let at_once = async |queue: &HashQueue| {
        let mut permits = Vec::new();
        for n in 0..4 {
            let slot = queue.reserve(network(n), Some(email), ALL).unwrap();
            let permit = tokio::time::timeout(Duration::from_millis(1), slot.acquire()).await;
            permits.extend(permit.ok());
        }
        permits.len()
    };
    for _ in 0..MAX_ACCOUNT_FAILURES {
        queue.failed(network(9), email);
    }
    assert_eq!(at_once(&queue).await, 4);
    queue.failed(network(9), email);
    assert_eq!(at_once(&queue).await, 1);
    // Other accounts do not wait, and the failures expire after one to two minutes.
    let permit = queue.reserve(network(1), Some(email), ALL).unwrap().acquire().await.unwrap();
    queue.reserve(network(1), Some("other@b.co"), ALL).unwrap().acquire().await.unwrap();
    drop(permit);
    tokio::time::advance(2 * FAILURE_WINDOW).await;
    assert_eq!(at_once(&queue).await, 4);
}

/// The owner, in another network, is next when the running hash ends.
#[tokio::test]
async fn the_owner_of_an_account_under_attack_is_next() {
    let (queue, running) = busy().await;
    let (done, order) = mpsc::channel();
    let email = "ada@example.com";
    for n in 0..30 {
        queue.failed(network(n), email);
        wait(queue.reserve(network(n), Some(email), ALL).unwrap(), "attacker", &done);
    }
    settle().await;
    wait(queue.reserve(network(100), Some(email), ALL).unwrap(), "owner", &done);
    settle().await;
    drop(running);
    settle().await;
    assert_eq!(order.try_iter().next(), Some("owner"));
}

#[tokio::test]
async fn a_cancelled_wait_leaves_no_entry() {
    let (queue, running) = busy().await;
    let slot = queue.reserve(network(1), Some("a@b.co"), ALL).unwrap();
    let waiting = tokio::spawn(slot.acquire());
    settle().await;
    waiting.abort();
    assert!(waiting.await.is_err());
    assert_eq!(queue.len(), 1);
    drop(running);
    assert_eq!(queue.len(), 0);
    assert!(queue.state().running_accounts.is_empty());
}

#[test]
fn recorded_failures_are_bounded() {
    let mut failures = Failures::default();
    let now = Instant::now();
    for n in 0..2 * u32::try_from(MAX_TRACKED).unwrap() {
        failures.record(network(n), n.into(), now);
    }
    assert_eq!((failures.networks.len(), failures.accounts.len()), (MAX_TRACKED, MAX_TRACKED));
    failures.record(network(u32::MAX), u64::MAX, now + 2 * FAILURE_WINDOW);
    assert_eq!((failures.networks.len(), failures.accounts.len()), (1, 1));
}
