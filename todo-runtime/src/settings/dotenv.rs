//! Parser of `.env` files, compatible with python-dotenv 1.2, which the Python backend uses.
//! `tests/golden/dotenv.json` has python-dotenv's results. Names and meanings of settings are in
//! [`crate::settings`].
//!
//! A statement is `NAME=value`, optionally after `export`. A value is bare (to the end of the line
//! or to a `#` after a blank), in single quotes (with the escapes `\'` and `\\`) or in double
//! quotes (with `\n` and similar escapes too); a quoted one may span lines. `${NAME}` and
//! `${NAME:-default}` are expanded in all three; a lone `$` is literal.
//!
//! There is one difference: a byte order mark is skipped, not part of the first name.

use std::collections::BTreeMap;

/// The parsed content of a file.
#[derive(Debug, Default)]
pub(crate) struct Dotenv {
    /// The last value of each name. A name without `=` has none.
    pub(crate) values: BTreeMap<String, String>,
    /// Invalid statements.
    pub(crate) unreadable: Vec<Unreadable>,
    /// Lines of statements without `=`, which set nothing.
    pub(crate) without_value: Vec<usize>,
    /// Lines of statements with a `${NAME}` without a value or default, which became empty.
    pub(crate) unset: Vec<usize>,
}

/// An invalid statement. The rest of its line is skipped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// Its first line.
    pub(crate) line: usize,
    /// The name at its beginning, if there is one.
    pub(crate) name: Option<String>,
}

impl Dotenv {
    /// Parses the text of a file. `environment` looks up variables, which win in `${NAME}`.
    pub(crate) fn read(text: &str, environment: impl Fn(&str) -> Option<String>) -> Self {
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
                let (value, is_complete) = expanded(&value, |name| {
                    environment(name)
                        .or_else(|| Some(values.get(name)?.clone().unwrap_or_default()))
                });
                if !is_complete {
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
    /// `None` for a comment.
    name: Option<String>,
    value: Option<String>,
}

/// The remaining text, with lines that end in `\n`, and the number of its first line.
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

    /// Parses a statement to the end of its line. `None` if it is invalid; `name` is set even then.
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

    /// Consumes `bytes` bytes and counts their lines.
    fn take(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        self.line += taken.matches('\n').count();
        taken
    }
}

/// Index of the closing quote in the text after the opening one. A quote after a backslash closes
/// only if there is no other.
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

/// A value with its variables expanded, and whether each had a value or a default.
fn expanded(text: &str, value_of: impl Fn(&str) -> Option<String>) -> (String, bool) {
    let mut value = String::with_capacity(text.len());
    let mut is_complete = true;
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
            None => is_complete = false,
        }
        rest = after;
    }
    value.push_str(rest);
    (value, is_complete)
}

/// The name, the default and the rest of the text after `${`.
fn variable_in(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (name, rest) = text.split_at(text.find(['}', ':'])?);
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((name, None, rest));
    }
    let (default, rest) = rest.strip_prefix(":-")?.split_once('}')?;
    Some((name, Some(default), rest))
}

/// Python's whitespace: Unicode's, and four separators.
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

    /// `DOTENV_GOLDEN` may name another table, such as the output of
    /// `tests/golden_dotenv.py --random`.
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

    /// Windows editors write one; python-dotenv makes it part of the first name, which loses that
    /// value.
    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(read("\u{feff}A=1\nB=2").values, read("A=1\nB=2").values);
    }

    #[test]
    fn skipped_statements_are_reported_with_their_line() {
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
