//! The data of writes: new todos and patches.

use chrono::{DateTime, Utc};

use super::{Description, Due, Priority, Recurrence, Reminders, Tags, Title};
use crate::{
    error::{FieldError, FieldErrors},
    ids::ListId,
};

/// The data of a new todo, or of a replacement.
///
/// ```
/// use todo_core::todos::{Description, NewTodo, Priority};
///
/// let new = NewTodo::new("Buy milk".parse()?)
///     .description(Description::parse("two litres")?)
///     .priority(Priority::High);
/// assert_eq!(new.title, "Buy milk");
/// # Ok::<(), todo_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewTodo {
    /// The title.
    pub title: Title,
    /// The description, if any.
    pub description: Option<Description>,
    /// The priority.
    pub priority: Priority,
    /// Its other properties. A new todo has none of those that are `None`; a replacement keeps
    /// them, since an older client does not know them.
    pub details: Details,
}

impl NewTodo {
    /// A todo without a description, of medium priority.
    #[must_use]
    pub fn new(title: Title) -> Self {
        Self {
            title,
            description: None,
            priority: Priority::default(),
            details: Details::default(),
        }
    }

    /// Sets the description; `None` for none.
    #[must_use]
    pub fn description(mut self, description: impl Into<Option<Description>>) -> Self {
        self.description = description.into();
        self
    }

    /// Sets the priority.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }
}

impl From<NewTodo> for TodoPatch {
    /// The patch that a replacement is.
    fn from(NewTodo { title, description, priority, details }: NewTodo) -> Self {
        Self {
            title: Some(title),
            description: Some(description),
            priority: Some(priority),
            details,
        }
    }
}

/// A partial update (RFC 7396); a field that is `None` is unchanged.
///
/// ```
/// use todo_core::todos::{Priority, TodoPatch};
///
/// let patch = TodoPatch::new().description(None).priority(Priority::Low);
/// assert!(patch.title.is_none());
/// assert_eq!(patch.description, Some(None), "the description is cleared");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TodoPatch {
    /// A new title.
    pub title: Option<Title>,
    /// `Some(None)` clears the description.
    pub description: Option<Option<Description>>,
    /// A new priority.
    pub priority: Option<Priority>,
    /// Changes of the other properties.
    pub details: Details,
}

impl TodoPatch {
    /// A patch that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the title.
    #[must_use]
    pub fn title(mut self, title: Title) -> Self {
        self.title = Some(title);
        self
    }

    /// Changes the description; `None` clears it.
    #[must_use]
    pub fn description(mut self, description: impl Into<Option<Description>>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Changes the priority.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Whether the patch changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The properties of a todo that older clients do not know. One that is `None` is unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Details {
    /// New tags, in place of the present ones.
    pub tags: Option<Tags>,
    /// A new due date; `Some(None)` clears it.
    pub due: Option<Option<Due>>,
    /// A new recurrence; `Some(None)` clears it. It needs a due date.
    pub recurrence: Option<Option<Recurrence>>,
    /// New reminders, in place of the present ones. They need a due date.
    pub reminders: Option<Reminders>,
    /// Another list; `Some(None)` is the inbox.
    pub list_id: Option<Option<ListId>>,
}

impl Details {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The number of reminders.
    pub(crate) fn number_of_reminders(&self) -> i64 {
        let reminders = self.reminders.as_ref().map_or(0, Reminders::len);
        i64::try_from(reminders).unwrap_or_default()
    }

    /// Checks what can be checked without the todo: a recurrence and reminders need a due date,
    /// which a `new` todo has only from here, and a rule needs a date after it; after `now` if the
    /// due date is not known.
    ///
    /// # Errors
    /// Every rule that the fields `recurrence` and `reminders` break.
    pub(crate) fn check(&self, is_new: bool, now: DateTime<Utc>) -> Result<(), FieldErrors> {
        let lacks_due = match &self.due {
            None => is_new,
            Some(due) => due.is_none(),
        };
        let recurs = matches!(self.recurrence, Some(Some(_)));
        let reminds = self.reminders.as_ref().is_some_and(|reminders| !reminders.is_empty());
        if lacks_due {
            return need_due(recurs, reminds);
        }
        if let Some(Some(recurrence)) = &self.recurrence {
            match &self.due {
                Some(Some(due)) => recurrence.rule.check_due(due.date())?,
                _ => recurrence.rule.check_from(now.date_naive())?,
            }
        }
        Ok(())
    }
}

/// The errors of a todo without a due date that recurs or reminds.
pub(super) fn need_due(recurs: bool, reminds: bool) -> Result<(), FieldErrors> {
    let mut errors = FieldErrors::none();
    if recurs {
        let message = "A recurrence needs a due date.";
        errors.push(FieldError::new("recurrence", "needs_due", message));
    }
    if reminds {
        let message = "Reminders need a due date.";
        errors.push(FieldError::new("reminders", "needs_due", message));
    }
    errors.into_result(|| ())
}

/// Implements the setters of the [`Details`] of a type.
macro_rules! impl_details {
    ($type:ident) => {
        impl $type {
            /// Sets the tags.
            #[must_use]
            pub fn tags(mut self, tags: Tags) -> Self {
                self.details.tags = Some(tags);
                self
            }

            /// Sets when it is due; `None` for no time.
            #[must_use]
            pub fn due(mut self, due: impl Into<Option<Due>>) -> Self {
                self.details.due = Some(due.into());
                self
            }

            /// Sets the recurrence, which needs a due date; `None` for none.
            #[must_use]
            pub fn recurrence(mut self, recurrence: impl Into<Option<Recurrence>>) -> Self {
                self.details.recurrence = Some(recurrence.into());
                self
            }

            /// Sets the reminders, which need a due date.
            #[must_use]
            pub fn reminders(mut self, reminders: Reminders) -> Self {
                self.details.reminders = Some(reminders);
                self
            }

            /// Sets the list; `None` for the inbox.
            #[must_use]
            pub fn list_id(mut self, list_id: impl Into<Option<ListId>>) -> Self {
                self.details.list_id = Some(list_id.into());
                self
            }
        }
    };
}

impl_details!(NewTodo);
impl_details!(TodoPatch);
