//! `todo-bench`: drives both servers on both databases in turn with what each could reach at best,
//! and reports medians. `bench/run.sh` builds everything and calls it; `README.md` beside it says
//! what is measured and how.

use std::process::ExitCode;

use clap::Parser;
use todo_bench::Failure;
use tokio::signal::unix::{SignalKind, signal};

use self::{args::Args, stage::Stage};

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
mod stage;

// On the main thread: PostgreSQL is told to end when the thread that started it does.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    // Whatever ends this, what it started is dropped, and ends with that.
    let outcome = tokio::select! {
        outcome = run(&args) => outcome,
        stopped = stopped() => stopped,
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
    let mut stage = Stage::set(&args.servers).await?;
    let outcome = match args.soak {
        Some(seconds) => soak::soak(&mut stage, seconds).await,
        None => measure_and_report(&mut stage, args).await,
    };
    stage.clear().await?;
    outcome
}

async fn measure_and_report(stage: &mut Stage, args: &Args) -> Result<(), Failure> {
    let results = measure::measure(stage, args).await?;
    let page = report::page(&results, args, stage.databases());
    println!("{page}");
    std::fs::create_dir_all(&args.out)?;
    std::fs::write(args.out.join("results.md"), page)?;
    plot::draw(&results, &args.out.join("results.svg"))?;
    match results.failed() {
        0 => Ok(()),
        failed => Err(format!("{failed} measurements had errors, they are marked").into()),
    }
}

async fn stopped() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Err("told to stop".into())
}
