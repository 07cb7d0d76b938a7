use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use tokio::time::{Instant, advance};

use super::*;
use crate::identity::{
    IssuerOptions,
    test_support::{AUDIENCE, Answer, ISSUER, KEYS_URL, Setup, TestKey},
};

const UNKNOWN: VerifyError = UNKNOWN_KEY;

/// Lets spawned tasks run until all wait.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn is_valid(setup: &Setup, key: &TestKey) -> bool {
    setup.verify(&key.token()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_fresh_set_is_fetched_once_for_all() {
    let setup = Setup::new();
    setup.issuer.delay(Duration::from_secs(1));
    let requests: Vec<_> = (0..40).map(|_| setup.spawn_verify(setup.key.token())).collect();
    for request in requests {
        assert!(request.await.unwrap().is_ok());
    }
    advance(REFRESH_AGE.mul_f64(0.99)).await;
    assert!(is_valid(&setup, &setup.key).await);
    settle().await;
    assert_eq!(setup.issuer.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_set_is_refreshed_in_the_background() {
    let setup = Setup::new();
    let claims = setup.verify(&setup.key.token()).await.unwrap();
    setup.issuer.delay(Duration::from_secs(2));
    advance(REFRESH_AGE).await;
    let start = Instant::now();
    for _ in 0..10 {
        assert!(is_valid(&setup, &setup.key).await);
        assert!(setup.verifier.still_has_key(&claims.key));
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "a fetch delayed a known key");
    settle().await;
    advance(Duration::from_secs(2)).await;
    settle().await;
    assert_eq!(setup.issuer.fetches(), 2);
    // A look at a key that was verified before suffices.
    advance(REFRESH_AGE).await;
    assert!(setup.verifier.still_has_key(&claims.key));
    settle().await;
    assert_eq!(setup.issuer.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_revoked_at_the_issuer_is_forgotten() {
    let setup = Setup::new();
    let claims = setup.verify(&setup.key.token()).await.unwrap();
    let replaced = TestKey::ed("first");
    setup.issuer.publish(&[&replaced]);
    assert!(setup.verifier.still_has_key(&claims.key));
    advance(REFRESH_AGE).await;
    assert!(setup.verifier.still_has_key(&claims.key));
    settle().await;
    assert!(!setup.verifier.still_has_key(&claims.key));
    assert_eq!(setup.verify(&setup.key.token()).await, Err(VerifyError::Rejected("bad signature")));
    assert!(is_valid(&setup, &replaced).await);
}

#[tokio::test(start_paused = true)]
async fn an_empty_set_is_an_answer() {
    let setup = Setup::new();
    assert!(is_valid(&setup, &setup.key).await);
    setup.issuer.publish(&[]);
    advance(REFRESH_AGE).await;
    assert!(is_valid(&setup, &setup.key).await);
    settle().await;
    assert_eq!(setup.verify(&setup.key.token()).await, Err(UNKNOWN));
}

#[tokio::test(start_paused = true)]
async fn an_expired_set_is_used_only_after_the_issuer_was_asked() {
    let setup = Setup::new();
    let claims = setup.verify(&setup.key.token()).await.unwrap();
    setup.issuer.publish(&[]);
    advance(TTL).await;
    assert!(!setup.verifier.still_has_key(&claims.key));
    settle().await;
    // Nobody asked for an hour; in the meantime the key was revoked.
    setup.issuer.publish(&[&setup.key]);
    advance(Duration::from_hours(1)).await;
    assert!(is_valid(&setup, &setup.key).await);
    setup.issuer.publish(&[]);
    advance(Duration::from_hours(1)).await;
    assert_eq!(setup.verify(&setup.key.token()).await, Err(UNKNOWN));
}

#[tokio::test(start_paused = true)]
async fn a_set_expires_by_either_clock() {
    let setup = Setup::new();
    assert!(is_valid(&setup, &setup.key).await);
    setup.issuer.publish(&[]);
    // The wall clock is set back, and 10 minutes pass.
    setup.clock.add(TimeDelta::hours(-1));
    advance(TTL).await;
    setup.clock.add(TimeDelta::minutes(10));
    assert_eq!(setup.verify(&setup.key.token()).await, Err(UNKNOWN));
    // The machine sleeps, and its monotonic clock stands still.
    setup.issuer.publish(&[&setup.key]);
    advance(BUCKET_INTERVAL).await;
    setup.clock.add(TimeDelta::minutes(50));
    assert!(is_valid(&setup, &setup.key).await);
    setup.issuer.publish(&[]);
    advance(RETRY_INTERVAL).await;
    setup.clock.add(TimeDelta::minutes(10));
    assert_eq!(setup.verify(&setup.key.token()).await, Err(UNKNOWN));
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_fails_keeps_its_old_set() {
    for answer in [
        Answer::Error,
        Answer::Panic,
        Answer::Never,
        Answer::Raw(500, b"{\"keys\":[]}".to_vec()),
        Answer::Raw(302, b"{\"keys\":[]}".to_vec()),
        Answer::Raw(204, Vec::new()),
        Answer::Raw(200, b"<!doctype html>".to_vec()),
        Answer::Raw(200, b"{\"keys\":[{\"kty".to_vec()),
        Answer::Raw(200, Vec::new()),
        Answer::Json(json!({"keys": [], "x": "x".repeat(300_000)})),
    ] {
        let setup = Setup::new();
        let claims = setup.verify(&setup.key.token()).await.unwrap();
        setup.issuer.answer(KEYS_URL, answer);
        // For 23 hours, with requests all the time: known keys are used without a delay.
        for number in 1..23 * 12 {
            let start = Instant::now();
            assert!(is_valid(&setup, &setup.key).await, "after 5 * {number} minutes");
            assert!(setup.verifier.still_has_key(&claims.key));
            assert_eq!(start.elapsed(), Duration::ZERO);
            settle().await;
            advance(Duration::from_mins(5)).await;
            settle().await;
        }
        let start = Instant::now();
        let unknown = setup.verify(&TestKey::ed("second").token()).await;
        assert_eq!(unknown, Err(VerifyError::Unavailable));
        assert!(start.elapsed() <= Duration::from_millis(3_500), "{:?}", start.elapsed());
        advance(Duration::from_hours(2)).await;
        assert!(!setup.verifier.still_has_key(&claims.key));
        assert_eq!(setup.verify(&setup.key.token()).await, Err(VerifyError::Unavailable));
        // The issuer is back.
        setup.issuer.publish(&[&setup.key]);
        advance(Duration::from_mins(1)).await;
        settle().await;
        assert!(is_valid(&setup, &setup.key).await);
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_set_waits_for_a_frozen_issuer_once() {
    let setup = Setup::new();
    assert!(is_valid(&setup, &setup.key).await);
    setup.issuer.answer(KEYS_URL, Answer::Never);
    advance(Duration::from_hours(8)).await;
    let start = Instant::now();
    assert!(is_valid(&setup, &setup.key).await);
    assert!(start.elapsed() <= FETCH_TIMEOUT);
    let start = Instant::now();
    for _ in 0..100 {
        assert!(is_valid(&setup, &setup.key).await);
        settle().await;
    }
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn without_a_first_set_nothing_can_be_judged() {
    let setup = Setup::new();
    setup.issuer.answer(KEYS_URL, Answer::Never);
    let start = Instant::now();
    // The first five take a token each, one after the other.
    for _ in 0..6 {
        assert_eq!(setup.verify(&setup.key.token()).await, Err(VerifyError::Unavailable));
    }
    assert!(start.elapsed() <= Duration::from_millis(6 * 3_100));
    assert!(!setup.verifier.still_has_key(&KeyId::test()));
}

#[tokio::test(start_paused = true)]
async fn a_failing_issuer_is_asked_seldom() {
    let setup = Setup::new();
    assert!(is_valid(&setup, &setup.key).await);
    setup.issuer.answer(KEYS_URL, Answer::Error);
    advance(REFRESH_AGE).await;
    // For 2 minutes, a request each second.
    for _ in 0..120 {
        assert!(is_valid(&setup, &setup.key).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let background = setup.issuer.fetches();
    assert!((4..=6).contains(&background), "{background}");
    // Unknown keys empty the bucket; from then on they are not judged either, and at once.
    for _ in 0..20 {
        let unknown = setup.verify(&TestKey::ed("unknown").token()).await;
        assert_eq!(unknown, Err(VerifyError::Unavailable));
    }
    assert!(setup.issuer.fetches() <= background + 6);
}

#[tokio::test(start_paused = true)]
async fn rotated_keys_are_found_at_once() {
    let setup = Setup::new();
    assert!(is_valid(&setup, &setup.key).await);
    setup.issuer.delay(Duration::from_millis(20));
    // Each key is published a moment before its first token, as Better Auth does in a burst.
    let keys: Vec<TestKey> = (0..20).map(|n| TestKey::ed(&format!("rotated {n}"))).collect();
    let mut requests = Vec::new();
    for number in 0..keys.len() {
        let published: Vec<&TestKey> = keys[..=number].iter().collect();
        setup.issuer.publish(&published);
        for _ in 0..4 {
            requests.push(setup.spawn_verify(keys[number].token()));
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    for request in requests {
        assert!(request.await.unwrap().is_ok(), "a valid token was refused");
    }
    assert!(setup.issuer.fetches() <= 21, "{}", setup.issuer.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_began_before_the_token_does_not_decide() {
    let setup = Setup::new();
    assert!(is_valid(&setup, &setup.key).await);
    setup.issuer.delay(Duration::from_secs(1));
    let invented = setup.spawn_verify(TestKey::ed("invented").token());
    settle().await;
    // The answer to that fetch is made; now the issuer rotates.
    let second = TestKey::ed("second");
    setup.issuer.publish(&[&setup.key, &second]);
    assert!(is_valid(&setup, &second).await);
    assert_eq!(invented.await.unwrap(), Err(UNKNOWN));
    assert_eq!(setup.issuer.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn invented_keys_cause_few_fetches() {
    let setup = Setup::new();
    assert!(is_valid(&setup, &setup.key).await);
    setup.issuer.delay(Duration::from_millis(5));
    let template = TestKey::ed("x");
    let mut requests = Vec::new();
    for number in 0..1_000 {
        let header = json!({"alg": "EdDSA", "kid": format!("invented {number}")});
        let token = template.token_of(&header, &crate::identity::test_support::claims());
        requests.push(setup.spawn_verify(token));
        let start = Instant::now();
        assert!(is_valid(&setup, &setup.key).await);
        assert_eq!(start.elapsed(), Duration::ZERO, "a known key was delayed");
        advance(Duration::from_millis(1)).await;
    }
    for request in requests {
        assert_eq!(request.await.unwrap(), Err(UNKNOWN));
    }
    let fetches = setup.issuer.fetches() - 1;
    assert!((5..=6).contains(&fetches), "{fetches}");
    // A token of the bucket comes back after 6 seconds.
    setup.issuer.publish(&[&setup.key, &template]);
    assert_eq!(setup.verify(&template.token()).await, Err(UNKNOWN));
    advance(BUCKET_INTERVAL).await;
    assert!(is_valid(&setup, &template).await);
}

#[tokio::test(start_paused = true)]
async fn the_bucket_refills_up_to_its_size() {
    let mut bucket = Bucket { tokens: BUCKET_SIZE, refilled_at: Instant::now() };
    let take = |bucket: &mut Bucket| (0..10).filter(|_| bucket.take(Instant::now())).count();
    assert_eq!(take(&mut bucket), 5);
    assert_eq!(take(&mut bucket), 0);
    advance(BUCKET_INTERVAL * 2).await;
    assert_eq!(take(&mut bucket), 2);
    advance(BUCKET_INTERVAL.mul_f64(0.99)).await;
    assert_eq!(take(&mut bucket), 0);
    advance(Duration::from_hours(100)).await;
    assert_eq!(take(&mut bucket), 5);
    bucket.put_back();
    assert_eq!(take(&mut bucket), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_does_not_end_the_fetch_of_others() {
    let setup = Setup::new();
    setup.issuer.delay(Duration::from_secs(1));
    let first = setup.spawn_verify(setup.key.token());
    settle().await;
    let second = setup.spawn_verify(setup.key.token());
    settle().await;
    first.abort();
    assert!(second.await.unwrap().is_ok());
    assert_eq!(setup.issuer.fetches(), 1);
}

#[test]
fn a_fetch_whose_runtime_ended_is_repeated() {
    let setup = Setup::new();
    setup.issuer.answer(KEYS_URL, Answer::Never);
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    };
    runtime().block_on(async {
        drop(setup.spawn_verify(setup.key.token()));
        settle().await;
        assert_eq!(setup.issuer.fetches(), 1);
    });
    setup.issuer.publish(&[&setup.key]);
    assert!(runtime().block_on(is_valid(&setup, &setup.key)));
}

const DISCOVERY: &str = "https://login.example.com/.well-known/openid-configuration";
const BETTER_AUTH: &str = "https://login.example.com/api/auth/jwks";

fn discovered_setup() -> Setup {
    Setup::of(&IssuerOptions::new(ISSUER, AUDIENCE).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_key_set_is_that_of_the_discovery_document() {
    let setup = discovered_setup();
    let document = json!({"issuer": ISSUER, "jwks_uri": KEYS_URL});
    setup.issuer.answer(DISCOVERY, Answer::Json(document));
    assert!(is_valid(&setup, &setup.key).await);
    advance(TTL).await;
    assert!(is_valid(&setup, &setup.key).await);
    assert_eq!(setup.issuer.requests(), [DISCOVERY, KEYS_URL, KEYS_URL]);
    // The issuer moves its keys.
    let moved = "https://login.example.com/moved";
    setup.issuer.answer(KEYS_URL, Answer::Raw(404, Vec::new()));
    setup.issuer.answer(moved, Answer::keys(&[&setup.key]));
    let document = json!({"issuer": ISSUER, "jwks_uri": moved});
    setup.issuer.answer(DISCOVERY, Answer::Json(document));
    advance(TTL).await;
    assert!(is_valid(&setup, &setup.key).await);
    advance(RETRY_INTERVAL).await;
    assert!(is_valid(&setup, &setup.key).await);
    settle().await;
    assert_eq!(setup.issuer.requests()[4..], [DISCOVERY, moved]);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_without_a_document_is_better_auth() {
    for answer in [
        None,
        Some(Answer::Raw(401, Vec::new())),
        Some(Answer::Raw(200, b"<!doctype html>".to_vec())),
    ] {
        let setup = discovered_setup();
        if let Some(answer) = answer {
            setup.issuer.answer(DISCOVERY, answer);
        }
        setup.issuer.answer(BETTER_AUTH, Answer::keys(&[&setup.key]));
        assert!(is_valid(&setup, &setup.key).await);
        assert_eq!(setup.issuer.requests(), [DISCOVERY, BETTER_AUTH]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_that_must_not_be_used_is_not_better_auth() {
    for answer in [
        Answer::Json(json!({"issuer": "https://evil.example.com", "jwks_uri": KEYS_URL})),
        Answer::Json(json!({"issuer": format!("{ISSUER}/"), "jwks_uri": KEYS_URL})),
        Answer::Json(json!({"issuer": ISSUER})),
        Answer::Json(json!({"issuer": ISSUER, "jwks_uri": "http://localhost/keys"})),
        Answer::Json(json!({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"})),
        Answer::Json(json!({
            "issuer": ISSUER, "jwks_uri": KEYS_URL, "token_endpoint": "http://10.0.0.1/",
        })),
        Answer::Json(json!([])),
        Answer::Raw(500, Vec::new()),
        Answer::Raw(429, Vec::new()),
        Answer::Raw(302, Vec::new()),
        Answer::Error,
        Answer::Never,
    ] {
        let setup = discovered_setup();
        setup.issuer.answer(DISCOVERY, answer);
        setup.issuer.answer(BETTER_AUTH, Answer::keys(&[&setup.key]));
        let start = Instant::now();
        let result = setup.verify(&setup.key.token()).await;
        assert_eq!(result, Err(VerifyError::Unavailable));
        assert!(start.elapsed() <= Duration::from_millis(3_500));
        assert_eq!(setup.issuer.requests(), [DISCOVERY]);
    }
}
