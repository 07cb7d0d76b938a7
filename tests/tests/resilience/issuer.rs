//! Faults of another issuer whose tokens are accepted: rotations, outages, key sets that are none,
//! and strangers with invented key ids. A user whose token is good is never rejected for them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use todo_tests::{
    App, Client, PROGRAMS, Process, SECRET_SETTING, TestResponse, at_once, empty_dir,
    on_every_target,
    peers::{AUDIENCE, BetterAuth},
};
use tokio::time::{Instant, sleep};

const ME: &str = "/api/auth/me";

async fn me(app: &App, token: &str) -> TestResponse {
    app.anonymous().bearing(token).get(ME).await
}

/// The response to a token whose key is unknown while the issuer fails, within the time limit.
async fn is_unavailable(app: &App, token: &str, why: &str) {
    let asked = Instant::now();
    let answer = me(app, token).await;
    assert!(asked.elapsed() < Duration::from_millis(3500), "{why}: {:?}", asked.elapsed());
    assert_eq!(answer.status, 503, "{why}: {answer}");
    assert!(answer.header("retry-after").is_some(), "{why}");
    answer.problem(503, "unavailable");
}

/// A token of the form of the issuer's with this key id.
fn with_kid(kid: &str) -> String {
    let header = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#));
    let signature = "A".repeat(86);
    format!("{header}.{}.{signature}", BASE64_URL_SAFE_NO_PAD.encode("{}"))
}

/// The times of a client's requests, one after the other, until `done`; each must succeed.
async fn ask_until(client: Client, done: Arc<AtomicBool>) -> Vec<Duration> {
    let mut times = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let asked = Instant::now();
        client.get(ME).await.expect(200);
        times.push(asked.elapsed());
    }
    times
}

