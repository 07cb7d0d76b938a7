//! `todo-server doctor`: prints the effective settings without secrets, then one line per check. It
//! changes nothing: no migration, no file.

use std::{error::Error, fmt::Display, sync::Arc, time::Duration};

use todo_core::{Clock, ErrorChain, admin, check_database, check_pooler, identity, sign_in};
use todo_runtime::{
    Settings,
    settings::{Environment, TlsFiles},
};
use todo_server::pem;
use tokio::time::timeout;

use super::{direct_url, tls};

/// Timeout of one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);
/// Days before expiry from which a certificate gets a warning; renewal is usual a month before.
const RENEWAL_DAYS: i64 = 14;
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Prints settings and checks. Returns whether no check failed.
pub(crate) async fn doctor(settings: &Settings) -> bool {
    for (name, value) in settings.redacted() {
        outln!("{name}={value}");
    }
    outln!();
    let mut checks = Checks::default();
    checks.secret(settings);
    checks.production(settings);
    checks.database(settings).await;
    match todo_runtime::check_mail(settings).await {
        Ok(None) => checks.ok("SMTP_URL", "not set: no mails are sent"),
        Ok(Some(found)) => checks.ok("SMTP_URL", found),
        Err(error) => checks.fail("SMTP_URL", error),
    }
    checks.issuer(settings).await;
    checks.sign_in(settings).await;
    match settings.tls() {
        Some(files) => checks.tls(&files),
        None => checks.ok("TLS", "not configured"),
    }
    let Checks { ok, warned, failed } = checks;
    outln!("\n{ok} ok, {warned} warned, {failed} failed");
    failed == 0
}

#[derive(Default)]
struct Checks {
    ok: u32,
    warned: u32,
    failed: u32,
}

impl Checks {
    /// Fetches the issuer's keys once.
    async fn issuer(&mut self, settings: &Settings) {
        const WHAT: &str = "AUTH_ISSUER";
        let Some(options) = settings.issuer_options() else {
            return self.ok(WHAT, "not set: no tokens of another issuer are accepted");
        };
        match identity::check_issuer(&options, Arc::new(identity::HyperClient::new())).await {
            Ok(found) if found.keys() == 0 => {
                self.warn(WHAT, format!("no usable keys at {}", found.key_set_url()));
            }
            Ok(found) => {
                let algorithms: Vec<_> =
                    found.algorithms().iter().map(|one| one.as_str()).collect();
                let (keys, url) = (found.keys(), found.key_set_url());
                self.ok(WHAT, format!("{keys} keys at {url}, for {}", algorithms.join(", ")));
            }
            Err(error) => self.fail(WHAT, error),
        }
    }

    /// Fetches the discovery document of each provider once.
    async fn sign_in(&mut self, settings: &Settings) {
        const WHAT: &str = "OAUTH";
        let Some(options) = settings.sign_in_options() else {
            return self.ok(WHAT, "not set: there is no sign-in with a provider");
        };
        let client = Arc::new(identity::HyperClient::new());
        for (provider, result) in sign_in::check_providers(options, client).await {
            match result {
                Ok(()) => self.ok(WHAT, format!("sign-in with {}", provider.title)),
                Err(error) => self.fail(WHAT, format!("{}: {error}", provider.name)),
            }
        }
    }

    fn ok(&mut self, what: &str, detail: impl Display) {
        self.ok += 1;
        outln!("ok   {what}: {detail}");
    }

    fn warn(&mut self, what: &str, detail: impl Display) {
        self.warned += 1;
        outln!("warn {what}: {detail}");
    }

    fn fail(&mut self, what: &str, detail: impl Display) {
        self.failed += 1;
        outln!("FAIL {what}: {detail}");
    }

    fn secret(&mut self, settings: &Settings) {
        match &settings.secret_key {
            None => self.warn("SECRET_KEY", "not set: a start creates one and stores it in a file"),
            // Included in the warnings below.
            Some(secret) if secret.weakness().is_some() => {}
            Some(_) => self.ok("SECRET_KEY", "set, at least 32 bytes"),
        }
        for warning in settings.warnings() {
            self.warn(&warning.about, warning.message);
        }
    }

