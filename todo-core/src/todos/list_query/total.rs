//! The total of a list: a number that is kept, where there is one for its filters, else a count.

use super::{
    SCOPE,
    filter::{DueShape, Filter, ListFilterShape, TagShape, json_values},
    join,
    page::Plans,
    source::{MAX_SORTED, Range, Reading, Source, Sources},
};
use crate::db::Dialect;

impl Sources {
    /// The number of todos that match the filters, as an expression. `plans` are those of the page,
    /// if there are several.
    pub(super) fn total(self, plans: &Plans) -> String {
        let Self { filter, .. } = self;
        let all = self.size(Source::All);
        let only = |other: Filter| filter == other;
        let plain = Filter::plain(filter.status);
        if filter.is_plain() {
            all
        } else if only(Filter { tags: TagShape::One, ..plain }) {
            self.size(Source::Tag)
        } else if only(Filter { tags: TagShape::Many, ..plain }) {
            self.tagged_with_all(plans)
        } else if only(Filter { any_tags: true, ..plain }) {
            self.tagged_with_one()
        } else if only(Filter { list: ListFilterShape::List, ..plain }) {
            self.size(Source::List)
        } else if only(Filter { list: ListFilterShape::Inbox, ..plain }) {
            let listed = format!("CAST(coalesce(sum({}), 0) AS bigint)", filter.counts());
            format!("{all} - (SELECT {listed} FROM list_counts WHERE {SCOPE})")
        } else if only(Filter { due: DueShape::Any, ..plain }) {
            self.dated()
        } else if only(Filter { due: DueShape::None, ..plain }) {
            format!("{all} - ({})", self.dated())
        } else if only(Filter { due: DueShape::Range, ..plain }) {
            self.due_in_range()
        } else {
            self.counted(plans)
        }
    }

    /// The number of todos with a due date, read from their index only.
    fn dated(self) -> String {
        self.sum(|range| self.dated_rows(range))
    }

    /// The number of todos in the range of due dates: those with sure keys are read from their
    /// index only.
    fn due_in_range(self) -> String {
        let [first, last] = self.numbers.keys();
        let [first_sure, last_sure] = self.numbers.sure_keys();
        let is_due = self.numbers.is_due();
        self.sum(|range| {
            let dated = format!("{} AND due_key", self.dated_rows(range));
            [
                format!("{dated} BETWEEN {first_sure} AND {last_sure}"),
                format!("{dated} >= {first} AND due_key < {first_sure} AND {is_due}"),
                format!("{dated} > {last_sure} AND due_key <= {last} AND {is_due}"),
            ]
            .join(") + (SELECT count(*) ")
        })
    }

    fn dated_rows(self, range: &Range) -> String {
        let index = match self.dialect {
            // It would else read all todos.
            Dialect::Sqlite => " INDEXED BY todos_by_due",
            Dialect::Postgres => "",
        };
        format!("FROM todos{index} WHERE {SCOPE} AND {} AND undated = FALSE", range.condition)
    }

    /// The number of todos with all of some tags: read from those of each tag only, unless one of
    /// the tags has few.
    fn tagged_with_all(self, plans: &Plans) -> String {
        let wanted = json_values(self.dialect, &self.numbers.tags());
        format!(
            "CASE WHEN {} <= {MAX_SORTED} THEN {} ELSE (SELECT count(*) FROM (SELECT 1 \
             FROM todo_tags WHERE {} GROUP BY completed, created_at, todo_id \
             HAVING count(*) = (SELECT count(*) FROM {wanted} AS wanted)) AS tagged) END",
            self.size(Source::Tag),
            self.counted(plans),
            self.tagged_rows(&wanted)
        )
    }

    /// The number of todos with one of some tags, read from those of each tag only.
    fn tagged_with_one(self) -> String {
        let wanted = json_values(self.dialect, &self.numbers.any_tags());
        format!(
            "(SELECT count(*) FROM (SELECT DISTINCT completed, created_at, todo_id FROM todo_tags \
             WHERE {}) AS tagged)",
            self.tagged_rows(&wanted)
        )
    }

    /// The condition of the tags of todos that are in a table.
    fn tagged_rows(self, wanted: &str) -> String {
        let in_range = match self.filter.ranges() {
            [range] => format!(" AND {}", range.condition),
            _ => String::new(),
        };
        format!("{SCOPE} AND tag IN (SELECT value FROM {wanted} AS wanted){in_range}")
    }

    /// The sum of the rows of each range.
    fn sum(self, rows: impl Fn(&Range) -> String) -> String {
        join(self.filter.ranges(), " + ", |range| format!("(SELECT count(*) {})", rows(range)))
    }

    /// The number of todos that match all filters, each of which is read.
    fn counted(self, plans: &Plans) -> String {
        let count = |source| {
            let conditions = self.filter.conditions(self.dialect, self.numbers, source);
            format!("(SELECT count(*) {}{conditions})", self.rows(source, None, Reading::default()))
        };
        let default = self.filter.sources().first().copied().unwrap_or(Source::All);
        plans.choose(count, &count(default))
    }
}
