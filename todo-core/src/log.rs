//! The log of a running server: lines on standard error, written by a thread of their own. A reader
//! that is slow, or stopped, holds up that thread and nothing else: what the queue before it cannot
//! take is dropped and counted, and the log says so once lines flow again.
//!
//! tracing-appender's non-blocking writer is that queue and thread: it is kept by the makers of
//! tracing. Here are its bound, the count, and an end that does not wait for a reader.

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
use crate::otlp::Exporting;
use crate::{
    server::ServeError,
    settings::{LogFormat, Settings},
};

/// How many lines wait to be written at most: some 700 KB. The queue's own places are a part of what an
/// idle process takes.
const LINES: usize = 2048;
/// How often the count of dropped lines is looked at.
const ROUND: Duration = Duration::from_secs(1);
/// How long the end of a process waits for lines that are not written yet.
const FLUSH: Duration = Duration::from_secs(2);

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// How many lines of this process's log were dropped because nobody read them in time.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// The log of this process. Dropped, it writes what is left, for at most two seconds.
pub(crate) struct Log {
    #[cfg(feature = "otlp")]
    exporting: Option<Exporting>,
    /// Its end ends the watching thread.
    watching: Option<mpsc::Sender<()>>,
    writing: Option<WorkerGuard>,
}

/// Starts the log: readable lines, or JSON. `LOG_LEVEL` is for this project; of its dependencies
/// only warnings and errors are logged. Panics are logged too, since the standard library's own
/// message on standard error would wait for its reader.
///
/// # Errors
/// [`ServeError::Io`] if traces are wanted and their exporter cannot be built, or a thread cannot be
/// started.
pub(crate) fn start(settings: &Settings) -> Result<Log, ServeError> {
    let level = &settings.log_level;
    // The span for traces is not for the log.
    let filter = EnvFilter::new(format!(
        "warn,todo_core={level},todo_server={level},todo_hyper_min={level},todo_core::trace=off"
    ));
    let (writer, writing) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES)
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
    let (registry, exporting) = {
        let exporting = Exporting::start().map_err(io::Error::other)?;
        let traces = exporting.as_ref().map(Exporting::layer);
        (registry.with(traces), exporting)
    };
    registry.init();
    panic::set_hook(Box::new(log_panic));
    let (watching, end) = mpsc::channel();
    let counter = DROPPED.get_or_init(|| counter);
    thread::Builder::new().name("log-watch".into()).spawn(move || watch(counter, &end))?;
    Ok(Log {
        #[cfg(feature = "otlp")]
        exporting,
        watching: Some(watching),
        writing: Some(writing),
    })
}

/// Logs how many lines were dropped, once none is any more, until `end` ends.
fn watch(counter: &ErrorCounter, end: &mpsc::Receiver<()>) {
    let (mut logged, mut before) = (0, 0);
    loop {
        let is_over = end.recv_timeout(ROUND) != Err(mpsc::RecvTimeoutError::Timeout);
        let dropped = counter.dropped_lines();
        if dropped > logged && (dropped == before || is_over) {
            let lines = dropped - logged;
            tracing::warn!(lines, "log lines were dropped: standard error was not read in time");
            // This one may have been dropped as well: then the next round tries again.
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
        drop(self.exporting.take());
        drop(self.watching.take());
        let writing = self.writing.take();
        // Its own end prints to standard output if the queue is full: that may be stuck, too.
        within(FLUSH, move || drop(writing));
    }
}

/// Does what may block for ever, and waits for its end for at most `patience`.
pub(crate) fn within(patience: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel::<()>();
    let working = thread::Builder::new().name("last-words".into()).spawn(move || {
        work();
        drop(done);
    });
    if working.is_ok() {
        // An error either way: that it ended, or that it did not in time.
        let _ = ended.recv_timeout(patience);
    }
}

/// Has a command that serves nothing say on standard error what its work warns of, such as that it
/// waits for another process.
pub fn log_warnings() {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).without_time();
    let lines = lines.with_target(false).with_filter(EnvFilter::new("todo_core=warn"));
    // Fails only where somebody has set up another log, which is good as well.
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

    /// A reader that takes nothing while this is locked, and then everything.
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
    fn dropped_lines_are_counted_and_told_when_lines_flow_again() {
        let stuck = Stuck::default();
        let (subscriber, counter, writing) = stuck_log(&stuck);
        let subscriber = Arc::new(subscriber);
        let held = stuck.0.lock().unwrap();
        tracing::subscriber::with_default(subscriber.clone(), || {
            (0..100).for_each(|line| tracing::info!(line, "one"));
        });
        let dropped = counter.dropped_lines();
        // One may be on its way to the reader.
        assert!((89..=90).contains(&dropped), "{dropped}");
        drop(held);
        let (watching, end) = mpsc::channel();
        let watched = thread::spawn(move || {
            tracing::subscriber::with_default(subscriber, || watch(&counter, &end));
        });
        thread::sleep(ROUND / 2);
        drop(watching);
        watched.join().unwrap();
        drop(writing);
        let read = String::from_utf8(stuck.0.lock().unwrap().clone()).unwrap();
        let told =
            format!("log lines were dropped: standard error was not read in time lines={dropped}");
        assert_eq!(read.matches(&told).count(), 1, "{read}");
    }

    #[test]
    fn the_end_does_not_wait_for_a_stuck_reader() {
        let stuck = Stuck::default();
        let (subscriber, counter, writing) = stuck_log(&stuck);
        let held = stuck.0.lock().unwrap();
        tracing::subscriber::with_default(subscriber, || {
            while counter.dropped_lines() == 0 {
                tracing::info!("one");
            }
        });
        let began = Instant::now();
        within(Duration::from_millis(200), move || drop(writing));
        // What it says then is between its own deadlines and a busy machine's.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        drop(held);
    }
}
