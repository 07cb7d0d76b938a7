//! Signals to a running server: those of the process, or any future.

use std::{fmt, io, pin::Pin, task::Poll};

use futures_util::{Stream, StreamExt, stream};

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
