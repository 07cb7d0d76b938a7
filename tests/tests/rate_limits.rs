//! Rate limits: five failed logins and five signups a minute and client, exactly, on all replicas
//! together; who a client is; and that a right password costs nothing.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use serde_json::json;

use todo_tests::{Actor, Answer, App, Cell, Client, at_once, fresh_email, on_every_cell};

const LIMIT: [(&str, &str); 1] = [("RATE_LIMIT_PER_MINUTE", "5")];

async fn limited(cell: Cell) -> App {
    App::start_with(cell, &LIMIT).await
}

async fn log_in(client: &Client, email: &str, password: &str, headers: &[(&str, &str)]) -> Answer {
    let body = json!({ "email": email, "password": password }).to_string();
    let headers = [&[("content-type", "application/json")], headers].concat();
    client.send("POST", "/api/auth/login", &headers, body).await
}

/// A login that fails, or is refused.
async fn wrong(client: &Client, headers: &[(&str, &str)]) -> Answer {
    log_in(client, "nobody@example.com", "Wrong1password", headers).await
}

async fn right(client: &Client, actor: &Actor) -> Answer {
    log_in(client, actor.email(), actor.password(), &[]).await
}

async fn sign_up(client: &Client, email: &str) -> Answer {
    let body = json!({ "email": email, "password": "Correct1horse", "name": "Grace" });
    client.post("/api/auth/signup", body).await
}

/// Uses up what this client may do wrong.
async fn exhaust(client: &Client, headers: &[(&str, &str)]) {
    for _ in 0..5 {
        wrong(client, headers).await.problem(401, "invalid_credentials");
    }
    turned_away(wrong(client, headers).await);
}

/// The seconds to wait, of a refusal in the shape of the contract.
fn turned_away(answer: Answer) -> u64 {
    let wait = answer.header("retry-after").and_then(|seconds| seconds.parse().ok());
    let wait: u64 = wait.unwrap_or_else(|| panic!("no whole seconds in Retry-After: {answer}"));
    assert!((1..=60).contains(&wait), "Retry-After: {wait}");
    let unit = if wait == 1 { "second" } else { "seconds" };
    let detail = format!("Rate limit exceeded. Try again in {wait} {unit}.");
    assert_eq!(answer.problem(429, "rate_limited")["detail"], detail);
    wait
}

/// How many answers have each status; those that are 429 are checked.
fn tally(answers: Vec<Answer>) -> BTreeMap<u16, usize> {
    let mut tally = BTreeMap::new();
    for answer in answers {
        *tally.entry(answer.status).or_default() += 1;
        if answer.status == 429 {
            turned_away(answer);
        }
    }
    tally
}

