//! The store against a model: for any sequence of two users' calls, the library behaves like a
//! plain map, on both databases. Other suites test HTTP.

mod many;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestCaseError, TestRunner},
};
use todo_core::{
    Core, Error, Secret,
    auth::{Caller, UserId},
    todos::{
        self, Change, ChangeCursor, Description, Filters, Limit, ListQuery, NewTodo, Priority,
        SortBy, SortOrder, Status, Title, Todo, TodoId, TodoPatch,
    },
};
use todo_tests::{App, Database, Server, Target};
use uuid::Uuid;

/// A call of the library by one of two users. Its todo is chosen among all ever created: it may be
/// deleted, or belong to the other user.
#[derive(Clone, Debug)]
enum Call {
    Create(NewTodo),
    Get(Index),
    Replace(Index, NewTodo),
    Patch(Index, TodoPatch),
    Complete(Index, bool),
    Delete(Index),
    Restore(Index),
    Bulk(many::Call, bool),
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

fn new_todo() -> impl Strategy<Value = NewTodo> {
    (title(), description(), priority()).prop_map(|(title, description, priority)| {
        NewTodo::new(title).description(description).priority(priority)
    })
}

fn patch() -> impl Strategy<Value = TodoPatch> {
    let (title, description) = (prop::option::of(title()), prop::option::of(description()));
    (title, description, prop::option::of(priority())).prop_map(|(title, description, priority)| {
        let mut patch = TodoPatch::new();
        patch.title = title;
        patch.description = description;
        patch.priority = priority;
        patch
    })
}

/// The sort keys that every todo has; `filters.rs` compares the others.
const SORTS: [SortBy; 3] = [SortBy::CreatedAt, SortBy::Priority, SortBy::Title];

fn filters_of(status: Status, sort_by: SortBy, order: SortOrder) -> Filters {
    ListQuery::new().status(status).sort_by(sort_by).order(order).filters
}

fn filters() -> impl Strategy<Value = Filters> {
    let status = prop::sample::select(Status::ALL);
    let sort_by = prop::sample::select(SORTS.to_vec());
    let order = prop::sample::select(SortOrder::ALL);
    (status, sort_by, order).prop_map(|(status, sort_by, order)| filters_of(status, sort_by, order))
}

/// Sequences of calls, each with the index of its user.
fn calls() -> impl Strategy<Value = Vec<(usize, Call)>> {
    let call = prop_oneof![
        4 => new_todo().prop_map(Call::Create),
        1 => any::<Index>().prop_map(Call::Get),
        2 => (any::<Index>(), new_todo()).prop_map(|(which, new)| Call::Replace(which, new)),
        3 => (any::<Index>(), patch()).prop_map(|(which, patch)| Call::Patch(which, patch)),
        3 => (any::<Index>(), any::<bool>()).prop_map(|(which, done)| Call::Complete(which, done)),
        2 => any::<Index>().prop_map(Call::Delete),
        2 => any::<Index>().prop_map(Call::Restore),
        4 => (many::calls(), any::<bool>()).prop_map(|(call, partial)| Call::Bulk(call, partial)),
        2 => (filters(), prop::option::of(1_u16..4)).prop_map(|(f, limit)| Call::List(f, limit)),
    ];
    prop::collection::vec((0_usize..2, call), 1..40)
}

/// The expected content of the store.
#[derive(Default)]
struct Model {
    /// Every todo ever created, with its owner.
    made: Vec<(TodoId, UserId)>,
    kept: BTreeMap<TodoId, Todo>,
    trash: BTreeMap<TodoId, Todo>,
    /// The number of changes of each user.
    changes: BTreeMap<UserId, i64>,
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
        *self.changes.entry(user).or_default() += 1;
        let before = todo.updated_at;
        change(todo);
        todo.updated_at = is.updated_at;
        prop_assert!(todo.updated_at > before, "{} after {}", todo.updated_at, before);
        prop_assert_eq!(&is, &*todo);
        Ok(())
    }

    fn listed(&self, user: UserId, filters: &Filters) -> Vec<Todo> {
        let mut todos: Vec<Todo> = self
            .kept
            .values()
            .filter(|todo| todo.user_id == user)
            .filter(|todo| match filters.status {
                Status::All => true,
                Status::Pending => !todo.completed,
                Status::Completed => todo.completed,
                other => panic!("{other} is not modelled"),
            })
            .cloned()
            .collect();
        todos.sort_by_key(|todo| sort_key(todo, filters.sort_by));
        if filters.order == SortOrder::Desc {
            todos.reverse();
        }
        todos
    }
}

