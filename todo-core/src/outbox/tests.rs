#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, Ordering},
};

use super::*;
use crate::{
    Clock, Secret,
    auth::{self, Client},
    mail::{MailOptions, Mailer, Message, SendFuture},
};

/// A transport with a given result, which keeps what it is given.
#[derive(Default)]
struct Fake {
    result: Mutex<Option<SendError>>,
    given: Mutex<Vec<Message>>,
    panics: bool,
    stalls: bool,
}

impl Mailer for Fake {
    fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
        Box::pin(async move {
            assert!(!self.panics, "as the test requires");
            self.given.lock().unwrap().push(message.clone());
            if self.stalls {
                std::future::pending::<()>().await;
            }
            self.result.lock().unwrap().clone().map_or(Ok(()), Err)
        })
    }
}

struct Outbox {
    core: Core,
    mailer: Arc<Fake>,
    seconds: Arc<AtomicI64>,
}

impl Outbox {
    async fn with(fake: Fake, per_hour: u32) -> Self {
        let seconds = Arc::new(AtomicI64::new(1_800_000_000));
        let now = Arc::clone(&seconds);
        let clock = Clock::from_fn(move || {
            DateTime::UNIX_EPOCH + TimeDelta::seconds(now.load(Ordering::Relaxed))
        });
        let mailer = Arc::new(fake);
        let from = "todo@example.com".parse().unwrap();
        let mail = MailOptions::new(mailer.clone(), from, "https://app.example");
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let builder = Core::builder(secret).clock(clock).mail(mail.per_hour(per_hour));
        let core = builder.open("sqlite::memory:").await.unwrap();
        Self { core, mailer, seconds }
    }

    async fn new() -> Self {
        Self::with(Fake::default(), 500).await
    }

    fn fail(&self, error: Option<SendError>) {
        *self.mailer.result.lock().unwrap() = error;
    }

