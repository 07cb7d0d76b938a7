//! PostgreSQL fails in part: it is read-only, its disk is full, or a row is locked. Requests that
//! can succeed still do.

use std::{io::Write, path::PathBuf, process::Command, time::Duration};

use serde_json::json;
use sqlx::{Executor, PgConnection};
use tempfile::TempDir;
use todo_tests::{App, Database, Server, Target, at_once, postgres::Cluster};
use tokio::time::{Instant, sleep};

use super::{DETECTED_WITHIN, Deployment, MAX_WAIT, POOL, admin, every_route};

/// A read-only database: reads are served, writes are a 503.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_server_still_serves_reads() {
    let site = Deployment::start(Server::Hyper).await;
    let (user, todo) = (&site.user, &site.todo);
    let mut admin = admin(&site.cluster).await;
    let set = async |admin: &mut PgConnection, to: &'static str| {
        admin.execute(to).await.expect("a changed setting");
        admin.execute("SELECT pg_reload_conf()").await.expect("a reload");
    };
    set(&mut admin, "ALTER SYSTEM SET default_transaction_read_only = on").await;
    let patch = async || user.patch(todo, json!({"title": "changed"})).await;
    let deadline = Instant::now() + MAX_WAIT;
    while patch().await.status == 200 {
        assert!(Instant::now() < deadline, "never became read-only");
    }
    for _ in 0..20 {
        let began = Instant::now();
        patch().await.problem(503, "unavailable");
        assert!(began.elapsed() < DETECTED_WITHIN, "{:?}", began.elapsed());
        user.get(todo).await.expect(200);
        user.get(&user.todos()).await.expect(200);
        user.get("/api/auth/me").await.expect(200);
    }
    for answer in every_route(user, todo, "HEAD").await {
        // 400: the link of no mail; 404: no list; 426: HEAD is no handshake.
        assert!([200, 400, 404, 426, 503].contains(&answer.status), "{answer}");
    }
    user.get("/api/auth/me").await.expect(200);
    site.app.anonymous().get("/health/db").await.expect(200);
    let metrics = site.metrics().await;
    assert!(metrics.contains("database_breaker_open 0"), "{metrics}");

    // Without this, `set` itself would fail as a write.
    set(&mut admin, "SET default_transaction_read_only = off").await;
    set(&mut admin, "ALTER SYSTEM RESET default_transaction_read_only").await;
    let deadline = Instant::now() + MAX_WAIT;
    while patch().await.status != 200 {
        assert!(Instant::now() < deadline, "still read-only");
    }
    site.app.stop().await.expect("a clean stop");
}

/// A small file system; unmounted on drop, after the values declared later.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Result<Disk, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=24m,mode=777", "tmpfs"]).arg(dir.path());
        let output = mount.output().map_err(|e| e.to_string())?;
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() { Ok(Disk(dir)) } else { Err(stderr) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// On a full disk, writes without space are a 503 and reads succeed. At the end every acknowledged
/// write is stored and no refused one.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_serves_reads_and_refuses_writes() {
    let disk = match Disk::mount() {
        Ok(disk) => disk,
        Err(why) => {
            // Not `eprintln!`: the test runner hides the output of a passing test.
            let line = format!("NOT RUN: PostgreSQL on a full disk: no tmpfs: {why}\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            return;
        }
    };
    let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    std::fs::create_dir(disk.path("small")).expect("a directory");
    let given = Command::new("chown")
        .arg(format!("--reference={}", cluster.data().display()))
        .arg(disk.path("small"))
        .status();
    assert!(given.expect("chown runs").success());
    let location = disk.path("small").display().to_string();
    let mut admin = admin(&cluster).await;
    admin.execute("CREATE ROLE app LOGIN").await.expect("a role");
    for statement in [
        format!("CREATE TABLESPACE small LOCATION '{location}'"),
        "CREATE DATABASE todo OWNER app TABLESPACE small".to_owned(),
    ] {
        admin.execute(sqlx::AssertSqlSafe(statement)).await.expect("a small database");
    }
    let url = cluster.url().replace("postgres@", "app@").replace("/postgres", "/todo");
    let target = Target { server: Server::Salvo, database: Database::Sqlite };
    let app = App::start_with(target, &[("DATABASE_URL", &url)]).await;
    let user = app.signed_up().await;
    let todos = user.todos();
    let write = async || {
        let todo = json!({"title": "a todo", "description": "x".repeat(1000)});
        user.post(&todos, todo).await
    };
    write().await.expect(201);

    let mut filler = std::fs::File::create(disk.path("filler")).expect("a file");
    while filler.write_all(&[0; 4096]).is_ok() {}
    let mut written = 1;
    let mut refused = 0;
    while refused < 20 {
        let began = Instant::now();
        let answer = write().await;
        assert!(began.elapsed() < MAX_WAIT, "{:?}", began.elapsed());
        match answer.status {
            201 => written += 1,
            _ => {
                answer.problem(503, "unavailable");
                refused += 1;
            }
        }
        assert!(written < 2000, "the disk never filled up");
    }
    assert_eq!(user.get(&format!("{todos}?limit=1")).await.expect(200)["total"], written);
    app.anonymous().get("/health/db").await.expect(200);
    let metrics = app.anonymous().get("/metrics").await.text();
    assert!(metrics.contains("database_breaker_open 0"), "{metrics}");

    drop(filler);
    std::fs::remove_file(disk.path("filler")).expect("a removed file");
    write().await.expect(201);
    assert_eq!(user.get(&format!("{todos}?limit=1")).await.expect(200)["total"], written + 1);
    app.stop().await.expect("a clean stop");
    drop(cluster);
    drop(disk);
}

/// Requests wait for a locked row for longer than a probe takes; other users are unaffected.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_does_not_block_other_users() {
    let Deployment { cluster, app, user: holder, todo: path } =
        Deployment::start(Server::Hyper).await;
    let other = app.signed_up().await;
    let mut lock = admin(&cluster).await;
    lock.execute("BEGIN; SELECT id FROM todos FOR UPDATE").await.expect("a lock");

    // One request fewer than the pool has connections: another user can be served.
    let held = at_once(POOL - 1, |_| {
        let (holder, path) = ((*holder).clone(), path.clone());
        async move { holder.patch(&path, json!({"title": "changed"})).await.status }
    });
    let others = async {
        let until = Instant::now() + Duration::from_millis(2500);
        while Instant::now() < until {
            other.get(&other.todos()).await.expect(200);
            let metrics = app.anonymous().get("/metrics").await.text();
            assert!(metrics.contains("database_breaker_open 0"), "{metrics}");
            sleep(Duration::from_millis(20)).await;
        }
    };
    let (held, ()) = tokio::join!(held, others);
    assert_eq!(held, [503; POOL - 1]);
    lock.execute("ROLLBACK").await.expect("a released lock");
    holder.patch(&path, json!({"title": "changed"})).await.expect(200);
}
