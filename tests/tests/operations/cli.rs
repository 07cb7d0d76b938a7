//! The command lines of both programs: help, exit codes, and the account and database commands.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Output, Stdio},
};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::{Value, json};
use todo_tests::{
    Actor, Client, PROGRAMS, Process, STARTING, command, empty_dir, postgres::Cluster,
};
use tokio::{io::AsyncWriteExt, time::timeout};

async fn run(
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

fn is_empty(dir: &Path) -> bool {
    dir.read_dir().expect("a directory").next().is_none()
}

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

/// The account commands, beside a running server.
async fn manage_accounts(url: &str) {
    let dir = empty_dir();
    let settings = [("DATABASE_URL", url)];
    let user = async |arguments: &[&str]| {
        run("todo-server", dir.path(), &settings, &[&["user"], arguments].concat()).await
    };
    let server = Process::start("todo-server", dir.path(), &settings).await;
    let client = Client::of(server.addr);
    let sign_up = async |email: &str, name: &str| {
        let account = json!({"email": email, "password": "Correct1horse", "name": name});
        let auth = client.post("/api/auth/signup", account).await.expect(201);
        Actor::of(&client, &auth, "Correct1horse")
    };
    let log_in = async |email: &str, password: &str| {
        let login = json!({"email": email, "password": password});
        client.post("/api/auth/login", login).await
    };
    let ada = sign_up("ada@example.com", "Ada\u{202e} Lovelace").await;
    let joerg = sign_up("jörg@exämple.com", "Jörg").await;
    let todo = ada.todo("Buy milk").await;
    joerg.todo("Milch").await;

    let (code, out, err) = user(&["list"]).await;
    assert_eq!((code, &*err), (0, ""), "{out}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert!(lines[0].starts_with("ada@example.com\tAda\\u{202e} Lovelace\t"), "{out}");
    assert!(lines[0].contains(ada.id()) && lines[0].ends_with("Z\t1\t1"), "{out}");
    assert!(lines[1].starts_with("jörg@exämple.com\tJörg\t"), "{out}");
    assert!(!out.contains("argon2"), "{out}");

    // A new password, printed once; the sessions end.
    let (code, out, err) = user(&["reset-password", "ADA@example.com"]).await;
    assert_eq!(code, 0, "{err}");
    let password = out.trim();
    assert!(password.len() == 20 && !err.contains(password), "{out}{err}");
    ada.get("/api/auth/me").await.problem(401, "unauthorized");
    log_in("ada@example.com", "Correct1horse").await.problem(401, "invalid_credentials");
    let auth = log_in("ada@example.com", password).await.expect(200);
    let ada = Actor::of(&client, &auth, password);
    joerg.get("/api/auth/me").await.expect(200);

    // It prompts, and accepts only "yes".
    for answer in ["", "\n", "no\n", "y\n"] {
        let mut child = command("todo-server", dir.path(), &settings);
        child.args(["user", "delete", "ada@example.com"]).stdin(Stdio::piped());
        let mut child = child.spawn().expect("it runs");
        let mut input = child.stdin.take().expect("an input");
        input.write_all(answer.as_bytes()).await.expect("it reads");
        drop(input);
        let ended = timeout(STARTING, child.wait_with_output()).await.expect("an end in time");
        let ended = ended.expect("it runs");
        let err = String::from_utf8(ended.stderr).expect("UTF-8");
        assert_eq!(ended.status.code(), Some(1), "{answer:?}: {err}");
        assert!(err.contains("1 sessions and 1 todos") && err.contains("Nothing was"), "{err}");
    }
    ada.get("/api/auth/me").await.expect(200);
    let (code, out, err) = user(&["delete", "--yes", "Ada@example.com"]).await;
    assert_eq!((code, &*err), (0, ""));
    assert_eq!(out, "Deleted ada@example.com with 1 sessions and 1 todos.\n");
    ada.get(&ada.todos()).await.problem(401, "unauthorized");
    let path = format!("{}/{}", ada.todos(), todo["id"].as_str().expect("an id"));
    ada.delete(&path).await.problem(401, "unauthorized");
    log_in("ada@example.com", password).await.problem(401, "invalid_credentials");
    assert_eq!(joerg.get(&joerg.todos()).await.expect(200)["total"], 1);

    for arguments in [&["delete", "--yes", "ada@example.com"][..], &["reset-password", "x"]] {
        let (code, out, err) = user(arguments).await;
        assert_eq!((code, &*out), (1, ""), "{arguments:?}");
        assert!(err.contains("There is no such account."), "{err}");
    }
    let (code, out, _) = user(&["delete", "--yes", "jörg@xn--exmple-cua.com"]).await;
    assert_eq!((code, &*out), (0, "Deleted jörg@exämple.com with 1 sessions and 1 todos.\n"));
    let (code, out, _) = user(&["list"]).await;
    assert_eq!((code, &*out), (0, ""));
    server.stop().await;
}

#[tokio::test]
async fn accounts_are_listed_deleted_and_given_passwords() {
    let dir = empty_dir();
    let file = format!("sqlite://{}", dir.path().join("todo.db").display());
    let (code, _, err) =
        run("todo-server", dir.path(), &[("DATABASE_URL", &file)], &["user", "list"]).await;
    assert!(code == 1 && is_empty(dir.path()), "reading creates no file: {err}");
    manage_accounts(&file).await;
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let url = cluster.url();
    let (code, _, err) =
        run("todo-server", dir.path(), &[("DATABASE_URL", &url)], &["user", "list"]).await;
    assert!(code == 1 && err.contains("not of this program"), "{err}");
    manage_accounts(&url).await;
    cluster.stop().await.expect("it stops");
}

#[tokio::test]
async fn a_health_check_distinguishes_a_live_server_from_a_dead_one() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let process = Process::start(program, dir.path(), &[("HOST", "0.0.0.0")]).await;
        let port = process.addr.port().to_string();
        let asked = [("HOST", "0.0.0.0"), ("PORT", port.as_str())];
        let elsewhere = empty_dir();
        let (code, _, err) = run(program, elsewhere.path(), &asked, &["healthcheck"]).await;
        assert_eq!(code, 0, "{program}: {err}");
        process.stop().await;
        let (code, _, err) = run(program, elsewhere.path(), &asked, &["healthcheck"]).await;
        assert_eq!((code, err.lines().count()), (1, 1), "{program}: {err}");
        assert!(is_empty(elsewhere.path()), "a check creates no file");

        // A server that accepts and never responds.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = silent.local_addr().expect("an address").port().to_string();
        let asked = [("PORT", port.as_str())];
        let (code, _, err) = run(program, elsewhere.path(), &asked, &["healthcheck"]).await;
        assert_eq!(code, 1, "{program}");
        assert!(err.contains("3 s"), "{err}");
    }
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

/// Writes a certificate that expires in the year `until`, and its key; returns their paths.
fn certificate(dir: &Path, name: &str, until: i32) -> [String; 2] {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let cert = params.self_signed(&key).expect("a certificate");
    [("crt", cert.pem()), ("key", key.serialize_pem())].map(|(kind, pem)| {
        let path = dir.join(format!("{name}.{kind}"));
        fs::write(&path, pem).expect("a file");
        path.display().to_string()
    })
}

#[tokio::test]
async fn a_health_check_over_tls_trusts_the_configured_certificate_only() {
    let (dir, elsewhere) = (empty_dir(), empty_dir());
    let [cert, key] = certificate(dir.path(), "own", 2090);
    let [other, other_key] = certificate(dir.path(), "other", 2090);
    let settings = [("TLS_CERT", &*cert), ("TLS_KEY", &*key)];
    let process = Process::start("todo-server", dir.path(), &settings).await;
    let port = process.addr.port().to_string();
    let port = ("PORT", &*port);
    for (cert, key, code, named) in [
        (&cert, &key, 0, ""),
        (&other, &other_key, 1, "not the one in TLS_CERT"),
        (&String::new(), &String::new(), 1, "health check of "),
        (&dir.path().join("none").display().to_string(), &key, 1, "none: "),
    ] {
        let asked = [port, ("TLS_CERT", &**cert), ("TLS_KEY", &**key)];
        let (found, _, err) = run("todo-server", elsewhere.path(), &asked, &["healthcheck"]).await;
        assert_eq!(found, code, "{cert}: {err}");
        assert!(err.contains(named), "{err}");
    }
    process.stop().await;
}

/// The exit code and output of `doctor` with `settings`; asserts that it leaves no file.
async fn doctor(settings: &[(&str, &str)]) -> (i32, String) {
    let dir = empty_dir();
    let (code, out, err) = run("todo-server", dir.path(), settings, &["doctor"]).await;
    assert_eq!(err, "");
    assert!(is_empty(dir.path()), "it creates no file");
    assert!(!out.contains("hush"), "a secret is printed: {out}");
    let failed = out.lines().any(|line| line.starts_with("FAIL "));
    assert_eq!(failed, code == 1, "{code}: {out}");
    (code, out)
}

#[tokio::test]
async fn the_doctor_checks_and_changes_nothing() {
    const SECRET: &str = "hush-6b1f0a0d9b3c4e5f8a7d6c5b4a392817";
    let files = empty_dir();
    let (code, out) = doctor(&[]).await;
    assert_eq!(code, 0, "{out}");
    for line in
        ["DATABASE_URL=sqlite://todo.db", "SECRET_KEY=(not set)", "warn SECRET_KEY: not set"]
    {
        assert!(out.contains(line), "{line} in {out}");
    }
    assert!(out.contains("warn database: does not exist yet"), "{out}");

    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let url = cluster.url();
    let (_, out) = doctor(&[("DATABASE_URL", &url)]).await;
    assert!(
        out.contains("ok   pooler: ") && out.contains("warn database: does not exist yet"),
        "{out}"
    );
    let migrated = run("todo-server", files.path(), &[("DATABASE_URL", &url)], &["migrate"]).await;
    assert_eq!(migrated.0, 0);
    let [cert, key] = certificate(files.path(), "own", 2090);
    let [late, late_key] = certificate(files.path(), "late", 2021);
    let production = [
        ("DATABASE_URL", &*url),
        ("SECRET_KEY", SECRET),
        ("ENVIRONMENT", "production"),
        ("TLS_CERT", &cert),
        ("TLS_KEY", &key),
    ];
    let (code, out) = doctor(&production).await;
    assert_eq!(code, 0, "{out}");
    for line in [
        "SECRET_KEY=(set, hidden)",
        "ENVIRONMENT=production",
        "ok   SECRET_KEY: ",
        "ok   production: ",
        "ok   database: reachable",
        "ok   migrations: up to date",
        "ok   TLS_CERT: readable",
        "ok   TLS_KEY: ",
        "ok   TLS dates: valid for ",
    ] {
        assert!(out.contains(line), "{line} in {out}");
    }
    let away = "postgres://ada:hush@127.0.0.1:1/todo";
    for (name, value, line) in [
        ("DATABASE_URL", away, "FAIL database: "),
        ("DATABASE_URL", away, "postgres://ada:***@127.0.0.1:1/todo"),
        ("MIGRATIONS_DATABASE_URL", away, "FAIL MIGRATIONS_DATABASE_URL: "),
        ("TLS_KEY", &late_key, "FAIL TLS_KEY: "),
        ("TLS_KEY", "/nowhere/hm", "FAIL TLS_KEY: /nowhere/hm: "),
        ("TLS_CERT", &late, "FAIL TLS dates: expired "),
        ("TLS_CERT", &key, "FAIL TLS_CERT: "),
        ("SECRET_KEY", "hush", "FAIL settings: bad settings: SECRET_KEY "),
    ] {
        let (code, out) = doctor(&[&production[..], &[(name, value)]].concat()).await;
        assert_eq!(code, 1, "{name}={value}: {out}");
        assert!(out.contains(line), "{line} in {out}");
    }
    let plain: Vec<_> = production.into_iter().filter(|(name, _)| !name.contains("TLS")).collect();
    let (code, out) = doctor(&plain).await;
    assert!(code == 1 && out.contains("FAIL production: plain http is refused"), "{out}");
    cluster.stop().await.expect("it stops");
}

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
