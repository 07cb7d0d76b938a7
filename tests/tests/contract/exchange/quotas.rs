//! The quotas of an import: of todos, tags, lists and reminders, also with two imports at once.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};
use todo_tests::{Actor, App, TestResponse, at_once, count_rows, eventually, on_every_target};

use super::{import, import_json, total};

const TEXT: &str = "text/plain";

/// A file in which each of so many todos has the word that `word` makes of its number.
fn numbered(numbers: std::ops::Range<usize>, word: impl Fn(usize) -> String) -> String {
    numbers.fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "a {}", word(number));
        text
    })
}

/// Imports two files of so many numbered todos at once; both keep the quota alone.
async fn import_both(ann: &Actor, count: usize, word: fn(usize) -> String) -> Vec<TestResponse> {
    at_once(2, |half| {
        let (ann, file) = (ann.clone(), numbered(half * count..(half + 1) * count, word));
        async move { import(&ann, "format=todotxt", TEXT, file.as_bytes()).await }
    })
    .await
}

/// A todo of a file that was last changed in 2020.
fn planned(due: Value, reminders: &[u32], completed: bool) -> Value {
    let reminders: Vec<_> = reminders.iter().map(|m| json!({"minutes_before": m})).collect();
    json!({
        "title": "t", "due": due, "reminders": reminders, "completed": completed,
        "created_at": "2020-01-01T00:00:00Z", "updated_at": "2020-01-01T00:00:00Z",
    })
}

