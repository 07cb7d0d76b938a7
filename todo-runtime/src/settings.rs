//! Settings of both servers: parsed once and validated together; an error names every invalid one.
//! This module takes names and values; the caller reads their sources (the environment, a `.env`
//! file).

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;
pub use todo_core::DatabaseUrl;
use todo_core::{
    Algorithm, Core, Database, DatabaseOptions, OpenError, Options, Secret,
    http::{Api, ApiOptions, Origin, PublicUrl, canonical_networks},
};

use crate::log;

/// File of a generated secret, if the database has no file to store it beside.
const SECRET_FILE: &str = "todo.secret";

/// How to create a strong secret.
const SECRET_HINT: &str = "make one with `openssl rand -hex 32`";

/// Minimum of the default of `MAX_CONNECTIONS_PER_ADDRESS`, for users who share one address.
const MIN_SHARE: usize = 64;

/// Pauses between attempts to connect to the database at the start; each is twice the last one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Settings of a server. The README has the table.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// `DATABASE_URL`
    pub database_url: DatabaseUrl,
    /// `SECRET_KEY`; if unset, [`Settings::open`] generates and stores one.
    pub secret_key: Option<Secret>,
    /// `SECRET_KEY_PREVIOUS`
    pub secret_key_previous: Option<Secret>,
    /// `ALGORITHM`
    pub algorithm: Algorithm,
    /// `ACCESS_TOKEN_EXPIRE_DAYS`
    pub access_token_expire_days: u16,
    /// `HOST`
    pub host: IpAddr,
    /// `PORT`; 0 is any free port.
    pub port: u16,
    /// `ALLOWED_ORIGINS`
    pub allowed_origins: Vec<Origin>,
    /// `RATE_LIMIT_PER_MINUTE`
    pub rate_limit_per_minute: u32,
    /// `TRUSTED_PROXIES`
    pub trusted_proxies: Vec<IpNet>,
    /// `ENVIRONMENT`
    pub environment: Environment,
    /// `LOG_LEVEL`; if unset, `debug` with `DEBUG` and `info` without.
    pub log_level: String,
    /// `LOG_FORMAT`; if unset, JSON in production and text elsewhere.
    pub log_format: LogFormat,
    /// `SHUTDOWN_DELAY_SECONDS`: time after a stop signal during which the server reports that it
    /// is not ready but still accepts connections, before it closes its listener.
    pub shutdown_delay: Duration,
    /// `API_V1_PREFIX`
    pub api_prefix: String,
    /// `PUBLIC_URL`: origin and path of the server for clients.
    pub public_url: Option<PublicUrl>,
    /// `PROJECT_NAME`
    pub project_name: String,
    /// `DATABASE_POOL_MIN`
    pub database_pool_min: u32,
    /// `DATABASE_POOL_MAX`
    pub database_pool_max: u32,
    /// `MIGRATIONS_DATABASE_URL`: address for migrating the schema, if not `database_url`. A pooler
    /// in transaction mode strands the migrator's lock.
    pub migrations_database_url: Option<DatabaseUrl>,
    /// `DATABASE_STARTUP_SECONDS`: how long a start retries to connect to the database.
    pub database_startup: Duration,
    /// `DATABASE_TIMEOUT_MS`
    pub database_timeout: Duration,
    /// `MAX_CONNECTIONS`: maximum of open connections. Requests on 64 further ones get a 503;
    /// others wait to be accepted. Default: 8192.
    pub max_connections: usize,
    /// `MAX_CONNECTIONS_PER_ADDRESS`: maximum of open connections per address. An IPv6 /64 counts
    /// as one address, and `trusted_proxies` have no such limit. Default: a quarter of
    /// `max_connections`, but at least 64.
    pub max_connections_per_address: usize,
    /// `KEEP_ALIVE_SECONDS`: idle timeout of an HTTP/1.1 connection after its first request.
    /// Default: 75 s.
    pub keep_alive: Duration,
    /// `METRICS_ADDRESS`: address that serves `/metrics`, over plain http, instead of `host` and
    /// `port`. Default: none.
    pub metrics_address: Option<SocketAddr>,
    /// `REQUEST_TIMEOUT_SECONDS`
    pub request_timeout: Duration,
    /// `MAX_BODY_BYTES`
    pub max_body_bytes: usize,
    /// `BODY_MEMORY_BYTES`: maximum size of all bodies in flight together. Default: 64 MiB.
    pub body_memory_bytes: usize,
    /// `TLS_CERT` and `TLS_KEY`, both or neither.
    pub tls: Option<TlsFiles>,
    /// Warnings about the sources of the settings.
    pub(crate) warnings: Vec<Warning>,
}

