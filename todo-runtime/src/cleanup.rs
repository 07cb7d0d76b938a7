//! Deletes expired rows in the background.

use std::time::Duration;

use todo_core::{Core, auth, todos};

/// Interval of deleting expired rows.
const CLEANUP_INTERVAL: Duration = Duration::from_mins(1);

/// Deletes expired rows, now and every minute, until the returned task is dropped.
#[must_use]
pub fn spawn_cleanup(core: &Core) -> CleanupTask {
    let core = core.clone();
    CleanupTask(tokio::spawn(async move {
        let mut interval = tokio::time::interval(CLEANUP_INTERVAL);
        loop {
            interval.tick().await;
            if let Err(error) = auth::delete_expired(&core).await {
                tracing::warn!(%error, "expired sessions were not deleted");
            }
            if let Err(error) = todos::delete_expired(&core).await {
                tracing::warn!(%error, "expired todos in the trash were not deleted");
            }
        }
    }))
}

/// A running cleanup task; dropping it stops the task.
#[derive(Debug)]
pub struct CleanupTask(tokio::task::JoinHandle<()>);

impl Drop for CleanupTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
