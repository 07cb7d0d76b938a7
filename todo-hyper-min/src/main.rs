//! `todo-hyper-min`: a shim over [`todo_hyper_min::serve`].

use std::process::ExitCode;

use todo_runtime::server;

fn main() -> ExitCode {
    server::main_minimal("todo-hyper-min", env!("CARGO_PKG_VERSION"), |settings, listener| async {
        let signals = server::signals()?;
        todo_hyper_min::serve(settings, listener, signals).await
    })
}
