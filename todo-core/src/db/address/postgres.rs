//! The address of a PostgreSQL database:
//! `postgres://USER:PASSWORD@HOST:PORT/DATABASE?PARAMETER=VALUE`, each part of which may be missing
//! or be a parameter. Parameters take precedence.
//!
//! Only the first `/`, `?` or `#` can end the password, so a raw one in it looks like the end of
//! another host. Such addresses are rejected with a hint at percent-encoding, as is any with a
//! misplaced `@`.

use std::net::Ipv6Addr;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{decoded, one_of, parameters, unknown};

const ENCODE: &str = "a character in the user's name, the password or the database's name must be \
                      percent-encoded: @ as %40, : as %3A, / as %2F, ? as %3F, # as %23, % as %25";
const PORT: &str = "the port must be a number from 1 to 65535; a /, ? or # in the password must be \
                    percent-encoded: %2F, %3F, %23";
const SEVERAL: &str =
    "it names several hosts, and only one is supported: a proxy's, or the server's";
const KNOWN: &str = "host, port, user, password, dbname, sslmode, sslrootcert, sslcert, sslkey, \
                     options and application_name are";
/// The prefix of a socket's name in its directory; the port follows.
const SOCKET: &str = "/.s.PGSQL.";

/// The address and the credentials of a PostgreSQL database. Missing parts have the driver's
/// defaults (`PGHOST` and the like, `~/.pgpass`).
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct PostgresAddress {
    scheme: &'static str,
    /// A name, an IP address without brackets, or the directory of a socket.
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    application_name: Option<String>,
    ssl_mode: Option<String>,
    /// Further parameters, under the driver's names.
    others: Vec<(String, String)>,
}

