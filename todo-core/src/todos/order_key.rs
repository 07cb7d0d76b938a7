//! The keys of the manual order: texts between any two of which there is another one.
//!
//! A key is a fraction between 0 and 1 in base 256, without zeros at its end, in hexadecimal
//! digits. Texts are compared bytewise, as both databases do (`COLLATE "C"`).
//!
//! The key of a moved todo ends with a part of its id ([`OrderKey::of_todo`]). Without it, two
//! todos that are moved to one place at the same time would have equal keys, and no key is between
//! equal ones.
//!
//! The crate `fractional_index` 2.0.2 has the same purpose. After 129 insertions before the first
//! key, its keys begin with a zero byte; then `new_between` overflows, which in a release build
//! returns one of the two keys.

use uuid::Uuid;

/// Maximum length of a key: one that would be longer makes all keys of the user be assigned anew.
pub(super) const MAX_CHARS: usize = 64;

/// A key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OrderKey(Vec<u8>);

impl OrderKey {
    /// The key of a stored text; `None` if it is not one.
    pub(super) fn from_stored(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
        let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
        let is_key = rest.is_empty() && bytes.last().is_some_and(|last| *last > 0);
        is_key.then_some(Self(bytes))
    }

    /// The text that is stored.
    pub(super) fn to_stored(&self) -> String {
        self.0.iter().fold(String::with_capacity(2 * self.0.len()), |text, byte| {
            text + &format!("{byte:02x}")
        })
    }

    /// The key of the first todo that gets one.
    pub(super) fn first() -> Self {
        Self(vec![MIDDLE])
    }

    /// A key between two, or after or before one; `None` if `before` is not greater than `after`.
    pub(super) fn between(after: Option<&Self>, before: Option<&Self>) -> Option<Self> {
        match (after, before) {
            (None, None) => Some(Self::first()),
            (Some(after), None) => Some(Self::after(after)),
            (None, Some(before)) => Some(Self::before(before)),
            (Some(after), Some(before)) => (after < before).then(|| Self::middle(after, before)),
        }
    }

    /// The key followed by the last bytes of a todo's id, which are random: two todos at one place
    /// have different keys.
    ///
    /// A result of [`between`](Self::between) stays between the same two keys: it differs from the
    /// greater one before its end.
    pub(super) fn of_todo(mut self, id: Uuid) -> Self {
        let [.., a, b, c] = *id.as_bytes();
        let suffix = [a, b, c];
        let used = suffix.iter().rposition(|byte| *byte > 0).map_or(0, |last| last + 1);
        self.0.extend_from_slice(&suffix[..used]);
        self
    }

    /// As many keys between two, in ascending order.
    pub(super) fn fill(after: &Self, before: &Self, count: usize) -> Vec<Self> {
        let mut keys = Vec::with_capacity(count);
        fill(&mut keys, after, before, count);
        keys
    }

    /// The next key after one. In a row of them, 254 have the same length.
    pub(super) fn after(key: &Self) -> Self {
        let mut bytes = Vec::with_capacity(key.0.len() + 1);
        for byte in &key.0 {
            if let Some(next) = byte.checked_add(1) {
                bytes.push(next);
                return Self(bytes);
            }
            bytes.push(*byte);
        }
        bytes.push(1);
        Self(bytes)
    }

    /// The next key before one.
    pub(super) fn before(key: &Self) -> Self {
        let mut bytes = Vec::with_capacity(key.0.len() + 1);
        for byte in &key.0 {
            if let Some(previous @ 1..) = byte.checked_sub(1) {
                bytes.push(previous);
                return Self(bytes);
            }
            bytes.push(0);
            if *byte == 1 {
                break;
            }
        }
        bytes.push(u8::MAX);
        Self(bytes)
    }

