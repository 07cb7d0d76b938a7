//! E-mail addresses: validation, and normalisation of equivalent spellings. An address is valid by
//! the rule of HTML's `<input type=email>` (WHATWG HTML, "valid e-mail address") with a dot in the
//! domain, or as an internationalised one (RFC 6531, section 3.3): non-ASCII characters are free in
//! the local part, and the domain follows IDNA (UTS #46, non-transitional).

use std::borrow::Cow;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// The characters besides letters and digits that HTML's rule allows in a local part.
const ATEXT: &[u8] = b".!#$%&'*+/=?^_`{|}~-";

/// An address in its normalised form, which is stored and compared.
pub(super) struct Address {
    /// In NFC and lower case, the domain in its Unicode form.
    pub(super) text: String,
    /// The same with the domain in its ASCII form (RFC 5890, A-labels), if that differs.
    pub(super) ascii: Option<String>,
}

/// Parses an address without surrounding white space; `None` if it is invalid.
pub(super) fn parse(email: &str) -> Option<Address> {
    let (local, domain) = email.split_once('@')?;
    let local = local_part(local)?;
    let (unicode, ascii) = domain_forms(domain)?;
    let text = format!("{local}@{unicode}");
    let ascii = ascii.map(|ascii| format!("{local}@{ascii}"));
    Some(Address { text, ascii })
}

/// Validates and normalises the local part.
fn local_part(local: &str) -> Option<Cow<'_, str>> {
    let is_ascii_atext = |c: char| {
        u8::try_from(c).is_ok_and(|byte| byte.is_ascii_alphanumeric() || ATEXT.contains(&byte))
    };
    let is_free = |c: char| !c.is_ascii() && is_visible(c);
    let is_valid = !local.is_empty() && local.chars().all(|c| is_ascii_atext(c) || is_free(c));
    // A combining mark needs a character before it.
    let first = local.chars().next().map(UnicodeGeneralCategory::general_category_group);
    if !is_valid || first == Some(GeneralCategoryGroup::Mark) {
        return None;
    }
    Some(fold(local))
}

/// Converts to NFC and lower case.
fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Owned(text.to_ascii_lowercase());
    }
    let lower = text.nfc().collect::<String>().to_lowercase();
    match is_nfc_quick(lower.chars()) {
        IsNormalized::Yes => Cow::Owned(lower),
        _ => Cow::Owned(lower.nfc().collect()),
    }
}

/// Whether a character is no control or format character, not unassigned and no kind of space.
fn is_visible(c: char) -> bool {
    !matches!(
        c.general_category_group(),
        GeneralCategoryGroup::Other | GeneralCategoryGroup::Separator
    )
}

/// The domain in its Unicode form, and in its ASCII form if that differs.
fn domain_forms(domain: &str) -> Option<(String, Option<String>)> {
    const JOINERS: [char; 2] = ['\u{200c}', '\u{200d}'];
    let idna = Uts46::new();
    let deny = AsciiDenyList::STD3;
    let hyphens = Hyphens::CheckFirstLast;
    let to_ascii = |text: &str| {
        idna.to_ascii(text.as_bytes(), deny, hyphens, DnsLength::Verify).ok().map(Cow::into_owned)
    };
    let ascii = if domain.is_ascii() {
        domain.to_ascii_lowercase()
    } else {
        // UTS #46 drops some invisible characters. It checks the context of joiners itself.
        if domain.chars().any(|c| !is_visible(c) && !JOINERS.contains(&c)) {
            return None;
        }
        to_ascii(domain)?
    };
    if !is_dotted_domain(&ascii) {
        return None;
    }
    if !ascii.split('.').any(|label| label.starts_with("xn--")) {
        return Some((ascii, None));
    }
    let (unicode, is_valid) = idna.to_unicode(ascii.as_bytes(), deny, hyphens);
    // Labels with an A-label's prefix that do not decode were always accepted unchanged.
    if is_valid.is_err() || to_ascii(&unicode).as_ref() != Some(&ascii) || unicode == ascii {
        return Some((ascii, None));
    }
    Some((unicode.into_owned(), Some(ascii)))
}

