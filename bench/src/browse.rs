//! Latency of a list of 100, requested as by browsers, axios and httpx: compressed, sequentially on
//! one connection, over HTTP/1.1 and over HTTP/2, which wrk does not support. A response delayed by
//! Nagle's algorithm and the client's delayed acknowledgement takes 40 ms.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Version, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use todo_bench::Failure;
use tokio::net::TcpStream;

use crate::{cases::Request, load::Sample};

/// Protocol and compression of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ClientMode {
    /// HTTP/1.1, uncompressed.
    Plain,
    /// HTTP/1.1, with `Accept-Encoding: gzip`.
    Compressed,
    /// HTTP/2, with `Accept-Encoding: gzip`.
    Http2,
}

impl ClientMode {
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Compressed, Self::Http2];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "HTTP/1.1",
            Self::Compressed => "HTTP/1.1, gzip",
            Self::Http2 => "HTTP/2, gzip",
        }
    }
}

enum Sender {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

/// Sends requests to the server at `port` for `seconds`.
pub(crate) async fn browse(
    port: u16,
    request: &Request,
    mode: ClientMode,
    seconds: u32,
) -> Result<Sample, Failure> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let io = TokioIo::new(stream);
    let mut sender = if mode == ClientMode::Http2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Sender::Two(sender)
    } else {
        let (sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        Sender::One(sender)
    };
    let mut micros = Vec::new();
    let mut errors = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds.into()) {
        let sent_at = Instant::now();
        let status = send(&mut sender, port, request, mode).await?;
        micros.push(sent_at.elapsed().as_secs_f64() * 1e6);
        errors += u64::from(status != 200);
    }
    let elapsed = began.elapsed().as_secs_f64();
    micros.sort_by(f64::total_cmp);
    let requests = micros.len();
    let [p50, p99] = [50, 99].map(|percent| micros.get(requests * percent / 100).copied());
    Ok(Sample {
        rate: f64::from(u32::try_from(requests)?) / elapsed,
        p50,
        p99,
        errors,
        requests: requests as u64,
    })
}

/// Sends a request and reads its response to the end; returns the status.
async fn send(
    sender: &mut Sender,
    port: u16,
    request: &Request,
    mode: ClientMode,
) -> Result<u16, Failure> {
    let builder = http::Request::builder()
        .method(request.method)
        .header(header::AUTHORIZATION, format!("Bearer {}", request.token));
    let builder = match mode {
        ClientMode::Plain => builder,
        ClientMode::Compressed | ClientMode::Http2 => {
            builder.header(header::ACCEPT_ENCODING, "gzip")
        }
    };
    let response = match sender {
        Sender::One(sender) => {
            sender.ready().await?;
            let builder = builder.uri(&request.path).header(header::HOST, "localhost");
            sender.send_request(builder.body(Empty::new())?).await?
        }
        Sender::Two(sender) => {
            let builder = builder
                .uri(format!("http://localhost:{port}{}", request.path))
                .version(Version::HTTP_2);
            sender.send_request(builder.body(Empty::new())?).await?
        }
    };
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}
