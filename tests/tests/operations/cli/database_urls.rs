//! All commands open the same database for a URL, in any of the spellings of other tools, and
//! report an unusable URL.

use std::path::Path;

use todo_tests::{PROGRAMS, Process, empty_dir, postgres::Cluster};

use super::run;

/// The names of the files in a directory.
fn names(dir: &Path) -> Vec<String> {
    let names = dir.read_dir().expect("a directory").map(|file| file.expect("it").file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn every_url_of_a_file_opens_the_same_file_in_all_commands() {
    for (address, file) in [
        ("sqlite://todo.db?mode=rwc", "todo.db"),
        ("sqlite://a#b.db?mode=rwc", "a#b.db"),
        ("sqlite://a%3Fb%23c.db?cache=private", "a?b#c.db"),
        ("sqlite:///./x.db", "x.db"),
        ("sqlite+aiosqlite:///./y.db", "y.db"),
        ("sqlite://file:z.db?mode=rwc", "z.db"),
    ] {
        for program in PROGRAMS {
            let dir = empty_dir();
            let url = [("DATABASE_URL", address)];
            let process = Process::start(program, dir.path(), &url).await;
            process.stop().await;
            let all = ["", ".lock", ".secret"].map(|end| format!("{file}{end}"));
            assert_eq!(names(dir.path()), all, "{program} {address}");
            for (arguments, printed) in [
                (&["doctor"][..], "ok   migrations: up to date"),
                (&["migrate", "--status"], "applied 1"),
                (&["backup", "kept"], "backed up 0 users"),
            ] {
                let (code, out, err) = run("todo-server", dir.path(), &url, arguments).await;
                assert!(code == 0 && out.contains(printed), "{address} {arguments:?}: {out}{err}");
            }
        }
    }
}

#[tokio::test]
async fn an_unusable_database_url_is_reported_by_doctor_and_at_startup() {
    let dir = empty_dir();
    std::fs::create_dir(dir.path().join("folder")).expect("a directory");
    for (address, named) in [
        ("sqlite://hush.db?mode=ro", "mode=ro"),
        ("sqlite://hush.db?mode=rw", "no such file"),
        ("sqlite://folder", "directory"),
        ("sqlite://nowhere/hush.db", "its directory is not there"),
        ("sqlite://hush.db?vfs=unix", "vfs"),
        ("sqlite+aiosqlite://hush.db", "three slashes"),
        ("postgres://u:hush#1@h/d", "percent-encoded"),
        ("postgresql+asyncpg://u:hu/sh@h/d", "percent-encoded"),
        ("postgres://u:hush@h1,h2/d", "several hosts"),
        ("postgres://u:hush@h/d?service=hush", "the parameter service"),
    ] {
        for (program, command) in
            [(PROGRAMS[0], "serve"), (PROGRAMS[1], "serve"), (PROGRAMS[0], "doctor")]
        {
            let url = [("DATABASE_URL", address)];
            let (code, out, err) = run(program, dir.path(), &url, &[command]).await;
            let printed = out + &err;
            assert!(
                code == 1 && printed.contains(named),
                "{program} {command} {address}: {printed}"
            );
            let shown = printed.replace("DATABASE_URL=sqlite://", "").replace("hush.db", "");
            assert!(!shown.contains("hush"), "{program} {command}: {printed}");
            assert_eq!(names(dir.path()), ["folder"], "{program} {command} {address}");
        }
    }
}

/// URLs of a socket and of an IPv6 address as written for libpq, SQLAlchemy and Cloud SQL.
#[tokio::test]
async fn postgres_is_reached_over_a_socket_and_over_ipv6() {
    let cluster = Cluster::dedicated(&["listen_addresses=127.0.0.1,::1"], &[]).await;
    let cluster = cluster.expect("PostgreSQL");
    let port = cluster.port().expect("a port");
    let socket = cluster.data().parent().expect("a directory").display().to_string();
    let encoded = socket.replace('/', "%2F");
    let dir = empty_dir();
    for address in [
        format!("postgresql+asyncpg://postgres:p@/postgres?host={socket}&port={port}"),
        format!("postgresql+asyncpg://postgres:p@/postgres?host={socket}/.s.PGSQL.{port}"),
        format!("postgresql://postgres@{encoded}:{port}/postgres"),
        format!("postgresql+psycopg2://postgres:p%23%2F%3F@[::1]:{port}/postgres"),
        format!("postgres:///postgres?host=::1&port={port}&user=postgres&connect_timeout=3"),
    ] {
        let url = [("DATABASE_URL", &*address)];
        let (code, _, err) = run("todo-server", dir.path(), &url, &["migrate"]).await;
        assert_eq!(code, 0, "{address}: {err}");
        for program in PROGRAMS {
            Process::start(program, dir.path(), &url).await.stop().await;
        }
        let (code, out, _) = run("todo-server", dir.path(), &url, &["doctor"]).await;
        assert!(code == 0 && out.contains("ok   migrations"), "{address}: {out}");
    }
    cluster.stop().await.expect("it stops");
}
