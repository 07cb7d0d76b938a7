//! The lists of Google Tasks, as Google Takeout exports them.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    draft::{Draft, parse_time},
    members::{Lines, Members, not_json},
    sink::Sink,
};
use crate::{error::FieldError, todos::Due};

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    items: Vec<List<'a>>,
}

#[derive(Deserialize)]
struct List<'a> {
    title: Option<String>,
    #[serde(borrow, default)]
    items: Vec<&'a RawValue>,
}

/// Reads a file.
pub(super) fn read(text: &str, sink: &mut Sink) -> Result<(), FieldError> {
    let file: File<'_> = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    let mut lines = Lines::new(text);
    for list in file.items {
        for task in list.items {
            let line = lines.of(task);
            if let Some(draft) = draft(task, list.title.as_deref()) {
                sink.push(line, draft)?;
            }
        }
    }
    Ok(())
}

/// The todo of a task; `None` of a deleted one.
fn draft(task: &RawValue, list: Option<&str>) -> Option<Draft> {
    let mut draft = Draft::default();
    let Some(mut members) = Members::of(task, &mut draft) else { return Some(draft) };
    if members.flag("deleted", &mut draft) {
        return None;
    }
    draft.list = list.map(str::to_owned);
    draft.title = members.text("title", &mut draft).unwrap_or_default();
    draft.description = members.text("notes", &mut draft);
    match members.text("status", &mut draft).as_deref() {
        None | Some("needsAction") => {}
        Some("completed") => draft.completed = true,
        Some(_) => draft.error("status", "invalid", "Status must be needsAction or completed."),
    }
    draft.completed_at = members.time("completed", "completed_at", &mut draft);
    draft.created_at = members.time("created", "created_at", &mut draft);
    draft.updated_at = members.time("updated", "updated_at", &mut draft);
    // A date, at midnight in UTC: Google keeps no time.
    if let Some(due) = members.text("due", &mut draft) {
        match parse_time("due", &due) {
            Ok(due) => draft.set_due(Due::on(due.date_naive())),
            Err(error) => draft.errors.push(error),
        }
    }
    Some(draft)
}
