//! Hostile files: each is answered within seconds, by an error with its line or by todos that are
//! stored as they are in the file, on every server and database.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use todo_tests::{App, on_every_target};

use super::{JSON, export, import, listed, total};
use crate::text;

const MIB: usize = 1 << 20;
const CALENDAR: &str = "text/calendar";
const CSV: &str = "text/csv";
const TEXT: &str = "text/plain";
/// Limit for an answer, in a debug build beside other tests.
const SOON: Duration = Duration::from_secs(20);
/// The first minutes that are out of range.
const REMINDER: &str = "todos/0/reminders/40321/minutes_before";

/// A calendar with a todo of these lines.
fn calendar(lines: &str) -> String {
    format!("BEGIN:VCALENDAR\r\nBEGIN:VTODO\r\n{lines}\r\nEND:VTODO\r\nEND:VCALENDAR\r\n")
}

/// The media type of a format's files.
fn media_type(format: &str) -> &'static str {
    match format {
        "csv" | "todoist" => CSV,
        "todotxt" => TEXT,
        "ics" => CALENDAR,
        _ => JSON,
    }
}

/// A file that is rejected, with the field and the line of its first error.
#[derive(Clone)]
struct Bad {
    format: &'static str,
    file: Vec<u8>,
    field: &'static str,
    line: u64,
}

fn bad(format: &'static str, file: impl Into<Vec<u8>>, field: &'static str, line: u64) -> Bad {
    Bad { format, file: file.into(), field, line }
}

