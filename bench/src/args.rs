//! What the driver is told: which work, on which servers, at how many connections, how long, how
//! often.

use std::path::PathBuf;

use clap::{Parser, value_parser};

use crate::cases::{Case, Cell};

/// Measures both servers on both databases beside a bare hyper, a bare salvo and pgbench
#[derive(Debug, Parser)]
#[command(name = "bench/run.sh", disable_version_flag = true)]
pub(crate) struct Args {
    /// Seconds that each measurement takes
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// How often everything is measured in turn; medians are reported
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    /// Which work, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Case::ALL)]
    pub(crate) cases: Vec<Case>,
    /// How many connections at once, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 256],
          value_parser = value_parser!(u32).range(1..=256))]
    pub(crate) connections: Vec<u32>,
    /// Which servers on which databases, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Cell::ALL)]
    pub(crate) servers: Vec<Cell>,
    /// The directory for results.md and results.svg
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_MANIFEST_DIR"))]
    pub(crate) out: PathBuf,
    /// Instead of all that, load the servers in turn, each for its share of so many seconds, and
    /// print the memory that they hold
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u32).range(4..=86_400))]
    pub(crate) soak: Option<u32>,
}