/// A warning about an accepted setting, for the log. It contains no value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// The setting, or its source.
    pub about: String,
    /// The problem.
    pub message: String,
}

impl Warning {
    pub(crate) fn new(about: impl Into<String>, message: impl Into<String>) -> Self {
        Self { about: about.into(), message: message.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.message)
    }
}

/// Paths of a certificate chain and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// `TLS_CERT`
    pub cert: PathBuf,
    /// `TLS_KEY`
    pub key: PathBuf,
}

/// The environment of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Environment {
    /// A developer's machine.
    #[default]
    Development,
    /// A test of production, without its restrictions.
    Staging,
    /// https only, and no unsafe defaults.
    Production,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

/// All invalid settings, on one line: their names, and the allowed values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError(pub(crate) Vec<String>);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad settings: {}", self.0.join("; "))
    }
}

impl std::error::Error for SettingsError {}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The database could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The generated secret could not be stored, or the stored one not read.
    #[error("cannot read or create the secret in {}: {cause}", .path.display())]
    Secret {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl Settings {
    /// Parses settings from names and values. Unknown names are ignored, and an empty value counts
    /// as unset.
    ///
    /// # Errors
    /// [`SettingsError`] with every invalid setting and its allowed values, but not the given ones.
    pub fn from_vars<K: Into<String>, V: Into<String>>(
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, SettingsError> {
        let mut vars = Vars::new(vars);
        let settings = Self::read(&mut vars);
        if vars.errors.is_empty() { Ok(settings) } else { Err(SettingsError(vars.errors)) }
    }

    /// The names of all settings.
    pub(crate) fn names() -> Vec<&'static str> {
        let mut vars = Vars::new::<String, String>([]);
        Self::read(&mut vars);
        vars.requested
    }

    /// Parses all settings and collects the errors in `vars`.
    #[expect(clippy::too_many_lines, reason = "a few lines per setting")]
    fn read(vars: &mut Vars) -> Self {
        let settings = Self {
            database_url: vars.read("DATABASE_URL", default_database(), url),
            secret_key: vars.read("SECRET_KEY", None, |text| secret(text).map(Some)),
            secret_key_previous: vars
                .read("SECRET_KEY_PREVIOUS", None, |text| secret(text).map(Some)),
            algorithm: vars.read("ALGORITHM", Algorithm::Hs256, algorithm),
            access_token_expire_days: vars.read("ACCESS_TOKEN_EXPIRE_DAYS", 7, |text| {
                number(text, 1, 3650, "a whole number of days from 1 to 3650")
            }),
            host: vars.read("HOST", IpAddr::V4(Ipv4Addr::LOCALHOST), |text| match text {
                "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                text => text.parse().map_err(|_| "an IP address or localhost".to_owned()),
            }),
            port: vars
                .read("PORT", 8000, |text| number(text, 0, u16::MAX, "a port from 0 to 65535")),
            allowed_origins: vars.read(
                "ALLOWED_ORIGINS",
                list("http://localhost:3000,http://localhost:8000")
                    .flat_map(Origin::try_from)
                    .collect(),
                origins,
            ),
            rate_limit_per_minute: vars.read("RATE_LIMIT_PER_MINUTE", 5, |text| {
                number(text, 0, 10_000, "a whole number from 0 (off) to 10000")
            }),
            trusted_proxies: vars.read("TRUSTED_PROXIES", vec![], proxies),
            environment: vars.read("ENVIRONMENT", Environment::Development, environment),
            log_level: String::new(),
            log_format: LogFormat::Text,
            shutdown_delay: vars.read("SHUTDOWN_DELAY_SECONDS", Duration::ZERO, |text| {
                number(text, 0, 300, "seconds from 0 to 300").map(Duration::from_secs)
            }),
            api_prefix: vars.read("API_V1_PREFIX", "/api".into(), prefix),
            public_url: vars.read("PUBLIC_URL", None, |text| {
                PublicUrl::parse(text).map(Some).map_err(str::to_owned)
            }),
            project_name: vars.read("PROJECT_NAME", "Todo API".into(), |text| {
                let fits = text.chars().count() <= 100 && !text.chars().any(char::is_control);
                fits.then(|| text.to_owned()).ok_or_else(|| "at most 100 characters".into())
            }),
            database_pool_min: vars.read("DATABASE_POOL_MIN", 5, |text| {
                number(text, 0, 1000, "a whole number from 0 to 1000")
            }),
            database_pool_max: vars.read("DATABASE_POOL_MAX", 20, |text| {
                number(text, 1, 1000, "a whole number from 1 to 1000")
            }),
            migrations_database_url: vars
                .read("MIGRATIONS_DATABASE_URL", None, |text| url(text).map(Some)),
            database_startup: vars.read(
                "DATABASE_STARTUP_SECONDS",
                Duration::from_secs(30),
                |text| number(text, 0, 3600, "seconds from 0 to 3600").map(Duration::from_secs),
            ),
            database_timeout: vars.read(
                "DATABASE_TIMEOUT_MS",
                Duration::from_millis(1800),
                |text| {
                    number(text, 100, 60_000, "milliseconds from 100 to 60000")
                        .map(Duration::from_millis)
                },
            ),
            max_connections: vars.read("MAX_CONNECTIONS", 8192, |text| {
                number(text, 1, 1_000_000, "a whole number from 1 to 1000000")
            }),
            max_connections_per_address: 0,
            keep_alive: vars.read("KEEP_ALIVE_SECONDS", Duration::from_secs(75), |text| {
                number(text, 1, 3600, "seconds from 1 to 3600").map(Duration::from_secs)
            }),
            metrics_address: vars.read("METRICS_ADDRESS", None, |text| {
                let address = text.parse().map(Some);
                address.map_err(|_| "an IP address and a port, such as 127.0.0.1:9000".into())
            }),
            request_timeout: vars.read(
                "REQUEST_TIMEOUT_SECONDS",
                Duration::from_secs(30),
                |text| number(text, 1, 600, "seconds from 1 to 600").map(Duration::from_secs),
            ),
            max_body_bytes: vars.read("MAX_BODY_BYTES", 65_536, |text| {
                number(text, 1024, 16 << 20, "bytes from 1024 to 16777216")
            }),
            body_memory_bytes: vars.read("BODY_MEMORY_BYTES", 64 << 20, |text| {
                number(text, 4 << 20, 16 << 30, "bytes from 4194304 to 17179869184")
            }),
            tls: None,
            warnings: Vec::new(),
        };
        let debug = vars.read("DEBUG", false, boolean);
        let level = if debug { "debug" } else { "info" };
        let log_level = vars.read("LOG_LEVEL", level.into(), log_level);
        let log_format = match settings.environment {
            Environment::Production => LogFormat::Json,
            Environment::Development | Environment::Staging => LogFormat::Text,
        };
        let log_format = vars.read("LOG_FORMAT", log_format, |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("text or json".into()),
        });
        let share = (settings.max_connections / 4).max(MIN_SHARE);
        let max_connections_per_address = vars.read("MAX_CONNECTIONS_PER_ADDRESS", share, |text| {
            number(text, 1, 1_000_000, "a whole number from 1 to 1000000")
        });
        let tls = tls(vars);
        let settings = Self { log_level, log_format, max_connections_per_address, tls, ..settings };
        settings.check(vars);
        settings
    }

    /// Warnings about accepted settings, such as a weak secret.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = self.warnings.clone();
        for (name, secret) in self.secrets() {
            if let Some(weakness) = secret.weakness() {
                let message = format!("{weakness}; {SECRET_HINT}, as production requires");
                warnings.push(Warning::new(name, message));
            }
        }
        if self.secret_key.is_some() && self.secret_key == self.secret_key_previous {
            let message = "is the same as SECRET_KEY, and has no effect";
            warnings.push(Warning::new("SECRET_KEY_PREVIOUS", message));
        }
        warnings
    }

    /// The secrets that are set, with their names.
    fn secrets(&self) -> impl Iterator<Item = (&'static str, &Secret)> {
        let names = ["SECRET_KEY", "SECRET_KEY_PREVIOUS"];
        let secrets = [&self.secret_key, &self.secret_key_previous];
        names.into_iter().zip(secrets).filter_map(|(name, secret)| Some((name, secret.as_ref()?)))
    }

    /// Checks combinations of settings, and the requirements of production.
    fn check(&self, vars: &mut Vars) {
        if self.database_pool_min > self.database_pool_max {
            vars.reject::<()>("DATABASE_POOL_MIN", "at most DATABASE_POOL_MAX");
        }
        // One client may use a quarter of the memory.
        if self.body_memory_bytes / 4 < self.max_body_bytes {
            vars.reject::<()>("BODY_MEMORY_BYTES", "at least 4 times MAX_BODY_BYTES");
        }
        if self
            .migrations_database_url
            .as_ref()
            .is_some_and(|url| url.kind() != self.database_url.kind())
        {
            vars.reject::<()>("MIGRATIONS_DATABASE_URL", "the same database as DATABASE_URL");
        } else if self.database_url.kind() == "sqlite"
            && self.migrations_database_url.as_ref().is_some_and(|url| *url != self.database_url)
        {
            // A server would ignore it, and `migrate` would migrate another file.
            vars.reject::<()>("MIGRATIONS_DATABASE_URL", "unset, or as DATABASE_URL, with SQLite");
        }
        if self.environment != Environment::Production {
            return;
        }
        // An invalid one has an error already.
        if self.secret_key.is_none() && !vars.has_error("SECRET_KEY") {
            vars.reject::<()>("SECRET_KEY", "set in production, to at least 32 random bytes");
        }
        // A guessed key, current or previous, can sign tokens.
        for (name, secret) in self.secrets() {
            if let Some(weakness) = secret.weakness() {
                let allowed = format!(
                    "a secret of your own in production, not the example or one like it: \
                     {weakness}; {SECRET_HINT}"
                );
                vars.reject::<()>(name, &allowed);
            }
        }
        if self.public_url.as_ref().is_some_and(|url| !url.is_https()) {
            vars.reject::<()>("PUBLIC_URL", "an https address in production");
        }
        if self.allowed_origins.iter().any(Origin::is_any) {
            vars.reject::<()>("ALLOWED_ORIGINS", "a list of origins in production, not *");
        }
    }

    /// Opens the database and builds the API. Without a secret, one is generated and stored in a
    /// file with mode 0600: beside an embedded database, otherwise in the working directory. For a
    /// database in memory it is not stored.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn open(&self) -> Result<Api, StartError> {
        // First, so that no secret is created beside another program's database.
        let db = self.connect_with_retry().await?;
        let secret = match &self.secret_key {
            Some(secret) => secret.clone(),
            None => self.load_or_create_secret()?,
        };
        let mut options = Options::new(secret);
        options.previous_secrets.extend(self.secret_key_previous.clone());
        options.algorithm = self.algorithm;
        options.session_lifetime = chrono::TimeDelta::days(self.access_token_expire_days.into());
        options.rate_limit_per_minute = self.rate_limit_per_minute;
        options.database_timeout = self.database_timeout;
        Ok(Api::new(Core::over(db, options).await, self.api_options()))
    }

    /// Opens the database, and retries for `database_startup` if the connection fails.
    async fn connect_with_retry(&self) -> Result<Database, OpenError> {
        let options = DatabaseOptions {
            pool_min: self.database_pool_min,
            pool_max: self.database_pool_max,
            timeout: self.database_timeout,
            migrations_url: (self.migrations_database_url.as_ref())
                .map(|url| url.as_str().to_owned()),
        };
        let deadline = tokio::time::Instant::now() + self.database_startup;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match Database::open(self.database_url.as_str(), &options).await {
                Ok(db) => return Ok(db),
                Err(error) => error,
            };
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() || !error.is_connectivity() {
                return Err(error);
            }
            tracing::warn!(%error, seconds_left = left.as_secs(), "waiting for the database");
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// The options of the API for these settings.
    #[must_use]
    pub fn api_options(&self) -> ApiOptions {
        let mut options = ApiOptions::default();
        options.prefix.clone_from(&self.api_prefix);
        options.public_url.clone_from(&self.public_url);
        options.name.clone_from(&self.project_name);
        options.allowed_origins.clone_from(&self.allowed_origins);
        options.trusted_proxies.clone_from(&self.trusted_proxies);
        options.request_timeout = self.request_timeout;
        options.max_body_bytes = self.max_body_bytes;
        options.body_memory_bytes = self.body_memory_bytes;
        options.https_only = self.environment == Environment::Production;
        options.metrics = self.metrics_address.is_none();
        options.dropped_log_lines = Some(log::dropped_lines);
        options
    }

    fn load_or_create_secret(&self) -> Result<Secret, StartError> {
        if self.database_url.is_in_memory() {
            return new_secret()
                .and_then(|secret| Secret::new(secret).map_err(io::Error::other))
                .map_err(|cause| StartError::Secret { path: PathBuf::from(":memory:"), cause });
        }
        let path = match self.database_url.file() {
            Some(file) => {
                let mut name = file.into_os_string();
                name.push(".secret");
                PathBuf::from(name)
            }
            None => PathBuf::from(SECRET_FILE),
        };
        let secret = load_or_create_secret_file(&path)
            .and_then(|secret| Secret::new(secret).map_err(io::Error::other))
            .map_err(|cause| StartError::Secret { path: path.clone(), cause })?;
        tracing::info!(path = %path.display(), "no SECRET_KEY is set, using the stored secret");
        Ok(secret)
    }
}

