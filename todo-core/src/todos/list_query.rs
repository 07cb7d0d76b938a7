//! The SQL of the list. The text of a statement is composed from named pieces: the scope (whose
//! todos), the filter (which of them), the sort, the page (its columns, its total and its LIMIT),
//! and the position after which it begins. A text is composed when its shape is first needed.
//!
//! The cost of a page does not grow with the list: a filter is a set of ranges, each of which every
//! index of a sort has in its order. A list of more than one range is their merge. Only the form in
//! which a database merges ranges lazily, without a sort, differs between the databases: see
//! [`Dialect`].

use std::sync::LazyLock;

use sqlx::SqlStr;

#[cfg(feature = "testing")]
use crate::todos::types::Todo;
use crate::{
    authz::{Caller, acting_as, authorized},
    db::{ComposedTexts, Dialect, MAX_COMPOSED, Statement, value::Timestamp},
    todos::{
        cursor::{Key, Position},
        list_types::{Filters, SortBy, SortOrder, Status},
        types::todo_columns,
    },
};

/// The parts of a list that determine a statement's text, apart from the dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ListShape {
    /// The todos of a page, each with the total of the list; `after` a position, or the first page.
    Page { filter: Filter, sort: Sort, after: bool },
    /// Whether the caller is authorized, and the total: for an empty page.
    Total(Filter),
}

/// Which of the todos in the scope are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Filter {
    pub(crate) status: Status,
}

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sort {
    pub(crate) by: SortBy,
    pub(crate) order: SortOrder,
}

/// A range of each index of a sort: the indexes begin with the columns of the scope and of this
/// condition.
struct Range {
    condition: &'static str,
    /// The column of `todo_counts` with the number of todos in the range.
    count: &'static str,
}

const PENDING: Range = Range { condition: "completed = FALSE", count: "pending" };
const COMPLETED: Range = Range { condition: "completed = TRUE", count: "completed" };

/// The scope: the todos of the caller, who is `$1`. With `$2` and `$3` it is authorized.
const SCOPE: &str = "user_id = $1";
/// The state of the user's todos that a statement reads: the epoch of the log of changes, and the
/// number of the last change. See [`ListVersion`](super::ListVersion).
const STATE: &str = "(SELECT value FROM meta WHERE name = 'epoch') AS epoch, \
    (SELECT seq FROM todo_counts WHERE user_id = $1) AS seq";
/// The number of columns of [`STATE`], which follow those of a todo.
pub(crate) const STATE_COLUMNS: usize = 2;
/// The maximum number of rows.
const ROWS: &str = "$4";
/// The number of the first parameter after [`ROWS`].
const FIRST_OF_POSITION: usize = 5;

static SQLITE: LazyLock<ComposedTexts<ListShape>> = LazyLock::new(ComposedTexts::new);
static POSTGRES: LazyLock<ComposedTexts<ListShape>> = LazyLock::new(ComposedTexts::new);

/// The statement of a page of at most `rows` todos, after a position or from the start.
pub(crate) fn page(
    dialect: Dialect,
    caller: Caller,
    filters: Filters,
    rows: i64,
    after: Option<&Position>,
) -> Statement {
    let Filters { status, sort_by, order } = filters;
    let filter = Filter { status };
    let sort = Sort { by: sort_by, order };
    let shape = ListShape::Page { filter, sort, after: after.is_some() };
    let page = acting_as(caller, shape.text(dialect)).bind(rows);
    let Some(Position { key, created_at, id }) = after else { return page };
    // In the order of the sort's columns.
    let page = match key {
        Key::CreatedAt => page,
        Key::Priority(priority) => page.bind(*priority),
        Key::Title(title) => page.bind(title.as_str()),
    };
    page.bind(Timestamp(*created_at)).bind(*id)
}

/// The statement for an empty page: whether the caller is authorized, and the total.
pub(crate) fn total(dialect: Dialect, caller: Caller, status: Status) -> Statement {
    acting_as(caller, ListShape::Total(Filter { status }).text(dialect))
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

/// A statement of every shape.
#[cfg(feature = "testing")]
pub(crate) fn list_statements(
    dialect: Dialect,
    caller: Caller,
    rows: i64,
    position: &Todo,
) -> Vec<(ListShape, Statement)> {
    let statement = |shape: ListShape| match shape {
        ListShape::Page { filter, sort, after } => {
            let filters = Filters { status: filter.status, sort_by: sort.by, order: sort.order };
            let after = after.then(|| Position::of(position, sort.by));
            (shape, page(dialect, caller, filters, rows, after.as_ref()))
        }
        ListShape::Total(filter) => (shape, total(dialect, caller, filter.status)),
    };
    ListShape::all().into_iter().map(statement).collect()
}

impl ListShape {
    /// The number of shapes.
    const COUNT: usize = {
        let sorts = SortBy::ALL.len() * SortOrder::ALL.len();
        let pages = sorts * 2;
        Status::ALL.len() * (pages + 1)
    };

    /// Every shape.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn all() -> Vec<Self> {
        let mut shapes = Vec::with_capacity(Self::COUNT);
        for &status in Status::ALL {
            let filter = Filter { status };
            shapes.push(Self::Total(filter));
            for &by in SortBy::ALL {
                for &order in SortOrder::ALL {
                    let sort = Sort { by, order };
                    shapes.extend([false, true].map(|after| Self::Page { filter, sort, after }));
                }
            }
        }
        shapes
    }

    fn text(self, dialect: Dialect) -> SqlStr {
        let texts = match dialect {
            Dialect::Sqlite => &SQLITE,
            Dialect::Postgres => &POSTGRES,
        };
        texts.get(self, |shape| shape.compose(dialect))
    }

    fn compose(self, dialect: Dialect) -> String {
        match self {
            Self::Page { filter, sort, after } => compose_page(dialect, filter, sort, after),
            Self::Total(filter) => {
                format!("SELECT {}, coalesce({}, 0), {STATE}", authorized!(), filter.total())
            }
        }
    }
}

