//! A starting server waits for PostgreSQL, and ends at once on an error that waiting cannot change.

use std::time::Duration;

use todo_tests::{
    Client, PROGRAMS, Process, SECRET_SETTING, STARTING, command, postgres::Cluster, startup_error,
};
use tokio::time::{sleep, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn startup_waits_for_the_database_and_then_fails() {
    let mut cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let url = cluster.url().replace("postgres@", "postgres:hushhush@");
    cluster.shut_down().await.expect("a shutdown");

    for program in PROGRAMS {
        let settings = [("DATABASE_URL", &*url), SECRET_SETTING, ("DATABASE_STARTUP_SECONDS", "1")];
        let ended = timeout(STARTING, command(program, dir.path(), &settings).output()).await;
        let ended = ended.expect("an exit in time").expect("the program runs");
        let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("waiting for the database"), "{stderr}");
        assert_eq!(
            stderr.lines().filter(|line| line.starts_with("error: ")).count(),
            1,
            "{stderr}"
        );
        assert!(
            stderr.lines().last().is_some_and(|l| l.starts_with("error: cannot open")),
            "{stderr}"
        );
        assert!(!stderr.contains("hushhush"), "{stderr}");
    }

    let settings = [("DATABASE_URL", &*url), SECRET_SETTING, ("DATABASE_STARTUP_SECONDS", "60")];
    let (started, restarted) =
        tokio::join!(Process::start(PROGRAMS[0], dir.path(), &settings), async {
            sleep(Duration::from_secs(1)).await;
            cluster.start_again().await
        });
    restarted.expect("a restart");
    Client::of(started.addr).get("/health/db").await.expect(200);
    assert!(started.output().contains("waiting for the database"), "{}", started.output());
    started.stop().await;

    // A permanent error is reported at once, with a minute of the startup time left.
    let missing = format!("{}/no_such_database", url.trim_end_matches("/postgres"));
    let settings =
        [("DATABASE_URL", &*missing), SECRET_SETTING, ("DATABASE_STARTUP_SECONDS", "60")];
    let stderr = startup_error(PROGRAMS[1], dir.path(), &settings).await;
    assert!(!stderr.contains("waiting for the database"), "{stderr}");
}
