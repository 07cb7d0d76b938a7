use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::db::{address::Address, postgres::connect_options};

/// The driver's parts of an address: user, host or socket, port and database.
fn read(url: &str) -> [String; 4] {
    let options = connect_options(url).unwrap_or_else(|error| panic!("{url}: {error}"));
    let location = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => options.get_host().to_owned(),
    };
    [
        options.get_username().to_owned(),
        location,
        options.get_port().to_string(),
        options.get_database().unwrap_or_default().to_owned(),
    ]
}

fn password(url: &str) -> Option<String> {
    let Ok(Address::Postgres(address)) = Address::parse(url) else { panic!("{url}") };
    address.password
}

#[rustfmt::skip] // a table
const READ: &[(&str, [&str; 4])] = &[
    // libpq, 34.1.1.2
    ("postgresql://u@localhost", ["u", "localhost", "5432", ""]),
    ("postgresql://u@localhost:5433", ["u", "localhost", "5433", ""]),
    ("postgresql://u@localhost/mydb", ["u", "localhost", "5432", "mydb"]),
    ("postgresql://u:secret@localhost", ["u", "localhost", "5432", ""]),
    ("postgresql://other@localhost/otherdb?connect_timeout=10&application_name=myapp", ["other", "localhost", "5432", "otherdb"]),
    ("postgresql://u@host1:123/somedb?target_session_attrs=any&application_name=myapp", ["u", "host1", "123", "somedb"]),
    ("postgresql:///mydb?user=other&host=localhost&port=5433", ["other", "localhost", "5433", "mydb"]),
    ("postgresql://u@localhost/mydb?options=-c%20synchronous_commit%3Doff", ["u", "localhost", "5432", "mydb"]),
    ("postgresql://u@[2001:db8::1234]/database", ["u", "2001:db8::1234", "5432", "database"]),
    ("postgres://u:p@[::1]:5432/db", ["u", "::1", "5432", "db"]),
    ("postgres://u:p@[fe80::1%25eth0]:5432/db", ["u", "fe80::1%eth0", "5432", "db"]),
    ("postgresql:///db?user=u&host=::1", ["u", "::1", "5432", "db"]),
    ("postgresql:///db?user=u&host=[::1]", ["u", "::1", "5432", "db"]),
    ("postgresql:///dbname?user=u&host=/var/lib/postgresql", ["u", "/var/lib/postgresql", "5432", "dbname"]),
    ("postgresql://u@%2Fvar%2Flib%2Fpostgresql/dbname", ["u", "/var/lib/postgresql", "5432", "dbname"]),
    ("postgresql://%2Fvar%2Flib%2Fpostgresql:5433/dbname?user=u", ["u", "/var/lib/postgresql", "5433", "dbname"]),
    ("postgresql://u@h/db?hostaddr=192.0.2.7", ["u", "192.0.2.7", "5432", "db"]),
    ("postgresql://u@h:/db", ["u", "h", "5432", "db"]),
    ("postgresql://h/db?user=u&dbname=other", ["u", "h", "5432", "other"]),
    // SQLAlchemy, "Database URLs" and "PostgreSQL"
    ("postgresql+psycopg2://scott:tiger@localhost/mydatabase", ["scott", "localhost", "5432", "mydatabase"]),
    ("postgresql+pg8000://scott:tiger@localhost/mydatabase", ["scott", "localhost", "5432", "mydatabase"]),
    ("postgresql+psycopg://scott:tiger@localhost:5432/my?connect_timeout=10", ["scott", "localhost", "5432", "my"]),
    ("postgresql+psycopg_async://u:p@h/db", ["u", "h", "5432", "db"]),
    ("postgresql+asyncpg://u:p@h/db?prepared_statement_cache_size=500", ["u", "h", "5432", "db"]),
    ("postgresql+psycopg2://u:p@/dbname?host=/var/lib/postgresql", ["u", "/var/lib/postgresql", "5432", "dbname"]),
    ("postgresql://user%40x:kx%40jj5%2Fg@pghost10/appdb", ["user@x", "pghost10", "5432", "appdb"]),
    // Cloud SQL
    ("postgresql+asyncpg://u:p@/db?host=/cloudsql/p:r:i", ["u", "/cloudsql/p:r:i", "5432", "db"]),
    ("postgresql+asyncpg://u:p@/db?host=/cloudsql/p:r:i/.s.PGSQL.5432", ["u", "/cloudsql/p:r:i", "5432", "db"]),
    ("postgresql+pg8000://u:p@/db?unix_sock=/cloudsql/p:r:i/.s.PGSQL.5433", ["u", "/cloudsql/p:r:i", "5433", "db"]),
    // sqlx
    ("postgres://user@hostname:password@hostname:5432/database", ["user@hostname", "hostname", "5432", "database"]),
    ("postgres://username:p@ssw0rd@hostname:5432/database", ["username", "hostname", "5432", "database"]),
    ("postgresql://u@localhost?dbname=mydb&user=postgres&password=postgres", ["postgres", "localhost", "5432", "mydb"]),
    ("postgres://u@h/db?statement-cache-capacity=7&ssl-mode=require", ["u", "h", "5432", "db"]),
    ("postgres://u@h/db?options[search_path]=todo", ["u", "h", "5432", "db"]),
    // Neon, Supabase, Azure
    ("postgresql://u:p@ep-x-pooler.eu.aws.neon.tech/db?sslmode=require&channel_binding=require", ["u", "ep-x-pooler.eu.aws.neon.tech", "5432", "db"]),
    ("postgres://postgres.ref:p@aws-0-eu.pooler.supabase.com:6543/postgres?pgbouncer=true", ["postgres.ref", "aws-0-eu.pooler.supabase.com", "6543", "postgres"]),
    ("postgres://me%40server:p@server.postgres.database.azure.com:5432/db?sslmode=require", ["me@server", "server.postgres.database.azure.com", "5432", "db"]),
    ("postgres:///db?host=h&user=me@server", ["me@server", "h", "5432", "db"]),
    // An invalid escape is literal.
    ("postgres://u%:100%@h/d%20b", ["u%", "h", "5432", "d b"]),
];