/// Names and values that are parsed into settings, and the errors.
struct Vars {
    values: Vec<(String, String)>,
    errors: Vec<String>,
    /// The names that were read.
    requested: Vec<&'static str>,
}

impl Vars {
    fn new<K: Into<String>, V: Into<String>>(vars: impl IntoIterator<Item = (K, V)>) -> Self {
        let values = vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { values, errors: Vec::new(), requested: Vec::new() }
    }

    /// The last value of a name, trimmed; `None` if it is empty.
    fn take(&mut self, name: &'static str) -> Option<String> {
        self.requested.push(name);
        let value = self.values.iter().rev().find(|(known, _)| known == name)?.1.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn read<T>(
        &mut self,
        name: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let Some(value) = self.take(name) else { return default };
        parse(&value).unwrap_or_else(|allowed| {
            self.reject::<T>(name, &allowed);
            default
        })
    }

    fn reject<T>(&mut self, name: &str, allowed: &str) -> Option<T> {
        self.errors.push(format!("{name} must be {allowed}"));
        None
    }

    fn has_error(&self, name: &str) -> bool {
        self.errors.iter().any(|error| error.starts_with(&format!("{name} ")))
    }
}

fn url(text: &str) -> Result<DatabaseUrl, String> {
    DatabaseUrl::parse(text).map_err(|reason| format!("the address of a database: {reason}"))
}

fn default_database() -> DatabaseUrl {
    DatabaseUrl::parse("sqlite://todo.db").unwrap_or_else(|error| unreachable!("{error}"))
}

fn secret(text: &str) -> Result<Secret, String> {
    Secret::new(text).map_err(|_| "at least 32 bytes".into())
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    match text {
        "HS256" => Ok(Algorithm::Hs256),
        "HS384" => Ok(Algorithm::Hs384),
        "HS512" => Ok(Algorithm::Hs512),
        _ => Err("HS256, HS384 or HS512".into()),
    }
}

fn environment(text: &str) -> Result<Environment, String> {
    match text {
        "development" => Ok(Environment::Development),
        "staging" => Ok(Environment::Staging),
        "production" => Ok(Environment::Production),
        _ => Err("development, staging or production".into()),
    }
}

fn log_level(text: &str) -> Result<String, String> {
    // Python uses these names in upper case, and two more.
    match &*text.to_ascii_lowercase() {
        "warning" => Ok("warn".into()),
        "critical" => Ok("error".into()),
        level @ ("trace" | "debug" | "info" | "warn" | "error") => Ok(level.into()),
        _ => Err("trace, debug, info, warn or error".into()),
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match &*text.to_ascii_lowercase() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("true or false".into()),
    }
}

fn number<T: FromStr + PartialOrd>(text: &str, min: T, max: T, allowed: &str) -> Result<T, String> {
    text.parse().ok().filter(|n| (min..=max).contains(n)).ok_or_else(|| allowed.to_owned())
}

fn origins(text: &str) -> Result<Vec<Origin>, String> {
    let mut origins = Vec::new();
    for origin in list(text).map(Origin::try_from) {
        let origin = origin.map_err(|_| {
            "a comma-separated list of origins such as https://example.com or capacitor://localhost, \
             without a path"
        })?;
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    Ok(origins)
}

fn proxies(text: &str) -> Result<Vec<IpNet>, String> {
    let parse = |text: &str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    list(text)
        .map(parse)
        .collect::<Result<Vec<_>, _>>()
        .map(canonical_networks)
        .map_err(|_| "a comma-separated list of networks such as 10.0.0.0/8".into())
}

fn prefix(text: &str) -> Result<String, String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let is_segment = |segment: &str| {
        // Clients remove dot segments from a path (RFC 3986, section 5.2.4).
        !["", ".", ".."].contains(&segment)
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    let is_valid = path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_segment));
    is_valid.then(|| path.to_owned()).ok_or_else(|| "a path such as /api".into())
}

