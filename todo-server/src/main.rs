//! `todo-server`: a shim over its command line.
#![forbid(unsafe_code)]

use std::process::ExitCode;

mod cli;

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main()
}
