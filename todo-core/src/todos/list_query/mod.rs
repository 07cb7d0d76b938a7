//! The SQL of the list. The text of a statement is composed from pieces: where the rows are read
//! from ([`source`]), in which order ([`order`]), the conditions of the filters ([`filter`]), the
//! total ([`total`]), and the position after which a page begins. A text is composed when its
//! shape is first needed ([`page`]).
//!
//! The cost of a page without filters does not grow with the list: it is a set of ranges, each of
//! which every index of a sort has in its order. A page with filters is read in that order too and
//! filtered, unless a filter selects few todos: then these are read by the filter's own index, and
//! sorted.

use std::sync::LazyLock;

use sqlx::SqlStr;

use self::filter::{Filter, Parameters};
use crate::{
    authz::{Caller, acting_as, authorized},
    db::{ComposedTexts, Dialect, MAX_COMPOSED, Statement, value::Timestamp},
    todos::{
        cursor::{Key, Position},
        list_types::{SortBy, SortOrder, Status},
    },
};

mod filter;
mod order;
mod page;
mod source;
mod total;

pub(crate) use filter::Selection;

/// The parts of a list that determine a statement's text, apart from the dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ListShape {
    /// The todos of a page, with the total of the list if it `counts`.
    Page { filter: Filter, sort: Sort, start: Start, counts: bool },
    /// Whether the caller is authorized, and the total: for an empty page.
    Total { filter: Filter, counts: bool },
}

/// Where a page begins. Some sort keys are those of some todos only: these are the head of a list,
/// the others its tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Start {
    First,
    /// After a position in the head.
    InHead,
    /// After a position in the tail.
    InTail,
}

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sort {
    pub(crate) by: SortBy,
    pub(crate) order: SortOrder,
}

/// The scope: the todos of the caller, who is `$1`. With `$2` and `$3` it is authorized.
const SCOPE: &str = "user_id = $1";
/// The state of the user's todos that a statement reads: the epoch of the log of changes, and the
/// number of the last change. See [`ListVersion`](super::ListVersion).
const STATE: &str = "(SELECT value FROM meta WHERE name = 'epoch') AS epoch, \
    (SELECT seq FROM todo_counts WHERE user_id = $1) AS seq";
/// The maximum number of rows.
const ROWS: &str = "$4";
/// The number of the first parameter of a page after [`ROWS`], and of a total.
const FIRST_OF_PAGE: usize = 5;
const FIRST_OF_TOTAL: usize = 4;
/// Maximum number of a user's todos without a folded text that a search folds itself.
pub(crate) const MAX_UNFOLDED: i64 = 500;

/// The texts of lists without filters, in the orders that every list has: each stays cached.
struct Texts {
    plain: LazyLock<ComposedTexts<ListShape>>,
    others: LazyLock<ComposedTexts<ListShape>>,
}

impl Texts {
    const fn new() -> Self {
        Self { plain: LazyLock::new(ComposedTexts::new), others: LazyLock::new(ComposedTexts::new) }
    }
}

static SQLITE: Texts = Texts::new();
static POSTGRES: Texts = Texts::new();

/// The statement of a page of at most `rows` todos, after a position or from the start. Its rows
/// are the columns of a todo, the state (two columns), the total, the position in the user's order,
/// and the number of the user's todos that a search does not find yet, at most one more than
/// [`MAX_UNFOLDED`].
pub(crate) fn page(
    dialect: Dialect,
    caller: Caller,
    selection: &Selection,
    rows: i64,
    after: Option<&Position>,
    counts: bool,
) -> Statement {
    let Selection { sort, .. } = *selection;
    let filter = selection.shape();
    let start = match after {
        None => Start::First,
        Some(Position { key: Key::Due(None) | Key::Place(None), .. }) => Start::InTail,
        Some(_) => Start::InHead,
    };
    let shape = ListShape::Page { filter, sort, start, counts };
    let mut page = acting_as(caller, shape.text(dialect)).bind(rows);
    if let Some(Position { key, created_at, id }) = after {
        // In the order of the sort's columns.
        page = match key {
            Key::CreatedAt | Key::Due(None) | Key::Place(None) => page,
            Key::Priority(priority) => page.bind(*priority),
            Key::Due(Some(key)) => page.bind(*key),
            Key::Title(text) | Key::Place(Some(text)) => page.bind(text.as_str()),
        };
        page = page.bind(Timestamp(*created_at)).bind(*id);
    }
    selection.bind(page)
}

/// The statement for an empty page: whether the caller is authorized, the total, the state, and the
/// number of todos that a search does not find yet.
pub(crate) fn total(
    dialect: Dialect,
    caller: Caller,
    selection: &Selection,
    counts: bool,
) -> Statement {
    let shape = ListShape::Total { filter: selection.shape(), counts };
    selection.bind(acting_as(caller, shape.text(dialect)))
}

/// The statement that reads the version of a list, without the list: whether the caller is
/// authorized, and the state of the caller's todos.
pub(crate) fn state(caller: Caller) -> Statement {
    const SQL: &str = concat!(
        "SELECT ",
        authorized!(),
        ", (SELECT value FROM meta WHERE name = 'epoch'), \
         (SELECT seq FROM todo_counts WHERE user_id = $1)"
    );
    acting_as(caller, SQL)
}

impl ListShape {
    /// The number of plain shapes.
    const COUNT: usize = Status::ALL.len() * (Self::PLAIN.len() * SortOrder::ALL.len() * 2 + 1);
    /// The sort keys that every todo has.
    const PLAIN: [SortBy; 3] = [SortBy::CreatedAt, SortBy::Priority, SortBy::Title];

    fn is_plain(self) -> bool {
        let (filter, counts, by) = match self {
            Self::Page { filter, sort, counts, .. } => (filter, counts, sort.by),
            Self::Total { filter, counts } => (filter, counts, SortBy::CreatedAt),
        };
        counts && filter.is_plain() && Self::PLAIN.contains(&by)
    }

    fn text(self, dialect: Dialect) -> SqlStr {
        let Texts { plain, others } = match dialect {
            Dialect::Sqlite => &SQLITE,
            Dialect::Postgres => &POSTGRES,
        };
        let texts = if self.is_plain() { plain } else { others };
        texts.get(self, |shape| shape.compose(dialect))
    }

    fn compose(self, dialect: Dialect) -> String {
        match self {
            Self::Page { filter, sort, start, counts } => {
                let numbers = Parameters::of(filter, FIRST_OF_PAGE + sort.parameters(start));
                page::compose(dialect, filter, numbers, sort, start, counts)
            }
            Self::Total { filter, counts } => {
                let numbers = Parameters::of(filter, FIRST_OF_TOTAL);
                page::compose_total(dialect, filter, numbers, counts)
            }
        }
    }
}

// Every plain shape stays cached, and prepared on each connection.
const _: () = assert!(ListShape::COUNT <= MAX_COMPOSED, "raise MAX_COMPOSED");

fn join<T>(pieces: &[T], separator: &str, text: impl Fn(&T) -> String) -> String {
    pieces.iter().map(text).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests;
