//! The tags of a todo.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, de};
use unicode_normalization::UnicodeNormalization;

use crate::{
    error::{FieldError, FieldErrors},
    parsed::impl_text,
    validate,
};

/// A tag: 1 to 50 characters (Unicode scalar values), trimmed, in Unicode lower case and
/// normalization form C, without commas and control characters.
///
/// ```
/// use todo_core::todos::Tag;
///
/// assert_eq!(Tag::parse(" Errand ")?, "errand");
/// assert!(Tag::parse("a,b").is_err());
/// # Ok::<(), todo_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// Maximum number of characters.
    pub const MAX_CHARS: usize = 50;

    /// Parses a tag.
    ///
    /// # Errors
    /// Every rule that the field `tag` breaks.
    pub fn parse(tag: &str) -> Result<Self, FieldErrors> {
        Self::parse_as("tag", tag)
    }

    /// As [`Tag::parse`], with the errors of another field.
    pub(crate) fn parse_as(field: &'static str, tag: &str) -> Result<Self, FieldErrors> {
        // Lower case may leave form C, and form C does not leave lower case.
        let tag: String = tag.trim().to_lowercase().nfc().collect();
        if tag.is_empty() {
            return Err(FieldError::new(field, "blank", "A tag cannot be empty.").into());
        }
        let mut errors = validate::check_line(field, &tag, 1, Self::MAX_CHARS);
        if tag.contains(',') {
            errors.push(FieldError::new(field, "comma", "A tag cannot contain a comma."));
        }
        errors.into_result(|| Self(tag))
    }

    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn into_string(self) -> String {
        self.0
    }

    /// A tag from the database, which was parsed when it was written.
    pub(crate) fn from_stored(text: String) -> Self {
        Self(text)
    }
}

impl_text!(Tag);

/// The tags of a todo: a set of up to 20, in code point order.
///
/// ```
/// use todo_core::todos::Tags;
///
/// let tags = Tags::parse(["Home", "errand", "home"])?;
/// assert_eq!(tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(), ["errand", "home"]);
/// # Ok::<(), todo_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Tags(Vec<Tag>);

impl Tags {
    /// Maximum number of tags.
    pub const MAX: usize = 20;

    /// Parses tags; equal ones are one.
    ///
    /// # Errors
    /// Every rule that the field `tags` breaks; those of one tag are of the field `tags/<index>`.
    pub fn parse<S: AsRef<str>>(tags: impl IntoIterator<Item = S>) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::none();
        let mut set = BTreeSet::new();
        for (index, tag) in tags.into_iter().enumerate() {
            let parsed = Tag::parse_as("tags", tag.as_ref());
            set.extend(errors.collect(parsed.map_err(|errors| errors.at(index))));
        }
        if set.len() > Self::MAX {
            let message = format!("A todo can have at most {} tags.", Self::MAX);
            errors.push(FieldError::new("tags", "too_many", message));
        }
        errors.into_result(|| Self(set.into_iter().collect()))
    }

    /// The tags, in code point order.
    pub fn iter(&self) -> std::slice::Iter<'_, Tag> {
        self.0.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of tags.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The tags with `to` in the place of `from`, or without `from`; `None` if it is not there.
    pub(super) fn with_replaced(&self, from: &Tag, to: Option<&Tag>) -> Option<Self> {
        if !self.0.contains(from) {
            return None;
        }
        let others = self.0.iter().filter(|tag| *tag != from);
        let set: BTreeSet<&Tag> = others.chain(to).collect();
        Some(Self(set.into_iter().cloned().collect()))
    }

    /// The text that is stored: a JSON array.
    pub(crate) fn to_stored(&self) -> String {
        if self.0.is_empty() {
            return "[]".to_owned();
        }
        serde_json::to_string(self).unwrap_or_else(|_| "[]".to_owned())
    }

    /// The tags of a stored text; `None` if it is not one.
    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        if text == "[]" {
            return Some(Self::default());
        }
        let tags: Vec<String> = serde_json::from_str(text).ok()?;
        Some(Self(tags.into_iter().map(Tag::from_stored).collect()))
    }
}

impl<'a> IntoIterator for &'a Tags {
    type Item = &'a Tag;
    type IntoIter = std::slice::Iter<'a, Tag>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tags = Vec::<String>::deserialize(deserializer)?;
        Self::parse(tags).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes<T>(parsed: Result<T, FieldErrors>) -> Vec<(String, &'static str)> {
        let errors = parsed.err().into_iter().flatten();
        errors.map(|error| (error.field.into_owned(), error.code)).collect()
    }

    #[test]
    fn tags_are_trimmed_folded_and_sorted() {
        let tags = Tags::parse([" Home", "ÉTÉ", "e\u{301}te\u{301}", "a b", "😀"]).unwrap();
        let texts: Vec<_> = tags.iter().map(Tag::as_str).collect();
        assert_eq!(texts, ["a b", "home", "été", "😀"]);
        assert_eq!(Tags::from_stored(&tags.to_stored()), Some(tags));
    }

    #[test]
    fn a_replaced_tag_keeps_the_set_sorted() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|tag| Tag::parse(tag).unwrap());
        let tags = Tags::parse(["a", "b", "c"]).unwrap();
        let replaced = |from: &Tag, to| Some(tags.with_replaced(from, to)?.to_stored());
        assert_eq!(replaced(&a, Some(&d)).as_deref(), Some(r#"["b","c","d"]"#));
        assert_eq!(replaced(&c, Some(&a)).as_deref(), Some(r#"["a","b"]"#));
        assert_eq!(replaced(&b, None).as_deref(), Some(r#"["a","c"]"#));
        assert_eq!(replaced(&d, Some(&a)), None);
    }

    #[test]
    fn each_broken_rule_is_reported_with_its_place() {
        let long = "x".repeat(51);
        let errors = codes(Tags::parse(["ok", " ", "a,b", "a\tb", &long, "a\0"]));
        let expected = [
            ("tags/1", "blank"),
            ("tags/2", "comma"),
            ("tags/3", "control"),
            ("tags/4", "too_long"),
            ("tags/5", "nul"),
        ];
        let expected: Vec<_> = expected.map(|(field, code)| (field.to_owned(), code)).into();
        assert_eq!(errors, expected);
        let many: Vec<String> = (0..21).map(|i| i.to_string()).collect();
        assert_eq!(codes(Tags::parse(&many)), [("tags".to_owned(), "too_many")]);
        assert!(Tags::parse(many.iter().take(20).chain(many.iter().take(20))).is_ok());
    }
}
