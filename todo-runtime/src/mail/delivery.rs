//! Sends the queued mails of the database in the background.

use std::time::Duration;

use todo_core::{http::Api, outbox};
use tokio::time::{sleep, timeout};

/// Interval of reading the queue, in which other processes write too.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after an operation of this process has begun to queue a mail: it commits meanwhile.
const COMMIT_PAUSE: Duration = Duration::from_millis(200);
/// Maximum time for a running attempt to end at a stop: less than the mail's lease.
const STOPPING: Duration = Duration::from_secs(25);

/// Sends the mails that are due, one at a time, until [`MailTask::finish`], or until draining
/// begins. Without mails in the API's core it does nothing.
#[must_use]
pub fn spawn_mail(api: &Api) -> MailTask {
    let draining = api.until_draining();
    let core = api.core().clone();
    MailTask(Some(tokio::spawn(async move {
        let mut draining = Box::pin(draining);
        loop {
            let queued = async {
                outbox::until_queued(&core).await;
                sleep(COMMIT_PAUSE).await;
            };
            let has_more = match outbox::deliver_next(&core).await {
                Ok(has_more) => has_more,
                Err(error) => {
                    tracing::warn!(%error, "the queue of mails cannot be read or written");
                    false
                }
            };
            let pause = async {
                if !has_more {
                    tokio::select! {
                        () = queued => {}
                        () = sleep(POLL_INTERVAL) => {}
                    }
                }
            };
            tokio::select! {
                biased;
                () = &mut draining => return,
                () = pause => {}
            }
        }
    })))
}

/// A running task; dropping it stops it, also during an attempt.
#[derive(Debug)]
pub struct MailTask(Option<tokio::task::JoinHandle<()>>);

impl MailTask {
    /// Waits for the end of a running attempt, after draining has begun: an attempt that is cut off
    /// could send the mail twice.
    pub async fn finish(mut self) {
        if let Some(mut task) = self.0.take()
            && timeout(STOPPING, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

impl Drop for MailTask {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
