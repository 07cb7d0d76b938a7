//! The parts of a server's `main` that both servers share: logs, signals, health checks, the
//! cleanup of expired rows. It uses no HTTP framework.

use std::{
    fmt,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    process::ExitCode,
    task::Poll,
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use todo_core::{Core, auth, http::Api};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub use crate::{
    admission::{Admission, ConnectionPermit},
    header_timeout::{HeaderTimeoutStream, InProgress, TrackedBody, Unanswered},
    log::log_warnings,
    sources::settings,
};
use crate::{
    log,
    settings::{Settings, SettingsError, StartError},
};

/// Time for requests in progress to finish after a stop signal.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);
/// Timeout for receiving a request's head.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum of concurrent connections to the listener of `METRICS_ADDRESS`.
pub const METRICS_CONNECTIONS: usize = 16;
/// Timeout of a response write during which the client reads nothing.
pub const WRITE_STALL: Duration = Duration::from_secs(30);
/// Connections accepted over the limit, whose requests get a 503. Further ones wait in the backlog.
pub const OVER_CAPACITY_CONNECTIONS: usize = 64;
/// Pause after a failed accept: without a free descriptor, the next would fail at once too.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Descriptors besides client connections: database connections, 1000 at most, and a few files.
const OTHER_DESCRIPTORS: u64 = 1100;

/// Interval of deleting expired rows.
const CLEANUP_INTERVAL: Duration = Duration::from_mins(1);

/// Why a server did not start, or failed while running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The settings are invalid.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The `.env` file cannot be read.
    #[error("cannot read .env: {0}")]
    Dotenv(String),
    /// The database cannot be opened, or the secret cannot be loaded.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The listener cannot bind its address.
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
    /// The health check of a server failed.
    #[error("health check of {address} failed: {cause}")]
    Health {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// An I/O error of a running server.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The `main` of a program without a command line library: runs the command in its arguments.
///
/// Exit codes are 0, 1 on failure, 2 for invalid arguments.
pub fn main_minimal<F, Fut>(program: &str, version: &str, serve: F) -> ExitCode
where
    F: FnOnce(Settings, TcpListener) -> Fut,
    Fut: Future<Output = Result<(), ServeError>>,
{
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_str()).collect();
    match arguments[..] {
        [] | [Some("serve")] => run_server(serve),
        [Some("healthcheck")] => exit_code(block_on(async { healthcheck(&settings()?).await })),
        [Some("--version" | "-V")] => {
            print_line(&format!("{program} {version}"));
            ExitCode::SUCCESS
        }
        [Some("--help" | "-h" | "help")] => {
            print_line(&usage(program));
            ExitCode::SUCCESS
        }
        _ => {
            let _ = writeln!(io::stderr(), "error: unknown arguments\n\n{}", usage(program));
            ExitCode::from(2)
        }
    }
}

/// Writes a line to standard output. A closed pipe, as with `head`, is not an error.
fn print_line(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn usage(program: &str) -> String {
    format!(
        "Accounts and todos over HTTP: the smallest server\n\n\
         Usage: {program} [COMMAND]\n\n\
         Commands:\n  \
         serve        Serve until SIGTERM or SIGINT (the default)\n  \
         healthcheck  Check the health of the server at HOST and PORT\n\n\
         Options:\n  \
         -h, --help     Print this\n  \
         -V, --version  Print the version\n\n\
         Settings are environment variables or lines of .env: DATABASE_URL, SECRET_KEY, HOST, PORT\n\
         and more; the README has the table.\n\n\
         Exit codes: 0 ok, 1 failed, 2 usage"
    )
}

/// Runs a server: settings, logs, listener, signals. An error is one line on standard error and
/// exit code 1.
pub fn run_server<F, Fut>(serve: F) -> ExitCode
where
    F: FnOnce(Settings, TcpListener) -> Fut,
    Fut: Future<Output = Result<(), ServeError>>,
{
    exit_code(settings().and_then(|settings| {
        let _log = log::start(&settings)?;
        for warning in settings.warnings() {
            tracing::warn!("{warning}");
        }
        raise_descriptor_limit(&settings);
        block_on(async { serve(settings.clone(), listen(&settings).await?).await })
    }))
}

/// Raises the soft limit of open files to what the connections and the database need, within the
/// hard limit. The usual soft limit, 1024, is low only for programs that use `select`.
fn raise_descriptor_limit(settings: &Settings) {
    let wanted = (settings.max_connections + OVER_CAPACITY_CONNECTIONS) as u64 + OTHER_DESCRIPTORS;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit >= wanted => {}
        Ok(limit) => {
            tracing::warn!(limit, wanted, "the limit of open files is low: connections may wait");
        }
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}

/// Number of tasks that a worker runs between two polls of the sockets. With tokio's default of 61,
/// a request that arrives while all workers read lists waits for up to 61 of these.
pub const EVENT_INTERVAL: u32 = 13;

/// Runs a future on a new runtime with one worker more than there are cores: SQLite reads run on
/// all but one of them, and a worker blocked on the disk serves no requests.
///
/// # Errors
/// Those of the future, and [`ServeError::Io`] if the runtime cannot be started.
pub fn block_on<T, E: From<io::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.event_interval(EVENT_INTERVAL);
    runtime.worker_threads(cores + 1).enable_all().build()?.block_on(work)
}

/// The exit code of an outcome; an error is printed as one line on standard error.
pub fn exit_code<E: fmt::Display>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("error: {error}");
            // A full pipe without a reader must not block the exit.
            log::run_with_timeout(EXIT_TIMEOUT, move || drop(writeln!(io::stderr(), "{line}")));
            ExitCode::FAILURE
        }
    }
}

