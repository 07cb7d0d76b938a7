//! One measurement by wrk, by pgbench, or of Argon2 alone. `measure` selects the targets and their
//! order.

use std::{
    ffi::OsStr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use todo_bench::Failure;
use tokio::process::Command;

use crate::{cases::Statement, seed::PASSWORD};

/// wrk's script.
pub(crate) const SCRIPT: &str = include_str!("load.lua");

/// Result of one measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Requests per second.
    pub(crate) rate: f64,
    /// In microseconds; pgbench and Argon2 alone have none.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// Responses with 400 and above, failed connections, missing responses.
    pub(crate) errors: u64,
    /// Number of responses.
    pub(crate) requests: u64,
}

/// Loads the server at `port` with the requests of a file, with spare todos from `first_spare`.
pub(crate) async fn wrk(
    dir: &Path,
    port: u16,
    connections: u32,
    seconds: u32,
    requests: &Path,
    first_spare: u64,
) -> Result<Sample, Failure> {
    let mut wrk = Command::new("wrk");
    // Longer than any response takes: a late one counts as slow, not as lost.
    wrk.args(["-t1", "--timeout", "30s"]);
    wrk.arg(format!("-c{connections}")).arg(format!("-d{seconds}s"));
    wrk.arg("-s").arg(dir.join("load.lua")).arg(format!("http://127.0.0.1:{port}"));
    wrk.arg("--").arg(requests).arg(first_spare.to_string());
    done(&output(wrk).await?)
}

/// Runs a statement on `connections` connections.
pub(crate) async fn pgbench(
    dir: &Path,
    url: &str,
    connections: u32,
    seconds: u32,
    statement: Statement,
    run: u32,
) -> Result<Sample, Failure> {
    let script = dir.join("pgbench.sql");
    std::fs::write(&script, statement.script())?;
    // pgbench's duration includes connecting, milliseconds per connection; its rate excludes it.
    let seconds = seconds + connections / 64;
    let mut pgbench = Command::new("pgbench");
    pgbench.args(["-n", "-M", "prepared", "-j", "1"]);
    pgbench.arg("-c").arg(connections.to_string()).arg("-T").arg(seconds.to_string());
    pgbench.args(["-D", "i=0", "-D", &format!("clients={connections}")]);
    pgbench.args(["-D", &format!("run={run}"), "-f"]).arg(script).arg(url);
    transactions(&output(pgbench).await?)
}

/// Runs a program and returns its standard output; fails if it fails.
pub(crate) async fn output(mut command: Command) -> Result<String, Failure> {
    let name = command.as_std().get_program().to_owned();
    let name = name.display();
    let output = command.kill_on_drop(true).stdin(std::process::Stdio::null()).output().await;
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} ended with {}: {}", output.status, stderr.trim()).into())
}

/// Parses the output of the script's `done`.
fn done(text: &str) -> Result<Sample, Failure> {
    let line = text.lines().find_map(|line| line.strip_prefix("DONE "));
    let line = line.ok_or_else(|| format!("no result in the output of wrk: {text}"))?;
    let numbers: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let words: Vec<&str> = line.split(' ').collect();
    let (&[requests, micros, p50, p99, _], &[answered, .., errors]) = (&numbers[..], &words[..])
    else {
        return Err(format!("unexpected output of wrk: {line}").into());
    };
    Ok(Sample {
        rate: requests / micros * 1e6,
        p50: Some(p50),
        p99: Some(p99),
        errors: errors.parse()?,
        requests: answered.parse()?,
    })
}

/// Parses pgbench's report. The last rate in it excludes the time to connect.
fn transactions(text: &str) -> Result<Sample, Failure> {
    let after = |name: &str| {
        let line = text.lines().rev().find_map(|line| line.trim().strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next())
    };
    let rate = after("tps = ")
        .ok_or_else(|| format!("no rate in the output of pgbench: {text}"))?
        .parse()?;
    // Versions before 15 do not count failures: they stop at the first.
    let errors = after("number of failed transactions: ").unwrap_or("0").parse()?;
    let requests = after("number of transactions actually processed: ").unwrap_or("0");
    Ok(Sample { rate, p50: None, p99: None, errors, requests: requests.parse()? })
}

/// Password verifications per second on all cores, without a server.
pub(crate) fn argon2(seconds: u32) -> Result<Sample, Failure> {
    let params = Params::new(19_456, 2, 1, None).map_err(|error| error.to_string())?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password(PASSWORD.as_bytes()).map_err(|error| error.to_string())?;
    let hash = hash.to_string();
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds.into());
    let count = || -> Result<u32, String> {
        let hash = PasswordHash::new(&hash).map_err(|error| error.to_string())?;
        let mut verified = 0;
        while Instant::now() < end {
            argon2
                .verify_password(PASSWORD.as_bytes(), &hash)
                .map_err(|error| error.to_string())?;
            verified += 1;
        }
        Ok(verified)
    };
    let cores = thread::available_parallelism()?.get();
    let counts: Result<Vec<u32>, String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(count)).collect();
        let join = |thread: thread::ScopedJoinHandle<_>| {
            thread.join().unwrap_or_else(|_| Err("a hashing thread panicked".to_owned()))
        };
        threads.into_iter().map(join).collect()
    });
    let verified = counts?.iter().sum::<u32>();
    let rate = f64::from(verified) / began.elapsed().as_secs_f64();
    Ok(Sample { rate, p50: None, p99: None, errors: 0, requests: verified.into() })
}

/// Version of a program, by its `--version`.
pub(crate) fn version(program: &OsStr) -> String {
    let output = std::process::Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_wrk_and_pgbench_is_parsed() {
        let output = "Running 1s test\nDONE 1000 2000000 150 9000 3\n";
        let expected =
            Sample { rate: 500.0, p50: Some(150.0), p99: Some(9000.0), errors: 3, requests: 1000 };
        assert_eq!(done(output).unwrap(), expected);
        assert!(done("Running 1s test\n").is_err());

        let output = "number of transactions actually processed: 4711\n\
                    number of failed transactions: 2 (0.000%)\n\
                    tps = 12345.67 (without initial connection time)\n";
        let expected = Sample { rate: 12_345.67, p50: None, p99: None, errors: 2, requests: 4711 };
        assert_eq!(transactions(output).unwrap(), expected);
    }
}
