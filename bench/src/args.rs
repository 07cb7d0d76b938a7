//! Arguments of the driver: cases, servers, numbers of connections, duration and rounds.

use std::path::PathBuf;

use clap::{Parser, value_parser};

use crate::cases::{Case, ServerKind};

/// Measure both servers on both databases against bare hyper, bare salvo and pgbench
#[derive(Debug, Parser)]
#[command(name = "bench/run.sh", disable_version_flag = true)]
pub(crate) struct Args {
    /// Duration of each measurement in seconds
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Number of rounds; medians are reported
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    /// Cases to measure, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Case::ALL)]
    pub(crate) cases: Vec<Case>,
    /// Numbers of concurrent connections, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 256],
          value_parser = value_parser!(u32).range(1..=256))]
    pub(crate) connections: Vec<u32>,
    /// Servers and their databases, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = ServerKind::ALL)]
    pub(crate) servers: Vec<ServerKind>,
    /// Directory for results.md and results.svg
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_MANIFEST_DIR"))]
    pub(crate) out: PathBuf,
    /// Instead, load the servers one after the other, for this many seconds in total, and print
    /// their memory
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u32).range(4..=86_400))]
    pub(crate) soak: Option<u32>,
}
