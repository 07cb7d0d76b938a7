//! Wrong todos of a file: each is named by the line on which it begins, with every field that is
//! wrong, in every format.

use serde_json::{Value, json};
use todo_tests::{App, on_every_target};

use super::{JSON, import, total};

const OUR_JSON: &str = r#"{"version": 1, "lists": [
{"name": ""}
], "todos": [
{"title": "good"},
{"title": " ", "description": 1, "priority": "urgent", "tags": ["a,b", "\u0007"]},
{"title": "a", "due": {"date": "2026-02-30"}, "recurrence": {"rule": "FREQ=HOURLY"}},

{"title": "a", "due": {"date": "2026-12-01", "time": "09:30"}},
{"title": "a", "recurrence": {"rule": "FREQ=DAILY", "from": "birth"}, "reminders": [1]},
{
  "title": "a", "reminders": [{"minutes_before": 40321}], "list": "\n",
  "due": {"date": "2026-12-01"}, "position": "zz", "ical": "END:VTODO"
}, {"title": "a", "created_at": "yesterday", "updated_at": "1969-12-31T23:59:59Z"},
1,
{"title": "good too"}
]}"#;
const OUR_CSV: &str = "title,description,priority,tags,due_date,due_time,recurrence,reminders,\
    list,created_at\r\n\
    good,,,,,,,,,\r\n\
    \"a\n\nb\",,urgent,\"a,\u{7}\",,,,,,\r\n\
    \r\n\
    a,\"two\nlines\",,,2026-02-30,,,,,\r\n\
    a,,,,2026-12-01,09:30,,,,\r\n\
    a,,,,,,FREQ=DAILY,\"x,1\",,yesterday\r\n\
    good too\r\n";
const TODOTXT: &str = "good\n\
    @tag\n\
    \n\
    a @a,b due:2026-02-30\n\
    a due:2026-12-01T09:30 tz:Mars rec:x remind:x\n\
    a rrule:FREQ=DAILY list:%0A\n\
    2099-01-01 a\n\
    good too";
const ICS: &str = "BEGIN:VCALENDAR\n\
    BEGIN:VTODO\nSUMMARY:good\nEND:VTODO\n\
    BEGIN:VTODO\nPRIORITY:10\nDUE:tomorrow\nEND:VTODO\n\
    BEGIN:VTODO\nSUMMARY:a\nDUE;TZID=Mars:20261201T093000\nRRULE:FREQ=DAILY;COUNT=0\n\
    CREATED:20990101T000000Z\nEND:VTODO\n\
    BEGIN:VEVENT\nSUMMARY:x\nEND:VEVENT\n\
    BEGIN:VTODO\nSUMMARY:good \n too\nEND:VTODO\n\
    END:VCALENDAR\n";
const TODOIST: &str = "TYPE,CONTENT,PRIORITY,DATE,TIMEZONE\n\
    task,good,4,,\n\
    section,\"\u{7}\",,,\n\
    task,,9,whenever,\n\
    section,,,,\n\
    task,good too,1,,\n";
const MICROSOFT: &str = r#"{"value": [
{"title": "good", "status": "notStarted"},
{"title": "", "status": "lost", "importance": "none"},
{"title": "a", "dueDateTime": {"dateTime": "whenever", "timeZone": "UTC"}},
{"title": "good too", "status": "completed"}
]}"#;
const GOOGLE: &str = r#"{"items": [{"title": "\u0007", "items": [
{"title": "a"}
]}, {"title": "List", "items": [
{"title": "good"},
{"title": "", "status": "lost", "due": "whenever"},
[],
{"title": "good too"}
]}]}"#;

