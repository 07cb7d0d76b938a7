//! `todo-server`: a shim over its command line.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
