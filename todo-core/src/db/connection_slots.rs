//! Connection slots: as many as the settings allow, or fewer once the server refuses further
//! connections. A call without a slot waits until a connection is returned.
//!
//! A refusal lowers the number of slots to the number of open connections. After a pause one slot
//! is added; if the server accepts the connection the next slot follows at once, otherwise the
//! pause doubles. So a limit that was lifted is forgotten, and a permanent one costs one refused
//! attempt a minute.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::DbError;

/// Pause between a refusal and the next additional slot; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_mins(1);

/// A slot for one connection.
pub(super) type ConnectionSlot = OwnedSemaphorePermit;

pub(super) struct ConnectionSlots {
    free: Arc<Semaphore>,
    wanted: usize,
    /// Whether there are fewer slots than `wanted`; read first, so that most calls take no lock.
    is_limited: AtomicBool,
    limit: Mutex<Limit>,
}

struct Limit {
    /// The number of slots, taken or free.
    slots: usize,
    pause: Duration,
    is_pausing: bool,
    is_logged: bool,
}

impl ConnectionSlots {
    pub(super) fn new(wanted: usize) -> Arc<Self> {
        let wanted = wanted.clamp(1, Semaphore::MAX_PERMITS);
        let limit = Limit { slots: wanted, pause: MIN_PAUSE, is_pausing: false, is_logged: false };
        Arc::new(Self {
            free: Arc::new(Semaphore::new(wanted)),
            wanted,
            is_limited: AtomicBool::new(false),
            limit: Mutex::new(limit),
        })
    }

    /// Waits for a slot.
    pub(super) async fn take(&self) -> Result<ConnectionSlot, DbError> {
        Arc::clone(&self.free).acquire_owned().await.map_err(|_| DbError::Closed)
    }

    /// A slot, if one is free.
    pub(super) fn try_take(&self) -> Option<ConnectionSlot> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Records that the server refused the connection for `slot` while `held` were open. Returns
    /// the slot for another attempt if it still exists.
    pub(super) fn refused(
        self: &Arc<Self>,
        slot: ConnectionSlot,
        held: usize,
    ) -> Option<ConnectionSlot> {
        let mut limit = self.limit();
        let most = held.max(1);
        let mut slot = Some(slot);
        if let Some(slot) = slot.take_if(|_| limit.slots > most) {
            slot.forget();
            limit.slots -= 1;
            limit.slots -= self.free.forget_permits(limit.slots.saturating_sub(most));
            self.is_limited.store(true, Ordering::Relaxed);
        }
        if held > 0 && limit.slots < self.wanted && !std::mem::replace(&mut limit.is_logged, true) {
            tracing::warn!(
                held,
                wanted = self.wanted,
                "the database server refuses further connections; requests share the open ones \
                 (DATABASE_POOL_MAX is above its limit, or other clients use them up)"
            );
        }
        if limit.slots < self.wanted && !std::mem::replace(&mut limit.is_pausing, true) {
            let slots = Arc::downgrade(self);
            let pause = limit.pause;
            limit.pause = (pause * 2).min(MAX_PAUSE);
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                if let Some(slots) = slots.upgrade() {
                    let mut limit = slots.limit();
                    limit.is_pausing = false;
                    slots.add_slot(&mut limit);
                }
            });
        }
        slot
    }

    /// Records that a connection was made.
    pub(super) fn made(&self) {
        if self.is_limited.load(Ordering::Relaxed) {
            let mut limit = self.limit();
            if !limit.is_pausing {
                limit.pause = MIN_PAUSE;
                self.add_slot(&mut limit);
            }
        }
    }

    fn add_slot(&self, limit: &mut Limit) {
        if limit.slots < self.wanted {
            limit.slots += 1;
            self.free.add_permits(1);
        }
        if limit.slots == self.wanted {
            self.is_limited.store(false, Ordering::Relaxed);
        }
    }

    fn limit(&self) -> MutexGuard<'_, Limit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(slots: &ConnectionSlots) -> usize {
        slots.limit().slots
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_set_at_a_refusal_and_lifted_step_by_step() {
        let slots = ConnectionSlots::new(20);
        let mut taken = Vec::new();
        for _ in 0..10 {
            taken.push(slots.take().await.unwrap());
        }
        // Three connections were made; the other seven are refused.
        for slot in taken.split_off(3) {
            assert!(slots.refused(slot, 3).is_none(), "the slot no longer exists");
        }
        assert_eq!(count(&slots), 3);
        assert!(slots.try_take().is_none(), "three are taken");
        taken.pop();
        let again = slots.try_take().expect("one was returned");
        // A connection of ours ended and another client replaced it: another attempt is allowed.
        let again = slots.refused(again, 3).expect("the slot is kept");
        drop((again, taken));

        tokio::time::sleep(MIN_PAUSE * 2).await;
        assert_eq!(count(&slots), 4, "one slot is added");
        for n in 5..=20 {
            slots.made();
            assert_eq!(count(&slots), n);
        }
        assert!(!slots.is_limited.load(Ordering::Relaxed));
        slots.made();
        assert_eq!((count(&slots), slots.free.available_permits()), (20, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_limit_is_retried_ever_more_rarely() {
        let slots = ConnectionSlots::new(20);
        let mut refusals = 0;
        let _held = [slots.take().await.unwrap(), slots.take().await.unwrap()];
        let began = tokio::time::Instant::now();
        while began.elapsed() < Duration::from_mins(10) {
            if let Some(slot) = slots.try_take() {
                refusals += 1;
                assert!(slots.refused(slot, 2).is_none());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Once, then after 1, 2, 4, 8, 16 and 32 seconds, then every minute.
        assert!((10..=20).contains(&refusals), "{refusals}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_every_connection_leaves_one_slot() {
        let slots = ConnectionSlots::new(2);
        let (first, second) = (slots.take().await.unwrap(), slots.take().await.unwrap());
        assert!(slots.refused(first, 0).is_none());
        assert!(slots.refused(second, 0).is_some());
        assert_eq!(count(&slots), 1);
    }
}
