//! Mails about accounts: their texts and links, and the interface of a transport. The queue, and
//! the delivery from it, are in [`outbox`](crate::outbox).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

#[cfg(feature = "http")]
pub(crate) use self::counters::MailTotals;
pub(crate) use self::{
    counters::{MailCounters, MailResult},
    kind::MailKind,
    link::{open_link, seal_link},
    message::{DueTodo, Letter, compose},
};
use crate::auth::Email;

mod counters;
mod kind;
mod link;
mod message;

/// A transport of mails, for instance SMTP.
pub trait Mailer: Send + Sync {
    /// Hands a mail to the next system, which is then responsible for it. The future is dropped
    /// after 20 seconds, and the mail is sent again later.
    fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a>;
}

/// The future of [`Mailer::send`].
pub type SendFuture<'a> = Pin<Box<dyn Future<Output = Result<(), SendError>> + Send + 'a>>;

/// A mail to one recipient (RFC 5322). A repeated attempt has the same bytes. The `Debug` output
/// has no address and no content, which may have a link that grants access.
#[derive(Clone)]
pub struct Message {
    id: Uuid,
    from: String,
    to: String,
    bytes: Vec<u8>,
}

impl Message {
    /// The id of the mail, which is also in its `Message-ID`.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The address of the sender, its domain in ASCII.
    #[must_use]
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The address of the recipient, its domain in ASCII. The local part may have other characters
    /// (RFC 6531); then the headers have the same.
    #[must_use]
    pub fn to(&self) -> &str {
        &self.to
    }

    /// Headers and body, with lines that end with CRLF.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a mail was not sent. Its text is logged and stored, so it must contain no address and no
/// content of the mail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reply}")]
pub struct SendError {
    pub(crate) kind: SendErrorKind,
    pub(crate) reply: String,
}

/// What happens to a mail that was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendErrorKind {
    Temporary,
    Rejected,
    Misconfigured,
}

impl SendError {
    /// Maximum number of characters of the text.
    const MAX_CHARS: usize = 100;

    /// The mail is sent again later: the system is unreachable, refuses for now, or its answer is
    /// unknown.
    pub fn temporary(reply: impl AsRef<str>) -> Self {
        Self::new(SendErrorKind::Temporary, reply.as_ref())
    }

    /// The mail is not sent again: its recipient does not exist, or refuses it.
    pub fn rejected(reply: impl AsRef<str>) -> Self {
        Self::new(SendErrorKind::Rejected, reply.as_ref())
    }

    /// All mails are sent later: the operator has to correct a setting, for instance a password.
    pub fn misconfigured(reply: impl AsRef<str>) -> Self {
        Self::new(SendErrorKind::Misconfigured, reply.as_ref())
    }

    fn new(kind: SendErrorKind, reply: &str) -> Self {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let reply = reply.chars().take(Self::MAX_CHARS).map(printable).collect();
        Self { kind, reply }
    }
}

/// The mails of a [`Core`](crate::Core): their transport, sender and texts.
#[derive(Clone)]
#[must_use]
pub struct MailOptions {
    pub(crate) mailer: Arc<dyn Mailer>,
    pub(crate) from: Email,
    pub(crate) app_url: String,
    pub(crate) per_hour: u32,
    pub(crate) requires_verified_email: bool,
}

impl MailOptions {
    /// Mails by `mailer` from the address `from`, with
    /// [`CoreBuilder::service_name`](crate::CoreBuilder::service_name) as the sender's name. Their
    /// links begin with `app_url`, the address of the app that users have:
    /// `{app_url}/reset#token=…` and `{app_url}/confirm#token=…`. A trailing slash of `app_url` is
    /// dropped.
    pub fn new(mailer: Arc<dyn Mailer>, from: Email, app_url: impl Into<String>) -> Self {
        let app_url: String = app_url.into();
        Self {
            mailer,
            from,
            app_url: app_url.trim_end_matches('/').to_owned(),
            per_hour: 500,
            requires_verified_email: false,
        }
    }

    /// Sets the maximum number of mails an hour, of all processes together. Default: 500.
    pub fn per_hour(mut self, limit: u32) -> Self {
        self.per_hour = limit;
        self
    }

    /// Sets whether a login requires a confirmed address. Default: no.
    pub fn requires_verified_email(mut self, requires: bool) -> Self {
        self.requires_verified_email = requires;
        self
    }
}

impl fmt::Debug for MailOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailOptions").finish_non_exhaustive()
    }
}

/// The state of the mails of a core.
pub(crate) struct Mail {
    pub(crate) options: MailOptions,
    pub(crate) counters: MailCounters,
    queued: Notify,
    /// Until then nothing is sent: the transport is misconfigured.
    paused_until: Mutex<Option<Instant>>,
}

impl Mail {
    pub(crate) fn new(options: MailOptions) -> Self {
        Self {
            options,
            counters: MailCounters::default(),
            queued: Notify::new(),
            paused_until: Mutex::default(),
        }
    }

    /// Wakes the delivery of this process, after a mail was queued.
    pub(crate) fn wake(&self) {
        self.queued.notify_one();
    }

    /// Completes when a mail was queued by this process since the last call.
    pub(crate) async fn until_queued(&self) {
        self.queued.notified().await;
    }

    pub(crate) fn is_paused_at(&self, now: Instant) -> bool {
        let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }

    pub(crate) fn pause_until(&self, until: Instant) {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}
