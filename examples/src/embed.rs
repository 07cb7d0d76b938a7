//! The library without HTTP: two installations in one process, a caller authenticated by the host
//! program, a patch, and a list read page by page.

use std::io::Write;

use todo_core::{
    Core, Options, Secret,
    auth::{self, Caller, Signup, User},
    todos::{
        self, Description, Filters, Limit, ListQuery, NewTodo, Priority, SortBy, SortOrder, Title,
        TodoPatch,
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
        let new = NewTodo { title: Title::try_from(title)?, description: None, priority };
        todos::create(&home, &caller, new).await?;
    }

    // Two todos per page, by title; each page has the cursor of the next.
    let filters = Filters { sort_by: SortBy::Title, order: SortOrder::Asc, ..Filters::default() };
    let limit = Some(Limit::new(2).map_err(|error| error.to_string())?);
    let mut query = ListQuery { filters, limit, cursor: None };
    let mut milk = None;
    loop {
        let page = todos::list(&home, &caller, query.clone()).await?;
        let titles: Vec<&str> = page.todos.iter().map(|todo| todo.title.as_str()).collect();
        writeln!(out, "page of {}: {}", page.total, titles.join(", "))?;
        milk = milk.or(page.todos.into_iter().find(|todo| todo.title == "Buy milk"));
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }

    // Fields that a patch omits are unchanged.
    let milk = milk.ok_or("the todo was not found")?;
    let text = Description::parse("oats, two litres").map_err(todo_core::Error::Invalid)?;
    let patch = TodoPatch { description: Some(Some(text)), ..TodoPatch::default() };
    let milk = todos::patch(&home, &caller, milk.id, patch).await?;
    let milk = todos::set_completed(&home, &caller, milk.id, true).await?;
    let text = milk.description.unwrap_or_default();
    writeln!(out, "{}: {text}, completed: {}", milk.title, milk.completed)?;

    let caller = Caller::trusted(ada_at_work.id);
    let elsewhere = todos::list(&work, &caller, ListQuery::default()).await?;
    writeln!(out, "at work: {} todos", elsewhere.total)?;

    home.close().await;
    work.close().await;
    Ok(())
}

async fn open(secret: &str) -> Result<Core, Failure> {
    let secret = Secret::new(secret).map_err(|error| error.to_string())?;
    Ok(Core::open("sqlite::memory:", Options::new(secret)).await?)
}

async fn sign_up(core: &Core) -> Result<User, Failure> {
    let form = Signup::parse("ada@example.com", "Correct1horse", "Ada Lovelace")?;
    // Without a client address, no rate limit applies.
    Ok(auth::signup(core, None, form).await?.user)
}