    /// Checks of production beyond those that fail a start.
    fn production(&mut self, settings: &Settings) {
        if settings.environment != Environment::Production {
            return self.ok("production", "not checked: ENVIRONMENT is not production");
        }
        if settings.tls().is_none() && settings.trusted_proxies.is_empty() {
            let why = "plain http is refused, and there is neither TLS_CERT nor TRUSTED_PROXIES";
            return self.fail("production", why);
        }
        if settings.rate_limit_per_minute == 0 {
            return self.warn("production", "RATE_LIMIT_PER_MINUTE is 0: passwords can be guessed");
        }
        self.ok("production", "all rules are met");
    }

    async fn database(&mut self, settings: &Settings) {
        let url = settings.database_url.as_str();
        if settings.database_url.kind() == "postgres" {
            match within(check_pooler(url)).await {
                Ok(()) => self.ok("pooler", "no prepared statements are mixed up"),
                Err(error) => self.fail("pooler", error),
            }
            self.requirements(url).await;
        } else if admin::is_in_memory(url) {
            return self.warn("database", "in memory: lost when the process ends");
        }
        let direct = direct_url(settings);
        let name = if direct == url { "database" } else { "MIGRATIONS_DATABASE_URL" };
        let inspected = async {
            // As a start opens it, but without changes.
            admin::check(url).await?;
            admin::migrations(direct).await
        };
        match within(inspected).await {
            Err(error) => self.fail(name, error),
            Ok(migrations) => {
                let pending = migrations.iter().filter(|migration| !migration.applied).count();
                if pending == migrations.len() {
                    return self.warn(name, "does not exist yet, or is empty: a start creates it");
                }
                self.ok(name, "reachable");
                match pending {
                    0 => self.ok("migrations", "up to date"),
                    n => self.warn("migrations", format_args!("{n} pending: a start applies them")),
                }
            }
        }
    }

    /// Requirements on a PostgreSQL database and its role that a start enforces or warns about.
    async fn requirements(&mut self, url: &str) {
        const NAME: &str = "encoding, defaults, grants";
        match within(check_database(url)).await {
            Err(error) => self.fail(NAME, error),
            Ok(findings) if findings.is_empty() => self.ok(NAME, "as required"),
            Ok(findings) => {
                for finding in findings {
                    if finding.is_refused {
                        self.fail(NAME, finding.text);
                    } else {
                        self.warn(NAME, finding.text);
                    }
                }
            }
        }
    }

    fn tls(&mut self, files: &TlsFiles) {
        let chain = match pem::chain(files) {
            Ok(chain) => chain,
            Err(error) => return self.fail("TLS_CERT", error),
        };
        self.ok("TLS_CERT", "readable");
        match tls::validity(&chain) {
            Ok(validity) => self.dates(&validity),
            Err(error) => self.fail("TLS dates", error),
        }
        match tls::check_key(files, chain) {
            Ok(()) => self.ok("TLS_KEY", "matches the certificate"),
            Err(error) => self.fail("TLS_KEY", error),
        }
    }

    fn dates(&mut self, validity: &tls::Validity) {
        let now = Clock::system().now().timestamp();
        let days = (validity.until - now).div_euclid(DAY_SECONDS);
        if now < validity.from {
            let days = (validity.from - now).div_euclid(DAY_SECONDS);
            self.fail("TLS dates", format_args!("not valid for another {days} days"));
        } else if now > validity.until {
            self.fail("TLS dates", format_args!("expired {} days ago", -days));
        } else if days < RENEWAL_DAYS {
            self.warn("TLS dates", format_args!("expires in {days} days"));
        } else {
            self.ok("TLS dates", format_args!("valid for {days} more days"));
        }
    }
}

/// Runs a check with [`CHECK_TIMEOUT`]; errors as text.
async fn within<T, E: Error>(check: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(CHECK_TIMEOUT, check).await {
        Ok(outcome) => outcome.map_err(|error| ErrorChain(&error).to_string()),
        Err(_) => Err(format!("no response within {} s", CHECK_TIMEOUT.as_secs())),
    }
}
