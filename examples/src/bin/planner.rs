//! `cargo run -p todo-examples --bin planner`

#[tokio::main]
async fn main() -> Result<(), todo_examples::Failure> {
    todo_examples::planner::run(&mut std::io::stdout()).await
}
