//! A todo as the writers receive it.

use chrono::{DateTime, Utc};

use crate::todos::Todo;

/// A todo, and what is not in its type.
pub(super) struct Record<'a> {
    pub(super) todo: &'a Todo,
    /// The name of its list.
    pub(super) list: Option<&'a str>,
    /// The key of the manual order.
    pub(super) position: Option<&'a str>,
    /// Lines of iCalendar that no other property has.
    pub(super) ical: Option<&'a str>,
    /// When it was deleted.
    pub(super) deleted_at: Option<DateTime<Utc>>,
}
