use futures_util::TryStreamExt;

use super::*;
use crate::{
    Secret,
    todos::{NewTodo, SortOrder},
};

const MANY: usize = 1200;

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
async fn core() -> (Core, Caller) {
    let secret = Secret::new("at least thirty-two random bytes").unwrap();
    let core = Core::builder(secret).open("sqlite::memory:").await.unwrap();
    let signup = crate::auth::Signup::parse("a@example.com", "Correct1horse", "Ann").unwrap();
    let session = crate::auth::signup(&core, crate::auth::Client::Trusted, signup).await.unwrap();
    let caller = crate::auth::authenticate(&core, session.token.as_str()).await.unwrap();
    (core, caller)
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
async fn make(core: &Core, caller: &Caller, title: &str, description: Option<&str>) -> Todo {
    let description = description.map(|text| text.parse().unwrap());
    let new = NewTodo::new(title.parse().unwrap()).description(description);
    crate::todos::create(core, caller, new).await.unwrap()
}

fn ids(todos: &[Todo]) -> Vec<TodoId> {
    todos.iter().map(|todo| todo.id).collect()
}

#[tokio::test]
async fn chunks_are_bounded_in_rows_and_bytes() {
    let (core, caller) = core().await;
    let mut created = Vec::new();
    for number in 0..MANY {
        created.push(make(&core, &caller, &format!("{number}"), None).await.id);
    }
    created.reverse();
    let mut listing = Listing::new(&core, &caller, ListQuery::default()).unwrap();
    let (mut seen, mut sizes) = (Vec::new(), Vec::new());
    while let Some(chunk) = listing.next().await.unwrap() {
        assert_eq!(chunk.total, i64::try_from(MANY).ok());
        assert_eq!(chunk.next_cursor.is_none(), listing.is_done());
        sizes.push(chunk.todos.len());
        seen.extend(ids(&chunk.todos));
    }
    assert_eq!(sizes, [500, 500, 200]);
    assert_eq!(seen, created);

    let long = "\u{1}".repeat(1000);
    for number in 0..60 {
        make(&core, &caller, &format!("long {number}"), Some(&long)).await;
    }
    let mut listing = Listing::new(&core, &caller, ListQuery::default()).unwrap();
    let mut listed = 0;
    while let Some(chunk) = listing.next().await.unwrap() {
        let size = serde_json::to_vec(&chunk).unwrap().len();
        assert!(size <= CHUNK_BYTES + 1024, "{size} bytes");
        assert!(size <= listing.chunk_bytes() + 1024);
        listed += chunk.todos.len();
    }
    assert_eq!(listed, MANY + 60);
    let limit = Limit::new(50).unwrap();
    let query = ListQuery::new().limit(limit);
    let list = crate::todos::list(&core, &caller, query).await.unwrap();
    assert_eq!(list.todos.len(), 50, "a page that is read in chunks has the requested length");
    assert!(list.next_cursor.is_some());
}

#[tokio::test]
async fn a_todo_moved_to_a_later_chunk_is_returned_once() {
    let (core, caller) = core().await;
    for number in 0..600 {
        make(&core, &caller, &format!("a{number:03}"), None).await;
    }
    let query = ListQuery::new().sort_by(SortBy::Title).order(SortOrder::Asc);
    let mut listing = Listing::new(&core, &caller, query).unwrap();
    let first = listing.next().await.unwrap().unwrap().todos;
    let patch = crate::todos::TodoPatch::new().title("z".parse().unwrap());
    crate::todos::patch(&core, &caller, first[0].id, patch).await.unwrap();
    let rest = listing.next().await.unwrap().unwrap().todos;
    assert!(!ids(&rest).contains(&first[0].id));
    assert_eq!(first.len() + rest.len(), 600);
}

#[tokio::test]
async fn a_stream_has_all_todos_also_beyond_the_longest_list() {
    let (core, caller) = core().await;
    let db = core.db();
    let count = usize::from(MAX_UNPAGED) + 600;
    let rows = i64::try_from(count).unwrap();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $2) \
        INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, \
        updated_at) SELECT unhex(printf('%032x', i)), $1, i, i, 1, FALSE, i, i FROM n";
    let insert = crate::db::Statement::new(sql).bind(caller.user_id()).bind(rows);
    let _: crate::db::RowsAffected = db.execute(insert).await.unwrap();
    let all: Vec<Todo> = crate::todos::stream(&core, &caller, ListQuery::new())
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    let distinct: HashSet<TodoId> = ids(&all).into_iter().collect();
    assert_eq!((all.len(), distinct.len()), (count, count));
    let limit = Limit::new(7).unwrap();
    let some = crate::todos::stream(&core, &caller, ListQuery::new().limit(limit)).unwrap();
    assert_eq!(some.try_collect::<Vec<_>>().await.unwrap(), all[..7]);
}

#[tokio::test]
async fn the_end_of_the_session_ends_the_list() {
    let (core, caller) = core().await;
    for number in 0..600 {
        make(&core, &caller, &format!("{number}"), None).await;
    }
    let mut listing = Listing::new(&core, &caller, ListQuery::default()).unwrap();
    assert!(listing.next().await.unwrap().is_some() && !listing.is_done());
    crate::auth::log_out(&core, caller, None).await.unwrap();
    assert!(matches!(listing.next().await, Err(Error::Unauthenticated)));
}

#[test]
fn texts_are_not_longer_than_estimated() {
    let all: String = ('\0'..'\u{300}').chain(['\u{1f600}', '\u{2028}']).collect();
    assert!(serde_json::to_string(&all).unwrap().len() <= json_len(&all) + 2);
}