/// Files with two good todos, and the lines, fields and codes of their errors.
const FILES: [(&str, &str, &str, &[&str]); 7] = [
    (
        "json",
        JSON,
        OUR_JSON,
        &[
            "2 lists/0/name blank",
            "5 todos/1/description wrong_type",
            "5 todos/1/priority invalid",
            "5 todos/1/title blank",
            "5 todos/1/tags/0 comma",
            "5 todos/1/tags/1 control",
            "6 todos/2/due/date invalid",
            "6 todos/2/recurrence/rule invalid",
            "8 todos/3/due/time_zone missing",
            "9 todos/4/recurrence/from invalid",
            "9 todos/4/reminders wrong_type",
            "9 todos/4/recurrence needs_due",
            "10 todos/5/reminders/0/minutes_before out_of_range",
            "10 todos/5/list blank",
            "10 todos/5/position invalid",
            "10 todos/5/ical invalid",
            "13 todos/6/created_at invalid",
            "13 todos/6/updated_at out_of_range",
            "14 todos/7/todo wrong_type",
        ],
    ),
    (
        "csv",
        "text/csv",
        OUR_CSV,
        &[
            "3 todos/1/priority invalid",
            "3 todos/1/tags/1 control",
            "7 todos/2/due/date invalid",
            "9 todos/3/due/time_zone missing",
            "10 todos/4/reminders invalid",
            "10 todos/4/created_at invalid",
            "10 todos/4/recurrence needs_due",
            "10 todos/4/reminders needs_due",
        ],
    ),
    (
        "todotxt",
        "text/plain",
        TODOTXT,
        &[
            "2 todos/1/title blank",
            "4 todos/2/due/date invalid",
            "4 todos/2/tags/0 comma",
            "5 todos/3/recurrence/rule invalid",
            "5 todos/3/reminders invalid",
            "5 todos/3/due/time_zone invalid",
            "6 todos/4/recurrence needs_due",
            "6 todos/4/list blank",
            "7 todos/5/created_at out_of_range",
        ],
    ),
    (
        "ics",
        "text/calendar",
        ICS,
        &[
            "5 todos/1/priority invalid",
            "5 todos/1/due invalid",
            "5 todos/1/title blank",
            "9 todos/2/due/time_zone invalid",
            "9 todos/2/recurrence/rule invalid",
            "9 todos/2/created_at out_of_range",
        ],
    ),
    (
        "todoist",
        "text/csv",
        TODOIST,
        &[
            "4 todos/1/priority invalid",
            "4 todos/1/due invalid",
            "4 todos/1/title blank",
            "4 todos/1/list control",
        ],
    ),
    (
        "microsoft",
        JSON,
        MICROSOFT,
        &["3 todos/1/importance invalid", "3 todos/1/title blank", "4 todos/2/due invalid"],
    ),
    (
        "google",
        JSON,
        GOOGLE,
        &[
            "2 todos/0/list control",
            "5 todos/2/status invalid",
            "5 todos/2/due invalid",
            "5 todos/2/title blank",
            "6 todos/3/todo wrong_type",
        ],
    ),
];

/// The errors as `<line> <field> <code>`.
fn errors(errors: &Value) -> Vec<String> {
    let errors = errors.as_array().expect("errors").iter();
    let text = |error: &Value| {
        let [field, code] = ["field", "code"].map(|name| error[name].as_str().expect("a text"));
        format!("{} {field} {code}", error["line"])
    };
    errors.map(text).collect()
}

on_every_target! {
    async fn every_error_has_its_line_and_its_field(target) {
        let app = App::start(target).await;
        for (format, media_type, file, expected) in FILES {
            let ann = app.signed_up().await;
            let query = format!("format={format}");
            let rejected = import(&ann, &query, media_type, file.as_bytes()).await;
            let problem = rejected.problem(400, "validation_error");
            assert_eq!(errors(&problem["details"]), expected, "{format}");
            let skip = format!("{query}&skip_invalid=true");
            let report = import(&ann, &skip, media_type, file.as_bytes()).await.expect(200);
            assert_eq!(errors(&report["errors"]), expected, "{format}");
            assert_eq!(report["invalid"], problem["invalid"], "{format}");
            let list = ann.get(&format!("{}?order=asc", ann.todos())).await.expect(200);
            let todos = list["todos"].as_array().expect("todos").iter();
            let titles: Vec<_> = todos.map(|todo| &todo["title"]).collect();
            assert_eq!(titles, ["good", "good too"], "{format}");
            assert_eq!(report["created"], 2, "{format}");
        }
    }

    async fn an_answer_has_the_first_hundred_errors_and_the_number_of_all(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let wrong = "a due:2026-02-30\n".repeat(4_999) + "good\n";
        let rejected = import(&ann, "format=todotxt", "text/plain", wrong.as_bytes()).await;
        let problem = rejected.problem(400, "validation_error");
        let lines: Vec<_> = errors(&problem["details"]);
        assert_eq!((lines.len(), &problem["invalid"]), (100, &json!(4_999)));
        assert_eq!(lines[99], "100 todos/99/due/date invalid");
        let query = "format=todotxt&skip_invalid=true";
        let report = import(&ann, query, "text/plain", wrong.as_bytes()).await.expect(200);
        assert_eq!((&report["created"], &report["invalid"]), (&json!(1), &json!(4_999)));
        assert_eq!(total(&ann).await, 1);
    }
}
