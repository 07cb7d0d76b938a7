//! Todos in files: what is exported comes back, files of other programs are read, and a wrong todo
//! is named by its line.

mod hostile;
mod quotas;
mod rows;

use serde_json::{Value, json};
use todo_tests::{Actor, App, TestResponse, at_once, count_rows, execute_sql, on_every_target};

use crate::text;

const JSON: &str = "application/json";
/// The formats of other programs, with a file of each, its media type, and the lines of errors.
const FILES: [(&str, &str, &[u8], &[u64]); 6] = [
    ("todoist", "text/csv", include_bytes!("../../fixtures/import/todoist.csv"), &[10]),
    ("google", JSON, include_bytes!("../../fixtures/import/google.json"), &[33]),
    ("microsoft", JSON, include_bytes!("../../fixtures/import/microsoft.json"), &[51]),
    ("todotxt", "text/plain", include_bytes!("../../fixtures/import/todo.txt"), &[6]),
    ("ics", "text/calendar", include_bytes!("../../fixtures/import/tasks.ics"), &[50, 50]),
    ("csv", "text/csv", include_bytes!("../../fixtures/import/todos.csv"), &[4, 4, 4, 4]),
];

async fn export(actor: &Actor, query: &str) -> TestResponse {
    actor.get(&format!("/api/users/{}/export{query}", actor.id())).await
}

async fn import(actor: &Actor, query: &str, media_type: &str, file: &[u8]) -> TestResponse {
    import_with(actor, query, &[("content-type", media_type)], file).await
}

async fn import_with(
    actor: &Actor,
    query: &str,
    headers: &[(&str, &str)],
    file: &[u8],
) -> TestResponse {
    actor.send("POST", &format!("/api/users/{}/import?{query}", actor.id()), headers, file).await
}

/// Imports the JSON of this API.
async fn import_json(actor: &Actor, file: &Value) -> TestResponse {
    import(actor, "format=json", JSON, file.to_string().as_bytes()).await
}

async fn total(actor: &Actor) -> Value {
    actor.get(&actor.todos()).await.expect(200)["total"].clone()
}

/// The list without what belongs to an account.
async fn listed(actor: &Actor) -> Vec<Value> {
    let mut list = actor.get(&format!("{}?order=asc", actor.todos())).await.expect(200);
    let todos = list["todos"].as_array_mut().expect("todos");
    for todo in todos.iter_mut() {
        for name in ["id", "user_id", "list_id"] {
            todo[name].take();
        }
    }
    std::mem::take(todos)
}

/// Creates todos with all that they can have.
async fn plan(app: &App, ann: &Actor) {
    for number in 0..7 {
        let body = json!({
            "title": format!("=Caf\u{e9} \u{1f600} {number}, \"x\""),
            "description": if number % 2 == 0 { json!("a\r\n'=b\t") } else { json!(null) },
            "priority": (["low", "medium", "high"][number % 3]),
            "tags": ["a b", "\u{e9}", format!("{number}")],
            "due": match number % 3 {
                0 => json!({"date": "2026-12-01"}),
                1 => json!({"date": "2026-12-01", "time": "09:30", "time_zone": "Europe/Berlin"}),
                _ => json!(null),
            },
            "recurrence": if number == 1 {
                json!({"rule": "FREQ=WEEKLY", "from": "completion"})
            } else {
                json!(null)
            },
            "reminders": if number == 0 {
                json!([{"minutes_before": 0}, {"minutes_before": 60}])
            } else {
                json!([])
            },
        });
        let todo = ann.post(&ann.todos(), body).await.expect(201);
        if number > 4 {
            let path = format!("{}/{}/complete", ann.todos(), text(&todo, "id"));
            ann.patch(&path, json!({"completed": true})).await.expect(200);
        }
    }
    // As a client of lists and of the manual order leaves them.
    execute_sql(app.database_url(), "UPDATE todos SET position = '80' WHERE title LIKE '%3, %'")
        .await;
    execute_sql(app.database_url(), "UPDATE todos SET ical = 'X-A:b' WHERE title LIKE '%4, %'")
        .await;
}