/// The files of a certificate and its key, both or neither.
fn tls(vars: &mut Vars) -> Option<TlsFiles> {
    match (vars.take("TLS_CERT"), vars.take("TLS_KEY")) {
        (Some(cert), Some(key)) => {
            for (name, path) in [("TLS_CERT", &cert), ("TLS_KEY", &key)] {
                if is_pem(path) {
                    vars.reject::<()>(name, "the path of a PEM file, not its content");
                }
            }
            Some(TlsFiles { cert: cert.into(), key: key.into() })
        }
        (None, None) => None,
        (Some(_), None) => vars.reject("TLS_KEY", "set, if TLS_CERT is"),
        (None, Some(_)) => vars.reject("TLS_CERT", "set, if TLS_KEY is"),
    }
}

/// Whether the text is PEM, or the base64 of a key or certificate (an ASN.1 sequence), and not a
/// path.
fn is_pem(text: &str) -> bool {
    let is_base64 = || {
        text.len() >= 60
            && text.starts_with('M')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
    };
    text.contains("-----") || text.contains(char::is_control) || is_base64()
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// 256 random bits, in hexadecimal.
fn new_secret() -> io::Result<String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    let (high, low) = bytes.split_at(16);
    let half = |half: &[u8]| half.iter().fold(0, |n: u128, byte| n << 8 | u128::from(*byte));
    Ok(format!("{:032x}{:032x}", half(high), half(low)))
}

