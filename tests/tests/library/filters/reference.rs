//! The list that filters select, from the todos in memory.

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use todo_core::{
    auth::TimeZone,
    todos::{DueBound, DueFilter, Filters, ListFilter, SortBy, SortOrder, Status, Tag, Todo},
};

/// A todo, and its place in the user's order.
pub(crate) type Row = (Todo, Option<String>);

/// The offset from UTC in a time zone of the tests, none of which changes its clocks; without one,
/// that of UTC.
pub(crate) fn offset(zone: Option<&TimeZone>) -> TimeDelta {
    match zone.map(TimeZone::as_str) {
        None | Some("UTC") => TimeDelta::zero(),
        Some("Etc/GMT-3") => TimeDelta::hours(3),
        Some("Asia/Kolkata") => TimeDelta::minutes(330),
        Some("Pacific/Kiritimati") => TimeDelta::hours(14),
        Some(zone) => panic!("{zone} is not modelled"),
    }
}

/// Whether a todo is due before a bound.
fn is_before(todo: &Todo, bound: DueBound, offset: TimeDelta) -> bool {
    let Some(due) = &todo.due else { return false };
    match (due.at(), bound) {
        (None, DueBound::Date(date)) => due.date() < date,
        (None, DueBound::Instant(instant)) => due.date() < (instant + offset).date_naive(),
        (Some(at), DueBound::Date(date)) => (at + offset).date_naive() < date,
        (Some(at), DueBound::Instant(instant)) => at < instant,
        (_, other) => panic!("{other} is not modelled"),
    }
}

fn is_listed(todo: &Todo, filters: &Filters, now: DateTime<Utc>) -> bool {
    let offset = offset(filters.time_zone.as_ref());
    let before = |bound| is_before(todo, bound, offset);
    let is_dated = todo.due.is_some();
    let today: NaiveDate = (now + offset).date_naive();
    let tomorrow = today + Days::new(1);
    let of_status = match filters.status {
        Status::All => true,
        Status::Pending => !todo.completed,
        Status::Completed => todo.completed,
        other => panic!("{other} is not modelled"),
    };
    let is_due = match filters.due {
        None => true,
        Some(DueFilter::Any) => is_dated,
        Some(DueFilter::None) => !is_dated,
        Some(DueFilter::Overdue) => before(DueBound::Instant(now)),
        Some(DueFilter::Today) => {
            is_dated && !before(DueBound::Date(today)) && before(DueBound::Date(tomorrow))
        }
        Some(other) => panic!("{other} is not modelled"),
    };
    let in_range = filters.due_before.is_none_or(&before)
        && filters.due_after.is_none_or(|bound| is_dated && !before(bound));
    let in_list = match filters.list {
        None => true,
        Some(ListFilter::Inbox) => todo.list_id.is_none(),
        Some(ListFilter::List(id)) => todo.list_id == Some(id),
        Some(other) => panic!("{other} is not modelled"),
    };
    let has = |tag: &Tag| todo.tags.iter().any(|other| other == tag);
    let is_tagged = filters.tags.iter().all(has)
        && (filters.any_tags.is_empty() || filters.any_tags.iter().any(has));
    let contains = |term: &String| {
        let texts = [Some(todo.title.as_str()), todo.description.as_ref().map(|d| d.as_str())];
        let mut texts = texts.into_iter().flatten().chain(todo.tags.iter().map(Tag::as_str));
        texts.any(|text| text.to_lowercase().contains(term.as_str()))
    };
    let is_found = filters.q.as_ref().is_none_or(|search| {
        search.terms().iter().all(contains) && !search.excluded().iter().any(contains)
    });
    of_status && is_due && in_range && in_list && is_tagged && is_found
}

/// The todos that the filters select, in their order.
pub(crate) fn listed(rows: &[Row], filters: &Filters, now: DateTime<Utc>) -> Vec<Todo> {
    let mut rows: Vec<&Row> =
        rows.iter().filter(|(todo, _)| is_listed(todo, filters, now)).collect();
    rows.sort_by(|a, b| {
        let ties = (a.0.created_at, a.0.id).cmp(&(b.0.created_at, b.0.id));
        match filters.sort_by {
            SortBy::CreatedAt => ties,
            SortBy::Priority => a.0.priority.cmp(&b.0.priority).then(ties),
            SortBy::Title => title(&a.0).cmp(&title(&b.0)).then(ties),
            SortBy::Due => due(&a.0).cmp(&due(&b.0)).then(ties),
            SortBy::Position => place(a).cmp(&place(b)).then(ties),
            other => panic!("{other} is not modelled"),
        }
    });
    if filters.order == SortOrder::Desc {
        rows.reverse();
    }
    if filters.sort_by == SortBy::Due {
        // Last in both directions; the sort is stable.
        rows.sort_by_key(|(todo, _)| todo.due.is_none());
    }
    rows.into_iter().map(|(todo, _)| todo.clone()).collect()
}

fn title(todo: &Todo) -> String {
    todo.title.as_str().to_lowercase()
}

/// The date, then the time on its clock; a date without a time is later.
fn due(todo: &Todo) -> impl Ord + use<> {
    todo.due.as_ref().map(|due| {
        let midnight = due.date().and_hms_opt(0, 0, 0).expect("midnight");
        due.time().map_or(midnight + Days::new(1), |time| due.date().and_time(time))
    })
}

/// Todos without a place are last.
fn place((_, place): &Row) -> impl Ord + use<'_> {
    (place.is_none(), place)
}
