//! [`CallerQueues`]: the limit of concurrent operations per caller. Further operations wait in that
//! caller's queue, first in, first out. So a caller's load delays only that caller, and an
//! operation whose client disconnects while it is queued does not reach the database.
//!
//! This module is independent of the database: [`crate::core`] acquires the permits.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    db::WaitStats,
    error::{Error, Result},
    ids::UserId,
};

/// Maximum length of one caller's queue; beyond it, [`Error::Busy`] at once.
const MAX_WAITING: usize = 512;

/// The queues of all callers. Only callers with a running operation have an entry.
pub(crate) struct CallerQueues {
    max_running: usize,
    max_wait: Duration,
    queues: Mutex<HashMap<UserId, CallerQueue>>,
    waits: Arc<WaitStats>,
}

/// One caller's operations. They wait only while the maximum is running.
#[derive(Default)]
struct CallerQueue {
    running: usize,
    /// Senders of dropped operations stay here, closed, until they are first or the queue is full.
    waiting: VecDeque<oneshot::Sender<CallerPermit>>,
}

/// Permit to run one operation. Dropping it passes it to the next in the queue.
pub(crate) struct CallerPermit(Option<(Arc<CallerQueues>, UserId)>);

impl CallerQueues {
    /// Queues that let each caller run `max_running` operations at once (at least one); the others
    /// wait for at most `max_wait`.
    pub(crate) fn new(max_running: usize, max_wait: Duration) -> Arc<Self> {
        let max_running = max_running.max(1);
        Arc::new(Self { max_running, max_wait, queues: Mutex::default(), waits: Arc::default() })
    }

    /// Waits for a permit of `caller`. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`Error::Busy`] at once if the queue is full, and after `max_wait` in it.
    pub(crate) async fn acquire(self: &Arc<Self>, caller: UserId) -> Result<CallerPermit> {
        let permit = {
            let mut queues = self.queues();
            let queue = queues.entry(caller).or_default();
            if queue.running < self.max_running {
                queue.running += 1;
                return Ok(CallerPermit(Some((Arc::clone(self), caller))));
            }
            if queue.waiting.len() >= MAX_WAITING {
                queue.waiting.retain(|waiting| !waiting.is_closed());
            }
            if queue.waiting.len() >= MAX_WAITING {
                return Err(Error::Busy);
            }
            let (sender, receiver) = oneshot::channel();
            queue.waiting.push_back(sender);
            receiver
        };
        let _waiting = WaitStats::begin(Arc::clone(&self.waits));
        match tokio::time::timeout(self.max_wait, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::Busy),
        }
    }

    /// The queued operations, and their total wait.
    #[cfg(feature = "http")]
    pub(crate) fn waits(&self) -> &WaitStats {
        &self.waits
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<UserId, CallerQueue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next operation from the caller's queue. If it is empty, one operation less is
    /// running.
    fn pop_next(&self, caller: UserId) -> Option<oneshot::Sender<CallerPermit>> {
        let mut queues = self.queues();
        let queue = queues.get_mut(&caller)?;
        let next = queue.waiting.pop_front();
        if next.is_none() {
            queue.running -= 1;
            if queue.running == 0 {
                queues.remove(&caller);
            }
        }
        next
    }
}

