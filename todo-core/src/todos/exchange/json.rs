//! The JSON of this library: a todo on each line, with all that an import keeps.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    draft::Draft,
    members::{Lines, Members, not_json, wrong_type},
    rows::Record,
    sink::Sink,
};
use crate::{
    error::FieldError,
    timestamp,
    todos::{
        Description, Due, ListColor, Priority, Recurrence, RecurrenceBase, Reminders, Tags, Title,
    },
};
use chrono::{DateTime, Utc};

/// The name of the format, and its version.
const FORMAT: &str = "todos";
const VERSION: u32 = 1;

#[derive(Deserialize)]
struct File<'a> {
    version: Option<u32>,
    #[serde(borrow, default)]
    lists: Vec<&'a RawValue>,
    #[serde(borrow)]
    todos: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    trash: Vec<&'a RawValue>,
}

/// Reads a file.
pub(super) fn read(text: &str, sink: &mut Sink) -> Result<(), FieldError> {
    let file: File<'_> = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    if file.version.is_some_and(|version| version > VERSION) {
        let message = "The file has a later version of the format.";
        return Err(FieldError::new("version", "unsupported", message).on_line(1));
    }
    let mut lines = Lines::new(text);
    // An account's export has the ids of lists.
    let mut names = HashMap::new();
    for list in file.lists {
        let line = lines.of(list);
        let mut draft = Draft::default();
        let members = Members::of(list, &mut draft);
        let (name, color, id) = members.map_or((None, None, None), |mut members| {
            let mut text = |name| members.text(name, &mut draft);
            (text("name"), text("color"), text("id"))
        });
        if let (Some(id), Some(name)) = (id, &name) {
            names.insert(id, name.clone());
        }
        // A color is no reason to reject todos.
        let color = color.and_then(|color| ListColor::parse(&color).ok());
        let color = color.map(|color| color.as_str().to_owned());
        sink.push_list(line, &name.unwrap_or_default(), color)?;
    }
    // `lists` may follow `todos` in a file that another program wrote.
    let mut lines = Lines::new(text);
    for todo in file.todos {
        let line = lines.of(todo);
        sink.push(line, draft(todo, &names))?;
    }
    sink.trashed = file.trash.len();
    Ok(())
}

fn draft(todo: &RawValue, lists: &HashMap<String, String>) -> Draft {
    let mut draft = Draft::default();
    let Some(mut members) = Members::of(todo, &mut draft) else { return draft };
    draft.title = members.text("title", &mut draft).unwrap_or_default();
    draft.description = members.text("description", &mut draft);
    if let Some(priority) = members.text("priority", &mut draft) {
        draft.set_priority(Priority::parse(&priority));
    }
    draft.tags = members.texts("tags", &mut draft);
    if let Some(mut due) = members.object("due", &mut draft) {
        let date = due.text("date", &mut draft).unwrap_or_default();
        let time = due.text("time", &mut draft);
        let zone = due.text("time_zone", &mut draft);
        draft.set_due(Due::parse(&date, time.as_deref(), zone.as_deref()));
    }
    if let Some(mut recurrence) = members.object("recurrence", &mut draft) {
        draft.rule = Some(recurrence.text("rule", &mut draft).unwrap_or_default());
        if let Some(from) = recurrence.text("from", &mut draft) {
            match RecurrenceBase::parse(&from) {
                Ok(from) => draft.from = from,
                Err(error) => draft.errors.push(error.below("recurrence")),
            }
        }
    }
    for reminder in members.array("reminders", &mut draft) {
        match reminder.get("minutes_before").and_then(serde_json::Value::as_i64) {
            Some(minutes) => draft.reminders.push(minutes),
            None => {
                wrong_type("reminders", "objects with minutes_before", &mut draft).unwrap_or(());
            }
        }
    }
    let id = members.text("list_id", &mut draft);
    let name = members.text("list", &mut draft);
    draft.list = name.or_else(|| lists.get(&id?).cloned());
    draft.completed = members.flag("completed", &mut draft);
    draft.completed_at = members.time("completed_at", "completed_at", &mut draft);
    draft.created_at = members.time("created_at", "created_at", &mut draft);
    draft.updated_at = members.time("updated_at", "updated_at", &mut draft);
    draft.position = members.text("position", &mut draft);
    draft.ical = members.text("ical", &mut draft);
    draft
}

/// A todo as it is written: without what belongs to an account.
#[derive(Serialize)]
struct Written<'a> {
    title: &'a Title,
    description: Option<&'a Description>,
    priority: Priority,
    completed: bool,
    #[serde(serialize_with = "timestamp::serialize")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize")]
    updated_at: DateTime<Utc>,
    #[serde(serialize_with = "timestamp::serialize_option")]
    completed_at: Option<DateTime<Utc>>,
    tags: &'a Tags,
    due: Option<&'a Due>,
    recurrence: Option<&'a Recurrence>,
    reminders: &'a Reminders,
    list: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ical: Option<&'a str>,
    /// When it was deleted, in the trash.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "timestamp::serialize_option"
    )]
    deleted_at: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
struct WrittenList<'a> {
    name: &'a str,
    color: Option<&'a str>,
}

/// Writes what is before the todos.
pub(super) fn begin<'a>(
    out: &mut Vec<u8>,
    lists: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> io::Result<()> {
    write!(out, "{{\"format\":\"{FORMAT}\",\"version\":{VERSION},\"lists\":")?;
    let lists: Vec<_> = lists.map(|(name, color)| WrittenList { name, color }).collect();
    serde_json::to_writer(&mut *out, &lists)?;
    out.extend_from_slice(b",\"todos\":[");
    Ok(())
}

/// Writes a todo.
pub(super) fn write(out: &mut Vec<u8>, record: &Record<'_>, is_first: bool) -> io::Result<()> {
    out.extend_from_slice(if is_first { b"\n" } else { b",\n" });
    let todo = record.todo;
    serde_json::to_writer(
        out,
        &Written {
            title: &todo.title,
            description: todo.description.as_ref(),
            priority: todo.priority,
            completed: todo.completed,
            created_at: todo.created_at,
            updated_at: todo.updated_at,
            completed_at: todo.completed_at,
            tags: &todo.tags,
            due: todo.due.as_ref(),
            recurrence: todo.recurrence.as_ref(),
            reminders: &todo.reminders,
            list: record.list,
            position: record.position,
            ical: record.ical,
            deleted_at: record.deleted_at,
        },
    )?;
    Ok(())
}

/// Writes what is between the todos and those in the trash.
pub(super) fn begin_trash(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\n],\"trash\":[");
}

/// Writes the end.
pub(super) fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\n]}\n");
}
