//! The reader of `.env`: it takes a file as python-dotenv 1.2 does, which reads the Python backend's.
//! `tests/golden/dotenv.json` has python-dotenv's own answers. It knows no setting.
//!
//! A statement is `NAME=value`, with `export` before it or not. A value is bare (to the end of the
//! line or to a `#` behind a blank), in single quotes (`\'` and `\\` are escapes) or in double quotes
//! (`\n` and its like are, too); quoted ones may have several lines. `${NAME}` and `${NAME:-default}`
//! are replaced in all three, a bare `$` is itself.
//!
//! It differs in one thing: a byte order mark is no part of the first name.

use std::collections::BTreeMap;

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct Dotenv {
    /// The value of each name, its last one. A name without `=` has none.
    pub(crate) values: BTreeMap<String, String>,
    /// Statements that could not be read.
    pub(crate) unreadable: Vec<Unreadable>,
    /// Lines of statements that have no `=`: they set nothing.
    pub(crate) without_value: Vec<usize>,
    /// Lines of statements with a `${NAME}` that has neither a value nor a default: it became empty.
    pub(crate) unset: Vec<usize>,
}

/// A statement that could not be read. The rest of its line is skipped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// Where it begins.
    pub(crate) line: usize,
    /// The name that it begins with, if it begins with one.
    pub(crate) name: Option<String>,
}

impl Dotenv {
    /// Reads the text of a file. `outside` is the environment, whose values win in `${NAME}`.
    pub(crate) fn read(text: &str, outside: impl Fn(&str) -> Option<String>) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut reader = Reader { rest: &text, line: 1 };
        let mut read = Self::default();
        let mut values: BTreeMap<String, Option<String>> = BTreeMap::new();
        while let Some(statement) = reader.statement() {
            let Statement { line, name, value } = match statement {
                Ok(statement) => statement,
                Err(unreadable) => {
                    read.unreadable.push(unreadable);
                    continue;
                }
            };
            let Some(name) = name else { continue };
            let value = value.map(|value| {
                let (value, is_whole) = expanded(&value, |name| {
                    outside(name).or_else(|| Some(values.get(name)?.clone().unwrap_or_default()))
                });
                if !is_whole {
                    read.unset.push(line);
                }
                value
            });
            if value.is_none() {
                read.without_value.push(line);
            }
            values.insert(name, value);
        }
        let with_value = values.into_iter().filter_map(|(name, value)| Some((name, value?)));
        read.values = with_value.collect();
        read
    }
}

struct Statement {
    line: usize,
    /// None if it is a comment.
    name: Option<String>,
    value: Option<String>,
}

/// What is left of the text, whose lines end in `\n`, and the number of the line it begins in.
struct Reader<'t> {
    rest: &'t str,
    line: usize,
}

impl<'t> Reader<'t> {
    /// The next statement or comment.
    fn statement(&mut self) -> Option<Result<Statement, Unreadable>> {
        self.take(self.rest.len() - self.rest.trim_start_matches(is_space).len());
        if self.rest.is_empty() {
            return None;
        }
        let line = self.line;
        let mut name = None;
        Some(if let Some(value) = self.binding(&mut name) {
            Ok(Statement { line, name, value })
        } else {
            self.rest_of_line();
            Err(Unreadable { line, name })
        })
    }

    /// Reads a statement to the end of its line. `None` if it is none; its name is kept.
    fn binding(&mut self, name: &mut Option<String>) -> Option<Option<String>> {
        if let Some(rest) = self.rest.strip_prefix("export")
            && rest.starts_with(is_blank)
        {
            self.take("export".len());
            self.blanks();
        }
        if !self.rest.starts_with('#') {
            *name = Some(self.name()?.to_owned());
        }
        self.blanks();
        let value = if self.rest.starts_with('=') {
            self.take(1);
            self.blanks();
            Some(self.value()?)
        } else {
            None
        };
        self.blanks();
        if self.rest.starts_with('#') {
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
        match self.rest.chars().next() {
            None => {}
            Some('\n') => {
                self.take(1);
            }
            Some(_) => return None,
        }
        Some(value)
    }

    fn name(&mut self) -> Option<&'t str> {
        let (name, all) = if let Some(rest) = self.rest.strip_prefix('\'') {
            let end = rest.find('\'')?;
            (rest.get(..end)?, end + 2)
        } else {
            let is_end = |c| is_space(c) || c == '=' || c == '#';
            let end = self.rest.find(is_end).unwrap_or(self.rest.len());
            (self.rest.get(..end)?, end)
        };
        self.take(all);
        Some(name).filter(|name| !name.is_empty())
    }

