//! A TCP forwarder that can drop bytes, as a network does after an address has moved.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Forwards connections to one address until it is dropped.
#[derive(Debug)]
pub struct Forwarder {
    addr: SocketAddr,
    /// Connections with a lower number are silent.
    silent_below: Arc<AtomicU64>,
    next: Arc<AtomicU64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Forwarder {
    /// Listens on 127.0.0.1 at a free port and forwards connections to `target`.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn to(target: SocketAddr) -> Forwarder {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let silent_below = Arc::<AtomicU64>::default();
        let next = Arc::<AtomicU64>::default();
        let (below, numbers) = (silent_below.clone(), next.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = numbers.fetch_add(1, Ordering::SeqCst);
                let below = below.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let there = pass(from_client, to_server, number, below.clone());
                    let back = pass(from_server, to_client, number, below);
                    // Both directions end before either side closes: a silenced connection sends
                    // no FIN.
                    let _halves = tokio::join!(there, back);
                });
            }
        });
        Forwarder { addr, silent_below, next, accepting }
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Drops every byte on the current connections and keeps them open. New connections are
    /// forwarded.
    pub fn silence(&self) {
        self.silent_below.store(self.next.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Forwards bytes in one direction and returns both halves at its end.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: u64,
    silent_below: Arc<AtomicU64>,
) -> (OwnedReadHalf, OwnedWriteHalf) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if number < silent_below.load(Ordering::SeqCst) {
            continue;
        }
        let Some(bytes) = buffer.get(..read) else { break };
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
    if number >= silent_below.load(Ordering::SeqCst) {
        let _ = to.shutdown().await;
    }
    (from, to)
}
