use std::net::TcpStream;

use salvo::{conn::tcp::TcpAcceptor, fuse::TransProto};
use todo_core::{Core, Secret, http::ApiOptions};
use todo_runtime::Settings;

use super::*;

/// Opens a new connection for each accepted one: the backlog is never empty.
struct FloodedAcceptor(TcpAcceptor, SocketAddr, Vec<TcpStream>);

impl Acceptor for FloodedAcceptor {
    type Coupler = <TcpAcceptor as Acceptor>::Coupler;
    type Stream = <TcpAcceptor as Acceptor>::Stream;

    fn holdings(&self) -> &[Holding] {
        self.0.holdings()
    }

    async fn accept(
        &mut self,
        policy: Option<ArcFusePolicy>,
    ) -> io::Result<Accepted<Self::Coupler, Self::Stream>> {
        while self.2.len() < 64 {
            self.2.push(TcpStream::connect(self.1)?);
        }
        let accepted = self.0.accept(policy).await?;
        drop(self.2.pop());
        Ok(accepted)
    }
}

async fn api() -> Api {
    let secret = Secret::new("at least thirty-two random bytes").unwrap();
    let core = Core::builder(secret).open("sqlite::memory:").await.unwrap();
    Api::new(core, ApiOptions::default())
}

async fn shutdown_acceptor<A: Acceptor>(acceptor: A) -> (ShutdownAcceptor<A>, CloseHandle<A>) {
    ShutdownAcceptor::new(acceptor, api().await, tracker(), Duration::from_secs(75))
}

async fn listening() -> (TcpAcceptor, SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (TcpAcceptor::try_from(listener).unwrap(), address)
}

/// Registers an HTTP/2 connection with one request; returns its control and observer too.
fn with_request(tracker: &ConnectionTracker) -> (ActiveRequest, ConnCtrl, Option<ArcConnObserver>) {
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let info = FuseInfo {
        trans_proto: TransProto::Tcp,
        remote_addr: address.into(),
        local_addr: address.into(),
    };
    let control = ConnCtrl::new();
    let observer = tracker.observe(&info, &control);
    (tracker.note_request(address, true).unwrap(), control, observer)
}

fn tracker() -> ConnectionTracker {
    let settings = Settings::from_vars::<&str, &str>([]).unwrap();
    ConnectionTracker::new(Admission::new(&settings), FuseConfig::strict())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_its_response_steadily_stays_connected() {
    const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
    let tracker = tracker();
    let (active, control, observer) = with_request(&tracker);
    let ActiveRequest { last_activity, in_progress, .. } = active;
    // As after the last chunk of a response, which may still be in transit.
    drop(in_progress);
    let reaper = tokio::spawn(tracker.clone().reap_idle(IDLE_TIMEOUT));
    // As a body does for each accepted chunk.
    for _ in 0..20 {
        tokio::time::sleep(IDLE_TIMEOUT / 2).await;
        last_activity.touch();
    }
    assert!(!control.is_graceful_shutdown() && !control.is_aborted());
    tokio::time::sleep(IDLE_TIMEOUT + 2 * REAP_INTERVAL).await;
    assert!(control.is_graceful_shutdown());
    tokio::time::sleep(IDLE_TIMEOUT).await;
    assert!(control.is_aborted());
    drop(observer);
    reaper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_idle_only_after_its_last_response() {
    const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
    let tracker = tracker();
    let (active, control, observer) = with_request(&tracker);
    let reaper = tokio::spawn(tracker.clone().reap_idle(IDLE_TIMEOUT));
    tokio::time::sleep(10 * IDLE_TIMEOUT).await;
    assert!(!control.is_graceful_shutdown() && !control.is_aborted());
    drop(active);
    tokio::time::sleep(IDLE_TIMEOUT / 2).await;
    assert!(!control.is_graceful_shutdown() && !control.is_aborted());
    tokio::time::sleep(IDLE_TIMEOUT / 2 + 2 * REAP_INTERVAL).await;
    assert!(control.is_graceful_shutdown());
    tokio::time::sleep(IDLE_TIMEOUT).await;
    assert!(control.is_aborted());
    drop(observer);
    reaper.abort();
}

#[tokio::test]
async fn a_client_that_resets_its_requests_is_disconnected() {
    let tracker = tracker();
    let (_, control, _observer) = with_request(&tracker);
    let request = || tracker.note_request("127.0.0.1:1".parse().unwrap(), true).unwrap();
    // As many resets as responses.
    for _ in 0..10 * MAX_RESETS {
        request().mark_answered();
        drop(request());
    }
    assert!(!control.is_aborted());
    for _ in 0..=MAX_RESETS {
        drop(request());
    }
    assert!(control.is_aborted());
}

#[tokio::test]
async fn it_closes_while_connections_keep_arriving() {
    let (acceptor, address) = listening().await;
    let (mut acceptor, handle) =
        shutdown_acceptor(FloodedAcceptor(acceptor, address, Vec::new())).await;
    let (counted, mut count) = watch::channel(0);
    let serving = tokio::spawn(async move {
        loop {
            acceptor.accept(None).await.unwrap();
            counted.send_modify(|count| *count += 1);
            // Other tasks run, as between two connections of a server.
            tokio::task::yield_now().await;
        }
    });
    count.wait_for(|count| *count > 100).await.unwrap();
    // The deadlines of `close` are much shorter: a timeout means that it did not close.
    tokio::time::timeout(Duration::from_secs(10), handle.close()).await.unwrap();
    TcpStream::connect(address).unwrap_err();
    serving.abort();
}

#[tokio::test]
async fn it_closes_without_a_call_to_accept() {
    let (acceptor, address) = listening().await;
    let (acceptor, handle) = shutdown_acceptor(acceptor).await;
    TcpStream::connect(address).unwrap();
    handle.close().await;
    TcpStream::connect(address).unwrap_err();
    drop(acceptor);
}

#[tokio::test]
async fn waiting_connections_are_accepted_before_it_closes() {
    let (acceptor, address) = listening().await;
    let (mut acceptor, handle) = shutdown_acceptor(acceptor).await;
    let waiting: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let closing = tokio::spawn(handle.close());
    let mut accepted = 0;
    let accepting = async {
        loop {
            acceptor.accept(None).await.unwrap();
            accepted += 1;
        }
    };
    let _ = tokio::time::timeout(CLOSE_GRACE * 5, accepting).await;
    closing.await.unwrap();
    assert_eq!(accepted, waiting.len());
}
