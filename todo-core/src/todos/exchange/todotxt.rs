//! todo.txt: a todo on each line, with the marks of the format and `key:value` words.
//!
//! The format has no lines within a todo, no times, and no way to write a word that looks like a
//! mark. A value with white space, which a word cannot contain, is percent-encoded.

use std::io::{self, Write};

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use percent_encoding::{percent_decode_str, percent_encode_byte};

use super::{draft::Draft, rows::Record, sink::Sink};
use crate::{
    error::FieldError,
    todos::{Description, Due, Priority, RecurrenceBase},
};

/// Units of a recurrence (`rec:2w`), and the frequency of each.
const UNITS: [(char, &str); 4] =
    [('d', "DAILY"), ('w', "WEEKLY"), ('m', "MONTHLY"), ('y', "YEARLY")];

/// Reads a file.
pub(super) fn read(text: &str, sink: &mut Sink) -> Result<(), FieldError> {
    for (line, number) in text.lines().zip(1..) {
        if !line.trim().is_empty() {
            sink.push(number, draft(line))?;
        }
    }
    Ok(())
}

fn draft(line: &str) -> Draft {
    let mut draft = Draft::default();
    let mut words = line.split_whitespace().peekable();
    draft.completed = words.next_if_eq(&"x").is_some();
    if let Some(priority) = words.peek().copied().and_then(letter) {
        draft.priority = Some(priority);
        words.next();
    }
    let first = words.peek().copied().and_then(date);
    let second = first.and_then(|_| {
        words.next();
        words.peek().copied().filter(|_| draft.completed).and_then(date)
    });
    if second.is_some() {
        words.next();
    }
    // With one date, it is that of the completion.
    if draft.completed {
        draft.completed_at = first.map(midnight);
        draft.created_at = second.map(midnight);
    } else {
        draft.created_at = first.map(midnight);
    }
    let mut title: Vec<&str> = Vec::new();
    let mut due: [Option<&str>; 2] = [None; 2];
    for word in words {
        if let Some(tag) = word.strip_prefix(['@', '+']).filter(|tag| !tag.is_empty()) {
            draft.tags.push(decode(tag));
            continue;
        }
        match word.split_once(':') {
            Some(("due", value)) if !value.is_empty() => due[0] = Some(value),
            Some(("tz", value)) if !value.is_empty() => due[1] = Some(value),
            Some(("rec", value)) if !value.is_empty() => recur(value, &mut draft),
            Some(("rrule", value)) if !value.is_empty() => draft.rule = Some(decode(value)),
            Some(("from", value)) if !value.is_empty() => match RecurrenceBase::parse(value) {
                Ok(from) => draft.from = from,
                Err(_) => title.push(word),
            },
            Some(("pri", value)) if value.len() == 1 => {
                draft.priority = letter(&format!("({value})"));
            }
            Some(("remind", value)) if !value.is_empty() => remind(value, &mut draft),
            Some(("list", value)) if !value.is_empty() => draft.list = Some(decode(value)),
            Some(("note", value)) if !value.is_empty() => draft.description = Some(decode(value)),
            _ => title.push(word),
        }
    }
    draft.title = title.join(" ");
    if let Some(value) = due[0] {
        let (date, time) = value.split_once('T').map_or((value, None), |(d, t)| (d, Some(t)));
        // A time without a zone is that of a clock in UTC.
        let zone = time.map(|_| due[1].unwrap_or("UTC"));
        draft.set_due(Due::parse(date, time, zone));
    }
    draft
}

/// The priority of `(A)` to `(Z)`.
fn letter(word: &str) -> Option<Priority> {
    let letter = word.strip_prefix('(')?.strip_suffix(')')?;
    match letter.as_bytes() {
        [b'A'] => Some(Priority::High),
        [b'B'] => Some(Priority::Medium),
        [b'C'..=b'Z'] => Some(Priority::Low),
        _ => None,
    }
}

fn date(word: &str) -> Option<NaiveDate> {
    let is_plain = word.len() == 10 && word.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    NaiveDate::parse_from_str(word, "%Y-%m-%d").ok().filter(|_| is_plain)
}

fn midnight(date: NaiveDate) -> DateTime<Utc> {
    date.and_time(NaiveTime::MIN).and_utc()
}

