//! Pagination cursors: the position of a page's last todo, authenticated together with the owner
//! and the filters of its list. Only this installation can create one; an altered cursor, or one
//! from another list, is invalid.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    crypto::tokens::Tokens,
    ids::{TodoId, UserId},
    todos::{
        list_types::{Filters, SortBy, SortOrder, Status},
        types::{Priority, Todo},
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
}

impl Position {
    pub(crate) fn of(todo: &Todo, sort_by: SortBy) -> Self {
        let key = match sort_by {
            SortBy::CreatedAt => Key::CreatedAt,
            SortBy::Priority => Key::Priority(todo.priority),
            SortBy::Title => Key::Title(crate::validate::sort_key(todo.title.as_str())),
        };
        Self { key, created_at: todo.created_at, id: todo.id }
    }

    /// Encodes the position as a cursor of the list of `owner` with `filters`.
    pub(crate) fn seal(&self, tokens: &Tokens, owner: UserId, filters: Filters) -> String {
        let mut bytes = self.created_at.timestamp_micros().to_be_bytes().to_vec();
        bytes.extend_from_slice(self.id.as_uuid().as_bytes());
        match &self.key {
            Key::CreatedAt => {}
            Key::Priority(priority) => bytes.push(*priority as u8),
            Key::Title(key) => bytes.extend_from_slice(key.as_bytes()),
        }
        tokens.seal(&bytes, &context(owner, filters))
    }

    /// Decodes a cursor of [`Position::seal`]; `None` if it is invalid or belongs to another list.
    pub(crate) fn unseal(
        cursor: &str,
        tokens: &Tokens,
        owner: UserId,
        filters: Filters,
    ) -> Option<Self> {
        let bytes = tokens.unseal(cursor, &context(owner, filters))?;
        let (micros, rest) = bytes.split_first_chunk::<8>()?;
        let (id, key) = rest.split_first_chunk::<16>()?;
        let key = match (filters.sort_by, key) {
            (SortBy::CreatedAt, []) => Key::CreatedAt,
            (SortBy::Priority, [rank]) => Key::Priority(Priority::from_rank((*rank).into())?),
            (SortBy::Title, key) => Key::Title(String::from_utf8(key.to_vec()).ok()?),
            _ => return None,
        };
        let created_at = DateTime::from_timestamp_micros(i64::from_be_bytes(*micros))?;
        Some(Self { key, created_at, id: Uuid::from_bytes(*id).into() })
    }
}

/// The list of a cursor: authenticated with the cursor, but not part of it.
fn context(owner: UserId, filters: Filters) -> [u8; 19] {
    let mut context = [0; 19];
    context[..16].copy_from_slice(owner.as_uuid().as_bytes());
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
        SortOrder::Asc => 0,
        SortOrder::Desc => 1,
    };
    context
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::tokens::test_tokens;

    fn positions() -> impl Strategy<Value = (Position, SortBy)> {
        let key = prop_oneof![
            Just((Key::CreatedAt, SortBy::CreatedAt)),
            Just((Key::Priority(Priority::High), SortBy::Priority)),
            "\\PC{1,40}".prop_map(|title| (Key::Title(title), SortBy::Title)),
        ];
        (key, 0_i64..4_000_000_000_000_000, any::<u128>()).prop_map(
            |((key, sort_by), micros, id)| {
                let created_at = DateTime::from_timestamp_micros(micros).unwrap();
                (Position { key, created_at, id: Uuid::from_u128(id).into() }, sort_by)
            },
        )
    }

    proptest! {
        #[test]
        fn a_cursor_is_valid_only_for_its_own_list(
            (position, sort_by) in positions(), owner in any::<u128>(), flip in any::<prop::sample::Index>(),
        ) {
            let tokens = test_tokens();
            let owner = UserId::from(Uuid::from_u128(owner));
            let filters = Filters { sort_by, ..Filters::default() };
            let cursor = position.seal(&tokens, owner, filters);
            prop_assert_eq!(Position::unseal(&cursor, &tokens, owner, filters), Some(position));

            let other = Uuid::from_u128(owner.as_uuid().as_u128() ^ 1).into();
            prop_assert_eq!(Position::unseal(&cursor, &tokens, other, filters), None);
            for filters in [
                Filters { order: SortOrder::Asc, ..filters },
                Filters { status: Status::Pending, ..filters },
            ] {
                prop_assert_eq!(Position::unseal(&cursor, &tokens, owner, filters), None);
            }
            let at = flip.index(cursor.len());
            let mut altered = cursor.into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            prop_assert_eq!(Position::unseal(&altered, &tokens, owner, filters), None);
        }

        #[test]
        fn noise_is_no_cursor(noise in "\\PC{0,80}") {
            let filters = Filters::default();
            prop_assert_eq!(Position::unseal(&noise, &test_tokens(), Uuid::nil().into(), filters), None);
        }
    }
}
