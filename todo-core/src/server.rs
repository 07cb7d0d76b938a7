//! What every server around the contract needs besides a listener: where settings come from, logs,
//! signals, the sweep, and what a `main` does with them. It knows no HTTP and no framework.

use std::{io, io::IsTerminal, net::SocketAddr, process::ExitCode, time::Duration};

use tokio::net::TcpListener;
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

#[cfg(feature = "otlp")]
use crate::otlp::Exporting;
use crate::{
    Core, auth,
    settings::{LogFormat, Settings, SettingsError, StartError},
};

/// How long a server that was told to stop finishes what runs.
pub const GRACE: Duration = Duration::from_secs(25);
/// How long a client may take to send a request's head.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that are open at once at most; further ones wait to be accepted.
pub const MAX_CONNECTIONS: usize = 8192;

/// How often what has expired is deleted.
const SWEEP_EVERY: Duration = Duration::from_mins(10);

/// Why a server did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The settings are not acceptable.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The `.env` file cannot be read.
    #[error("cannot read .env: {0}")]
    Dotenv(String),
    /// The database or the secret.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot use TLS_CERT and TLS_KEY: {0}")]
    Tls(#[source] io::Error),
    /// Something a running server needs failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the settings from the environment and from `.env` in the working directory; the
/// environment wins.
///
/// # Errors
/// [`ServeError::Settings`], [`ServeError::Dotenv`].
pub fn settings() -> Result<Settings, ServeError> {
    let mut vars: Vec<(String, String)> = Vec::new();
    match dotenvy::from_path_iter(".env") {
        Ok(lines) => {
            for line in lines {
                // Its own message repeats the line, which may hold a secret.
                vars.push(line.map_err(|_| ServeError::Dotenv("a line is not NAME=value".into()))?);
            }
        }
        Err(error) if error.not_found() => {}
        Err(error) => return Err(ServeError::Dotenv(error.to_string())),
    }
    // What is no Unicode is no setting of ours.
    vars.extend(
        std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }),
    );
    Ok(Settings::from_vars(vars)?)
}

/// Runs a server to its end: settings, logs, listener, signals. `main` is this and no more.
/// Whatever keeps it from running is one line on standard error and exit code 1; an argument is 2.
pub fn run<F, Fut>(serve: F) -> ExitCode
where
    F: FnOnce(Settings, TcpListener) -> Fut,
    Fut: Future<Output = Result<(), ServeError>>,
{
    if let Some(argument) = std::env::args().nth(1) {
        let is_question = argument == "--help" || argument == "-h";
        eprintln!("takes no arguments: settings are environment variables or lines of .env");
        return ExitCode::from(if is_question { 0 } else { 2 });
    }
    let outcome = settings().and_then(|settings| {
        let _exporting = log(&settings)?;
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(async { serve(settings.clone(), listen(&settings).await?).await })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Listens where the settings say.
async fn listen(settings: &Settings) -> Result<TcpListener, ServeError> {
    let address = SocketAddr::new(settings.host, settings.port);
    TcpListener::bind(address).await.map_err(|cause| ServeError::Listen { address, cause })
}

/// Says where requests are taken now.
pub fn announce(listener: &TcpListener, settings: &Settings) {
    if let Ok(address) = listener.local_addr() {
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        tracing::info!(
            database = settings.database_url.kind(),
            "listening on {scheme}://{address}"
        );
    }
}

/// Listens, from now on, for being told to stop, and returns what ends when that happens: SIGTERM
/// or SIGINT.
///
/// # Errors
/// If a signal cannot be listened for.
pub fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Registered here and not when first polled: a signal may come before that.
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        Ok(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}

/// Deletes what has expired, every ten minutes, until dropped.
#[must_use]
pub fn sweep(core: &Core) -> Sweep {
    let core = core.clone();
    Sweep(tokio::spawn(async move {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            if let Err(error) = auth::sweep(&core).await {
                tracing::warn!(%error, "expired sessions were not deleted");
            }
        }
    }))
}

/// A running sweep; it stops when this is dropped.
#[derive(Debug)]
pub struct Sweep(tokio::task::JoinHandle<()>);

impl Drop for Sweep {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Readable lines, or JSON, on standard error. `LOG_LEVEL` is for this project; of its dependencies
/// only what went wrong is said. Traces end when what this returns is dropped.
#[cfg_attr(
    not(feature = "otlp"),
    expect(clippy::unnecessary_wraps, reason = "it may fail with otlp")
)]
fn log(settings: &Settings) -> Result<impl Sized, ServeError> {
    let level = &settings.log_level;
    // The span for traces is not for the log.
    let filter = EnvFilter::new(format!(
        "warn,todo_core={level},todo_server={level},todo_hyper_min={level},todo_core::trace=off"
    ));
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = match settings.log_format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    let registry = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otlp")]
    let (registry, exporting) = {
        let exporting = Exporting::start().map_err(io::Error::other)?;
        let traces = exporting.as_ref().map(Exporting::layer);
        (registry.with(traces), exporting)
    };
    #[cfg(not(feature = "otlp"))]
    let exporting = None::<()>;
    registry.init();
    Ok(exporting)
}
