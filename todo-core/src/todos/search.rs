//! A search: its syntax, and the patterns that its terms are in SQL.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::fold::fold;
use crate::{
    error::{FieldError, FieldErrors},
    parsed::{impl_as_str, impl_parse},
    validate,
};

/// A search in the title, the description and the tags of a todo: terms, each of which is a part of
/// one of these texts, or with a leading `-` of none of them. Upper and lower case, and forms of
/// characters that are compatible (Unicode Standard, section 3.11), are the same; nothing else is.
///
/// Terms are separated by white space. One in double quotes is a phrase: it may contain white
/// space, and begin with `-`. A quote without a second one reaches to the end.
///
/// ```
/// use todo_core::todos::Search;
///
/// let search = Search::parse("milk \"two litres\" -oat")?;
/// assert_eq!(search.terms(), ["milk", "two litres"]);
/// assert_eq!(search.excluded(), ["oat"]);
/// # Ok::<(), todo_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Search {
    text: String,
    terms: Vec<String>,
    excluded: Vec<String>,
}

impl Search {
    /// Maximum number of characters (Unicode scalar values).
    pub const MAX_CHARS: usize = 200;
    /// Maximum number of terms, those with a leading `-` included.
    pub const MAX_TERMS: usize = 8;

    /// Parses a search.
    ///
    /// # Errors
    /// Every rule that the field `q` breaks.
    pub fn parse(text: &str) -> Result<Self, FieldErrors> {
        let mut errors = validate::check_text("q", text, 0, Self::MAX_CHARS);
        let (mut terms, mut excluded) = (Vec::new(), Vec::new());
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (term, is_excluded, after) = next_term(rest);
            if !term.trim().is_empty() {
                if is_excluded { &mut excluded } else { &mut terms }.push(fold(term));
            }
            rest = after.trim_start();
        }
        match terms.len() + excluded.len() {
            0 => errors.push(FieldError::new("q", "blank", "Q must have a term.")),
            1..=Self::MAX_TERMS => {}
            _ => {
                let message = format!("Q must have at most {} terms.", Self::MAX_TERMS);
                errors.push(FieldError::new("q", "too_many", message));
            }
        }
        errors.into_result(|| Self { text: text.to_owned(), terms, excluded })
    }

    /// The text that was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The terms that a todo has, folded.
    #[must_use]
    pub fn terms(&self) -> &[String] {
        &self.terms
    }

    /// The terms that a todo does not have, folded.
    #[must_use]
    pub fn excluded(&self) -> &[String] {
        &self.excluded
    }
}

/// The first term of a text that does not begin with white space, whether it is excluded, and the
/// text after it.
fn next_term(text: &str) -> (&str, bool, &str) {
    let (rest, is_excluded) = match text.strip_prefix('-') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(char::is_whitespace) => (rest, true),
        _ => (text, false),
    };
    if let Some(phrase) = rest.strip_prefix('"') {
        let (term, after) = phrase.split_once('"').unwrap_or((phrase, ""));
        return (term, is_excluded, after);
    }
    let (term, after) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
    (term, is_excluded, after)
}

/// The pattern of the texts that contain `part`, for `LIKE … ESCAPE '\'`.
pub(super) fn pattern(part: &str) -> String {
    let mut pattern = String::with_capacity(part.len() + 2);
    pattern.push('%');
    for character in part.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

impl_parse!(Search, FieldErrors);
impl_as_str!(Search);

impl Serialize for Search {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Search {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn terms_phrases_and_exclusions() {
        for (text, terms, excluded) in [
            ("a", &["a"][..], &[][..]),
            (" A  b\u{a0}\u{3000}c\n", &["a", "b", "c"], &[]),
            (r#""a b" c"#, &["a b", "c"], &[]),
            (r#"-a -"b c" d"#, &["d"], &["a", "b c"]),
            (r"-a", &[], &["a"]),
            (r#""-a" - --b"#, &["-a", "-"], &["-b"]),
            (r#""a""b"c"#, &["a", "b", "c"], &[]),
            (r#""a b"#, &["a b"], &[]),
            (r#""" a -"""#, &["a"], &[]),
            (r#"a"b c"d"#, &["a\"b", "c\"d"], &[]),
            (r"100%_\", &["100%_\\"], &[]),
            ("\u{1e}x", &[" x"], &[]),
        ] {
            let search = Search::parse(text).unwrap();
            assert_eq!(
                (search.terms(), search.excluded()),
                (&owned(terms)[..], &owned(excluded)[..])
            );
        }
    }

    #[test]
    fn terms_are_folded() {
        let search = Search::parse("STRASSE \u{1e9e} \u{ff76}\u{ff9e} \u{fb01}").unwrap();
        assert_eq!(search.terms(), ["strasse", "\u{df}", "\u{30ac}", "fi"]);
    }

    #[test]
    fn other_texts_are_invalid() {
        let long = "x".repeat(201);
        for (text, codes) in [
            ("", &["blank"][..]),
            (" \t", &["blank"]),
            ("\"\"", &["blank"]),
            ("a\0", &["nul"]),
            (&long, &["too_long"]),
            ("1 2 3 4 5 6 7 8 -9", &["too_many"]),
        ] {
            let errors = Search::parse(text).unwrap_err();
            let found: Vec<_> = errors.iter().map(|error| error.code).collect();
            assert_eq!(found, codes, "{text}");
        }
        assert!(Search::parse("1 2 3 4 5 6 7 -8").is_ok());
        assert!(Search::parse(&"é".repeat(200)).is_ok());
    }

    #[test]
    fn a_pattern_has_no_wildcards_of_its_text() {
        assert_eq!(pattern(r"a%b_c\"), r"%a\%b\_c\\%");
    }
}
