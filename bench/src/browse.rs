//! A list of 100 as browsers, axios and httpx ask for it: compressed, one request after the other on
//! one connection, over HTTP/1.1 and over HTTP/2, which wrk does not speak. How long each answer took
//! is what counts here: an answer that waits for an acknowledgement of the client's takes 40 ms.

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

/// How a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// HTTP/1.1, as it is.
    Plain,
    /// HTTP/1.1, with `Accept-Encoding: gzip`.
    Compressed,
    /// HTTP/2, with `Accept-Encoding: gzip`.
    Http2,
}

impl Way {
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

/// Asks the server at `port` for so many seconds.
pub(crate) async fn browse(
    port: u16,
    request: &Request,
    way: Way,
    seconds: u32,
) -> Result<Sample, Failure> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let io = TokioIo::new(stream);
    let mut sender = if way == Way::Http2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Sender::Two(sender)
    } else {
        let (sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        Sender::One(sender)
    };
    let (mut micros, mut errors) = (Vec::new(), 0);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds.into()) {
        let asked = Instant::now();
        let status = ask(&mut sender, port, request, way).await?;
        micros.push(asked.elapsed().as_secs_f64() * 1e6);
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

/// Reads one answer whole; its status.
async fn ask(sender: &mut Sender, port: u16, request: &Request, way: Way) -> Result<u16, Failure> {
    let asked = http::Request::builder()
        .method(request.method)
        .header(header::AUTHORIZATION, format!("Bearer {}", request.token));
    let asked = match way {
        Way::Plain => asked,
        Way::Compressed | Way::Http2 => asked.header(header::ACCEPT_ENCODING, "gzip"),
    };
    let answer = match sender {
        Sender::One(sender) => {
            sender.ready().await?;
            let asked = asked.uri(&request.path).header(header::HOST, "localhost");
            sender.send_request(asked.body(Empty::new())?).await?
        }
        Sender::Two(sender) => {
            let asked = asked
                .uri(format!("http://localhost:{port}{}", request.path))
                .version(Version::HTTP_2);
            sender.send_request(asked.body(Empty::new())?).await?
        }
    };
    let status = answer.status().as_u16();
    answer.into_body().collect().await?;
    Ok(status)
}
