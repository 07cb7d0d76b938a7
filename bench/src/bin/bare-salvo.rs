//! Bare salvo: the upper bound for `todo-server`, without the cost of the API. It reads each
//! request to the end and responds with 200 and a body of the given size: `bare-salvo PORT SIZE`.

use bytes::Bytes;
use salvo::{
    Depot, FlowCtrl, Handler, Listener, Request, Response, Router, Server, async_trait,
    conn::tcp::TcpListener,
    http::{ResBody, StatusCode, header::CONTENT_TYPE},
};
use todo_bench::{
    Failure,
    bare::{JSON, arguments},
};

struct FixedResponse(Bytes);

#[async_trait]
impl Handler for FixedResponse {
    async fn handle(
        &self,
        req: &mut Request,
        _depot: &mut Depot,
        res: &mut Response,
        _ctrl: &mut FlowCtrl,
    ) {
        match req.payload().await {
            Ok(_) => {
                res.headers_mut().insert(CONTENT_TYPE, JSON);
                res.body(ResBody::Once(self.0.clone()));
            }
            Err(_) => {
                res.status_code(StatusCode::BAD_REQUEST);
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (address, bytes) = arguments()?;
    let acceptor = TcpListener::new(address).try_bind().await?;
    let router = Router::with_path("{**rest}").goal(FixedResponse(bytes));
    Ok(Server::new(acceptor).try_serve(router).await?)
}
