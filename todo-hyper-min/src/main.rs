//! `todo-hyper-min`: a shim over [`todo_hyper_min::serve`].

use std::process::ExitCode;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod memory;

use todo_runtime::{main_minimal, signals};

fn main() -> ExitCode {
    main_minimal("todo-hyper-min", env!("CARGO_PKG_VERSION"), |settings, listener| async {
        let signals = signals()?;
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        memory::spawn_return();
        todo_hyper_min::serve(settings, listener, signals).await
    })
}
