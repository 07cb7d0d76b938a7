//! The instants of due times, after a change of the time zone database.

use serde_json::json;
use todo_core::{
    Core, Secret,
    auth::Caller,
    testing::time_zone_version,
    todos::{self, Todo, TodoId, update_due_times},
};
use todo_tests::{App, Database, Server, Target, execute_sql};

on_both_databases! {
    async fn due_times_follow_the_time_zone_database(database) {
        let mut app = App::start(Target { server: Server::Hyper, database }).await;
        let ann = app.signed_up().await;
        let mut ids: Vec<TodoId> = Vec::new();
        for due in [
            json!({"date": "2090-07-01", "time": "09:30", "time_zone": "Europe/Berlin"}),
            json!({"date": "2090-07-01", "time": "09:30", "time_zone": "Asia/Tokyo"}),
            json!({"date": "2020-07-01", "time": "09:30", "time_zone": "Asia/Tokyo"}),
            json!({"date": "2090-07-01"}),
        ] {
            let todo = ann.post(&ann.todos(), json!({"title": "a", "due": due})).await.expect(201);
            ids.push(todo["id"].as_str().expect("an id").parse().expect("an id"));
        }
        app.stop_server().await.expect("a clean stop");
        let sql = async |sql: &str| execute_sql(app.database_url(), sql).await;
        let secret = Secret::new(app.secret()).expect("a secret");
        let core = Core::builder(secret).open(app.database_url()).await.expect("the database opens");
        let caller = Caller::trusted(ann.id().parse().expect("an id"));
        let read = async || -> Vec<Todo> {
            let mut found = Vec::new();
            for id in &ids {
                found.push(todos::get(&core, &caller, *id).await.expect("a todo"));
            }
            found
        };
        let before = read().await;
        // As if another database had placed Tokyo and Berlin elsewhere.
        let later = match database {
            Database::Sqlite => "due_at + 3600000000",
            Database::Postgres => "due_at + interval '1 hour'",
        };
        let moves = format!("UPDATE todos SET due_at = {later} WHERE due_zone = 'Asia/Tokyo'");
        sql(&moves).await;
        let moved = read().await;
        assert_ne!(moved[1].due, before[1].due);
        // One of a newer version, and one of this version: nothing is recomputed.
        for version in ["9999a", time_zone_version()] {
            sql("DELETE FROM meta WHERE name LIKE 'time_zones%'").await;
            sql(&format!("INSERT INTO meta (name, value) VALUES ('time_zones', '{version}')")).await;
            assert!(update_due_times(&core).await.expect("an update"));
            assert_eq!(read().await, moved, "{version}");
        }
        for _ in 0..2 {
            sql("UPDATE meta SET value = '1999a' WHERE name = 'time_zones'").await;
            assert!(update_due_times(&core).await.expect("an update"));
            let after = read().await;
            let dues = |todos: &[Todo]| todos.iter().map(|todo| todo.due.clone()).collect::<Vec<_>>();
            // The past stays.
            let expected = [&before[0], &before[1], &moved[2], &before[3]].map(|todo| todo.due.clone());
            assert_eq!(dues(&after), expected);
            for (index, todo) in after.iter().enumerate() {
                assert_eq!(todo.updated_at > moved[index].updated_at, index == 1, "{todo:?}");
            }
        }
        core.close().await;
    }
}
