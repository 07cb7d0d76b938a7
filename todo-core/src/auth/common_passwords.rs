//! Passwords that are tried first: those of published lists, and those derived from the account or
//! the service (ASVS 5.0, 6.2.4 and 6.2.11). A new password must be none of them.

use super::{Email, Password};
use crate::error::FieldError;

/// Common passwords in lower case, a line each, sorted by bytes. `common_passwords.py` makes it.
static COMMON: &str = include_str!("common_passwords.txt");

/// Checks a new password of the account with the address `email`, in any case, and with any
/// punctuation at its end. The error is of `field`.
pub(super) fn check(
    password: &Password,
    field: &'static str,
    email: &Email,
    service_name: &str,
) -> Result<(), FieldError> {
    let password = password.as_str().to_lowercase();
    let mut rest = Some(&*password);
    while let Some(password) = rest {
        if is_line_of(COMMON, password) || is_derived(password, email.as_str(), service_name) {
            let message = "Password is among the passwords that are tried first.";
            return Err(FieldError::new(field, "common", message));
        }
        rest = password.strip_suffix(|c: char| c.is_ascii_punctuation());
    }
    Ok(())
}

/// Whether a password is the address, its part before the @ and digits, or the service's name and
/// digits.
fn is_derived(password: &str, email: &str, service_name: &str) -> bool {
    let local = email.rsplit_once('@').map_or(email, |(local, _)| local);
    let name = service_name.to_lowercase();
    let one_word: String = name.split_whitespace().collect();
    password == email
        || [local, &name, &one_word].into_iter().any(|base| {
            let rest = password.strip_prefix(base);
            rest.is_some_and(|rest| !base.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        })
}

/// Whether `word` is one of the lines, which are sorted by bytes and each end with a line feed.
fn is_line_of(mut lines: &str, word: &str) -> bool {
    while !lines.is_empty() {
        let middle = lines.as_bytes()[..lines.len() / 2].iter().rposition(|byte| *byte == b'\n');
        let (before, from) = lines.split_at(middle.map_or(0, |end| end + 1));
        let (line, after) = from.split_once('\n').unwrap_or((from, ""));
        match word.cmp(line) {
            std::cmp::Ordering::Less => lines = before,
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Greater => lines = after,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_refused(password: &str) -> bool {
        let password = Password::unchecked(password).unwrap();
        let email = Email::parse("grace.hopper@example.com").unwrap();
        check(&password, "password", &email, "Todo API").is_err()
    }

    /// The line with its first letter raised.
    fn raised(line: &str) -> String {
        let at = line.find(char::is_alphabetic).unwrap();
        format!("{}{}{}", &line[..at], line[at..=at].to_uppercase(), &line[at + 1..])
    }

    #[test]
    fn every_line_can_be_a_password_and_is_refused_in_any_case() {
        let mut before = "";
        for line in COMMON.lines() {
            assert!(before < line, "sorted: {before} {line}");
            before = line;
            let raised = raised(line);
            assert!(is_refused(line) && is_refused(&raised), "{line}");
            assert!(
                is_refused(&line.to_uppercase()) && is_refused(&format!("{raised}!?")),
                "{line}"
            );
            // Each meets the rules of a new password, in some case.
            Password::parse(&raised).unwrap();
        }
        assert_eq!(COMMON.lines().count(), 5023);
    }

    #[test]
    fn passwords_of_the_account_and_of_the_service_are_refused() {
        for password in [
            "Password1",
            "Password123!",
            "Passw0rd",
            "Qwerty123",
            "Welcome1",
            "Grace.Hopper@example.com",
            "Grace.Hopper1",
            "GRACE.hopper1815!",
            "Todo API2026",
            "TodoApi1!",
        ] {
            assert!(is_refused(password), "{password}");
        }
        for password in [
            "Correct1horse",
            "SecurePass123",
            "SecurePass123!",
            "TestPass123!",
            "WrongPassword123!",
            "Grace.Hopper1815x",
            "1Grace.Hopper",
            "xPassword1",
        ] {
            assert!(!is_refused(password), "{password}");
        }
    }

    proptest! {
        #[test]
        fn the_search_finds_what_a_set_finds(
            lines in prop::collection::btree_set("[a-c1é]{1,3}", 0..12),
            word in "[a-c1é]{0,3}",
        ) {
            let text: String = lines.iter().fold(String::new(), |text, line| text + line + "\n");
            for line in &lines {
                prop_assert!(is_line_of(&text, line));
            }
            prop_assert_eq!(is_line_of(&text, &word), lines.contains(&word));
        }
    }
}
