//! The rules that every text field shares: lengths in Unicode scalar values, no U+0000, and how
//! titles fold into their sort key.

use crate::error::FieldError;

/// `text`, or why not: it has a U+0000 (PostgreSQL cannot store it) or more than `max` characters.
pub(crate) fn bounded<'t>(
    field: &'static str,
    text: &'t str,
    min: usize,
    max: usize,
) -> Result<&'t str, FieldError> {
    without_nul(field, text)?;
    // A scalar value takes at most 4 bytes, so most texts need no counting.
    let too_long = text.len() > max && text.chars().count() > max;
    if too_long {
        let message = format!("must be at most {max} characters");
        return Err(FieldError::new(field, "too_long", message));
    }
    if text.len() < min * 4 && text.chars().count() < min {
        let message = format!("must be at least {min} characters");
        return Err(FieldError::new(field, "too_short", message));
    }
    Ok(text)
}

/// `text`, or why not: it has a U+0000.
pub(crate) fn without_nul<'t>(field: &'static str, text: &'t str) -> Result<&'t str, FieldError> {
    if text.contains('\0') {
        return Err(FieldError::new(field, "nul", "must not contain U+0000"));
    }
    Ok(text)
}

/// What a title sorts by: its full Unicode lower case (Unicode Standard, section 3.13). Compared
/// bytewise, UTF-8 sorts in code point order.
pub(crate) fn sort_key(title: &str) -> String {
    title.to_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_count_scalar_values() {
        assert!(bounded("f", &"𐐀".repeat(5), 5, 5).is_ok());
        assert_eq!(bounded("f", &"𐐀".repeat(6), 0, 5).unwrap_err().code, "too_long");
        assert_eq!(bounded("f", "𐐀", 2, 5).unwrap_err().code, "too_short");
        assert_eq!(bounded("f", "a\0b", 0, 5).unwrap_err().code, "nul");
    }

    proptest! {
        #[test]
        fn bounds_agree_with_counting(text in "\\PC{0,12}", min in 0_usize..6, max in 6_usize..9) {
            let n = text.chars().count();
            prop_assert_eq!(bounded("f", &text, min, max).is_ok(), (min..=max).contains(&n));
        }

        #[test]
        fn folded_bytes_sort_in_code_point_order(a in "\\PC{0,8}", b in "\\PC{0,8}") {
            let by_char = a.to_lowercase().chars().cmp(b.to_lowercase().chars());
            prop_assert_eq!(sort_key(&a).as_bytes().cmp(sort_key(&b).as_bytes()), by_char);
        }
    }
}
