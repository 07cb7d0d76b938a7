//! Rules that all text fields share: lengths in Unicode scalar values, no U+0000, and the sort key
//! of titles.

use std::fmt::{self, Write};

use crate::error::{FieldError, FieldErrors};

/// Errors of a text field: no U+0000 (PostgreSQL cannot store it), `min` to `max` characters.
pub(crate) fn check_text(field: &'static str, text: &str, min: usize, max: usize) -> FieldErrors {
    let mut errors = FieldErrors::none();
    if let Some(nul) = check_nul(field, text) {
        errors.push(nul);
    }
    let label = FieldLabel(field);
    // A scalar value takes at most 4 bytes, so most texts need no counting.
    if text.len() > max && text.chars().count() > max {
        let message = format!("{label} must be at most {max} characters.");
        errors.push(FieldError::new(field, "too_long", message));
    }
    if text.len() < min * 4 && text.chars().count() < min {
        let message = format!("{label} must be at least {min} characters.");
        errors.push(FieldError::new(field, "too_short", message));
    }
    errors
}

/// Errors of a text field of one line: those of [`check_text`], and no control character.
pub(crate) fn check_line(field: &'static str, text: &str, min: usize, max: usize) -> FieldErrors {
    let mut errors = check_text(field, text, min, max);
    if text.chars().any(|c| c.is_control() && c != '\0') {
        let message = format!("{} cannot contain control characters.", FieldLabel(field));
        errors.push(FieldError::new(field, "control", message));
    }
    errors
}

/// The error of a text with a U+0000.
pub(crate) fn check_nul(field: &'static str, text: &str) -> Option<FieldError> {
    let message = || format!("{} cannot contain the null character (U+0000).", FieldLabel(field));
    text.contains('\0').then(|| FieldError::new(field, "nul", message()))
}

/// The error of a required field that is absent.
pub(crate) fn missing(field: &'static str) -> FieldError {
    FieldError::new(field, "missing", format!("{} is required.", FieldLabel(field)))
}

/// A field's name for the start of a sentence: `sort_by` becomes `Sort by`.
pub(crate) struct FieldLabel(pub(crate) &'static str);

impl fmt::Display for FieldLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, c) in self.0.chars().enumerate() {
            f.write_char(match c {
                '_' => ' ',
                c if i == 0 => c.to_ascii_uppercase(),
                c => c,
            })?;
        }
        Ok(())
    }
}

/// The separator of the parts of a folded text, which is stored for searches. No folded part
/// contains it.
pub(crate) const FOLD_SEPARATOR: char = '\u{1e}';

/// Sort key of a title: its full Unicode lower case (Unicode Standard, section 3.13). Comparing the
/// UTF-8 bytes sorts it in code point order.
pub(crate) fn sort_key(title: &str) -> String {
    title.to_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_count_scalar_values() {
        let codes_of = |text: &str, min, max| {
            let codes = check_text("f", text, min, max).into_iter().map(|error| error.code);
            codes.collect::<Vec<_>>()
        };
        assert!(codes_of(&"𐐀".repeat(5), 5, 5).is_empty());
        assert_eq!(codes_of(&"𐐀".repeat(6), 0, 5), ["too_long"]);
        assert_eq!(codes_of("𐐀", 2, 5), ["too_short"]);
        assert_eq!(codes_of("a\0b", 0, 5), ["nul"]);
        assert_eq!(codes_of("\0", 2, 5), ["nul", "too_short"]);
    }

    #[test]
    fn a_field_label_is_capitalized_and_has_spaces() {
        assert_eq!(FieldLabel("sort_by").to_string(), "Sort by");
    }

    proptest! {
        #[test]
        fn bounds_agree_with_counting(text in "\\PC{0,12}", min in 0_usize..6, max in 6_usize..9) {
            let n = text.chars().count();
            prop_assert_eq!(check_text("f", &text, min, max).is_empty(), (min..=max).contains(&n));
        }

        #[test]
        fn folded_bytes_sort_in_code_point_order(a in "\\PC{0,8}", b in "\\PC{0,8}") {
            let by_char = a.to_lowercase().chars().cmp(b.to_lowercase().chars());
            prop_assert_eq!(sort_key(&a).as_bytes().cmp(sort_key(&b).as_bytes()), by_char);
        }
    }
}