#[test]
fn documented_addresses_are_parsed_as_documented() {
    for (url, expected) in READ {
        assert_eq!(read(url), *expected, "{url}");
    }
    for (url, expected) in [
        ("postgres://u:kx%40jj5%2Fg%23%3F%25@h/db", Some("kx@jj5/g#?%")),
        ("postgres://u:100%@h/db", Some("100%")),
        ("postgres://u:a:b@h/db", Some("a:b")),
        ("postgres://u:p@ss@h/db", Some("p@ss")),
        ("postgres://u:a+b@h/db", Some("a+b")),
        ("postgres://u@h/db?password=a%2Bb%26c", Some("a+b&c")),
        ("postgres://u:@h/db", Some("")),
        ("postgres://u@h/db", None),
    ] {
        assert_eq!(password(url).as_deref(), expected, "{url}");
    }
}

fn options(url: &str) -> PgConnectOptions {
    connect_options(url).unwrap()
}

#[test]
fn parameters_reach_the_driver() {
    for (query, mode) in [
        ("", PgSslMode::Prefer),
        ("sslmode=require&channel_binding=require", PgSslMode::Require),
        ("ssl=require", PgSslMode::Require),
        ("ssl=verify-full", PgSslMode::VerifyFull),
        ("ssl=disable", PgSslMode::Disable),
        ("ssl=false", PgSslMode::Disable),
        ("ssl=true", PgSslMode::Require),
        ("sslmode=verify-ca&sslrootcert=/ca.pem", PgSslMode::VerifyCa),
        ("sslrootcert=system", PgSslMode::VerifyFull),
    ] {
        let found = options(&format!("postgres://u:p@h/db?{query}")).get_ssl_mode();
        assert_eq!(format!("{found:?}"), format!("{mode:?}"), "{query}");
    }
    let url = "postgres://u@h/db?options=-c%20geqo%3Doff%20-c+x.y%3D1&options[search_path]=todo";
    let all = options(url).get_options().map(ToOwned::to_owned);
    let all = all.unwrap_or_default();
    assert!(all.contains("-c geqo=off -c x.y=1") && all.contains("-c search_path=todo"), "{all}");
    assert_eq!(options("postgres://h/d").get_application_name(), Some("todo"));
    let named = options("postgres://h/d?application_name=my+app");
    assert_eq!(named.get_application_name(), Some("my app"));
}