    fn value(&mut self) -> Option<String> {
        if let Some(quote @ ('\'' | '"')) = self.rest.chars().next() {
            let end = closing(self.rest.get(1..)?, quote)?;
            let quoted = self.rest.get(1..=end)?;
            self.take(end + 2);
            return Some(unescaped(quoted, quote));
        }
        let bare = self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
        let mut before = bare.match_indices('#').map(|(at, _)| bare.split_at(at).0);
        let value = before.find(|before| before.ends_with(is_space)).unwrap_or(bare);
        Some(value.trim_end_matches(is_space).to_owned())
    }

    fn blanks(&mut self) {
        self.take(self.rest.len() - self.rest.trim_start_matches(is_blank).len());
    }

    fn rest_of_line(&mut self) {
        self.take(self.rest.find('\n').map_or(self.rest.len(), |end| end + 1));
    }

    /// Takes so many bytes, and counts the lines in them.
    fn take(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        self.line += taken.matches('\n').count();
        taken
    }
}

/// Where the quote that closes stands, from behind the one that opens. A quote behind a backslash
/// does not close, unless there is no other.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some(at);
        }
        if c == '\\'
            && let Some((at, _)) = chars.next_if(|(_, next)| *next == quote)
        {
            escaped = Some(at);
        }
    }
    escaped
}

fn unescaped(text: &str, quote: char) -> String {
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let next = if c == '\\' { chars.as_str().chars().next() } else { None };
        let escape = next.and_then(|next| match (quote, next) {
            (_, '\\' | '\'') | ('"', '"') => Some(next),
            ('"', 'a') => Some('\u{7}'),
            ('"', 'b') => Some('\u{8}'),
            ('"', 'f') => Some('\u{c}'),
            ('"', 'n') => Some('\n'),
            ('"', 'r') => Some('\r'),
            ('"', 't') => Some('\t'),
            ('"', 'v') => Some('\u{b}'),
            _ => None,
        });
        if escape.is_some() {
            chars.next();
        }
        value.push(escape.unwrap_or(c));
    }
    value
}

/// A value with the variables in it replaced, and whether each had a value or a default.
fn expanded(text: &str, value_of: impl Fn(&str) -> Option<String>) -> (String, bool) {
    let (mut value, mut is_whole) = (String::with_capacity(text.len()), true);
    let mut rest = text;
    while let Some((before, variable)) = rest.split_once("${") {
        value.push_str(before);
        let Some((name, default, after)) = variable_in(variable) else {
            value.push_str("${");
            rest = variable;
            continue;
        };
        match value_of(name).or_else(|| default.map(ToOwned::to_owned)) {
            Some(found) => value.push_str(&found),
            None => is_whole = false,
        }
        rest = after;
    }
    value.push_str(rest);
    (value, is_whole)
}

/// The name, the default and what follows, from behind `${`.
fn variable_in(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (name, rest) = text.split_at(text.find(['}', ':'])?);
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((name, None, rest));
    }
    let (default, rest) = rest.strip_prefix(":-")?.split_once('}')?;
    Some((name, Some(default), rest))
}

/// What Python calls a space: Unicode's, and four separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn is_blank(c: char) -> bool {
    is_space(c) && c != '\n'
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        environment: BTreeMap<String, String>,
        files: Vec<File>,
    }

    #[derive(serde::Deserialize)]
    struct File {
        text: String,
        values: BTreeMap<String, String>,
        unreadable: usize,
    }

    /// `DOTENV_GOLDEN` may name another table, such as one of `tests/golden_dotenv.py --random`.
    #[test]
    fn files_are_read_as_python_dotenv_reads_them() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/dotenv.json");
        let golden = std::env::var("DOTENV_GOLDEN").unwrap_or_else(|_| golden.to_owned());
        let golden = fs::read_to_string(golden).unwrap();
        let golden: Golden = serde_json::from_str(&golden).unwrap();
        assert!(golden.files.len() > 100);
        for File { text, values, unreadable } in golden.files {
            let read = Dotenv::read(&text, |name| golden.environment.get(name).cloned());
            assert_eq!(read.values, values, "{text:?}");
            assert_eq!(read.unreadable.len(), unreadable, "{text:?}");
        }
    }

    fn read(text: &str) -> Dotenv {
        Dotenv::read(text, |_| None)
    }

    /// Windows editors write one; python-dotenv makes it part of the first name, whose value is lost.
    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(read("\u{feff}A=1\nB=2").values, read("A=1\nB=2").values);
    }

    #[test]
    fn what_is_skipped_is_told_by_its_line() {
        let text = "A=1\n\ntwo words\n\nB='x\ny' z\nC='\n' \nNAME\n D=${A}${NONE}\r\nend of it";
        let read = read(text);
        let unreadable: Vec<_> =
            read.unreadable.iter().map(|it| (it.line, it.name.as_deref())).collect();
        assert_eq!(unreadable, [(3, Some("two")), (5, Some("B")), (11, Some("end"))]);
        assert_eq!((&*read.without_value, &*read.unset), (&[9][..], &[10][..]));
        let values: Vec<_> = read.values.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(values, [("A", "1"), ("C", "\n"), ("D", "1")]);
    }
}
