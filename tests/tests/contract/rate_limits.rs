//! Rate limits: exactly five failed logins and five signups per minute and client, over all
//! replicas together; how a client is identified; successful logins are not counted.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use serde_json::json;

use todo_tests::{
    Actor, App, Client, Target, TestResponse, at_once, on_every_target, unique_email,
};

const LIMIT: [(&str, &str); 1] = [("RATE_LIMIT_PER_MINUTE", "5")];

async fn limited_app(target: Target) -> App {
    App::start_with(target, &LIMIT).await
}

async fn log_in(
    client: &Client,
    email: &str,
    password: &str,
    headers: &[(&str, &str)],
) -> TestResponse {
    let body = json!({ "email": email, "password": password }).to_string();
    let headers = [&[("content-type", "application/json")], headers].concat();
    client.send("POST", "/api/auth/login", &headers, body).await
}

/// Sends a login that fails or is rate limited.
async fn failed_login(client: &Client, headers: &[(&str, &str)]) -> TestResponse {
    log_in(client, "nobody@example.com", "Wrong1password", headers).await
}

async fn valid_login(client: &Client, actor: &Actor) -> TestResponse {
    log_in(client, actor.email(), actor.password(), &[]).await
}

async fn sign_up(client: &Client, email: &str) -> TestResponse {
    let body = json!({ "email": email, "password": "Correct1horse", "name": "Grace" });
    client.post("/api/auth/signup", body).await
}

/// Uses up the client's allowance of failed logins.
async fn exhaust(client: &Client, headers: &[(&str, &str)]) {
    for _ in 0..5 {
        failed_login(client, headers).await.problem(401, "invalid_credentials");
    }
    assert_rate_limited(failed_login(client, headers).await);
}

/// Checks a 429 against the contract and returns the seconds to wait.
fn assert_rate_limited(answer: TestResponse) -> u64 {
    let wait = answer.header("retry-after").and_then(|seconds| seconds.parse().ok());
    let wait: u64 = wait.unwrap_or_else(|| panic!("no whole seconds in Retry-After: {answer}"));
    assert!((1..=60).contains(&wait), "Retry-After: {wait}");
    let unit = if wait == 1 { "second" } else { "seconds" };
    let detail = format!("Rate limit exceeded. Try again in {wait} {unit}.");
    assert_eq!(answer.problem(429, "rate_limited")["detail"], detail);
    wait
}

/// Counts the responses by status, and checks each 429.
fn tally(answers: Vec<TestResponse>) -> BTreeMap<u16, usize> {
    let mut tally = BTreeMap::new();
    for answer in answers {
        *tally.entry(answer.status).or_default() += 1;
        if answer.status == 429 {
            assert_rate_limited(answer);
        }
    }
    tally
}