fn sort_key(todo: &Todo, sort_by: SortBy) -> (Option<Priority>, String, DateTime<Utc>, TodoId) {
    let priority = (sort_by == SortBy::Priority).then_some(todo.priority);
    let title =
        if sort_by == SortBy::Title { todo.title.as_str().to_lowercase() } else { String::new() };
    (priority, title, todo.created_at, todo.id)
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
            let todo = todos::create(core, caller, new.clone()).await.map_err(failed)?;
            prop_assert_eq!(todo.user_id, user);
            prop_assert_eq!(&todo.title, &new.title);
            prop_assert_eq!(&todo.description, &new.description);
            prop_assert_eq!((todo.priority, todo.completed), (new.priority, false));
            prop_assert_eq!((todo.updated_at, todo.completed_at), (todo.created_at, None));
            prop_assert!(!model.kept.contains_key(&todo.id), "{} twice", todo.id);
            *model.changes.entry(user).or_default() += 1;
            model.made.push((todo.id, user));
            model.kept.insert(todo.id, todo);
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
            let result = todos::replace(core, caller, id, new.clone()).await;
            model.changed(user, id, result, |todo| {
                todo.title = new.title.clone();
                todo.description = new.description.clone();
                todo.priority = new.priority;
            })?;
        }
        Call::Patch(which, patch) if patch.is_empty() => {
            let id = model.choose(which);
            let result = todos::patch(core, caller, id, patch.clone()).await;
            prop_assert_eq!(Fate::of(&result)?, model.fate(user, id));
            if let Ok(todo) = result {
                prop_assert_eq!(Some(&todo), model.kept.get(&id), "an empty patch");
            }
        }
        Call::Patch(which, patch) => {
            let id = model.choose(which);
            let result = todos::patch(core, caller, id, patch.clone()).await;
            model.changed(user, id, result, |todo| {
                if let Some(title) = &patch.title {
                    todo.title = title.clone();
                }
                if let Some(description) = &patch.description {
                    todo.description = description.clone();
                }
                todo.priority = patch.priority.unwrap_or(todo.priority);
            })?;
        }
        Call::Complete(which, completed) => {
            let id = model.choose(which);
            let result = todos::set_completed(core, caller, id, *completed).await;
            let result = result.map(|completion| completion.todo);
            let at = result.as_ref().ok().and_then(|todo| todo.completed_at);
            model.changed(user, id, result, |todo| {
                todo.completed_at = match (*completed, todo.completed) {
                    (false, _) => None,
                    (true, true) => todo.completed_at,
                    (true, false) => at.filter(|at| *at >= todo.created_at),
                };
                todo.completed = *completed;
            })?;
            prop_assert!(model.kept.values().all(|it| it.completed == it.completed_at.is_some()));
        }
        Call::Delete(which) => {
            let id = model.choose(which);
            let result = todos::delete(core, caller, id).await;
            prop_assert_eq!(Fate::of(&result)?, model.fate(user, id));
            if let (Ok(()), Some(todo)) = (result, model.kept.get(&id).cloned()) {
                model.kept.remove(&id);
                *model.changes.entry(user).or_default() += 1;
                model.trash.insert(id, todo);
            }
        }
        Call::Restore(which) => {
            let id = model.choose(which);
            let result = todos::restore(core, caller, id).await;
            let is_mine = model.trash.get(&id).is_some_and(|todo| todo.user_id == user);
            prop_assert_eq!(Fate::of(&result)?, if is_mine { Fate::Done } else { Fate::NotFound });
            if let (Ok(is), Some(mut todo)) = (result, model.trash.get(&id).cloned()) {
                model.trash.remove(&id);
                prop_assert!(is.updated_at > todo.updated_at);
                todo.updated_at = is.updated_at;
                prop_assert_eq!(&is, &todo);
                *model.changes.entry(user).or_default() += 1;
                model.kept.insert(id, todo);
            }
        }
        Call::Bulk(call, is_partial) => {
            many::make(core, caller, call, *is_partial, model).await?;
        }
        Call::List(filters, limit) => list(core, caller, filters, *limit, model).await?,
    }
    Ok(())
}

/// Lists all todos, page by page if there is a limit, and compares.
async fn list(
    core: &Core,
    caller: &Caller,
    filters: &Filters,
    limit: Option<u16>,
    model: &Model,
) -> Result<(), TestCaseError> {
    let wanted = model.listed(caller.user_id(), filters);
    let limit = limit.map(|limit| Limit::new(limit).expect("1 to 500"));
    let mut query = ListQuery::new().limit(limit);
    query.filters = filters.clone();
    let mut seen = Vec::new();
    loop {
        let page = todos::list(core, caller, query.clone()).await.map_err(failed)?;
        prop_assert_eq!(page.total, Some(wanted.len() as i64));
        prop_assert_eq!(&page.filters_applied, filters);
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

/// The changes since the start of each user's log, in pages of a few entries, make the user's
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
        prop_assert_eq!(last, made.to_string());
        let mut since: ChangeCursor = format!("{epoch}.0").parse().expect("a position");
        let mut copy = BTreeMap::new();
        loop {
            let limit = Limit::new(3).expect("1 to 500");
            let page = todos::changes(core, caller, Some(since), Some(limit)).await;
            let page = page.map_err(failed)?;
            for change in page.changes {
                match change {
                    Change::Todo { todo } => copy.insert(todo.id, *todo),
                    Change::Deleted { id } => copy.remove(&id),
                    other => panic!("{other:?} is not modelled"),
                };
            }
            since = page.next;
            if !page.has_more {
                break;
            }
        }
        prop_assert_eq!(since, now);
        let mut kept = model.kept.clone();
        kept.retain(|_, todo| todo.user_id == caller.user_id());
        prop_assert_eq!(copy, kept);
    }
    Ok(())
}

/// Every list of both users, at the end.
async fn survey(core: &Core, callers: &[Caller], model: &Model) -> Result<(), TestCaseError> {
    for caller in callers {
        for &status in Status::ALL {
            for sort_by in SORTS {
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
    let core = runtime
        .block_on(Core::builder(secret).open(app.database_url()))
        .expect("a second core on the database");
    let signed_up = async || {
        let actor = app.signed_up().await;
        Caller::trusted(actor.id().parse().expect("ids are UUIDs"))
    };
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&calls(), |calls| {
        runtime.block_on(async {
            let callers = [signed_up().await, signed_up().await];
            let mut model = Model::default();
            for (caller, call) in &calls {
                make(&core, &callers[*caller], call, &mut model).await?;
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
