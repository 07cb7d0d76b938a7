//! The tests' source of PostgreSQL, tested through the `with-postgres` binary: a configured server
//! first, then a container if a Docker engine responds, then a private cluster. Without any of them
//! an error lists what to install. Everything that was started is stopped.
//!
//! A test that cannot run on this machine prints a line `NOT RUN: ...` to standard error.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection};

use todo_tests::{
    lease,
    postgres::{BINARIES, IMAGE, URL, docker_engine},
};

const NO_ENGINE: (&str, &str) = ("DOCKER_HOST", "unix:///nonexistent/docker.sock");
const NO_BINARIES: (&str, &str) = (BINARIES, "/nonexistent");

/// The binary, with the variables in `settings` and without [`URL`] from this environment.
fn with_postgres(settings: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_with-postgres"));
    command.env_remove(URL).envs(settings.iter().copied()).args(args);
    command
}

/// Runs a command with PostgreSQL that prints the URL it received.
fn print_url(settings: &[(&str, &str)]) -> Output {
    let args = ["--", "sh", "-c", "printf %s \"$TEST_DATABASE_URL\""];
    with_postgres(settings, &args).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Prints directly to standard error: the test runner hides a passing test's captured output.
fn report(line: String) {
    let _ = std::io::stderr().write_all((line + "\n").as_bytes());
}

fn not_run(what: &str, why: &str) {
    report(format!("NOT RUN: {what}: {why}"));
}

async fn is_reachable(url: &str) -> bool {
    match PgConnection::connect(url).await {
        Ok(mut connection) => sqlx::query("SELECT 1").execute(&mut connection).await.is_ok(),
        Err(_) => false,
    }
}

/// Waits until the server, which stops in the background, is unreachable.
async fn is_gone(url: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while is_reachable(url).await {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    true
}

#[tokio::test]
async fn a_docker_engine_provides_it_by_testcontainers() {
    if let Err(reason) = docker_engine().await {
        not_run("PostgreSQL by testcontainers", &reason);
        return;
    }
    // Without binaries, a container is the only possible source.
    let output = print_url(&[NO_BINARIES]);
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "an engine responds, so it must provide PostgreSQL: {stderr}");
    let image = std::env::var(IMAGE).unwrap_or_else(|_| "postgres:17-alpine".to_owned());
    let expected = format!("PostgreSQL for the tests: a container of {image} by testcontainers");
    assert!(stderr.lines().any(|line| line == expected), "{stderr}");
    let url = text(&output.stdout);
    assert!(url.starts_with("postgres://postgres:postgres@127.0.0.1:"), "{url}");
    assert!(is_gone(&url).await, "the container still runs: {url}");
    report(format!("RUN: {expected}"));
}

/// A container is preferred to this machine's binaries and runs as long as it is leased.
#[tokio::test]
async fn a_docker_engine_is_preferred_to_the_binaries() {
    if let Err(reason) = docker_engine().await {
        not_run("a container lent to the tests", &reason);
        return;
    }
    assert_lease_lifecycle(&[], "a container of ").await;
}

#[tokio::test]
async fn a_private_cluster_is_used_without_an_engine() {
    let output = print_url(&[NO_ENGINE]);
    let stderr = text(&output.stderr);
    if stderr.contains("no initdb and postgres in") {
        not_run("a private cluster", stderr.trim());
        return;
    }
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("PostgreSQL for the tests: a private cluster by /"), "{stderr}");
    assert!(
        stderr.contains("no Docker engine answers"),
        "no reason given for not using a container: {stderr}"
    );
    let url = text(&output.stdout);
    let (_, dir) = url.split_once("host=").expect("a unix socket");
    assert!(!std::path::Path::new(dir).exists(), "{dir} still exists");
    assert!(is_gone(&url).await, "{url}");
    assert_lease_lifecycle(&[NO_ENGINE], "a private cluster by /").await;
}

#[tokio::test]
async fn a_configured_server_is_preferred_and_left_running() {
    let given = lease::postgres();
    let output = print_url(&[(URL, &given.url), NO_ENGINE, NO_BINARIES]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), given.url);
    assert!(text(&output.stderr).contains(&format!("the server {URL} names")));
    assert!(is_reachable(&given.url).await, "a configured server must not be stopped");
}

#[test]
fn without_any_source_the_error_names_what_to_install() {
    let output = print_url(&[NO_ENGINE, NO_BINARIES]);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "the command must not run");
    let stderr = text(&output.stderr);
    for hint in [URL, "Docker engine", "apt-get install postgresql"] {
        assert!(stderr.contains(hint), "{hint} is not in: {stderr}");
    }
}

#[test]
fn the_exit_status_is_that_of_the_command() {
    let given = (URL, "postgres://nowhere");
    for status in [0, 3, 101] {
        let script = format!("exit {status}");
        let mut command = with_postgres(&[given], &["--", "sh", "-c", &script]);
        assert_eq!(command.output().expect("the program runs").status.code(), Some(status));
    }
    assert!(!with_postgres(&[given], &["--", "/nonexistent"]).output().unwrap().status.success());
    assert!(!with_postgres(&[given], &["cargo"]).output().unwrap().status.success());
}

/// Two processes share one server; it stops soon after the last lease ends.
async fn assert_lease_lifecycle(settings: &[(&str, &str)], origin: &str) {
    let mut lender = with_postgres(settings, &["--lend"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut port = String::new();
    BufReader::new(lender.stdout.take().expect("a pipe")).read_line(&mut port).expect("a line");
    let port = port.trim().parse().expect("a port");

    let (first, second) = (lease::borrow(port).expect("a share"), lease::borrow(port));
    let second = second.expect("another share");
    assert_eq!(first.url, second.url);
    assert!(first.origin.starts_with(origin), "{}", first.origin);
    let url = first.url.clone();
    drop(first);
    // Longer than the lender waits for a borrower before it stops.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(is_reachable(&url).await, "the server is still leased");
    drop(second);
    assert!(is_gone(&url).await, "the server still runs after the last lease");
    let status = tokio::task::spawn_blocking(move || lender.wait()).await;
    assert!(status.expect("an exit").expect("a status").success());
    assert!(lease::borrow(port).is_none());
}