on_every_target! {
    async fn no_token_is_rejected_across_rotations(target) {
        const CLIENTS: usize = 20;
        let issuer = Arc::new(BetterAuth::start().await);
        let app = issuer.app(target, &[]).await;
        let replica = app.replica().await;
        let users = at_once(CLIENTS, |_| {
            let issuer = issuer.clone();
            async move { issuer.sign_up().await }
        })
        .await;
        let clients = [app.anonymous(), replica.anonymous()];
        let mut keys = std::collections::BTreeSet::new();
        for round in 0..10 {
            // All clients then ask for a token at once: Better Auth makes several new keys.
            if [2, 5, 8].contains(&round) {
                issuer.rotate().await;
            }
            let answers = at_once(CLIENTS, |nth| {
                let issuer = issuer.clone();
                let user = users[nth].clone();
                let client = clients[(nth + round) % 2].clone();
                async move {
                    let token = issuer.token(&user).await;
                    let header = token.split('.').next().unwrap_or_default().to_owned();
                    (header, client.bearing(&token).get(ME).await)
                }
            })
            .await;
            for (header, answer) in answers {
                assert_eq!(answer.status, 200, "round {round}: {answer}");
                keys.insert(header);
            }
        }
        assert!(keys.len() >= 4, "{} keys", keys.len());
        replica.stop().await.expect("a clean stop");
    }

    async fn invented_keys_cause_few_fetches(target) {
        const INVENTED: usize = 1000;
        const SENDERS: usize = 20;
        let issuer = BetterAuth::start().await;
        let app = issuer.app(target, &[]).await;
        let known = app.anonymous().bearing(&issuer.token_of("ann").await);
        known.get(ME).await.expect(200);
        assert_eq!(issuer.fetches().await, 1);
        let began = Instant::now();
        let done = Arc::new(AtomicBool::new(false));
        let asking = tokio::spawn(ask_until(known, done.clone()));
        let client = app.anonymous();
        at_once(SENDERS, |sender| {
            let client = client.clone();
            async move {
                for nth in 0..INVENTED / SENDERS {
                    let token = with_kid(&format!("invented {sender} {nth}"));
                    client.bearing(&token).get(ME).await.problem(401, "unauthorized");
                }
            }
        })
        .await;
        done.store(true, Ordering::Relaxed);
        let times = asking.await.expect("no request fails");
        // Five at once, and one that comes back every six seconds.
        let allowed = 6 + began.elapsed().as_secs() / 6;
        let fetches = issuer.fetches().await;
        assert!((2..=allowed).contains(&fetches), "{fetches} of {allowed}");
        let slowest = times.iter().max().copied().unwrap_or_default();
        assert!(slowest < Duration::from_secs(2), "{slowest:?} of {}", times.len());
    }

    async fn a_key_set_that_is_none_leaves_the_known_keys(target) {
        let issuer = BetterAuth::start().await;
        let app = issuer.app(target, &[]).await;
        // As many fetches as one server has for its unknown keys are too few for all modes.
        let replica = app.replica().await;
        let local = app.signed_up().await;
        let known = issuer.token_of("ann").await;
        let found = me(&app, &known).await.expect(200);
        assert_eq!(me(&replica, &known).await.expect(200), found);
        // A new key, which only the true set has: a client that followed the redirect, or read
        // without a limit, would find it.
        issuer.rotate().await;
        let user = issuer.sign_up().await;
        let new = issuer.token(&user).await;
        let modes = [(&app, ["slow", "redirect", "huge"]), (&replica, ["cut", "html", "error"])];
        for (server, modes) in modes {
            for mode in modes {
                issuer.serve_keys(mode).await;
                let fetches = issuer.fetches().await;
                is_unavailable(server, &new, mode).await;
                assert_eq!(issuer.fetches().await, fetches + 1, "{mode}");
                assert_eq!(me(server, &known).await.expect(200), found, "{mode}");
                local.at(&server.anonymous()).get(ME).await.expect(200);
            }
        }
        issuer.serve_keys("normal").await;
        for server in [&app, &replica] {
            me(server, &new).await.expect(200);
        }
        replica.stop().await.expect("a clean stop");
    }

    async fn a_withdrawn_key_ends_what_it_signed(target) {
        let issuer = BetterAuth::start().await;
        let app = issuer.app(target, &[]).await;
        let token = issuer.token_of("ann").await;
        me(&app, &token).await.expect(200);
        // The next fetch, which an unknown key causes, finds none.
        issuer.serve_keys("empty").await;
        me(&app, &with_kid("unknown")).await.problem(401, "unauthorized");
        me(&app, &token).await.problem(401, "unauthorized");
    }

    async fn an_issuer_that_does_not_answer_fails_only_its_unknown_keys(target) {
        let issuer = BetterAuth::start().await;
        let mut app = issuer.app(target, &[]).await;
        let local = app.signed_up().await;
        let known = issuer.token_of("ann").await;
        let found = me(&app, &known).await.expect(200);
        let unseen = issuer.token_of("bob").await;
        issuer.freeze();
        is_unavailable(&app, &with_kid("unknown"), "frozen").await;
        assert_eq!(me(&app, &known).await.expect(200), found);
        // Its key is known, the token is not.
        me(&app, &unseen).await.expect(200);
        local.get(ME).await.expect(200);

        // A server that starts meanwhile.
        app.stop_server().await.expect("a clean stop");
        let started = Instant::now();
        let restarted = app.replica().await;
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        local.at(&restarted.anonymous()).get(ME).await.expect(200);
        restarted.anonymous().get("/health/ready").await.expect(200);
        is_unavailable(&restarted, &known, "restarted").await;
        issuer.thaw();
        assert_eq!(me(&restarted, &known).await.expect(200), found);
        restarted.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_algorithm_that_is_not_accepted_is_logged_once() {
    let issuer = BetterAuth::start_with(&["--alg=ES512"]).await;
    let user = issuer.sign_up().await;
    let token = issuer.token(&user).await;
    for program in PROGRAMS {
        let dir = empty_dir();
        let url = issuer.issuer();
        let settings = [SECRET_SETTING, ("AUTH_ISSUER", &url), ("AUTH_AUDIENCE", AUDIENCE)];
        let process = Process::start(program, dir.path(), &settings).await;
        let client = Client::of(process.addr).bearing(&token);
        for _ in 0..3 {
            client.get(ME).await.problem(401, "unauthorized");
        }
        sleep(Duration::from_millis(200)).await;
        let output = process.stop().await;
        let lines = output.lines().filter(|line| line.contains("ES512")).count();
        assert_eq!(lines, 1, "{output}");
        let (_, signature) = token.rsplit_once('.').expect("three parts");
        assert!(!output.contains(signature), "{output}");
    }
}
