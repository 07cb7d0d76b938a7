//! The list route names the invalid parameters of a query and ignores unknown ones.

use serde_json::{Value, json};
use todo_tests::{App, on_every_target};

use super::{invalid, list, titles};

on_every_target! {
    async fn all_invalid_parameters_are_named(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let cases: &[(&str, &[&str])] = &[
            ("status=done", &["status"]),
            ("status=", &["status"]),
            ("status=ALL", &["status"]),
            ("status=%20all", &["status"]),
            ("sort_by=name", &["sort_by"]),
            ("sort_by=", &["sort_by"]),
            ("order=up", &["order"]),
            ("order=", &["order"]),
            ("limit=0", &["limit"]),
            ("limit=501", &["limit"]),
            ("limit=abc", &["limit"]),
            ("limit=-1", &["limit"]),
            ("limit=1.5", &["limit"]),
            ("limit=", &["limit"]),
            ("limit=18446744073709551617", &["limit"]),
            ("limit=99999999999999999999999999999999999999999", &["limit"]),
            ("cursor=", &["cursor"]),
            ("cursor=nonsense", &["cursor"]),
            ("cursor=%F0%9F%98%80", &["cursor"]),
            ("status=all&status=pending", &["status"]),
            ("status=all&status=all", &["status"]),
            ("sort_by=title&sort_by=title", &["sort_by"]),
            ("order=asc&order=desc", &["order"]),
            ("limit=1&limit=2", &["limit"]),
            ("status=x&sort_by=y&order=z&limit=0", &["status", "sort_by", "order", "limit"]),
            ("order=z&limit=x&foo=1", &["order", "limit"]),
            ("tag=", &["tag"]),
            ("tag=a&tag=b,c", &["tag"]),
            ("any_tag=a%09b", &["any_tag"]),
            ("due=soon", &["due"]),
            ("due=any&due=none", &["due"]),
            ("due_before=2026-13-01", &["due_before"]),
            ("due_before=2026-12-01T09:30", &["due_before"]),
            ("due_after=2026-12-01T09:30:00+01:00", &["due_after"]),
            ("due_after=", &["due_after"]),
            ("due_before=2026-12-01&due_before=2026-12-02", &["due_before"]),
            ("time_zone=Mars/Olympus", &["time_zone"]),
            ("list=x", &["list"]),
            ("list=inbox&list=inbox", &["list"]),
            ("q=", &["q"]),
            ("q=%22%20%22%22", &["q"]),
            ("q=1+2+3+4+5+6+7+8+9", &["q"]),
            ("q=a%00b", &["q"]),
            ("q=a&q=b", &["q"]),
            ("include_total=no", &["include_total"]),
            ("due=x&list=y&tag=,&limit=0", &["tag", "due", "list", "limit"]),
        ];
        let long = format!("{}?q={}", ann.todos(), "x".repeat(201));
        invalid(ann.get(&long).await, "a long search", &["q"]);
        let many = format!("{}?{}", ann.todos(), "tag=a&".repeat(21));
        invalid(ann.get(&many).await, "many tags", &["tag"]);

        for (query, names) in cases {
            let answer = ann.get(&format!("{}?{query}", ann.todos())).await;
            invalid(answer, query, names);
        }
        for query in ["status=%zz", "status=%ff", "order=%"] {
            let answer = ann.get(&format!("{}?{query}", ann.todos())).await;
            assert_eq!(answer.status, 400, "{query}");
        }
    }

    async fn unknown_parameters_are_ignored(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        ann.todo("a").await;
        let plain = ann.get(&ann.todos()).await.expect(200);
        for query in ["", "page=2", "page=1&page=2", "Status=done", "x", "&&", "limits=0", "=1"] {
            assert_eq!(list(&ann, query).await, plain, "{query}");
        }
        assert_eq!(list(&ann, "status=%61ll&%6frder=desc").await, plain, "percent-encoded");
    }

    async fn limits_are_1_to_500(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        for title in ["a", "b"] {
            ann.todo(title).await;
        }
        let one = list(&ann, "limit=1").await;
        assert_eq!((titles(&one), &one["total"]), (vec!["b"], &json!(2)));
        let most = list(&ann, "limit=500").await;
        assert_eq!((titles(&most), &most["next_cursor"]), (vec!["b", "a"], &Value::Null));
        let exact = list(&ann, "limit=2").await;
        assert_eq!((titles(&exact), &exact["next_cursor"]), (vec!["b", "a"], &Value::Null));
    }
}
