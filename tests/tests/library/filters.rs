//! Lists with filters, against a filter of the same todos in memory, on both databases.

mod corpus;
pub(crate) mod reference;
pub(crate) mod store;
mod walk;

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestCaseError, TestRunner},
};
use todo_core::{
    Error,
    todos::{self, DueBound, Limit, ListId, ListQuery, SortBy, SortOrder, Status},
};
use todo_tests::Database;
use uuid::Uuid;

use self::{
    reference::listed,
    store::{LISTS, Store},
};

/// A random query. Its list is for [`in_list`]: no filter, the inbox, a list, or an unknown one.
pub(crate) fn query() -> impl Strategy<Value = (ListQuery, Option<usize>)> {
    let tags = |max| prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "x"]), 0..=max);
    let zone = prop::sample::select(vec!["UTC", "Etc/GMT-3", "Asia/Kolkata"]);
    let due = prop::sample::select(todos::DueFilter::ALL);
    let bound = || {
        let date = (25_u32..=30).prop_map(|day| format!("2026-11-{day}"));
        let instant = (25_u32..=30, 0_u32..24, 0_u32..60)
            .prop_map(|(day, hour, minute)| format!("2026-11-{day}T{hour:02}:{minute:02}:00Z"));
        prop_oneof![date, instant].prop_map(|text| DueBound::parse(&text).expect("a bound"))
    };
    let order = (
        prop::sample::select(Status::ALL),
        prop::sample::select(SortBy::ALL),
        prop::sample::select(SortOrder::ALL),
    );
    let rare = |probability, strategy| prop::option::weighted(probability, strategy);
    let search = prop::sample::select(vec!["milk", "milk eggs", "-milk", "100%", "\"k e\" -a"]);
    let dues = (
        prop::option::weighted(0.3, due),
        prop::option::weighted(0.2, bound()),
        prop::option::weighted(0.2, bound()),
    );
    let tagged = (tags(1), tags(2), tags(2)).prop_map(|(one, many, any)| {
        // Half of the queries have none.
        (if one.is_empty() { one } else { many }, any)
    });
    (
        order,
        tagged,
        dues,
        rare(0.5, zone),
        prop::option::weighted(0.4, 0..=LISTS + 1),
        rare(0.3, search),
    )
        .prop_map(
            |((status, sort_by, order), (tags, any), (due, before, after), zone, list, q)| {
                let mut query = ListQuery::new().status(status).sort_by(sort_by).order(order);
                for tag in tags {
                    query = query.tag(tag.parse().expect("a tag"));
                }
                for tag in any {
                    query = query.any_tag(tag.parse().expect("a tag"));
                }
                let zone = zone.map(|zone| zone.parse().expect("a zone"));
                query = query.due(due).due_before(before).due_after(after).time_zone(zone);
                (query.search(q.map(|q| q.parse().expect("a search"))), list)
            },
        )
}

/// The query of one of some lists, by the index of [`query`].
pub(crate) fn in_list(query: ListQuery, list: Option<usize>, lists: &[ListId]) -> ListQuery {
    match list {
        None => query,
        Some(0) => query.list(None),
        Some(index) => query.list(lists.get(index - 1).copied().unwrap_or(UNKNOWN)),
    }
}

/// Reads a list page by page, and compares it with the reference.
async fn compare(
    store: &Store,
    mut query: ListQuery,
    limit: Option<u16>,
    counts: bool,
) -> Result<(), TestCaseError> {
    let failed = |error: Error| TestCaseError::fail(format!("{error:?}"));
    let wanted = listed(&store.todos, &query.filters, store.now());
    query = query.limit(limit.and_then(|limit| Limit::new(limit).ok())).include_total(counts);
    let mut seen = Vec::new();
    loop {
        let page = todos::list(&store.core, &store.caller, query.clone()).await.map_err(failed)?;
        prop_assert_eq!(page.total, counts.then_some(wanted.len() as i64));
        let is_search = query.filters.q.is_some();
        prop_assert_eq!(page.matches.len(), if is_search { page.todos.len() } else { 0 });
        prop_assert!(limit.is_none_or(|limit| page.todos.len() <= usize::from(limit)));
        seen.extend(page.todos);
        prop_assert!(seen.len() <= wanted.len(), "{} of {}", seen.len(), wanted.len());
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    let ids = |todos: &[todos::Todo]| -> Vec<Uuid> { todos.iter().map(|t| t.id.into()).collect() };
    prop_assert_eq!(ids(&seen), ids(&wanted));
    prop_assert_eq!(seen, wanted);
    Ok(())
}

fn lists_are_those_of_the_reference(database: Database) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = runtime.block_on(Store::create(database, 150));
    let cases = (query(), prop::option::of(1_u16..40), prop::bool::weighted(0.7));
    let config = Config { cases: 1500, failure_persistence: None, ..Config::default() };
    let mut matched = 0;
    let outcome = TestRunner::new(config).run(&cases, |((query, list), limit, counts)| {
        let query = in_list(query, list, &store.lists);
        runtime.block_on(compare(&store, query, limit, counts))
    });
    if let Err(error) = outcome {
        panic!("{database:?}: {error}");
    }
    // The queries are not such that nothing matches.
    let mut runner = TestRunner::deterministic();
    for _ in 0..200 {
        let (query, _) = query().new_tree(&mut runner).expect("a query").current();
        matched += usize::from(!listed(&store.todos, &query.filters, store.now()).is_empty());
    }
    assert!(matched > 60, "{matched} of 200 queries match anything");
    runtime.block_on(store.core.close());
}

const UNKNOWN: ListId = ListId::new(Uuid::from_u128(0x0193_8c6f_2f6c_7b6a_8d0e_3f1f_2a6f_5b11));

#[test]
fn lists_are_those_of_the_reference_on_sqlite() {
    lists_are_those_of_the_reference(Database::Sqlite);
}

#[test]
fn lists_are_those_of_the_reference_on_postgres() {
    lists_are_those_of_the_reference(Database::Postgres);
}
