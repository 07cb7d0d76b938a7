//! [`FairQueue`]: a queue that is round robin over callers, and FIFO for each caller.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

/// Items by caller. Items without a caller share one queue.
pub(super) struct FairQueue<T> {
    callers: HashMap<Option<Uuid>, VecDeque<T>>,
    /// Each caller once, the next one first.
    order: VecDeque<Option<Uuid>>,
    len: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { callers: HashMap::new(), order: VecDeque::new(), len: 0 }
    }
}

impl<T> FairQueue<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, caller: Option<Uuid>, item: T) {
        let items = self.callers.entry(caller).or_default();
        if items.is_empty() {
            self.order.push_back(caller);
        }
        items.push_back(item);
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let caller = self.order.pop_front()?;
        let items = self.callers.get_mut(&caller)?;
        let item = items.pop_front()?;
        if items.is_empty() {
            self.callers.remove(&caller);
        } else {
            self.order.push_back(caller);
        }
        self.len -= 1;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_served_round_robin_and_each_in_order() {
        let mut queue = FairQueue::default();
        let [ann, bob] = [1, 2].map(|id| Some(Uuid::from_u128(id)));
        for (caller, item) in [(ann, 1), (ann, 2), (ann, 3), (bob, 11), (None, 21), (bob, 12)] {
            queue.push(caller, item);
        }
        assert_eq!(queue.len(), 6);
        assert_eq!([queue.pop(), queue.pop()], [Some(1), Some(11)]);
        queue.push(ann, 4);
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest, [21, 2, 12, 3, 4]);
        assert!(queue.is_empty() && queue.callers.is_empty());
        queue.push(bob, 13);
        assert_eq!((queue.pop(), queue.pop()), (Some(13), None));
    }
}