/// Whether a domain follows HTML's rule and has a dot. Implemented here because the maintained
/// crates differ: they accept quoted local parts, or reject consecutive dots.
fn is_dotted_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    domain.contains('.') && domain.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(email: &str) -> Option<String> {
        parse(email).map(|address| address.text)
    }

    #[test]
    fn spellings_of_one_address_are_equal() {
        for (same, kept, ascii) in [
            (
                &[
                    "jörg@exämple.com",
                    "Jörg@EXÄMPLE.com",
                    "JÖRG@Exämple.COM",
                    "jo\u{308}rg@exa\u{308}mple.com",
                    "jörg@xn--exmple-cua.com",
                    "jörg@XN--EXMPLE-CUA.COM",
                    "jörg@exämple。com",
                ][..],
                "jörg@exämple.com",
                Some("jörg@xn--exmple-cua.com"),
            ),
            (
                &["用户@例え.テスト", "用户@xn--r8jz45g.xn--zckzah"],
                "用户@例え.テスト",
                Some("用户@xn--r8jz45g.xn--zckzah"),
            ),
            (&["a@fußball.de"], "a@fußball.de", Some("a@xn--fuball-cta.de")),
            (&["a@ＥＸＡＭＰＬＥ.com", "A@example.com"], "a@example.com", None),
            (&["Ünï+tag@example.com"], "ünï+tag@example.com", None),
        ] {
            for email in same {
                let parsed = parse(email).unwrap_or_else(|| panic!("{email}"));
                assert_eq!((&*parsed.text, parsed.ascii.as_deref()), (kept, ascii), "{email}");
            }
        }
        assert_ne!(text("jorg@exämple.com"), text("jörg@exämple.com"));
        assert_ne!(text("a@fussball.de"), text("a@fußball.de"));
    }

    /// They could sign up before IDNA was applied to domains.
    #[test]
    fn an_invalid_a_label_is_kept_unchanged() {
        for email in ["a@xn--zzzzzzzz.com", "a@xn--a.com", "a@ab--cd.com", "a@xn--abc-.example.com"]
        {
            let parsed = parse(email);
            let is_kept = parsed.as_ref().is_none_or(|parsed| parsed.text == email);
            assert!(is_kept, "{email}: {:?}", parsed.map(|parsed| parsed.text));
        }
        assert_eq!(text("a@xn--zzzzzzzz.com").as_deref(), Some("a@xn--zzzzzzzz.com"));
    }

    #[test]
    fn invisible_characters_and_invalid_domains_are_rejected() {
        for bad in [
            "jö rg@example.com",
            "jö\u{a0}rg@example.com",
            "j\u{200b}örg@example.com",
            "j\u{202e}org@example.com",
            "j\u{ad}org@example.com",
            "\u{308}jorg@example.com",
            "jörg\u{85}@example.com",
            "jörg@exämple",
            "jörg@exä mple.com",
            "jörg@exämple.com\u{200b}",
            "jörg@b.com\u{200b}",
            "jörg@-exämple.com",
            "jörg@exämple..com",
            "jörg@exämple.com.",
            "jörg@exä_mple.com",
            "jörg@exämple＠b.com",
            "jörg@\u{308}xample.com",
            "jörg\"@example.com",
            "\u{e000}@example.com",
        ] {
            assert_eq!(text(bad), None, "{bad:?}");
        }
        let long = format!("a@{}.com", "ä".repeat(60));
        assert_eq!(text(&long), None, "its ASCII form has more than 63 characters");
    }

    proptest! {
        #[test]
        fn a_stored_address_parses_to_itself(
            local in "[\\PC&&[^@]]{1,8}", domain in "[\\PC&&[^@.]]{1,8}\\.[a-zäöüß]{2,5}"
        ) {
            if let Some(address) = parse(&format!("{local}@{domain}")) {
                let again = parse(&address.text).map(|again| (again.text, again.ascii));
                prop_assert_eq!(again, Some((address.text.clone(), address.ascii.clone())));
                if let Some(ascii) = &address.ascii {
                    prop_assert_eq!(parse(ascii).map(|again| again.text), Some(address.text));
                }
            }
        }

        #[test]
        fn parsing_never_panics(text in "\\PC*@\\PC*") {
            let _ = parse(&text);
        }
    }
}
