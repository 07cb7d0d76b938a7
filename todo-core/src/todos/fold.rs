//! The folded text of a todo, in which a search looks for its terms. The library folds, not the
//! database, so that the same todos are found on every database, in every script.

use unicode_normalization::UnicodeNormalization;

use super::{Description, Tags, Title};
use crate::validate::FOLD_SEPARATOR as SEPARATOR;

/// Folds a text: compatibility form NFKC and full lower case (Unicode Standard, sections 3.11 and
/// 3.13), again in NFKC, since lower case may leave it. The separator becomes a space.
pub(crate) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text
            .bytes()
            .map(|byte| match char::from(byte) {
                SEPARATOR => ' ',
                other => other.to_ascii_lowercase(),
            })
            .collect();
    }
    let lower: String = text.nfkc().collect::<String>().to_lowercase();
    lower.nfkc().map(|c| if c == SEPARATOR { ' ' } else { c }).collect()
}

/// The folded title.
pub(super) fn title(title: &Title) -> String {
    fold(title.as_str())
}

/// The folded tags, each on a line.
pub(super) fn tags(tags: &Tags) -> String {
    let texts: Vec<_> = tags.iter().map(|tag| fold(tag.as_str())).collect();
    texts.join("\n")
}

/// The folded description, empty without one.
pub(super) fn description(description: Option<&Description>) -> String {
    description.map(|description| fold(description.as_str())).unwrap_or_default()
}

/// The folded text of a todo: title, tags, description, with separators.
pub(crate) fn todo(title_: &Title, tags_: &Tags, description_: Option<&Description>) -> String {
    let mut text = title(title_);
    text.push(SEPARATOR);
    text.push_str(&tags(tags_));
    text.push(SEPARATOR);
    text.push_str(&description(description_));
    text
}
