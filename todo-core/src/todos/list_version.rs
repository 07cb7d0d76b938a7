//! Versions of lists: a client that has a list finds out whether it is still the same, without
//! reading it.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::{
    ChangeCursor, ListQuery, Listing,
    list_query::{self, Selection},
    version::FORMAT,
};
use crate::{
    authz::Caller,
    core::Core,
    error::{Error, Result},
};

/// The version of a list: the state of the user's todos that it was read in, and its query. Every
/// change of one of the user's todos makes another version of all of the user's lists.
///
/// Its text is opaque: the position in the log of changes, and a hash of the query. The HTTP API
/// sends it as a weak `ETag` (RFC 9110, section 8.8.3): two lists of one version have the same
/// todos, but not the same `next_cursor`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListVersion {
    state: ChangeCursor,
    query: QueryHash,
}

impl fmt::Display for ListVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.state, self.query)
    }
}

/// A hash of all that a list depends on, besides the todos: its query, and the format of a todo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct QueryHash([u8; 9]);

impl QueryHash {
    /// The hash of a query at the time `now`, which some filters depend on.
    pub(crate) fn of(query: &ListQuery, now: DateTime<Utc>) -> Self {
        let ListQuery { filters, limit, cursor, include_total } = query;
        let limit = limit.map_or(0, super::Limit::as_u16);
        let others = if filters.is_plain() && *include_total {
            String::new()
        } else {
            let due = Selection::of(filters, now).due_text();
            let filters = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(filters.to_bytes()));
            format!("{filters}.{due}.{include_total}.")
        };
        // The cursor is last, since it is as long as the client wants.
        let text = format!(
            "{FORMAT}{}.{}.{}.{limit}.{others}{}",
            filters.status,
            filters.sort_by,
            filters.order,
            cursor.as_deref().unwrap_or_default()
        );
        Self::of_text(&text)
    }

    /// The hash of a list by a text, which determines what it depends on.
    pub(super) fn of_text(text: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(text).into();
        let mut hash = [0; 9];
        for (to, from) in hash.iter_mut().zip(digest) {
            *to = from;
        }
        Self(hash)
    }
}

impl fmt::Display for QueryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// The state that a statement has read; none if the account does not exist.
pub(super) fn version_in(
    epoch: Option<String>,
    number: Option<i64>,
    query: QueryHash,
) -> Option<ListVersion> {
    Some(ListVersion { state: ChangeCursor::new(epoch?, number?), query })
}

/// Returns the version that a list has now, with one statement that does not read the list.
///
/// # Errors
/// [`Error::Invalid`] if the cursor was altered or belongs to another list,
/// [`Error::Unauthenticated`]; else as [`create`](super::create).
pub async fn list_version(core: &Core, caller: &Caller, query: &ListQuery) -> Result<ListVersion> {
    // It checks the cursor.
    Listing::new(core, caller, query.clone())?;
    current_version(core, caller, QueryHash::of(query, core.now())).await
}

/// Returns the version that the list of a hash has now.
pub(crate) async fn current_version(
    core: &Core,
    caller: &Caller,
    hash: QueryHash,
) -> Result<ListVersion> {
    let db = core.db();
    let caller = *caller;
    core.read(caller.user_id(), async move {
        let row: (bool, Option<String>, Option<i64>) =
            db.fetch_one(list_query::state(caller)).await?;
        let (true, epoch, number) = row else { return Err(Error::Unauthenticated) };
        // A trusted caller's account may not exist.
        version_in(epoch, number, hash).ok_or(Error::Unauthenticated)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use chrono::TimeDelta;

    use super::*;
    use crate::todos::{DueFilter, Limit, SortBy, SortOrder, Status};

    fn hash(query: &ListQuery, seconds: i64) -> String {
        QueryHash::of(query, DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)).to_string()
    }

    #[test]
    fn each_query_has_its_own_hash() {
        let mut queries = Vec::new();
        for status in Status::ALL {
            for sort_by in SortBy::ALL {
                for order in SortOrder::ALL {
                    let query = ListQuery::new().status(*status).sort_by(*sort_by).order(*order);
                    queries.extend([
                        query.clone().limit(Limit::new(1).unwrap()),
                        query.clone().limit(Limit::new(500).unwrap()),
                        query.clone().cursor(Some("1".into())),
                        query.clone().include_total(false),
                        query.clone().tag("a".parse().unwrap()),
                        query.clone().any_tag("a".parse().unwrap()),
                        query.clone().list(None),
                        query.clone().search(Some("a".parse().unwrap())),
                        query.clone().due(DueFilter::Any),
                        query.clone().due_before(Some("2026-12-01".parse().unwrap())),
                        query.clone().due_after(Some("2026-12-01".parse().unwrap())),
                        query,
                    ]);
                }
            }
        }
        let hashes: HashSet<String> = queries.iter().map(|query| hash(query, 0)).collect();
        assert_eq!(hashes.len(), queries.len());
        assert!(hashes.iter().all(|hash| hash.len() == 12));
        assert_eq!(hash(&ListQuery::new(), 0), hash(&ListQuery::new(), 100_000));
    }

    #[test]
    fn a_list_that_depends_on_the_time_has_another_hash_later() {
        let overdue = ListQuery::new().due(DueFilter::Overdue);
        assert_eq!(hash(&overdue, 61), hash(&overdue, 120), "in the same minute");
        assert_ne!(hash(&overdue, 120), hash(&overdue, 121));
        let today = ListQuery::new().due(DueFilter::Today);
        assert_eq!(hash(&today, 1), hash(&today, 86_400));
        assert_ne!(hash(&today, 86_400), hash(&today, 86_401));
    }
}
