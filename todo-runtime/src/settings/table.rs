//! The table of settings: one row each, with name, default, allowed values and description. The
//! fields of [`Settings`], their parser, what `doctor` prints, the README's table and
//! `.env.example` are all made from it. To add a setting, add a row: so this file is long.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use todo_core::{
    Algorithm, DatabaseUrl, Secret,
    auth::Email,
    http::{Origin, PublicUrl},
    identity::SignatureAlgorithm,
    sign_in::ClientSecret,
};

use super::{
    Environment, LogFormat, Setting, Warning,
    kind::{self, Kind},
    vars::Vars,
};
use crate::mail::MailAddress;

/// Minimum of the default of `MAX_CONNECTIONS_PER_ADDRESS`, for users who share one address.
const MIN_SHARE: usize = 64;

/// Defines [`Settings`] by its rows:
///
/// - `default`: the value if the variable is unset. It may depend on the fields above its row.
/// - `default_text`, if the value alone does not describe the default.
/// - `values`: the allowed values, their parser, and how a value is printed.
/// - `secret: true`, if the value is or contains a secret. Then `NAME_FILE` may name a file with
///   the value.
/// - `example`: the value in `.env.example`, if it is not the default.
/// - `description`: plain sentences, in Markdown.
///
/// A macro, since a function cannot define the fields of a struct.
macro_rules! settings {
    ($(
        $visibility:vis $field:ident: $type:ty {
            name: $name:literal,
            default: $default:expr,
            $(default_text: $default_text:literal,)?
            values: $values:expr,
            $(secret: $secret:literal,)?
            $(example: $example:literal,)?
            description: $description:literal,
        }
    )*) => {
        /// Settings of a server. The README has the table.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct Settings {
            $(
                #[doc = concat!("`", $name, "`: ", $description)]
                $visibility $field: $type,
            )*
            /// Warnings about the sources of the settings.
            pub(super) warnings: Vec<Warning>,
        }

        /// The names of all settings.
        pub(super) const NAMES: &[&str] = &[$($name),*];

        /// The names of the settings that are or contain a secret.
        pub(super) fn secret_names() -> impl Iterator<Item = &'static str> {
            let rows = [$(($name, false $(|| $secret)?)),*];
            rows.into_iter().filter_map(|(name, is_secret)| is_secret.then_some(name))
        }

        impl Settings {
            /// Parses all settings and collects the errors in `vars`. Combinations are not checked.
            pub(super) fn parse(vars: &mut Vars) -> Self {
                $(let $field: $type = vars.read($name, $default, &$values);)*
                Self { $($field,)* warnings: Vec::new() }
            }

            /// The names and values of all settings, for people. Secrets are hidden.
            #[must_use]
            pub fn redacted(&self) -> Vec<(&'static str, String)> {
                vec![$({
                    let printed = Kind::<$type>::print(&$values, &self.$field);
                    ($name, printed.unwrap_or_else(|| "(not set)".to_owned()))
                }),*]
            }

            /// The table of all settings.
            #[must_use]
            pub fn table() -> Vec<Setting> {
                let defaults = Self::parse(&mut Vars::default());
                vec![$({
                    let values: Kind<$type> = $values;
                    let default = values.print(&defaults.$field).filter(|text| !text.is_empty());
                    Setting {
                        name: $name,
                        default_text: None$(.or(Some($default_text)))?,
                        example: None$(.or(Some($example)))?,
                        default,
                        allowed: values.allowed,
                        is_secret: false $(|| $secret)?,
                        description: $description,
                    }
                }),*]
            }
        }
    };
}

