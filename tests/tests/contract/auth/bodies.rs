//! Invalid bodies of signup and login: content type, size and JSON.

use serde_json::json;

use todo_tests::{App, Client, TestResponse, on_every_target, raw, unique_email};

use super::{PASSWORD, account};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
const ROUTES: [&str; 2] = ["/api/auth/signup", "/api/auth/login"];

async fn malformed(client: &Client, route: &str, body: impl Into<Vec<u8>>) -> TestResponse {
    let answer = client.send("POST", route, &JSON, body).await;
    answer.clone().problem(422, "malformed_body");
    assert!(!answer.text().contains(PASSWORD), "{answer}");
    answer
}

on_every_target! {
    async fn a_body_that_is_not_a_json_object_is_malformed(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let whole = account("a@example.com", PASSWORD).to_string();
        let nested = format!(r#"{{"email":{}{}}}"#, "[".repeat(4000), "]".repeat(4000));
        for route in ROUTES {
            for body in [
                "", " ", "null", "true", "5", "\"text\"", "[]", "[{}]", "{", "{}}", "nonsense",
                "{'email':'a@example.com'}", "{email:1}", "{\"email\":NaN}", "{\"email\":1,}",
                "// comment\n{}", "{\"email\":\"unterminated", "{\"email\":\"a\tb\"}",
                "{\"email\":\"\\x41\"}", "{\"email\":01}", &nested, &"[".repeat(8000),
            ] {
                malformed(&client, route, body).await;
            }
            malformed(&client, route, format!("[{whole}]")).await;
            malformed(&client, route, format!("{whole} {whole}")).await;
            malformed(&client, route, &whole[..whole.len() - 1]).await;
            malformed(&client, route, whole.replace("a@", "\\ud800@")).await;
            malformed(&client, route, whole.replace("a@", "\\udc00\\ud800@")).await;
            let utf16: Vec<u8> = whole.encode_utf16().flat_map(u16::to_le_bytes).collect();
            malformed(&client, route, utf16).await;
            for bytes in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"] {
                let (before, after) = whole.split_once("a@").expect("the address");
                let body = [before.as_bytes(), bytes, b"@", after.as_bytes()].concat();
                malformed(&client, route, body).await;
            }
        }
    }

    async fn a_missing_member_is_named(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        for (route, names) in [
            (ROUTES[0], &["email", "password", "name"][..]),
            (ROUTES[1], &["email", "password"]),
        ] {
            for name in names {
                let mut body = account("a@example.com", PASSWORD);
                body.as_object_mut().expect("an object").remove(*name);
                let answer = malformed(&client, route, body.to_string()).await;
                assert_eq!(answer.fields(), [*name], "{answer}");
            }
            let answer = malformed(&client, route, "{}").await;
            assert!(answer.fields().contains(&names[0].to_string()), "{answer}");
        }
    }

    async fn a_member_of_another_type_is_malformed(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        for (route, names) in [
            (ROUTES[0], &["email", "password", "name"][..]),
            (ROUTES[1], &["email", "password"]),
        ] {
            for name in names {
                for value in [json!(null), json!(5), json!(true), json!(["a"]), json!({ "a": 1 })] {
                    let mut body = account("a@example.com", PASSWORD);
                    body[name] = value;
                    let answer = malformed(&client, route, body.to_string()).await;
                    let fields = answer.fields();
                    assert!(fields.is_empty() || fields == [*name], "{answer}");
                }
            }
        }
    }

    async fn a_member_given_twice_is_malformed(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        for route in ROUTES {
            for (name, value) in [("email", "a@example.com"), ("password", PASSWORD)] {
                let escaped = format!("\\u{:04x}{}", name.as_bytes()[0], &name[1..]);
                for spelled in [name, &escaped] {
                    let whole = account("a@example.com", PASSWORD).to_string();
                    let body = format!("{{\"{spelled}\":\"{value}\",{}", &whole[1..]);
                    malformed(&client, route, body).await;
                }
            }
        }
    }

    async fn only_a_json_content_type_is_accepted(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let body = |email: &str| account(email, PASSWORD).to_string();
        for valid in ["application/json", "application/json; charset=utf-8", "Application/JSON"] {
            let headers = [("content-type", valid)];
            client.send("POST", ROUTES[0], &headers, body(&unique_email())).await.expect(201);
        }
        for route in ROUTES {
            for bad in [
                "text/plain", "text/json", "application/x-www-form-urlencoded", "application/xml",
                "multipart/form-data; boundary=x", "application/jsonp", "json", "",
            ] {
                let headers = [("content-type", bad)];
                let answer = client.send("POST", route, &headers, body("a@b.co")).await;
                answer.problem(415, "unsupported_media_type");
            }
            let answer = client.send("POST", route, &[], body("a@b.co")).await;
            answer.problem(415, "unsupported_media_type");
        }
    }

    async fn a_body_of_8_kib_is_accepted_and_one_byte_more_is_not(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let mut body = account(&unique_email(), PASSWORD).to_string();
        body.push_str(&" ".repeat(8192 - body.len()));
        client.send("POST", ROUTES[0], &JSON, body.clone()).await.expect(201);
        body.push(' ');
        for route in ROUTES {
            let answer = client.send("POST", route, &JSON, body.clone()).await;
            answer.problem(413, "content_too_large");
            let text = [("content-type", "text/plain")];
            let answer = client.send("POST", route, &text, body.clone()).await;
            answer.problem(415, "unsupported_media_type");
        }
    }

    async fn a_body_without_content_length_has_the_same_limit(target) {
        let app = App::start(target).await;
        let mut request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            ROUTES[0],
            app.addr(),
        );
        let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
        request.push_str(&chunk.repeat(3));
        request.push_str("0\r\n\r\n");
        let answer = raw(app.addr(), request.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
}
