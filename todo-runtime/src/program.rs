//! A program: its arguments, its runtime, its exit code. It does not import an HTTP framework or a
//! command line library.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use todo_core::ErrorChain;
use tokio::net::TcpListener;

use crate::{
    ServeError, Settings, descriptors::raise_descriptor_limit, healthcheck::healthcheck, log,
    startup::listen,
};

/// Number of tasks that a worker runs between two polls of the sockets. With tokio's default of 61,
/// a request that arrives while all workers read lists waits for up to 61 of these.
pub const EVENT_INTERVAL: u32 = 13;

/// Timeout for writing the error line at exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// The `main` of a program without a command line library: runs the command in its arguments.
///
/// Exit codes are 0, 1 on failure, 2 for invalid arguments.
pub fn main_minimal<F, Fut>(program: &str, version: &str, serve: F) -> ExitCode
where
    F: FnOnce(Settings, TcpListener) -> Fut,
    Fut: Future<Output = Result<(), ServeError>>,
{
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_str()).collect();
    match arguments[..] {
        [] | [Some("serve")] => run_server(serve),
        [Some("healthcheck")] => {
            exit_code(block_on(async { healthcheck(&Settings::load()?).await }))
        }
        [Some("--version" | "-V")] => {
            print_line(&format!("{program} {version}"));
            ExitCode::SUCCESS
        }
        [Some("--help" | "-h" | "help")] => {
            print_line(&usage(program));
            ExitCode::SUCCESS
        }
        _ => {
            let _ = writeln!(io::stderr(), "error: unknown arguments\n\n{}", usage(program));
            ExitCode::from(2)
        }
    }
}

/// Writes a line to standard output. A closed pipe, as with `head`, is not an error.
fn print_line(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn usage(program: &str) -> String {
    format!(
        "Accounts and todos over HTTP: the smallest server\n\n\
         Usage: {program} [COMMAND]\n\n\
         Commands:\n  \
         serve        Serve until SIGTERM or SIGINT (the default)\n  \
         healthcheck  Check the health of the server at HOST and PORT\n\n\
         Options:\n  \
         -h, --help     Print this\n  \
         -V, --version  Print the version\n\n\
         Settings are environment variables or lines of .env: DATABASE_URL, SECRET_KEY, HOST, PORT\n\
         and more; the README has the table.\n\n\
         Exit codes: 0 ok, 1 failed, 2 usage"
    )
}

/// Runs a server: settings, logs, listener, signals. An error is one line on standard error and
/// exit code 1.
pub fn run_server<F, Fut>(serve: F) -> ExitCode
where
    F: FnOnce(Settings, TcpListener) -> Fut,
    Fut: Future<Output = Result<(), ServeError>>,
{
    exit_code(Settings::load().and_then(|settings| {
        let _log = log::start(&settings)?;
        for warning in settings.warnings() {
            tracing::warn!("{warning}");
        }
        raise_descriptor_limit(&settings);
        block_on(async { serve(settings.clone(), listen(&settings).await?).await })
    }))
}

/// Runs a future on a new runtime with one worker more than there are cores: SQLite reads run on
/// all but one of them, and a worker blocked on the disk serves no requests.
///
/// # Errors
/// Those of the future, and [`ServeError::Io`] if the runtime cannot be started.
pub fn block_on<T, E: From<io::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.event_interval(EVENT_INTERVAL);
    runtime.worker_threads(cores + 1).enable_all().build()?.block_on(work)
}

/// The exit code of an outcome; an error is printed as one line on standard error.
pub fn exit_code<E: std::error::Error>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("error: {}", ErrorChain(&error));
            // A full pipe without a reader must not block the exit.
            log::run_with_timeout(EXIT_TIMEOUT, move || drop(writeln!(io::stderr(), "{line}")));
            ExitCode::FAILURE
        }
    }
}
