use proptest::prelude::*;

use super::*;

fn codes<T>(parsed: Result<T, FieldErrors>) -> Vec<&'static str> {
    parsed.err().into_iter().flatten().map(|error| error.code).collect()
}

#[test]
fn addresses_follow_html_with_a_dotted_domain() {
    let long_label = "a".repeat(63);
    for valid in [
        "a@b.co",
        " A.B+c@Example.COM ",
        "..@b.co",
        "a!#$%&'*+/=?^_`{|}~-@x-y.z9",
        &format!("a@{long_label}.de"),
    ] {
        assert_eq!(Email::parse(valid).unwrap().as_str(), valid.trim().to_ascii_lowercase());
    }
    for bad in [
        "",
        "a",
        "@b.co",
        "a@",
        "a@b",
        "a@.b.co",
        "a@b..co",
        "a@b.co.",
        "a@-b.co",
        "a@b-.co",
        "a b@c.de",
        "a@b@c.de",
        "\"a\"@b.co",
        "a@[1.2.3.4]",
        "a@b_c.de",
        &format!("a@{long_label}a.de"),
        "a\0@b.co",
    ] {
        assert!(Email::parse(bad).is_err(), "{bad}");
    }
    let at_most = format!("{}@{}.de", "a".repeat(64), "b.".repeat(93) + "b");
    assert_eq!(at_most.len(), 64 + 1 + 187 + 3);
    assert_eq!(codes(Email::parse(&at_most)), ["too_long"]);
    assert_eq!(codes(Email::parse(&"a".repeat(255))), ["too_long", "invalid"]);
    assert!(Email::parse(&at_most[1..]).is_ok());
}

#[test]
fn new_passwords_need_length_and_three_kinds() {
    assert!(Password::parse("Passw0rd").is_ok());
    assert!(Password::parse(&format!("Pw0{}", "é".repeat(125))).is_ok());
    for (bad, expected) in [
        ("Passw0r", &["too_short"][..]),
        (&format!("Pw0{}", "é".repeat(126)), &["too_long"]),
        ("passw0rd", &["weak"]),
        ("PASSW0RD", &["weak"]),
        ("Password", &["weak"]),
        ("Passwo½d", &["weak"]),
        ("Passw0rd\0", &["nul"]),
        ("weakweak", &["weak", "weak"]),
        ("\0", &["nul", "too_short", "weak", "weak", "weak"]),
    ] {
        assert_eq!(codes(Password::parse(bad)), expected, "{bad}");
    }
}

#[test]
fn names_are_of_printable_characters() {
    assert_eq!(Name::parse(" A\u{301}da \u{200d}\t").unwrap().as_str(), "A\u{301}da \u{200d}");
    for bad in ["A\tda", "A\nda", "A\u{7f}da", "A\u{85}da", "\u{1b}[31mAda"] {
        assert_eq!(codes(Name::parse(bad)), ["control"], "{bad:?}");
    }
    assert_eq!(codes(Name::parse("A\0da")), ["nul"]);
    assert_eq!(codes(Name::parse("\u{7}")), ["too_short", "control"]);
}

#[test]
fn a_form_reports_all_invalid_fields() {
    let Err(crate::Error::Invalid(errors)) = Signup::parse("x", "y", "z") else { panic!() };
    let mut fields: Vec<_> = errors.iter().map(|error| error.field.as_ref()).collect();
    fields.dedup();
    assert_eq!(fields, ["email", "password", "name"]);
    assert_eq!(errors.len(), 5, "{errors:?}");
}

#[test]
fn a_password_is_not_printed() {
    let form = Signup::parse("a@b.co", "Secret-123", "Ada").unwrap();
    assert!(!format!("{form:?}").contains("Secret"));
}

proptest! {
    #[test]
    fn folding_is_idempotent_and_ignores_case(email in "[a-zA-Z0-9.+-]{1,20}@[a-zA-Z]{1,9}\\.[a-zA-Z]{2,5}") {
        let folded = Email::parse(&email).unwrap();
        prop_assert_eq!(&Email::parse(folded.as_str()).unwrap(), &folded);
        prop_assert_eq!(&Email::parse(&email.to_uppercase()).unwrap(), &folded);
    }

    #[test]
    fn parsing_never_panics(text in "\\PC*") {
        let _ = (Email::parse(&text), Name::parse(&text), Password::parse(&text));
    }
}
