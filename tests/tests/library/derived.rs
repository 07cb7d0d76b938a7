//! What triggers derive from todos, under any history of the library's calls: the numbers of tags
//! and lists, the todos of each tag, and the entries of the log about tags and lists. It is equal
//! on both databases.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestCaseError, TestRunner},
};
use todo_core::{
    Error,
    auth::Caller,
    todos::{
        self, Bulk, BulkRequest, Change, ListId, ListName, ListPatch, NewList, NewTodo, Tag, Tags,
        TodoId, TodoPatch,
    },
};
use todo_tests::Database;
use uuid::Uuid;

use super::changes::{Library, failed, title};

const NAMES: [&str; 4] = ["a", "b", "c", "\u{1f600}"];

/// A call on the todo, the list or the tag with an index.
#[derive(Clone, Debug)]
enum Call {
    Create(Vec<usize>, Option<Index>),
    BulkCreate(Vec<Vec<usize>>, Option<Index>),
    Tag(Index, Vec<usize>),
    Complete(Index, bool),
    Delete(Index),
    Restore(Index),
    BulkRestore(Index, Index),
    Move(Index, Option<Index>, Option<Index>),
    PutInto(Index, Option<Index>),
    RenameTag(usize, usize),
    DeleteTag(usize),
    CreateList,
    RenameList(Index),
    DeleteList(Index),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let some = || any::<Index>();
    let maybe = || prop::option::of(any::<Index>());
    let tags = || prop::collection::vec(0..NAMES.len(), 0..4);
    let call = prop_oneof![
        4 => (tags(), maybe()).prop_map(|(tags, list)| Call::Create(tags, list)),
        1 => (prop::collection::vec(tags(), 1..4), maybe())
            .prop_map(|(tags, list)| Call::BulkCreate(tags, list)),
        2 => (some(), tags()).prop_map(|(todo, tags)| Call::Tag(todo, tags)),
        3 => (some(), any::<bool>()).prop_map(|(todo, done)| Call::Complete(todo, done)),
        2 => some().prop_map(Call::Delete),
        1 => some().prop_map(Call::Restore),
        1 => (some(), some()).prop_map(|(one, other)| Call::BulkRestore(one, other)),
        3 => (some(), maybe(), maybe()).prop_map(|(todo, to, list)| Call::Move(todo, to, list)),
        2 => (some(), maybe()).prop_map(|(todo, list)| Call::PutInto(todo, list)),
        2 => (0..NAMES.len(), 0..NAMES.len()).prop_map(|(from, to)| Call::RenameTag(from, to)),
        1 => (0..NAMES.len()).prop_map(Call::DeleteTag),
        3 => Just(Call::CreateList),
        1 => some().prop_map(Call::RenameList),
        1 => some().prop_map(Call::DeleteList),
    ];
    prop::collection::vec(call, 1..50)
}

fn tag(name: usize) -> Tag {
    Tag::parse(NAMES[name]).expect("a tag")
}

fn tags(names: &[usize]) -> Tags {
    Tags::parse(names.iter().map(|name| NAMES[*name])).expect("tags")
}

/// Ids by their order of creation, of which some may be gone.
struct Made<T>(Vec<T>);

impl<T: Copy + From<Uuid> + PartialEq> Made<T> {
    fn choose(&self, index: &Index) -> T {
        if self.0.is_empty() { Uuid::nil().into() } else { self.0[index.index(self.0.len())] }
    }
}

