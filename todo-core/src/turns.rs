//! [`Turns`]: how many operations one caller may have under way at once. Those beyond wait in a line of
//! the caller's own, in the order in which they came. So a caller's load makes that caller wait, and
//! what its client gave up before its turn costs the database nothing.
//!
//! This module knows no database: [`crate::core`] decides what needs a turn.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{
    db::Waits,
    error::{Error, Result},
};

/// Operations that may wait in one caller's line; beyond it, [`Error::Busy`] at once.
const MOST_WAITING: usize = 512;

/// The turns of all callers. It holds only callers with an operation under way.
pub(crate) struct Turns {
    at_once: usize,
    patience: Duration,
    lines: Mutex<HashMap<Uuid, Line>>,
    waits: Arc<Waits>,
}

/// One caller's operations. Some wait only while as many as may be are under way.
#[derive(Default)]
struct Line {
    under_way: usize,
    /// Those that were given up stay here, closed, until their turn comes or the line is full.
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// The right to have an operation under way. Its drop passes it on.
pub(crate) struct Turn(Option<(Arc<Turns>, Uuid)>);

impl Turns {
    /// Allows each caller `at_once` operations under way (at least one), and has the others wait for
    /// at most `patience`.
    pub(crate) fn new(at_once: usize, patience: Duration) -> Arc<Self> {
        let at_once = at_once.max(1);
        Arc::new(Self { at_once, patience, lines: Mutex::default(), waits: Arc::default() })
    }