settings! {
    pub database_url: DatabaseUrl {
        name: "DATABASE_URL",
        default: default_database(),
        values: kind::database_url(),
        secret: true,
        description: "The database: `sqlite://FILE`, `sqlite::memory:`, \
            `postgres://USER:PASSWORD@HOST/DATABASE`, `postgresql://…`, or an address in the \
            syntax of SQLAlchemy. In a password, percent-encode `@ : / ? # %` as \
            `%40 %3A %2F %3F %23 %25`.",
    }
    pub migrations_database_url: Option<DatabaseUrl> {
        name: "MIGRATIONS_DATABASE_URL",
        default: None,
        values: kind::optional(kind::database_url()),
        secret: true,
        example: "postgres://USER:PASSWORD@HOST/DATABASE",
        description: "A direct address of the same database, for its migrations, if \
            `DATABASE_URL` is the address of a pooler.",
    }
    pub database_pool_min: u32 {
        name: "DATABASE_POOL_MIN",
        default: 5,
        values: kind::number("a whole number", 0..=1000),
        description: "Minimum number of connections to PostgreSQL; at most `DATABASE_POOL_MAX`.",
    }
    pub database_pool_max: u32 {
        name: "DATABASE_POOL_MAX",
        default: 20,
        values: kind::number("a whole number", 1..=1000),
        description: "Maximum number of connections to the database. An SQLite file is read by at \
            most 8 of them, and by at most 2 for each core.",
    }
    pub database_timeout: Duration {
        name: "DATABASE_TIMEOUT_MS",
        default: Duration::from_millis(1800),
        values: kind::milliseconds(100..=60_000),
        description: "Timeout of a database call, including its wait for a connection. The \
            response is then 503.",
    }
    pub database_startup: Duration {
        name: "DATABASE_STARTUP_SECONDS",
        default: Duration::from_secs(30),
        values: kind::seconds(0..=3600),
        description: "How long a start retries to connect to the database.",
    }
    pub secret_key: Option<Secret> {
        name: "SECRET_KEY",
        default: None,
        default_text: "generated and stored",
        values: kind::optional(kind::secret()),
        secret: true,
        example: "change-me-to-a-random-text-of-32-bytes-or-more",
        description: "The key that signs tokens, for instance the output of \
            `openssl rand -hex 32`. Without it, the first start generates one and stores it beside \
            the database. Required in production, where examples, repetitions and sequences are \
            rejected.",
    }
    pub secret_key_previous: Option<Secret> {
        name: "SECRET_KEY_PREVIOUS",
        default: None,
        values: kind::optional(kind::secret()),
        secret: true,
        example: "",
        description: "The previous key. Tokens signed with it remain valid, so that a new key \
            ends no session.",
    }
    pub algorithm: Algorithm {
        name: "ALGORITHM",
        default: Algorithm::Hs256,
        values: kind::algorithm(),
        description: "The algorithm that signs tokens.",
    }
    pub access_token_expire_days: u16 {
        name: "ACCESS_TOKEN_EXPIRE_DAYS",
        default: 7,
        values: kind::number("a whole number of days", 1..=3650),
        description: "Lifetime of a session and its token.",
    }
    pub session_idle_days: u16 {
        name: "SESSION_IDLE_DAYS",
        default: 0,
        values: kind::number("a whole number of days", 0..=3650),
        description: "Days without use after which a session ends, to about an hour; 0: only its \
            lifetime ends it. API keys stay.",
    }
    pub host: IpAddr {
        name: "HOST",
        default: IpAddr::V4(Ipv4Addr::LOCALHOST),
        values: kind::host(),
        description: "The address to listen on.",
    }
    pub port: u16 {
        name: "PORT",
        default: 8000,
        values: kind::number("a port", 0..=u16::MAX),
        description: "The port to listen on; 0 is any free port.",
    }
    pub(super) tls_cert: Option<PathBuf> {
        name: "TLS_CERT",
        default: None,
        values: kind::optional(kind::pem_file()),
        example: "/etc/todo/cert.pem",
        description: "The certificate chain for https; requires `TLS_KEY`. `todo-server` only. \
            SIGHUP reloads both files.",
    }
    pub(super) tls_key: Option<PathBuf> {
        name: "TLS_KEY",
        default: None,
        values: kind::optional(kind::pem_file()),
        example: "/etc/todo/key.pem",
        description: "The private key of `TLS_CERT`, which requires it.",
    }
    pub allowed_origins: Vec<Origin> {
        name: "ALLOWED_ORIGINS",
        default: default_origins(),
        values: kind::origins(),
        description: "Origins of pages and apps that may call the API from a browser or a web \
            view: `scheme://host` or `scheme://host:port`. `*` is any origin, except in \
            production.",
    }
    pub rate_limit_per_minute: u32 {
        name: "RATE_LIMIT_PER_MINUTE",
        default: 5,
        values: kind::number("a whole number", 0..=10_000),
        description: "Maximum of failed logins, and of signups, per minute and client address; 0 \
            is no limit. An IPv6 /56 has 3 times this limit, and a /48 has 8 times.",
    }
    pub max_todos_per_user: u32 {
        name: "MAX_TODOS_PER_USER",
        default: 50_000,
        values: kind::number("a whole number", 0..=100_000_000),
        description: "Maximum number of todos of a user; 0 is no limit. A creation beyond it is a \
            409.",
    }
    pub max_reminders_per_user: u32 {
        name: "MAX_REMINDERS_PER_USER",
        default: 500,
        values: kind::number("a whole number", 0..=100_000_000),
        description: "Maximum number of a user's reminders that have not fired; 0 is no limit. A \
            write that adds some beyond it is a 409.",
    }
    pub max_tags_per_user: u32 {
        name: "MAX_TAGS_PER_USER",
        default: 500,
        values: kind::number("a whole number", 0..=100_000),
        description: "Maximum number of different tags of a user's todos; 0 is no limit. A todo \
            with a new tag beyond it is a 409.",
    }
    pub max_lists_per_user: u32 {
        name: "MAX_LISTS_PER_USER",
        default: 200,
        values: kind::number("a whole number", 0..=100_000),
        description: "Maximum number of lists of a user; 0 is no limit. A list beyond it is a 409.",
    }
    pub trash_days: u16 {
        name: "TRASH_DAYS",
        default: 30,
        values: kind::number("a whole number", 0..=3650),
        description: "Days for which a deleted todo can be restored; 0: a deletion is permanent.",
    }
    pub max_streams_per_user: u32 {
        name: "MAX_STREAMS_PER_USER",
        default: 5,
        values: kind::number("a whole number", 0..=2000),
        description: "Maximum number of a user's open streams of changes on one server; 0 is no \
            limit. A stream beyond it is a 429. All users together have at most 2000.",
    }
    pub trusted_proxies: Vec<IpNet> {
        name: "TRUSTED_PROXIES",
        default: Vec::new(),
        values: kind::networks(),
        example: "10.0.0.0/8",
        description: "Networks and addresses of proxies. `X-Forwarded-For` and \
            `X-Forwarded-Proto` are ignored in requests from any other address.",
    }
    pub environment: Environment {
        name: "ENVIRONMENT",
        default: Environment::Development,
        values: kind::environment(),
        description: "In production, plain http is rejected, logs are JSON, and `SECRET_KEY` is \
            required.",
    }
    pub debug: bool {
        name: "DEBUG",
        default: false,
        values: kind::boolean(),
        description: "Whether the default of `LOG_LEVEL` is `debug`.",
    }
    pub log_level: String {
        name: "LOG_LEVEL",
        default: if debug { "debug" } else { "info" }.to_owned(),
        values: kind::log_level(),
        description: "The lowest level of the log lines, in any case. `warning` is `warn`, and \
            `critical` is `error`.",
    }
    pub log_format: LogFormat {
        name: "LOG_FORMAT",
        default: match environment {
            Environment::Production => LogFormat::Json,
            Environment::Development | Environment::Staging => LogFormat::Text,
        },
        default_text: "`text`, in production `json`",
        values: kind::log_format(),
        description: "The format of log lines: text for people, or one JSON object per line for \
            log collectors.",
    }
    pub public_url: Option<PublicUrl> {
        name: "PUBLIC_URL",
        default: None,
        values: kind::optional(kind::public_url()),
        example: "https://example.com/todo",
        description: "Origin and path of the server for its clients, if a proxy has another \
            address. `Location`, the index, the OpenAPI document's `servers` and redirects \
            contain it. In production, an https address.",
    }
    pub api_prefix: String {
        name: "API_V1_PREFIX",
        default: "/api".to_owned(),
        values: kind::path_prefix(),
        description: "The beginning of the paths of the API's routes, for instance `/api/v1`.",
    }
    pub project_name: String {
        name: "PROJECT_NAME",
        default: "Todo API".to_owned(),
        values: kind::line(100),
        description: "The name of the API in its index and documents.",
    }
    pub(crate) auth_issuer: Option<String> {
        name: "AUTH_ISSUER",
        default: None,
        values: kind::optional(kind::issuer()),
        example: "https://auth.example.com",
        description: "Another issuer whose tokens are accepted, for instance Better Auth or \
            Keycloak: exactly the `iss` of its tokens. See [identity.md](docs/identity.md).",
    }
    pub(crate) auth_audience: Option<String> {
        name: "AUTH_AUDIENCE",
        default: None,
        values: kind::optional(kind::line(500)),
        example: "https://todo.example.com",
        description: "The `aud` that the issuer's tokens must have. Required with `AUTH_ISSUER`.",
    }
    pub(crate) auth_jwks_url: Option<String> {
        name: "AUTH_JWKS_URL",
        default: None,
        values: kind::optional(kind::jwks_url()),
        example: "https://auth.example.com/api/auth/jwks",
        description: "The issuer's public keys. If unset, the `jwks_uri` of its discovery document; \
            without one, `AUTH_ISSUER/api/auth/jwks`, as Better Auth.",
    }
    pub(crate) auth_algorithms: Vec<SignatureAlgorithm> {
        name: "AUTH_ALGORITHMS",
        default: SignatureAlgorithm::ALL.to_vec(),
        values: kind::signature_algorithms(),
        description: "The signature algorithms of the issuer's tokens, separated by commas.",
    }
    pub(crate) auth_link_verified_email: bool {
        name: "AUTH_LINK_VERIFIED_EMAIL",
        default: false,
        values: kind::boolean(),
        description: "Whether a new user of another issuer is the user with the same e-mail \
            address here, if both sides have verified it. Else a token makes a new user, and a sign-in \
            fails.",
    }
    pub(crate) oauth_redirects: Vec<String> {
        name: "OAUTH_REDIRECTS",
        default: Vec::new(),
        values: kind::redirects(),
        example: "https://app.example.com/signed-in",
        description: "Addresses of apps to which a sign-in with a provider may return, separated \
            by commas. They are compared byte by byte, but `http://127.0.0.1` and `http://[::1]` \
            without a port allow any.",
    }
    pub(crate) oauth_google_client_id: Option<String> {
        name: "OAUTH_GOOGLE_CLIENT_ID",
        default: None,
        values: kind::optional(kind::client_id()),
        example: "1234.apps.googleusercontent.com",
        description: "The registration for sign-in with Google, whose redirect address is \
            `PUBLIC_URL/api/auth/oauth/google/callback` (with `API_V1_PREFIX` instead of `/api`). \
            Requires its secret and `PUBLIC_URL`. See [identity.md](docs/identity.md).",
    }
    pub(crate) oauth_google_client_secret: Option<ClientSecret> {
        name: "OAUTH_GOOGLE_CLIENT_SECRET",
        default: None,
        values: kind::optional(kind::client_secret()),
        secret: true,
        example: "",
        description: "The secret of `OAUTH_GOOGLE_CLIENT_ID`, which requires it.",
    }
    pub(crate) oauth_github_client_id: Option<String> {
        name: "OAUTH_GITHUB_CLIENT_ID",
        default: None,
        values: kind::optional(kind::client_id()),
        example: "Iv1.0123456789abcdef",
        description: "The registration for sign-in with GitHub, as that of Google, with `github` \
            in its redirect address.",
    }
    pub(crate) oauth_github_client_secret: Option<ClientSecret> {
        name: "OAUTH_GITHUB_CLIENT_SECRET",
        default: None,
        values: kind::optional(kind::client_secret()),
        secret: true,
        example: "",
        description: "The secret of `OAUTH_GITHUB_CLIENT_ID`, which requires it.",
    }
    pub(crate) oauth_github_url: String {
        name: "OAUTH_GITHUB_URL",
        default: "https://github.com".to_owned(),
        values: kind::issuer(),
        description: "The address of GitHub, or of a GitHub Enterprise Server. Another address \
            makes other users of the same people.",
    }
    pub(crate) oauth_oidc_issuer: Option<String> {
        name: "OAUTH_OIDC_ISSUER",
        default: None,
        values: kind::optional(kind::issuer()),
        example: "https://login.example.com",
        description: "A provider of OpenID Connect for sign-in, for instance Keycloak or Rauthy: \
            exactly the `issuer` of its discovery document. Requires the next two.",
    }
    pub(crate) oauth_oidc_client_id: Option<String> {
        name: "OAUTH_OIDC_CLIENT_ID",
        default: None,
        values: kind::optional(kind::client_id()),
        example: "todo",
        description: "The registration at `OAUTH_OIDC_ISSUER`, as that of Google, with `oidc` in \
            its redirect address.",
    }
    pub(crate) oauth_oidc_client_secret: Option<ClientSecret> {
        name: "OAUTH_OIDC_CLIENT_SECRET",
        default: None,
        values: kind::optional(kind::client_secret()),
        secret: true,
        example: "",
        description: "The secret of `OAUTH_OIDC_CLIENT_ID`, which requires it.",
    }
    pub(crate) oauth_oidc_name: String {
        name: "OAUTH_OIDC_NAME",
        default: "OpenID Connect".to_owned(),
        values: kind::title(),
        description: "The name of `OAUTH_OIDC_ISSUER` for users.",
    }
    pub(crate) smtp_url: Option<MailAddress> {
        name: "SMTP_URL",
        default: None,
        values: kind::optional(kind::mail_address()),
        secret: true,
        example: "smtps://USER:PASSWORD@smtp.example.com",
        description: "The server that sends mails; without it there are none, and the routes that \
            need them are a 501. `smtps` is TLS from the start (port 465). `smtp` (port 587) \
            requires STARTTLS, except for this machine; `?tls=off` sends in plain text, without a \
            password. `file:///DIRECTORY` writes `.eml` files, except in production.",
    }
    pub(crate) mail_from: Option<Email> {
        name: "MAIL_FROM",
        default: None,
        values: kind::optional(kind::email()),
        example: "todo@example.com",
        description: "The address of the sender of mails. Required with `SMTP_URL`.",
    }
    pub(crate) app_url: Option<PublicUrl> {
        name: "APP_URL",
        default: None,
        values: kind::optional(kind::public_url()),
        example: "https://app.example.com",
        description: "The address of the app that users have: links in mails are \
            `APP_URL/reset#token=…` and `APP_URL/confirm#token=…`. Required with `SMTP_URL`. In \
            production, an https address.",
    }
    pub(crate) mail_per_hour: u32 {
        name: "MAIL_PER_HOUR",
        default: 500,
        values: kind::number("a whole number", 1..=1_000_000),
        description: "Maximum number of mails an hour. Further ones wait, as long as their links \
            work.",
    }
    pub(crate) require_verified_email: bool {
        name: "REQUIRE_VERIFIED_EMAIL",
        default: false,
        values: kind::boolean(),
        description: "Whether a login requires a confirmed e-mail address; requires `SMTP_URL`. A \
            reset of the password confirms the address too.",
    }
    pub max_connections: usize {
        name: "MAX_CONNECTIONS",
        default: 8192,
        values: kind::number("a whole number", 1..=1_000_000),
        description: "Maximum number of open connections. Requests on up to 64 further \
            connections get a 503; others wait to be accepted.",
    }
    pub max_connections_per_address: usize {
        name: "MAX_CONNECTIONS_PER_ADDRESS",
        default: (max_connections / 4).max(MIN_SHARE),
        default_text: "a quarter of `MAX_CONNECTIONS`, at least 64",
        values: kind::number("a whole number", 1..=1_000_000),
        description: "Maximum number of open connections per address. An IPv6 /64 counts as one \
            address, and addresses in `TRUSTED_PROXIES` have no such limit. Requests on up to 32 \
            further connections get a 503; others are closed.",
    }
    pub keep_alive: Duration {
        name: "KEEP_ALIVE_SECONDS",
        default: Duration::from_secs(75),
        values: kind::seconds(1..=3600),
        description: "Idle timeout of an HTTP/1.1 connection after its first request. It should \
            be longer than that of the load balancer before the server.",
    }
    pub metrics_address: Option<SocketAddr> {
        name: "METRICS_ADDRESS",
        default: None,
        values: kind::optional(kind::socket_address()),
        example: "127.0.0.1:9000",
        description: "The address that serves `/metrics`, over plain http, instead of `HOST` and \
            `PORT`.",
    }
    pub request_timeout: Duration {
        name: "REQUEST_TIMEOUT_SECONDS",
        default: Duration::from_secs(30),
        values: kind::seconds(1..=600),
        description: "Timeout of a request. The response is then 504.",
    }
    pub max_body_bytes: usize {
        name: "MAX_BODY_BYTES",
        default: 65_536,
        values: kind::number("bytes", 1024..=16 << 20),
        description: "Maximum size of a request's body. The response to a larger one is 413. \
            Bodies of signup and login have at most 8192 bytes.",
    }
    pub body_memory_bytes: usize {
        name: "BODY_MEMORY_BYTES",
        default: 64 << 20,
        values: kind::number("bytes", 4 << 20..=16 << 30),
        description: "Maximum memory of all bodies in flight together; at least 4 times \
            `MAX_BODY_BYTES`. A client address and a user have at most a quarter each. Beyond it, \
            the response is 503.",
    }
    pub shutdown_delay: Duration {
        name: "SHUTDOWN_DELAY_SECONDS",
        default: Duration::ZERO,
        values: kind::seconds(0..=300),
        description: "How long the server still accepts requests after a stop signal, while \
            `/health/ready` is 503, so that load balancers notice it.",
    }
}

fn default_database() -> DatabaseUrl {
    DatabaseUrl::parse("sqlite://todo.db").unwrap_or_else(|error| unreachable!("{error}"))
}

fn default_origins() -> Vec<Origin> {
    let origins = ["http://localhost:3000", "http://localhost:8000"];
    origins.into_iter().flat_map(Origin::try_from).collect()
}
