//! Runs the jobs of the database, and its reminders, in the background.

use std::{future::Future, time::Duration};

use todo_core::{Core, Error, jobs, reminders, webhooks};
use tokio::{task::JoinHandle, time::MissedTickBehavior};

/// Interval of reading the queue of jobs.
const JOBS_INTERVAL: Duration = Duration::from_secs(15);
/// Interval of reading the due reminders, and those that are queued for webhooks.
const REMINDERS_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the due jobs, now and every 15 seconds, and fires the due reminders and sends those that
/// are queued for webhooks, now and every 5 seconds, until the returned task is dropped. The three
/// do not wait for each other.
#[must_use]
pub fn spawn_jobs(core: &Core) -> JobsTask {
    JobsTask([
        spawn(core, JOBS_INTERVAL, "the queue of jobs", |core| async move {
            jobs::run_due(&core).await.map(drop)
        }),
        spawn(core, REMINDERS_INTERVAL, "the due reminders", |core| async move {
            reminders::fire_due(&core).await.map(drop)
        }),
        spawn(core, REMINDERS_INTERVAL, "the queue of webhooks", |core| async move {
            webhooks::deliver_due(&core).await.map(drop)
        }),
    ])
}

/// Repeats `work`, now and after each interval. What it reads and writes is named in the log lines
/// of its failures.
fn spawn<W, F>(core: &Core, interval: Duration, what: &'static str, work: W) -> JoinHandle<()>
where
    W: Fn(Core) -> F + Send + 'static,
    F: Future<Output = Result<(), Error>> + Send,
{
    let core = core.clone();
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if let Err(error) = work(core.clone()).await {
                tracing::warn!(%error, "{what} cannot be read or written");
            }
        }
    })
}

/// The running tasks; dropping it stops them.
#[derive(Debug)]
pub struct JobsTask([JoinHandle<()>; 3]);

impl Drop for JobsTask {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}
