//! The statement of a page. Only the form in which a database merges ranges lazily, without a sort,
//! differs between the databases: see [`Dialect`].

use super::{
    MAX_UNFOLDED, ROWS, STATE, Sort, Start,
    filter::{DueShape, Filter, ListFilterShape, Parameters, SearchShape, TagShape},
    join,
    order::{self, Part, by_name, by_value, named},
    source::{MAX_SORTED, Source, Sources},
};
use crate::{
    authz::authorized,
    db::Dialect,
    todos::{list_types::SortBy, todo::todo_columns},
};

/// The ways in which the rows of a statement can be read: the rows of one of some sources, if it
/// has few, else a default.
pub(super) struct Plans {
    /// The sources of plan 1, 2 and so on; 0 is the default.
    narrow: Vec<Source>,
    /// The number of the plan, as an expression; empty if there is only the default.
    choice: String,
}

/// The number of the plan: one row.
const CHOICE: &str = "(SELECT plan FROM choice)";

impl Plans {
    /// The plans of a page or of a total. A source with few todos is chosen, if none, the source
    /// of the default included, has fewer.
    fn of(sources: Sources, default: Source) -> Self {
        let others = sources.filter.sources().into_iter().filter(|source| *source != default);
        let narrow: Vec<Source> = others.collect();
        if narrow.is_empty() {
            return Self { narrow, choice: String::new() };
        }
        let mut sizes: Vec<String> = narrow.iter().map(|source| sources.size(*source)).collect();
        if default != Source::All {
            sizes.push(sources.size(default));
        }
        let numbers: Vec<usize> = (0..sizes.len()).collect();
        let columns = join(&numbers, ", ", |number| {
            format!("{} AS size_{number}", sizes.get(*number).map_or("0", String::as_str))
        });
        let cases = join(numbers.get(..narrow.len()).unwrap_or_default(), " ", |number| {
            let others: Vec<&usize> = numbers.iter().filter(|other| *other != number).collect();
            let is_least = join(&others, "", |other| format!(" AND size_{number} <= size_{other}"));
            format!("WHEN size_{number} <= {MAX_SORTED}{is_least} THEN {}", number + 1)
        });
        let choice = format!(
            "choice AS MATERIALIZED (SELECT CASE {cases} ELSE 0 END AS plan \
             FROM (SELECT {columns}) AS sizes)"
        );
        Self { narrow, choice }
    }

    /// The value for the chosen plan.
    pub(super) fn choose(&self, narrow: impl Fn(Source) -> String, default: &str) -> String {
        if self.narrow.is_empty() {
            return default.to_owned();
        }
        let numbered: Vec<(usize, &Source)> = (1..).zip(&self.narrow).collect();
        let cases = join(&numbered, " ", |(number, source)| {
            format!("WHEN {number} THEN {}", narrow(**source))
        });
        format!("CASE {CHOICE} {cases} ELSE {default} END")
    }

    /// The condition of a plan, with an AND before it.
    fn is_chosen(&self, number: usize) -> String {
        if self.narrow.is_empty() { String::new() } else { format!(" AND {CHOICE} = {number}") }
    }
}

/// The source whose rows are in the order of a sort, if they are read by ranges.
fn ordered_source(filter: Filter, sort: Sort) -> Source {
    match sort.by {
        SortBy::CreatedAt if filter.tags != TagShape::None => Source::Tag,
        SortBy::CreatedAt if filter.list == ListFilterShape::List => Source::List,
        SortBy::Due if filter.due == DueShape::Range => Source::Due,
        _ => Source::All,
    }
}

/// The number of the caller's todos that a search does not find yet.
fn unfolded(filter: Filter) -> String {
    if filter.search == SearchShape::None {
        return "CAST(0 AS bigint) AS unfolded".to_owned();
    }
    format!(
        "(SELECT count(*) FROM (SELECT 1 FROM todos WHERE user_id = $1 AND search IS NULL \
         LIMIT {}) AS found) AS unfolded",
        MAX_UNFOLDED + 1
    )
}

/// WITH, if there is anything in it.
fn with(tables: &[&str]) -> String {
    let tables: Vec<&&str> = tables.iter().filter(|table| !table.is_empty()).collect();
    if tables.is_empty() {
        return String::new();
    }
    format!("WITH {} ", join(&tables, ", ", |table| (**table).to_owned()))
}

/// The total of a statement, as an expression, and the table in which it is counted once; the
/// table is empty if it is a kept number.
fn total(sources: Sources, plans: &Plans, counts: bool) -> (String, String) {
    if !counts {
        return ("CAST(NULL AS bigint)".to_owned(), String::new());
    }
    let total = sources.total(plans);
    if sources.filter.is_plain() {
        return (total, String::new());
    }
    let table = format!("counted AS MATERIALIZED (SELECT {total} AS total)");
    ("(SELECT total FROM counted)".to_owned(), table)
}

/// Some of a page's rows, in its order.
struct Leg {
    rows: String,
    columns: Vec<order::SortColumn>,
}

