//! The start of a server: opens the database, loads the secret, binds the listeners.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use todo_core::{
    Core, Database, DatabaseOptions, ErrorChain, OpenError, Secret,
    http::{Api, ApiOptions},
    identity::IssuerOptions,
};
use tokio::net::TcpListener;

use crate::{
    ServeError, Settings, Signals, log,
    secret_file::{load_or_create_secret_file, new_secret},
    settings::Environment,
};

/// File of a generated secret, if the database has no file to store it beside.
const SECRET_FILE: &str = "todo.secret";

/// Pauses between attempts to connect to the database at the start; each is twice the last one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The database could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The generated secret could not be stored, or the stored one not read.
    #[error("cannot read or create the secret in {}", .path.display())]
    Secret {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Opens the database and builds the API. `None` after a stop signal, which cancels a start that
/// waits for its database.
///
/// # Errors
/// As [`Settings::open`].
pub async fn start(settings: &Settings, signals: &mut Signals) -> Result<Option<Api>, StartError> {
    tokio::select! {
        opened = settings.open() => opened.map(Some),
        () = signals.stop() => {
            tracing::info!("stopped during the start");
            Ok(None)
        }
    }
}

/// Listens on `METRICS_ADDRESS`, if that is set.
///
/// # Errors
/// [`ServeError::Listen`].
pub async fn listen_for_metrics(settings: &Settings) -> Result<Option<TcpListener>, ServeError> {
    let Some(address) = settings.metrics_address else { return Ok(None) };
    let listening = TcpListener::bind(address).await;
    let listener = listening.map_err(|cause| ServeError::Listen { address, cause })?;
    let bound = listener.local_addr().unwrap_or(address);
    tracing::info!("metrics are at http://{bound}/metrics");
    Ok(Some(listener))
}

/// Listens on `HOST` and `PORT`.
pub(crate) async fn listen(settings: &Settings) -> Result<TcpListener, ServeError> {
    let address = SocketAddr::new(settings.host, settings.port);
    TcpListener::bind(address).await.map_err(|cause| ServeError::Listen { address, cause })
}

/// Logs the address of the listener.
pub fn log_listening(listener: &TcpListener, settings: &Settings) {
    if let Ok(address) = listener.local_addr() {
        let scheme = if settings.tls().is_some() { "https" } else { "http" };
        tracing::info!(
            database = settings.database_url.kind(),
            "listening on {scheme}://{address}"
        );
    }
}

impl Settings {
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
        let mut core = Core::builder(secret)
            .previous_secrets(self.secret_key_previous.clone())
            .algorithm(self.algorithm)
            .session_lifetime(chrono::TimeDelta::days(self.access_token_expire_days.into()))
            .session_idle_days(self.session_idle_days)
            .service_name(self.project_name.clone())
            .rate_limit_per_minute(self.rate_limit_per_minute)
            .max_todos(self.max_todos_per_user)
            .max_reminders(self.max_reminders_per_user)
            .max_tags(self.max_tags_per_user)
            .max_lists(self.max_lists_per_user)
            .trash_days(self.trash_days)
            .max_streams(self.max_streams_per_user)
            .database(self.database_options());
        if let Some(mail) = self.mail_options() {
            core = core.mail(mail);
        }
        if let Some(issuer) = self.issuer_options() {
            core = core.issuer(issuer);
        }
        if let Some(sign_in) = self.sign_in_options() {
            core = core.sign_in(sign_in);
        }
        Ok(Api::new(core.over(db).await, self.api_options()))
    }

    /// The issuer whose tokens are accepted beside the server's own; `None` if there is none.
    #[must_use]
    pub fn issuer_options(&self) -> Option<IssuerOptions> {
        let (issuer, audience) = self.auth_issuer.as_ref().zip(self.auth_audience.as_ref())?;
        // The settings are valid: these parse each of them.
        let options = IssuerOptions::new(issuer, audience).ok()?;
        let options = match &self.auth_jwks_url {
            Some(url) => options.jwks_url(url).ok()?,
            None => options,
        };
        Some(
            options
                .algorithms(self.auth_algorithms.iter().copied())
                .link_verified_email(self.auth_link_verified_email),
        )
    }

    /// The options of the database's connections for these settings.
    fn database_options(&self) -> DatabaseOptions {
        DatabaseOptions::new()
            .min_connections(self.database_pool_min)
            .max_connections(self.database_pool_max)
            .timeout(self.database_timeout)
            .migrations_url(self.migrations_database_url.clone())
    }

    /// Opens the database, and retries for `database_startup` if the connection fails.
    async fn connect_with_retry(&self) -> Result<Database, OpenError> {
        let options = self.database_options();
        let deadline = tokio::time::Instant::now() + self.database_startup;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match Database::open(&self.database_url, &options).await {
                Ok(db) => return Ok(db),
                Err(error) => error,
            };
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() || !error.is_connectivity() {
                return Err(error);
            }
            let seconds_left = left.as_secs();
            tracing::warn!(error = %ErrorChain(&error), seconds_left, "waiting for the database");
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
