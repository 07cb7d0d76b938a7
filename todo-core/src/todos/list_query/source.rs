//! Where the rows of a list are read from: an index that has the todos of a filter together, or
//! one that has all todos in an order.

use super::{
    SCOPE,
    filter::{DueShape, Filter, ListFilterShape, Parameters, TagShape, json_values},
    join,
};
use crate::{
    db::Dialect,
    todos::list_types::{SortOrder, Status},
};

/// A set of the caller's todos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// All todos.
    All,
    /// Those with the rarest of the tags that are all required.
    Tag,
    /// Those with one of the tags of which one is required.
    AnyTag,
    /// Those in the list.
    List,
    /// Those with a due date that can be in the range.
    Due,
}

/// A range of each index that begins with the columns of the scope and of this condition.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) condition: &'static str,
    /// The column with the number of todos in the range, of the tables that count.
    pub(super) count: &'static str,
}

/// How the rows of a source are read.
#[derive(Clone, Copy, Default)]
pub(super) struct Reading<'a> {
    /// A condition without columns; empty if there is none.
    pub(super) condition: &'a str,
    /// The index of the order, of all todos; none if it is that of the table.
    pub(super) index: Option<&'static str>,
    /// The direction in which the rows of an order begin after a position, if they do.
    pub(super) after: Option<SortOrder>,
}

const PENDING: Range = Range { condition: "completed = FALSE", count: "pending" };
const COMPLETED: Range = Range { condition: "completed = TRUE", count: "completed" };

/// Maximum number of todos that are read and sorted.
pub(super) const MAX_SORTED: u16 = 5000;

impl Filter {
    /// The ranges that the list consists of.
    pub(super) fn ranges(self) -> &'static [Range] {
        match self.status {
            Status::All => &[PENDING, COMPLETED],
            Status::Pending => &[PENDING],
            Status::Completed => &[COMPLETED],
        }
    }

    /// The sources of the filters that have one.
    pub(super) fn sources(self) -> Vec<Source> {
        let mut sources = Vec::new();
        if self.tags != TagShape::None {
            sources.push(Source::Tag);
        }
        if self.due == DueShape::Range {
            sources.push(Source::Due);
        }
        if self.list == ListFilterShape::List {
            sources.push(Source::List);
        }
        if self.any_tags {
            sources.push(Source::AnyTag);
        }
        sources
    }

    /// The number of todos in all ranges, by the columns of a table that counts.
    pub(super) fn counts(self) -> String {
        join(self.ranges(), " + ", |range| range.count.to_owned())
    }
}

/// The composition of sources for a dialect.
#[derive(Clone, Copy)]
pub(super) struct Sources {
    pub(super) dialect: Dialect,
    pub(super) filter: Filter,
    pub(super) numbers: Parameters,
}

impl Sources {
    /// FROM and WHERE of the rows of a source in a range, or in all.
    pub(super) fn rows(self, source: Source, range: Option<Range>, reading: Reading<'_>) -> String {
        let Reading { condition, .. } = reading;
        match self.dialect {
            _ if condition.is_empty() => self.scoped_rows(source, range, reading, SCOPE),
            // SQLite evaluates it once, but on each row that it reads: the range is empty instead.
            Dialect::Sqlite => {
                let scope = format!("user_id = (SELECT $1 WHERE {condition})");
                self.scoped_rows(source, range, reading, &scope)
            }
            Dialect::Postgres => {
                let rows = self.scoped_rows(source, range, reading, SCOPE);
                format!("{rows} AND {condition}")
            }
        }
    }

