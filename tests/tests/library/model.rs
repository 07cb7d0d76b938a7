//! The store against a model: for any sequence of two users' calls, the library behaves like a
//! plain map, on both databases. Other suites test HTTP.

mod calls;
mod lists;
mod many;
mod order;
mod series;
mod tags;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestCaseError, TestRunner},
};
use todo_core::{
    Clock, Core, Error, Secret,
    auth::{Caller, UserId},
    todos::{
        self, Change, ChangeCursor, Details, Filters, Limit, ListFilter, ListId, ListQuery, SortBy,
        SortOrder, Status, Tag, Todo, TodoId, TodoPatch,
    },
};
use todo_tests::{App, Database, Server, Target};
use uuid::Uuid;

use self::calls::{Call, LISTS, calls, filters_of};
use crate::filters::reference;

/// The expected content of the store.
#[derive(Default)]
struct Model {
    /// Every todo ever created, with its owner.
    made: Vec<(TodoId, UserId)>,
    kept: BTreeMap<TodoId, Todo>,
    trash: BTreeMap<TodoId, Todo>,
    /// The number of changes of each user.
    changes: BTreeMap<UserId, i64>,
    lists: BTreeMap<UserId, [ListId; LISTS.len()]>,
    /// The todos with a place in the manual order, in this order: the others follow them.
    placed: BTreeMap<UserId, Vec<TodoId>>,
    /// The todos in the trash that had a place.
    trashed_places: BTreeSet<TodoId>,
    series: BTreeMap<TodoId, series::Occurrence>,
    /// Whether any todo has had a tag.
    is_tagged: bool,
    /// A time in the minute of the library's clock.
    now: DateTime<Utc>,
}

/// The expected outcome of a call on one todo.
#[derive(Debug, PartialEq)]
enum Fate {
    Done,
    Forbidden,
    NotFound,
}

impl Fate {
    fn of<T>(result: &Result<T, Error>) -> Result<Fate, TestCaseError> {
        match result {
            Ok(_) => Ok(Fate::Done),
            Err(Error::Forbidden) => Ok(Fate::Forbidden),
            Err(Error::NotFound) => Ok(Fate::NotFound),
            Err(error) => Err(TestCaseError::fail(format!("{error:?}"))),
        }
    }
}

impl Model {
    /// The list of a user in place of one of [`LISTS`].
    fn list_of(&self, user: UserId, list: ListId) -> ListId {
        let index = LISTS.iter().position(|other| *other == list);
        index.map_or(list, |index| self.lists[&user][index])
    }

    /// The details with the lists of a user.
    fn details_of(&self, user: UserId, details: &Details) -> Details {
        let mut details = details.clone();
        if let Some(Some(list)) = &mut details.list_id {
            *list = self.list_of(user, *list);
        }
        details
    }

    fn add_changes(&mut self, user: UserId, count: usize) {
        *self.changes.entry(user).or_default() += i64::try_from(count).expect("few");
    }

    /// Adds a new todo.
    fn add(&mut self, todo: Todo) {
        self.add_changes(todo.user_id, 1);
        self.made.push((todo.id, todo.user_id));
        self.begin_series(&todo);
        self.kept.insert(todo.id, todo);
    }

    /// Moves a todo to the trash.
    fn trash(&mut self, id: TodoId) {
        if let Some(todo) = self.kept.remove(&id) {
            if self.leave_order(id) {
                self.trashed_places.insert(id);
            }
            self.trash.insert(id, todo);
        }
    }

    /// Restores a todo, to the inbox if its list was deleted. Its place is not restored.
    fn restore(&mut self, id: TodoId) {
        if let Some(mut todo) = self.trash.remove(&id) {
            let lists = self.lists[&todo.user_id];
            todo.list_id = todo.list_id.filter(|list| lists.contains(list));
            self.kept.insert(id, todo);
            self.restore_day(id);
        }
    }

    fn choose(&self, which: &Index) -> TodoId {
        if self.made.is_empty() { Uuid::nil().into() } else { which.get(&self.made).0 }
    }

    fn fate(&self, user: UserId, id: TodoId) -> Fate {
        match self.kept.get(&id) {
            None => Fate::NotFound,
            Some(todo) if todo.user_id != user => Fate::Forbidden,
            Some(_) => Fate::Done,
        }
    }

    /// Checks the outcome of a change to one todo: `change` is its expected effect, except on
    /// `updated_at`, which only has to increase.
    fn changed(
        &mut self,
        user: UserId,
        id: TodoId,
        result: Result<Todo, Error>,
        change: impl FnOnce(&mut Todo),
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(Fate::of(&result)?, self.fate(user, id));
        let (Ok(is), Some(todo)) = (result, self.kept.get_mut(&id)) else { return Ok(()) };
        let before = todo.updated_at;
        change(todo);
        todo.updated_at = is.updated_at;
        prop_assert!(todo.updated_at > before, "{} after {}", todo.updated_at, before);
        prop_assert_eq!(&is, &*todo);
        self.add_changes(user, 1);
        Ok(())
    }