impl Drop for CallerPermit {
    fn drop(&mut self) {
        let Some((queues, caller)) = self.0.take() else { return };
        while let Some(next) = queues.pop_next(caller) {
            match next.send(CallerPermit(Some((Arc::clone(&queues), caller)))) {
                // If the receiver is dropped later, the channel drops the permit, which passes it
                // on.
                Ok(()) => return,
                // The receiver is gone: defuse the returned permit and try the next in the queue.
                Err(mut permit) => permit.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;

    const ANN: UserId = UserId::new(uuid::Uuid::from_u128(1));
    const BOB: UserId = UserId::new(uuid::Uuid::from_u128(2));
    const MAX_WAIT: Duration = Duration::from_secs(2);

    /// A queued operation: a future that has been polled once and is pending.
    fn wait(
        queues: &Arc<CallerQueues>,
        caller: UserId,
    ) -> futures_util::future::BoxFuture<'static, Result<CallerPermit>> {
        let queues = Arc::clone(queues);
        let mut waiting = async move { queues.acquire(caller).await }.boxed();
        assert!(waiting.as_mut().now_or_never().is_none(), "the operation must wait");
        waiting
    }

    #[tokio::test]
    async fn a_caller_waits_only_for_its_own_operations() {
        let queues = CallerQueues::new(2, MAX_WAIT);
        let (one, _two) = (queues.acquire(ANN).await.unwrap(), queues.acquire(ANN).await.unwrap());
        let (mut third, mut fourth) = (wait(&queues, ANN), wait(&queues, ANN));
        let _bob = queues.acquire(BOB).now_or_never().expect("at once").unwrap();
        drop(one);
        assert!(fourth.as_mut().now_or_never().is_none(), "the third came first");
        let third = third.as_mut().now_or_never().expect("a permit").unwrap();
        drop(third);
        fourth.as_mut().now_or_never().expect("a permit").unwrap();
    }

    #[tokio::test]
    async fn a_new_operation_does_not_overtake_a_queued_one() {
        let queues = CallerQueues::new(1, MAX_WAIT);
        let one = queues.acquire(ANN).await.unwrap();
        let mut second = wait(&queues, ANN);
        drop(one);
        // The second has the permit, although it was not polled again yet.
        let _third = wait(&queues, ANN);
        second.as_mut().now_or_never().expect("a permit").unwrap();
    }

    #[tokio::test]
    async fn a_dropped_operation_leaves_the_queue_at_each_step() {
        let queues = CallerQueues::new(1, MAX_WAIT);
        drop(queues.acquire(ANN));
        assert!(queues.queues().is_empty(), "no operation was started");
        let one = queues.acquire(ANN).await.unwrap();
        // Dropped while queued; with a permit sent but not received; with the permit received.
        let (waiting, sent, received, last) =
            (wait(&queues, ANN), wait(&queues, ANN), wait(&queues, ANN), wait(&queues, ANN));
        drop(waiting);
        drop(one);
        drop(sent);
        let received = received.now_or_never().expect("a permit").unwrap();
        drop(received);
        drop(last.now_or_never().expect("a permit").unwrap());
        assert!(queues.queues().is_empty());
    }

    #[tokio::test]
    async fn a_queue_is_bounded_and_dropped_operations_do_not_count() {
        let queues = CallerQueues::new(1, MAX_WAIT);
        let one = queues.acquire(ANN).await.unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| wait(&queues, ANN)).collect();
        assert!(matches!(queues.acquire(ANN).await, Err(Error::Busy)));
        queues.acquire(BOB).await.unwrap();
        waiting.truncate(MAX_WAITING / 2);
        for _ in 0..10 * MAX_WAITING {
            drop(wait(&queues, ANN));
        }
        assert!(queues.queues()[&ANN].waiting.len() <= MAX_WAITING);
        drop((one, waiting));
        assert!(queues.queues().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_times_out() {
        let queues = CallerQueues::new(1, MAX_WAIT);
        let one = queues.acquire(ANN).await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(matches!(queues.acquire(ANN).await, Err(Error::Busy)));
        assert_eq!(began.elapsed(), MAX_WAIT);
        drop(one);
        assert!(queues.queues().is_empty());
        queues.acquire(ANN).await.unwrap();
    }

    /// Tasks that start, run and are aborted at any point, on several threads: never too many run
    /// at once, and no permit is lost.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_permit_is_lost_or_duplicated_when_tasks_are_aborted() {
        const MAX_RUNNING: usize = 3;
        let queues = CallerQueues::new(MAX_RUNNING, Duration::from_mins(1));
        let running = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..50 {
            let mut tasks = Vec::new();
            for i in 0..40_usize {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (queues, running, yields) =
                    (Arc::clone(&queues), running.clone(), random >> 61);
                let task = tokio::spawn(async move {
                    let of = i % 2;
                    let permit =
                        queues.acquire(uuid::Uuid::from_u128(of as u128).into()).await.unwrap();
                    let before = running[of].fetch_add(1, Ordering::SeqCst);
                    let ending = Ending(&running[of]);
                    assert!(before < MAX_RUNNING, "{before} are running");
                    for _ in 0..yields {
                        tokio::task::yield_now().await;
                    }
                    drop(ending);
                    drop(permit);
                });
                tasks.push((task, (random >> 33).is_multiple_of(3)));
            }
            for (task, is_aborted) in &tasks {
                if *is_aborted {
                    task.abort();
                }
            }
            for (task, is_aborted) in tasks {
                let ended = tokio::time::timeout(Duration::from_secs(30), task).await;
                let ended = ended.expect("a permit was lost");
                assert!(ended.is_ok() || is_aborted, "{ended:?}");
            }
            assert!(queues.queues().is_empty());
        }
    }

    struct Ending<'a>(&'a AtomicUsize);

    impl Drop for Ending<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
