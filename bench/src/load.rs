//! How fast something is: one measurement by wrk, by pgbench, or of Argon2 alone. Who is measured,
//! and in which order, is for `measure`.

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

/// What one measurement found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    /// A second.
    pub(crate) rate: f64,
    /// In microseconds; pgbench and Argon2 alone have none.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// Answers of 400 and above, connections that failed, answers that did not come.
    pub(crate) errors: u64,
    /// How many were answered.
    pub(crate) requests: u64,
}

/// Loads the server at `port` with the requests of a file, whose spares begin at a number.
pub(crate) async fn wrk(
    dir: &Path,
    port: u16,
    connections: u32,
    seconds: u32,
    requests: &Path,
    first_spare: u64,
) -> Result<Sample, Failure> {
    let mut wrk = Command::new("wrk");
    // Longer than any answer takes: one that is late is slow, and not lost.
    wrk.args(["-t1", "--timeout", "30s"]);
    wrk.arg(format!("-c{connections}")).arg(format!("-d{seconds}s"));
    wrk.arg("-s").arg(dir.join("load.lua")).arg(format!("http://127.0.0.1:{port}"));
    wrk.arg("--").arg(requests).arg(first_spare.to_string());
    done(&output(wrk).await?)
}

/// Runs a statement over as many connections.
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
    // Its clock begins before it has connected, which takes milliseconds each; the rate leaves that out.
    let seconds = seconds + connections / 64;
    let mut pgbench = Command::new("pgbench");
    pgbench.args(["-n", "-M", "prepared", "-j", "1"]);
    pgbench.arg("-c").arg(connections.to_string()).arg("-T").arg(seconds.to_string());
    pgbench.args(["-D", "i=0", "-D", &format!("clients={connections}")]);
    pgbench.args(["-D", &format!("run={run}"), "-f"]).arg(script).arg(url);
    transactions(&output(pgbench).await?)
}

/// What a program prints, if it succeeds.
pub(crate) async fn output(mut command: Command) -> Result<String, Failure> {
    let name = command.as_std().get_program().to_owned();
    let name = name.display();
    let output = command.kill_on_drop(true).stdin(std::process::Stdio::null()).output().await;
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} ended with {}: {}", output.status, said.trim()).into())
}

/// Reads what the script's `done` says.
fn done(text: &str) -> Result<Sample, Failure> {
    let line = text.lines().find_map(|line| line.strip_prefix("DONE "));
    let line = line.ok_or_else(|| format!("wrk says no result: {text}"))?;
    let numbers: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let words: Vec<&str> = line.split(' ').collect();
    let (&[requests, micros, p50, p99, _], &[answered, .., errors]) = (&numbers[..], &words[..])
    else {
        return Err(format!("wrk says something else: {line}").into());
    };
    Ok(Sample {
        rate: requests / micros * 1e6,
        p50: Some(p50),
        p99: Some(p99),
        errors: errors.parse()?,
        requests: answered.parse()?,
    })
}

/// Reads pgbench's report. What it says last of a rate is without the time to connect.
fn transactions(text: &str) -> Result<Sample, Failure> {
    let after = |name: &str| {
        let line = text.lines().rev().find_map(|line| line.trim().strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next())
    };
    let rate = after("tps = ").ok_or_else(|| format!("pgbench says no rate: {text}"))?.parse()?;
    // Older ones than 15 do not count failures: the first ends them.
    let errors = after("number of failed transactions: ").unwrap_or("0").parse()?;
    let requests = after("number of transactions actually processed: ").unwrap_or("0");
    Ok(Sample { rate, p50: None, p99: None, errors, requests: requests.parse()? })
}

/// How many passwords a second all cores verify that do nothing else.
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

/// What a program says of its version.
pub(crate) fn version(program: &OsStr) -> String {
    let output = std::process::Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_and_pgbench_say_is_understood() {
        let said = "Running 1s test\nDONE 1000 2000000 150 9000 3\n";
        let expected =
            Sample { rate: 500.0, p50: Some(150.0), p99: Some(9000.0), errors: 3, requests: 1000 };
        assert_eq!(done(said).unwrap(), expected);
        assert!(done("Running 1s test\n").is_err());

        let said = "number of transactions actually processed: 4711\n\
                    number of failed transactions: 2 (0.000%)\n\
                    tps = 12345.67 (without initial connection time)\n";
        let expected = Sample { rate: 12_345.67, p50: None, p99: None, errors: 2, requests: 4711 };
        assert_eq!(transactions(said).unwrap(), expected);
    }
}
