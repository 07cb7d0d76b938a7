//! Places for connections: as many as the settings want, or fewer once the server refuses further
//! ones. What has no place waits for a connection that comes back.
//!
//! A refusal lowers the number of places to that of the connections there are. After a pause one
//! place more is tried; if it is taken the next one follows at once, if not the pause doubles. So a
//! limit that has gone is forgotten, and one that stays costs one refused attempt a minute.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Fault;

/// Between a refusal and the next attempt to have one connection more.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_mins(1);

/// A place for one connection.
pub(super) type Place = OwnedSemaphorePermit;

pub(super) struct Places {
    free: Arc<Semaphore>,
    wanted: usize,
    /// Whether there are fewer than wanted, so that most calls need not lock.
    is_limited: AtomicBool,
    learned: Mutex<Learned>,
}

struct Learned {
    /// Places there are, taken or free.
    places: usize,
    pause: Duration,
    is_pausing: bool,
    is_logged: bool,
}

impl Places {
    pub(super) fn new(wanted: usize) -> Arc<Self> {
        let wanted = wanted.clamp(1, Semaphore::MAX_PERMITS);
        let learned = Learned { places: wanted, pause: PAUSE, is_pausing: false, is_logged: false };
        Arc::new(Self {
            free: Arc::new(Semaphore::new(wanted)),
            wanted,
            is_limited: AtomicBool::new(false),
            learned: Mutex::new(learned),
        })
    }

    /// Waits for a place.
    pub(super) async fn take(&self) -> Result<Place, Fault> {
        Arc::clone(&self.free).acquire_owned().await.map_err(|_| Fault::Closed)
    }

    /// A place, if one is free.
    pub(super) fn try_take(&self) -> Option<Place> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Notes that the server refused a connection for `place` while there were `held` of them.
    /// Returns the place if it is one that there still is, so that another attempt may be made.
    pub(super) fn refused(self: &Arc<Self>, place: Place, held: usize) -> Option<Place> {
        let mut learned = self.learned();
        let most = held.max(1);
        let mut place = Some(place);
        if let Some(place) = place.take_if(|_| learned.places > most) {
            place.forget();
            learned.places -= 1;
            learned.places -= self.free.forget_permits(learned.places.saturating_sub(most));
            self.is_limited.store(true, Ordering::Relaxed);
        }
        if held > 0
            && learned.places < self.wanted
            && !std::mem::replace(&mut learned.is_logged, true)
        {
            tracing::warn!(
                held,
                wanted = self.wanted,
                "the database server refuses further connections; requests share those it gives \
                 (DATABASE_POOL_MAX is higher than its limit, or others use them up)"
            );
        }
        if learned.places < self.wanted && !std::mem::replace(&mut learned.is_pausing, true) {
            let (places, pause) = (Arc::downgrade(self), learned.pause);
            learned.pause = (pause * 2).min(PAUSE_MOST);
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                if let Some(places) = places.upgrade() {
                    let mut learned = places.learned();
                    learned.is_pausing = false;
                    places.add(&mut learned);
                }
            });
        }
        place
    }

    /// Notes that a connection was made.
    pub(super) fn made(&self) {
        if self.is_limited.load(Ordering::Relaxed) {
            let mut learned = self.learned();
            if !learned.is_pausing {
                learned.pause = PAUSE;
                self.add(&mut learned);
            }
        }
    }

    fn add(&self, learned: &mut Learned) {
        if learned.places < self.wanted {
            learned.places += 1;
            self.free.add_permits(1);
        }
        if learned.places == self.wanted {
            self.is_limited.store(false, Ordering::Relaxed);
        }
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(places: &Places) -> usize {
        places.learned().places
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_learned_at_a_refusal_and_forgotten_step_by_step() {
        let places = Places::new(20);
        let mut taken = Vec::new();
        for _ in 0..10 {
            taken.push(places.take().await.unwrap());
        }
        // Three connections were made; the other seven are refused.
        for place in taken.split_off(3) {
            assert!(places.refused(place, 3).is_none(), "there is no such place any more");
        }
        assert_eq!(count(&places), 3);
        assert!(places.try_take().is_none(), "three are taken");
        taken.pop();
        let again = places.try_take().expect("one came back");
        // A connection of ours ended and somebody else has its place: it is worth another attempt.
        let again = places.refused(again, 3).expect("it is kept");
        drop((again, taken));

        tokio::time::sleep(PAUSE * 2).await;
        assert_eq!(count(&places), 4, "one more is tried");
        for n in 5..=20 {
            places.made();
            assert_eq!(count(&places), n);
        }
        assert!(!places.is_limited.load(Ordering::Relaxed));
        places.made();
        assert_eq!((count(&places), places.free.available_permits()), (20, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_stays_is_tried_ever_more_rarely() {
        let places = Places::new(20);
        let mut refusals = 0;
        let _held = [places.take().await.unwrap(), places.take().await.unwrap()];
        let began = tokio::time::Instant::now();
        while began.elapsed() < Duration::from_mins(10) {
            if let Some(place) = places.try_take() {
                refusals += 1;
                assert!(places.refused(place, 2).is_none());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Once, then after 1, 2, 4, 8, 16 and 32 seconds, then every minute.
        assert!((10..=20).contains(&refusals), "{refusals}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_gives_none_leaves_one_place_to_try() {
        let places = Places::new(2);
        let (first, second) = (places.take().await.unwrap(), places.take().await.unwrap());
        assert!(places.refused(first, 0).is_none());
        assert!(places.refused(second, 0).is_some());
        assert_eq!(count(&places), 1);
    }
}
