//! Random calls of the library by two users.

use proptest::{prelude::*, sample::Index};
use todo_core::todos::{
    Description, Details, Due, Filters, ListId, ListQuery, NewTodo, Priority, SortBy, SortOrder,
    Status, Tag, Tags, Title, TodoPatch,
};
use uuid::Uuid;

use super::{many, series, tags};
use crate::filters;

/// A call of the library by one of two users. Its todo is chosen among all ever created: it may be
/// deleted, or belong to the other user.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Create(NewTodo),
    Get(Index),
    Replace(Index, NewTodo),
    Patch(Index, TodoPatch),
    Complete(Index, bool),
    /// See [`series::complete_twice`].
    CompleteTwice(Index, Option<TodoPatch>, bool),
    Delete(Index),
    Restore(Index),
    DeleteTrashed(Index),
    Bulk(many::Call, bool),
    Retag(Tag, Option<Tag>),
    Move([Index; 2], bool, Option<Option<ListId>>),
    DeleteList(ListId),
    List(Filters, Option<u16>),
}

fn title() -> impl Strategy<Value = Title> {
    let text = prop_oneof![
        3 => "[abAB]{1,2}",
        1 => "[\u{df}\u{e9}\u{c9}\u{130}\u{3a3}\u{3c2}\u{fb01}\u{10400}\u{1f600} _]{1,3}",
    ];
    text.prop_filter_map("a blank title is invalid", |text| Title::parse(&text).ok())
}

fn description() -> impl Strategy<Value = Option<Description>> {
    let text = prop_oneof!["", " d ", "[^\u{0}]{1,8}"];
    let parsed = text.prop_filter_map("a NUL is invalid", |text| Description::parse(&text).ok());
    prop::option::of(parsed)
}

fn priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(Priority::ALL)
}

/// The lists in calls, in place of those of the caller.
pub(super) const LISTS: [ListId; 2] =
    [ListId::new(Uuid::from_u128(1)), ListId::new(Uuid::from_u128(2))];

pub(super) fn due() -> impl Strategy<Value = Due> {
    let time = prop::option::of(prop::sample::select(vec!["00:00", "20:30", "23:59"]));
    let zone = prop::sample::select(vec!["UTC", "Pacific/Kiritimati", "Asia/Kolkata"]);
    (24_u32..=30, time, zone).prop_map(|(day, time, zone)| {
        let date = format!("2026-11-{day}");
        Due::parse(&date, time, time.map(|_| zone)).expect("a date")
    })
}

fn list_id() -> impl Strategy<Value = ListId> {
    prop::sample::select(LISTS.to_vec())
}

fn details() -> impl Strategy<Value = Details> {
    let tags = prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "ab"]), 0..3)
        .prop_map(|tags| Tags::parse(tags).expect("tags"));
    (
        prop::option::of(tags),
        prop::option::of(prop::option::weighted(0.7, due())),
        prop::option::of(prop::option::weighted(0.7, list_id())),
    )
        .prop_map(|(tags, due, list_id)| {
            let mut details = Details::default();
            details.tags = tags;
            details.due = due;
            details.list_id = list_id;
            details
        })
}

pub(super) fn new_todo() -> impl Strategy<Value = NewTodo> {
    (title(), description(), priority(), details()).prop_map(
        |(title, description, priority, details)| {
            let mut new = NewTodo::new(title).description(description).priority(priority);
            new.details = details;
            new
        },
    )
}

pub(super) fn patch() -> impl Strategy<Value = TodoPatch> {
    let (title, description) = (prop::option::of(title()), prop::option::of(description()));
    let details = prop_oneof![Just(Details::default()), details()];
    (title, description, prop::option::of(priority()), details).prop_map(
        |(title, description, priority, details)| {
            let mut patch = TodoPatch::new();
            patch.title = title;
            patch.description = description;
            patch.priority = priority;
            patch.details = details;
            patch
        },
    )
}

pub(super) fn filters_of(status: Status, sort_by: SortBy, order: SortOrder) -> Filters {
    ListQuery::new().status(status).sort_by(sort_by).order(order).filters
}

/// Random filters, one of whose lists is unknown. Their searches are such that no random
/// description decides.
fn filters() -> impl Strategy<Value = Filters> {
    let search = prop::sample::select(vec!["ab", "-ab", "ab -bb", "aa ab"]);
    (filters::query(), prop::option::weighted(0.3, search)).prop_map(|((query, list), q)| {
        let query = filters::in_list(query, list, &LISTS);
        query.search(q.map(|q| q.parse().expect("a search"))).filters
    })
}

/// Sequences of calls, each with the index of its user.
pub(super) fn calls() -> impl Strategy<Value = Vec<(usize, Call)>> {
    let call = prop_oneof![
        4 => prop_oneof![3 => new_todo().boxed(), 1 => series::new_todo().boxed()]
            .prop_map(Call::Create),
        1 => any::<Index>().prop_map(Call::Get),
        2 => (any::<Index>(), new_todo()).prop_map(|(which, new)| Call::Replace(which, new)),
        3 => (any::<Index>(), patch()).prop_map(|(which, patch)| Call::Patch(which, patch)),
        3 => (any::<Index>(), any::<bool>()).prop_map(|(which, done)| Call::Complete(which, done)),
        2 => (any::<Index>(), prop::option::of(patch()), any::<bool>())
            .prop_map(|(which, patch, done)| Call::CompleteTwice(which, patch, done)),
        2 => any::<Index>().prop_map(Call::Delete),
        2 => any::<Index>().prop_map(Call::Restore),
        1 => any::<Index>().prop_map(Call::DeleteTrashed),
        1 => (tags::tag(), prop::option::of(tags::tag())).prop_map(|(f, to)| Call::Retag(f, to)),
        3 => (any::<[Index; 2]>(), any::<bool>(), prop::option::of(prop::option::of(list_id())))
            .prop_map(|(which, is_first, list)| Call::Move(which, is_first, list)),
        1 => list_id().prop_map(Call::DeleteList),
        4 => (many::calls(), any::<bool>()).prop_map(|(call, partial)| Call::Bulk(call, partial)),
        5 => (filters(), prop::option::of(1_u16..4)).prop_map(|(f, limit)| Call::List(f, limit)),
    ];
    prop::collection::vec((0_usize..2, call), 1..40)
}
