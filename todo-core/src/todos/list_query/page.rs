//! The statement of a page. Only the form in which a database merges ranges lazily, without a sort,
//! differs between the databases: see [`Dialect`].

use super::{
    MAX_UNFOLDED, ROWS, STATE, Sort, Start,
    filter::{DueShape, Filter, ListFilterShape, Parameters, SearchShape, TagShape},
    join,
    order::{Part, SortColumn, by_name, by_value, named},
    source::{MAX_SORTED, Range, Reading, Source, Sources},
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

    /// The condition of a plan; empty if there is only one.
    fn is_chosen(&self, number: usize) -> String {
        if self.narrow.is_empty() { String::new() } else { format!("{CHOICE} = {number}") }
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
fn unfolded(Sources { dialect, filter, .. }: Sources) -> String {
    if filter.search == SearchShape::None {
        return "CAST(0 AS bigint) AS unfolded".to_owned();
    }
    let index = match dialect {
        // It would else read all todos, in the order of the table.
        Dialect::Sqlite => " INDEXED BY todos_unfolded",
        Dialect::Postgres => "",
    };
    format!(
        "(SELECT count(*) FROM (SELECT 1 FROM todos{index} WHERE user_id = $1 AND search IS NULL \
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
    columns: Vec<SortColumn>,
}

/// The table of the first part of a list. The second part is read only if the first does not fill
/// the page: the first of its rows may be behind all others.
const FIRST_PART: &str = "first_part";

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
    let (total, counted) = total(sources, &plans, counts);
    let todo = todo_columns!();
    let columns = format!("{todo}, {STATE}, {total} AS total, position, {}", unfolded(sources));
    let authorized = authorized!();
    let parts = parts(filter, sort, start);
    let is_chosen = plans.is_chosen(0);
    let ordered = |(part, is_after), condition: &str| {
        ordered_legs(sources, default, sort, part, is_after, condition)
    };
    // The rows of a single part have its order.
    let only = if let [(part, _)] = *parts { Some(part) } else { None };
    let narrow = (1..).zip(&plans.narrow).map(|(number, source)| {
        let rows = narrow_rows(sources, &plans, number, *source, sort, start);
        Leg { rows, columns: sort.columns(only, false) }
    });
    if let [first, second] = *parts {
        let first_part = union(dialect, &ordered(first, &is_chosen));
        let first_part = format!("{FIRST_PART} AS MATERIALIZED ({first_part})");
        let is_short = format!("(SELECT count(*) FROM {FIRST_PART}) < {ROWS}");
        let conditions = [is_chosen, is_short];
        let conditions: Vec<&String> = conditions.iter().filter(|all| !all.is_empty()).collect();
        let condition = join(&conditions, " AND ", |condition| (*condition).clone());
        let rest = ordered(second, &condition);
        let mut tables =
            vec![FIRST_PART.to_owned(), format!("({}) AS second_part", union(dialect, &rest))];
        tables.extend(narrow.map(|leg| format!("({}) AS narrow", leg.limited())));
        let rows = join(&tables, " UNION ALL ", |table| format!("SELECT * FROM {table}"));
        let order = by_name(&sort.columns(None, false));
        let with = with(&[&plans.choice, &counted, &first_part]);
        return format!(
            "{with}SELECT {columns} FROM ({rows}) AS page WHERE {authorized} {order} LIMIT {ROWS}"
        );
    }
    let mut legs = match *parts {
        [part, ..] => ordered(part, &is_chosen),
        // A position among todos that the filters exclude.
        [] => vec![Leg {
            rows: format!("{} AND FALSE", sources.rows(Source::All, None, Reading::default())),
            columns: sort.columns(None, false),
        }],
    };
    legs.extend(narrow);
    let with = with(&[&plans.choice, &counted]);
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
        (legs, Dialect::Postgres) => {
            let merged = union(dialect, legs);
            let order = legs.first().map(|leg| by_name(&leg.columns)).unwrap_or_default();
            format!(
                "{with}SELECT {columns} FROM ({merged}) AS page WHERE {authorized} {order} \
                 LIMIT {ROWS}"
            )
        }
    }
}

/// The rows of legs in their order, at most those of a page.
fn union(dialect: Dialect, legs: &[Leg]) -> String {
    let order = legs.first().map(|leg| by_name(&leg.columns)).unwrap_or_default();
    let merged = join(legs, " UNION ALL ", |leg| match dialect {
        Dialect::Sqlite => leg.select(),
        // The LIMIT on each select makes PostgreSQL merge them without a sort.
        Dialect::Postgres => format!("SELECT * FROM ({}) AS part", leg.limited()),
    });
    format!("{merged} {order} LIMIT {ROWS}")
}

impl Leg {
    fn select(&self) -> String {
        let Self { rows, columns } = self;
        format!("SELECT {}, position{} {rows}", todo_columns!(), named(columns))
    }

    /// The rows in their order, at most those of a page.
    fn limited(&self) -> String {
        format!("{} {} LIMIT {ROWS}", self.select(), by_value(&self.columns))
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
        unfolded(sources)
    )
}

/// The parts of a list from a start, of which the filters exclude none, and whether a part begins
/// after the position.
fn parts(filter: Filter, sort: Sort, start: Start) -> Vec<(Part, bool)> {
    let mut parts = sort.parts(start);
    parts.retain(|(part, _)| {
        sort.by != SortBy::Due
            || match part {
                Part::Head => filter.due != DueShape::None,
                Part::Tail => !matches!(filter.due, DueShape::Any | DueShape::Range),
            }
    });
    parts
}

/// The rows of a part of the list in each range, in the order of an index, on a condition without
/// columns.
fn ordered_legs(
    sources: Sources,
    source: Source,
    sort: Sort,
    part: Part,
    is_after: bool,
    condition: &str,
) -> Vec<Leg> {
    let Sources { dialect, filter, numbers } = sources;
    let is_tagged = source == Source::Tag;
    let after = is_after.then_some(sort.order);
    let reading = Reading { condition, index: sort.index(part), after };
    let leg = |range: &Range| {
        let mut rows = sources.rows(source, Some(*range), reading);
        rows.push_str(sort.condition(part));
        if is_after {
            rows.push_str(" AND ");
            rows.push_str(&sort.after(part, is_tagged));
        }
        rows.push_str(&filter.conditions(dialect, numbers, source));
        Leg { rows, columns: sort.columns(Some(part), is_tagged) }
    };
    filter.ranges().iter().map(leg).collect()
}

/// The rows of a filter's own index, which are sorted.
fn narrow_rows(
    sources: Sources,
    plans: &Plans,
    number: usize,
    source: Source,
    sort: Sort,
    start: Start,
) -> String {
    let Sources { dialect, filter, numbers } = sources;
    let condition = plans.is_chosen(number);
    let reading = Reading { condition: &condition, ..Reading::default() };
    let rows = sources.rows(source, None, reading);
    let conditions = filter.conditions(dialect, numbers, source);
    let after = sort.after_in_all(start);
    match dialect {
        Dialect::Sqlite => format!("{rows}{conditions}{after}"),
        // PostgreSQL would else read the index of the order, if it expects more todos.
        Dialect::Postgres => {
            format!("FROM (SELECT todos.* {rows} OFFSET 0) AS todos WHERE TRUE{conditions}{after}")
        }
    }
}
