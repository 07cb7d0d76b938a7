//! The text of the list's statements: one for each filter, order and direction, first page or later.
//! Each reads an index in its order, so the cost of a page does not grow with the list.

use std::sync::LazyLock;

use crate::todos::{
    caller_lives,
    types::{Filters, Order, SortBy, Status, todo_columns},
};

const STATUSES: [Status; 3] = [Status::All, Status::Pending, Status::Completed];
const SORTS: [SortBy; 3] = [SortBy::CreatedAt, SortBy::Priority, SortBy::Title];
const ORDERS: [Order; 2] = [Order::Asc, Order::Desc];

/// The driver keeps prepared statements by text, and wants it `'static`.
static PAGES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut pages = Vec::with_capacity(36);
    for status in STATUSES {
        for sort_by in SORTS {
            for order in ORDERS {
                for after in [false, true] {
                    pages.push(build(Filters { status, sort_by, order }, after));
                }
            }
        }
    }
    pages
});

/// The statement of a page: `$1` to `$3` the caller, `$4` how many rows; behind a cursor `$5` the
/// last `created_at`, `$6` the last id and, unless that is the order, `$7` the last key.
pub(crate) fn page(filters: Filters, after: bool) -> &'static str {
    let Filters { status, sort_by, order } = filters;
    let index =
        ((status as usize * SORTS.len() + sort_by as usize) * ORDERS.len() + order as usize) * 2
            + usize::from(after);
    &PAGES[index]
}

/// The statement of a page without rows: whether the caller lives, and the total.
pub(crate) fn total(status: Status) -> &'static str {
    macro_rules! total {
        ($count:literal) => {
            concat!(
                "SELECT ",
                caller_lives!(),
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

fn build(Filters { status, sort_by, order }: Filters, after: bool) -> String {
    let (direction, beyond) = match order {
        Order::Asc => ("ASC", ">"),
        Order::Desc => ("DESC", "<"),
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
    let rows = |completed: &str| {
        format!(
            "SELECT {columns}{extra} FROM todos \
             WHERE user_id = $1 AND completed = {completed}{after} {ordered}",
            columns = todo_columns!()
        )
    };
    let (count, rows) = match status {
        Status::Pending => ("pending", rows("FALSE")),
        Status::Completed => ("completed", rows("TRUE")),
        // Both ranges of the one index, each cut to a page: no second set of indexes to keep. The
        // LIMITs inside are what brings PostgreSQL to merge the two lazily instead of sorting all.
        Status::All => (
            "pending + completed",
            format!(
                "SELECT * FROM ({}) AS pending UNION ALL SELECT * FROM ({}) AS completed",
                rows("FALSE"),
                rows("TRUE")
            ),
        ),
    };
    format!(
        "SELECT {columns}, (SELECT {count} FROM todo_counts WHERE user_id = $1) AS total \
         FROM ({rows}) AS page WHERE {lives} {ordered}",
        columns = todo_columns!(),
        lives = caller_lives!(),
    )
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
                        assert_eq!(page(filters, after), build(filters, after));
                    }
                }
            }
        }
    }

    /// The cost of a page must not grow with the list: each range is read from an index in its
    /// order. Only the two pages of an unfiltered list may be sorted together.
    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn every_page_reads_an_index_in_order_on_sqlite() {
        use sqlx::{Connection, Row};

        let mut conn = sqlx::SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("../migrations/sqlite").run(&mut conn).await.unwrap();
        for sql in PAGES.iter() {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
            let plan = sqlx::query(explain).fetch_all(&mut conn).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
            let count = |what: &str| plan.iter().filter(|step| step.contains(what)).count();
            let ranges = if sql.contains("UNION ALL") { 2 } else { 1 };
            assert_eq!(count("SEARCH todos USING INDEX todos_by_"), ranges, "{sql}\n{plan:#?}");
            assert_eq!(count("SCAN todos"), 0, "{sql}\n{plan:#?}");
            if ranges == 1 {
                assert_eq!(count("TEMP B-TREE"), 0, "{sql}\n{plan:#?}");
            }
        }
    }
}
