//! Content lines of iCalendar (RFC 5545, section 3.1): unfolding, parts, texts, folding.

use std::io::{self, Write};

/// Maximum length of a written line in bytes, without its end.
const MAX_LINE: usize = 75;

/// A file in which no line is folded within a character, as it may be (section 3.1): the rest of
/// such a character is moved before the fold.
pub(in crate::todos::exchange) fn rejoin(file: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(file.len());
    let mut folds = Vec::new();
    let mut rest = file;
    loop {
        let (fold, after) = rest.split_at(fold_length(rest));
        folds.extend_from_slice(fold);
        let is_within = |byte: &&u8| matches!(byte, 0x80..=0xbf);
        let moved = after.iter().take_while(is_within).count();
        let (moved, after) = after.split_at(moved);
        joined.extend_from_slice(moved);
        rest = after;
        // A character may be folded more than once.
        if moved.is_empty() || fold_length(rest) == 0 {
            joined.append(&mut folds);
            let Some((next, after)) = rest.split_first() else { return joined };
            joined.push(*next);
            rest = after;
        }
    }
}

/// The length of the fold with which a text begins.
fn fold_length(text: &[u8]) -> usize {
    match text {
        [b'\r', b'\n', b' ' | b'\t', ..] => 3,
        [b'\n', b' ' | b'\t', ..] => 2,
        _ => 0,
    }
}

/// A content line that is not folded, and the number of its first line in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) number: u32,
    pub(super) text: String,
}

/// Reads the content lines of a file one by one.
pub(super) struct LineReader<'a> {
    lines: std::iter::Peekable<std::iter::Zip<std::str::Lines<'a>, std::ops::RangeFrom<u32>>>,
}

impl<'a> LineReader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { lines: text.lines().zip(1_u32..).peekable() }
    }
}

impl Iterator for LineReader<'_> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        loop {
            let (first, number) = self.lines.next()?;
            let mut text = first.to_owned();
            while let Some((rest, _)) =
                self.lines.next_if(|(line, _)| line.starts_with([' ', '\t']))
            {
                text.push_str(rest.get(1..).unwrap_or_default());
            }
            if !text.trim().is_empty() {
                return Some(Line { number, text });
            }
        }
    }
}

/// The parts of a content line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Property<'a> {
    /// In upper case.
    pub(super) name: String,
    params: Vec<(String, &'a str)>,
    pub(super) value: &'a str,
}

impl<'a> Property<'a> {
    /// The parts of a line; `None` if it is none.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let end = line.find([':', ';'])?;
        let name = line.get(..end)?;
        if !is_name(name) || line.chars().any(|c| c.is_control() && c != '\t') {
            return None;
        }
        let mut params = Vec::new();
        let mut rest = line.get(end..)?;
        while let Some(param) = rest.strip_prefix(';') {
            let (name, value) = param.split_once('=')?;
            let mut in_quotes = false;
            let end = value.find(|c: char| {
                in_quotes ^= c == '"';
                !in_quotes && (c == ':' || c == ';')
            })?;
            if !is_name(name) {
                return None;
            }
            params.push((name.to_ascii_uppercase(), value.get(..end)?.trim_matches('"')));
            rest = value.get(end..)?;
        }
        let value = rest.strip_prefix(':')?;
        Some(Self { name: name.to_ascii_uppercase(), params, value })
    }

    /// The value of a parameter.
    pub(super) fn param(&self, name: &str) -> Option<&'a str> {
        self.params.iter().find(|(param, _)| param == name).map(|(_, value)| *value)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The text of a value of the type TEXT (section 3.3.11).
pub(super) fn unescape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('n' | 'N') => text.push('\n'),
            Some(other) => text.push(other),
            None => text.push('\\'),
        }
    }
    text
}