    fn advance(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    async fn sign_up(&self, email: &str) {
        let form = auth::Signup::parse(email, "Correct1horse", "Ada Lovelace").unwrap();
        auth::signup(&self.core, Client::Trusted, form).await.unwrap();
    }

    async fn forget(&self, email: &str) {
        let email = email.parse().unwrap();
        auth::request_password_reset(&self.core, Client::Trusted, email).await.unwrap();
    }

    async fn deliver(&self) -> bool {
        deliver_next(&self.core).await.unwrap()
    }

    fn count(&self, kind: MailKind, result: MailResult) -> u64 {
        self.core.mail().unwrap().counters.totals().0[kind as usize][result as usize]
    }

    fn given(&self) -> Vec<String> {
        let given = self.mailer.given.lock().unwrap();
        given.iter().map(|mail| String::from_utf8(mail.as_bytes().to_vec()).unwrap()).collect()
    }
}

/// Users of other issuers may have such an address.
#[tokio::test]
async fn no_mail_is_sent_to_an_address_that_stands_for_none() {
    let outbox = Outbox::new().await;
    outbox.sign_up("ada@users.invalid").await;
    assert!(!outbox.deliver().await && outbox.given().is_empty());
    outbox.sign_up("ada@example.com").await;
    assert!(outbox.deliver().await);
    assert_eq!(outbox.given().len(), 1);
}

#[tokio::test]
async fn a_request_without_an_account_sends_nothing() {
    let outbox = Outbox::new().await;
    outbox.forget("nobody@example.com").await;
    assert!(outbox.deliver().await);
    assert!(!outbox.deliver().await && outbox.given().is_empty());
    assert_eq!(outbox.count(MailKind::Reset, MailResult::Dropped), 1);

    outbox.sign_up("ada@example.com").await;
    assert!(outbox.deliver().await);
    outbox.forget("ada@example.com").await;
    while outbox.deliver().await {}
    let given = outbox.given();
    assert_eq!(given.len(), 2, "{given:?}");
    assert!(given[1].contains("https://app.example/reset#token="), "{given:?}");
    // Over the limit of a minute.
    outbox.forget("ada@example.com").await;
    assert!(!outbox.deliver().await);
    outbox.advance(61);
    outbox.forget("ada@example.com").await;
    assert!(outbox.deliver().await);
}

#[tokio::test]
async fn an_address_gets_five_mails_of_a_kind_a_day() {
    let outbox = Outbox::new().await;
    outbox.sign_up("ada@example.com").await;
    while outbox.deliver().await {}
    for _ in 0..8 {
        outbox.forget("ada@example.com").await;
        outbox.deliver().await;
        outbox.advance(61);
    }
    assert_eq!(outbox.count(MailKind::Reset, MailResult::Sent), 5);
    outbox.advance(24 * 3600);
    outbox.forget("ada@example.com").await;
    assert!(outbox.deliver().await);
}

#[tokio::test]
async fn a_repeated_mail_has_the_same_bytes() {
    let outbox = Outbox::new().await;
    outbox.sign_up("ada@example.com").await;
    outbox.fail(Some(SendError::temporary("451 4.3.0")));
    assert!(outbox.deliver().await);
    assert!(!outbox.deliver().await, "not due yet");
    for delay in [15, 30, 60] {
        outbox.advance(delay - 1);
        assert!(!outbox.deliver().await, "{delay}");
        outbox.advance(1);
        assert!(outbox.deliver().await, "{delay}");
    }
    outbox.fail(None);
    outbox.advance(120);
    assert!(outbox.deliver().await && !outbox.deliver().await);
    let given = outbox.given();
    assert!(given.len() == 5 && given.iter().all(|mail| *mail == given[0]), "{given:?}");
    assert_eq!(outbox.count(MailKind::Verify, MailResult::Retried), 4);
    assert_eq!(outbox.count(MailKind::Verify, MailResult::Sent), 1);
}

#[tokio::test]
async fn a_mail_is_not_sent_after_its_time_or_a_rejection() {
    let outbox = Outbox::new().await;
    outbox.sign_up("ada@example.com").await;
    outbox.fail(Some(SendError::rejected("550 5.1.1")));
    assert!(outbox.deliver().await);
    outbox.forget("ada@example.com").await;
    outbox.fail(Some(SendError::temporary("cut")));
    let mut attempts = 0;
    for _ in 0..24 * 60 {
        attempts += u32::from(outbox.deliver().await);
        outbox.advance(60);
    }
    // After 0, 15, 45, 105, … seconds: the last one within half an hour.
    assert_eq!(attempts, 7);
    assert_eq!(outbox.count(MailKind::Reset, MailResult::Expired), 1);
    assert_eq!(outbox.count(MailKind::Verify, MailResult::Rejected), 1);
}

#[tokio::test]
async fn a_misconfigured_transport_fails_no_mail() {
    let outbox = Outbox::new().await;
    outbox.sign_up("ada@example.com").await;
    outbox.fail(Some(SendError::misconfigured("535 5.7.8")));
    assert!(outbox.deliver().await);
    outbox.fail(None);
    outbox.advance(7200);
    assert!(!outbox.deliver().await, "it is paused");
    // What /metrics reports.
    assert_eq!(outbox.core.mail().unwrap().counters.totals().1, 7200);
    let mail = outbox.core.mail().unwrap();
    assert!(!mail.is_paused_at(Instant::now() + Duration::from_mins(1)));
    mail.pause_until(Instant::now());
    assert!(outbox.deliver().await);
    assert_eq!(outbox.count(MailKind::Verify, MailResult::Sent), 1);
    outbox.deliver().await;
    assert_eq!(outbox.core.mail().unwrap().counters.totals().1, 0);
}

#[tokio::test]
async fn an_attempt_may_panic() {
    let panicking = Outbox::with(Fake { panics: true, ..Fake::default() }, 500).await;
    panicking.sign_up("ada@example.com").await;
    assert!(panicking.deliver().await);
    assert_eq!(panicking.count(MailKind::Verify, MailResult::Retried), 1);
}

#[tokio::test]
async fn an_attempt_is_bounded() {
    let stalling = Outbox::with(Fake { stalls: true, ..Fake::default() }, 500).await;
    stalling.sign_up("ada@example.com").await;
    let mail = stalling.core.mail().unwrap();
    let leased = lease_next(&stalling.core, mail).await.unwrap().unwrap();
    // The database is not used from here on: its deadlines would pass too.
    tokio::time::pause();
    let start = Instant::now();
    let (result, _, _) = attempt(&stalling.core, mail, &leased).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), SEND_TIMEOUT.as_secs());
    assert_eq!(result, MailResult::Retried);
}

