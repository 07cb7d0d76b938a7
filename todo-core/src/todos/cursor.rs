//! Pagination cursors: the position of a page's last todo, authenticated together with the owner
//! and the filters of its list. Only this installation can create one; an altered cursor, or one
//! from another list, is invalid.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    crypto::tokens::Tokens,
    ids::{TodoId, UserId},
    todos::{
        due::Due,
        filters::Filters,
        list_types::{SortBy, SortOrder, Status},
        todo::Todo,
        types::Priority,
    },
};

/// The position of a todo in the order of its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) key: Key,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) id: TodoId,
}

/// The sort key, before the tie-breakers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    CreatedAt,
    Priority(Priority),
    Title(String),
    /// The key of the due date; none of a todo without one.
    Due(Option<i64>),
    /// The place in the user's own order; none of a todo that was never moved.
    Place(Option<String>),
}

impl Position {
    /// The position of a todo, whose place in the user's own order is `place`.
    pub(crate) fn of(todo: &Todo, place: Option<String>, sort_by: SortBy) -> Self {
        let key = match sort_by {
            SortBy::Due => Key::Due(todo.due.as_ref().map(Due::key)),
            SortBy::Position => Key::Place(place),
            SortBy::CreatedAt => Key::CreatedAt,
            SortBy::Priority => Key::Priority(todo.priority),
            SortBy::Title => Key::Title(crate::validate::sort_key(todo.title.as_str())),
        };
        Self { key, created_at: todo.created_at, id: todo.id }
    }

    /// Encodes the position as a cursor of the list of `owner` with `filters`.
    pub(crate) fn seal(&self, tokens: &Tokens, owner: UserId, filters: &Filters) -> String {
        let mut bytes = self.created_at.timestamp_micros().to_be_bytes().to_vec();
        bytes.extend_from_slice(self.id.as_uuid().as_bytes());
        match &self.key {
            Key::Priority(priority) => bytes.push(*priority as u8),
            Key::Title(key) | Key::Place(Some(key)) => bytes.extend_from_slice(key.as_bytes()),
            Key::Due(Some(key)) => bytes.extend_from_slice(&key.to_be_bytes()),
            Key::CreatedAt | Key::Due(None) | Key::Place(None) => {}
        }
        tokens.seal(&bytes, &context(owner, filters))
    }

    /// Decodes a cursor of [`Position::seal`]; `None` if it is invalid or belongs to another list.
    pub(crate) fn unseal(
        cursor: &str,
        tokens: &Tokens,
        owner: UserId,
        filters: &Filters,
    ) -> Option<Self> {
        let bytes = tokens.unseal(cursor, &context(owner, filters))?;
        let (micros, rest) = bytes.split_first_chunk::<8>()?;
        let (id, key) = rest.split_first_chunk::<16>()?;
        let key = match (filters.sort_by, key) {
            (SortBy::CreatedAt, []) => Key::CreatedAt,
            (SortBy::Priority, [rank]) => Key::Priority(Priority::from_rank((*rank).into())?),
            (SortBy::Title, key) => Key::Title(String::from_utf8(key.to_vec()).ok()?),
            (SortBy::Due, []) => Key::Due(None),
            (SortBy::Due, key) => Key::Due(Some(i64::from_be_bytes(key.try_into().ok()?))),
            // A place is not empty.
            (SortBy::Position, []) => Key::Place(None),
            (SortBy::Position, key) => Key::Place(Some(String::from_utf8(key.to_vec()).ok()?)),
            _ => return None,
        };
        let created_at = DateTime::from_timestamp_micros(i64::from_be_bytes(*micros))?;
        Some(Self { key, created_at, id: Uuid::from_bytes(*id).into() })
    }
}

