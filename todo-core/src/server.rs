//! What every server around the contract needs besides a listener: logs, signals, the sweep, and
//! what a `main` does with them. It knows no HTTP beyond that an API can drain, and no framework.

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
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    Core, auth,
    http::Api,
    log,
    settings::{Settings, SettingsError, StartError},
};
pub use crate::{
    admission::{Admission, Place},
    late::{Answering, InProgress, LateHead, Unanswered},
    log::log_warnings,
    sources::settings,
};

/// How long a server that was told to stop finishes what runs.
pub const GRACE: Duration = Duration::from_secs(25);
/// How long a client may take to send a request's head.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections to the listener of `METRICS_ADDRESS` are served at once.
pub const METRICS_CONNECTIONS: usize = 16;
/// How long a client may read nothing of an answer that is being written to it.
pub const WRITE_STALL: Duration = Duration::from_secs(30);
/// How many connections beyond the most that are wanted are still accepted, to tell each in one
/// answer that there is no room. What comes beyond these waits.
pub const SURPLUS: usize = 64;
/// The rest after a failed accept: out of descriptors, the next would fail at once as well.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What may be open besides connections: those to a database, 1000 at most, and a few files.
const OTHER_DESCRIPTORS: u64 = 1100;

/// How often what has expired is deleted.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

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
    /// The server that was asked how it is did not say that it is well.
    #[error("no good health of {address}: {cause}")]
    Health {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Something a running server needs failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a program without a command line library is told to do by its arguments.
///
/// Exit codes are 0, 1 if something failed, 2 if the arguments make no sense.
pub fn run<F, Fut>(program: &str, version: &str, serve: F) -> ExitCode
where
    F: FnOnce(Settings, TcpListener) -> Fut,
    Fut: Future<Output = Result<(), ServeError>>,
{
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_str()).collect();
    match arguments[..] {
        [] | [Some("serve")] => serve_to_the_end(serve),
        [Some("healthcheck")] => finish(block_on(async { healthcheck(&settings()?).await })),
        [Some("--version" | "-V")] => {
            tell(&format!("{program} {version}"));
            ExitCode::SUCCESS
        }
        [Some("--help" | "-h" | "help")] => {
            tell(&usage(program));
            ExitCode::SUCCESS
        }
        _ => {
            let _ = writeln!(io::stderr(), "error: unknown arguments\n\n{}", usage(program));
            ExitCode::from(2)
        }
    }
}

/// Writes a line to standard output. A reader that has left, such as `head`, changes no outcome.
fn tell(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn usage(program: &str) -> String {
    format!(
        "Accounts and todos over HTTP: the smallest server\n\n\
         Usage: {program} [COMMAND]\n\n\
         Commands:\n  \
         serve        Serve until told to stop by SIGTERM or SIGINT (the default)\n  \
         healthcheck  Ask the server at HOST and PORT whether it lives\n\n\
         Options:\n  \
         -h, --help     Print this\n  \
         -V, --version  Print the version\n\n\
         Settings are environment variables or lines of .env: DATABASE_URL, SECRET_KEY, HOST, PORT\n\
         and more; the README has the table.\n\n\
         Exit codes: 0 ok, 1 failed, 2 usage"
    )
}

/// Runs a server to its end: settings, logs, listener, signals. Whatever keeps it from running is
/// one line on standard error and exit code 1.
pub fn serve_to_the_end<F, Fut>(serve: F) -> ExitCode
where
    F: FnOnce(Settings, TcpListener) -> Fut,
    Fut: Future<Output = Result<(), ServeError>>,
{
    finish(settings().and_then(|settings| {
        let _log = log::start(&settings)?;
        for warning in settings.warnings() {
            tracing::warn!("{warning}");
        }
        allow_descriptors(&settings);
        block_on(async { serve(settings.clone(), listen(&settings).await?).await })
    }))
}

/// Lets the process have a descriptor for each of its connections, and some for its database, as
/// far as it may without asking anybody. The usual soft limit, 1024, is kept low for the sake of
/// programs that use `select`.
fn allow_descriptors(settings: &Settings) {
    let wanted = (settings.max_connections + SURPLUS) as u64 + OTHER_DESCRIPTORS;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit >= wanted => {}
        Ok(limit) => tracing::warn!(limit, wanted, "few files may be open: connections may wait"),
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
}

/// How many tasks a worker runs before it looks at the sockets. With tokio's 61, a request that comes
/// while all workers read lists for others waits for up to that many of them.
pub const EVENT_INTERVAL: u32 = 13;

/// Runs a future to its end on a runtime of its own, with a worker for each core and one more: SQLite is
/// read on all but one of them, and a worker that waits for the disk is none that answers.
///
/// # Errors
/// Those of the future, and [`ServeError::Io`] if there can be no runtime.
pub fn block_on<T, E: From<io::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.event_interval(EVENT_INTERVAL);
    runtime.worker_threads(cores + 1).enable_all().build()?.block_on(work)
}

