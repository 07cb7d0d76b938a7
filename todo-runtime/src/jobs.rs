//! Runs the jobs of the database in the background.

use std::time::Duration;

use todo_core::{Core, jobs};

/// Interval of reading the queue.
const POLL_INTERVAL: Duration = Duration::from_secs(15);

/// Runs the due jobs, now and every 15 seconds, until the returned task is dropped.
#[must_use]
pub fn spawn_jobs(core: &Core) -> JobsTask {
    let core = core.clone();
    JobsTask(tokio::spawn(async move {
        let mut interval = tokio::time::interval(POLL_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if let Err(error) = jobs::run_due(&core).await {
                tracing::warn!(%error, "the queue of jobs cannot be read or written");
            }
        }
    }))
}

/// A running task; dropping it stops it.
#[derive(Debug)]
pub struct JobsTask(tokio::task::JoinHandle<()>);

impl Drop for JobsTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
