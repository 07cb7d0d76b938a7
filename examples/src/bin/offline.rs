//! `cargo run -p todo-examples --bin offline`
//!
//! Opens a database in memory, serves the API below a path of an axum app, and edits two copies of
//! a user's todos offline.

use todo_core::{Core, Secret};
use todo_examples::{Failure, client::Client, in_axum, offline};
use tokio::{net::TcpListener, sync::oneshot};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let core = Core::builder(Secret::new("two copies on a phone and a laptop")?);
    let core = core.open("sqlite::memory:").await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = Client::new(format!("http://{}/todo", listener.local_addr()?));
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(in_axum::run(core, listener, async { drop(stopped.await) }));
    let user = client.sign_up("ada@example.com", "Correct1horse", "Ada Lovelace").await?;
    offline::run(user, &mut std::io::stdout()).await?;
    drop(stop);
    server.await?
}
