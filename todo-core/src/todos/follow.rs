//! The changes of a user's todos as a stream without an end. The log is its buffer: the next page
//! is read when the consumer has taken the last, so a stream holds one page at most. What wakes it
//! and what ends it is in [`crate::streams`].

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream, stream::BoxStream};
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Change, ChangeCursor,
    changes::{NumberedPage, PageSize, read_page},
};
use crate::{
    authz::Caller,
    core::Core,
    error::{Error, ErrorChain, Result},
    streams::{EndReason, MAX_OUTAGE, StreamKind, StreamSlot, jitter},
};

/// Maximum size of a page of a stream: smaller than one of a request, since thousands of streams
/// may each hold one.
const PAGE: PageSize = PageSize { entries: 100, bytes: 64 << 10 };
/// Bounds of the age at which a stream ends, so that a client returns to another server at times: a
/// random one, so that not all return at once. At most 15 minutes.
const MIN_AGE: Duration = Duration::from_secs(810);
const AGE_SPREAD_MILLIS: u64 = 90_000;
/// Pause after a failed read.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A change in a stream, and the position after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ChangeEvent {
    /// The position after the change: a stream since it continues without a gap or a repetition.
    pub cursor: ChangeCursor,
    /// The change.
    pub change: Change,
}

/// An item of a stream of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamItem {
    /// A change of a todo, as it is now.
    Change(ChangeEvent),
    /// The last item.
    End(EndReason),
}

/// A stream of a user's changes: see [`follow`]. It ends after its first [`StreamItem::End`].
pub struct Events {
    start: ChangeCursor,
    items: BoxStream<'static, StreamItem>,
}

impl Events {
    /// The position at which the stream began.
    #[must_use]
    pub fn start(&self) -> &ChangeCursor {
        &self.start
    }
}

impl Stream for Events {
    type Item = StreamItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<StreamItem>> {
        self.items.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("start", &self.start).finish_non_exhaustive()
    }
}

/// Follows the changes of the caller's todos since a position, or from now on. Each change is
/// delivered within milliseconds of its commit in this process, and within a second of one in
/// another process.
///
/// A todo that has changed several times since the last item may be in the stream once, as it is
/// now. A client that has lost its stream continues from the cursor of the last item, or from
/// [`Events::start`], without a gap.
///
/// The stream holds at most one page of changes: it reads the next one when it is polled again. It
/// ends with a reason: when the caller's session ends or its token expires, when the log does not
/// reach back any more, after 13.5 to 15 minutes, when the core is closed, and when the database
/// was unavailable for 5 s. A [trusted](Caller::trusted) caller has no session.
///
/// ```
/// use futures_util::StreamExt;
/// use todo_core::{Core, Error, auth::Caller, todos::{self, StreamItem}};
///
/// async fn print_changes(core: &Core, caller: &Caller) -> Result<(), Error> {
///     let mut events = todos::follow(core, caller, None).await?;
///     while let Some(item) = events.next().await {
///         match item {
///             StreamItem::Change(event) => println!("{}: {:?}", event.cursor, event.change),
///             StreamItem::End(reason) => println!("{}", reason.as_str()),
///             _ => {}
///         }
///     }
///     Ok(())
/// }
/// ```
///
/// # Errors
/// [`Error::TooManyStreams`] if the user has as many streams as
/// [`CoreBuilder::max_streams`](crate::CoreBuilder::max_streams) allows, [`Error::Busy`] if the
/// process has 2,000; else as [`changes`](super::changes).
pub async fn follow(core: &Core, caller: &Caller, since: Option<ChangeCursor>) -> Result<Events> {
    let follower = Follower::open(core, caller, since, StreamKind::Library).await?;
    let start = follower.start().clone();
    let batches = stream::unfold(Some(follower), |follower| async {
        let mut follower = follower?;
        match follower.next().await {
            Batch::Changes(events) => {
                let items = events.into_iter().map(StreamItem::Change).collect::<Vec<_>>();
                Some((items, Some(follower)))
            }
            // The place is free before the consumer has the last item.
            Batch::End(reason) => Some((vec![StreamItem::End(reason)], None)),
        }
    });
    Ok(Events { start, items: batches.flat_map(stream::iter).boxed() })
}

/// The next events of a [`Follower`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Batch {
    /// At least one.
    Changes(Vec<ChangeEvent>),
    /// The last batch.
    End(EndReason),
}

/// A stream of changes by pages.
pub(crate) struct Follower {
    core: Core,
    caller: Caller,
    slot: StreamSlot,
    start: ChangeCursor,
    /// The position after the pages that were read.
    position: ChangeCursor,
    /// The events of the first page.
    first: Vec<ChangeEvent>,
    /// Whether there may be changes after the position.
    is_behind: bool,
    /// The first of the reads that have failed since the last success.
    failing_since: Option<Instant>,
    deadline: Instant,
    /// The reason of an end at the deadline.
    ends_as: EndReason,
}