    fn scoped_rows(
        self,
        source: Source,
        range: Option<Range>,
        Reading { index, after, .. }: Reading<'_>,
        scope: &str,
    ) -> String {
        let of_range = |range: Range| format!(" AND {}", range.condition);
        let in_range = match range {
            Some(range) => of_range(range),
            None => match self.filter.ranges() {
                [range] => of_range(*range),
                // The other indexes have the ranges of a filter together, or one after the other.
                _ if source == Source::Due => " AND completed IN (FALSE, TRUE)".to_owned(),
                _ => String::new(),
            },
        };
        // SQLite, which has no statistics, would else read all todos and sort them, if it expects
        // conditions to leave few.
        let by = |index: Option<&str>| match (self.dialect, index) {
            (Dialect::Sqlite, Some(index)) => format!(" INDEXED BY {index}"),
            _ => String::new(),
        };
        let joined = "completed = tag_completed AND created_at = tag_at AND id = tag_id";
        let with_todos = match self.dialect {
            Dialect::Sqlite => format!("CROSS JOIN todos WHERE {SCOPE} AND {joined}"),
            // It would else read the todos of all users, if it expects many with the tag.
            Dialect::Postgres => format!(
                "CROSS JOIN LATERAL (SELECT * FROM todos WHERE {SCOPE} AND {joined} LIMIT 1) \
                 AS todos WHERE TRUE"
            ),
        };
        match source {
            Source::All => format!("FROM todos{} WHERE {scope}{in_range}", by(index)),
            Source::List => {
                let index = by(Some("todos_by_list"));
                let list = self.numbers.list();
                format!("FROM todos{index} WHERE {scope} AND list_id = {list}{in_range}")
            }
            Source::Due => {
                let index = by(Some("todos_by_due"));
                let [first, last] = self.numbers.keys();
                // One bound is the position.
                let keys = match after {
                    None => format!("BETWEEN {first} AND {last}"),
                    Some(SortOrder::Asc) => format!("<= {last}"),
                    Some(SortOrder::Desc) => format!(">= {first}"),
                };
                format!(
                    "FROM todos{index} WHERE {scope}{in_range} AND undated = FALSE \
                     AND due_key {keys}"
                )
            }
            Source::Tag => format!(
                "FROM (SELECT completed AS tag_completed, created_at AS tag_at, todo_id AS tag_id \
                 FROM todo_tags WHERE {scope} AND tag = {}{in_range}) AS tagged {with_todos}",
                self.tag()
            ),
            Source::AnyTag => format!(
                "FROM (SELECT DISTINCT completed AS tag_completed, created_at AS tag_at, \
                 todo_id AS tag_id FROM todo_tags WHERE {scope} AND tag IN (SELECT value FROM {} \
                 AS wanted){in_range}) AS tagged {with_todos}",
                json_values(self.dialect, &self.numbers.any_tags())
            ),
        }
    }

    /// The number of todos of a source, or one more than [`MAX_SORTED`] if there are more.
    pub(super) fn size(self, source: Source) -> String {
        let counts = self.filter.counts();
        match source {
            Source::All => format!("(SELECT {counts} FROM todo_counts WHERE {SCOPE})"),
            Source::List => {
                let list = self.numbers.list();
                let of_list = format!("FROM list_counts WHERE list_id = {list} AND {SCOPE}");
                format!("coalesce((SELECT {counts} {of_list}), 0)")
            }
            Source::Due => {
                let rows = self.rows(Source::Due, None, Reading::default());
                let rows = format!("SELECT 1 {rows} LIMIT {}", MAX_SORTED + 1);
                format!("(SELECT count(*) FROM ({rows}) AS due_dates)")
            }
            Source::Tag => match self.filter.tags {
                TagShape::Many => self.rarest(&format!("coalesce({counts}, 0)")),
                TagShape::None | TagShape::One => {
                    let tag = self.numbers.tags();
                    let of_tag = format!("FROM tags WHERE {SCOPE} AND tag = {tag}");
                    format!("coalesce((SELECT {counts} {of_tag}), 0)")
                }
            },
            Source::AnyTag => {
                let wanted = json_values(self.dialect, &self.numbers.any_tags());
                let sum = format!("CAST(coalesce(sum({counts}), 0) AS bigint)");
                let of_tags = format!("tag IN (SELECT value FROM {wanted} AS wanted)");
                format!("(SELECT {sum} FROM tags WHERE {SCOPE} AND {of_tags})")
            }
        }
    }

    /// The tag whose todos are read.
    fn tag(self) -> String {
        match self.filter.tags {
            TagShape::Many => self.rarest("wanted.value"),
            TagShape::None | TagShape::One => self.numbers.tags(),
        }
    }

    /// A column of the rarest of the tags that are all required; one that no todo has is the
    /// rarest.
    fn rarest(self, column: &str) -> String {
        let wanted = json_values(self.dialect, &self.numbers.tags());
        format!(
            "(SELECT {column} FROM {wanted} AS wanted LEFT JOIN tags \
             ON tags.user_id = $1 AND tags.tag = wanted.value \
             ORDER BY coalesce({}, 0), wanted.value LIMIT 1)",
            self.filter.counts()
        )
    }
}
