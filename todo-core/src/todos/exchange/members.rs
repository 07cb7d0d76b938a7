//! Objects of JSON files: their members by type, and the lines on which they begin.

use serde_json::{Map, Value, value::RawValue};

use super::draft::{Draft, parse_time};
use crate::error::FieldError;
use chrono::{DateTime, Utc};

/// The members of an object; the errors of wrong types go to a [`Draft`].
pub(super) struct Members(Map<String, Value>);

impl Members {
    /// The members of a value; `None` with an error if it is no object.
    pub(super) fn of(value: &RawValue, draft: &mut Draft) -> Option<Self> {
        match serde_json::from_str(value.get()) {
            Ok(Value::Object(members)) => Some(Self(members)),
            Ok(_) => {
                draft.error("todo", "wrong_type", "A todo must be an object.");
                None
            }
            Err(_) => {
                draft.error("todo", "invalid", "A todo must be a valid JSON object.");
                None
            }
        }
    }

    /// Takes a member that is not null.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a text.
    pub(super) fn text(&mut self, name: &'static str, draft: &mut Draft) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            _ => wrong_type(name, "a string", draft),
        }
    }

    /// Takes a time as in RFC 3339, as that of the field `field`.
    pub(super) fn time(
        &mut self,
        name: &'static str,
        field: &'static str,
        draft: &mut Draft,
    ) -> Option<DateTime<Utc>> {
        let text = self.text(name, draft)?;
        parse_time(field, &text).map_err(|error| draft.errors.push(error)).ok()
    }

    /// Takes a Boolean; false without one.
    pub(super) fn flag(&mut self, name: &'static str, draft: &mut Draft) -> bool {
        match self.take(name) {
            None => false,
            Some(Value::Bool(flag)) => flag,
            Some(_) => wrong_type(name, "true or false", draft).unwrap_or_default(),
        }
    }

    /// Takes an array; an empty one without it.
    pub(super) fn array(&mut self, name: &'static str, draft: &mut Draft) -> Vec<Value> {
        match self.take(name) {
            None => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => wrong_type(name, "an array", draft).unwrap_or_default(),
        }
    }

    /// Takes an array of texts.
    pub(super) fn texts(&mut self, name: &'static str, draft: &mut Draft) -> Vec<String> {
        let items = self.array(name, draft);
        let texts = items.into_iter().filter_map(|item| match item {
            Value::String(text) => Some(text),
            _ => wrong_type(name, "an array of strings", draft),
        });
        texts.collect()
    }

    /// Takes an object.
    pub(super) fn object(&mut self, name: &'static str, draft: &mut Draft) -> Option<Self> {
        match self.take(name)? {
            Value::Object(members) => Some(Self(members)),
            _ => wrong_type(name, "an object", draft),
        }
    }
}

impl From<Map<String, Value>> for Members {
    fn from(members: Map<String, Value>) -> Self {
        Self(members)
    }
}

/// Adds the error of a member of another type.
pub(super) fn wrong_type<T>(
    name: &'static str,
    expected: &'static str,
    draft: &mut Draft,
) -> Option<T> {
    let label = crate::validate::FieldLabel(name);
    let message = format!("{label} must be {expected}.");
    draft.errors.push(FieldError::new(name, "wrong_type", message));
    None
}

/// The error of a file that is not JSON of the format's shape.
pub(super) fn not_json(error: &serde_json::Error) -> FieldError {
    let line = u32::try_from(error.line()).unwrap_or(u32::MAX);
    let message = if error.is_data() {
        "The file has not the members of this format."
    } else {
        "The file is not valid JSON."
    };
    FieldError::new("file", "invalid", message).on_line(line.max(1))
}

/// The lines of a text, for places in ascending order.
pub(super) struct Lines<'a> {
    text: &'a str,
    offset: usize,
    line: u32,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, offset: 0, line: 1 }
    }

    /// The line on which a value of the text begins, from 1.
    pub(super) fn of(&mut self, value: &RawValue) -> u32 {
        self.at(value.get().as_ptr().addr().saturating_sub(self.text.as_ptr().addr()))
    }

    /// The line of the byte at `begin`.
    pub(super) fn at(&mut self, begin: usize) -> u32 {
        if let Some(between) = self.text.as_bytes().get(self.offset..begin) {
            let breaks = between.split(|byte| *byte == b'\n').skip(1).count();
            self.line = self.line.saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX));
            self.offset = begin;
        }
        self.line
    }
}
