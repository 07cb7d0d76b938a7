//! Bare hyper: the upper bound for `todo-hyper-min`, without the cost of the API. It reads each
//! request to the end and responds with 200 and a body of the given size: `bare-hyper PORT SIZE`.

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, body::Incoming, header::CONTENT_TYPE, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use todo_bench::{
    Failure,
    bare::{JSON, arguments},
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (address, bytes) = arguments()?;
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let bytes = bytes.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let bytes = bytes.clone();
            async move {
                request.into_body().collect().await?;
                let mut response = Response::new(Full::new(bytes));
                response.headers_mut().insert(CONTENT_TYPE, JSON);
                Ok::<_, hyper::Error>(response)
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
