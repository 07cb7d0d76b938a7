//! What is read of a file: its todos that can be stored, and the errors of the others.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use super::draft::{Draft, Item, list_name};
use crate::{
    error::{FieldError, FieldErrors},
    time_zone::TimeZone,
    todos::Rule,
};

/// Maximum number of todos in a file.
pub(super) const MAX_ROWS: usize = 5_000;
/// Maximum number of errors that are named.
pub(super) const MAX_ERRORS: usize = 100;
/// Maximum number of lists that a file may name.
const MAX_LISTS: usize = 1_000;
/// Maximum time for reading a file: a rule may take milliseconds to check.
const MAX_TIME: Duration = Duration::from_secs(10);

/// A list that a file describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileList {
    pub(super) name: String,
    pub(super) color: Option<String>,
}

/// Receives the todos of a file.
pub(super) struct Sink {
    pub(super) now: DateTime<Utc>,
    /// The zone of times that have none.
    pub(super) zone: TimeZone,
    /// The todos that can be stored, in the order of the file.
    pub(super) items: Vec<Item>,
    /// The lists that the file describes.
    pub(super) lists: Vec<FileList>,
    /// The first errors.
    pub(super) errors: FieldErrors,
    /// The number of todos and lists that cannot be stored.
    pub(super) invalid: usize,
    /// The number of todos that the file has in its trash.
    pub(super) trashed: usize,
    /// The number of todos of the file so far.
    pub(super) rows: usize,
    rules: Rules,
    began: Instant,
}

impl Sink {
    pub(super) fn new(now: DateTime<Utc>, zone: TimeZone) -> Self {
        Self {
            now,
            zone,
            items: Vec::new(),
            lists: Vec::new(),
            errors: FieldErrors::none(),
            invalid: 0,
            trashed: 0,
            rows: 0,
            rules: Rules::default(),
            began: Instant::now(),
        }
    }

    /// Checks the todo that begins on `line`.
    ///
    /// # Errors
    /// The file has too many todos, or takes too long.
    pub(super) fn push(&mut self, line: u32, draft: Draft) -> Result<(), FieldError> {
        let index = self.rows;
        if index >= MAX_ROWS {
            let message = "A file can have at most 5000 todos. Please split it.";
            return Err(FieldError::new("file", "too_many", message).on_line(line));
        }
        if self.began.elapsed() > MAX_TIME {
            let message = "Reading the file takes too long. Please split it.";
            return Err(FieldError::new("file", "too_complex", message).on_line(line));
        }
        self.rows += 1;
        match draft.check(self.now, &mut self.rules) {
            Ok(item) => self.items.push(item),
            Err(errors) => {
                self.invalid += 1;
                let place = format!("todos/{index}");
                for error in errors {
                    self.push_error(error.below(&place).on_line(line));
                }
            }
        }
        Ok(())
    }

    /// Adds a list that the file describes.
    ///
    /// # Errors
    /// The file has too many lists.
    pub(super) fn push_list(
        &mut self,
        line: u32,
        name: &str,
        color: Option<String>,
    ) -> Result<(), FieldError> {
        if self.lists.len() >= MAX_LISTS {
            let message = "A file can have at most 1000 lists.";
            return Err(FieldError::new("file", "too_many", message).on_line(line));
        }
        let place = format!("lists/{}", self.lists.len());
        match list_name("name", name) {
            Ok(name) if self.lists.iter().any(|list| list.name == name) => {}
            Ok(name) => self.lists.push(FileList { name, color }),
            Err(errors) => {
                self.invalid += 1;
                for error in errors {
                    self.push_error(error.below(&place).on_line(line));
                }
            }
        }
        Ok(())
    }

    fn push_error(&mut self, error: FieldError) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }
}

/// The rules of a file, each of which is checked once.
#[derive(Default)]
pub(super) struct Rules(HashMap<String, Result<Rule, FieldErrors>>);

impl Rules {
    /// Parses a rule, with the errors of the field `recurrence/rule`.
    pub(super) fn parse(&mut self, rule: &str) -> Result<Rule, FieldErrors> {
        if let Some(known) = self.0.get(rule) {
            return known.clone();
        }
        let parsed = Rule::parse(rule).map_err(|errors| errors.below("recurrence"));
        self.0.insert(rule.to_owned(), parsed.clone());
        parsed
    }
}
