//! The log of a running server: lines on standard error, written by a separate thread. A slow or
//! stopped reader blocks only that thread: lines over the queue's limit are dropped and counted,
//! and the count is logged once lines are written again.
//!
//! The queue and the thread are tracing-appender's non-blocking writer, which is maintained by the
//! tracing project. This module adds the limit, the count, and a shutdown that does not wait for a
//! reader.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

#[cfg(feature = "otlp")]
use crate::otlp::TraceExporter;
use crate::{ServeError, Settings, settings::LogFormat};

/// Maximum of queued lines: some 700 KB. The queue's slots are allocated at the start, so they are
/// part of an idle process's memory.
const MAX_QUEUED_LINES: usize = 2048;
/// Interval of checks for dropped lines.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout for writing the queued lines at exit.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Number of log lines that this process dropped because standard error was not read in time.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// The log of this process. Dropping it writes the queued lines, for at most two seconds.
pub(crate) struct Log {
    #[cfg(feature = "otlp")]
    exporter: Option<TraceExporter>,
    /// Dropping it ends the `log-watch` thread.
    watching: Option<mpsc::Sender<()>>,
    writing: Option<WorkerGuard>,
}

/// Starts the log: text or JSON lines. `LOG_LEVEL` applies to this project's crates; dependencies
/// log only warnings and errors. Panics are logged too, since the standard library's own panic
/// message would block on standard error.
///
/// # Errors
/// [`ServeError::Io`] if the trace exporter or a thread cannot be started.
pub(crate) fn start(settings: &Settings) -> Result<Log, ServeError> {
    let level = &settings.log_level;
    // The log leaves out the span for traces.
    let filter = EnvFilter::new(format!(
        "warn,todo_core={level},todo_runtime={level},todo_server={level},\
         todo_hyper_min={level},todo_core::trace=off"
    ));
    let (writer, writing) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(MAX_QUEUED_LINES)
        .thread_name("log")
        .finish(io::stderr());
    let counter = writer.error_counter();
    let lines =
        tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(io::stderr().is_terminal());
    let lines = match settings.log_format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    let registry = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otlp")]
    let (registry, exporter) = {
        let exporter = TraceExporter::start().map_err(io::Error::other)?;
        let traces = exporter.as_ref().map(TraceExporter::layer);
        (registry.with(traces), exporter)
    };
    registry.init();
    panic::set_hook(Box::new(log_panic));
    let (watching, end) = mpsc::channel();
    let counter = DROPPED.get_or_init(|| counter);
    thread::Builder::new().name("log-watch".into()).spawn(move || watch(counter, &end))?;
    Ok(Log {
        #[cfg(feature = "otlp")]
        exporter,
        watching: Some(watching),
        writing: Some(writing),
    })
}

/// Logs the number of dropped lines once it stops growing, until the sender of `end` is dropped.
fn watch(counter: &ErrorCounter, end: &mpsc::Receiver<()>) {
    let mut logged = 0;
    let mut before = 0;
    loop {
        let is_over = end.recv_timeout(WATCH_INTERVAL) != Err(mpsc::RecvTimeoutError::Timeout);
        let dropped = counter.dropped_lines();
        if dropped > logged && (dropped == before || is_over) {
            let lines = dropped - logged;
            tracing::warn!(lines, "log lines were dropped: standard error was not read in time");
            // The warning itself may have been dropped: then the next check logs it again.
            if counter.dropped_lines() == dropped {
                logged = dropped;
            }
        }
        if is_over {
            return;
        }
        before = dropped;
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(tracing::field::display);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    let backtrace = backtrace.as_ref().map(tracing::field::display);
    tracing::error!(location, backtrace, "panicked: {message}");
}

impl Drop for Log {
    fn drop(&mut self) {
        // The exporter may still log.
        #[cfg(feature = "otlp")]
        drop(self.exporter.take());
        drop(self.watching.take());
        let writing = self.writing.take();
        // The guard's drop prints to standard output if the queue is full, which may block too.
        run_with_timeout(FLUSH_TIMEOUT, move || drop(writing));
    }
}

/// Runs `work`, which may block for ever, in a thread, and waits for it for at most `timeout`.
pub(crate) fn run_with_timeout(timeout: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel::<()>();
    let working = thread::Builder::new().name("log-flush".into()).spawn(move || {
        work();
        drop(done);
    });
    if working.is_ok() {
        // An error in both cases: disconnected when the work ended, or timed out.
        let _ = ended.recv_timeout(timeout);
    }
}

/// Writes the warnings of a command that is not a server to standard error, such as that it waits
/// for another process.
pub fn log_warnings() {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).without_time();
    let lines =
        lines.with_target(false).with_filter(EnvFilter::new("todo_core=warn,todo_runtime=warn"));
    // Fails only if another log is installed already, which then has the warnings.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex, PoisonError},
        time::Instant,
    };

    use super::*;

    /// A writer that blocks while this is locked.
    #[derive(Clone, Default)]
    struct Stuck(Arc<Mutex<Vec<u8>>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stuck_log(
        stuck: &Stuck,
    ) -> (impl tracing::Subscriber + Send + Sync, ErrorCounter, WorkerGuard) {
        let (writer, writing) =
            NonBlockingBuilder::default().buffered_lines_limit(10).finish(stuck.clone());
        let counter = writer.error_counter();
        let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
        (tracing_subscriber::registry().with(lines), counter, writing)
    }

    #[test]
    fn dropped_lines_are_counted_and_logged_when_lines_are_written_again() {
        let stuck = Stuck::default();
        let (subscriber, counter, writing) = stuck_log(&stuck);
        let subscriber = Arc::new(subscriber);
        let held = stuck.0.lock().unwrap();
        tracing::subscriber::with_default(subscriber.clone(), || {
            (0..100).for_each(|line| tracing::info!(line, "one"));
        });
        let dropped = counter.dropped_lines();
        // The thread may have taken one line from the queue.
        assert!((89..=90).contains(&dropped), "{dropped}");
        drop(held);
        let (watching, end) = mpsc::channel();
        let watched = thread::spawn(move || {
            tracing::subscriber::with_default(subscriber, || watch(&counter, &end));
        });
        thread::sleep(WATCH_INTERVAL / 2);
        drop(watching);
        watched.join().unwrap();
        drop(writing);
        let read = String::from_utf8(stuck.0.lock().unwrap().clone()).unwrap();
        let warning =
            format!("log lines were dropped: standard error was not read in time lines={dropped}");
        assert_eq!(read.matches(&warning).count(), 1, "{read}");
    }

    #[test]
    fn shutdown_does_not_wait_for_a_stuck_reader() {
        let stuck = Stuck::default();
        let (subscriber, counter, writing) = stuck_log(&stuck);
        let held = stuck.0.lock().unwrap();
        tracing::subscriber::with_default(subscriber, || {
            while counter.dropped_lines() == 0 {
                tracing::info!("one");
            }
        });
        let began = Instant::now();
        run_with_timeout(Duration::from_millis(200), move || drop(writing));
        // Above 200 ms for the writer's own timeouts and for a busy machine.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        drop(held);
    }
}
