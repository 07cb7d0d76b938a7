//! `cargo run -p todo-examples --bin embed`

#[tokio::main]
async fn main() -> Result<(), todo_examples::Failure> {
    todo_examples::embed::run(&mut std::io::stdout()).await
}
