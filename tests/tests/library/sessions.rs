//! When sessions were last used, and the end of unused ones, on both databases.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};
use todo_core::{
    Clock, Core, Error, Secret,
    auth::{self, Caller, Client, Credentials, PasswordChange, Signup, Token},
    jobs::run_due,
};
use todo_tests::{App, Database, Server, Target};

const EMAIL: &str = "ann@example.com";
pub(super) const PASSWORD: &str = "Correct1horse";

/// Two processes on one database, whose clock starts in the future: the jobs of the app that owns
/// the database are not due for them.
pub(super) struct Processes {
    #[expect(dead_code, reason = "owns the database")]
    app: App,
    pub(super) cores: [Core; 2],
    minutes: Arc<AtomicI64>,
    pub(super) begin: DateTime<Utc>,
}

impl Processes {
    pub(super) async fn start(database: Database, idle_days: u16) -> Self {
        let mut app = App::start(Target { server: Server::Hyper, database }).await;
        app.stop_server().await.expect("a clean stop");
        let begin = Clock::system().now() + TimeDelta::days(1);
        let minutes: Arc<AtomicI64> = Arc::default();
        let open = async || {
            let now = Arc::clone(&minutes);
            let clock =
                Clock::from_fn(move || begin + TimeDelta::minutes(now.load(Ordering::Relaxed)));
            let secret = Secret::new(app.secret()).expect("a secret");
            let builder = Core::builder(secret).clock(clock).session_idle_days(idle_days);
            builder.open(app.database_url()).await.expect("the database opens")
        };
        let cores = [open().await, open().await];
        Self { app, cores, minutes, begin }
    }

    pub(super) fn advance(&self, time: TimeDelta) {
        self.minutes.fetch_add(time.num_minutes(), Ordering::Relaxed);
    }

    pub(super) async fn run_jobs(&self) {
        for core in &self.cores {
            run_due(core).await.expect("the queue");
        }
    }

    pub(super) async fn sign_up(&self) -> (Caller, Token) {
        let form = Signup::parse(EMAIL, PASSWORD, "Ann Other").expect("a form");
        let session = auth::signup(&self.cores[0], Client::Trusted, form).await.expect("a user");
        (self.caller(&session.token).await, session.token)
    }

    async fn log_in(&self) -> (Caller, Token) {
        let given = Credentials::parse(EMAIL, PASSWORD).expect("credentials");
        let session = auth::login(&self.cores[0], Client::Trusted, given).await.expect("a session");
        (self.caller(&session.token).await, session.token)
    }

    async fn caller(&self, token: &Token) -> Caller {
        auth::authenticate(&self.cores[0], token.as_str()).await.expect("a caller")
    }

    /// When the user's sessions were last used, in minutes from the begin, the newest first.
    async fn last_uses(&self, user: &Caller) -> Vec<i64> {
        let trusted = Caller::trusted(user.user_id());
        let sessions = auth::sessions(&self.cores[1], &trusted).await.expect("sessions");
        sessions.iter().map(|session| (session.seen_at - self.begin).num_minutes()).collect()
    }

    pub(super) async fn stop(self) {
        for core in self.cores {
            core.close().await;
        }
    }
}

on_both_databases! {
    async fn uses_are_written_in_batches_by_each_process(database) {
        let processes = Processes::start(database, 0).await;
        let (ann, token) = processes.sign_up().await;
        processes.advance(TimeDelta::minutes(1));
        let (_, phone) = processes.log_in().await;
        processes.run_jobs().await;
        assert_eq!(processes.last_uses(&ann).await, [1, 1], "used by the verification");
        processes.advance(TimeDelta::minutes(10));
        let _used = processes.caller(&token).await;
        assert_eq!(processes.last_uses(&ann).await, [1, 1], "no request writes");
        processes.run_jobs().await;
        assert_eq!(processes.last_uses(&ann).await, [1, 11]);
        processes.advance(TimeDelta::minutes(10));
        processes.run_jobs().await;
        assert_eq!(processes.last_uses(&ann).await, [1, 11], "not used since");
        // By another process.
        let there = auth::authenticate(&processes.cores[1], phone.as_str()).await;
        processes.advance(TimeDelta::minutes(1));
        processes.run_jobs().await;
        assert_eq!(processes.last_uses(&ann).await, [22, 11]);
        // A use of a session that has ended creates nothing.
        auth::authenticate(&processes.cores[0], phone.as_str()).await.expect("live");
        auth::logout(&processes.cores[1], phone.as_str()).await.expect("ended");
        processes.advance(TimeDelta::minutes(1));
        processes.run_jobs().await;
        assert_eq!(processes.last_uses(&there.expect("a caller")).await, [11]);
        processes.stop().await;
    }

    async fn unused_sessions_end(database) {
        let processes = Processes::start(database, 2).await;
        let (ann, token) = processes.sign_up().await;
        let (_, phone) = processes.log_in().await;
        processes.run_jobs().await;
        for _ in 0..3 {
            processes.advance(TimeDelta::days(1));
            processes.caller(&token).await;
            processes.run_jobs().await;
        }
        assert_eq!(processes.last_uses(&ann).await, [24 * 60 * 3], "the one that was used");
        let gone = auth::authenticate(&processes.cores[0], phone.as_str()).await;
        assert!(matches!(gone, Err(Error::Unauthenticated)), "{gone:?}");
        processes.caller(&token).await;
        processes.stop().await;
    }

    async fn without_a_limit_unused_sessions_live_as_long_as_their_tokens(database) {
        let processes = Processes::start(database, 0).await;
        let (ann, token) = processes.sign_up().await;
        processes.run_jobs().await;
        for _ in 0..6 {
            processes.advance(TimeDelta::days(1));
            processes.run_jobs().await;
        }
        processes.caller(&token).await;
        assert_eq!(processes.last_uses(&ann).await, [0]);
        processes.stop().await;
    }

    async fn a_host_program_changes_passwords_without_limits(database) {
        let processes = Processes::start(database, 0).await;
        let (ann, _) = processes.sign_up().await;
        let core = &processes.cores[0];
        let form = |current: &str, new: &str| {
            let parse = |text: &str| auth::Password::parse(text).expect("a password");
            PasswordChange::new(parse(current), parse(new))
        };
        for _ in 0..12 {
            let wrong = form("Wrong1horse", "Other2battery");
            let wrong = auth::change_password(core, &ann, Client::Trusted, wrong).await;
            assert!(matches!(wrong, Err(Error::InvalidCredentials)), "{wrong:?}");
        }
        let trusted = Caller::trusted(ann.user_id());
        let change = form(PASSWORD, "Other2battery");
        let session = auth::change_password(core, &trusted, Client::Trusted, change).await;
        let session = session.expect("a session");
        let ended = auth::check_session(core, &ann).await;
        assert!(matches!(ended, Err(Error::Unauthenticated)), "{ended:?}");
        auth::authenticate(core, session.token.as_str()).await.expect("the new one");
        assert_eq!(auth::end_other_sessions(core, &trusted).await.expect("all"), 1);
        processes.stop().await;
    }
}
