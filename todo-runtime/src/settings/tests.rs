//! What the settings accept, and what they reject.

use todo_core::{Core, DatabaseOptions, http::Origin};

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
        ("SMTP_URL", "smtp.example.com"),
        ("SMTP_URL", "smtp://u:p@smtp.example.com?tls=off"),
        ("MAIL_FROM", "nobody"),
        ("APP_URL", "app.example.com"),
        ("MAIL_PER_HOUR", "0"),
        ("REQUIRE_VERIFIED_EMAIL", "maybe"),
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
        read(&[("ENVIRONMENT", "production"), ("SECRET_KEY", secret), ("ALLOWED_ORIGINS", origins)])
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
    let public =
        |url| read(&[("ENVIRONMENT", "production"), ("SECRET_KEY", SECRET), ("PUBLIC_URL", url)]);
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
    assert_eq!((settings.log_level.as_str(), settings.api_prefix.as_str()), ("warn", "/api/v1"));
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

#[test]
fn mails_need_all_of_their_settings() {
    let smtp = ("SMTP_URL", "smtps://ada:hunter2@smtp.example.com");
    let [from, app] = [("MAIL_FROM", "a@example.com"), ("APP_URL", "http://localhost:3000")];
    assert!(read(&[smtp, from, app, ("REQUIRE_VERIFIED_EMAIL", "true")]).is_ok());
    assert!(read(&[from, app]).is_ok(), "they have no effect");
    let error = read(&[smtp, app]).unwrap_err();
    assert!(error.contains("MAIL_FROM must be set"), "{error}");
    let error = read(&[smtp, from]).unwrap_err();
    assert!(error.contains("APP_URL must be set") && !error.contains("hunter2"), "{error}");
    let error = read(&[("REQUIRE_VERIFIED_EMAIL", "true")]).unwrap_err();
    assert!(error.contains("SMTP_URL must be set"), "{error}");
    let production = [("ENVIRONMENT", "production"), ("SECRET_KEY", SECRET), from];
    let error = read(&[&production[..], &[smtp, app]].concat()).unwrap_err();
    assert!(error.contains("APP_URL must be an https"), "{error}");
    let https = ("APP_URL", "https://app.example.com");
    let directory = ("SMTP_URL", "file:///var/mail");
    let error = read(&[&production[..], &[directory, https]].concat()).unwrap_err();
    assert!(error.contains("SMTP_URL must be the address of a server"), "{error}");
    assert!(read(&[&production[..], &[smtp, https]].concat()).is_ok());
    let printed = format!("{:?}", read(&[smtp, from, app]).unwrap());
    assert!(printed.contains("smtps://smtp.example.com:465"), "{printed}");
    assert!(!printed.contains("hunter2") && !printed.contains("ada"), "{printed}");
}

const PUBLIC_URL: (&str, &str) = ("PUBLIC_URL", "https://todo.example.com");
const REDIRECT: (&str, &str) = ("OAUTH_REDIRECTS", "https://app.example.com/in");
const OIDC_ISSUER: (&str, &str) = ("OAUTH_OIDC_ISSUER", "https://login.example.com");
const OIDC_ID: (&str, &str) = ("OAUTH_OIDC_CLIENT_ID", "todo");
const OIDC_SECRET: (&str, &str) = ("OAUTH_OIDC_CLIENT_SECRET", "hunter2");

