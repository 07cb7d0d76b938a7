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
mod tests;
