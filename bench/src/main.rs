//! `todo-bench`: measures both servers on both databases, alternating with their upper bounds, and
//! reports medians. `bench/run.sh` builds and runs it; `README.md` describes the measurements.

use std::process::ExitCode;

use clap::Parser;
use todo_bench::Failure;
use tokio::signal::unix::{SignalKind, signal};

use self::{args::Args, testbed::Testbed};

mod args;
mod browse;
mod cases;
mod load;
mod measure;
mod plot;
mod report;
mod seed;
mod servers;
mod soak;
mod testbed;

// On the main thread: PostgreSQL receives a signal when the thread that started it ends.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    // On any exit, started processes are dropped, which stops them.
    let outcome = tokio::select! {
        outcome = run(&args) => outcome,
        interrupted = interrupted() => interrupted,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    let mut testbed = Testbed::start(&args.servers).await?;
    let outcome = match args.soak {
        Some(seconds) => soak::soak(&mut testbed, seconds).await,
        None => measure_and_report(&mut testbed, args).await,
    };
    testbed.stop().await?;
    outcome
}

async fn measure_and_report(testbed: &mut Testbed, args: &Args) -> Result<(), Failure> {
    let results = measure::measure(testbed, args).await?;
    let page = report::page(&results, args, testbed.databases());
    println!("{page}");
    std::fs::create_dir_all(&args.out)?;
    std::fs::write(args.out.join("results.md"), page)?;
    plot::draw(&results, &args.out.join("results.svg"))?;
    match results.failed() {
        0 => Ok(()),
        failed => Err(format!("{failed} measurements had errors, marked in the results").into()),
    }
}

async fn interrupted() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        received = tokio::signal::ctrl_c() => received?,
        _ = terminate.recv() => {}
    }
    Err("stopped by a signal".into())
}