// Every shape stays cached, and prepared on each connection.
const _: () = assert!(ListShape::COUNT <= MAX_COMPOSED, "raise MAX_COMPOSED");

impl Filter {
    /// The ranges that the list consists of.
    fn ranges(self) -> &'static [Range] {
        match self.status {
            Status::All => &[PENDING, COMPLETED],
            Status::Pending => &[PENDING],
            Status::Completed => &[COMPLETED],
        }
    }

    /// The number of todos in all ranges, as an expression.
    fn total(self) -> String {
        let counts = join(self.ranges(), " + ", |range| range.count.to_owned());
        format!("(SELECT {counts} FROM todo_counts WHERE {SCOPE})")
    }
}

impl Sort {
    /// The columns to sort by, the most significant first. Together they are unique.
    fn columns(self) -> &'static [&'static str] {
        match self.by {
            SortBy::CreatedAt => &["created_at", "id"],
            SortBy::Priority => &["priority", "created_at", "id"],
            SortBy::Title => &["title_key", "created_at", "id"],
        }
    }

    fn order_by(self) -> String {
        let direction = match self.order {
            SortOrder::Asc => "ASC",
            SortOrder::Desc => "DESC",
        };
        let columns = join(self.columns(), ", ", |column| format!("{column} {direction}"));
        format!("ORDER BY {columns}")
    }

    /// The condition of the rows after a position, whose first value is the parameter `first`.
    fn after(self, first: usize) -> String {
        let beyond = match self.order {
            SortOrder::Asc => ">",
            SortOrder::Desc => "<",
        };
        let columns = self.columns();
        let numbers: Vec<usize> = (first..first + columns.len()).collect();
        let values = join(&numbers, ", ", |number| format!("${number}"));
        format!("({}) {beyond} ({values})", columns.join(", "))
    }

    /// The columns that a merge sorts by and a todo does not have, each after a comma.
    fn hidden_columns(self) -> String {
        let is_hidden =
            |column: &&&str| !todo_columns!().split(", ").any(|shown| shown == **column);
        let hidden: Vec<&&str> = self.columns().iter().filter(is_hidden).collect();
        join(&hidden, "", |column| format!(", {column}"))
    }
}

fn compose_page(dialect: Dialect, filter: Filter, sort: Sort, after: bool) -> String {
    let columns = todo_columns!();
    let authorized = authorized!();
    let total = filter.total();
    let hidden = sort.hidden_columns();
    let after =
        if after { format!(" AND {}", sort.after(FIRST_OF_POSITION)) } else { String::new() };
    let rows_of =
        |range: &Range| format!("FROM todos WHERE {SCOPE} AND {}{after}", range.condition);
    let end = format!("{} LIMIT {ROWS}", sort.order_by());
    match (filter.ranges(), dialect) {
        ([range], _) => {
            let rows = rows_of(range);
            format!("SELECT {columns}, {STATE}, {total} AS total {rows} AND {authorized} {end}")
        }
        // SQLite merges plain selects lazily, each read in its order.
        (ranges, Dialect::Sqlite) => {
            let merged = join(ranges, " UNION ALL ", |range| {
                let rows = rows_of(range);
                format!(
                    "SELECT {columns}, {STATE}, {total} AS total{hidden} {rows} AND {authorized}"
                )
            });
            format!("{merged} {end}")
        }
        // The LIMIT on each select makes PostgreSQL merge them without a sort.
        (ranges, Dialect::Postgres) => {
            let merged = join(ranges, " UNION ALL ", |range| {
                let rows = rows_of(range);
                format!("SELECT * FROM (SELECT {columns}{hidden} {rows} {end}) AS part")
            });
            format!(
                "SELECT {columns}, {STATE}, {total} AS total FROM ({merged}) AS page \
                 WHERE {authorized} {end}"
            )
        }
    }
}

fn join<T>(pieces: &[T], separator: &str, text: impl Fn(&T) -> String) -> String {
    pieces.iter().map(text).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_shape_has_its_own_text_that_stays_cached() {
        let shapes = ListShape::all();
        assert_eq!(shapes.len(), ListShape::COUNT);
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            let texts: Vec<SqlStr> = shapes.iter().map(|shape| shape.text(dialect)).collect();
            let distinct: BTreeSet<&str> = texts.iter().map(SqlStr::as_str).collect();
            assert_eq!(distinct.len(), shapes.len());
            for (shape, text) in shapes.iter().zip(&texts) {
                assert!(std::ptr::eq(shape.text(dialect).as_str(), text.as_str()), "{shape:?}");
            }
        }
    }

    #[test]
    fn a_page_is_composed_from_its_pieces() {
        let filter = Filter { status: Status::Pending };
        let sort = Sort { by: SortBy::Title, order: SortOrder::Desc };
        let shape = ListShape::Page { filter, sort, after: true };
        let text = shape.text(Dialect::Sqlite);
        for piece in [
            "FROM todos WHERE user_id = $1 AND completed = FALSE",
            "(title_key, created_at, id) < ($5, $6, $7)",
            "(SELECT pending FROM todo_counts WHERE user_id = $1) AS total",
            "ORDER BY title_key DESC, created_at DESC, id DESC LIMIT $4",
        ] {
            assert!(text.as_str().contains(piece), "{piece} in {}", text.as_str());
        }
    }
}