impl PostgresAddress {
    /// The scheme, if it is one of libpq's or SQLAlchemy's.
    pub(super) fn scheme(scheme: &str) -> Option<&'static str> {
        const DRIVERS: [&str; 7] = [
            "postgresql+asyncpg",
            "postgresql+psycopg",
            "postgresql+psycopg2",
            "postgresql+psycopg2cffi",
            "postgresql+psycopg_async",
            "postgresql+pg8000",
            "postgres+asyncpg",
        ];
        let known = ["postgres", "postgresql"].into_iter().chain(DRIVERS);
        known.into_iter().find(|known| *known == scheme)
    }

    /// Parses the part after the scheme and its colon.
    pub(super) fn parse(scheme: &'static str, rest: &str) -> Result<Self, String> {
        let rest = rest.strip_prefix("//").ok_or("// must follow the scheme")?;
        if rest.contains('#') {
            return Err(ENCODE.into());
        }
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = location.split_once('/').unwrap_or((location, ""));
        if path.contains('@') {
            return Err(ENCODE.into());
        }
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, authority),
        };
        let mut address = Self { scheme, ..Self::default() };
        if let Some(credentials) = credentials {
            let (user, password) = match credentials.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (credentials, None),
            };
            address.user = filled(decoded(user, "the user's name")?);
            address.password = password.map(|text| decoded(text, "the password")).transpose()?;
        }
        address.host_and_port(host)?;
        address.database = filled(decoded(path.trim_start_matches('/'), "the database's name")?);
        address.parameters(query)?;
        if address.host.as_deref().is_some_and(|host| host.starts_with('@')) {
            return Err("sockets without a file are not supported".into());
        }
        Ok(address)
    }

    /// Parses the part between the credentials and the path.
    fn host_and_port(&mut self, text: &str) -> Result<(), String> {
        if text.contains(',') {
            return Err(SEVERAL.into());
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or("a [ of the host is not closed")?;
            let host = decoded(host, "the host")?;
            if !is_ipv6(&host) {
                return Err("only an IPv6 address is written in [ ]".into());
            }
            let port = match port.strip_prefix(':') {
                None if !port.is_empty() => return Err(PORT.into()),
                port => port.unwrap_or_default(),
            };
            (host, port)
        } else {
            if is_ipv6(text) {
                return Err("an IPv6 address must be written in [ ]".into());
            }
            let (host, port) = text.split_once(':').unwrap_or((text, ""));
            (decoded(host, "the host")?, port)
        };
        if !port.is_empty() {
            self.port = Some(port_of(port)?);
        }
        self.set_host(host)
    }

    /// Sets a name, an IP address, the directory of a socket or the socket itself.
    fn set_host(&mut self, host: String) -> Result<(), String> {
        if let Some((directory, port)) = host.rsplit_once(SOCKET)
            && host.starts_with('/')
        {
            self.port = Some(port_of(port)?);
            self.host = Some(directory.to_owned());
            return Ok(());
        }
        if !host.starts_with('/') {
            if host.contains(',') {
                return Err(SEVERAL.into());
            }
            if host.contains(':') && !is_ipv6(&host) {
                return Err("the port of host must be given as the parameter port".into());
            }
        }
        self.host = filled(host);
        Ok(())
    }

    fn parameters(&mut self, query: &str) -> Result<(), String> {
        let mut hosts = 0;
        let mut host_address = None;
        let mut server_options = Vec::new();
        let read: Vec<_> = parameters(query).collect::<Result<_, _>>()?;
        // With an @ after it, the ? may be part of the password.
        let may_be_secret = query.contains('@') || read.iter().any(|(name, _)| name == "password");
        for (name, value) in read {
            let Some(value) = value else {
                return Err(if may_be_secret { ENCODE } else { "a parameter has no value" }.into());
            };
            match &*name {
                "host" => {
                    hosts += 1;
                    let host = value.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                    self.set_host(host.unwrap_or(&value).to_owned())?;
                }
                "unix_sock" => self.set_host(value)?,
                "hostaddr" => {
                    if value.parse::<std::net::IpAddr>().is_err() {
                        return Err("hostaddr must be an IP address".into());
                    }
                    host_address = Some(value);
                }
                "port" => self.port = Some(port_of(&value)?),
                "dbname" => self.database = filled(value),
                "user" => self.user = filled(value),
                "password" => self.password = Some(value),
                "application_name" => self.application_name = filled(value),
                "fallback_application_name" => {
                    self.application_name = self.application_name.take().or(filled(value));
                }
                "sslmode" | "ssl-mode" | "ssl" => self.ssl_mode = Some(ssl_mode(&name, &value)?),
                // The public certificate authorities, which are the driver's default.
                "sslrootcert" if value == "system" => {
                    self.ssl_mode = Some("verify-full".into());
                }
                "sslrootcert" | "ssl-root-cert" | "ssl-ca" => self.set_other("sslrootcert", value),
                "sslcert" | "ssl-cert" => self.set_other("sslcert", value),
                "sslkey" | "ssl-key" => self.set_other("sslkey", value),
                "statement-cache-capacity" => {
                    number(&name, &value)?;
                    self.set_other("statement-cache-capacity", value);
                }
                "options" => server_options.push(value),
                name if name.starts_with("options[") && name.ends_with(']') => {
                    self.set_other(name, value);
                }
                name => without_effect(name, &value).unwrap_or_else(|| {
                    Err(if may_be_secret { ENCODE.into() } else { unknown(name, KNOWN) })
                })?,
            }
        }
        if hosts > 1 {
            return Err(SEVERAL.into());
        }
        if let Some(host_address) = host_address {
            if self.host.is_some() && self.ssl_mode.as_deref() == Some("verify-full") {
                return Err("hostaddr beside a host cannot be verified: name the host alone".into());
            }
            self.host = Some(host_address);
        }
        if !server_options.is_empty() {
            self.set_other("options", server_options.join(" "));
        }
        Ok(())
    }

    fn set_other(&mut self, name: &str, value: String) {
        self.others.retain(|(known, _)| known != name);
        self.others.push((name.to_owned(), value));
    }

    /// The program's name in `pg_stat_activity`, if the address sets it.
    pub(crate) fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// The address for the driver: every part a parameter, the password included.
    pub(crate) fn driver_url(&self) -> String {
        let port = self.port.map(|port| port.to_string());
        let parts = [
            ("host", self.host.as_deref()),
            ("port", port.as_deref()),
            ("user", self.user.as_deref()),
            ("password", self.password.as_deref()),
            ("dbname", self.database.as_deref()),
            ("sslmode", self.ssl_mode.as_deref()),
        ];
        let parts = parts.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let others = self.others.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let query: Vec<_> = parts
            .chain(others)
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
            .collect();
        format!("postgres:///?{}", query.join("&"))
    }

    pub(super) fn shown(&self) -> String {
        /// Characters that RFC 3986 (3.2, 3.3) does not allow in the parts of an address.
        const RESERVED: &AsciiSet =
            &CONTROLS.add(b' ').add(b'@').add(b':').add(b'/').add(b'?').add(b'#').add(b'%');
        let encoded = |text| utf8_percent_encode(text, RESERVED).to_string();
        let mut shown = format!("{}://", self.scheme);
        if self.user.is_some() || self.password.is_some() {
            shown += &encoded(self.user.as_deref().unwrap_or_default());
            shown += if self.password.is_some() { ":***@" } else { "@" };
        }
        let is_socket = self.host.as_deref().is_some_and(|host| host.starts_with('/'));
        match self.host.as_deref() {
            Some(host) if host.contains(':') && !is_socket => {
                shown.extend(["[", host, "]"]);
            }
            Some(host) if !is_socket => shown += &encoded(host),
            _ => {}
        }
        if let Some(port) = self.port {
            shown.extend([":", &port.to_string()]);
        }
        shown += "/";
        shown += &encoded(self.database.as_deref().unwrap_or_default());
        let plain = ["sslrootcert", "sslcert", "sslkey"];
        let others = (self.others.iter())
            .filter(|(name, _)| plain.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let query: Vec<_> = (self.host.iter().filter(|_| is_socket).map(|host| ("host", &**host)))
            .chain(self.ssl_mode.iter().map(|mode| ("sslmode", &**mode)))
            .chain(others)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if query.is_empty() { shown } else { format!("{shown}?{}", query.join("&")) }
    }
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn port_of(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| PORT.into())
}

