//! The queue of jobs on both databases: every due job runs once, whatever number of processes
//! there is; a failed or an abandoned one runs again.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};
use todo_core::{
    Clock, Core, Secret,
    jobs::{JobReport, run_due},
};
use todo_tests::{App, Database, Server, Target, at_once, execute_sql};

/// Jobs of this version that are due every minute.
const JOBS: usize = 5;

/// Cores on one database, as in several processes, with one clock. The app only owns the database:
/// its own jobs have run, and are due in the present.
struct Processes {
    app: App,
    cores: Vec<Core>,
    /// Seconds since the begin, which is a day ahead of the app's clock.
    seconds: Arc<AtomicI64>,
}

impl Processes {
    async fn start(database: Database, count: usize) -> Self {
        let mut app = App::start(Target { server: Server::Hyper, database }).await;
        app.stop_server().await.expect("a clean stop");
        let begin: DateTime<Utc> = Clock::system().now() + TimeDelta::days(1);
        let seconds: Arc<AtomicI64> = Arc::default();
        let mut cores = Vec::new();
        for _ in 0..count {
            let now = Arc::clone(&seconds);
            let clock =
                Clock::from_fn(move || begin + TimeDelta::seconds(now.load(Ordering::Relaxed)));
            let secret = Secret::new(app.secret()).expect("a secret");
            let core = Core::builder(secret).clock(clock).open(app.database_url()).await;
            cores.push(core.expect("the database opens"));
        }
        // The jobs of each hour are not due again in these tests.
        run_due(&cores[0]).await.expect("the queue");
        seconds.fetch_add(60, Ordering::Relaxed);
        Self { app, cores, seconds }
    }

    fn advance(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// The jobs that one process runs now.
    async fn run(&self) -> (usize, usize) {
        let report = run_due(&self.cores[0]).await.expect("the queue");
        (report.succeeded, report.failed)
    }

    async fn sql(&self, sql: &str) {
        execute_sql(self.app.database_url(), sql).await;
    }

    async fn stop(self) {
        for core in self.cores {
            core.close().await;
        }
    }
}

on_both_databases! {
    async fn due_jobs_run_once(database) {
        let processes = Processes::start(database, 4).await;
        for minute in 0..25 {
            let cores = processes.cores.clone();
            let reports: Vec<JobReport> = at_once(16, |i| {
                let core = cores[i % cores.len()].clone();
                async move { run_due(&core).await.expect("the queue") }
            })
            .await;
            let ran: usize = reports.iter().map(|report| report.succeeded).sum();
            assert_eq!(ran, JOBS, "in minute {minute}");
            assert!(reports.iter().all(|report| report.failed == 0));
            assert_eq!(processes.run().await, (0, 0), "none is due");
            processes.advance(60);
        }
        processes.stop().await;
    }

    async fn an_abandoned_job_runs_when_its_lease_ends(database) {
        let processes = Processes::start(database, 1).await;
        assert_eq!(processes.run().await, (JOBS, 0));
        processes.advance(60);
        // A process has leased a job, and ended.
        let lease = match database {
            Database::Sqlite => "zeroblob(16), leased_until = run_at + 90000000",
            Database::Postgres => {
                "'00000000-0000-0000-0000-000000000000', leased_until = run_at + interval '90 s'"
            }
        };
        let sql = format!("UPDATE jobs SET lease = {lease} WHERE kind = 'delete_expired_todos'");
        processes.sql(&sql).await;
        assert_eq!(processes.run().await, (JOBS - 1, 0));
        processes.advance(60);
        assert_eq!(processes.run().await, (JOBS - 1, 0), "the lease lasts");
        processes.advance(60);
        assert_eq!(processes.run().await, (JOBS, 0), "the lease has ended");
        processes.stop().await;
    }

    async fn a_failed_job_runs_again_and_does_not_stop_the_others(database) {
        let processes = Processes::start(database, 1).await;
        assert_eq!(processes.run().await, (JOBS, 0));
        processes.sql("ALTER TABLE rate_limits RENAME TO gone").await;
        processes.advance(60);
        assert_eq!(processes.run().await, (JOBS - 1, 1));
        // Again after 5, 10 and 20 seconds.
        for (wait, ran) in [(4, 0), (1, 1), (9, 0), (1, 1), (19, 0), (1, 1)] {
            processes.advance(wait);
            assert_eq!(processes.run().await, (0, ran), "after {wait} s");
        }
        processes.sql("ALTER TABLE gone RENAME TO rate_limits").await;
        processes.advance(40);
        // The other one has been due for some seconds.
        assert_eq!(processes.run().await, (JOBS, 0));
        processes.sql("ALTER TABLE rate_limits RENAME TO gone").await;
        processes.advance(60);
        assert_eq!(processes.run().await, (JOBS - 1, 1));
        processes.advance(5);
        assert_eq!(processes.run().await, (0, 1), "a success has reset the delay");
        processes.sql("ALTER TABLE gone RENAME TO rate_limits").await;
        processes.stop().await;
    }

    async fn a_job_of_a_newer_version_is_left_alone(database) {
        let processes = Processes::start(database, 1).await;
        processes
            .sql("INSERT INTO jobs (kind, run_at) SELECT 'of_tomorrow', run_at FROM jobs LIMIT 1")
            .await;
        assert_eq!(processes.run().await, (JOBS, 0));
        // A job that someone has deleted is inserted by the next start.
        processes.sql("DELETE FROM jobs WHERE kind = 'delete_expired_todos'").await;
        processes.advance(60);
        assert_eq!(processes.run().await, (JOBS - 1, 0));
        let secret = Secret::new(processes.app.secret()).expect("a secret");
        let seconds = Arc::clone(&processes.seconds);
        let begin = Clock::system().now() + TimeDelta::days(2);
        let clock = Clock::from_fn(move || begin + TimeDelta::seconds(seconds.load(Ordering::Relaxed)));
        let next = Core::builder(secret).clock(clock).open(processes.app.database_url()).await;
        let next = next.expect("the database opens");
        // A day later, the four of each hour are due too.
        assert_eq!(run_due(&next).await.expect("the queue").succeeded, JOBS + 4);
        next.close().await;
        processes.stop().await;
    }
}