/// The list of a cursor: authenticated with the cursor, but not part of it. Lists without the later
/// filters have the bytes that they always had: their cursors stay valid.
fn context(owner: UserId, filters: &Filters) -> Vec<u8> {
    let mut context = owner.as_uuid().as_bytes().to_vec();
    context.push(match filters.status {
        Status::All => 0,
        Status::Pending => 1,
        Status::Completed => 2,
    });
    context.push(match filters.sort_by {
        SortBy::CreatedAt => 0,
        SortBy::Priority => 1,
        SortBy::Title => 2,
        SortBy::Due => 3,
        SortBy::Position => 4,
    });
    context.push(match filters.order {
        SortOrder::Asc => 0,
        SortOrder::Desc => 1,
    });
    if !filters.is_plain() {
        context.extend_from_slice(&Sha256::digest(filters.to_bytes()));
    }
    context
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        crypto::tokens::test_tokens,
        todos::filters::{DueFilter, ListFilter},
    };

    fn positions() -> impl Strategy<Value = (Position, SortBy)> {
        let key = prop_oneof![
            Just((Key::CreatedAt, SortBy::CreatedAt)),
            Just((Key::Priority(Priority::High), SortBy::Priority)),
            "\\PC{1,40}".prop_map(|title| (Key::Title(title), SortBy::Title)),
            any::<Option<i64>>().prop_map(|key| (Key::Due(key), SortBy::Due)),
            prop::option::of("[0-9a-f]{2,40}").prop_map(|key| (Key::Place(key), SortBy::Position)),
        ];
        (key, 0_i64..4_000_000_000_000_000, any::<u128>()).prop_map(
            |((key, sort_by), micros, id)| {
                let created_at = DateTime::from_timestamp_micros(micros).unwrap();
                (Position { key, created_at, id: Uuid::from_u128(id).into() }, sort_by)
            },
        )
    }

    /// Filters that differ from these in one filter each.
    fn others(filters: &Filters) -> Vec<Filters> {
        let with = |change: fn(&mut Filters)| {
            let mut other = filters.clone();
            change(&mut other);
            other
        };
        vec![
            with(|f| f.order = SortOrder::Asc),
            with(|f| f.status = Status::Pending),
            with(|f| f.tags.push("a".parse().unwrap())),
            with(|f| f.any_tags.push("a".parse().unwrap())),
            with(|f| f.due = Some(DueFilter::Any)),
            with(|f| f.due_before = Some("2026-12-01".parse().unwrap())),
            with(|f| f.due_after = Some("2026-12-01".parse().unwrap())),
            with(|f| f.time_zone = Some("Europe/Berlin".parse().unwrap())),
            with(|f| f.list = Some(ListFilter::Inbox)),
            with(|f| f.q = Some("a".parse().unwrap())),
        ]
    }

    #[test]
    fn a_list_without_later_filters_has_its_context_of_old() {
        let filters = Filters { sort_by: SortBy::Title, ..Filters::default() };
        let mut expected = vec![7; 16];
        expected.extend([0, 2, 1]);
        assert_eq!(context(Uuid::from_bytes([7; 16]).into(), &filters), expected);
    }

    proptest! {
        #[test]
        fn a_cursor_is_valid_only_for_its_own_list(
            (position, sort_by) in positions(), owner in any::<u128>(), flip in any::<prop::sample::Index>(),
        ) {
            let tokens = test_tokens();
            let owner = UserId::from(Uuid::from_u128(owner));
            let filters = Filters { sort_by, ..Filters::default() };
            let cursor = position.seal(&tokens, owner, &filters);
            prop_assert_eq!(Position::unseal(&cursor, &tokens, owner, &filters), Some(position.clone()));

            let other = Uuid::from_u128(owner.as_uuid().as_u128() ^ 1).into();
            prop_assert_eq!(Position::unseal(&cursor, &tokens, other, &filters), None);
            for other in others(&filters) {
                prop_assert_eq!(Position::unseal(&cursor, &tokens, owner, &other), None, "{:?}", other);
                let cursor = position.seal(&tokens, owner, &other);
                prop_assert_eq!(Position::unseal(&cursor, &tokens, owner, &filters), None);
            }
            let at = flip.index(cursor.len());
            let mut altered = cursor.into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            prop_assert_eq!(Position::unseal(&altered, &tokens, owner, &filters), None);
        }

        #[test]
        fn noise_is_no_cursor(noise in "\\PC{0,80}") {
            let filters = Filters::default();
            prop_assert_eq!(Position::unseal(&noise, &test_tokens(), Uuid::nil().into(), &filters), None);
        }
    }
}