impl Follower {
    /// Takes a place for a stream, and reads its first page: so an error is known now.
    ///
    /// # Errors
    /// As [`follow`].
    pub(crate) async fn open(
        core: &Core,
        caller: &Caller,
        since: Option<ChangeCursor>,
        kind: StreamKind,
    ) -> Result<Self> {
        match core.streams().open(caller, kind) {
            Ok(slot) => Self::with_slot(core, caller, since, slot).await,
            Err(full) => {
                // An ended session and an expired cursor come first in the order of checks.
                check_position(core, caller, since).await?;
                Err(full)
            }
        }
    }

    /// As [`Follower::open`], in a place that was taken before.
    ///
    /// # Errors
    /// As [`changes`](super::changes).
    pub(crate) async fn with_slot(
        core: &Core,
        caller: &Caller,
        since: Option<ChangeCursor>,
        slot: StreamSlot,
    ) -> Result<Self> {
        let start = since.clone();
        let NumberedPage { changes, next, has_more } = read_page(core, caller, since, PAGE).await?;
        slot.set_position(next.number());
        let age = MIN_AGE + Duration::from_millis(jitter(AGE_SPREAD_MILLIS));
        let validity = caller.expires_at().map(|expires_at| expires_at - core.now());
        // A negative duration is one of a token that has just expired.
        let validity = validity.map(|left| left.to_std().unwrap_or_default());
        let (age, ends_as) = match validity {
            Some(left) if left < age => (left, EndReason::Expired),
            _ => (age, EndReason::MaxAge),
        };
        Ok(Self {
            core: core.clone(),
            caller: *caller,
            slot,
            start: start.unwrap_or_else(|| next.clone()),
            first: events(&next, changes),
            position: next,
            is_behind: has_more,
            failing_since: None,
            deadline: Instant::now() + age,
            ends_as,
        })
    }

    /// The position at which the stream began.
    pub(crate) fn start(&self) -> &ChangeCursor {
        &self.start
    }

    /// Waits for the next events. The future may be dropped: the next call continues.
    pub(crate) async fn next(&mut self) -> Batch {
        loop {
            if let Some(reason) = self.slot.end_reason() {
                return Batch::End(reason);
            }
            if Instant::now() >= self.deadline {
                return Batch::End(self.ends_as);
            }
            if !self.first.is_empty() {
                return Batch::Changes(std::mem::take(&mut self.first));
            }
            if !self.is_behind {
                tokio::select! {
                    () = self.slot.woken() => self.is_behind = true,
                    () = sleep_until(self.deadline) => {}
                }
                continue;
            }
            match self.read().await {
                Ok(events) if events.is_empty() => {}
                Ok(events) => return Batch::Changes(events),
                Err(Some(reason)) => return Batch::End(reason),
                Err(None) => sleep(RETRY_PAUSE).await,
            }
        }
    }

    /// Reads the next page.
    ///
    /// # Errors
    /// The reason why the stream must end; none if the read may succeed later.
    async fn read(&mut self) -> Result<Vec<ChangeEvent>, Option<EndReason>> {
        let since = Some(self.position.clone());
        let error = match read_page(&self.core, &self.caller, since, PAGE).await {
            Ok(NumberedPage { changes, next, has_more }) => {
                self.failing_since = None;
                self.is_behind = has_more;
                self.slot.set_position(next.number());
                let events = events(&next, changes);
                self.position = next;
                return Ok(events);
            }
            Err(error) => error,
        };
        match error {
            Error::Unauthenticated => Err(Some(EndReason::SessionEnded)),
            Error::CursorExpired => Err(Some(EndReason::CursorExpired)),
            error => {
                let since = *self.failing_since.get_or_insert_with(Instant::now);
                if since.elapsed() < MAX_OUTAGE && error.is_retryable() {
                    tracing::debug!(%error, "a page of a stream of changes was not read");
                    return Err(None);
                }
                let error = ErrorChain(&error);
                tracing::warn!(%error, "a stream of changes ends: its page was not read");
                Err(Some(EndReason::Unavailable))
            }
        }
    }
}

/// Checks what the start of a stream checks: the session, and the position.
///
/// # Errors
/// As [`changes`](super::changes).
pub(crate) async fn check_position(
    core: &Core,
    caller: &Caller,
    since: Option<ChangeCursor>,
) -> Result<()> {
    read_page(core, caller, since, PageSize { entries: 1, ..PAGE }).await.map(drop)
}

/// The events of numbered changes, in the epoch of `of`.
fn events(of: &ChangeCursor, changes: Vec<(i64, Change)>) -> Vec<ChangeEvent> {
    let event = |(number, change)| ChangeEvent { cursor: of.at(number), change };
    changes.into_iter().map(event).collect()
}

#[cfg(all(test, feature = "sqlite"))]
mod tests;