/// Timeout for writing the error line at exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout of a health check.
pub const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Requests `/health` from the server of these settings, over plain HTTP, for at most
/// [`HEALTHCHECK_TIMEOUT`]. Uses the loopback address if the server listens on all addresses.
///
/// # Errors
/// [`ServeError::Health`] if there is no response, or its status is not 200.
pub async fn healthcheck(settings: &Settings) -> Result<(), ServeError> {
    let address = health_address(settings);
    let check = async { check_health(TcpStream::connect(address).await?).await };
    with_health_timeout(address, check).await
}

/// The address for a health check.
#[must_use]
pub fn health_address(settings: &Settings) -> SocketAddr {
    let host = match settings.host {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    SocketAddr::new(host, settings.port)
}

/// Runs a health check of `address` with its timeout; errors name the address.
///
/// # Errors
/// [`ServeError::Health`].
pub async fn with_health_timeout(
    address: SocketAddr,
    check: impl Future<Output = io::Result<()>>,
) -> Result<(), ServeError> {
    let outcome = tokio::time::timeout(HEALTHCHECK_TIMEOUT, check).await;
    outcome
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no response within 3 s")))
        .map_err(|cause| ServeError::Health { address, cause })
}

/// Requests `/health` on a connection and requires the status 200.
///
/// # Errors
/// I/O errors, and any other status.
pub async fn check_health(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let request = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    match &status {
        b"HTTP/1.1 200" | b"HTTP/1.0 200" => Ok(()),
        _ => Err(io::Error::other("the response status is not 200")),
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
async fn listen(settings: &Settings) -> Result<TcpListener, ServeError> {
    let address = SocketAddr::new(settings.host, settings.port);
    TcpListener::bind(address).await.map_err(|cause| ServeError::Listen { address, cause })
}

/// Logs the address of the listener.
pub fn log_listening(listener: &TcpListener, settings: &Settings) {
    if let Ok(address) = listener.local_addr() {
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        tracing::info!(
            database = settings.database_url.kind(),
            "listening on {scheme}://{address}"
        );
    }
}

/// Signals to a running server: to stop, possibly several times, and to reload files that may have
/// changed since its start.
///
/// Any future converts into one stop signal. [`signals`] returns those of the process.
pub struct Signals {
    stop: EventStream,
    reload: EventStream,
}

type EventStream = Pin<Box<dyn Stream<Item = ()> + Send>>;

impl Signals {
    /// Waits for the next stop signal. Dropping the future loses no signal.
    ///
    /// A reload signal meanwhile is logged and ignored, unless [`Signals::reloads`] was called.
    pub async fn stop(&mut self) {
        loop {
            tokio::select! {
                event = self.stop.next() => match event {
                    Some(()) => return,
                    None => std::future::pending().await,
                },
                Some(()) = self.reload.next() => tracing::info!("there is nothing to reload"),
            }
        }
    }

    /// The reload signals, one item each. Several at once may be merged into one.
    pub fn reloads(&mut self) -> impl Stream<Item = ()> + Send + 'static {
        std::mem::replace(&mut self.reload, Box::pin(stream::empty()))
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").finish_non_exhaustive()
    }
}

impl<F: Future<Output = ()> + Send + 'static> From<F> for Signals {
    fn from(shutdown: F) -> Self {
        Self { stop: Box::pin(stream::once(shutdown)), reload: Box::pin(stream::empty()) }
    }
}

/// Handles the signals of the process from now on: SIGTERM and SIGINT stop, SIGHUP reloads. Only
/// for a program's `main`, since it replaces the default actions of the whole process.
///
/// # Errors
/// If a signal handler cannot be installed.
pub fn signals() -> io::Result<Signals> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Registered here and not when first polled, since a signal may arrive before that.
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let stop = stream::poll_fn(move |cx| match term.poll_recv(cx) {
            Poll::Pending => int.poll_recv(cx),
            event @ Poll::Ready(_) => event,
        });
        let reload = stream::poll_fn(move |cx| hangup.poll_recv(cx));
        Ok(Signals { stop: Box::pin(stop), reload: Box::pin(reload) })
    }
    #[cfg(not(unix))]
    Ok(Signals {
        stop: Box::pin(stream::unfold((), async |()| {
            tokio::signal::ctrl_c().await.ok().map(|()| ((), ()))
        })),
        reload: Box::pin(stream::empty()),
    })
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

/// Marks `api` as draining, then waits for `delay`, or until the next stop signal, so that load
/// balancers take the server out of rotation first.
pub async fn drain(api: &Api, delay: Duration, signals: &mut Signals) {
    api.drain();
    if delay.is_zero() {
        return;
    }
    tracing::info!("draining for {} s", delay.as_secs());
    // The timeout and another signal both end the delay.
    let _ = tokio::time::timeout(delay, signals.stop()).await;
}

/// Deletes expired rows, now and every minute, until the returned task is dropped.
#[must_use]
pub fn spawn_cleanup(core: &Core) -> CleanupTask {
    let core = core.clone();
    CleanupTask(tokio::spawn(async move {
        let mut interval = tokio::time::interval(CLEANUP_INTERVAL);
        loop {
            interval.tick().await;
            if let Err(error) = auth::delete_expired(&core).await {
                tracing::warn!(%error, "expired sessions were not deleted");
            }
        }
    }))
}

/// A running cleanup task; dropping it stops the task.
#[derive(Debug)]
pub struct CleanupTask(tokio::task::JoinHandle<()>);

impl Drop for CleanupTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
