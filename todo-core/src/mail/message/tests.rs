use std::sync::Arc;

use super::*;
use crate::mail::{Mailer, SendFuture};

struct NoMailer;

impl Mailer for NoMailer {
    fn send<'a>(&'a self, _: &'a Message) -> SendFuture<'a> {
        Box::pin(async { Ok(()) })
    }
}

fn options(app_url: &str) -> MailOptions {
    let from = Email::parse("todo@exämple.com").unwrap();
    MailOptions::new(Arc::new(NoMailer), from, app_url)
}

fn composed(name: &str, options: &MailOptions, kind: MailKind, to: &str) -> String {
    let letter = Letter {
        id: Uuid::from_u128(0x0193_8c6e_90b2_7c33_9a65_1d9b_7a52_c0de),
        kind,
        to,
        created_at: DateTime::from_timestamp(1_795_426_200, 123_456_000).unwrap(),
        token: Some("T".repeat(43)),
        todo: (kind == MailKind::Reminder)
            .then(|| DueTodo { title: "Buy milk".to_owned(), due: "on 2026-12-01".to_owned() }),
    };
    let message = compose(options, name, &letter);
    assert_eq!(message.as_bytes(), compose(options, name, &letter).as_bytes());
    String::from_utf8(message.as_bytes().to_vec()).unwrap()
}

#[test]
fn a_mail_has_the_headers_of_an_automatic_message() {
    let text = composed("Todo API", &options("https://todo.example/"), MailKind::Reset, "a@b.c");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let lines: Vec<&str> = head.split("\r\n").collect();
    assert_eq!(
        lines,
        [
            "From: \"Todo API\" <todo@xn--exmple-cua.com>",
            "To: <a@b.c>",
            "Subject: Set a new password",
            "Date: Mon, 23 Nov 2026 09:30:00 +0000",
            "Message-ID: <01938c6e-90b2-7c33-9a65-1d9b7a52c0de@xn--exmple-cua.com>",
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Transfer-Encoding: 7bit",
        ]
    );
    let link = format!("\r\nhttps://todo.example/reset#token={}\r\n", "T".repeat(43));
    assert!(body.contains(&link), "{body}");
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "every line ends with CRLF");
}

#[test]
fn every_kind_has_its_link_or_none() {
    let options = options("https://todo.example");
    for kind in MailKind::ALL {
        let text = composed("Todo API", &options, kind, "a@b.c");
        assert!(!text.contains(['{', '}']), "{text}");
        assert!(text.contains("https://todo.example"), "{text}");
        let has_link = text.contains("#token=");
        assert_eq!(
            has_link,
            kind.lifetime() < chrono::TimeDelta::hours(24) || kind == MailKind::Verify
        );
        assert_eq!(MailKind::parse(kind.as_str()), Some(kind));
        assert!(text.lines().all(|line| line.len() <= 90), "{text}");
    }
}

#[test]
fn international_names_and_addresses_are_encoded() {
    let name = "Aufgaben für \"alle\" 待办事项清单应用程序服务平台管理系统工具";
    let text =
        composed(name, &options("https://todo.example"), MailKind::Verify, "jörg@exämple.com");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("To: <jörg@xn--exmple-cua.com>"), "{head}");
    assert!(head.contains("Content-Transfer-Encoding: quoted-printable"), "{head}");
    let words: Vec<&str> = head.split("\r\nTo:").next().unwrap().split("\r\n ").collect();
    assert!(words.len() > 1 && words.iter().all(|word| word.len() <= 90), "{words:?}");
    let decoded: Vec<u8> = head
        .split("=?utf-8?B?")
        .skip(1)
        .flat_map(|word| BASE64_STANDARD.decode(word.split("?=").next().unwrap()).unwrap())
        .collect();
    assert_eq!(String::from_utf8(decoded).unwrap(), name);
    assert!(body.is_ascii() && body.lines().all(|line| line.len() <= MAX_QUOTED_LINE), "{body}");
    let unfolded = body.replace("=\r\n", "");
    assert!(unfolded.contains("f=C3=BCr") && unfolded.contains("#token=3DTTT"), "{unfolded}");
}

#[test]
fn a_name_cannot_add_a_header() {
    let options = options("https://todo.example");
    let text = composed("x\r\nBcc: a@b.c\r\n\r\n{link}", &options, MailKind::EmailChanged, "a@b.c");
    assert!(text.starts_with("From: \"x  Bcc: a@b.c    {link}\" <todo@"), "{text}");
    assert!(!text.contains("#token="), "{text}");
}

#[test]
fn a_reminder_has_the_title_of_its_todo_as_text() {
    let reminder = |title: &str| {
        let letter = Letter {
            id: Uuid::from_u128(7),
            kind: MailKind::Reminder,
            to: "a@b.c",
            created_at: DateTime::from_timestamp(1_795_426_200, 0).unwrap(),
            token: None,
            todo: Some(DueTodo {
                title: title.to_owned(),
                due: "on 2026-12-01 at 09:30 (Europe/Berlin)".to_owned(),
            }),
        };
        let message = compose(&options("https://todo.example"), "Todo API", &letter);
        String::from_utf8(message.as_bytes().to_vec()).unwrap()
    };
    let plain = reminder("Buy milk");
    assert!(plain.contains("\r\nSubject: Reminder: Buy milk\r\nDate: "), "{plain}");
    let body = "A reminder of your todo at Todo API:\r\n\r\nBuy milk\r\n\r\n\
                It is due on 2026-12-01 at 09:30 (Europe/Berlin).\r\n";
    assert!(plain.contains(body), "{plain}");

    let hostile = reminder("x\r\nBcc: e@f.g\r\n\r\n{name}{link} =?utf-8?B?QQ==?=");
    let (head, body) = hostile.split_once("\r\n\r\n").unwrap();
    assert_eq!(head.lines().filter(|line| line.starts_with("Bcc")).count(), 0, "{head}");
    assert!(head.contains("Subject: =?utf-8?B?"), "an encoded word is not taken from a title");
    assert!(body.contains("x  Bcc: e@f.g    {name}{link}"), "{body}");

    let long = reminder(&"\u{5f85}\u{529e}".repeat(100));
    let head = long.split_once("\r\n\r\n").unwrap().0;
    assert!(head.is_ascii() && head.lines().all(|line| line.len() <= 90), "{head}");
}
