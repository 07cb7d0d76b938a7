//! The programs print their help, their version and the OpenAPI document.

use serde_json::Value;
use todo_tests::{PROGRAMS, Process, STARTING, command, empty_dir};
use tokio::time::timeout;

use super::{is_empty, run};

#[tokio::test]
async fn help_and_version_are_printed_and_unknown_arguments_are_rejected() {
    for program in PROGRAMS {
        let dir = empty_dir();
        for argument in ["--help", "-h", "help"] {
            let (code, out, err) = run(program, dir.path(), &[], &[argument]).await;
            assert_eq!((code, err.as_str()), (0, ""), "{program} {argument}");
            for word in
                ["serve", "healthcheck", "DATABASE_URL", "Exit codes: 0 ok, 1 failed, 2 usage"]
            {
                assert!(out.contains(word), "{program} {argument} does not name {word}: {out}");
            }
        }
        let (code, out, _) = run(program, dir.path(), &[], &["--version"]).await;
        assert_eq!((code, out), (0, format!("{program} {}\n", env!("CARGO_PKG_VERSION"))));
        for arguments in [&["dance"][..], &["serve", "now"], &["--port"], &["healthcheck", "x"]] {
            let (code, out, err) = run(program, dir.path(), &[], arguments).await;
            assert_eq!((code, out.as_str()), (2, ""), "{program} {arguments:?}: {err}");
            assert!(err.starts_with("error: "), "{err}");
        }
        assert!(is_empty(dir.path()), "nothing was started");
    }
}

/// For example `... | head`.
#[tokio::test]
async fn a_closed_pipe_is_not_a_crash() {
    let dir = empty_dir();
    for (arguments, expected) in [("doctor", 0), ("openapi", 1)] {
        let mut child = command(PROGRAMS[0], dir.path(), &[]).arg(arguments).spawn().expect("it");
        drop(child.stdout.take());
        let ended = timeout(STARTING, child.wait_with_output()).await.expect("an end in time");
        let ended = ended.expect("it runs");
        let printed = String::from_utf8_lossy(&ended.stderr);
        assert!(!printed.contains("panicked"), "{arguments}: {printed}");
        assert_eq!(ended.status.code(), Some(expected), "{arguments}: {printed}");
    }
}

#[tokio::test]
async fn every_command_has_help() {
    let dir = empty_dir();
    for (name, word) in [
        ("serve", "SIGTERM"),
        ("migrate", "--revert"),
        ("copy", "COPY_FROM"),
        ("import", "--skip-invalid"),
        ("user", "reset-password"),
        ("backup", "--force"),
        ("doctor", "FAIL"),
        ("healthcheck", "/health"),
        ("openapi", "database"),
    ] {
        let (code, out, _) = run("todo-server", dir.path(), &[], &[name, "--help"]).await;
        assert_eq!(code, 0, "{name}");
        assert!(out.contains(word), "{name}: {out}");
    }
    assert!(is_empty(dir.path()));
}

#[tokio::test]
async fn the_printed_document_is_the_served_one() {
    let (dir, elsewhere) = (empty_dir(), empty_dir());
    let settings = [("API_V1_PREFIX", "/v1"), ("PROJECT_NAME", "Mine")];
    let process = Process::start("todo-server", dir.path(), &settings).await;
    let served = todo_tests::raw(
        process.addr,
        b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    .await;
    let (code, out, _) = run("todo-server", elsewhere.path(), &settings, &["openapi"]).await;
    assert_eq!(code, 0);
    let printed: Value = serde_json::from_str(&out).expect("JSON");
    let served = String::from_utf8(served).expect("UTF-8");
    let (_, body) = served.split_once("\r\n\r\n").expect("a head and a body");
    let served: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(printed, served);
    assert!(is_empty(elsewhere.path()), "no database was created");
    process.stop().await;
}