/// The secret stored at `path`, generated if there is none. Concurrent callers get the same secret.
fn load_or_create_secret_file(path: &Path) -> io::Result<String> {
    match read_secret(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        stored => return stored,
    }
    // Written to a draft, then hard-linked to `path`, which fails if another process was faster.
    let secret = new_secret()?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", &new_secret()?[..16]));
    let draft = PathBuf::from(name);
    let created = private_file(&draft)
        .and_then(|mut file| file.write_all(secret.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::hard_link(&draft, path));
    let removed = std::fs::remove_file(&draft);
    match created {
        Ok(()) => removed.map(|()| secret),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_secret(path),
        Err(error) => Err(error),
    }
}

fn read_secret(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(4096).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "e3b0c44298fc1c149afbf4c8996fb924";

    fn read(vars: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::from_vars(vars.iter().copied()).map_err(|error| error.to_string())
    }

    #[test]
    fn no_setting_is_required() {
        let settings = read(&[("SECRET_KEY", ""), ("UNKNOWN", "x")]).unwrap();
        assert_eq!(settings.database_url.as_str(), "sqlite://todo.db");
        assert_eq!((settings.host.to_string(), settings.port), ("127.0.0.1".into(), 8000));
        assert_eq!(settings.environment, Environment::Development);
        assert!(settings.secret_key.is_none());
    }

    #[test]
    fn each_invalid_setting_is_named_with_the_allowed_values() {
        let invalid = [
            ("DATABASE_URL", "mysql://x"),
            ("DATABASE_URL", "sqlite://"),
            ("SECRET_KEY", "short"),
            ("SECRET_KEY_PREVIOUS", "short"),
            ("ALGORITHM", "none"),
            ("ACCESS_TOKEN_EXPIRE_DAYS", "0"),
            ("HOST", "nowhere"),
            ("PORT", "65536"),
            ("ALLOWED_ORIGINS", "localhost:3000"),
            ("RATE_LIMIT_PER_MINUTE", "-1"),
            ("TRUSTED_PROXIES", "10.0.0.0/33"),
            ("ENVIRONMENT", "prod"),
            ("DEBUG", "maybe"),
            ("LOG_LEVEL", "loud"),
            ("API_V1_PREFIX", "api"),
            ("API_V1_PREFIX", "/api/../v1"),
            ("PUBLIC_URL", "/todo"),
            ("DATABASE_POOL_MAX", "0"),
            ("DATABASE_TIMEOUT_MS", "x"),
            ("REQUEST_TIMEOUT_SECONDS", "0"),
            ("MAX_BODY_BYTES", "1"),
            ("BODY_MEMORY_BYTES", "4194303"),
            ("MAX_CONNECTIONS", "0"),
            ("MAX_CONNECTIONS_PER_ADDRESS", "0"),
            ("KEEP_ALIVE_SECONDS", "0"),
            ("KEEP_ALIVE_SECONDS", "3601"),
            ("METRICS_ADDRESS", "localhost:9000"),
            ("METRICS_ADDRESS", "127.0.0.1"),
            ("TLS_CERT", "cert.pem"),
        ];
        let error = read(&invalid).unwrap_err();
        assert!(!error.contains('\n'));
        for (name, value) in invalid {
            let name = if name == "TLS_CERT" { "TLS_KEY" } else { name };
            assert!(error.contains(&format!("{name} must be ")), "{name}: {error}");
            assert!(read(&[(name, value)]).is_err(), "{name} alone");
        }
        assert!(!error.contains("short"), "no value is repeated");
    }

    #[test]
    fn production_requires_a_strong_secret_and_named_origins() {
        let with = |secret: &str, origins: &str| {
            read(&[
                ("ENVIRONMENT", "production"),
                ("SECRET_KEY", secret),
                ("ALLOWED_ORIGINS", origins),
            ])
        };
        assert!(with(SECRET, "https://example.com").is_ok());
        assert!(with("", "").unwrap_err().contains("SECRET_KEY must be set in production"));
        assert!(with("short", "").unwrap_err().contains("at least 32 bytes"));
        let example = "change-me-to-a-random-text-of-32-bytes-or-more";
        assert!(with(example, "").unwrap_err().contains("not the example"));
        assert!(with(&"x".repeat(40), "").is_err());
        let base = [("ENVIRONMENT", "production"), ("SECRET_KEY", SECRET)];
        let error = read(&[&base[..], &[("SECRET_KEY_PREVIOUS", example)]].concat()).unwrap_err();
        assert!(error.contains("SECRET_KEY_PREVIOUS must be a secret of your own"), "{error}");
        assert!(with(SECRET, "*").unwrap_err().contains("ALLOWED_ORIGINS"));
        let public = |url| {
            read(&[("ENVIRONMENT", "production"), ("SECRET_KEY", SECRET), ("PUBLIC_URL", url)])
        };
        assert!(public("http://example.com").unwrap_err().contains("PUBLIC_URL must be an https"));
        assert!(public("https://example.com/todo").is_ok());
        assert!(read(&[("SECRET_KEY", example), ("ALLOWED_ORIGINS", "*")]).is_ok());
    }

    #[test]
    fn the_python_backends_names_and_addresses_are_accepted() {
        for url in [
            "postgresql+asyncpg://u:p@h/db",
            "postgres://h/db",
            "postgresql://h/db?sslmode=require",
            "sqlite::memory:",
            "sqlite://x.db",
        ] {
            assert!(read(&[("DATABASE_URL", url)]).is_ok(), "{url}");
        }
        let settings = read(&[("LOG_LEVEL", "WARNING"), ("API_V1_PREFIX", "/api/v1/")]).unwrap();
        assert_eq!(
            (settings.log_level.as_str(), settings.api_prefix.as_str()),
            ("warn", "/api/v1")
        );
        assert_eq!(read(&[("DEBUG", "True")]).unwrap().log_level, "debug");
        assert!(read(&[("DATABASE_POOL_MIN", "9"), ("DATABASE_POOL_MAX", "8")]).is_err());
        assert!(read(&[("MAX_BODY_BYTES", "16777216")]).is_ok());
        let memory = ("BODY_MEMORY_BYTES", "67108863");
        let error = read(&[("MAX_BODY_BYTES", "16777216"), memory]).unwrap_err();
        assert!(error.contains("BODY_MEMORY_BYTES must be at least 4 times MAX_BODY_BYTES"));
    }

    #[test]
    fn doubtful_settings_are_accepted_with_a_warning() {
        let warnings = |vars: &[(&str, &str)]| {
            let warnings = read(vars).unwrap().warnings();
            warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(warnings(&[("SECRET_KEY", SECRET)]), "");
        let example = "dev-secret-key-change-in-production";
        let warning = warnings(&[("SECRET_KEY", example)]);
        assert!(warning.starts_with("SECRET_KEY: it looks like an example"), "{warning}");
        assert!(!warning.contains('\n') && !warning.contains(example), "{warning}");
        let same = warnings(&[("SECRET_KEY", SECRET), ("SECRET_KEY_PREVIOUS", SECRET)]);
        assert!(same.starts_with("SECRET_KEY_PREVIOUS: is the same"), "{same}");
    }

    /// Compared literally, they would never match.
    #[test]
    fn lists_are_made_canonical() {
        let origins = "https://Example.com, https://example.com:443/,capacitor://localhost";
        let settings = read(&[
            ("ALLOWED_ORIGINS", origins),
            ("TRUSTED_PROXIES", "::ffff:10.0.0.0/104,10.1.2.3/8,192.0.2.1"),
        ])
        .unwrap();
        let origins: Vec<_> = settings.allowed_origins.iter().map(Origin::as_str).collect();
        assert_eq!(origins, ["https://example.com", "capacitor://localhost"]);
        let proxies: Vec<_> = settings.trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(proxies, ["10.0.0.0/8", "192.0.2.1/32"]);
        for origins in ["https://:::", "https://example.com:99999", "https://a,*.b", "null"] {
            let error = read(&[("ALLOWED_ORIGINS", origins)]).unwrap_err();
            assert!(error.contains("ALLOWED_ORIGINS must be"), "{error}");
        }
    }

    #[test]
    fn an_embedded_database_has_one_address() {
        let with = |migrations| {
            read(&[("DATABASE_URL", "sqlite://a.db"), ("MIGRATIONS_DATABASE_URL", migrations)])
        };
        assert!(with("sqlite://a.db").is_ok() && with("").is_ok());
        assert!(with("sqlite://b.db").unwrap_err().contains("MIGRATIONS_DATABASE_URL must be"));
    }

    #[test]
    fn a_key_instead_of_its_path_is_rejected() {
        let base64 = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC";
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----");
        let one_line = pem.replace('\n', "\\n");
        for key in [base64, &pem, &one_line, &pem.replace('\n', "")] {
            let error = read(&[("TLS_CERT", "cert.pem"), ("TLS_KEY", key)]).unwrap_err();
            assert!(error.contains("TLS_KEY must be the path"), "{error}");
            assert!(!error.contains("MC4CA"), "{error}");
        }
        let long = "/etc/letsencrypt/live/todo.example.com/privkey.pem/and/some/more/of/it";
        assert!(read(&[("TLS_CERT", "cert.pem"), ("TLS_KEY", long)]).is_ok());
    }

    #[test]
    fn the_names_of_settings_are_complete_and_unique() {
        let names = Settings::names();
        for name in ["DATABASE_URL", "SECRET_KEY", "DEBUG", "LOG_LEVEL", "TLS_CERT", "TLS_KEY"] {
            assert_eq!(names.iter().filter(|known| **known == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn the_default_limit_per_address_is_a_quarter_of_all_but_at_least_64() {
        let share = |vars: &[_]| read(vars).unwrap().max_connections_per_address;
        assert_eq!(share(&[]), 2048);
        assert_eq!(share(&[("MAX_CONNECTIONS", "1000")]), 250);
        assert_eq!(share(&[("MAX_CONNECTIONS", "100")]), 64);
        assert_eq!(share(&[("MAX_CONNECTIONS_PER_ADDRESS", "7")]), 7);
    }

    #[test]
    fn debug_output_has_no_secret() {
        let url = "postgres://user:hunter2@db.example.com/todo";
        let settings = read(&[("DATABASE_URL", url), ("SECRET_KEY", SECRET)]).unwrap();
        let printed = format!("{settings:?}");
        assert!(!printed.contains("hunter2") && !printed.contains(SECRET), "{printed}");
        let mut options = Options::new(settings.secret_key.unwrap());
        options.previous_secrets.push(options.secret.clone());
        options.migrations_url = Some(url.to_owned());
        let printed = format!("{options:?} {options:#?}");
        assert!(!printed.contains("hunter2") && !printed.contains(SECRET), "{printed}");
    }

    #[test]
    fn a_stored_secret_is_private_and_the_same_for_concurrent_starts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("todo.db.secret");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || load_or_create_secret_file(&path).unwrap())
            })
            .collect();
        let secrets: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(secrets.iter().all(|secret| *secret == secrets[0] && secret.len() == 64));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