/// The texts of a value of several, which commas separate.
pub(super) fn unescape_list(value: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut is_escaped = false;
    let pieces = value.split(|c: char| {
        let ends = c == ',' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    for piece in pieces {
        let text = unescape(piece);
        if !text.trim().is_empty() {
            texts.push(text);
        }
    }
    texts
}

/// The value of a text. A line has no other control character than a tab.
pub(super) fn escape(text: &str) -> String {
    let mut value = String::with_capacity(text.len() + 8);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' | ';' | ',' => value.extend(['\\', c]),
            '\n' => value.push_str("\\n"),
            '\r' => {
                chars.next_if_eq(&'\n');
                value.push_str("\\n");
            }
            c if c.is_control() && c != '\t' => value.push(' '),
            c => value.push(c),
        }
    }
    value
}

/// Writes a content line, folded.
pub(super) fn write_line(out: &mut Vec<u8>, line: &str) -> io::Result<()> {
    let mut rest = line;
    let mut max = MAX_LINE;
    while rest.len() > max {
        let end = rest.floor_char_boundary(max);
        let (piece, after) = rest.split_at(end);
        write!(out, "{piece}\r\n ")?;
        rest = after;
        max = MAX_LINE - 1;
    }
    write!(out, "{rest}\r\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_of_a_line() {
        let line = "DUE;TZID=\"Europe/Berlin\";X-A=a:b\"c;d\"";
        assert_eq!(
            Property::parse(line).map(|property| property.value.to_owned()),
            Some("b\"c;d\"".into())
        );
        let property = Property::parse("due;tzid=\"a:b;c\":x").unwrap();
        assert_eq!(
            (&*property.name, property.param("TZID"), property.value),
            ("DUE", Some("a:b;c"), "x")
        );
        for bad in ["", "A", "A B:c", ":x", "A;B:c", "A;B=\"c:d", "A:b\u{7}"] {
            assert_eq!(Property::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn texts_are_escaped() {
        assert_eq!(unescape(r"a\, b\; c\\n\nd\N"), "a, b; c\\n\nd\n");
        assert_eq!(escape("a, b; c\\n\r\nd\u{7}"), r"a\, b\; c\\n\nd ");
        assert_eq!(unescape_list(r"a,b\,c,,d\\,e"), ["a", "b,c", r"d\", "e"]);
    }

    #[test]
    fn folds_within_a_character_are_moved() {
        for (file, joined) in [
            (&b"A:\xc3\r\n \xa9x\r\n y\nB:z"[..], "A:\u{e9}\r\n x\r\n y\nB:z"),
            (b"\xf0\n \x9f\r\n\t\x98\n \x80\n ", "\u{1f600}\n \r\n\t\n \n "),
            (b"", ""),
        ] {
            assert_eq!(String::from_utf8(rejoin(file)).as_deref(), Ok(joined));
        }
        assert_eq!(rejoin(b"\xff\r\n\xa9"), b"\xff\r\n\xa9");
    }

    #[test]
    fn lines_are_unfolded_with_their_number() {
        let lines: Vec<_> = LineReader::new("A:1\r\n 2\r\n\t3\r\n\r\nB:4\n").collect();
        let expected =
            [(1, "A:123"), (5, "B:4")].map(|(number, text)| Line { number, text: text.to_owned() });
        assert_eq!(lines, expected);
    }

    proptest! {
        #[test]
        fn a_written_line_is_read_as_it_was(text in "[a-zA-Z\u{e4}\u{20ac}\u{1f600} ,;:\\\\]{0,300}") {
            let mut out = Vec::new();
            let line = format!("SUMMARY:{}", escape(&text));
            write_line(&mut out, &line).unwrap();
            let written = String::from_utf8(out).unwrap();
            prop_assert!(written.split("\r\n").all(|line| line.len() <= MAX_LINE));
            let read: Vec<_> = LineReader::new(&written).collect();
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!(unescape(Property::parse(&read[0].text).unwrap().value), text);
        }
    }
}