    /// The todos of a user, those in the trash excluded.
    fn todos_of(&self, user: UserId) -> impl Iterator<Item = &Todo> {
        self.kept.values().filter(move |todo| todo.user_id == user)
    }

    /// The tags of a user's todos.
    fn tags_of(&self, user: UserId) -> BTreeSet<&Tag> {
        self.todos_of(user).flat_map(|todo| todo.tags.iter()).collect()
    }

    fn listed(&self, user: UserId, filters: &Filters) -> Vec<Todo> {
        let rows: Vec<reference::Row> =
            self.todos_of(user).map(|todo| (todo.clone(), self.place(user, todo.id))).collect();
        reference::listed(&rows, filters, self.now)
    }
}

/// Changes a todo as a patch does, except for `updated_at`.
fn change(todo: &mut Todo, patch: &TodoPatch) {
    if let Some(title) = &patch.title {
        todo.title = title.clone();
    }
    if let Some(description) = &patch.description {
        todo.description = description.clone();
    }
    todo.priority = patch.priority.unwrap_or(todo.priority);
    let Details { tags, due, list_id, .. } = &patch.details;
    if let Some(tags) = tags {
        todo.tags = tags.clone();
    }
    if let Some(due) = due {
        todo.due = due.clone();
    }
    if let Some(list_id) = list_id {
        todo.list_id = *list_id;
    }
}

/// Completes or reopens a todo at this time, except for `updated_at`.
fn complete(todo: &mut Todo, completed: bool, at: Option<DateTime<Utc>>) {
    todo.completed_at = match (completed, todo.completed) {
        (false, _) => None,
        (true, true) => todo.completed_at,
        (true, false) => at.filter(|at| *at >= todo.created_at),
    };
    todo.completed = completed;
}

/// Checks the details of a created todo.
fn check_details(todo: &Todo, details: &Details) -> Result<(), TestCaseError> {
    prop_assert_eq!(&todo.tags, &details.tags.clone().unwrap_or_default());
    prop_assert_eq!(&todo.due, &details.due.clone().flatten());
    prop_assert_eq!(&todo.recurrence, &details.recurrence.clone().flatten());
    prop_assert_eq!(todo.list_id, details.list_id.flatten());
    Ok(())
}

/// Makes one call on the store and on the model, and compares.
async fn make(
    core: &Core,
    caller: &Caller,
    call: &Call,
    model: &mut Model,
) -> Result<(), TestCaseError> {
    let user = caller.user_id();
    match call {
        Call::Create(new) => {
            let mut new = new.clone();
            new.details = model.details_of(user, &new.details);
            let todo = todos::create(core, caller, new.clone()).await.map_err(failed)?;
            check_details(&todo, &new.details)?;
            prop_assert_eq!(todo.user_id, user);
            prop_assert_eq!(&todo.title, &new.title);
            prop_assert_eq!(&todo.description, &new.description);
            prop_assert_eq!((todo.priority, todo.completed), (new.priority, false));
            prop_assert_eq!((todo.updated_at, todo.completed_at), (todo.created_at, None));
            prop_assert!(!model.kept.contains_key(&todo.id), "{} twice", todo.id);
            model.add(todo);
        }
        Call::Get(which) => {
            let id = model.choose(which);
            let result = todos::get(core, caller, id).await;
            prop_assert_eq!(Fate::of(&result)?, model.fate(user, id));
            if let Ok(todo) = result {
                prop_assert_eq!(Some(&todo), model.kept.get(&id));
            }
        }
        Call::Replace(which, new) => {
            let id = model.choose(which);
            let mut new = new.clone();
            new.details = model.modelled(&model.details_of(user, &new.details), &[id]);
            let result = todos::replace(core, caller, id, new.clone()).await;
            model.changed(user, id, result, |todo| change(todo, &new.into()))?;
        }
        Call::Patch(which, patch) => {
            patch_todo(core, caller, model.choose(which), patch, model).await?;
        }
        Call::Complete(which, completed) => {
            complete_todo(core, caller, model.choose(which), *completed, model).await?;
        }
        Call::CompleteTwice(which, patch, completed) => {
            series::complete_twice(core, caller, which, patch.as_ref(), *completed, model).await?;
        }
        Call::Delete(which) => {
            let id = model.choose(which);
            let result = todos::delete(core, caller, id).await;
            prop_assert_eq!(Fate::of(&result)?, model.fate(user, id));
            if result.is_ok() {
                model.trash(id);
                model.add_changes(user, 1);
            }
        }
        Call::Restore(which) => {
            let id = model.choose(which);
            let result = todos::restore(core, caller, id).await;
            let is_mine = model.trash.get(&id).is_some_and(|todo| todo.user_id == user);
            prop_assert_eq!(Fate::of(&result)?, if is_mine { Fate::Done } else { Fate::NotFound });
            if result.is_ok() {
                model.restore(id);
                model.changed(user, id, result, |_| {})?;
                order::restore_places(core, caller, &[id], model).await?;
            }
        }
        Call::DeleteTrashed(which) => {
            tags::delete_trashed(core, caller, model.choose(which), model).await?;
        }
        Call::Retag(from, to) => tags::retag(core, caller, from, to.as_ref(), model).await?,
        Call::Move([id, after], is_first, list) => {
            let ids = [model.choose(id), model.choose(after)];
            order::move_todo(core, caller, ids, *is_first, *list, model).await?;
        }
        Call::DeleteList(list) => lists::delete(core, caller, *list, model).await?,
        Call::Bulk(call, is_partial) => {
            many::make(core, caller, call, *is_partial, model).await?;
        }
        Call::List(filters, limit) => list(core, caller, filters, *limit, model).await?,
    }
    Ok(())
}

