//! What an e-mail address is, and which spellings of one are the same: by the rule of HTML's
//! `<input type=email>` (WHATWG HTML, "valid e-mail address") with a dot in the domain, or an
//! internationalised one (RFC 6531, section 3.3): beyond ASCII, the local part is free and the domain
//! is one by IDNA (UTS #46, non-transitional).

use std::borrow::Cow;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// The characters beside letters and digits that HTML's rule takes in a local part.
const ATEXT: &[u8] = b".!#$%&'*+/=?^_`{|}~-";

/// One address, in the spelling that is stored and compared.
pub(super) struct Address {
    /// In NFC and lower case, the domain in its Unicode form.
    pub(super) text: String,
    /// The same with the domain in its ASCII form (RFC 5890, A-labels), where that differs.
    pub(super) ascii: Option<String>,
}

/// Reads an address without white space around it; none if it is none.
pub(super) fn parse(email: &str) -> Option<Address> {
    let (local, domain) = email.split_once('@')?;
    let local = local_part(local)?;
    let (unicode, ascii) = domain_forms(domain)?;
    let text = format!("{local}@{unicode}");
    let ascii = ascii.map(|ascii| format!("{local}@{ascii}"));
    Some(Address { text, ascii })
}

/// The local part as it is stored.
fn local_part(local: &str) -> Option<Cow<'_, str>> {
    let is_ascii_atext = |c: char| {
        u8::try_from(c).is_ok_and(|byte| byte.is_ascii_alphanumeric() || ATEXT.contains(&byte))
    };
    let is_free = |c: char| !c.is_ascii() && is_visible(c);
    let is_good = !local.is_empty() && local.chars().all(|c| is_ascii_atext(c) || is_free(c));
    // A mark belongs to the character before it.
    let first = local.chars().next().map(UnicodeGeneralCategory::general_category_group);
    if !is_good || first == Some(GeneralCategoryGroup::Mark) {
        return None;
    }
    Some(fold(local))
}

/// In NFC and lower case.
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

/// Neither a control or format character, nor unassigned, nor any kind of blank.
fn is_visible(c: char) -> bool {
    !matches!(
        c.general_category_group(),
        GeneralCategoryGroup::Other | GeneralCategoryGroup::Separator
    )
}

/// The domain in its Unicode form, and in its ASCII form if that is another.
fn domain_forms(domain: &str) -> Option<(String, Option<String>)> {
    const JOINERS: [char; 2] = ['\u{200c}', '\u{200d}'];
    let idna = Uts46::new();
    let (deny, hyphens) = (AsciiDenyList::STD3, Hyphens::CheckFirstLast);
    let to_ascii = |text: &str| {
        idna.to_ascii(text.as_bytes(), deny, hyphens, DnsLength::Verify).ok().map(Cow::into_owned)
    };
    let ascii = if domain.is_ascii() {
        domain.to_ascii_lowercase()
    } else {
        // UTS #46 drops some of what cannot be seen. The joiners have their place, which it checks.
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
    let (unicode, is_good) = idna.to_unicode(ascii.as_bytes(), deny, hyphens);
    // Labels that only look like A-labels were always taken, as they are.
    if is_good.is_err() || to_ascii(&unicode).as_ref() != Some(&ascii) || unicode == ascii {
        return Some((ascii, None));
    }
    Some((unicode.into_owned(), Some(ascii)))
}

/// HTML's rule for a domain, and a dot. Written out because no kept crate has just this one: they
/// take quoted local parts, or refuse consecutive dots.
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
    fn spellings_of_one_address_are_one() {
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

    /// They could sign up before domains were looked at by IDNA.
    #[test]
    fn what_only_looks_like_an_a_label_stays_as_it_is() {
        for email in ["a@xn--zzzzzzzz.com", "a@xn--a.com", "a@ab--cd.com", "a@xn--abc-.example.com"]
        {
            let parsed = parse(email);
            let is_kept = parsed.as_ref().is_none_or(|parsed| parsed.text == email);
            assert!(is_kept, "{email}: {:?}", parsed.map(|parsed| parsed.text));
        }
        assert_eq!(text("a@xn--zzzzzzzz.com").as_deref(), Some("a@xn--zzzzzzzz.com"));
    }

    #[test]
    fn what_cannot_be_seen_or_is_no_domain_is_refused() {
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
        fn what_is_stored_is_its_own_spelling(
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
