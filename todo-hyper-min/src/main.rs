//! `todo-hyper-min`: a shim over [`todo_hyper_min::serve`].

use std::process::ExitCode;

use todo_runtime::{main_minimal, signals};

fn main() -> ExitCode {
    main_minimal("todo-hyper-min", env!("CARGO_PKG_VERSION"), |settings, listener| async {
        let signals = signals()?;
        todo_hyper_min::serve(settings, listener, signals).await
    })
}