pub(super) fn compose(
    dialect: Dialect,
    filter: Filter,
    numbers: Parameters,
    sort: Sort,
    start: Start,
    counts: bool,
) -> String {
    let sources = Sources { dialect, filter, numbers };
    let default = ordered_source(filter, sort);
    let plans = Plans::of(sources, default);
    let mut legs = ordered_legs(sources, &plans, default, sort, start);
    for (number, source) in (1..).zip(&plans.narrow) {
        legs.push(narrow_leg(sources, &plans, number, *source, sort, start));
    }
    let todo = todo_columns!();
    let authorized = authorized!();
    let (total, counted) = total(sources, &plans, counts);
    let with = with(&[&plans.choice, &counted]);
    let columns = format!("{todo}, {STATE}, {total} AS total, position, {}", unfolded(filter));
    match (&*legs, dialect) {
        ([Leg { rows, columns: sorted }], _) => {
            let order = by_value(sorted);
            format!("{with}SELECT {columns} {rows} AND {authorized} {order} LIMIT {ROWS}")
        }
        // SQLite merges plain selects lazily, each read in its order.
        (legs, Dialect::Sqlite) => {
            let order = legs.first().map(|leg| by_name(&leg.columns)).unwrap_or_default();
            let merged = join(legs, " UNION ALL ", |Leg { rows, columns: sorted }| {
                format!("SELECT {columns}{} {rows} AND {authorized}", named(sorted))
            });
            format!("{with}{merged} {order} LIMIT {ROWS}")
        }
        // The LIMIT on each select makes PostgreSQL merge them without a sort.
        (legs, Dialect::Postgres) => {
            let order = legs.first().map(|leg| by_name(&leg.columns)).unwrap_or_default();
            let merged = join(legs, " UNION ALL ", |Leg { rows, columns: sorted }| {
                let named = named(sorted);
                let order = by_value(sorted);
                format!(
                    "SELECT * FROM (SELECT {todo}, position{named} {rows} {order} \
                     LIMIT {ROWS}) AS part"
                )
            });
            format!(
                "{with}SELECT {columns} FROM ({merged}) AS page WHERE {authorized} {order} \
                 LIMIT {ROWS}"
            )
        }
    }
}

pub(super) fn compose_total(
    dialect: Dialect,
    filter: Filter,
    numbers: Parameters,
    counts: bool,
) -> String {
    let sources = Sources { dialect, filter, numbers };
    let default = filter.sources().first().copied().unwrap_or(Source::All);
    let plans = Plans::of(sources, default);
    let (total, counted) = total(sources, &plans, counts);
    let with = with(&[&plans.choice, &counted]);
    let authorized = authorized!();
    // Nothing is counted for a session that has ended.
    format!(
        "{with}SELECT {authorized}, CASE WHEN {authorized} THEN coalesce({total}, {}) END, \
         {STATE}, {}",
        if counts { "0" } else { "NULL" },
        unfolded(filter)
    )
}

/// The rows of each part of the list in each range, in the order of an index.
fn ordered_legs(
    sources: Sources,
    plans: &Plans,
    source: Source,
    sort: Sort,
    start: Start,
) -> Vec<Leg> {
    let Sources { dialect, filter, numbers } = sources;
    let mut legs = Vec::new();
    for (part, is_after) in sort.parts(start) {
        let is_empty = sort.by == SortBy::Due
            && match part {
                Part::Head => filter.due == DueShape::None,
                Part::Tail => matches!(filter.due, DueShape::Any | DueShape::Range),
            };
        if is_empty {
            continue;
        }
        let is_tagged = source == Source::Tag;
        for range in filter.ranges() {
            let mut rows = sources.rows(source, Some(*range));
            rows.push_str(sort.condition(part));
            if is_after {
                rows.push_str(" AND ");
                rows.push_str(&sort.after(part, is_tagged));
            }
            rows.push_str(&filter.conditions(dialect, numbers, source));
            rows.push_str(&plans.is_chosen(0));
            legs.push(Leg { rows, columns: sort.columns(Some(part), is_tagged) });
        }
    }
    if legs.is_empty() {
        // A position among todos that the filters exclude.
        let rows = format!("{} AND FALSE", sources.rows(Source::All, None));
        legs.push(Leg { rows, columns: sort.columns(None, false) });
    }
    legs
}

/// The rows of a filter's own index, which are sorted.
fn narrow_leg(
    sources: Sources,
    plans: &Plans,
    number: usize,
    source: Source,
    sort: Sort,
    start: Start,
) -> Leg {
    let Sources { dialect, filter, numbers } = sources;
    let rows = sources.rows(source, None);
    let chosen = plans.is_chosen(number);
    let conditions = filter.conditions(dialect, numbers, source);
    let after = sort.after_in_all(start);
    let rows = match dialect {
        Dialect::Sqlite => format!("{rows}{chosen}{conditions}{after}"),
        // PostgreSQL would else read the index of the order, if it expects more todos.
        Dialect::Postgres => format!(
            "FROM (SELECT todos.* {rows}{chosen} OFFSET 0) AS todos WHERE TRUE{conditions}{after}"
        ),
    };
    Leg { rows, columns: sort.columns(None, false) }
}
