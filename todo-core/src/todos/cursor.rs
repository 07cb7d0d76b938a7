//! Where a page ended, as a text that only this installation can make: the last todo's place in the
//! order, sealed together with the owner and the filters it belongs to. A cursor that was altered,
//! or brought to another list, does not open.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    auth::tokens::Tokens,
    todos::types::{Filters, Order, Priority, SortBy, Status, Todo},
};

/// The last todo's place in the order of its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) key: Key,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) id: Uuid,
}

/// What the list is sorted by, before the ties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    CreatedAt,
    Priority(Priority),
    Title(String),
}

impl Place {
    pub(crate) fn of(todo: &Todo, sort_by: SortBy) -> Self {
        let key = match sort_by {
            SortBy::CreatedAt => Key::CreatedAt,
            SortBy::Priority => Key::Priority(todo.priority),
            SortBy::Title => Key::Title(crate::text::sort_key(&todo.title)),
        };
        Self { key, created_at: todo.created_at, id: todo.id }
    }

    /// Seals the place for the list of `owner` with `filters`.
    pub(crate) fn seal(&self, tokens: &Tokens, owner: Uuid, filters: Filters) -> String {
        let mut bytes = self.created_at.timestamp_micros().to_be_bytes().to_vec();
        bytes.extend_from_slice(self.id.as_bytes());
        match &self.key {
            Key::CreatedAt => {}
            Key::Priority(priority) => bytes.push(*priority as u8),
            Key::Title(key) => bytes.extend_from_slice(key.as_bytes()),
        }
        tokens.seal(&bytes, &context(owner, filters))
    }

    /// Opens what [`Place::seal`] made for the same list, and nothing else.
    pub(crate) fn open(
        cursor: &str,
        tokens: &Tokens,
        owner: Uuid,
        filters: Filters,
    ) -> Option<Self> {
        let bytes = tokens.open(cursor, &context(owner, filters))?;
        let (micros, rest) = bytes.split_first_chunk::<8>()?;
        let (id, key) = rest.split_first_chunk::<16>()?;
        let key = match (filters.sort_by, key) {
            (SortBy::CreatedAt, []) => Key::CreatedAt,
            (SortBy::Priority, [1]) => Key::Priority(Priority::Low),
            (SortBy::Priority, [2]) => Key::Priority(Priority::Medium),
            (SortBy::Priority, [3]) => Key::Priority(Priority::High),
            (SortBy::Title, key) => Key::Title(String::from_utf8(key.to_vec()).ok()?),
            _ => return None,
        };
        let created_at = DateTime::from_timestamp_micros(i64::from_be_bytes(*micros))?;
        Some(Self { key, created_at, id: Uuid::from_bytes(*id) })
    }
}

/// What a cursor belongs to: it is authenticated with it, not carried.
fn context(owner: Uuid, filters: Filters) -> [u8; 19] {
    let mut context = [0; 19];
    context[..16].copy_from_slice(owner.as_bytes());
    context[16] = match filters.status {
        Status::All => 0,
        Status::Pending => 1,
        Status::Completed => 2,
    };
    context[17] = match filters.sort_by {
        SortBy::CreatedAt => 0,
        SortBy::Priority => 1,
        SortBy::Title => 2,
    };
    context[18] = match filters.order {
        Order::Asc => 0,
        Order::Desc => 1,
    };
    context
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::tokens::test_tokens;

    fn places() -> impl Strategy<Value = (Place, SortBy)> {
        let key = prop_oneof![
            Just((Key::CreatedAt, SortBy::CreatedAt)),
            Just((Key::Priority(Priority::High), SortBy::Priority)),
            "\\PC{1,40}".prop_map(|title| (Key::Title(title), SortBy::Title)),
        ];
        (key, 0_i64..4_000_000_000_000_000, any::<u128>()).prop_map(
            |((key, sort_by), micros, id)| {
                let created_at = DateTime::from_timestamp_micros(micros).unwrap();
                (Place { key, created_at, id: Uuid::from_u128(id) }, sort_by)
            },
        )
    }

    proptest! {
        #[test]
        fn a_cursor_opens_where_it_was_sealed_and_nowhere_else(
            (place, sort_by) in places(), owner in any::<u128>(), flip in any::<prop::sample::Index>(),
        ) {
            let tokens = test_tokens();
            let owner = Uuid::from_u128(owner);
            let filters = Filters { sort_by, ..Filters::default() };
            let cursor = place.seal(&tokens, owner, filters);
            prop_assert_eq!(Place::open(&cursor, &tokens, owner, filters), Some(place));

            let other = Uuid::from_u128(owner.as_u128() ^ 1);
            prop_assert_eq!(Place::open(&cursor, &tokens, other, filters), None);
            for filters in [
                Filters { order: Order::Asc, ..filters },
                Filters { status: Status::Pending, ..filters },
            ] {
                prop_assert_eq!(Place::open(&cursor, &tokens, owner, filters), None);
            }
            let at = flip.index(cursor.len());
            let mut altered = cursor.into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            prop_assert_eq!(Place::open(&altered, &tokens, owner, filters), None);
        }

        #[test]
        fn noise_does_not_open(noise in "\\PC{0,80}") {
            let filters = Filters::default();
            prop_assert_eq!(Place::open(&noise, &test_tokens(), Uuid::nil(), filters), None);
        }
    }
}