/// The exit code of an outcome; an error is one line on standard error.
pub fn finish<E: fmt::Display>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("error: {error}");
            // A full pipe that nobody reads keeps no process from ending.
            log::within(LAST_LINE, move || drop(writeln!(io::stderr(), "{line}")));
            ExitCode::FAILURE
        }
    }
}

/// How long the end of a process waits for the reader of its last line.
const LAST_LINE: Duration = Duration::from_secs(2);

/// How long a health check waits for the answer.
pub const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Asks the server that these settings describe for `/health`, over plain HTTP, for at most
/// [`HEALTHCHECK_TIMEOUT`]. One that listens on every address is asked on the loopback.
///
/// # Errors
/// [`ServeError::Health`] if there is no answer, or it is not 200.
pub async fn healthcheck(settings: &Settings) -> Result<(), ServeError> {
    let address = health_address(settings);
    let asked = async { ask_health(TcpStream::connect(address).await?).await };
    health_in_time(address, asked).await
}

/// Where a health check asks.
#[must_use]
pub fn health_address(settings: &Settings) -> SocketAddr {
    let host = match settings.host {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    SocketAddr::new(host, settings.port)
}

/// Bounds what asks `address`, and says of whom an error is.
///
/// # Errors
/// [`ServeError::Health`].
pub async fn health_in_time(
    address: SocketAddr,
    asked: impl Future<Output = io::Result<()>>,
) -> Result<(), ServeError> {
    let answer = tokio::time::timeout(HEALTHCHECK_TIMEOUT, asked).await;
    answer
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 3 s")))
        .map_err(|cause| ServeError::Health { address, cause })
}

/// Asks for `/health` on a connection, and wants a 200.
///
/// # Errors
/// What keeps the answer from coming, or that it is another.
pub async fn ask_health(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let request = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    match &status {
        b"HTTP/1.1 200" | b"HTTP/1.0 200" => Ok(()),
        _ => Err(io::Error::other("the answer is not 200")),
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

/// What a running server is told from outside: to stop, perhaps more than once, and to read again
/// what may have changed since its start.
///
/// Any future is one that tells it to stop, once. The signals of the process are in [`signals`].
pub struct Signals {
    stop: Told,
    reload: Told,
}

type Told = Pin<Box<dyn Stream<Item = ()> + Send>>;

impl Signals {
    /// Ends when the server is told to stop; the next call, when it is told so again. May be
    /// dropped at any point without missing anything.
    ///
    /// Whoever asks for a reload meanwhile is told that there is none, unless
    /// [`Signals::reloads`] was called.
    pub async fn stop(&mut self) {
        loop {
            tokio::select! {
                told = self.stop.next() => match told {
                    Some(()) => return,
                    None => std::future::pending().await,
                },
                Some(()) = self.reload.next() => tracing::info!("there is nothing to reload"),
            }
        }
    }

    /// Takes over the requests to reload: one item each. Several at once may be one.
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

/// Takes over the signals of the process, from now on: SIGTERM and SIGINT stop, SIGHUP reloads.
/// This is for a program's `main`, since no one else in the process gets them by default then.
///
/// # Errors
/// If a signal cannot be listened for.
pub fn signals() -> io::Result<Signals> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Registered here and not when first polled: a signal may come before that.
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let stop = stream::poll_fn(move |cx| match term.poll_recv(cx) {
            Poll::Pending => int.poll_recv(cx),
            told @ Poll::Ready(_) => told,
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

/// Opens what the settings name. `None` if told to stop first: a start may wait long for its
/// database, and is not to be waited for.
///
/// # Errors
/// As [`Settings::open`].
pub async fn open(settings: &Settings, signals: &mut Signals) -> Result<Option<Api>, StartError> {
    tokio::select! {
        opened = settings.open() => opened.map(Some),
        () = signals.stop() => {
            tracing::info!("stopping before the start was over");
            Ok(None)
        }
    }
}

/// Has `api` tell that it is draining, then lets its server go on for `delay`, or until it is told
/// to stop once more. Load balancers take the server out meanwhile.
pub async fn drain(api: &Api, delay: Duration, signals: &mut Signals) {
    api.drain();
    if delay.is_zero() {
        return;
    }
    tracing::info!("draining for {} s", delay.as_secs());
    // Elapsed or told again: both end the delay.
    let _ = tokio::time::timeout(delay, signals.stop()).await;
}

/// Deletes what has expired, now and every minute, until dropped.
#[must_use]
pub fn sweep(core: &Core) -> Sweep {
    let core = core.clone();
    Sweep(tokio::spawn(async move {
        let mut turns = tokio::time::interval(SWEEP_EVERY);
        loop {
            turns.tick().await;
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
