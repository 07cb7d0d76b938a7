//! The responses to a group of committed writes.
//!
//! Each response wakes the task of a request. A group may have 256, all of one client: sent at
//! once, they fill the runtime's queue, and a request of another client waits behind all of them.
//! So a task of the runtime sends a few at a time.

use std::{sync::Arc, vec};

use tokio::runtime::{Handle, RuntimeFlavor};

/// Maximum number of responses between two chances for other tasks to run.
const AT_ONCE: usize = 4;

/// Responds to the caller of a write with the outcome of the commit.
pub(super) type Respond = Box<dyn FnOnce(Outcome) + Send>;

/// The outcome of a commit.
type Outcome = Result<(), Arc<rusqlite::Error>>;

/// Sends responses on the runtime that opened the database.
pub(super) struct Responses {
    /// `None` unless the runtime has its own threads: another one runs tasks only while one of its
    /// futures is awaited, and the callers may be on a different runtime.
    runtime: Option<Handle>,
}

impl Responses {
    pub(super) fn new() -> Self {
        let has_threads = |runtime: &Handle| runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
        Self { runtime: Handle::try_current().ok().filter(has_threads) }
    }

    /// Sends the outcome of a commit to its callers, in order.
    pub(super) fn send(&self, outcome: Outcome, callers: Vec<Respond>) {
        let is_long = callers.len() > 4 * AT_ONCE;
        let mut group = Group { outcome, callers: callers.into_iter() };
        if let Some(runtime) = self.runtime.as_ref().filter(|_| is_long) {
            runtime.spawn(async move {
                while group.send(AT_ONCE) {
                    // The runtime then polls for new requests before it continues this task.
                    tokio::task::yield_now().await;
                }
            });
        }
    }
}

/// The callers of a group that have no response yet. They receive it at the latest when the group
/// is dropped, as by the end of the runtime.
struct Group {
    outcome: Outcome,
    callers: vec::IntoIter<Respond>,
}

impl Group {
    /// Responds to the next callers, and returns whether there may be more.
    fn send(&mut self, count: usize) -> bool {
        for respond in self.callers.by_ref().take(count) {
            respond(self.outcome.clone());
        }
        self.callers.len() > 0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.send(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Callers that note the order of their responses.
    fn callers(count: usize) -> (Vec<Respond>, Arc<Mutex<Vec<usize>>>) {
        let order: Arc<Mutex<Vec<usize>>> = Arc::default();
        let caller = |index| {
            let order = Arc::clone(&order);
            let respond: Respond = Box::new(move |outcome| {
                assert!(outcome.is_ok());
                order.lock().unwrap().push(index);
            });
            respond
        };
        ((0..count).map(caller).collect(), order)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap()
    }

    #[test]
    fn a_task_that_becomes_ready_runs_before_the_whole_group_has_its_responses() {
        let runtime = runtime();
        let responses = runtime.block_on(async { Responses::new() });
        let (mut callers, order) = callers(200);
        let seen: Arc<Mutex<Option<usize>>> = Arc::default();
        // The first response makes a task of another client ready.
        let (handle, sent, seen_by_task) =
            (runtime.handle().clone(), Arc::clone(&order), Arc::clone(&seen));
        let first: Respond = Box::new(move |_| {
            handle.spawn(async move {
                *seen_by_task.lock().unwrap() = Some(sent.lock().unwrap().len());
            });
        });
        callers.insert(0, first);
        responses.send(Ok(()), callers);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while order.lock().unwrap().len() < 200 && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(*order.lock().unwrap(), (0..200).collect::<Vec<_>>());
        let sent = seen.lock().unwrap().expect("the other task ran");
        assert!(sent <= 2 * AT_ONCE, "{sent} responses came first");
    }

    #[test]
    fn every_caller_has_a_response_without_a_running_runtime() {
        let ended = runtime();
        let responses = ended.block_on(async { Responses::new() });
        drop(ended);
        let current_thread = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let idle = current_thread.block_on(async { Responses::new() });
        for responses in [responses, idle, Responses::new()] {
            let (callers, order) = callers(200);
            responses.send(Ok(()), callers);
            assert_eq!(*order.lock().unwrap(), (0..200).collect::<Vec<_>>());
        }
    }
}
