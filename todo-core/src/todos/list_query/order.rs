//! The order of a list: its parts, the columns that it is sorted by, and positions in it.

use super::{FIRST_OF_PAGE, Sort, Start, join};
use crate::todos::list_types::{SortBy, SortOrder};

/// A part of a list in an order: see [`Start`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Head,
    Tail,
}

/// A column that a list is sorted by.
#[derive(Debug)]
pub(super) struct SortColumn {
    /// Its value.
    pub(super) value: &'static str,
    /// Its name in a union.
    name: &'static str,
    is_descending: bool,
    /// Whether all rows of a part have the same value.
    is_constant: bool,
}

impl Sort {
    /// The column of the sort key, but for `created_at`.
    fn key(self) -> Option<&'static str> {
        match self.by {
            SortBy::CreatedAt => None,
            SortBy::Priority => Some("priority"),
            SortBy::Title => Some("title_key"),
            SortBy::Due => Some("due_key"),
            SortBy::Position => Some("position"),
        }
    }

    /// The condition of the todos in the tail; none if there is no tail.
    pub(super) fn is_tail(self) -> Option<&'static str> {
        match self.by {
            SortBy::Due => Some("undated"),
            SortBy::Position => Some("(position IS NULL)"),
            SortBy::CreatedAt | SortBy::Priority | SortBy::Title => None,
        }
    }

    /// The condition of a part of the list, as its index has it.
    pub(super) fn condition(self, part: Part) -> &'static str {
        match (self.by, part) {
            (SortBy::Due, Part::Head) => " AND undated = FALSE",
            (SortBy::Due, Part::Tail) => " AND undated = TRUE",
            (SortBy::Position, Part::Head) => " AND position IS NOT NULL",
            (SortBy::Position, Part::Tail) => " AND position IS NULL",
            (SortBy::CreatedAt | SortBy::Priority | SortBy::Title, _) => "",
        }
    }

    /// The index of a part; none if it is the table in its own order.
    pub(super) fn index(self, part: Part) -> Option<&'static str> {
        match (self.by, part) {
            (SortBy::Priority, _) => Some("todos_by_priority"),
            (SortBy::Title, _) => Some("todos_by_title"),
            (SortBy::Due, Part::Head) => Some("todos_by_due"),
            (SortBy::Position, Part::Head) => Some("todos_by_position"),
            (SortBy::CreatedAt, _) | (SortBy::Due | SortBy::Position, Part::Tail) => None,
        }
    }

    /// Whether the tail comes before the head. Todos without a due date are last in both
    /// directions.
    fn is_tail_first(self) -> bool {
        self.by == SortBy::Position && self.order == SortOrder::Desc
    }

    /// The parts of the list from a start, and whether a part begins after the position.
    pub(super) fn parts(self, start: Start) -> Vec<(Part, bool)> {
        if self.is_tail().is_none() {
            return vec![(Part::Head, start != Start::First)];
        }
        let parts =
            if self.is_tail_first() { [Part::Tail, Part::Head] } else { [Part::Head, Part::Tail] };
        let first = match start {
            Start::First => return parts.map(|part| (part, false)).to_vec(),
            Start::InHead => Part::Head,
            Start::InTail => Part::Tail,
        };
        let left = parts.into_iter().skip_while(|part| *part != first);
        left.map(|part| (part, part == first)).collect()
    }

    /// The columns of a part, or of all parts, the most significant first. Together they are
    /// unique. The rows of a `tagged` source have the columns of `todo_tags`, in whose order they
    /// are.
    pub(super) fn columns(self, part: Option<Part>, is_tagged: bool) -> Vec<SortColumn> {
        let is_descending = self.order == SortOrder::Desc;
        let column = |value, name| SortColumn { value, name, is_descending, is_constant: false };
        let mut columns = Vec::with_capacity(4);
        if let Some(is_tail) = self.is_tail() {
            let value = match part {
                Some(Part::Head) => "FALSE",
                Some(Part::Tail) => "TRUE",
                None => is_tail,
            };
            columns.push(SortColumn {
                value,
                name: "sort_tail",
                is_descending: self.is_tail_first(),
                is_constant: part.is_some(),
            });
        }
        if let Some(key) = self.key() {
            let is_constant = part == Some(Part::Tail);
            columns.push(SortColumn { is_constant, ..column(key, "sort_key") });
        }
        let (at, id) = if is_tagged { ("tag_at", "tag_id") } else { ("created_at", "id") };
        columns.push(column(at, "sort_at"));
        columns.push(column(id, "sort_id"));
        columns
    }

    /// The number of parameters of a position.
    pub(super) fn parameters(self, start: Start) -> usize {
        match start {
            Start::First => 0,
            Start::InHead => 2 + usize::from(self.key().is_some()),
            Start::InTail => 2,
        }
    }

    /// The condition of the rows of a part after a position in it.
    pub(super) fn after(self, part: Part, is_tagged: bool) -> String {
        let columns: Vec<&str> = self
            .columns(Some(part), is_tagged)
            .into_iter()
            .filter(|column| !column.is_constant)
            .map(|column| column.value)
            .collect();
        let beyond = if self.order == SortOrder::Desc { "<" } else { ">" };
        let numbers: Vec<usize> = (FIRST_OF_PAGE..FIRST_OF_PAGE + columns.len()).collect();
        let values = join(&numbers, ", ", |number| format!("${number}"));
        format!("({}) {beyond} ({values})", columns.join(", "))
    }

    /// The condition of the rows of all parts after a position, with an AND before it.
    pub(super) fn after_in_all(self, start: Start) -> String {
        let part = match start {
            Start::First => return String::new(),
            Start::InHead => Part::Head,
            Start::InTail => Part::Tail,
        };
        let after = self.after(part, false);
        let Some(is_tail) = self.is_tail() else { return format!(" AND {after}") };
        let name = |part| match part {
            Part::Head => format!("NOT {is_tail}"),
            Part::Tail => is_tail.to_owned(),
        };
        // The part of the position, and the whole part after it, if there is one.
        let is_last = self.parts(start).len() == 1;
        let other = if part == Part::Head { Part::Tail } else { Part::Head };
        if is_last {
            format!(" AND {} AND {after}", name(part))
        } else {
            format!(" AND ({} OR ({} AND {after}))", name(other), name(part))
        }
    }
}

/// The order by the values of columns. A constant is left out: SQLite does not see that an index is
/// in an order with one.
pub(super) fn by_value(columns: &[SortColumn]) -> String {
    by(columns, |column| column.value)
}

/// The order of a union, by the names of its columns.
pub(super) fn by_name(columns: &[SortColumn]) -> String {
    by(columns, |column| column.name)
}

fn by(columns: &[SortColumn], text: impl Fn(&SortColumn) -> &'static str) -> String {
    let varying: Vec<&SortColumn> = columns.iter().filter(|column| !column.is_constant).collect();
    let column = |column: &&SortColumn| format!("{} {}", text(column), column.direction());
    format!("ORDER BY {}", join(&varying, ", ", column))
}

/// The columns of a part of a union, each after a comma.
pub(super) fn named(columns: &[SortColumn]) -> String {
    join(columns, "", |column| format!(", {} AS {}", column.value, column.name))
}

impl SortColumn {
    fn direction(&self) -> &'static str {
        if self.is_descending { "DESC" } else { "ASC" }
    }
}