    /// Waits for a turn of `caller`. Dropped before that, it leaves the line.
    ///
    /// # Errors
    /// [`Error::Busy`] at once if the line is full, and after `patience` in it.
    pub(crate) async fn take(self: &Arc<Self>, caller: Uuid) -> Result<Turn> {
        let given = {
            let mut lines = self.lines();
            let line = lines.entry(caller).or_default();
            if line.under_way < self.at_once {
                line.under_way += 1;
                return Ok(Turn(Some((Arc::clone(self), caller))));
            }
            if line.waiting.len() >= MOST_WAITING {
                line.waiting.retain(|waiting| !waiting.is_closed());
            }
            if line.waiting.len() >= MOST_WAITING {
                return Err(Error::Busy);
            }
            let (give, given) = oneshot::channel();
            line.waiting.push_back(give);
            given
        };
        let _waiting = Waits::begin(Arc::clone(&self.waits));
        match tokio::time::timeout(self.patience, given).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Error::Busy),
        }
    }

    /// Those that wait, and how long all have waited.
    #[cfg(feature = "http")]
    pub(crate) fn waits(&self) -> &Waits {
        &self.waits
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Uuid, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next of the caller's line. Without one, there is an operation less under way.
    fn next(&self, caller: Uuid) -> Option<oneshot::Sender<Turn>> {
        let mut lines = self.lines();
        let line = lines.get_mut(&caller)?;
        let next = line.waiting.pop_front();
        if next.is_none() {
            line.under_way -= 1;
            if line.under_way == 0 {
                lines.remove(&caller);
            }
        }
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some((turns, caller)) = self.0.take() else { return };
        while let Some(next) = turns.next(caller) {
            match next.send(Turn(Some((Arc::clone(&turns), caller)))) {
                // If it is not taken any more, the channel drops it, and it is passed on then.
                Ok(()) => return,
                // Given up. This one is passed on here.
                Err(mut turn) => turn.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;

    const ANN: Uuid = Uuid::from_u128(1);
    const BOB: Uuid = Uuid::from_u128(2);
    const PATIENCE: Duration = Duration::from_secs(2);

    /// A place in the line: a future that has been polled once and waits.
    fn wait(
        turns: &Arc<Turns>,
        caller: Uuid,
    ) -> futures_util::future::BoxFuture<'static, Result<Turn>> {
        let turns = Arc::clone(turns);
        let mut waiting = async move { turns.take(caller).await }.boxed();
        assert!(waiting.as_mut().now_or_never().is_none(), "it has to wait");
        waiting
    }

    #[tokio::test]
    async fn a_caller_waits_for_itself_and_nobody_else_does() {
        let turns = Turns::new(2, PATIENCE);
        let (one, _two) = (turns.take(ANN).await.unwrap(), turns.take(ANN).await.unwrap());
        let (mut third, mut fourth) = (wait(&turns, ANN), wait(&turns, ANN));
        let _bob = turns.take(BOB).now_or_never().expect("at once").unwrap();
        drop(one);
        assert!(fourth.as_mut().now_or_never().is_none(), "the third came first");
        let third = third.as_mut().now_or_never().expect("its turn").unwrap();
        drop(third);
        fourth.as_mut().now_or_never().expect("its turn").unwrap();
    }

    #[tokio::test]
    async fn nobody_passes_those_that_wait() {
        let turns = Turns::new(1, PATIENCE);
        let one = turns.take(ANN).await.unwrap();
        let mut second = wait(&turns, ANN);
        drop(one);
        // The turn is the second's, though it has not looked yet.
        let _third = wait(&turns, ANN);
        second.as_mut().now_or_never().expect("its turn").unwrap();
    }

    #[tokio::test]
    async fn what_is_given_up_leaves_the_line_at_each_step() {
        let turns = Turns::new(1, PATIENCE);
        drop(turns.take(ANN));
        assert!(turns.lines().is_empty(), "nothing was begun");
        let one = turns.take(ANN).await.unwrap();
        // While it waits; when its turn was given and not taken yet; when it was taken.
        let (waits, given, taken, last) =
            (wait(&turns, ANN), wait(&turns, ANN), wait(&turns, ANN), wait(&turns, ANN));
        drop(waits);
        drop(one);
        drop(given);
        let taken = taken.now_or_never().expect("its turn").unwrap();
        drop(taken);
        drop(last.now_or_never().expect("its turn").unwrap());
        assert!(turns.lines().is_empty());
    }

    #[tokio::test]
    async fn a_line_is_bounded_and_those_that_left_do_not_count() {
        let turns = Turns::new(1, PATIENCE);
        let one = turns.take(ANN).await.unwrap();
        let mut waiting: Vec<_> = (0..MOST_WAITING).map(|_| wait(&turns, ANN)).collect();
        assert!(matches!(turns.take(ANN).await, Err(Error::Busy)));
        turns.take(BOB).await.unwrap();
        waiting.truncate(MOST_WAITING / 2);
        for _ in 0..10 * MOST_WAITING {
            drop(wait(&turns, ANN));
        }
        assert!(turns.lines()[&ANN].waiting.len() <= MOST_WAITING);
        drop((one, waiting));
        assert!(turns.lines().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let turns = Turns::new(1, PATIENCE);
        let one = turns.take(ANN).await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(matches!(turns.take(ANN).await, Err(Error::Busy)));
        assert_eq!(began.elapsed(), PATIENCE);
        drop(one);
        assert!(turns.lines().is_empty());
        turns.take(ANN).await.unwrap();
    }

    /// Takers that come, stay, and are aborted at any point, on several threads: never too many at
    /// once, and no turn is lost.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_turn_is_lost_or_made_whatever_is_given_up() {
        const AT_ONCE: usize = 3;
        let turns = Turns::new(AT_ONCE, Duration::from_mins(1));
        let under_way = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..50 {
            let mut takers = Vec::new();
            for i in 0..40_usize {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (turns, under_way, stays) =
                    (Arc::clone(&turns), under_way.clone(), random >> 61);
                let taker = tokio::spawn(async move {
                    let of = i % 2;
                    let turn = turns.take(Uuid::from_u128(of as u128)).await.unwrap();
                    let before = under_way[of].fetch_add(1, Ordering::SeqCst);
                    let leaving = Leaving(&under_way[of]);
                    assert!(before < AT_ONCE, "{before} are under way");
                    for _ in 0..stays {
                        tokio::task::yield_now().await;
                    }
                    drop(leaving);
                    drop(turn);
                });
                takers.push((taker, (random >> 33).is_multiple_of(3)));
            }
            for (taker, is_aborted) in &takers {
                if *is_aborted {
                    taker.abort();
                }
            }
            for (taker, is_aborted) in takers {
                let ended = tokio::time::timeout(Duration::from_secs(30), taker).await;
                let ended = ended.expect("a turn was lost");
                assert!(ended.is_ok() || is_aborted, "{ended:?}");
            }
            assert!(turns.lines().is_empty());
        }
    }

    struct Leaving<'a>(&'a AtomicUsize);

    impl Drop for Leaving<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
