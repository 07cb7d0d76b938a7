//! The library without HTTP: two installations in one process, a caller authenticated by the host
//! program, a patch, and a list read page by page.

use std::io::Write;

use futures_util::TryStreamExt;
use todo_core::{
    Core, Secret,
    auth::{self, Caller, Client, Signup, User},
    todos::{
        self, Description, Limit, ListQuery, NewTodo, Priority, SortBy, SortOrder, Title, TodoPatch,
    },
};

use crate::Failure;

/// Runs the example and writes its steps to `out`.
///
/// # Errors
/// Errors of the library and of `out`.
pub async fn run(out: &mut impl Write) -> Result<(), Failure> {
    // A core is a value without global state: two of them are independent.
    let home = open("a secret of the installation at home").await?;
    let work = open("a secret of the installation at work").await?;
    let ada_at_home = sign_up(&home).await?;
    let ada_at_work = sign_up(&work).await?;
    writeln!(out, "{} has two accounts", ada_at_home.email)?;

    // The host program authenticates the user itself: no password, no token.
    let caller = Caller::trusted(ada_at_home.id);
    for (title, priority) in [
        ("Buy milk", Priority::Medium),
        ("Water the plants", Priority::Low),
        ("Call the dentist", Priority::High),
    ] {
        let new = NewTodo::new(title.parse()?).priority(priority);
        todos::create(&home, &caller, new).await?;
    }

    // Two todos per page, by title; each page has the cursor of the next.
    let by_title = ListQuery::new().sort_by(SortBy::Title).order(SortOrder::Asc);
    let mut query = by_title.clone().limit(Limit::new(2)?);
    let mut milk = None;
    loop {
        let page = todos::list(&home, &caller, query.clone()).await?;
        let titles: Vec<&str> = page.todos.iter().map(|todo| todo.title.as_str()).collect();
        writeln!(out, "page of {}: {}", page.total.unwrap_or_default(), titles.join(", "))?;
        milk = milk.or(page.todos.into_iter().find(|todo| todo.title == "Buy milk"));
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }

    // Or all pages at once, as a stream.
    let todos = todos::stream(&home, &caller, by_title)?;
    let titles: Vec<Title> = todos.map_ok(|todo| todo.title).try_collect().await?;
    writeln!(out, "{} todos in all", titles.len())?;

    // Fields that a patch omits are unchanged.
    let milk = milk.ok_or("the todo was not found")?;
    let patch = TodoPatch::new().description(Description::parse("oats, two litres")?);
    let milk = todos::patch(&home, &caller, milk.id, patch).await?;
    let milk = todos::set_completed(&home, &caller, milk.id, true).await?.todo;
    let text = milk.description.as_ref().map_or("", Description::as_str);
    writeln!(out, "{}: {text}, completed: {}", milk.title, milk.completed)?;

    let caller = Caller::trusted(ada_at_work.id);
    let elsewhere = todos::list(&work, &caller, ListQuery::new()).await?;
    writeln!(out, "at work: {} todos", elsewhere.total.unwrap_or_default())?;

    home.close().await;
    work.close().await;
    Ok(())
}

async fn open(secret: &str) -> Result<Core, Failure> {
    let secret = Secret::new(secret)?;
    Ok(Core::builder(secret).open("sqlite::memory:").await?)
}

async fn sign_up(core: &Core) -> Result<User, Failure> {
    let form = Signup::parse("ada@example.com", "Correct1horse", "Ada Lovelace")?;
    // This program vouches for the client, so no rate limit applies.
    Ok(auth::signup(core, Client::Trusted, form).await?.user)
}
