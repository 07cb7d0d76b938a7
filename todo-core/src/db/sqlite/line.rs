//! [`Line`]: what waits, in the order in which it is taken: one of each caller in turn, and those of one
//! caller as they came.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

/// What waits, by its caller. What has no caller shares one place.
pub(super) struct Line<T> {
    callers: HashMap<Option<Uuid>, VecDeque<T>>,
    /// Each of the callers once, the next first.
    order: VecDeque<Option<Uuid>>,
    len: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { callers: HashMap::new(), order: VecDeque::new(), len: 0 }
    }
}

impl<T> Line<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, caller: Option<Uuid>, job: T) {
        let jobs = self.callers.entry(caller).or_default();
        if jobs.is_empty() {
            self.order.push_back(caller);
        }
        jobs.push_back(job);
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let caller = self.order.pop_front()?;
        let jobs = self.callers.get_mut(&caller)?;
        let job = jobs.pop_front()?;
        if jobs.is_empty() {
            self.callers.remove(&caller);
        } else {
            self.order.push_back(caller);
        }
        self.len -= 1;
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_take_turns_and_each_in_its_own_order() {
        let mut line = Line::default();
        let [ann, bob] = [1, 2].map(|id| Some(Uuid::from_u128(id)));
        for (caller, job) in [(ann, 1), (ann, 2), (ann, 3), (bob, 11), (None, 21), (bob, 12)] {
            line.push(caller, job);
        }
        assert_eq!(line.len(), 6);
        assert_eq!([line.pop(), line.pop()], [Some(1), Some(11)]);
        line.push(ann, 4);
        let rest: Vec<_> = std::iter::from_fn(|| line.pop()).collect();
        assert_eq!(rest, [21, 2, 12, 3, 4]);
        assert!(line.is_empty() && line.callers.is_empty());
        line.push(bob, 13);
        assert_eq!((line.pop(), line.pop()), (Some(13), None));
    }
}
