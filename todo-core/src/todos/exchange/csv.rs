//! Tables of this library (RFC 4180), with a header.
//!
//! A program for tables takes a cell that begins with one of `= + - @`, a tab or a carriage return
//! as a formula. Such a cell is written with an apostrophe before it, and so is one that begins
//! with apostrophes and then one of these; an import removes one apostrophe of both.

use std::{collections::HashMap, io};

use csv::{ReaderBuilder, StringRecord, Terminator, WriterBuilder};

use super::{
    draft::{Draft, parse_time},
    members::Lines,
    rows::Record,
    sink::Sink,
};
use crate::{
    error::FieldError,
    timestamp,
    todos::{Description, Due, Priority, RecurrenceBase},
};
use chrono::{DateTime, Utc};

/// The columns, in the order in which they are written.
const COLUMNS: [&str; 17] = [
    "title",
    "description",
    "completed",
    "priority",
    "tags",
    "due_date",
    "due_time",
    "due_time_zone",
    "recurrence",
    "recurrence_from",
    "reminders",
    "list",
    "created_at",
    "updated_at",
    "completed_at",
    "position",
    "ical",
];

/// The rows of a table, each with the line on which it begins.
pub(super) struct Table<'a> {
    text: &'a str,
    lines: Lines<'a>,
    reader: csv::Reader<&'a [u8]>,
    /// The index of each column: the first one of a name.
    columns: HashMap<String, usize>,
    row: StringRecord,
}

impl<'a> Table<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// There is none, or it lacks the column `required`.
    pub(super) fn new(text: &'a str, required: &str) -> Result<Self, FieldError> {
        let mut reader = ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
        let header = reader.headers().map_err(|error| not_csv(&error))?;
        let mut columns = HashMap::new();
        for (index, name) in header.iter().enumerate() {
            columns.entry(name.trim().to_ascii_lowercase()).or_insert(index);
        }
        if !columns.contains_key(required) {
            let message =
                format!("The first line must name the columns, of which one is {required}.");
            return Err(FieldError::new("file", "invalid", message).on_line(1));
        }
        Ok(Self { text, lines: Lines::new(text), reader, columns, row: StringRecord::new() })
    }

    /// Reads the next row, and returns the line on which it begins.
    pub(super) fn next(&mut self) -> Result<Option<u32>, FieldError> {
        let has_row = self.reader.read_record(&mut self.row).map_err(|error| not_csv(&error))?;
        if !has_row {
            return Ok(None);
        }
        // The reader counts a row's place before the line break of the one before.
        let begin = self.row.position().map_or(0, csv::Position::byte);
        let begin = usize::try_from(begin).unwrap_or(usize::MAX);
        let rest = self.text.get(begin..).unwrap_or_default();
        let breaks = rest.len() - rest.trim_start_matches(['\r', '\n']).len();
        Ok(Some(self.lines.at(begin + breaks)))
    }

    /// The cell of a column in the present row, if it is not empty.
    pub(super) fn cell(&self, column: &str) -> Option<&str> {
        self.row.get(*self.columns.get(column)?).filter(|cell| !cell.is_empty())
    }
}

fn not_csv(error: &csv::Error) -> FieldError {
    let line = error.position().map_or(1, csv::Position::line);
    FieldError::new("file", "invalid", "The file is not a table with commas (CSV).")
        .on_line(u32::try_from(line).unwrap_or(u32::MAX))
}

/// Reads a file.
pub(super) fn read(text: &str, sink: &mut Sink) -> Result<(), FieldError> {
    let mut table = Table::new(text, "title")?;
    while let Some(line) = table.next()? {
        sink.push(line, draft(&table))?;
    }
    Ok(())
}

