//! Whether memory stays flat: the mix of work over minutes, and what the process holds meanwhile.

use std::time::Duration;

use todo_bench::Failure;
use tokio::time::{MissedTickBehavior, interval};

use crate::{cases::Case, stage::Stage};

const CONNECTIONS: u32 = 16;
const LOOK: Duration = Duration::from_mins(1);

/// Loads each server for its share of `seconds`, and prints a line for each with its resident
/// memory: before, each minute, at the end.
pub(crate) async fn soak(stage: &mut Stage, seconds: u32) -> Result<(), Failure> {
    let cells = stage.cells();
    let share = seconds / u32::try_from(cells.len())?;
    println!("Resident memory under mixed 80/20 at {CONNECTIONS} connections, {share} s each:\n");
    println!(
        "| | req/s | errors | MiB at the start, each minute, at the end |\n|---|---:|---:|---|"
    );
    let mut failed = 0;
    for cell in cells {
        let id = stage.process_of(cell)?;
        let (mut held, mut looks) = (Vec::new(), interval(LOOK));
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let load = stage.load(cell, Case::Mixed, CONNECTIONS, share);
        tokio::pin!(load);
        let sample = loop {
            tokio::select! {
                // An interval's first tick is at once.
                biased;
                _ = looks.tick() => held.push(resident_mib(id)?),
                sample = &mut load => break sample?,
            }
        };
        held.push(resident_mib(id)?);
        let held: Vec<String> = held.iter().map(|mib| format!("{mib:.1}")).collect();
        println!("| {cell} | {:.0} | {} | {} |", sample.rate, sample.errors, held.join(", "));
        failed += sample.errors;
    }
    if failed == 0 { Ok(()) } else { Err(format!("{failed} requests failed").into()) }
}

/// What a process holds in memory.
fn resident_mib(id: u32) -> Result<f64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS in /proc")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}