on_every_target! {
    async fn every_answer_of_a_limited_route_has_its_fields(target) {
        let app = limited_app(target).await;
        let client = app.anonymous();
        let email = unique_email();
        let policy = |name: &str| format!("\"{name}\";q=5;w=60");
        // The remaining attempts, and the seconds until the next, if there are any.
        let left = |answer: &TestResponse, name: &str| {
            assert_eq!(answer.header("ratelimit-policy"), Some(&*policy(name)), "{answer}");
            let field = answer.header("ratelimit")?.strip_prefix(&format!("\"{name}\";r="))?;
            let (remaining, reset) = match field.split_once(";t=") {
                Some((remaining, reset)) => (remaining, reset.parse().ok()),
                None => (field, None),
            };
            Some((remaining.parse::<u32>().ok()?, reset))
        };
        let soon = |left: Option<(u32, Option<u64>)>, remaining| {
            let Some((found, Some(reset))) = left else { panic!("{left:?}") };
            assert_eq!(found, remaining);
            assert!((30..=60).contains(&reset), "{reset}");
        };
        let created = sign_up(&client, &email).await;
        soon(left(&created, "signup"), 4);
        assert_eq!(created.status, 201);
        let taken = sign_up(&client, &email).await;
        soon(left(&taken, "signup"), 3);
        assert_eq!(taken.status, 409);
        let unread = client.post("/api/auth/signup", json!([])).await;
        assert_eq!((unread.status, left(&unread, "signup")), (422, None));

        let success = log_in(&client, &email, "Correct1horse", &[]).await;
        assert_eq!((success.status, left(&success, "login")), (200, Some((5, None))));
        for remaining in (0..5).rev() {
            let failure = failed_login(&client, &[]).await;
            soon(left(&failure, "login"), remaining);
            assert_eq!(failure.status, 401);
            if remaining == 3 {
                let success = log_in(&client, &email, "Correct1horse", &[]).await;
                soon(left(&success, "login"), 3);
            }
        }
        let origin = [("origin", "http://localhost:3000")];
        let refused = failed_login(&client, &origin).await;
        let (remaining, reset) = left(&refused, "login").expect("both fields");
        let exposed = refused.header("access-control-expose-headers").unwrap_or_default();
        assert!(exposed.contains("ratelimit,") && exposed.contains("ratelimit-policy"), "{exposed}");
        assert_eq!((remaining, reset), (0, Some(assert_rate_limited(refused))));

        let other = client.get("/api/auth/me").await;
        assert_eq!(other.header("ratelimit-policy").or(other.header("ratelimit")), None);
        app.stop().await.expect("a clean stop");
        let unlimited = App::start_with(target, &[("RATE_LIMIT_PER_MINUTE", "0")]).await;
        let failure = failed_login(&unlimited.anonymous(), &[]).await;
        assert_eq!(failure.header("ratelimit-policy").or(failure.header("ratelimit")), None);
    }

    async fn forty_concurrent_failed_logins_let_exactly_five_through(target) {
        let app = limited_app(target).await;
        let answers = at_once(40, |_| {
            let client = app.anonymous();
            async move { failed_login(&client, &[]).await }
        })
        .await;
        assert_eq!(tally(answers), BTreeMap::from([(401, 5), (429, 35)]));
    }

    async fn wrong_passwords_of_many_accounts_share_the_limit(target) {
        let app = App::start(target).await;
        let actors = [app.signed_up().await, app.signed_up().await, app.signed_up().await];
        let app = app.replica_with(&LIMIT).await;
        let answers = at_once(24, |i| {
            let (client, email) = (app.anonymous(), actors[i % 3].email().to_owned());
            async move { log_in(&client, &email, "Wrong1password", &[]).await }
        })
        .await;
        assert_eq!(tally(answers), BTreeMap::from([(401, 5), (429, 19)]));
    }

    async fn two_replicas_share_one_limit(target) {
        let app = limited_app(target).await;
        let replica = app.replica().await;
        let answers = at_once(40, |i| {
            let client = [&app, &replica][i % 2].anonymous();
            async move { failed_login(&client, &[]).await }
        })
        .await;
        assert_eq!(tally(answers), BTreeMap::from([(401, 5), (429, 35)]));
        assert_rate_limited(failed_login(&app.anonymous(), &[]).await);
        assert_rate_limited(failed_login(&replica.anonymous(), &[]).await);
    }

    async fn a_restart_keeps_the_counts(target) {
        let app = limited_app(target).await;
        exhaust(&app.anonymous(), &[]).await;
        let again = app.replica().await;
        app.stop().await.expect("a clean stop");
        assert_rate_limited(failed_login(&again.anonymous(), &[]).await);
    }

    async fn a_correct_password_is_not_counted(target) {
        let app = limited_app(target).await;
        let actor = app.signed_up().await;
        let client = app.anonymous();
        for _ in 0..20 {
            valid_login(&client, &actor).await.expect(200);
        }
        let answers = at_once(12, |_| {
            let (client, actor) = (app.anonymous(), actor.clone());
            async move { valid_login(&client, &actor).await }
        })
        .await;
        assert_eq!(tally(answers), BTreeMap::from([(200, 12)]));
        // So the allowance of five is untouched.
        for _ in 0..4 {
            failed_login(&client, &[]).await.problem(401, "invalid_credentials");
            valid_login(&client, &actor).await.expect(200);
        }
        failed_login(&client, &[]).await.problem(401, "invalid_credentials");
        assert_rate_limited(failed_login(&client, &[]).await);
        // The limit applies before the password is checked, so a correct one is refused too.
        assert_rate_limited(valid_login(&client, &actor).await);
    }

    async fn successful_logins_do_not_change_the_count_of_failures(target) {
        let app = limited_app(target).await;
        let actor = app.signed_up().await;
        let answers = at_once(40, |i| {
            let (client, actor) = (app.anonymous(), actor.clone());
            async move {
                match i % 4 {
                    0 => valid_login(&client, &actor).await,
                    _ => failed_login(&client, &[]).await,
                }
            }
        })
        .await;
        let tally = tally(answers);
        assert_eq!(tally.get(&401), Some(&5), "{tally:?}");
        let rest: usize = [200, 429].iter().filter_map(|status| tally.get(status)).sum();
        assert_eq!(rest, 35, "{tally:?}");
    }

    async fn the_sixth_signup_of_a_minute_is_rate_limited(target) {
        let app = limited_app(target).await;
        let client = app.anonymous();
        let first = unique_email();
        sign_up(&client, &first).await.expect(201);
        for _ in 1..5 {
            sign_up(&client, &unique_email()).await.expect(201);
        }
        let late = unique_email();
        assert_rate_limited(sign_up(&client, &late).await);
        // Logins are counted separately, and the refused signup created no account.
        log_in(&client, &first, "Correct1horse", &[]).await.expect(200);
        let denied = log_in(&client, &late, "Correct1horse", &[]).await;
        denied.problem(401, "invalid_credentials");
    }

    async fn forty_concurrent_signups_let_exactly_five_through(target) {
        let app = limited_app(target).await;
        let replica = app.replica().await;
        let answers = at_once(40, |i| {
            let client = [&app, &replica][i % 2].anonymous();
            async move { sign_up(&client, &unique_email()).await }
        })
        .await;
        assert_eq!(tally(answers), BTreeMap::from([(201, 5), (429, 35)]));
    }

    async fn a_rate_limited_client_may_still_do_everything_else(target) {
        let app = limited_app(target).await;
        let actor = app.signed_up().await;
        exhaust(&app.anonymous(), &[]).await;
        actor.get("/api/auth/me").await.expect(200);
        actor.todo("goes on").await;
        sign_up(&app.anonymous(), &unique_email()).await.expect(201);
    }

    async fn each_source_address_has_its_own_limit(target) {
        let app = limited_app(target).await;
        exhaust(&app.client_from(Ipv4Addr::new(127, 0, 0, 2)), &[]).await;
        exhaust(&app.client_from(Ipv4Addr::new(127, 0, 0, 3)), &[]).await;
        exhaust(&app.anonymous(), &[]).await;
        assert_rate_limited(failed_login(&app.client_from(Ipv4Addr::new(127, 0, 0, 2)), &[]).await);
    }

    async fn forwarding_headers_from_an_untrusted_peer_are_ignored(target) {
        let app = limited_app(target).await;
        let client = app.anonymous();
        for i in 0..5 {
            let address = format!("198.51.100.{i}");
            let forwarded = format!("for={address}");
            let headers = [
                ("x-forwarded-for", address.as_str()),
                ("x-real-ip", &address),
                ("forwarded", &forwarded),
            ];
            failed_login(&client, &headers).await.problem(401, "invalid_credentials");
        }
        assert_rate_limited(failed_login(&client, &[("x-forwarded-for", "198.51.100.99")]).await);
        assert_rate_limited(failed_login(&client, &[]).await);
    }

    async fn a_trusted_proxy_separates_its_clients_right_to_left(target) {
        let trust = [LIMIT[0], ("TRUSTED_PROXIES", "127.0.0.1/32, 10.0.0.0/8")];
        let app = App::start_with(target, &trust).await;
        let proxy = app.anonymous();
        let is_limited = async |headers: &[(&str, &str)]| {
            assert_rate_limited(failed_login(&proxy, headers).await);
        };
        const FOR: &str = "x-forwarded-for";
        exhaust(&proxy, &[(FOR, "198.51.100.1")]).await;
        exhaust(&proxy, &[(FOR, "198.51.100.2")]).await;

        // Everything left of the rightmost untrusted address is client-controlled.
        is_limited(&[(FOR, "203.0.113.9, 198.51.100.1")]).await;
        is_limited(&[(FOR, "127.0.0.1, 198.51.100.1")]).await;
        is_limited(&[(FOR, "nonsense, 198.51.100.1")]).await;
        is_limited(&[(FOR, "  203.0.113.8 ,198.51.100.1  ")]).await;
        // Several header lines form one list.
        is_limited(&[(FOR, "203.0.113.7"), (FOR, "198.51.100.1")]).await;
        // Trusted proxies on the right are skipped.
        is_limited(&[(FOR, "198.51.100.1, 10.1.2.3")]).await;
        is_limited(&[(FOR, "203.0.113.6, 198.51.100.1, 10.1.2.3, 127.0.0.1")]).await;

        let fresh = failed_login(&proxy, &[(FOR, "198.51.100.1, 198.51.100.3, 10.1.2.3")]).await;
        fresh.problem(401, "invalid_credentials");
        failed_login(&proxy, &[(FOR, "2001:db8::1")]).await.problem(401, "invalid_credentials");

        // 127.0.0.2 is not a trusted proxy.
        let untrusted = app.client_from(Ipv4Addr::new(127, 0, 0, 2));
        for i in 0..5 {
            let answer = failed_login(&untrusted, &[(FOR, &format!("192.0.2.{i}"))]).await;
            answer.problem(401, "invalid_credentials");
        }
        assert_rate_limited(failed_login(&untrusted, &[(FOR, "192.0.2.99")]).await);
    }

    async fn a_trusted_proxy_that_names_no_client_is_limited_itself(target) {
        let trust = [LIMIT[0], ("TRUSTED_PROXIES", "127.0.0.1/32")];
        let app = App::start_with(target, &trust).await;
        let proxy = app.anonymous();
        let mut seen = Vec::new();
        for value in ["", "unknown", "_hidden", "1.2.3", "127.0.0.1", ", ,", "[::1", "a.b.c.d:80"] {
            seen.push(failed_login(&proxy, &[("x-forwarded-for", value)]).await);
        }
        assert_eq!(tally(seen), BTreeMap::from([(401, 5), (429, 3)]));
    }

    /// 200 attackers of one site, each from another network, and ten users with correct passwords.
    async fn password_guessing_from_one_site_does_not_block_other_clients(target) {
        let app = App::start(target).await;
        let actor = app.signed_up().await;
        let trust = [LIMIT[0], ("TRUSTED_PROXIES", "127.0.0.1/32")];
        let app = app.replica_with(&trust).await;
        let answers = at_once(210, |i| {
            let (client, actor) = (app.anonymous(), actor.clone());
            async move {
                // The users come last.
                if i < 200 {
                    let from = format!("2001:db8:7:{i:x}00::1");
                    let answer = failed_login(&client, &[("x-forwarded-for", &from)]).await;
                    return (false, answer);
                }
                let from = [("x-forwarded-for", &*format!("198.51.{i}.1"))];
                (true, log_in(&client, actor.email(), actor.password(), &from).await)
            }
        })
        .await;
        let (right, wrong): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(right, _)| *right);
        let of = |answers: Vec<(bool, TestResponse)>| {
            tally(answers.into_iter().map(|a| a.1).collect())
        };
        assert_eq!(of(right), BTreeMap::from([(200, 10)]));
        let wrong = of(wrong);
        assert_eq!(wrong.get(&401), Some(&40), "{wrong:?}");
        // On a busy machine some exceed the maximum wait and get a 503.
        let rest: usize = [429, 503].iter().filter_map(|status| wrong.get(status)).sum();
        assert_eq!(rest, 160, "{wrong:?}");
    }

    async fn zero_turns_the_limits_off(target) {
        let app = App::start_with(target, &[("RATE_LIMIT_PER_MINUTE", "0")]).await;
        let client = app.anonymous();
        for _ in 0..12 {
            failed_login(&client, &[]).await.problem(401, "invalid_credentials");
            sign_up(&client, &unique_email()).await.expect(201);
        }
    }

    async fn the_setting_is_the_limit(target) {
        let app = App::start_with(target, &[("RATE_LIMIT_PER_MINUTE", "2")]).await;
        let answers = at_once(9, |_| {
            let client = app.anonymous();
            async move { failed_login(&client, &[]).await }
        })
        .await;
        assert_eq!(tally(answers), BTreeMap::from([(401, 2), (429, 7)]));
    }
}

/// A client that waits for the time in `Retry-After` is served. Runs on all four targets at once,
/// since it takes up to a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_is_lifted_after_the_retry_after_time() {
    at_once(Target::ALL.len(), |i| async move {
        let app = limited_app(Target::ALL[i]).await;
        let client = app.anonymous();
        exhaust(&client, &[]).await;
        let wait = assert_rate_limited(failed_login(&client, &[]).await);
        tokio::time::sleep(Duration::from_secs(wait)).await;
        failed_login(&client, &[]).await.problem(401, "invalid_credentials");
    })
    .await;
}
