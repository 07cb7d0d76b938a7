//! iCalendar (RFC 5545): todos are components VTODO.
//!
//! Properties that a todo does not have are kept as lines beside it and written again: unknown
//! ones, components such as alarms of another kind, and those of which a todo keeps a part only,
//! such as `PRIORITY:3`. Time zones are written by name, without their definitions (RFC 7809).
//!
//! A crate was not taken: `icalendar` and `calcard` give neither the line of an error nor the text
//! of a property as it was, and the second one links another time zone database.

use self::lines::{LineReader, Property};
pub(super) use self::{
    lines::rejoin,
    read::read,
    write::{begin, end, write},
};
use crate::error::FieldError;

mod lines;
mod read;
mod write;

/// Maximum size of the kept lines of a todo in bytes.
const MAX_KEPT: usize = 16 << 10;
/// Maximum depth of components within a todo.
const MAX_DEPTH: usize = 4;
/// Properties that are written from the todo, and never kept.
const OWN: [&str; 11] = [
    "SUMMARY",
    "DESCRIPTION",
    "DUE",
    "RRULE",
    "CATEGORIES",
    "DTSTAMP",
    "CREATED",
    "LAST-MODIFIED",
    "COMPLETED",
    LIST,
    FROM,
];
/// The name of a todo's list.
const LIST: &str = "X-TODO-LIST";
/// The date from which a recurrence is computed, if it is not the due date.
const FROM: &str = "X-TODO-RECURRENCE-FROM";

/// Checks kept lines that a file of another format has.
pub(super) fn check_kept(kept: String) -> Result<String, FieldError> {
    let error = |code, message| Err(FieldError::new("ical", code, message));
    if kept.len() > MAX_KEPT {
        return error("too_long", "Properties of iCalendar must be at most 16384 bytes.");
    }
    let mut open: Vec<&str> = Vec::new();
    for line in kept.split('\n') {
        let is_good = match Property::parse(line) {
            None => false,
            Some(property) => match &*property.name {
                "BEGIN" => {
                    open.push(property.value);
                    open.len() <= MAX_DEPTH && !is_calendar(property.value)
                }
                "END" => open.pop() == Some(property.value),
                name => !(open.is_empty() && OWN.contains(&name)),
            },
        };
        if !is_good || LineReader::new(line).next().is_none_or(|read| read.text != line) {
            return error("invalid", "Ical must be lines of iCalendar that have no other member.");
        }
    }
    if open.is_empty() {
        Ok(kept)
    } else {
        error("invalid", "Ical must have an end of each component.")
    }
}

/// Whether a component contains todos or is beside them.
fn is_calendar(component: &str) -> bool {
    ["VCALENDAR", "VTODO", "VEVENT", "VJOURNAL"]
        .iter()
        .any(|name| component.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_lines_cannot_end_their_todo() {
        for good in
            ["X-A:b", "UID:a\nGEO:1;2\nBEGIN:VALARM\nDESCRIPTION:x\nEND:VALARM", "X-A;B=\"c\":d"]
        {
            assert_eq!(check_kept(good.to_owned()).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "x",
            "X-A:b\n",
            "END:VTODO",
            "SUMMARY:x",
            "BEGIN:VALARM",
            "BEGIN:VTODO\nEND:VTODO",
            "BEGIN:VALARM\nEND:VTODO",
            " X-A:b",
            "X-A:b\r",
            "X-A:b\n c",
        ] {
            assert!(check_kept(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(check_kept(format!("X-A:{}", "b".repeat(MAX_KEPT))).is_err());
    }
}
