//! A planner without HTTP: prints the todos of a week, day by day, and what comes after them.

use std::io::Write;

use todo_core::{
    Clock, Core, Secret,
    auth::{self, Caller, Client, Signup},
    todos::{
        self, Due, DueBound, ListQuery, NewTodo, Recurrence, Rule, SortBy, SortOrder, Status, Tags,
        Todo,
    },
};

use crate::Failure;

/// The first day of the printed week, a Monday.
const MONDAY: &str = "2026-12-07";
/// The Monday after it.
const NEXT_MONDAY: &str = "2026-12-14";

/// Runs the example and writes the week to `out`.
///
/// # Errors
/// Errors of the library and of `out`.
pub async fn run(out: &mut impl Write) -> Result<(), Failure> {
    let secret = Secret::new("the secret of an installation of a planner")?;
    // The clock of the example stands still on that Monday.
    let now = format!("{MONDAY}T08:00:00Z").parse()?;
    let builder = Core::builder(secret).clock(Clock::from_fn(move || now));
    let core = builder.open("sqlite::memory:").await?;
    let form = Signup::parse("ada@example.com", "Correct1horse", "Ada Lovelace")?;
    let user = auth::signup(&core, Client::Trusted, form).await?.user;
    let caller = Caller::trusted(user.id);
    let plants = plan(&core, &caller).await?;

    let week = ListQuery::new()
        .status(Status::Pending)
        .due_after(DueBound::parse(MONDAY)?)
        .due_before(DueBound::parse(NEXT_MONDAY)?)
        .sort_by(SortBy::Due)
        .order(SortOrder::Asc);
    print_days(out, &todos::list(&core, &caller, week.clone()).await?.todos)?;

    // The completion of a recurring todo makes the next one.
    let completion = todos::set_completed(&core, &caller, plants.id, true).await?;
    if let Some(next) = completion.next_id {
        let next = todos::get(&core, &caller, next).await?;
        writeln!(out, "{} is done; next on {}", next.title, day(&next))?;
    }
    let home = week.tag("home".parse()?);
    let left = todos::list(&core, &caller, home).await?.todos;
    writeln!(out, "{} todos at home are left", left.len())?;
    core.close().await;
    Ok(())
}

/// Creates the todos, and returns the one that recurs.
async fn plan(core: &Core, caller: &Caller) -> Result<Todo, Failure> {
    let at = |date, time| Due::parse(date, Some(time), Some("Europe/Berlin"));
    let home = Tags::parse(["home"])?;
    let weekly = Recurrence::new(Rule::parse("FREQ=WEEKLY;BYDAY=MO")?);
    let plants = NewTodo::new("Water the plants".parse()?)
        .due(Due::parse(MONDAY, None, None)?)
        .recurrence(weekly)
        .tags(home.clone());
    let plants = todos::create(core, caller, plants).await?;
    for new in [
        NewTodo::new("Call the dentist".parse()?).due(at("2026-12-09", "09:30")?),
        NewTodo::new("Stand-up".parse()?).due(at(MONDAY, "10:00")?),
        NewTodo::new("Bake bread".parse()?).due(at("2026-12-12", "16:00")?).tags(home),
        NewTodo::new("Taxes".parse()?).due(Due::parse("2027-01-31", None, None)?),
        NewTodo::new("Learn to sail".parse()?),
    ] {
        todos::create(core, caller, new).await?;
    }
    Ok(plants)
}

/// Prints todos in the order of their due dates, each day with its heading.
fn print_days(out: &mut impl Write, todos: &[Todo]) -> Result<(), Failure> {
    let mut heading = String::new();
    for todo in todos {
        let day = day(todo);
        if day != heading {
            writeln!(out, "{day}")?;
            heading = day;
        }
        let time = todo.due.as_ref().and_then(Due::time);
        let time = time.map_or_else(|| "     ".to_owned(), |time| time.format("%H:%M").to_string());
        writeln!(out, "  {time} {}", todo.title)?;
    }
    Ok(())
}

/// The day on which a todo is due.
fn day(todo: &Todo) -> String {
    todo.due.as_ref().map_or_else(String::new, |due| due.date().format("%A %-d %B %Y").to_string())
}
