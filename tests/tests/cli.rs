//! The command lines of both programs: help, exit codes, and the commands that need no database.

use std::{net::TcpListener, path::Path, process::Output};

use serde_json::Value;
use todo_tests::{PROGRAMS, Process, STARTING, command};
use tokio::time::timeout;

async fn ran(
    program: &str,
    dir: &Path,
    settings: &[(&str, &str)],
    arguments: &[&str],
) -> (i32, String, String) {
    let mut command = command(program, dir, settings);
    let output: Output = timeout(STARTING, command.args(arguments).output())
        .await
        .expect("an end in time")
        .expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let code = output.status.code().expect("no signal");
    (code, text(output.stdout), text(output.stderr))
}

fn empty_dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn is_empty(dir: &Path) -> bool {
    dir.read_dir().expect("a directory").next().is_none()
}

#[tokio::test]
async fn help_and_version_are_answered_and_nonsense_is_refused() {
    for program in PROGRAMS {
        let dir = empty_dir();
        for argument in ["--help", "-h", "help"] {
            let (code, out, err) = ran(program, dir.path(), &[], &[argument]).await;
            assert_eq!((code, err.as_str()), (0, ""), "{program} {argument}");
            for word in
                ["serve", "healthcheck", "DATABASE_URL", "Exit codes: 0 ok, 1 failed, 2 usage"]
            {
                assert!(out.contains(word), "{program} {argument} does not name {word}: {out}");
            }
        }
        let (code, out, _) = ran(program, dir.path(), &[], &["--version"]).await;
        assert_eq!((code, out), (0, format!("{program} {}\n", env!("CARGO_PKG_VERSION"))));
        for arguments in [&["dance"][..], &["serve", "now"], &["--port"], &["healthcheck", "x"]] {
            let (code, out, err) = ran(program, dir.path(), &[], arguments).await;
            assert_eq!((code, out.as_str()), (2, ""), "{program} {arguments:?}: {err}");
            assert!(err.starts_with("error: "), "{err}");
        }
        assert!(is_empty(dir.path()), "nothing was started");
    }
}

#[tokio::test]
async fn every_command_has_help() {
    let dir = empty_dir();
    for (name, word) in [
        ("serve", "SIGTERM"),
        ("migrate", "--revert"),
        ("copy", "--from"),
        ("healthcheck", "/health"),
        ("openapi", "database"),
    ] {
        let (code, out, _) = ran("todo-server", dir.path(), &[], &[name, "--help"]).await;
        assert_eq!(code, 0, "{name}");
        assert!(out.contains(word), "{name}: {out}");
    }
    assert!(is_empty(dir.path()));
}

#[tokio::test]
async fn a_health_check_tells_a_live_server_from_a_dead_one() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let process = Process::start(program, dir.path(), &[("HOST", "0.0.0.0")]).await;
        let port = process.addr.port().to_string();
        let asked = [("HOST", "0.0.0.0"), ("PORT", port.as_str())];
        let elsewhere = empty_dir();
        let (code, _, err) = ran(program, elsewhere.path(), &asked, &["healthcheck"]).await;
        assert_eq!(code, 0, "{program}: {err}");
        process.stop().await;
        let (code, _, err) = ran(program, elsewhere.path(), &asked, &["healthcheck"]).await;
        assert_eq!((code, err.lines().count()), (1, 1), "{program}: {err}");
        assert!(is_empty(elsewhere.path()), "a check makes nothing");

        // One that accepts and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = silent.local_addr().expect("an address").port().to_string();
        let asked = [("PORT", port.as_str())];
        let (code, _, err) = ran(program, elsewhere.path(), &asked, &["healthcheck"]).await;
        assert_eq!(code, 1, "{program}");
        assert!(err.contains("3 s"), "{err}");
    }
}

#[tokio::test]
async fn the_document_is_the_one_that_is_served() {
    let (dir, elsewhere) = (empty_dir(), empty_dir());
    let settings = [("API_V1_PREFIX", "/v1"), ("PROJECT_NAME", "Mine")];
    let process = Process::start("todo-server", dir.path(), &settings).await;
    let served = todo_tests::raw(
        process.addr,
        b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    .await;
    let (code, out, _) = ran("todo-server", elsewhere.path(), &settings, &["openapi"]).await;
    assert_eq!(code, 0);
    let printed: Value = serde_json::from_str(&out).expect("JSON");
    let served = String::from_utf8(served).expect("UTF-8");
    let (_, body) = served.split_once("\r\n\r\n").expect("a head and a body");
    let served: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(printed, served);
    assert!(is_empty(elsewhere.path()), "no database was made");
    process.stop().await;
}