on_every_cell! {
    async fn forty_wrong_logins_at_once_let_exactly_five_through(cell) {
        let app = limited(cell).await;
        let answers = at_once(40, |_| {
            let client = app.anonymous();
            async move { wrong(&client, &[]).await }
        })
        .await;
        assert_eq!(tally(answers), BTreeMap::from([(401, 5), (429, 35)]));
    }

    async fn wrong_passwords_of_many_accounts_share_the_limit(cell) {
        let app = App::start(cell).await;
        let actors = [app.signed_up().await, app.signed_up().await, app.signed_up().await];
        let app = app.replica_with(&LIMIT).await;
        let answers = at_once(24, |i| {
            let (client, email) = (app.anonymous(), actors[i % 3].email().to_owned());
            async move { log_in(&client, &email, "Wrong1password", &[]).await }
        })
        .await;
        assert_eq!(tally(answers), BTreeMap::from([(401, 5), (429, 19)]));
    }

    async fn two_replicas_share_one_limit(cell) {
        let app = limited(cell).await;
        let replica = app.replica().await;
        let answers = at_once(40, |i| {
            let client = [&app, &replica][i % 2].anonymous();
            async move { wrong(&client, &[]).await }
        })
        .await;
        assert_eq!(tally(answers), BTreeMap::from([(401, 5), (429, 35)]));
        turned_away(wrong(&app.anonymous(), &[]).await);
        turned_away(wrong(&replica.anonymous(), &[]).await);
    }

    async fn a_restart_forgets_nothing(cell) {
        let app = limited(cell).await;
        exhaust(&app.anonymous(), &[]).await;
        let again = app.replica().await;
        app.stop().await.expect("a clean stop");
        turned_away(wrong(&again.anonymous(), &[]).await);
    }

    async fn a_right_password_is_not_charged(cell) {
        let app = limited(cell).await;
        let actor = app.signed_up().await;
        let client = app.anonymous();
        for _ in 0..20 {
            right(&client, &actor).await.expect(200);
        }
        let answers = at_once(12, |_| {
            let (client, actor) = (app.anonymous(), actor.clone());
            async move { right(&client, &actor).await }
        })
        .await;
        assert_eq!(tally(answers), BTreeMap::from([(200, 12)]));
        // And so the five are all still there.
        for _ in 0..4 {
            wrong(&client, &[]).await.problem(401, "invalid_credentials");
            right(&client, &actor).await.expect(200);
        }
        wrong(&client, &[]).await.problem(401, "invalid_credentials");
        turned_away(wrong(&client, &[]).await);
        // Before any hashing: nobody knows yet that this one is right.
        turned_away(right(&client, &actor).await);
    }

    async fn right_logins_among_wrong_ones_change_no_count(cell) {
        let app = limited(cell).await;
        let actor = app.signed_up().await;
        let answers = at_once(40, |i| {
            let (client, actor) = (app.anonymous(), actor.clone());
            async move {
                if i % 4 == 0 { right(&client, &actor).await } else { wrong(&client, &[]).await }
            }
        })
        .await;
        let tally = tally(answers);
        assert_eq!(tally.get(&401), Some(&5), "{tally:?}");
        let rest: usize = [200, 429].iter().filter_map(|status| tally.get(status)).sum();
        assert_eq!(rest, 35, "{tally:?}");
    }

    async fn the_sixth_signup_of_a_minute_is_turned_away(cell) {
        let app = limited(cell).await;
        let client = app.anonymous();
        let first = fresh_email();
        sign_up(&client, &first).await.expect(201);
        for _ in 1..5 {
            sign_up(&client, &fresh_email()).await.expect(201);
        }
        let late = fresh_email();
        turned_away(sign_up(&client, &late).await);
        // Logins are counted apart, and the refused one made no account.
        log_in(&client, &first, "Correct1horse", &[]).await.expect(200);
        let denied = log_in(&client, &late, "Correct1horse", &[]).await;
        denied.problem(401, "invalid_credentials");
    }

    async fn forty_signups_at_once_let_exactly_five_through(cell) {
        let app = limited(cell).await;
        let replica = app.replica().await;
        let answers = at_once(40, |i| {
            let client = [&app, &replica][i % 2].anonymous();
            async move { sign_up(&client, &fresh_email()).await }
        })
        .await;
        assert_eq!(tally(answers), BTreeMap::from([(201, 5), (429, 35)]));
    }

    async fn who_is_turned_away_may_still_do_everything_else(cell) {
        let app = limited(cell).await;
        let actor = app.signed_up().await;
        exhaust(&app.anonymous(), &[]).await;
        actor.get("/api/auth/me").await.expect(200);
        actor.todo("goes on").await;
        sign_up(&app.anonymous(), &fresh_email()).await.expect(201);
    }

    async fn each_source_address_is_a_client_of_its_own(cell) {
        let app = limited(cell).await;
        exhaust(&app.client_from(Ipv4Addr::new(127, 0, 0, 2)), &[]).await;
        exhaust(&app.client_from(Ipv4Addr::new(127, 0, 0, 3)), &[]).await;
        exhaust(&app.anonymous(), &[]).await;
        turned_away(wrong(&app.client_from(Ipv4Addr::new(127, 0, 0, 2)), &[]).await);
    }

    async fn what_a_stranger_says_of_its_address_changes_nothing(cell) {
        let app = limited(cell).await;
        let client = app.anonymous();
        for i in 0..5 {
            let address = format!("198.51.100.{i}");
            let forwarded = format!("for={address}");
            let headers = [
                ("x-forwarded-for", address.as_str()),
                ("x-real-ip", &address),
                ("forwarded", &forwarded),
            ];
            wrong(&client, &headers).await.problem(401, "invalid_credentials");
        }
        turned_away(wrong(&client, &[("x-forwarded-for", "198.51.100.99")]).await);
        turned_away(wrong(&client, &[]).await);
    }

    async fn a_trusted_proxy_separates_its_clients_right_to_left(cell) {
        let trust = [LIMIT[0], ("TRUSTED_PROXIES", "127.0.0.1/32, 10.0.0.0/8")];
        let app = App::start_with(cell, &trust).await;
        let proxy = app.anonymous();
        let is_limited = async |headers: &[(&str, &str)]| {
            turned_away(wrong(&proxy, headers).await);
        };
        const FOR: &str = "x-forwarded-for";
        exhaust(&proxy, &[(FOR, "198.51.100.1")]).await;
        exhaust(&proxy, &[(FOR, "198.51.100.2")]).await;

        // What stands left of the last address no proxy vouches for is the client's own invention.
        is_limited(&[(FOR, "203.0.113.9, 198.51.100.1")]).await;
        is_limited(&[(FOR, "127.0.0.1, 198.51.100.1")]).await;
        is_limited(&[(FOR, "nonsense, 198.51.100.1")]).await;
        is_limited(&[(FOR, "  203.0.113.8 ,198.51.100.1  ")]).await;
        // Several lines are one list.
        is_limited(&[(FOR, "203.0.113.7"), (FOR, "198.51.100.1")]).await;
        // Proxies of ours on the right are passed over.
        is_limited(&[(FOR, "198.51.100.1, 10.1.2.3")]).await;
        is_limited(&[(FOR, "203.0.113.6, 198.51.100.1, 10.1.2.3, 127.0.0.1")]).await;

        let fresh = wrong(&proxy, &[(FOR, "198.51.100.1, 198.51.100.3, 10.1.2.3")]).await;
        fresh.problem(401, "invalid_credentials");
        wrong(&proxy, &[(FOR, "2001:db8::1")]).await.problem(401, "invalid_credentials");

        // 127.0.0.2 is no proxy of ours.
        let stranger = app.client_from(Ipv4Addr::new(127, 0, 0, 2));
        for i in 0..5 {
            let answer = wrong(&stranger, &[(FOR, &format!("192.0.2.{i}"))]).await;
            answer.problem(401, "invalid_credentials");
        }
        turned_away(wrong(&stranger, &[(FOR, "192.0.2.99")]).await);
    }

    async fn a_trusted_proxy_that_names_nobody_is_limited_itself(cell) {
        let trust = [LIMIT[0], ("TRUSTED_PROXIES", "127.0.0.1/32")];
        let app = App::start_with(cell, &trust).await;
        let proxy = app.anonymous();
        let mut seen = Vec::new();
        for value in ["", "unknown", "_hidden", "1.2.3", "127.0.0.1", ", ,", "[::1", "a.b.c.d:80"] {
            seen.push(wrong(&proxy, &[("x-forwarded-for", value)]).await);
        }
        assert_eq!(tally(seen), BTreeMap::from([(401, 5), (429, 3)]));
    }

    /// 200 clients of one site, each with a network of its own, and a few who know their passwords.
    async fn a_site_that_guesses_holds_up_nobody_else(cell) {
        let app = App::start(cell).await;
        let actor = app.signed_up().await;
        let trust = [LIMIT[0], ("TRUSTED_PROXIES", "127.0.0.1/32")];
        let app = app.replica_with(&trust).await;
        let answers = at_once(210, |i| {
            let (client, actor) = (app.anonymous(), actor.clone());
            async move {
                // Those come last.
                if i < 200 {
                    let from = format!("2001:db8:7:{i:x}00::1");
                    let answer = wrong(&client, &[("x-forwarded-for", &from)]).await;
                    return (false, answer);
                }
                let from = [("x-forwarded-for", &*format!("198.51.{i}.1"))];
                (true, log_in(&client, actor.email(), actor.password(), &from).await)
            }
        })
        .await;
        let (right, wrong): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(right, _)| *right);
        let of = |answers: Vec<(bool, Answer)>| tally(answers.into_iter().map(|a| a.1).collect());
        assert_eq!(of(right), BTreeMap::from([(200, 10)]));
        let wrong = of(wrong);
        assert_eq!(wrong.get(&401), Some(&40), "{wrong:?}");
        // A busy machine keeps some waiting for longer than they are let.
        let rest: usize = [429, 503].iter().filter_map(|status| wrong.get(status)).sum();
        assert_eq!(rest, 160, "{wrong:?}");
    }

    async fn zero_turns_the_limits_off(cell) {
        let app = App::start_with(cell, &[("RATE_LIMIT_PER_MINUTE", "0")]).await;
        let client = app.anonymous();
        for _ in 0..12 {
            wrong(&client, &[]).await.problem(401, "invalid_credentials");
            sign_up(&client, &fresh_email()).await.expect(201);
        }
    }

    async fn the_setting_is_the_limit(cell) {
        let app = App::start_with(cell, &[("RATE_LIMIT_PER_MINUTE", "2")]).await;
        let answers = at_once(9, |_| {
            let client = app.anonymous();
            async move { wrong(&client, &[]).await }
        })
        .await;
        assert_eq!(tally(answers), BTreeMap::from([(401, 2), (429, 7)]));
    }
}

/// Who waits as long as told is let in. On all four cells at once, since it takes the minute it is
/// about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wait_that_is_named_is_long_enough_and_lifts_the_limit() {
    at_once(Cell::ALL.len(), |i| async move {
        let app = limited(Cell::ALL[i]).await;
        let client = app.anonymous();
        exhaust(&client, &[]).await;
        let wait = turned_away(wrong(&client, &[]).await);
        tokio::time::sleep(Duration::from_secs(wait)).await;
        wrong(&client, &[]).await.problem(401, "invalid_credentials");
    })
    .await;
}