/// Reads `rec:2w`, from the day of the completion, or `rec:+2w`, from the due date.
fn recur(value: &str, draft: &mut Draft) {
    let strict = value.strip_prefix('+');
    let unit = UNITS.iter().find_map(|(unit, frequency)| {
        let count = strict.unwrap_or(value).strip_suffix(*unit)?;
        let count: u32 = if count.is_empty() { 1 } else { count.parse().ok()? };
        Some((count, frequency))
    });
    let Some((count, frequency)) = unit else {
        let message = "Recurrence must be a number and one of d, w, m and y.";
        draft.error("recurrence/rule", "invalid", message);
        return;
    };
    draft.rule = Some(match count {
        1 => format!("FREQ={frequency}"),
        _ => format!("FREQ={frequency};INTERVAL={count}"),
    });
    draft.from = if strict.is_some() { RecurrenceBase::Due } else { RecurrenceBase::Completion };
}

fn remind(value: &str, draft: &mut Draft) {
    for minutes in value.split(',') {
        match minutes.parse() {
            Ok(minutes) => draft.reminders.push(minutes),
            Err(_) => draft.error("reminders", "invalid", "Reminders must be numbers of minutes."),
        }
    }
}

fn decode(value: &str) -> String {
    percent_decode_str(value).decode_utf8_lossy().into_owned()
}

/// A value as a word: what would end it is percent-encoded.
fn encode(value: &str) -> String {
    let mut word = String::with_capacity(value.len());
    for c in value.chars() {
        if c == '%' || c.is_whitespace() || c.is_control() {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                word.push_str(percent_encode_byte(byte));
            }
        } else {
            word.push(c);
        }
    }
    word
}

/// Writes a todo.
pub(super) fn write(out: &mut Vec<u8>, record: &Record<'_>) -> io::Result<()> {
    let todo = record.todo;
    let letter = match todo.priority {
        Priority::High => Some('A'),
        // It is the default.
        Priority::Medium => None,
        Priority::Low => Some('C'),
    };
    let created = todo.created_at.date_naive();
    if let Some(completed) = todo.completed_at {
        write!(out, "x {} {created}", completed.date_naive())?;
    } else {
        if let Some(letter) = letter {
            write!(out, "({letter}) ")?;
        }
        write!(out, "{created}")?;
    }
    for word in todo.title.as_str().split_whitespace() {
        write!(out, " {word}")?;
    }
    for tag in &todo.tags {
        write!(out, " @{}", encode(tag.as_str()))?;
    }
    if let Some(due) = &todo.due {
        write!(out, " due:{}", due.date())?;
        if let (Some(time), Some(zone)) = (due.time(), due.time_zone()) {
            write!(out, "T{} tz:{}", time.format("%H:%M"), zone.as_str())?;
        }
    }
    if let Some(recurrence) = &todo.recurrence {
        match simple(recurrence.rule.as_str()) {
            Some(rule) if recurrence.from == RecurrenceBase::Due => write!(out, " rec:+{rule}")?,
            Some(rule) => write!(out, " rec:{rule}")?,
            None => {
                let rule = encode(recurrence.rule.as_str());
                write!(out, " rrule:{rule} from:{}", recurrence.from.as_str())?;
            }
        }
    }
    if todo.completed
        && let Some(letter) = letter
    {
        write!(out, " pri:{letter}")?;
    }
    if !todo.reminders.is_empty() {
        let minutes: Vec<_> = todo.reminders.iter().map(|r| r.minutes_before.to_string()).collect();
        write!(out, " remind:{}", minutes.join(","))?;
    }
    if let Some(list) = record.list {
        write!(out, " list:{}", encode(list))?;
    }
    let description = todo.description.as_ref().map_or("", Description::as_str);
    if !description.is_empty() {
        write!(out, " note:{}", encode(description))?;
    }
    out.write_all(b"\n")
}

/// A rule of a frequency and an interval, as `2w`.
fn simple(rule: &str) -> Option<String> {
    let mut parts = rule.split(';');
    let frequency = parts.next()?.strip_prefix("FREQ=")?;
    let (unit, _) = UNITS.iter().find(|(_, name)| *name == frequency)?;
    let count = match parts.next() {
        None => 1,
        Some(part) => part.strip_prefix("INTERVAL=")?.parse::<u32>().ok()?,
    };
    parts.next().is_none().then(|| format!("{count}{unit}"))
}