/// Patches a todo on the store and on the model, and compares.
async fn patch_todo(
    core: &Core,
    caller: &Caller,
    id: TodoId,
    patch: &TodoPatch,
    model: &mut Model,
) -> Result<(), TestCaseError> {
    let user = caller.user_id();
    let mut patch = patch.clone();
    patch.details = model.modelled(&model.details_of(user, &patch.details), &[id]);
    let result = todos::patch(core, caller, id, patch.clone()).await;
    if !patch.is_empty() {
        return model.changed(user, id, result, |todo| change(todo, &patch));
    }
    prop_assert_eq!(Fate::of(&result)?, model.fate(user, id));
    if let Ok(todo) = result {
        prop_assert_eq!(Some(&todo), model.kept.get(&id), "an empty patch");
    }
    Ok(())
}

/// Completes or reopens a todo on the store and on the model, and compares. Returns the next
/// occurrence, if there is one.
async fn complete_todo(
    core: &Core,
    caller: &Caller,
    id: TodoId,
    completed: bool,
    model: &mut Model,
) -> Result<Option<TodoId>, TestCaseError> {
    let user = caller.user_id();
    let was_open = model.kept.get(&id).is_some_and(|todo| !todo.completed);
    let result = todos::set_completed(core, caller, id, completed).await;
    let next_id = result.as_ref().ok().and_then(|completion| completion.next_id);
    let result = result.map(|completion| completion.todo);
    let at = result.as_ref().ok().and_then(|todo| todo.completed_at);
    model.changed(user, id, result, |todo| complete(todo, completed, at))?;
    prop_assert!(model.kept.values().all(|it| it.completed == it.completed_at.is_some()));
    if model.fate(user, id) == Fate::Done {
        model.follow_completion(core, caller, id, was_open, next_id).await?;
    }
    Ok(next_id)
}