/// A file of JSON with a todo of these members beside its title.
fn planned(members: &str) -> String {
    format!(r#"{{"todos": [{{"title": "a", {members}}}]}}"#)
}

/// Text that is not UTF-8, or has characters that no database stores.
fn texts() -> Vec<Bad> {
    vec![
        bad("json", b"{\"todos\": [\n{\"title\": \"\xff\"}]}", "file", 2),
        bad("csv", b"title\na\nb\xc3", "file", 3),
        bad("todotxt", b"a\r\nb\r\n\xc0\x80", "file", 3),
        bad("ics", b"BEGIN:VCALENDAR\r\nX:\xe4\r\nEND:VCALENDAR", "file", 2),
        bad("json", r#"{"todos": [{"title": "a\u0000"}]}"#, "todos/0/title", 1),
        bad("json", planned(r#""list": "\u0000""#), "todos/0/list", 1),
        bad("json", planned(r#""tags": ["\u0000"]"#), "todos/0/tags/0", 1),
        bad("json", planned(r#""ical": "X-A:\u0000""#), "todos/0/ical", 1),
        bad("json", planned(r#""position": "\u0000""#), "todos/0/position", 1),
        bad("json", r#"{"lists": [{"name": "\u0000"}], "todos": []}"#, "lists/0/name", 1),
        bad("todotxt", "a note:%00", "todos/0/description", 1),
        bad("todotxt", "a list:%00", "todos/0/list", 1),
        bad("csv", "title,description\na,\0", "todos/0/description", 2),
        bad("ics", calendar("SUMMARY:\u{0}"), "file", 3),
        bad("ics", calendar("SUMMARY:a\r\nX-A:\u{0}"), "file", 4),
    ]
}

/// One line of the whole file, or one value of very many parts.
fn sizes() -> Vec<Bad> {
    let long = "x".repeat(2 * MIB - 128);
    let many = |begin: &str, end: &str| -> String {
        (0..100_000).map(|number| format!("{begin}{number}{end}")).collect()
    };
    let columns = "c,".repeat(MIB / 2);
    vec![
        bad("json", format!(r#"{{"todos":[{{"title":"{long}"}}]}}"#), "todos/0/title", 1),
        bad("csv", format!("title\n{long}"), "todos/0/title", 2),
        bad("csv", format!("title\n\"{long}"), "todos/0/title", 2),
        bad("todotxt", long.clone(), "todos/0/title", 1),
        bad("ics", calendar(&format!("SUMMARY:{long}")), "todos/0/title", 2),
        bad("todoist", format!("TYPE,CONTENT\ntask,{long}"), "todos/0/title", 2),
        bad("json", planned(&format!(r#""tags": [{}"0"]"#, many("\"", "\","))), "todos/0/tags", 1),
        bad("todotxt", format!("a{}", many(" @", "")), "todos/0/tags", 1),
        bad("csv", format!("title,tags\na,\"{}x\"", many("", ",")), "todos/0/tags", 2),
        bad("todotxt", format!("a due:2026-12-01 remind:{}1", many("", ",")), REMINDER, 1),
        bad("csv", format!("{columns}title\n{}", ",\n".repeat(4_900)), "todos/0/title", 2),
    ]
}

/// Values in values in values, and numbers and dates beyond their ends.
fn depths() -> Vec<Bad> {
    let deep = |open: &str, count: usize| open.repeat(count);
    let array = |count| deep("[", count) + &deep("]", count);
    let due = r#""due": {"date": "2026-12-01"}"#;
    vec![
        bad("json", deep("[", MIB), "file", 1),
        bad("json", format!(r#"{{"todos":[{}]}}"#, array(MIB / 2)), "todos/0/todo", 1),
        bad("json", planned(&format!(r#""x": {}"#, array(1_000))), "todos/0/todo", 1),
        bad("microsoft", deep("{\"value\":[", MIB / 16), "file", 1),
        bad("google", deep("{\"items\":[", MIB / 16), "file", 1),
        bad("ics", calendar(&deep("BEGIN:X\r\n", 100_000)), "file", 7),
        bad(
            "json",
            planned(&format!(r#"{due}, "reminders": [{{"minutes_before": 1e999}}]"#)),
            "todos/0/todo",
            1,
        ),
        bad("json", planned(r#""created_at": "9999-12-31T23:59:59Z""#), "todos/0/created_at", 1),
        bad("todotxt", "a due:99999-12-01", "todos/0/due/date", 1),
        bad("todotxt", "a due:2026-12-01 rec:4294967295y", "todos/0/recurrence/rule", 1),
    ]
}

fn titles(todos: &[Value]) -> Vec<&str> {
    todos.iter().map(|todo| text(todo, "title")).collect()
}

on_every_target! {
    async fn a_hostile_file_is_rejected_with_its_line(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        for Bad { format, file, field, line } in [texts(), sizes(), depths()].concat() {
            assert!(file.len() <= 2 * MIB, "{format}: {}", file.len());
            let begin = String::from_utf8_lossy(&file[..file.len().min(60)]).into_owned();
            let began = Instant::now();
            let answer = import(&ann, &format!("format={format}"), media_type(format), &file).await;
            let took = began.elapsed();
            let problem = answer.problem(400, "validation_error");
            let first = &problem["details"][0];
            assert_eq!(
                (&first["field"], &first["line"]),
                (&json!(field), &json!(line)),
                "{format}: {begin}"
            );
            assert!(took < SOON, "{format}: {took:?} for {begin}");
        }
        assert_eq!(total(&ann).await, 0);
        let lists = ann.get(&format!("/api/users/{}/lists", ann.id())).await.expect(200);
        assert_eq!(lists["lists"], json!([]));
    }

    async fn line_ends_and_byte_order_marks_of_all_programs_are_read(target) {
        let app = App::start(target).await;
        let calendar = "BEGIN:VCALENDAR\nBEGIN:VTODO\nSUMMARY:a\nEND:VTODO\nBEGIN:VTODO\n\
            SUMMARY:b\nEND:VTODO\nEND:VCALENDAR\n";
        let files = [
            ("json", "{\"todos\": [\n{\"title\": \"a\"},\n{\"title\": \"b\"}\n]}\n"),
            ("csv", "title,description\na,\nb,\n"),
            ("todotxt", "a\n\nb\n"),
            ("ics", calendar),
            ("todoist", "TYPE,CONTENT,PRIORITY\ntask,a,4\ntask,b,4\n"),
        ];
        for (format, file) in files {
            let ann = app.signed_up().await;
            let crlf = file.replace('\n', "\r\n");
            for file in [file, &crlf, &format!("\u{feff}{file}"), &format!("\u{feff}{crlf}")] {
                let query = format!("format={format}");
                let report = import(&ann, &query, media_type(format), file.as_bytes()).await;
                let report = report.expect(200);
                assert_eq!(report["created"], 2, "{format}: {file:?}");
            }
            assert_eq!(titles(&listed(&ann).await), ["a", "b"].repeat(4), "{format}");
        }
    }

    /// A program for tables runs no cell; an import gives back what was there.
    async fn formulas_are_texts_in_a_table(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let begins = ["=", "+", "-", "@", "'=", "''@", "'", "\"=", " =", ",=", "|"];
        for begin in begins {
            let text = format!("{begin}cmd|' /C calc'!A0");
            let lists = format!("/api/users/{}/lists", ann.id());
            let list = ann.post(&lists, json!({"name": text})).await.expect(201);
            let tag = text.replace(',', ".");
            let todo = json!({
                "title": text, "description": format!("{text}\r\n=b\t"), "tags": [tag],
                "list_id": list["id"],
            });
            ann.post(&ann.todos(), todo).await.expect(201);
        }
        for description in ["\t=a", "\r=a", "\n=a", "\u{1}\u{b}\u{7f}\u{85}\u{2028}"] {
            let todo = json!({"title": "t", "description": description});
            ann.post(&ann.todos(), todo).await.expect(201);
        }
        let file = export(&ann, "?format=csv").await;
        let mut reader = csv::Reader::from_reader(&file.body[..]);
        for row in reader.records() {
            for cell in &row.expect("a row") {
                assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell:?}");
            }
        }
        import(&bob, "format=csv", CSV, &file.body).await.expect(200);
        assert_eq!(listed(&bob).await, listed(&ann).await);
        assert_eq!(export(&bob, "?format=csv").await.text(), file.text());
        for (format, members) in [
            ("json", &["title", "description", "tags"][..]),
            // A calendar has one kind of line break, and no control characters.
            ("ics", &["title", "tags"]),
            ("todotxt", &["priority"]),
        ] {
            let carl = app.signed_up().await;
            let file = export(&ann, &format!("?format={format}")).await;
            let media_type = file.header("content-type").expect("a type").to_owned();
            import(&carl, &format!("format={format}"), &media_type, &file.body).await.expect(200);
            let of = |todos: Vec<Value>| -> Vec<Value> {
                let part = |todo: Value| members.iter().map(|name| todo[*name].clone()).collect();
                todos.into_iter().map(part).collect()
            };
            assert_eq!(of(listed(&carl).await), of(listed(&ann).await), "{format}");
        }
    }

    async fn calendars_are_read_as_programs_fold_them(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        // Folded anywhere, also within a character; by a space or a tab; and not at all.
        let file = b"BEGIN:VCALENDAR\r\nBEGIN:VTODO\r\nUID:same\r\nSUM\r\n MARY:Caf\xc3\r\n \xa9 \
            \xf0\x9f\r\n\t\x98\x80\r\n\t end\r\nEND:VTODO\r\nBEGIN:VTODO\r\nUID:same\r\n\
            SUMMARY:twice\r\nEND:VTODO\r\nEND:VCALENDAR\r\n";
        let report = import(&ann, "format=ics", CALENDAR, file).await.expect(200);
        assert_eq!(report["created"], 2);
        assert_eq!(titles(&listed(&ann).await), ["Caf\u{e9} \u{1f600} end", "twice"]);
        // Both keep the UID that the file has.
        let calendar = export(&ann, "?format=ics").await.text();
        assert_eq!(calendar.matches("\r\nUID:same\r\n").count(), 2, "{calendar}");
        assert!(calendar.lines().all(|line| line.len() <= 75), "{calendar}");
        // A line in very many pieces, and very many todos with one UID.
        let pieces = calendar_of_pieces();
        import(&ann, "format=ics", CALENDAR, pieces.as_bytes()).await.expect(200);
        assert_eq!(total(&ann).await, 3);
    }
}

/// A calendar whose description is one character on each of very many lines.
fn calendar_of_pieces() -> String {
    calendar(&format!("SUMMARY:a\r\nDESCRIPTION:{}", "\r\n ".repeat(MIB / 2)))
}
