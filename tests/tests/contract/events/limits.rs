//! The limits of open streams, and the return of their places.

use std::time::Duration;

use http::Version;
use todo_tests::{Actor, App, EventStream, eventually, on_every_target};

use super::path;

/// The number of open streams of server-sent events.
async fn open_streams(app: &App) -> String {
    let text = app.anonymous().get("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix("change_streams{kind=\"sse\"} "));
    line.expect("a gauge").to_owned()
}

async fn opened(owner: &Actor) -> EventStream {
    let mut stream = EventStream::open(owner, "", &[]).await;
    stream.next().await;
    stream
}

on_every_target! {
    async fn a_user_has_five_streams_and_each_place_is_given_back(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let mut streams = Vec::new();
        for _ in 0..5 {
            streams.push(opened(&ann).await);
        }
        let sixth = ann.get(&path(&ann)).await;
        assert_eq!(sixth.header("retry-after"), Some("5"), "{sixth}");
        sixth.problem(429, "rate_limited");
        // The other checks come first.
        ann.get(&format!("{}?since=x.1", path(&ann))).await.problem(410, "cursor_expired");
        ann.get(&format!("{}?since=x", path(&ann))).await.problem(400, "validation_error");
        assert_eq!(open_streams(&app).await, "5");
        let mut bobs = opened(&bob).await;
        assert_eq!(open_streams(&app).await, "6");
        // Bob's ends by the server, and one of Ann's by its client.
        bob.post("/api/auth/logout", serde_json::Value::Null).await.expect(200);
        bobs.expect_end("session_ended").await;
        streams.pop();
        let is_given_back = async || open_streams(&app).await == "4";
        assert!(eventually(Duration::from_secs(20), is_given_back).await);
        streams.push(opened(&ann).await);
        let addr = app.addr();
        let sixth = EventStream::try_open(addr, Version::HTTP_11, &ann, "", &[]).await;
        sixth.expect_err("one too many").problem(429, "rate_limited");
        drop(streams);
        let are_given_back = async || open_streams(&app).await == "0";
        assert!(eventually(Duration::from_secs(20), are_given_back).await);
    }
}
