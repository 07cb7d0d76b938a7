//! The composition of a mail (RFC 5322): a function of its row and of the settings, so that a
//! repeated attempt has the same bytes. It contains no text that a user has chosen: a sign-up with
//! the address of somebody else could send them an advertisement. Only a reminder has one, the
//! title of a todo: it goes to the confirmed address of its owner.

use std::fmt::Write as _;

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{MailKind, MailOptions, Message};
use crate::auth::Email;

/// Maximum length of a line without its CRLF (RFC 5322, section 2.1.1).
const MAX_LINE: usize = 998;
/// Maximum length of a line of quoted-printable (RFC 2045, section 6.7).
const MAX_QUOTED_LINE: usize = 76;
/// Maximum length of a header that is not encoded.
const MAX_PLAIN: usize = 60;
/// Maximum number of bytes in an encoded word of 75 characters (RFC 2047, section 2).
const MAX_WORD_BYTES: usize = 45;

/// The parts of a mail that differ between mails.
pub(crate) struct Letter<'a> {
    pub(crate) id: Uuid,
    pub(crate) kind: MailKind,
    pub(crate) to: &'a str,
    pub(crate) created_at: DateTime<Utc>,
    /// The token of its link, if it has one.
    pub(crate) token: Option<String>,
    /// The todo of a reminder.
    pub(crate) todo: Option<DueTodo>,
}

/// A todo that is due.
pub(crate) struct DueTodo {
    pub(crate) title: String,
    /// Such as `on 2026-12-01 at 09:30 (Europe/Berlin)`.
    pub(crate) due: String,
}

/// Composes a mail.
pub(crate) fn compose(options: &MailOptions, service_name: &str, letter: &Letter<'_>) -> Message {
    let Letter { id, kind, created_at, .. } = *letter;
    let to = with_ascii_domain(letter.to);
    let from = options.from.in_ascii();
    let domain = from.rsplit_once('@').map_or(from, |(_, domain)| domain);
    // A line break would end a header.
    let name = service_name.replace(char::is_control, " ");
    let title = letter.todo.as_ref().map(|todo| todo.title.replace(char::is_control, " "));
    let title = title.unwrap_or_default();
    let subject = kind.subject().replace("{title}", &title);
    let body = body(options, &name, &title, letter);
    let is_plain = body.is_ascii() && body.lines().all(|line| line.len() <= MAX_LINE);
    let encoding = if is_plain { "7bit" } else { "quoted-printable" };
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "From: {} <{from}>\r\n\
         To: <{to}>\r\n\
         Subject: {}\r\n\
         Date: {}\r\n\
         Message-ID: <{id}@{domain}>\r\n\
         Auto-Submitted: auto-generated\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: {encoding}\r\n\
         \r\n",
        phrase(&name),
        unstructured(&subject),
        created_at.to_rfc2822(),
    );
    for line in body.lines() {
        if is_plain {
            text.push_str(line);
        } else {
            quote(line, &mut text);
        }
        text.push_str("\r\n");
    }
    Message { id, from: from.to_owned(), to, bytes: text.into_bytes() }
}

/// The address with its domain in ASCII: then only an international local part needs SMTPUTF8.
fn with_ascii_domain(address: &str) -> String {
    Email::parse(address).map_or_else(|_| address.to_owned(), |email| email.in_ascii().to_owned())
}

fn body(options: &MailOptions, name: &str, title: &str, letter: &Letter<'_>) -> String {
    let MailOptions { app_url, .. } = options;
    let link = match (letter.kind.link_path(), &letter.token) {
        (Some(path), Some(token)) => format!("{app_url}{path}#token={token}"),
        _ => String::new(),
    };
    let time = letter.created_at.format("%Y-%m-%d %H:%M UTC").to_string();
    let due = letter.todo.as_ref().map_or("", |todo| todo.due.as_str());
    // The name and the title last: a brace in them is text.
    let parts = letter.kind.text().split("{title}").map(|text| {
        let text = text.replace("{link}", &link).replace("{app}", app_url);
        text.replace("{time}", &time).replace("{due}", due).replace("{name}", name)
    });
    parts.collect::<Vec<_>>().join(title)
}

/// The text of a header without a structure (RFC 5322, section 2.2.1): as it is, or as encoded
/// words.
fn unstructured(text: &str) -> String {
    let is_plain = text.is_ascii() && text.len() <= MAX_PLAIN && !text.contains("=?");
    if is_plain { text.to_owned() } else { encoded_words(text) }
}

/// A display name: a quoted string (RFC 5322, section 3.2.4), or encoded words (RFC 2047).
fn phrase(name: &str) -> String {
    if name.is_ascii() {
        return format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    }
    encoded_words(name)
}

/// Encoded words (RFC 2047), each in a line.
fn encoded_words(text: &str) -> String {
    let mut words = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        if word.len() + c.len_utf8() > MAX_WORD_BYTES {
            words.push(std::mem::take(&mut word));
        }
        word.push(c);
    }
    words.push(word);
    let encoded = |word: String| format!("=?utf-8?B?{}?=", BASE64_STANDARD.encode(word));
    words.into_iter().map(encoded).collect::<Vec<_>>().join("\r\n ")
}

/// Appends a line as quoted-printable.
fn quote(line: &str, text: &mut String) {
    let mut length = 0;
    let bytes = line.as_bytes();
    for (i, byte) in bytes.iter().enumerate() {
        let is_last = i + 1 == bytes.len();
        let is_literal = matches!(byte, b'!'..=b'<' | b'>'..=b'~') || (*byte == b' ' && !is_last);
        let width = if is_literal { 1 } else { 3 };
        // The last column is for the `=` of a soft line break.
        if length + width >= MAX_QUOTED_LINE {
            text.push_str("=\r\n");
            length = 0;
        }
        if is_literal {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "={byte:02X}");
        }
        length += width;
    }
}

#[cfg(test)]
mod tests;