on_every_target! {
    async fn what_is_exported_as_json_comes_back_byte_for_byte(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        plan(&app, &ann).await;
        let listed_file = json!({
            "lists": [{"name": "Home", "color": "#ff8800"}, {"name": "Empty", "color": null}],
            "todos": [{"title": "In a list", "list": "Home"}, {"title": "In another", "list": "Work"}],
        });
        let report = import_json(&ann, &listed_file).await.expect(200);
        assert_eq!(report["lists"], json!(["Home", "Empty", "Work"]));
        let file = export(&ann, "").await;
        assert_eq!(file.status, 200);
        assert_eq!(file.header("content-type"), Some(JSON));
        assert_eq!(file.header("cache-control"), Some("no-store"));
        let disposition = file.header("content-disposition");
        assert_eq!(disposition, Some("attachment; filename=\"todos.json\""));
        let members = file.json();
        assert_eq!(members["todos"].as_array().map(Vec::len), Some(9));
        assert_eq!(members["lists"].as_array().map(Vec::len), Some(3));
        assert_eq!(members["todos"][3]["position"], "80");
        assert_eq!(members["todos"][4]["ical"], "X-A:b");
        // A todo is on a line of its own.
        assert_eq!(file.text().lines().count(), 11);

        let report = import(&bob, "format=json", JSON, &file.body).await.expect(200);
        let expected = json!({
            "dry_run": false, "created": 9, "invalid": 0, "trashed": 0,
            "lists": ["Home", "Empty", "Work"], "errors": [],
        });
        assert_eq!(report, expected);
        assert_eq!(export(&bob, "").await.text(), file.text());
        assert_eq!(listed(&bob).await, listed(&ann).await);
        // Derived rows have been kept.
        for table in ["tags", "todo_tags", "list_counts"] {
            let sql = format!("SELECT count(*) FROM {table} WHERE pending > 0");
            let sql = if table == "todo_tags" { "SELECT count(*) FROM todo_tags".to_owned() } else { sql };
            assert!(count_rows(app.database_url(), &sql).await > 0, "{table}");
        }
        let unfolded = "SELECT count(*) FROM todos WHERE search IS NULL";
        assert_eq!(count_rows(app.database_url(), unfolded).await, 0);
        // They can be changed as others.
        let list = bob.get(&bob.todos()).await.expect(200);
        let path = format!("{}/{}", bob.todos(), text(&list["todos"][0], "id"));
        bob.patch(&path, json!({"title": "changed"})).await.expect(200);
        bob.delete(&path).await.expect(200);
    }

    async fn every_format_of_an_export_can_be_imported(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        plan(&app, &ann).await;
        for (format, media_type, exact) in [
            ("csv", "text/csv; charset=utf-8; header=present", true),
            ("ics", "text/calendar; charset=utf-8", false),
            ("todotxt", "text/plain; charset=utf-8", false),
        ] {
            let bob = app.signed_up().await;
            let file = export(&ann, &format!("?format={format}")).await;
            assert_eq!((file.status, file.header("content-type")), (200, Some(media_type)));
            let query = format!("format={format}");
            let report = import(&bob, &query, media_type, &file.body).await.expect(200);
            assert_eq!(report["created"], 7, "{format}");
            let (anns, bobs) = (listed(&ann).await, listed(&bob).await);
            if exact {
                assert_eq!(anns, bobs, "{format}");
            }
            for (ann, bob) in anns.iter().zip(&bobs) {
                for name in ["priority", "completed", "tags", "due", "recurrence", "reminders"] {
                    assert_eq!(ann[name], bob[name], "{format}: {name} of {ann}");
                }
            }
        }
        let empty = app.signed_up().await;
        let file = export(&empty, "").await;
        assert_eq!(file.expect(200)["todos"], json!([]));
        let file = export(&empty, "?format=ics").await;
        let report = import(&ann, "format=ics", "text/calendar", &file.body).await.expect(200);
        assert_eq!(report["created"], 0);
    }

    async fn the_trash_is_exported_as_json_and_not_imported(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        ann.todo("kept").await;
        let todo = ann.todo("deleted").await;
        ann.delete(&format!("{}/{}", ann.todos(), text(&todo, "id"))).await.expect(200);
        assert_eq!(export(&ann, "").await.expect(200).get("trash"), None);
        let file = export(&ann, "?trash=true").await;
        let members = file.json();
        assert_eq!(members["trash"][0]["title"], "deleted");
        assert!(members["trash"][0]["deleted_at"].is_string());
        let report = import(&ann, "format=json", JSON, &file.body).await.expect(200);
        assert_eq!((&report["created"], &report["trashed"]), (&json!(1), &json!(1)));
        assert_eq!(total(&ann).await, 2);
        for query in ["?trash=true&format=csv", "?trash=1", "?format=xml", "?format="] {
            export(&ann, query).await.problem(400, "validation_error");
        }
    }

    async fn files_of_other_programs_are_read_and_errors_have_their_lines(target) {
        let app = App::start(target).await;
        for (format, media_type, file, lines) in FILES {
            let ann = app.signed_up().await;
            let query = format!("format={format}");
            let rejected = import(&ann, &query, media_type, file).await;
            let problem = rejected.problem(400, "validation_error");
            let details = problem["details"].as_array().expect("details");
            let found: Vec<_> = details.iter().map(|one| one["line"].as_u64().expect("a line")).collect();
            assert_eq!(found, lines, "{format}");
            assert_eq!(problem["invalid"], 1, "{format}");
            assert_eq!(total(&ann).await, 0, "{format}: something was created");

            let dry = format!("{query}&skip_invalid=true&dry_run=true");
            let dry = import(&ann, &dry, media_type, file).await.expect(200);
            assert_eq!(total(&ann).await, 0, "{format}: something was created");
            let skip = format!("{query}&skip_invalid=true");
            let report = import(&ann, &skip, media_type, file).await.expect(200);
            assert_eq!(report["dry_run"], false);
            for name in ["created", "invalid", "lists", "errors"] {
                assert_eq!(report[name], dry[name], "{format}: {name}");
            }
            assert_eq!(report["invalid"], 1, "{format}");
            assert_eq!(total(&ann).await, report["created"], "{format}");
            let lists = export(&ann, "").await.expect(200)["lists"].clone();
            let names: Vec<_> = lists.as_array().expect("lists").iter().map(|l| l["name"].clone()).collect();
            assert_eq!(json!(names), report["lists"], "{format}");
        }
    }

    async fn unknown_properties_of_calendars_survive(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let file = FILES[4].2;
        let query = "format=ics&skip_invalid=true";
        import(&ann, query, "text/calendar", file).await.expect(200);
        let json = export(&ann, "").await;
        import(&bob, "format=json", JSON, &json.body).await.expect(200);
        let calendar = export(&bob, "?format=ics").await.text();
        for line in [
            "UID:20261101T080000Z-1@example.org",
            "X-APPLE-SORT-ORDER:664812000",
            "GEO:52.5;13.4",
            "ATTENDEE:mailto:ann@example.org",
            "PRIORITY:3",
            "STATUS:IN-PROCESS",
        ] {
            assert!(calendar.contains(&format!("\r\n{line}\r\n")), "{line}: {calendar}");
        }
        // A file cannot end its todo, or have two of a property.
        for ical in ["END:VTODO", "SUMMARY:x", "X-A:b\r\nX-C:d", "x"] {
            let file = json!({"todos": [{"title": "a", "ical": ical}]});
            let rejected = import_json(&ann, &file).await;
            rejected.problem(400, "validation_error");
        }
    }

    async fn a_bad_request_of_an_import_is_an_error(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let good = br#"{"todos": [{"title": "a"}]}"#;
        for query in [
            "", "format=xml", "format=json&format=csv", "format=json&dry_run=1",
            "format=json&skip_invalid=", "format=json&time_zone=Mars",
        ] {
            import(&ann, query, JSON, good).await.problem(400, "validation_error");
        }
        for (format, media_type) in [
            ("json", "text/csv"), ("csv", JSON), ("ics", "text/plain"), ("todotxt", "text/html"),
            ("json", "application/x-www-form-urlencoded"), ("json", ""),
        ] {
            let answer = import(&ann, &format!("format={format}"), media_type, good).await;
            answer.problem(415, "unsupported_media_type");
        }
        let coded = [("content-type", JSON), ("content-encoding", "gzip")];
        import_with(&ann, "format=json", &coded, good).await.problem(415, "unsupported_media_type");
        import_with(&ann, "format=json", &[], good).await.problem(415, "unsupported_media_type");
        import(&ann, "format=json", "application/octet-stream", good).await.expect(200);
        for bad in ["", "{", "[]", "{}", "{\"todos\": 1}", "\u{0}"] {
            let rejected = import(&ann, "format=json", JSON, bad.as_bytes()).await;
            assert_eq!(rejected.fields(), ["file"], "{bad}");
            rejected.problem(400, "validation_error");
        }
        let large = vec![b' '; (2 << 20) + 1];
        import(&ann, "format=json", JSON, &large).await.problem(413, "content_too_large");
        let many = "a\n".repeat(5001);
        let rejected = import(&ann, "format=todotxt", "text/plain", many.as_bytes()).await;
        let problem = rejected.problem(400, "validation_error");
        assert_eq!(problem["details"][0]["line"], 5001);
        let bobs = format!("/api/users/{}/import?format=json", bob.id());
        ann.send("POST", &bobs, &[("content-type", JSON)], good).await.problem(403, "forbidden");
        let bobs = format!("/api/users/{}/export", bob.id());
        ann.get(&bobs).await.problem(403, "forbidden");
        assert_eq!(total(&ann).await, 1);
        ann.post("/api/auth/logout", Value::Null).await.expect(200);
        export(&ann, "").await.problem(401, "unauthorized");
        import(&ann, "format=json", JSON, good).await.problem(401, "unauthorized");
    }

    async fn a_repeated_import_with_a_key_creates_nothing(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let file = "a list:b\n".repeat(1200);
        let headers = [("content-type", "text/plain"), ("idempotency-key", "k")];
        let query = "format=todotxt";
        let first = import_with(&ann, query, &headers, file.as_bytes()).await;
        assert_eq!(first.header("idempotency-replayed"), None);
        let second = import_with(&ann, query, &headers, file.as_bytes()).await;
        assert_eq!(second.header("idempotency-replayed"), Some("true"));
        assert_eq!(first.text(), second.text());
        assert_eq!((&first.json()["created"], total(&ann).await), (&json!(1200), json!(1200)));
        // Another file, or another way to read it.
        let other = import_with(&ann, query, &headers, b"b").await;
        other.problem(422, "idempotency_mismatch");
        let skip = format!("{query}&skip_invalid=true");
        let other = import_with(&ann, &skip, &headers, file.as_bytes()).await;
        other.problem(422, "idempotency_mismatch");
        // The key of one user is free for another.
        import_with(&bob, query, &headers, file.as_bytes()).await.expect(200);

        // As after a crash between the pieces: the last one, with the answer, is missing.
        let url = app.database_url();
        execute_sql(url, "DELETE FROM idempotency WHERE key IN ('k', 'k 2')").await;
        let is_last = "SELECT count(*) FROM idempotency WHERE key LIKE 'k %'";
        assert_eq!(count_rows(url, is_last).await, 4);
        let resumed = import_with(&ann, query, &headers, file.as_bytes()).await.expect(200);
        assert_eq!((&resumed["created"], total(&ann).await), (&json!(1200), json!(1400)));

        // Without a key, it is another import.
        import(&ann, query, "text/plain", b"c").await.expect(200);
        import(&ann, query, "text/plain", b"c").await.expect(200);
        assert_eq!(total(&ann).await, 1402);
    }

    async fn imports_with_one_key_at_once_create_each_todo_once(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let file = "a\n".repeat(700);
        let answers = at_once(4, |_| {
            let (ann, file) = (ann.clone(), file.clone());
            async move {
                let headers = [("content-type", "text/plain"), ("idempotency-key", "k")];
                import_with(&ann, "format=todotxt", &headers, file.as_bytes()).await
            }
        })
        .await;
        for answer in &answers {
            assert!([200, 409].contains(&answer.status), "{answer}");
        }
        let headers = [("content-type", "text/plain"), ("idempotency-key", "k")];
        import_with(&ann, "format=todotxt", &headers, file.as_bytes()).await.expect(200);
        assert_eq!(total(&ann).await, 700);
    }
}
