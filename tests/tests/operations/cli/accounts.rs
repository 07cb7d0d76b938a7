//! The account commands list accounts, delete them and set passwords.

use std::process::Stdio;

use serde_json::json;
use todo_tests::{Actor, Client, Process, STARTING, command, empty_dir, postgres::Cluster};
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{is_empty, run};

/// The account commands, beside a running server.
async fn manage_accounts(url: &str) {
    let dir = empty_dir();
    let settings = [("DATABASE_URL", url)];
    let user = async |arguments: &[&str]| {
        run("todo-server", dir.path(), &settings, &[&["user"], arguments].concat()).await
    };
    let server = Process::start("todo-server", dir.path(), &settings).await;
    let client = Client::of(server.addr);
    let sign_up = async |email: &str, name: &str| {
        let account = json!({"email": email, "password": "Correct1horse", "name": name});
        let auth = client.post("/api/auth/signup", account).await.expect(201);
        Actor::of(&client, &auth, "Correct1horse")
    };
    let log_in = async |email: &str, password: &str| {
        let login = json!({"email": email, "password": password});
        client.post("/api/auth/login", login).await
    };
    let ada = sign_up("ada@example.com", "Ada\u{202e} Lovelace").await;
    let joerg = sign_up("jörg@exämple.com", "Jörg").await;
    let todo = ada.todo("Buy milk").await;
    joerg.todo("Milch").await;

    let (code, out, err) = user(&["list"]).await;
    assert_eq!((code, &*err), (0, ""), "{out}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert!(lines[0].starts_with("ada@example.com\tAda\\u{202e} Lovelace\t"), "{out}");
    assert!(lines[0].contains(ada.id()) && lines[0].ends_with("Z\t1\t1"), "{out}");
    assert!(lines[1].starts_with("jörg@exämple.com\tJörg\t"), "{out}");
    assert!(!out.contains("argon2"), "{out}");

    // An account that its user has deleted is none, also while it has rows.
    let eve = sign_up("eve@example.com", "Eve").await;
    let headers = [("content-type", "application/json")];
    let body = json!({"password": eve.password()}).to_string();
    eve.send("DELETE", "/api/auth/me", &headers, body).await.expect(200);
    assert_eq!(user(&["list"]).await.1, out);
    let deleted = format!("{}@users.invalid", eve.id().replace('-', ""));
    for arguments in [&["delete", "--yes", &*deleted][..], &["reset-password", &deleted]] {
        let (code, out, err) = user(arguments).await;
        assert_eq!((code, &*out), (1, ""), "{arguments:?}");
        assert!(err.contains("There is no such account."), "{err}");
    }

    // A new password, printed once; the sessions end.
    let (code, out, err) = user(&["reset-password", "ADA@example.com"]).await;
    assert_eq!(code, 0, "{err}");
    let password = out.trim();
    assert!(password.len() == 20 && !err.contains(password), "{out}{err}");
    ada.get("/api/auth/me").await.problem(401, "unauthorized");
    log_in("ada@example.com", "Correct1horse").await.problem(401, "invalid_credentials");
    let auth = log_in("ada@example.com", password).await.expect(200);
    let ada = Actor::of(&client, &auth, password);
    joerg.get("/api/auth/me").await.expect(200);

    // It prompts, and accepts only "yes".
    for answer in ["", "\n", "no\n", "y\n"] {
        let mut child = command("todo-server", dir.path(), &settings);
        child.args(["user", "delete", "ada@example.com"]).stdin(Stdio::piped());
        let mut child = child.spawn().expect("it runs");
        let mut input = child.stdin.take().expect("an input");
        input.write_all(answer.as_bytes()).await.expect("it reads");
        drop(input);
        let ended = timeout(STARTING, child.wait_with_output()).await.expect("an end in time");
        let ended = ended.expect("it runs");
        let err = String::from_utf8(ended.stderr).expect("UTF-8");
        assert_eq!(ended.status.code(), Some(1), "{answer:?}: {err}");
        assert!(err.contains("1 sessions and 1 todos") && err.contains("Nothing was"), "{err}");
    }
    ada.get("/api/auth/me").await.expect(200);
    let (code, out, err) = user(&["delete", "--yes", "Ada@example.com"]).await;
    assert_eq!((code, &*err), (0, ""));
    assert_eq!(out, "Deleted ada@example.com with 1 sessions and 1 todos.\n");
    ada.get(&ada.todos()).await.problem(401, "unauthorized");
    let path = format!("{}/{}", ada.todos(), todo["id"].as_str().expect("an id"));
    ada.delete(&path).await.problem(401, "unauthorized");
    log_in("ada@example.com", password).await.problem(401, "invalid_credentials");
    assert_eq!(joerg.get(&joerg.todos()).await.expect(200)["total"], 1);

    for arguments in [&["delete", "--yes", "ada@example.com"][..], &["reset-password", "x"]] {
        let (code, out, err) = user(arguments).await;
        assert_eq!((code, &*out), (1, ""), "{arguments:?}");
        assert!(err.contains("There is no such account."), "{err}");
    }
    let (code, out, _) = user(&["delete", "--yes", "jörg@xn--exmple-cua.com"]).await;
    assert_eq!((code, &*out), (0, "Deleted jörg@exämple.com with 1 sessions and 1 todos.\n"));
    let (code, out, _) = user(&["list"]).await;
    assert_eq!((code, &*out), (0, ""));
    server.stop().await;
}

#[tokio::test]
async fn accounts_are_listed_deleted_and_given_passwords() {
    let dir = empty_dir();
    let file = format!("sqlite://{}", dir.path().join("todo.db").display());
    let (code, _, err) =
        run("todo-server", dir.path(), &[("DATABASE_URL", &file)], &["user", "list"]).await;
    assert!(code == 1 && is_empty(dir.path()), "reading creates no file: {err}");
    manage_accounts(&file).await;
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let url = cluster.url();
    let (code, _, err) =
        run("todo-server", dir.path(), &[("DATABASE_URL", &url)], &["user", "list"]).await;
    assert!(code == 1 && err.contains("not of this program"), "{err}");
    manage_accounts(&url).await;
    cluster.stop().await.expect("it stops");
}