/// The outcome of a call that may fail because of what it names.
fn tolerate<T>(result: Result<T, Error>) -> Result<(), TestCaseError> {
    match result {
        Ok(_) | Err(Error::NotFound | Error::Invalid(_) | Error::ItemsFailed { .. }) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

impl Library {
    /// Makes the calls, checks what was derived, and returns the state in terms of numbers.
    async fn derived(&self, calls: &[Call]) -> Result<String, TestCaseError> {
        let caller = self.signed_up().await;
        let core = &self.core;
        let begin = todos::changes(core, &caller, None, None).await.map_err(failed)?.next;
        let (mut made, mut lists) = (Made::<TodoId>(Vec::new()), Made::<ListId>(Vec::new()));
        for call in calls {
            let list = |index: &Option<Index>| index.as_ref().map(|index| lists.choose(index));
            match call {
                Call::Create(names, into) => {
                    let mut new = NewTodo::new(title("new")).tags(tags(names));
                    new.details.list_id = list(into).map(Some);
                    match todos::create(core, &caller, new).await {
                        Ok(todo) => made.0.push(todo.id),
                        error => tolerate(error)?,
                    }
                }
                Call::BulkCreate(all, into) => {
                    let new = |names: &Vec<usize>| {
                        NewTodo::new(title("many")).tags(tags(names)).list_id(list(into))
                    };
                    let bulk = Bulk::Create(all.iter().map(new).collect());
                    let request = BulkRequest::new(bulk).map_err(failed)?;
                    match todos::bulk(core, &caller, request).await {
                        Ok(results) => made
                            .0
                            .extend(results.iter().filter_map(|result| Some(result.todo()?.id))),
                        error => tolerate(error)?,
                    }
                }
                Call::Tag(todo, names) => {
                    let patch = TodoPatch::new().tags(tags(names));
                    tolerate(todos::patch(core, &caller, made.choose(todo), patch).await)?;
                }
                Call::Complete(todo, completed) => {
                    let id = made.choose(todo);
                    tolerate(todos::set_completed(core, &caller, id, *completed).await)?;
                }
                Call::Delete(todo) => {
                    tolerate(todos::delete(core, &caller, made.choose(todo)).await)?;
                }
                Call::Restore(todo) => {
                    tolerate(todos::restore(core, &caller, made.choose(todo)).await)?;
                }
                Call::BulkRestore(one, other) => {
                    let ids = BTreeSet::from([made.choose(one), made.choose(other)]);
                    let bulk = Bulk::Restore(ids.into_iter().collect());
                    let request = BulkRequest::new(bulk).map_err(failed)?.partial(true);
                    tolerate(todos::bulk(core, &caller, request).await)?;
                }
                Call::Move(todo, after, into) => {
                    let after = after.as_ref().map(|after| made.choose(after));
                    let into = list(into).map(Some);
                    let id = made.choose(todo);
                    tolerate(todos::move_todo(core, &caller, id, after, into).await)?;
                }
                Call::PutInto(todo, into) => {
                    let patch = TodoPatch::new().list_id(list(into));
                    tolerate(todos::patch(core, &caller, made.choose(todo), patch).await)?;
                }
                Call::RenameTag(from, to) => {
                    tolerate(todos::rename_tag(core, &caller, tag(*from), tag(*to)).await)?;
                }
                Call::DeleteTag(name) => {
                    tolerate(todos::delete_tag(core, &caller, tag(*name)).await)?;
                }
                Call::CreateList => {
                    let name = ListName::parse("list").expect("a name");
                    let new = todos::create_list(core, &caller, NewList::new(name)).await;
                    lists.0.push(new.map_err(failed)?.id);
                }
                Call::RenameList(which) => {
                    let name = ListName::parse("renamed").expect("a name");
                    let patch = ListPatch::new().name(name);
                    let id = lists.choose(which);
                    tolerate(todos::patch_list(core, &caller, id, patch).await)?;
                }
                Call::DeleteList(which) => {
                    tolerate(todos::delete_list(core, &caller, lists.choose(which)).await)?;
                }
            }
        }
        let log = self.follow(&caller, begin).await?;
        let state = self.check_derived(&caller, &log).await?;
        let number = |id: Uuid| {
            let todo = made.0.iter().position(|made| made.as_uuid() == id).map(|n| format!("t{n}"));
            let list = || lists.0.iter().position(|made| made.as_uuid() == id);
            todo.or_else(|| list().map(|n| format!("l{n}"))).unwrap_or_default()
        };
        let order: Vec<String> = self.order(&caller).await.into_iter().map(number).collect();
        let log: BTreeMap<String, String> =
            log.into_iter().map(|(name, now)| (name.parse().map_or(name, number), now)).collect();
        Ok(format!("{state} {order:?} {log:?}"))
    }

    /// The todos in their order.
    pub(super) async fn order(&self, caller: &Caller) -> Vec<Uuid> {
        let sql = "SELECT id FROM todos WHERE user_id = @user ORDER BY position IS NULL, position, \
                   created_at, id";
        self.query(sql, caller).await.into_iter().map(|(id,): (Uuid,)| id).collect()
    }

    /// The last change of each thing since a position, by its name.
    async fn follow(
        &self,
        caller: &Caller,
        mut since: todos::ChangeCursor,
    ) -> Result<BTreeMap<String, String>, TestCaseError> {
        let mut last = BTreeMap::new();
        loop {
            let page = todos::changes(&self.core, caller, Some(since), None).await;
            let page = page.map_err(failed)?;
            for change in &page.changes {
                let (name, now) = match change {
                    Change::Todo { todo } => (todo.id.to_string(), format!("{:?}", todo.tags)),
                    Change::Deleted { id } => (id.to_string(), String::new()),
                    Change::Tag { name, tag } => (
                        format!("tag {name}"),
                        tag.as_ref().map_or_else(String::new, |tag| {
                            format!("{} {}", tag.pending, tag.completed)
                        }),
                    ),
                    Change::List { id, list } => (
                        id.to_string(),
                        list.as_ref().map_or_else(String::new, |list| {
                            format!("{} {} {}", list.name, list.pending, list.completed)
                        }),
                    ),
                    other => return Err(failed(other)),
                };
                last.insert(name, now);
            }
            since = page.next;
            if !page.has_more {
                return Ok(last);
            }
        }
    }

    /// Checks that what is derived is what the todos say. Returns it.
    async fn check_derived(
        &self,
        caller: &Caller,
        log: &BTreeMap<String, String>,
    ) -> Result<String, TestCaseError> {
        let sql = "SELECT id, tags, list_id, completed FROM todos WHERE user_id = @user";
        let rows: Vec<(Uuid, String, Option<Uuid>, bool)> = self.query(sql, caller).await;
        let mut counts: BTreeMap<String, [i64; 2]> = BTreeMap::new();
        let mut of_lists: BTreeMap<Uuid, [i64; 2]> = BTreeMap::new();
        let mut tagged: BTreeSet<(String, bool, Uuid)> = BTreeSet::new();
        for (id, tags, list, completed) in rows {
            let names: Vec<String> = serde_json::from_str(&tags).expect("tags");
            prop_assert!(names.is_sorted_by(|a, b| a < b), "{tags}");
            for name in names {
                counts.entry(name.clone()).or_default()[usize::from(completed)] += 1;
                tagged.insert((name, completed, id));
            }
            if let Some(list) = list {
                of_lists.entry(list).or_default()[usize::from(completed)] += 1;
            }
        }
        let sql = "SELECT tag, pending, completed FROM tags WHERE user_id = @user ORDER BY tag";
        let stored: Vec<(String, i64, i64)> = self.query(sql, caller).await;
        let stored: BTreeMap<String, [i64; 2]> =
            stored.into_iter().map(|(tag, pending, done)| (tag, [pending, done])).collect();
        prop_assert_eq!(&stored, &counts);
        let listed = todos::tags(&self.core, caller).await.map_err(failed)?.tags;
        let listed: Vec<_> =
            listed.iter().map(|tag| (tag.name.to_string(), [tag.pending, tag.completed])).collect();
        prop_assert_eq!(&listed, &counts.clone().into_iter().collect::<Vec<_>>());
        let sql = "SELECT tag, todo_tags.completed, todo_id FROM todo_tags JOIN todos \
                   ON todos.id = todo_id AND todos.created_at = todo_tags.created_at \
                   WHERE todo_tags.user_id = @user";
        let rows: Vec<(String, bool, Uuid)> = self.query(sql, caller).await;
        prop_assert_eq!(&rows.into_iter().collect::<BTreeSet<_>>(), &tagged);
        let sql = "SELECT count(*) FROM todo_tags WHERE user_id = @user";
        let all: Vec<(i64,)> = self.query(sql, caller).await;
        prop_assert_eq!(all[0].0, tagged.len() as i64);
        let sql = "SELECT list_id, pending, completed FROM list_counts \
                   WHERE user_id = @user AND pending + completed > 0";
        let stored: Vec<(Uuid, i64, i64)> = self.query(sql, caller).await;
        let stored: BTreeMap<Uuid, [i64; 2]> =
            stored.into_iter().map(|(list, pending, done)| (list, [pending, done])).collect();
        prop_assert_eq!(&stored, &of_lists);
        let lists = todos::lists(&self.core, caller).await.map_err(failed)?.lists;
        for list in &lists {
            let counted = of_lists.remove(&list.id.as_uuid()).unwrap_or_default();
            prop_assert_eq!([list.pending, list.completed], counted);
            prop_assert!(log.contains_key(&list.id.to_string()));
        }
        prop_assert!(of_lists.is_empty(), "a todo is in no list of the user: {of_lists:?}");
        // The log says of each tag whether it is there.
        for (name, counts) in &counts {
            let said = log.get(&format!("tag {name}"));
            prop_assert_eq!(said, Some(&format!("{} {}", counts[0], counts[1])));
        }
        for (name, said) in log.iter().filter(|(_, said)| !said.is_empty()) {
            if let Some(name) = name.strip_prefix("tag ") {
                prop_assert!(counts.contains_key(name), "{name}: {said}");
            }
        }
        let sql = "SELECT seq FROM changes WHERE user_id = @user ORDER BY seq";
        let numbers: Vec<(i64,)> = self.query(sql, caller).await;
        prop_assert!(numbers.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "{numbers:?}");
        Ok(format!("{counts:?} {lists:?}", lists = lists.len()))
    }
}

/// Without `completed` among the columns of `todos_tagged_update` (SQLite), or in the condition of
/// `todos_updated` (PostgreSQL), the numbers of completed todos are wrong.
#[test]
fn what_is_derived_follows_every_history_on_both_databases() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let [file, server] = [Database::Sqlite, Database::Postgres]
        .map(|database| runtime.block_on(Library::open(database)));
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&calls(), |calls| {
        runtime.block_on(async {
            prop_assert_eq!(file.derived(&calls).await?, server.derived(&calls).await?);
            Ok(())
        })
    });
    runtime.block_on(async {
        file.core.close().await;
        server.core.close().await;
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