#[test]
#[rustfmt::skip] // a table
fn an_error_names_the_unknown_part_and_repeats_no_value() {
    let encode = "percent-encoded";
    for (url, named) in [
        ("postgres://u:hu#sh@h/d", encode),
        ("postgres://u:hu/sh@h/d", encode),
        ("postgres://u:hu?sh@h/d", encode),
        ("postgres://u:1#hush@h/d", encode),
        ("postgres://u:1/hush@h/d", encode),
        ("postgres://u:1?hush@h/d", encode),
        ("postgres://u:1?hush=1@h/d", encode),
        ("postgres://u:hu@sh/hush@h/d", encode),
        ("postgres://u@h/d?password=hu&hush", encode),
        ("postgres://u@h/d?password=hu&hush=1", encode),
        ("postgres://u:hush@h/d#hush", encode),
        ("postgres://u:hush@h:0/d", "port"),
        ("postgres://u:hush@h:65536/d", "port"),
        ("postgres://u:hush@::1/d", "[ ]"),
        ("postgres://u:hush@[::1/d", "["),
        ("postgres://u:hush@[hush]/d", "IPv6"),
        ("postgres://u:hush@[::1]5432/d", "port"),
        ("postgres://u:hush@h1:1,h2:2/d", "several hosts"),
        ("postgres://u:hush@/d?host=h1&host=h2", "several hosts"),
        ("postgres://u:hush@/d?host=h1:5432", "port"),
        ("postgres://u:hush@/d?hostaddr=hush", "hostaddr"),
        ("postgres://u:hush@h/d?hostaddr=192.0.2.7&sslmode=verify-full", "hostaddr"),
        ("postgres://u:hush@/d?host=@hush", "sockets"),
        ("postgres://u:hush@h/d?sslmode=hush", "sslmode must be disable"),
        ("postgres://u:hush@h/d?ssl=perhaps", "ssl must be"),
        ("postgres://u:hush@h/d?gssencmode=require", "gssencmode"),
        ("postgres://u:hush@h/d?client_encoding=latin1", "client_encoding"),
        ("postgres://u:hush@h/d?target_session_attrs=standby", "target_session_attrs"),
        ("postgres://u:hush@h/d?connect_timeout=hush", "connect_timeout"),
        ("postgres://u:hush@h/d?service=hush", "the parameter service "),
        ("postgres://u:hush@h/d?sslpassword=hush", "the parameter sslpassword "),
        ("postgres://u:hush@h/d?unheard_of=hush", "the parameter unheard_of "),
        ("postgres://u:hush@h/d?HUSH=1", "a parameter is not known"),
        ("postgres://u:hush@h/d?hush", "no value"),
        ("postgres://u:hush%00@h/d", "U+0000"),
        ("postgres://u:hush%FF@h/d", "UTF-8"),
        ("postgres:u:hush@h/d", "// must follow"),
        ("mysql://u:hush@h/d", "begins with"),
        ("postgresql+hush://u:hush@h/d", "begins with"),
        ("hush", "begins with"),
    ] {
        let Err(error) = Address::parse(url) else { panic!("{url} is accepted") };
        assert!(error.contains(named), "{url}: {error}");
        assert!(!error.contains("hush") && !error.contains("sh@"), "{url}: {error}");
    }
}

#[test]
fn an_address_is_shown_without_a_secret() {
    for (url, as_shown) in [
        ("postgres://u:hush@h:5/d", "postgres://u:***@h:5/d"),
        ("postgresql+asyncpg://u:h%40sh@h/d", "postgresql+asyncpg://u:***@h/d"),
        ("postgres://u:hu@sh@h/d", "postgres://u:***@h/d"),
        ("postgres://u@h/d?sslmode=require&password=hush", "postgres://u:***@h/d?sslmode=require"),
        ("postgres:///d?host=/run&password=hush", "postgres://:***@/d?host=/run"),
        ("postgres://u%40x@[::1]/d?options=-c%20a.key%3Dhush", "postgres://u%40x@[::1]/d"),
    ] {
        assert_eq!(Address::parse(url).unwrap().shown(), as_shown, "{url}");
    }
}
