//! Tests of the library with a controlled clock, so that minutes and days pass at once. Each case
//! runs on both databases.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use todo_core::{
    Clock, Core, CoreBuilder, DatabaseOptions, Error, Secret,
    auth::{self, Caller, Client, Credentials, Signup, Token},
    todos::{self, NewTodo},
};
use todo_tests::{App, Database, Server, Target, execute_sql};
use uuid::Uuid;

const PASSWORD: &str = "Correct1horse";
const CLIENT: Client = Client::At(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)));

/// A core with its own database, and a clock that only [`Library::pass`] moves.
struct Library {
    core: Core,
    seconds: Arc<AtomicI64>,
    app: App,
}

impl Library {
    async fn open(database: Database, change: impl FnOnce(CoreBuilder) -> CoreBuilder) -> Self {
        let mut app = App::start(Target { server: Server::Hyper, database }).await;
        app.stop_server().await.expect("a clean stop");
        let seconds = Arc::new(AtomicI64::new(1_800_000_000));
        let now = Arc::clone(&seconds);
        let clock = Clock::from_fn(move || {
            chrono::DateTime::from_timestamp(now.load(Ordering::Relaxed), 0).expect("a time")
        });
        let builder = Core::builder(Secret::new(app.secret()).expect("a long enough secret"))
            .database(DatabaseOptions::new().timeout(Duration::from_secs(10)))
            .clock(clock);
        let core = change(builder).open(app.database_url()).await.expect("a second core");
        Self { core, seconds, app }
    }

    fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    async fn sign_up(&self, email: &str) -> Token {
        let form = Signup::parse(email, PASSWORD, "Some Body").expect("a valid form");
        auth::signup(&self.core, Client::Trusted, form).await.expect("a new account").token
    }

    async fn caller(&self, email: &str) -> Caller {
        let token = self.sign_up(email).await;
        auth::authenticate(&self.core, token.as_str()).await.expect("a valid token")
    }

    /// A failed login from this address.
    async fn fail_from(&self, address: &str) -> Error {
        let given = Credentials::parse("ann@example.com", "Wrong1horse").expect("a valid form");
        let client = Client::At(address.parse().expect("an address"));
        auth::login(&self.core, client, given).await.expect_err("a wrong password")
    }

    async fn log_in(&self, password: &str) -> Result<Token, Error> {
        let given = Credentials::parse("ann@example.com", password).expect("a valid form");
        auth::login(&self.core, CLIENT, given).await.map(|session| session.token)
    }
}

