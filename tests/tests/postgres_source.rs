//! Where the tests get PostgreSQL from, tried through the binary that does it: a server that is
//! given wins, then a container if a Docker engine answers, then a private cluster; with none of
//! them a message says what to install; and nothing that was started stays behind.
//!
//! What cannot be tried on a machine is said on standard error, in a line that begins `NOT RUN:`.

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

/// The binary, told nothing by our environment but what is in `settings` (and how to reach Docker).
fn with_postgres(settings: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_with-postgres"));
    command.env_remove(URL).envs(settings.iter().copied()).args(args);
    command
}

/// Runs a command with PostgreSQL that prints the URL it was given.
fn shown(settings: &[(&str, &str)]) -> Output {
    let args = ["--", "sh", "-c", "printf %s \"$TEST_DATABASE_URL\""];
    with_postgres(settings, &args).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A line where CI and people see it: the test runner hides what a good test prints, but not this.
fn say(line: String) {
    let _ = std::io::stderr().write_all((line + "\n").as_bytes());
}

fn not_run(what: &str, why: &str) {
    say(format!("NOT RUN: {what}: {why}"));
}

async fn answers(url: &str) -> bool {
    match PgConnection::connect(url).await {
        Ok(mut connection) => sqlx::query("SELECT 1").execute(&mut connection).await.is_ok(),
        Err(_) => false,
    }
}

/// Until what stops in the background has stopped.
async fn is_gone(url: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while answers(url).await {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    true
}

#[tokio::test]
async fn a_docker_engine_gives_it_by_testcontainers() {
    if let Err(reason) = docker_engine().await {
        not_run("PostgreSQL by testcontainers", &reason);
        return;
    }
    // No binaries: nothing else can be the source.
    let output = shown(&[NO_BINARIES]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "an engine answers, so it must give PostgreSQL: {said}");
    let image = std::env::var(IMAGE).unwrap_or_else(|_| "postgres:17-alpine".to_owned());
    let expected = format!("PostgreSQL for the tests: a container of {image} by testcontainers");
    assert!(said.lines().any(|line| line == expected), "{said}");
    let url = text(&output.stdout);
    assert!(url.starts_with("postgres://postgres:postgres@127.0.0.1:"), "{url}");
    assert!(is_gone(&url).await, "the container is still there: {url}");
    say(format!("RUN: {expected}"));
}

/// It is preferred to the binaries of this machine, and lives as long as it is borrowed.
#[tokio::test]
async fn a_docker_engine_is_asked_before_the_binaries() {
    if let Err(reason) = docker_engine().await {
        not_run("a container lent to the tests", &reason);
        return;
    }
    lend_and_return(&[], "a container of ").await;
}

#[tokio::test]
async fn a_private_cluster_is_used_where_there_is_no_engine() {
    let output = shown(&[NO_ENGINE]);
    let said = text(&output.stderr);
    if said.contains("no initdb and postgres in") {
        not_run("a private cluster", said.trim());
        return;
    }
    assert!(output.status.success(), "{said}");
    assert!(said.contains("PostgreSQL for the tests: a private cluster by /"), "{said}");
    assert!(said.contains("no Docker engine answers"), "why not a container: {said}");
    let url = text(&output.stdout);
    let (_, dir) = url.split_once("host=").expect("a unix socket");
    assert!(!std::path::Path::new(dir).exists(), "{dir} is still there");
    assert!(is_gone(&url).await, "{url}");
    lend_and_return(&[NO_ENGINE], "a private cluster by /").await;
}

#[tokio::test]
async fn a_server_that_is_given_wins_and_is_left_alone() {
    let given = lease::postgres();
    let output = shown(&[(URL, &given.url), NO_ENGINE, NO_BINARIES]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), given.url);
    assert!(text(&output.stderr).contains(&format!("the server {URL} names")));
    assert!(answers(&given.url).await, "it was not ours to stop");
}

#[test]
fn with_nothing_to_be_found_it_says_what_to_install() {
    let output = shown(&[NO_ENGINE, NO_BINARIES]);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "the command must not run");
    let said = text(&output.stderr);
    for hint in [URL, "Docker engine", "apt-get install postgresql"] {
        assert!(said.contains(hint), "{hint} is not in: {said}");
    }
}

#[test]
fn the_exit_status_is_that_of_the_command() {
    let given = (URL, "postgres://nowhere");
    for status in [0, 3, 101] {
        let script = format!("exit {status}");
        let mut command = with_postgres(&[given], &["--", "sh", "-c", &script]);
        assert_eq!(command.output().expect("it runs").status.code(), Some(status));
    }
    assert!(!with_postgres(&[given], &["--", "/nonexistent"]).output().unwrap().status.success());
    assert!(!with_postgres(&[given], &["cargo"]).output().unwrap().status.success());
}

/// Two processes share one server. Whatever becomes of them, it is gone soon after the last.
async fn lend_and_return(settings: &[(&str, &str)], origin: &str) {
    let mut lender = with_postgres(settings, &["--lend"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut port = String::new();
    BufReader::new(lender.stdout.take().expect("it is piped"))
        .read_line(&mut port)
        .expect("a line");
    let port = port.trim().parse().expect("a port");

    let (first, second) = (lease::borrow(port).expect("a share"), lease::borrow(port));
    let second = second.expect("another share");
    assert_eq!(first.url, second.url);
    assert!(first.origin.starts_with(origin), "{}", first.origin);
    let url = first.url.clone();
    drop(first);
    // Longer than the lender waits for borrowers when it has none.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(answers(&url).await, "it is still lent");
    drop(second);
    assert!(is_gone(&url).await, "nobody has it any more");
    let status = tokio::task::spawn_blocking(move || lender.wait()).await;
    assert!(status.expect("it ends").expect("it ends").success());
    assert!(lease::borrow(port).is_none());
}
