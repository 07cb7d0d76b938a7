//! Checks of combinations of settings, and of the requirements of production.

use todo_core::{Secret, http::Origin};

use super::{Environment, Settings, Warning, vars::Vars};
use crate::mail::MailAddress;

/// How to create a strong secret.
const SECRET_HINT: &str = "make one with `openssl rand -hex 32`";

impl Settings {
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
    pub(super) fn check(&self, vars: &mut Vars) {
        if self.database_pool_min > self.database_pool_max {
            vars.reject("DATABASE_POOL_MIN", "at most DATABASE_POOL_MAX");
        }
        // One client may use a quarter of the memory.
        if self.body_memory_bytes / 4 < self.max_body_bytes {
            vars.reject("BODY_MEMORY_BYTES", "at least 4 times MAX_BODY_BYTES");
        }
        if self
            .migrations_database_url
            .as_ref()
            .is_some_and(|url| url.kind() != self.database_url.kind())
        {
            vars.reject("MIGRATIONS_DATABASE_URL", "the same database as DATABASE_URL");
        } else if self.database_url.kind() == "sqlite"
            && self.migrations_database_url.as_ref().is_some_and(|url| *url != self.database_url)
        {
            // A server would ignore it, and `migrate` would migrate another file.
            vars.reject("MIGRATIONS_DATABASE_URL", "unset, or as DATABASE_URL, with SQLite");
        }
        let files = [("TLS_CERT", self.tls_cert.is_some()), ("TLS_KEY", self.tls_key.is_some())];
        for [needed, (given, is_given)] in [files, [files[1], files[0]]] {
            if is_given {
                require(vars, needed, given);
            }
        }
        self.check_mail(vars);
        self.check_issuer(vars);
        self.check_sign_in(vars);
        if self.environment != Environment::Production {
            return;
        }
        // An invalid one has an error already.
        if self.secret_key.is_none() && !vars.has_error("SECRET_KEY") {
            vars.reject("SECRET_KEY", "set in production, to at least 32 random bytes");
        }
        // A guessed key, current or previous, can sign tokens.
        for (name, secret) in self.secrets() {
            if let Some(weakness) = secret.weakness() {
                let allowed = format!(
                    "a secret of your own in production, not the example or one like it: \
                     {weakness}; {SECRET_HINT}"
                );
                vars.reject(name, &allowed);
            }
        }
        if self.public_url.as_ref().is_some_and(|url| !url.is_https()) {
            vars.reject("PUBLIC_URL", "an https address in production");
        }
        if self.allowed_origins.iter().any(Origin::is_any) {
            vars.reject("ALLOWED_ORIGINS", "a list of origins in production, not *");
        }
        if self.smtp_url.as_ref().is_some_and(MailAddress::is_directory) {
            vars.reject("SMTP_URL", "the address of a server in production, not a directory");
        }
        // Their tokens grant access to accounts.
        if self.app_url.as_ref().is_some_and(|url| !url.is_https()) {
            vars.reject("APP_URL", "an https address in production");
        }
    }

    /// Checks that each provider of sign-ins has all of its settings.
    fn check_sign_in(&self, vars: &mut Vars) {
        let google = [
            ("OAUTH_GOOGLE_CLIENT_ID", self.oauth_google_client_id.is_some()),
            ("OAUTH_GOOGLE_CLIENT_SECRET", self.oauth_google_client_secret.is_some()),
        ];
        let github = [
            ("OAUTH_GITHUB_CLIENT_ID", self.oauth_github_client_id.is_some()),
            ("OAUTH_GITHUB_CLIENT_SECRET", self.oauth_github_client_secret.is_some()),
        ];
        let oidc = [
            ("OAUTH_OIDC_ISSUER", self.oauth_oidc_issuer.is_some()),
            ("OAUTH_OIDC_CLIENT_ID", self.oauth_oidc_client_id.is_some()),
            ("OAUTH_OIDC_CLIENT_SECRET", self.oauth_oidc_client_secret.is_some()),
        ];
        for provider in [&google[..], &github, &oidc] {
            let Some((given, _)) = provider.iter().find(|(_, is_set)| *is_set) else { continue };
            let others = [
                ("PUBLIC_URL", self.public_url.is_some()),
                ("OAUTH_REDIRECTS", !self.oauth_redirects.is_empty()),
            ];
            for needed in provider.iter().copied().chain(others) {
                require(vars, needed, given);
            }
            // Only here: without a provider, any address is allowed.
            if self.public_url.is_some()
                && self.sign_in_routes().is_err()
                && !vars.has_error("PUBLIC_URL")
            {
                let allowed = "an https address, or http for this machine, if a provider of \
                               sign-ins is set";
                vars.reject("PUBLIC_URL", allowed);
            }
        }
    }

    /// Checks that another issuer has all of its settings.
    fn check_issuer(&self, vars: &mut Vars) {
        let issuer = ("AUTH_ISSUER", self.auth_issuer.is_some());
        let audience = ("AUTH_AUDIENCE", self.auth_audience.is_some());
        let keys = ("AUTH_JWKS_URL", self.auth_jwks_url.is_some());
        for ((given, is_given), needed) in [(issuer, audience), (audience, issuer), (keys, issuer)]
        {
            if is_given {
                require(vars, needed, given);
            }
        }
    }

    /// Checks that mails have all of their settings.
    fn check_mail(&self, vars: &mut Vars) {
        if self.smtp_url.is_none() {
            // An invalid one has an error already.
            if self.require_verified_email && !vars.has_error("SMTP_URL") {
                vars.reject("SMTP_URL", "set, if REQUIRE_VERIFIED_EMAIL is true");
            }
            return;
        }
        for needed in [("MAIL_FROM", self.mail_from.is_some()), ("APP_URL", self.app_url.is_some())]
        {
            require(vars, needed, "SMTP_URL");
        }
    }
}

/// Rejects a setting that is not set although `given` is. An invalid one has an error already.
fn require(vars: &mut Vars, (name, is_set): (&str, bool), given: &str) {
    if !is_set && !vars.has_error(name) {
        vars.reject(name, &format!("set, if {given} is"));
    }
}