on_every_target! {
    async fn an_import_beyond_a_quota_creates_nothing(target) {
        let app = App::start_with(target, &[("MAX_TODOS_PER_USER", "1001")]).await;
        let ann = app.signed_up().await;
        ann.todo("one").await;
        let file = |count: usize| "a\n".repeat(count);
        let rejected = import(&ann, "format=todotxt", "text/plain", file(1001).as_bytes()).await;
        let problem = rejected.problem(409, "quota_exceeded");
        assert_eq!((&problem["limit"], &problem["used"]), (&json!(1001), &json!(1)));
        let tagged: String = (0..501).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "a @t{number}");
            text
        });
        let rejected = import(&ann, "format=todotxt", "text/plain", tagged.as_bytes()).await;
        assert_eq!(rejected.problem(409, "quota_exceeded")["limit"], 500);
        let listed: String = (0..201).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "a list:l{number}");
            text
        });
        let rejected = import(&ann, "format=todotxt", "text/plain", listed.as_bytes()).await;
        assert_eq!(rejected.problem(409, "quota_exceeded")["limit"], 200);
        assert_eq!(total(&ann).await, 1);
        assert_eq!(count_rows(app.database_url(), "SELECT count(*) FROM lists").await, 0);
        import(&ann, "format=todotxt", "text/plain", file(1000).as_bytes()).await.expect(200);
        assert_eq!(total(&ann).await, 1001);
    }

    async fn two_imports_at_once_keep_the_quota_of_todos(target) {
        let app = App::start_with(target, &[("MAX_TODOS_PER_USER", "700")]).await;
        for _ in 0..3 {
            let ann = app.signed_up().await;
            let answers = import_both(&ann, 400, |_| String::new()).await;
            let total = total(&ann).await.as_u64().expect("a number");
            // The later one may be beyond the quota after its first piece, which fits in.
            assert!((400..=700).contains(&total), "{total}");
            for answer in answers {
                match answer.status {
                    200 => assert_eq!(answer.json()["created"], 400),
                    _ => { answer.problem(409, "quota_exceeded"); }
                }
            }
        }
    }

    async fn two_imports_at_once_keep_the_quota_of_tags(target) {
        let app = App::start(target).await;
        for _ in 0..3 {
            let ann = app.signed_up().await;
            let answers = import_both(&ann, 300, |number| format!("@t{number}")).await;
            let path = format!("/api/users/{}/tags", ann.id());
            let tags = ann.get(&path).await.expect(200)["tags"].as_array().map(Vec::len);
            assert_eq!((tags, total(&ann).await), (Some(300), json!(300)));
            for answer in answers.into_iter().filter(|answer| answer.status != 200) {
                assert_eq!(answer.problem(409, "quota_exceeded")["limit"], 500);
            }
        }
    }

    async fn two_imports_at_once_keep_the_quota_of_lists(target) {
        let app = App::start(target).await;
        for _ in 0..3 {
            let ann = app.signed_up().await;
            let answers = import_both(&ann, 150, |number| format!("list:l{number}")).await;
            let path = format!("/api/users/{}/lists", ann.id());
            let lists = ann.get(&path).await.expect(200)["lists"].as_array().map(Vec::len);
            assert_eq!((lists, total(&ann).await), (Some(150), json!(150)));
            for answer in answers.into_iter().filter(|answer| answer.status != 200) {
                assert_eq!(answer.problem(409, "quota_exceeded")["limit"], 200);
            }
        }
    }

    /// Two imports that create the same lists at once create each of them once.
    async fn two_imports_at_once_share_their_lists(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let answers = at_once(4, |_| {
            let (ann, file) = (ann.clone(), numbered(0..50, |number| format!("list:l{number}")));
            async move { import(&ann, "format=todotxt", TEXT, file.as_bytes()).await }
        })
        .await;
        for answer in answers {
            answer.expect(200);
        }
        let path = format!("/api/users/{}/lists", ann.id());
        let lists = ann.get(&path).await.expect(200)["lists"].clone();
        let lists = lists.as_array().expect("lists");
        assert_eq!((lists.len(), total(&ann).await), (50, json!(200)));
        assert!(lists.iter().all(|list| list["pending"] == 4), "{lists:?}");
    }

    async fn an_import_keeps_the_quota_of_reminders(target) {
        let app = App::start_with(target, &[("MAX_REMINDERS_PER_USER", "4")]).await;
        let ann = app.signed_up().await;
        let (past, future) = (json!({"date": "2021-06-01"}), json!({"date": "2999-06-01"}));
        let file = |due: &Value, completed| {
            json!({"todos": [planned(due.clone(), &[0, 1, 2], completed)]})
        };
        import_json(&ann, &file(&future, false)).await.expect(200);
        let rejected = import_json(&ann, &file(&future, false)).await;
        let problem = rejected.problem(409, "quota_exceeded");
        assert_eq!((&problem["limit"], &problem["used"]), (&json!(4), &json!(3)));
        assert_eq!(total(&ann).await, 1);
        // They never fire.
        import_json(&ann, &file(&future, true)).await.expect(200);
        for _ in 0..2 {
            import_json(&ann, &file(&past, false)).await.expect(200);
        }
        let one = json!({"todos": [planned(future.clone(), &[0], false)]});
        import_json(&ann, &one).await.expect(200);
        let bob = app.signed_up().await;
        let answers = at_once(2, |_| {
            let (bob, file) = (bob.clone(), file(&future, false));
            async move { import_json(&bob, &file).await.status }
        })
        .await;
        assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
    }

    /// Of a todo that was last changed long ago, the reminders whose time is past do not fire.
    async fn an_import_does_not_fire_the_reminders_of_the_past(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let timed = |date| json!({"date": date, "time": "09:00", "time_zone": "UTC"});
        let file = json!({"todos": [
            planned(timed("2021-06-01"), &[0, 1], false),
            planned(json!({"date": "2021-06-01"}), &[0, 1], false),
            planned(timed("2999-06-01"), &[0], false),
            planned(json!({"date": "2999-06-01"}), &[0], false),
        ]});
        import_json(&ann, &file).await.expect(200);
        let url = app.database_url();
        let count = async |condition: &str| {
            count_rows(url, &format!("SELECT count(*) FROM reminders WHERE {condition}")).await
        };
        // A job computes the time of a day.
        let timeless = async || count("fire_at IS NULL").await;
        let is_settled = eventually(Duration::from_secs(20), async || timeless().await == 0).await;
        assert!(is_settled, "{} have no time", timeless().await);
        assert_eq!((count("fired_at IS NOT NULL").await, count("fired_at IS NULL").await), (0, 2));
    }
}
