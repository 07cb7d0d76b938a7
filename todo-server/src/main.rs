//! `todo-server`: a shim over [`todo_server::serve`].

use std::process::ExitCode;

use todo_core::server;

fn main() -> ExitCode {
    server::run(|settings, listener| async {
        let stop = server::stop_signal()?;
        todo_server::serve(settings, listener, stop).await
    })
}
