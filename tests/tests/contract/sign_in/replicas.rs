//! Sign-ins across replicas, and many at once. The server does not matter here.

use std::collections::BTreeSet;

use todo_tests::{App, Database, Server, Target, at_once, count_rows, peers::OidcProvider};

use super::{Browser, CALLBACK, VERIFIER, app, exchange, text};

async fn one_person_is_one_user(database: Database) {
    let provider = OidcProvider::start(&[CALLBACK]).await;
    let one = app(Target { server: Server::Salvo, database }, &provider, &[]).await;
    let other = one.replica().await;
    let steps = [one.anonymous(), other.anonymous()];
    // Each begins on one replica, comes back to the other, and is exchanged on the first.
    let begun = at_once(40, |_| {
        let client = steps[0].clone();
        async move { Browser::start(&client, "oidc").await }
    })
    .await;
    let mut returning = Vec::new();
    for browser in begun {
        let callback = provider.sign_in(&browser.page, "ada").await;
        returning.push((Browser { client: steps[1].clone(), ..browser }, callback));
    }
    let codes = at_once(40, |at| {
        let (browser, callback) = returning[at].clone();
        async move { super::code(&browser.back(&callback).await) }
    })
    .await;
    let users = at_once(40, |at| {
        let client = steps[0].clone();
        let code = codes[at].clone();
        async move {
            let auth = exchange(&client, &code, VERIFIER).await.expect(200);
            text(&auth["user"], "id").to_owned()
        }
    })
    .await;
    assert_eq!(users.into_iter().collect::<BTreeSet<_>>().len(), 1);
    assert_eq!(rows(&one, "users").await, 1);
    assert_eq!(rows(&one, "identities").await, 1);
    assert_eq!(rows(&one, "oauth_codes").await, 0);
}

async fn rows(app: &App, table: &str) -> i64 {
    count_rows(app.database_url(), &format!("SELECT count(*) FROM {table}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_person_is_one_user_on_sqlite() {
    one_person_is_one_user(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_person_is_one_user_on_postgres() {
    one_person_is_one_user(Database::Postgres).await;
}