    /// The shortest key in the middle of two, of which the first is less.
    fn middle(after: &Self, before: &Self) -> Self {
        let mut bytes = Vec::with_capacity(after.0.len().max(before.0.len()) + 1);
        // None if all continuations of `bytes` are less than `before`.
        let mut upper = Some(before);
        loop {
            let index = bytes.len();
            let digit = |key: &Self| u16::from(key.0.get(index).copied().unwrap_or(0));
            let (low, high) = (digit(after), upper.map_or(256, digit));
            let pushed = if low + 1 < high { u16::midpoint(low, high) } else { low };
            bytes.push(u8::try_from(pushed).unwrap_or(u8::MAX));
            if low + 1 < high {
                return Self(bytes);
            }
            if low + 1 == high {
                upper = None;
            }
        }
    }
}

/// The first byte of a first key.
const MIDDLE: u8 = 0x80;

/// Halves the interval, so that the keys have lengths that differ by the logarithm of their number.
fn fill(keys: &mut Vec<OrderKey>, after: &OrderKey, before: &OrderKey, count: usize) {
    if count == 0 {
        return;
    }
    let middle = OrderKey::middle(after, before);
    let left = (count - 1) / 2;
    fill(keys, after, &middle, left);
    keys.push(middle.clone());
    fill(keys, &middle, before, count - 1 - left);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = OrderKey> {
        let digits = prop_oneof![Just(0_u8), Just(1), Just(255), any::<u8>()];
        (prop::collection::vec(digits, 0..4), 1_u8..=255).prop_map(|(mut bytes, last)| {
            bytes.push(last);
            OrderKey(bytes)
        })
    }

    proptest! {
        #[test]
        fn a_key_is_between_its_bounds(a in keys(), b in keys(), id in any::<u128>()) {
            let [a, b] = if a <= b { [a, b] } else { [b, a] };
            for (after, before) in [(None, Some(&a)), (Some(&a), Some(&b)), (Some(&b), None)] {
                let Some(key) = OrderKey::between(after, before) else {
                    prop_assert_eq!(after, before);
                    continue;
                };
                for key in [key.clone(), key.of_todo(Uuid::from_u128(id & (id >> 64)))] {
                    prop_assert!(after.is_none_or(|after| *after < key), "{key:?}");
                    prop_assert!(before.is_none_or(|before| key < *before), "{key:?}");
                    prop_assert_ne!(key.0.last(), Some(&0));
                }
            }
            prop_assert_eq!(a.cmp(&b), a.to_stored().cmp(&b.to_stored()));
            prop_assert_eq!(OrderKey::from_stored(&a.to_stored()), Some(a));
        }

        #[test]
        fn filled_keys_ascend(a in keys(), b in keys(), count in 0_usize..600) {
            prop_assume!(a != b);
            let [a, b] = if a < b { [a, b] } else { [b, a] };
            let keys = OrderKey::fill(&a, &b, count);
            prop_assert_eq!(keys.len(), count);
            let all: Vec<&OrderKey> = [&a].into_iter().chain(&keys).chain([&b]).collect();
            prop_assert!(all.is_sorted_by(|a, b| a < b));
            let longest = keys.iter().map(|key| key.0.len()).max().unwrap_or(0);
            prop_assert!(longest <= a.0.len().max(b.0.len()) + 3, "{longest}");
        }
    }

    #[test]
    fn keys_at_an_end_stay_short() {
        let first = OrderKey::between(None, None).unwrap();
        let [mut last, mut head] = [first.clone(), first];
        for _ in 0..5_000 {
            let after = OrderKey::after(&last);
            let before = OrderKey::before(&head);
            assert!(after > last && before < head);
            // Between any two, also where they begin with zeros.
            assert!(OrderKey::between(Some(&last), Some(&after)).unwrap() < after);
            assert!(OrderKey::between(Some(&before), Some(&head)).unwrap() < head);
            [last, head] = [after, before];
        }
        assert!(last.to_stored().len() <= MAX_CHARS && head.to_stored().len() <= MAX_CHARS);
    }

    #[test]
    fn other_texts_are_no_keys() {
        for text in ["", "0", "00", "8000", "8", "AB", "zz", "80 ", "8\u{130}"] {
            assert_eq!(OrderKey::from_stored(text), None, "{text:?}");
        }
    }
}
