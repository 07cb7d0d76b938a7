use super::{semaphores::MAX_WAITING, *};

#[test]
fn ipv6_clients_are_networks_and_mapped_ones_are_ipv4() {
    let key = |text: &str| Client::of(text.parse().unwrap()).key;
    assert_eq!(key("192.0.2.7"), "192.0.2.7");
    assert_eq!(key("::ffff:192.0.2.7"), "192.0.2.7");
    assert_eq!(key("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
    assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::"));
    assert_ne!(key("2001:db8:1:3::1"), key("2001:db8:1:2::1"));
    let prefixes = |text: &str| Client::of(text.parse().unwrap()).prefixes;
    let wider = ["2001:db8:1:ab00::/56", "2001:db8:1::/48"].map(str::to_owned);
    assert_eq!(prefixes("2001:db8:1:abcd:3:4:5:6"), Some(wider));
    assert_eq!(prefixes("192.0.2.7"), None);
    assert_eq!(prefixes("::ffff:192.0.2.7"), None);
}

#[tokio::test]
async fn semaphores_exist_only_for_running_clients() {
    let semaphores = Arc::new(ClientSemaphores::default());
    let one = semaphores.acquire(Action::Login, "a", 2).await.unwrap();
    let two = semaphores.acquire(Action::Login, "a", 2).await.unwrap();
    let waiting = tokio::spawn({
        let semaphores = Arc::clone(&semaphores);
        async move { semaphores.acquire(Action::Login, "a", 2).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "the third waits");
    let gone = tokio::spawn({
        let semaphores = Arc::clone(&semaphores);
        async move { semaphores.acquire(Action::Login, "a", 2).await.map(drop) }
    });
    tokio::task::yield_now().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    drop(one);
    waiting.await.unwrap().unwrap();
    drop(two);
    assert!(semaphores.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn attempts_of_one_client_are_bounded() {
    let semaphores = Arc::new(ClientSemaphores::default());
    let acquire = |semaphores: Arc<ClientSemaphores>| async move {
        semaphores.acquire(Action::Login, "a", 1).await
    };
    let inside = acquire(Arc::clone(&semaphores)).await.unwrap();
    let waiting: Vec<_> =
        (0..2 * MAX_WAITING).map(|_| tokio::spawn(acquire(Arc::clone(&semaphores)))).collect();
    let mut rejected = 0;
    drop(inside);
    for attempt in waiting {
        rejected += usize::from(attempt.await.unwrap().is_err());
    }
    assert!(rejected >= MAX_WAITING, "{rejected}");
    assert!(semaphores.0.lock().unwrap().is_empty());
}
