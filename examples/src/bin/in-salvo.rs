//! `SECRET_KEY=$(openssl rand -hex 32) cargo run -p todo-examples --bin in-salvo`

use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), todo_examples::Failure> {
    let core = todo_examples::open_core().await?;
    let listener = TcpListener::bind("127.0.0.1:8000").await?;
    println!("the API is at http://127.0.0.1:8000/todo/");
    todo_examples::in_salvo::run(core, listener, todo_examples::ctrl_c()).await
}
