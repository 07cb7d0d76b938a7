//! Runs a command with `TEST_DATABASE_URL` set to a PostgreSQL that it finds or starts:
//! `with-postgres -- cargo test --workspace`. With `--lend` it is the lender of
//! `todo_tests::lease`, which the tests start themselves.
#![forbid(unsafe_code)]

use std::{env, process::ExitCode};

use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
};

use todo_tests::{
    lease,
    postgres::{self, Postgres},
};

// On the main thread: the server receives SIGINT when the thread that started it ends.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let outcome = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--lend"] => lease::lend().await.map(|()| 0),
        ["--", program, ref args @ ..] => run(program, args).await,
        _ => Err("usage: with-postgres -- COMMAND [ARGUMENT]...".to_owned()),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

/// The command's exit status, after its server has stopped.
async fn run(program: &str, args: &[&str]) -> Result<u8, String> {
    let postgres = Postgres::find().await?;
    eprintln!("PostgreSQL for the tests: {}", postgres.origin());
    // The command handles an interrupt from the terminal itself; SIGTERM is passed on.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let command = Command::new(program).args(args).env(postgres::URL, postgres.url()).spawn();
    let mut child = command.map_err(|error| format!("{program}: {error}"))?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => child.start_kill().map_err(|error| error.to_string())?,
        }
    };
    postgres.stop().await?;
    let status = status.map_err(|error| error.to_string())?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
