//! Soak test: the mixed case over minutes, with the memory of the process.

use std::time::Duration;

use todo_bench::Failure;
use tokio::time::{MissedTickBehavior, interval};

use crate::{cases::Case, testbed::Testbed};

const CONNECTIONS: u32 = 16;
const SAMPLE_INTERVAL: Duration = Duration::from_mins(1);

/// Loads each server for its share of `seconds`, and prints its resident memory at the start, each
/// minute and at the end, one line per server.
pub(crate) async fn soak(testbed: &mut Testbed, seconds: u32) -> Result<(), Failure> {
    let kinds = testbed.kinds();
    let share = seconds / u32::try_from(kinds.len())?;
    println!("Resident memory under mixed 80/20 at {CONNECTIONS} connections, {share} s each:\n");
    println!(
        "| | req/s | errors | MiB at the start, each minute, at the end |\n|---|---:|---:|---|"
    );
    let mut failed = 0;
    for kind in kinds {
        let id = testbed.process_of(kind)?;
        let mut memory = Vec::new();
        let mut ticks = interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let load = testbed.load(kind, Case::Mixed, CONNECTIONS, share);
        tokio::pin!(load);
        let sample = loop {
            tokio::select! {
                // The first tick of an interval is immediate.
                biased;
                _ = ticks.tick() => memory.push(resident_mib(id)?),
                sample = &mut load => break sample?,
            }
        };
        memory.push(resident_mib(id)?);
        let memory: Vec<String> = memory.iter().map(|mib| format!("{mib:.1}")).collect();
        println!("| {kind} | {:.0} | {} | {} |", sample.rate, sample.errors, memory.join(", "));
        failed += sample.errors;
    }
    if failed == 0 { Ok(()) } else { Err(format!("{failed} requests failed").into()) }
}

/// Resident memory of a process in MiB.
fn resident_mib(id: u32) -> Result<f64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS in /proc")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}