#[tokio::test]
async fn an_hour_has_a_limit() {
    let outbox = Outbox::with(Fake::default(), 2).await;
    for email in ["a@example.com", "b@example.com", "c@example.com"] {
        outbox.sign_up(email).await;
    }
    assert!(outbox.deliver().await && outbox.deliver().await && !outbox.deliver().await);
    outbox.advance(3601);
    assert!(outbox.deliver().await);
}

#[tokio::test]
async fn a_late_process_does_not_overwrite_a_later_attempt() {
    let outbox = Outbox::new().await;
    outbox.sign_up("ada@example.com").await;
    let mail = outbox.core.mail().unwrap();
    let late = lease_next(&outbox.core, mail).await.unwrap().unwrap();
    assert!(lease_next(&outbox.core, mail).await.unwrap().is_none(), "it is leased");
    outbox.advance(61);
    let again = lease_next(&outbox.core, mail).await.unwrap().unwrap();
    assert_eq!((again.id, again.attempts), (late.id, 2));
    release(&outbox.core, &late, End::Sent, None).await.unwrap();
    outbox.advance(61);
    let third = lease_next(&outbox.core, mail).await.unwrap();
    assert!(third.is_some_and(|third| third.attempts == 3), "the late end has no effect");
}

#[tokio::test]
async fn old_rows_are_deleted() {
    let outbox = Outbox::new().await;
    outbox.sign_up("ada@example.com").await;
    let rows = || async {
        let count = Statement::new("SELECT count(*), count(*) FROM mails");
        let (rows, _): (i64, i64) = outbox.core.db().fetch_one(count).await.unwrap();
        rows
    };
    outbox.advance(48 * 3600 - 1);
    delete_expired(&outbox.core).await.unwrap();
    assert_eq!(rows().await, 1);
    outbox.advance(1);
    delete_expired(&outbox.core).await.unwrap();
    assert_eq!(rows().await, 0);
}

#[tokio::test]
async fn a_link_works_once_and_until_the_account_changes() {
    let outbox = Outbox::new().await;
    let core = &outbox.core;
    outbox.sign_up("ada@example.com").await;
    let token = |mail: &str| {
        let (_, token) = mail.split_once("#token=").unwrap();
        token.lines().next().unwrap().to_owned()
    };
    outbox.deliver().await;
    let verify = token(&outbox.given()[0]);
    outbox.forget("ada@example.com").await;
    outbox.deliver().await;
    let reset = token(&outbox.given()[1]);
    let new = || "Other2battery".parse().unwrap();
    let reset_with = |token: String| async move {
        auth::reset_password(core, Client::Trusted, &token, new()).await
    };
    assert_eq!(reset_with(verify.clone()).await.unwrap_err().code(), "invalid_link");
    let confirmed = auth::confirm_email(core, Client::Trusted, &reset).await;
    assert_eq!(confirmed.unwrap_err().code(), "invalid_link");
    outbox.advance(30 * 60);
    assert_eq!(reset_with(reset).await.unwrap_err().code(), "invalid_link", "it has expired");

    let user = auth::confirm_email(core, Client::Trusted, &verify).await.unwrap();
    assert!(user.email_verified);
    let again = auth::confirm_email(core, Client::Trusted, &verify).await;
    assert_eq!(again.unwrap_err().code(), "invalid_link");
    let caller = auth::Caller::trusted(user.id);
    let verified = auth::request_verification(core, &caller, Client::Trusted).await;
    assert_eq!(verified.unwrap_err().code(), "already_verified");

    outbox.forget("ada@example.com").await;
    outbox.deliver().await;
    let reset = token(outbox.given().last().unwrap());
    reset_with(reset.clone()).await.unwrap();
    assert_eq!(reset_with(reset).await.unwrap_err().code(), "invalid_link");
    while outbox.deliver().await {}
    assert!(outbox.given().last().unwrap().contains("Subject: Your password was changed"));
}

/// The text of the condition has the names of all kinds.
#[test]
fn every_kind_is_sent() {
    for kind in MailKind::ALL {
        assert!(unsent!().contains(&format!("'{}'", kind.as_str())), "{kind:?}");
    }
}