/// Lists all todos, page by page if there is a limit, and compares.
async fn list(
    core: &Core,
    caller: &Caller,
    filters: &Filters,
    limit: Option<u16>,
    model: &Model,
) -> Result<(), TestCaseError> {
    let mut filters = filters.clone();
    if let Some(ListFilter::List(list)) = &mut filters.list {
        *list = model.list_of(caller.user_id(), *list);
    }
    let wanted = model.listed(caller.user_id(), &filters);
    let limit = limit.map(|limit| Limit::new(limit).expect("1 to 500"));
    let mut query = ListQuery::new().limit(limit);
    query.filters = filters.clone();
    let mut seen = Vec::new();
    loop {
        let page = todos::list(core, caller, query.clone()).await.map_err(failed)?;
        prop_assert_eq!(page.total, Some(wanted.len() as i64));
        prop_assert_eq!(&page.filters_applied, &filters);
        prop_assert!(limit.is_none_or(|limit| page.todos.len() <= usize::from(limit.as_u16())));
        seen.extend(page.todos);
        prop_assert!(seen.len() <= wanted.len(), "{seen:?} for {wanted:?}");
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    prop_assert_eq!(seen, wanted);
    Ok(())
}

fn failed(error: Error) -> TestCaseError {
    TestCaseError::fail(format!("{error:?}"))
}

/// The changes since each user's lists were created, in pages of a few entries, make the user's
/// todos; the log has one entry for each change.
async fn follow(core: &Core, callers: &[Caller], model: &Model) -> Result<(), TestCaseError> {
    for caller in callers {
        let now = todos::changes(core, caller, None, None).await.map_err(failed)?.next;
        let (epoch, last) = now
            .to_string()
            .split_once('.')
            .map(|(e, n)| (e.to_owned(), n.to_owned()))
            .ok_or_else(|| TestCaseError::fail("no position"))?;
        let made = model.changes.get(&caller.user_id()).copied().unwrap_or_default();
        let last: i64 = last.parse().expect("a number");
        // The start and the end of a tag are changes too.
        prop_assert!(if model.is_tagged { last >= made } else { last == made }, "{last} of {made}");
        let mut since: ChangeCursor =
            format!("{epoch}.{}", LISTS.len()).parse().expect("a position");
        let mut copy = BTreeMap::new();
        let mut tags = BTreeMap::new();
        let mut lists = BTreeMap::new();
        loop {
            let limit = Limit::new(3).expect("1 to 500");
            let page = todos::changes(core, caller, Some(since), Some(limit)).await;
            let page = page.map_err(failed)?;
            for change in page.changes {
                match change {
                    Change::Todo { todo } => drop(copy.insert(todo.id, *todo)),
                    Change::Deleted { id } => drop(copy.remove(&id)),
                    Change::Tag { name, tag } => drop(tags.insert(name, tag.is_some())),
                    Change::List { id, list } => drop(lists.insert(id, list.is_some())),
                    other => panic!("{other:?} is not modelled"),
                }
            }
            since = page.next;
            if !page.has_more {
                break;
            }
        }
        prop_assert_eq!(since, now);
        let mut kept = model.kept.clone();
        kept.retain(|_, todo| todo.user_id == caller.user_id());
        prop_assert_eq!(&copy, &kept);
        let is_there = |list: &ListId| model.lists[&caller.user_id()].contains(list);
        prop_assert!(lists.iter().all(|(list, is_kept)| *is_kept == is_there(list)), "{lists:?}");
        tags.retain(|_, is_used| *is_used);
        prop_assert_eq!(tags.keys().collect::<BTreeSet<_>>(), model.tags_of(caller.user_id()));
    }
    Ok(())
}

/// Every list of both users, their counts, and their trash, at the end.
async fn survey(core: &Core, callers: &[Caller], model: &Model) -> Result<(), TestCaseError> {
    for caller in callers {
        tags::count(core, caller, model).await?;
        let page = todos::list_trash(core, caller, None, None).await.map_err(failed)?;
        let trash: BTreeSet<TodoId> = page.todos.iter().map(|trashed| trashed.todo.id).collect();
        let of_user = |todo: &&Todo| todo.user_id == caller.user_id();
        let expected = model.trash.values().filter(of_user).map(|todo| todo.id).collect();
        prop_assert_eq!(trash, expected);
        for &status in Status::ALL {
            for &sort_by in SortBy::ALL {
                for &order in SortOrder::ALL {
                    let filters = filters_of(status, sort_by, order);
                    list(core, caller, &filters, None, model).await?;
                    list(core, caller, &filters, Some(2), model).await?;
                }
            }
        }
    }
    Ok(())
}

fn the_store_behaves_like_a_map(database: Database) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // The server is only for its database and for the signups.
    let app = runtime.block_on(App::start(Target { server: Server::Hyper, database }));
    let secret = Secret::new(app.secret()).expect("the secret of the tests is long enough");
    // A clock within one minute: the filters by due date depend on the minute.
    let now = Utc::now().duration_trunc(TimeDelta::minutes(1)).expect("a minute");
    let ticks = AtomicI64::new(1);
    let time = move || now + TimeDelta::microseconds(ticks.fetch_add(1, Ordering::Relaxed));
    let core = runtime
        .block_on(Core::builder(secret).clock(Clock::from_fn(time)).open(app.database_url()))
        .expect("a second core on the database");
    let signed_up = async || {
        let actor = app.signed_up().await;
        Caller::trusted(actor.id().parse().expect("ids are UUIDs"))
    };
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&calls(), |calls| {
        runtime.block_on(async {
            let callers = [signed_up().await, signed_up().await];
            let mut model = Model { now: now + TimeDelta::microseconds(1), ..Model::default() };
            for caller in &callers {
                let mut made = LISTS;
                for list in &mut made {
                    *list = lists::create(&core, caller, &mut model).await?;
                }
                model.lists.insert(caller.user_id(), made);
            }
            for (caller, call) in &calls {
                make(&core, &callers[*caller], call, &mut model).await?;
                model.is_tagged |= model.kept.values().any(|todo| !todo.tags.is_empty());
            }
            follow(&core, &callers, &model).await?;
            survey(&core, &callers, &model).await
        })
    });
    runtime.block_on(core.close());
    if let Err(error) = outcome {
        panic!("{database:?}: {error}");
    }
}

#[test]
fn the_store_behaves_like_a_map_on_sqlite() {
    the_store_behaves_like_a_map(Database::Sqlite);
}

#[test]
fn the_store_behaves_like_a_map_on_postgres() {
    the_store_behaves_like_a_map(Database::Postgres);
}