on_both_databases! {
    // A fixed window would let four attempts through around its edge.
    async fn the_minute_of_a_rate_limit_slides(database) {
        let library = Library::open(database, |core| core.rate_limit_per_minute(2)).await;
        library.sign_up("ann@example.com").await;
        let wrong = async || library.log_in("Wrong1horse").await.expect_err("a wrong password");
        let limited = |error: Error| match error {
            Error::RateLimited { retry_after } => retry_after.as_secs(),
            other => panic!("{other:?}"),
        };
        assert!(matches!(wrong().await, Error::InvalidCredentials));
        library.pass(30);
        assert!(matches!(wrong().await, Error::InvalidCredentials));
        library.pass(29);
        assert_eq!(limited(wrong().await), 1, "59 s after the first, 29 after the second");
        assert_eq!(limited(library.log_in(PASSWORD).await.expect_err("limited")), 1);
        library.pass(1);
        assert!(matches!(wrong().await, Error::InvalidCredentials));
        assert_eq!(limited(wrong().await), 30, "the second is 30 s old, the third is new");
        library.pass(30);
        library.log_in(PASSWORD).await.expect("a right password is not charged");
        library.log_in(PASSWORD).await.expect("nor are repeated ones");
        assert!(matches!(wrong().await, Error::InvalidCredentials));
    }

    async fn a_sweep_deletes_what_has_expired_and_nothing_else(database) {
        let library = Library::open(database, |core| core.rate_limit_per_minute(1)).await;
        let old = library.sign_up("ann@example.com").await;
        library.log_in("Wrong1horse").await.expect_err("a wrong password");
        library.pass(6 * 86_400);
        let new = library.log_in(PASSWORD).await.expect("a second session");
        library.log_in("Wrong1horse").await.expect_err("a wrong password");
        library.pass(86_400);
        auth::delete_expired(&library.core).await.expect("a sweep");

        // Set back to a time at which both tokens are valid: only one session is left.
        library.pass(-86_400);
        let lives = async |token: &Token| auth::authenticate(&library.core, token.as_str()).await;
        assert!(matches!(lives(&old).await, Err(Error::Unauthenticated)), "it is deleted");
        lives(&new).await.expect("a session that has not expired");
        // The attempt of a day ago is deleted; those within the minute are kept.
        library.log_in("Wrong1horse").await.expect_err("a wrong password");
        auth::delete_expired(&library.core).await.expect("a sweep");
        let again = library.log_in(PASSWORD).await.expect_err("still limited");
        assert!(matches!(again, Error::RateLimited { .. }), "{again:?}");
    }

    // Attempts stored before the clock was set back are in the future, and must not block a user.
    async fn setting_the_clock_back_locks_no_user_out(database) {
        let library = Library::open(database, |core| core.rate_limit_per_minute(2)).await;
        let token = library.sign_up("ann@example.com").await;
        let wrong = async || library.log_in("Wrong1horse").await.expect_err("a wrong password");
        for _ in 0..2 {
            assert!(matches!(wrong().await, Error::InvalidCredentials));
        }
        library.pass(-4);
        assert!(matches!(wrong().await, Error::RateLimited { .. }), "clocks differ a little");
        library.pass(-3600);
        library.log_in(PASSWORD).await.expect("a right password");
        for _ in 0..2 {
            assert!(matches!(wrong().await, Error::InvalidCredentials));
        }
        assert!(matches!(wrong().await, Error::RateLimited { .. }), "the limit is still exact");
        auth::authenticate(&library.core, token.as_str()).await.expect("a session created in the future");
        auth::delete_expired(&library.core).await.expect("a sweep");
        assert!(matches!(wrong().await, Error::RateLimited { .. }), "recent attempts stay");
        library.pass(61);
        assert!(matches!(wrong().await, Error::InvalidCredentials));
    }

    // A subscriber (/56) has 256 networks of /64, a site (/48) 65,536.
    async fn ipv6_clients_are_limited_at_three_prefix_lengths(database) {
        let library = Library::open(database, |core| core.rate_limit_per_minute(1)).await;
        let limited = async |address: &str| match library.fail_from(address).await {
            Error::InvalidCredentials => false,
            Error::RateLimited { retry_after } => {
                assert!((1..=60).contains(&retry_after.as_secs()), "{address}: {retry_after:?}");
                true
            }
            other => panic!("{address}: {other:?}"),
        };
        assert!(!limited("2001:db8:0:100::1").await);
        assert!(limited("2001:db8:0:100:ffff::1").await, "the same /64");
        assert!(!limited("2001:db8:0:101::1").await && !limited("2001:db8:0:102::1").await);
        assert!(limited("2001:db8:0:103::1").await, "three of a /56");
        for n in 2..7 {
            assert!(!limited(&format!("2001:db8:0:{n}00::1")).await, "{n}");
        }
        assert!(limited("2001:db8:0:700::1").await, "eight of a /48");
        assert!(!limited("2001:db8:1:100::1").await, "another site");
        // IPv4 addresses are limited one by one.
        for n in 1..12 {
            assert!(!limited(&format!("192.0.2.{n}")).await, "{n}");
        }
        library.pass(60);
        assert!(!limited("2001:db8:0:700::1").await);
    }

    async fn the_limit_of_a_site_is_exact_under_concurrency(database) {
        let library = Library::open(database, |core| core.rate_limit_per_minute(1)).await;
        let outcomes = todo_tests::at_once(40, |n| {
            let core = library.core.clone();
            async move {
                let given = Credentials::parse("ann@example.com", "Wrong1horse").expect("a form");
                let client = format!("2001:db8:0:{n:x}00::1").parse().expect("an address");
                auth::login(&core, Client::At(client), given).await.expect_err("a wrong password")
            }
        })
        .await;
        let failed = |error: &&Error| matches!(error, Error::InvalidCredentials);
        assert_eq!(outcomes.iter().filter(failed).count(), 8);
        let limited = |error: &&Error| matches!(error, Error::RateLimited { .. });
        assert_eq!(outcomes.iter().filter(limited).count(), 32);
    }

    async fn a_session_ends_with_its_last_second(database) {
        let hour = chrono::TimeDelta::hours(1);
        let library = Library::open(database, |core| core.session_lifetime(hour)).await;
        let token = library.sign_up("ann@example.com").await;
        library.pass(3599);
        auth::authenticate(&library.core, token.as_str()).await.expect("valid until then");
        library.pass(1);
        let ended = auth::authenticate(&library.core, token.as_str()).await;
        assert!(matches!(ended, Err(Error::Unauthenticated)));
    }

    async fn updated_at_moves_while_the_clock_stands_still(database) {
        let library = Library::open(database, |core| core).await;
        let token = library.sign_up("ann@example.com").await;
        let caller = auth::authenticate(&library.core, token.as_str()).await.expect("a valid token");
        let new = NewTodo::new("x".parse().expect("a title"));
        let mut todo = todos::create(&library.core, &caller, new).await.expect("a todo");
        library.pass(-60);
        for completed in [true, true, false] {
            let next = todos::set_completed(&library.core, &caller, todo.id, completed).await;
            let next = next.expect("a change").todo;
            assert!(next.updated_at > todo.updated_at, "{next:?} after {todo:?}");
            todo = next;
        }
    }

    async fn a_deleted_todo_can_be_restored_until_it_expires(database) {
        const DAY: i64 = 24 * 60 * 60;
        let library = Library::open(database, |core| core.trash_days(2)).await;
        let caller = library.caller("ann@example.com").await;
        let core = &library.core;
        let make = async |title: &str| {
            let new = NewTodo::new(title.parse().expect("a title"));
            todos::create(core, &caller, new).await.expect("a todo")
        };
        let titles = async || {
            let page = todos::list_trash(core, &caller, None, None).await.expect("the trash");
            assert_eq!(page.total, page.todos.len() as i64);
            let titles = page.todos.into_iter().map(|each| each.todo.title.to_string());
            titles.collect::<Vec<_>>()
        };
        let (early, late) = (make("early").await, make("late").await);
        todos::delete(core, &caller, early.id).await.expect("deleted");
        library.pass(DAY);
        todos::delete(core, &caller, late.id).await.expect("deleted");
        library.pass(DAY - 1);
        assert_eq!(titles().await, ["late", "early"]);
        // Expired rows are invisible before they are deleted, and gone after.
        library.pass(1);
        for _ in 0..2 {
            assert_eq!(titles().await, ["late"]);
            let expired = todos::restore(core, &caller, early.id).await;
            assert!(matches!(expired, Err(Error::NotFound)), "{expired:?}");
            todos::delete_expired(core).await.expect("a clean-up");
        }
        let restored = todos::restore(core, &caller, late.id).await.expect("restored");
        assert_eq!(restored.title, late.title);
        assert!(titles().await.is_empty());
    }

    async fn the_trash_keeps_the_last_deleted_todos(database) {
        let library = Library::open(database, |core| core).await;
        let caller = library.caller("ann@example.com").await;
        let core = &library.core;
        let new = NewTodo::new("kept".parse().expect("a title"));
        let todo = todos::create(core, &caller, new).await.expect("a todo");
        todos::delete(core, &caller, todo.id).await.expect("deleted");
        // More were deleted within the minute before.
        let columns = "id, user_id, title, title_key, priority, completed, created_at, updated_at, \
            deleted_at";
        let rest = "user_id, 'older', 'older', priority, completed, created_at, updated_at";
        execute_sql(library.app.database_url(), &match database {
            Database::Sqlite => format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 11200) \
                 INSERT INTO trash ({columns}) \
                 SELECT randomblob(16), {rest}, deleted_at - i FROM n CROSS JOIN trash"
            ),
            Database::Postgres => format!(
                "INSERT INTO trash ({columns}) SELECT gen_random_uuid(), {rest}, \
                 deleted_at - i * interval '1 microsecond' \
                 FROM trash CROSS JOIN generate_series(1, 11200) AS i"
            ),
        })
        .await;
        todos::delete_expired(core).await.expect("a clean-up");
        let page = todos::list_trash(core, &caller, None, None).await.expect("the trash");
        assert_eq!(page.total, i64::from(todos::MAX_TRASHED));
        assert_eq!(page.todos[0].todo.title, "kept");
        assert_eq!(todos::empty_trash(core, &caller).await.expect("emptied"), 10_000);
        let page = todos::list_trash(core, &caller, None, None).await.expect("the trash");
        assert_eq!((page.total, page.todos.len()), (0, 0));
    }

    async fn a_key_is_free_again_after_a_day(database) {
        let library = Library::open(database, |core| core).await;
        let caller = library.caller("ann@example.com").await;
        let core = &library.core;
        let create = async |title: &str| {
            let new = NewTodo::new(title.parse().expect("a title"));
            todos::create_once(core, &caller, "key".parse().expect("a key"), new).await
        };
        let first = create("milk").await.expect("a todo");
        assert!(!first.is_replay);
        library.pass(24 * 60 * 60);
        let again = create("milk").await.expect("the first todo");
        assert_eq!((again.is_replay, &again.todo), (true, &first.todo));
        let other = create("beer").await;
        assert!(matches!(other, Err(Error::KeyReused)), "{other:?}");
        library.pass(1);
        let second = create("beer").await.expect("another todo");
        assert!(!second.is_replay);
        library.pass(24 * 60 * 60 + 1);
        todos::delete_expired(core).await.expect("a clean-up");
        assert!(!create("wine").await.expect("a todo").is_replay);
    }

    async fn a_trusted_caller_without_an_account_is_unauthenticated(database) {
        let library = Library::open(database, |core| core).await;
        let unknown = Caller::trusted(Uuid::from_u128(7).into());
        let new = NewTodo::new("x".parse().expect("a title"));
        let made = todos::create(&library.core, &unknown, new).await;
        assert!(matches!(made, Err(Error::Unauthenticated)), "{made:?}");
        let new = NewTodo::new("x".parse().expect("a title"));
        let key = "key".parse().expect("a key");
        let made = todos::create_once(&library.core, &unknown, key, new).await;
        assert!(matches!(made, Err(Error::Unauthenticated)), "{made:?}");
        let changes = todos::changes(&library.core, &unknown, None, None).await;
        assert!(matches!(changes, Err(Error::Unauthenticated)), "{changes:?}");
        let me = auth::current_user(&library.core, &unknown).await;
        assert!(matches!(me, Err(Error::Unauthenticated)), "{me:?}");
    }

    async fn a_closed_core_is_unavailable(database) {
        let library = Library::open(database, |core| core).await;
        library.core.ping().await.expect("a ping");
        library.core.close().await;
        let ping = library.core.ping().await;
        assert!(matches!(ping, Err(Error::Unavailable(_))), "{ping:?}");
    }

    // This runtime has a single worker, as in a container of one core. Waiting for a second worker
    // cost 5 ms per read. The best of 50, since a busy machine is slow at times.
    async fn a_read_on_a_single_worker_does_not_wait_for_another(database) {
        let library = Library::open(database, |core| core).await;
        let token = library.sign_up("ann@example.com").await;
        let caller = auth::authenticate(&library.core, token.as_str()).await.expect("a valid token");
        let mut best = Duration::MAX;
        for _ in 0..50 {
            let began = Instant::now();
            auth::current_user(&library.core, &caller).await.expect("an account");
            best = best.min(began.elapsed());
        }
        assert!(best < Duration::from_millis(4), "{best:?}");
    }
}
