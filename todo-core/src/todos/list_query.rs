//! The SQL of the list: one statement per status, sort key and direction, for the first page and
//! for later ones. Each reads an index in its order, so the cost of a page does not grow with the
//! list.
//!
//! A list of all todos is two ranges of one index. Only the form in which a database merges the two
//! lazily, without a sort, differs between the databases: see [`Dialect`].

use std::sync::LazyLock;

use crate::{
    authz::authorized,
    db::Dialect,
    todos::types::{Filters, SortBy, SortOrder, Status, todo_columns},
};

const STATUSES: [Status; 3] = [Status::All, Status::Pending, Status::Completed];
const SORTS: [SortBy; 3] = [SortBy::CreatedAt, SortBy::Priority, SortBy::Title];
const ORDERS: [SortOrder; 2] = [SortOrder::Asc, SortOrder::Desc];

/// The statements of the pages. The drivers cache prepared statements by text, which must be
/// `'static`.
static SQLITE_PAGES: LazyLock<Vec<String>> = LazyLock::new(|| pages(Dialect::Sqlite));
static POSTGRES_PAGES: LazyLock<Vec<String>> = LazyLock::new(|| pages(Dialect::Postgres));

fn pages(dialect: Dialect) -> Vec<String> {
    let mut pages = Vec::with_capacity(36);
    for status in STATUSES {
        for sort_by in SORTS {
            for order in ORDERS {
                for after in [false, true] {
                    pages.push(build(dialect, Filters { status, sort_by, order }, after));
                }
            }
        }
    }
    pages
}

/// The statement of a page. `$1` to `$3` are the caller, `$4` the number of rows; after a cursor,
/// `$5` is the last `created_at`, `$6` the last id and `$7` the last key, unless sorted by
/// `created_at`.
pub(crate) fn page(dialect: Dialect, filters: Filters, after: bool) -> &'static str {
    let Filters { status, sort_by, order } = filters;
    let index =
        ((status as usize * SORTS.len() + sort_by as usize) * ORDERS.len() + order as usize) * 2
            + usize::from(after);
    match dialect {
        Dialect::Sqlite => &SQLITE_PAGES[index],
        Dialect::Postgres => &POSTGRES_PAGES[index],
    }
}

/// The statement for an empty page: whether the caller is authorized, and the total.
pub(crate) fn total(status: Status) -> &'static str {
    macro_rules! total {
        ($count:literal) => {
            concat!(
                "SELECT ",
                authorized!(),
                ", coalesce((SELECT ",
                $count,
                " FROM todo_counts WHERE user_id = $1), 0)"
            )
        };
    }
    match status {
        Status::All => total!("pending + completed"),
        Status::Pending => total!("pending"),
        Status::Completed => total!("completed"),
    }
}

fn build(dialect: Dialect, Filters { status, sort_by, order }: Filters, after: bool) -> String {
    let (direction, beyond) = match order {
        SortOrder::Asc => ("ASC", ">"),
        SortOrder::Desc => ("DESC", "<"),
    };
    let (key, bind, extra) = match sort_by {
        SortBy::CreatedAt => ("", "", ""),
        SortBy::Priority => ("priority, ", "$7, ", ""),
        SortBy::Title => ("title_key, ", "$7, ", ", title_key"),
    };
    let after = if after {
        format!(" AND ({key}created_at, id) {beyond} ({bind}$5, $6)")
    } else {
        String::new()
    };
    let key_order = key.replace(", ", &format!(" {direction}, "));
    let ordered = format!("ORDER BY {key_order}created_at {direction}, id {direction} LIMIT $4");
    let columns = todo_columns!();
    let authorized = authorized!();
    let range =
        |completed| format!("FROM todos WHERE user_id = $1 AND completed = {completed}{after}");
    let total = |count| format!("(SELECT {count} FROM todo_counts WHERE user_id = $1) AS total");
    let page = |count, completed| {
        let total = total(count);
        let range = range(completed);
        format!("SELECT {columns}, {total}{extra} {range} AND {authorized}")
    };
    match (status, dialect) {
        (Status::Pending, _) => format!("{} {ordered}", page("pending", "FALSE")),
        (Status::Completed, _) => format!("{} {ordered}", page("completed", "TRUE")),
        // SQLite merges two plain selects lazily, each read in its order.
        (Status::All, Dialect::Sqlite) => {
            let page = |completed| page("pending + completed", completed);
            format!("{} UNION ALL {} {ordered}", page("FALSE"), page("TRUE"))
        }
        // The LIMIT on each select makes PostgreSQL merge them without a sort.
        (Status::All, Dialect::Postgres) => {
            let cut = |completed| {
                let range = range(completed);
                format!("SELECT * FROM (SELECT {columns}{extra} {range} {ordered}) AS cut")
            };
            format!(
                "SELECT {columns}, {} FROM ({} UNION ALL {}) AS page WHERE {authorized} {ordered}",
                total("pending + completed"),
                cut("FALSE"),
                cut("TRUE"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_filter_has_its_own_statement() {
        for status in STATUSES {
            for sort_by in SORTS {
                for order in ORDERS {
                    for after in [false, true] {
                        let filters = Filters { status, sort_by, order };
                        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
                            let built = build(dialect, filters, after);
                            assert_eq!(page(dialect, filters, after), built);
                        }
                    }
                }
            }
        }
    }

    /// The cost of a page must not grow with the list: each range is read from an index in its
    /// order, and nothing is sorted.
    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn every_page_reads_an_index_in_order_on_sqlite() {
        use sqlx::{Connection, Row};

        let mut conn = sqlx::SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut conn).await.unwrap();
        for sql in SQLITE_PAGES.iter() {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
            let plan = sqlx::query(explain).fetch_all(&mut conn).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
            let count = |what: &str| plan.iter().filter(|step| step.contains(what)).count();
            let ranges = if sql.contains("UNION ALL") { 2 } else { 1 };
            // The table itself is in the order of the default list.
            let read = count("SEARCH todos USING INDEX todos_by_")
                + count("SEARCH todos USING PRIMARY KEY (user_id=? AND completed=?");
            assert_eq!(read, ranges, "{sql}\n{plan:#?}");
            assert_eq!(count("SCAN todos"), 0, "{sql}\n{plan:#?}");
            assert_eq!(count("TEMP B-TREE"), 0, "{sql}\n{plan:#?}");
        }
    }
}