fn draft(table: &Table<'_>) -> Draft {
    let cell = |column: &str| table.cell(column).map(unescape);
    let mut draft = Draft {
        title: cell("title").unwrap_or_default().to_owned(),
        description: cell("description").map(str::to_owned),
        rule: cell("recurrence").map(str::to_owned),
        list: cell("list").map(str::to_owned),
        position: cell("position").map(str::to_owned),
        ical: cell("ical").map(str::to_owned),
        ..Draft::default()
    };
    if let Some(tags) = cell("tags") {
        draft.tags = tags.split(',').map(str::to_owned).collect();
    }
    match cell("completed") {
        None | Some("false") => {}
        Some("true") => draft.completed = true,
        Some(_) => draft.error("completed", "invalid", "Completed must be true or false."),
    }
    if let Some(priority) = cell("priority") {
        draft.set_priority(Priority::parse(priority));
    }
    if let Some(date) = cell("due_date") {
        draft.set_due(Due::parse(date, cell("due_time"), cell("due_time_zone")));
    }
    if let Some(from) = cell("recurrence_from") {
        match RecurrenceBase::parse(from) {
            Ok(from) => draft.from = from,
            Err(error) => draft.errors.push(error.below("recurrence")),
        }
    }
    for minutes in cell("reminders").into_iter().flat_map(|cell| cell.split(',')) {
        match minutes.trim().parse() {
            Ok(minutes) => draft.reminders.push(minutes),
            Err(_) => draft.error("reminders", "invalid", "Reminders must be numbers of minutes."),
        }
    }
    draft.created_at = time("created_at", cell("created_at"), &mut draft);
    draft.updated_at = time("updated_at", cell("updated_at"), &mut draft);
    draft.completed_at = time("completed_at", cell("completed_at"), &mut draft);
    draft
}

fn time(field: &'static str, cell: Option<&str>, draft: &mut Draft) -> Option<DateTime<Utc>> {
    parse_time(field, cell?).map_err(|error| draft.errors.push(error)).ok()
}

/// Whether a program for tables takes a cell as a formula, perhaps after apostrophes.
fn is_formula(cell: &str) -> bool {
    cell.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r'])
}

fn unescape(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|rest| is_formula(rest)).unwrap_or(cell)
}

/// Writes the header.
pub(super) fn begin(out: &mut Vec<u8>) -> io::Result<()> {
    let mut writer = writer(out);
    writer.write_record(COLUMNS)?;
    writer.flush()
}

/// Writes a todo.
pub(super) fn write(out: &mut Vec<u8>, record: &Record<'_>) -> io::Result<()> {
    let todo = record.todo;
    let tags: Vec<_> = todo.tags.iter().map(super::super::tags::Tag::as_str).collect();
    let reminders: Vec<_> = todo.reminders.iter().map(|r| r.minutes_before.to_string()).collect();
    let due = todo.due.as_ref();
    let recurrence = todo.recurrence.as_ref();
    let cells = [
        todo.title.as_str(),
        todo.description.as_ref().map_or("", Description::as_str),
        if todo.completed { "true" } else { "false" },
        todo.priority.as_str(),
        &tags.join(","),
        &due.map(|due| due.date().to_string()).unwrap_or_default(),
        &due.and_then(Due::time).map(|time| time.format("%H:%M").to_string()).unwrap_or_default(),
        due.and_then(Due::time_zone).map_or("", |zone| zone.as_str()),
        recurrence.map_or("", |recurrence| recurrence.rule.as_str()),
        recurrence.map_or("", |recurrence| recurrence.from.as_str()),
        &reminders.join(","),
        record.list.unwrap_or_default(),
        &timestamp::text(&todo.created_at),
        &timestamp::text(&todo.updated_at),
        &todo.completed_at.map(|at| timestamp::text(&at)).unwrap_or_default(),
        record.position.unwrap_or_default(),
        record.ical.unwrap_or_default(),
    ];
    let mut writer = writer(out);
    let escaped =
        cells.map(|cell| if is_formula(cell) { format!("'{cell}") } else { cell.to_owned() });
    writer.write_record(escaped)?;
    writer.flush()
}

fn writer(out: &mut Vec<u8>) -> csv::Writer<&mut Vec<u8>> {
    WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out)
}