/// Whether `text` is an IPv6 address, with or without a zone (RFC 6874).
fn is_ipv6(text: &str) -> bool {
    text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// libpq's name for the value of libpq's `sslmode` or asyncpg's `ssl`.
fn ssl_mode(name: &str, value: &str) -> Result<String, String> {
    match (name, &*value.to_ascii_lowercase()) {
        ("ssl", "true") => Ok("require".into()),
        ("ssl", "false") => Ok("disable".into()),
        (_, mode) => {
            let modes = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
            one_of(name, mode, &modes).map(|()| mode.to_owned())
        }
    }
}

fn number(name: &str, value: &str) -> Result<(), String> {
    // Some drivers accept fractions of seconds.
    value.parse::<f64>().map(drop).map_err(|_| format!("{name} must be a number"))
}

/// Checks parameters of other drivers that have no effect: this program has its own timeouts and
/// its own statement cache. `None` for an unknown parameter.
fn without_effect(name: &str, value: &str) -> Option<Result<(), String>> {
    Some(match name {
        "connect_timeout"
        | "timeout"
        | "command_timeout"
        | "keepalives"
        | "keepalives_idle"
        | "keepalives_interval"
        | "keepalives_count"
        | "tcp_user_timeout"
        | "sslsni"
        | "statement_cache_size"
        | "prepared_statement_cache_size"
        | "max_cached_statement_lifetime"
        | "max_cacheable_statement_size" => number(name, value),
        "prepare_threshold" | "krbsrvname" | "gsslib" => Ok(()),
        "channel_binding" => one_of(name, value, &["disable", "prefer", "require"]),
        "client_encoding" => one_of(name, value, &["UTF8", "UTF-8", "utf_8", "auto"]),
        "gssencmode" => one_of(name, value, &["disable", "prefer"]),
        "load_balance_hosts" => one_of(name, value, &["disable", "random"]),
        "target_session_attrs" => one_of(name, value, &["any", "read-write", "primary"]),
        "sslcompression" => one_of(name, value, &["0"]),
        "sslnegotiation" => one_of(name, value, &["postgres"]),
        "pgbouncer" | "async_fallback" => one_of(name, value, &["true", "false"]),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
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
        let url =
            "postgres://u@h/db?options=-c%20geqo%3Doff%20-c+x.y%3D1&options[search_path]=todo";
        let all = options(url).get_options().map(ToOwned::to_owned);
        let all = all.unwrap_or_default();
        assert!(
            all.contains("-c geqo=off -c x.y=1") && all.contains("-c search_path=todo"),
            "{all}"
        );
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
            (
                "postgres://u@h/d?sslmode=require&password=hush",
                "postgres://u:***@h/d?sslmode=require",
            ),
            ("postgres:///d?host=/run&password=hush", "postgres://:***@/d?host=/run"),
            ("postgres://u%40x@[::1]/d?options=-c%20a.key%3Dhush", "postgres://u%40x@[::1]/d"),
        ] {
            assert_eq!(Address::parse(url).unwrap().shown(), as_shown, "{url}");
        }
    }
}