#[test]
fn a_provider_of_sign_ins_needs_all_of_its_settings() {
    let oidc = [OIDC_ISSUER, OIDC_ID, OIDC_SECRET, PUBLIC_URL, REDIRECT];
    let settings = read(&oidc).unwrap();
    assert!(settings.sign_in_options().is_some());
    let printed =
        format!("{settings:?} {:?} {:?}", settings.redacted(), settings.sign_in_options());
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(read(&[PUBLIC_URL, REDIRECT]).unwrap().sign_in_options().is_none());
    for missing in 0..oidc.len() {
        let mut some = oidc.to_vec();
        let (name, _) = some.remove(missing);
        let error = read(&some).unwrap_err();
        assert!(error.contains(&format!("{name} must be set, if ")), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    for given in ["OAUTH_GOOGLE_CLIENT_ID", "OAUTH_GOOGLE_CLIENT_SECRET", "OAUTH_GITHUB_CLIENT_ID"]
    {
        let error = read(&[(given, "x"), PUBLIC_URL, REDIRECT]).unwrap_err();
        assert!(error.contains(&format!("must be set, if {given} is")), "{error}");
    }
    let with = |name: &'static str, value: &'static str| {
        let others = oidc.into_iter().filter(|(other, _)| *other != name);
        read(&others.chain([(name, value)]).collect::<Vec<_>>())
    };
    assert!(with("PUBLIC_URL", "http://localhost:8000").is_ok());
    for (name, value) in [
        ("PUBLIC_URL", "http://todo.example.com"),
        ("OAUTH_REDIRECTS", "http://app.example.com/"),
        ("OAUTH_REDIRECTS", "*"),
        ("OAUTH_OIDC_ISSUER", "http://login.example.com"),
        ("OAUTH_OIDC_NAME", "a\nb"),
    ] {
        let error = with(name, value).unwrap_err();
        assert!(error.contains(&format!("{name} must be ")), "{error}");
    }
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
fn the_table_has_each_field_once() {
    let table = Settings::table();
    for row in &table {
        let same = table.iter().filter(|other| other.name == row.name);
        assert_eq!(same.count(), 1, "{}", row.name);
        assert!(row.description.ends_with('.'), "{}", row.name);
    }
    // The derived output has a line per field at the first level.
    let printed = format!("{:#?}", read(&[]).unwrap());
    let is_field =
        |line: &&str| line.starts_with("    ") && line[4..].starts_with(char::is_alphabetic);
    let fields = printed.lines().filter(is_field).count();
    assert_eq!(fields, table.len() + 1, "a field that is not in the table: {printed}");
}

/// The `.env` of another program may have any name.
#[test]
fn unknown_names_are_ignored() {
    let defaults = format!("{:?}", read(&[]).unwrap());
    for name in table::NAMES {
        for unknown in [format!("{name}S"), format!("TODO_{name}"), name.to_lowercase()] {
            let settings = read(&[(&unknown, "not allowed")]).unwrap();
            assert_eq!(format!("{settings:?}"), defaults, "{unknown}");
        }
    }
}

#[test]
fn defaults_and_examples_are_allowed_values() {
    for row in Settings::table() {
        for value in row.default.iter().map(String::as_str).chain(row.example) {
            let needed: &[_] = match row.name {
                "MIGRATIONS_DATABASE_URL" => &[("DATABASE_URL", "postgres://db/todo")],
                "SMTP_URL" => {
                    &[("MAIL_FROM", "a@example.com"), ("APP_URL", "https://app.example.com")]
                }
                "AUTH_ISSUER" => &[("AUTH_AUDIENCE", "todo")],
                "AUTH_AUDIENCE" => &[("AUTH_ISSUER", "https://auth.example.com")],
                "AUTH_JWKS_URL" => {
                    &[("AUTH_ISSUER", "https://auth.example.com"), ("AUTH_AUDIENCE", "todo")]
                }
                "OAUTH_GOOGLE_CLIENT_ID" => {
                    &[("OAUTH_GOOGLE_CLIENT_SECRET", "secret"), PUBLIC_URL, REDIRECT]
                }
                "OAUTH_GITHUB_CLIENT_ID" => {
                    &[("OAUTH_GITHUB_CLIENT_SECRET", "secret"), PUBLIC_URL, REDIRECT]
                }
                "OAUTH_OIDC_ISSUER" => &[OIDC_ID, OIDC_SECRET, PUBLIC_URL, REDIRECT],
                "OAUTH_OIDC_CLIENT_ID" => &[OIDC_ISSUER, OIDC_SECRET, PUBLIC_URL, REDIRECT],
                "TLS_CERT" => &[("TLS_KEY", "key.pem")],
                "TLS_KEY" => &[("TLS_CERT", "cert.pem")],
                _ => &[],
            };
            let accepted = read(&[needed, &[(row.name, value)]].concat());
            assert!(accepted.is_ok(), "{}: {}", row.name, accepted.unwrap_err());
        }
    }
}

/// `doctor` prints these values.
#[test]
fn printed_values_can_be_read_again_and_have_no_secret() {
    let url = "postgres://user:hunter2@db.example.com/todo";
    let vars = [
        ("DATABASE_URL", url),
        ("MIGRATIONS_DATABASE_URL", url),
        ("SECRET_KEY", SECRET),
        ("SECRET_KEY_PREVIOUS", SECRET),
        ("ENVIRONMENT", "staging"),
        ("ALGORITHM", "HS512"),
        ("LOG_FORMAT", "json"),
        ("ALLOWED_ORIGINS", "https://a.example,https://b.example"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,192.0.2.1/32"),
        ("DATABASE_TIMEOUT_MS", "1234"),
        ("KEEP_ALIVE_SECONDS", "61"),
        ("SMTP_URL", "smtps://ada:hunter2@smtp.example.com"),
        ("MAIL_FROM", "todo@example.com"),
        ("APP_URL", "https://app.example.com"),
        ("TLS_CERT", "cert.pem"),
        ("TLS_KEY", "key.pem"),
        ("PUBLIC_URL", "https://example.com/todo"),
    ];
    let printed = read(&vars).unwrap().redacted();
    assert_eq!(printed.len(), table::NAMES.len());
    for (name, value) in &printed {
        assert!(!value.contains("hunter2") && !value.contains(SECRET), "{name}={value}");
    }
    let is_secret = |name: &str| table::secret_names().any(|secret| secret == name);
    for (name, value) in vars {
        let shown = printed.iter().find(|(known, _)| *known == name).map(|(_, shown)| shown);
        assert!(is_secret(name) || shown.is_some_and(|shown| shown == value), "{name}: {shown:?}");
    }
    let again = printed.iter().filter(|(name, shown)| !is_secret(name) && shown != "(not set)");
    let again = Settings::from_vars(again.map(|(name, value)| (*name, value.as_str()))).unwrap();
    assert_eq!(again.log_format, LogFormat::Json);
    assert_eq!(again.tls(), read(&vars).unwrap().tls());
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
    let secret = settings.secret_key.unwrap();
    let database = DatabaseOptions::new().migrations_url(DatabaseUrl::parse(url).unwrap());
    let core = Core::builder(secret.clone()).previous_secrets([secret]).database(database);
    let printed = format!("{core:?} {core:#?}");
    assert!(!printed.contains("hunter2") && !printed.contains(SECRET), "{printed}");
}
