//! The types of a bulk: its request, and the results of its items.

use std::{borrow::Cow, collections::HashSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    error::{FieldError, FieldErrors, ItemError, Quota},
    ids::TodoId,
    todos::{NewTodo, Todo, TodoPatch},
};

/// What a bulk does to each of its items.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "a request has one")]
pub enum Bulk {
    /// Creates todos, as [`create`](crate::todos::create).
    Create(Vec<NewTodo>),
    /// Updates the same fields of todos, as [`patch`](crate::todos::patch).
    Patch {
        /// The todos.
        ids: Vec<TodoId>,
        /// The update.
        patch: TodoPatch,
    },
    /// Completes or reopens todos, as [`set_completed`](crate::todos::set_completed).
    Complete {
        /// The todos.
        ids: Vec<TodoId>,
        /// Whether they are completed.
        completed: bool,
    },
    /// Moves todos to the trash, as [`delete`](crate::todos::delete).
    Delete(Vec<TodoId>),
    /// Restores todos from the trash, as [`restore`](crate::todos::restore).
    Restore(Vec<TodoId>),
}

impl Bulk {
    /// The name of the member with its items in the HTTP API's request.
    #[must_use]
    pub fn items_name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Patch { .. } => "ids",
            Self::Complete { .. } => "complete",
            Self::Delete(_) => "delete",
            Self::Restore(_) => "restore",
        }
    }

    /// The ids of its items; none if it creates them.
    pub(super) fn ids(&self) -> &[TodoId] {
        match self {
            Self::Create(_) => &[],
            Self::Patch { ids, .. }
            | Self::Complete { ids, .. }
            | Self::Delete(ids)
            | Self::Restore(ids) => ids,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Create(new) => new.len(),
            other => other.ids().len(),
        }
    }
}

/// A bulk of 1 to [`BulkRequest::MAX_ITEMS`] items.
///
/// ```
/// use todo_core::todos::{Bulk, BulkRequest, NewTodo};
///
/// let todos = vec![NewTodo::new("Buy milk".parse()?), NewTodo::new("Sell milk".parse()?)];
/// let request = BulkRequest::new(Bulk::Create(todos))?.partial(true);
/// assert!(BulkRequest::new(Bulk::Delete(Vec::new())).is_err());
/// # Ok::<(), todo_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkRequest {
    pub(super) bulk: Bulk,
    pub(super) is_partial: bool,
    /// Items beside those of `bulk`, with their index among all.
    pub(super) rejected: Vec<(usize, FieldErrors)>,
}

impl BulkRequest {
    /// Maximum number of items.
    pub const MAX_ITEMS: usize = 500;

    /// Creates the request: all items or none.
    ///
    /// # Errors
    /// There are no items or too many, or an id is there twice.
    pub fn new(bulk: Bulk) -> Result<Self, FieldErrors> {
        Self::with_rejected(bulk, Vec::new())
    }

    /// Whether each item takes effect or fails for itself. Default: all or none.
    #[must_use]
    pub fn partial(mut self, is_partial: bool) -> Self {
        self.is_partial = is_partial;
        self
    }

    /// A request with items of invalid values, which fail. Each has its index among all items; the
    /// indexes are in ascending order.
    pub(crate) fn with_rejected(
        bulk: Bulk,
        rejected: Vec<(usize, FieldErrors)>,
    ) -> Result<Self, FieldErrors> {
        let name = bulk.items_name();
        if !(1..=Self::MAX_ITEMS).contains(&(bulk.len() + rejected.len())) {
            return Err(number_error(name).into());
        }
        let request = Self { bulk, is_partial: false, rejected };
        let mut errors = FieldErrors::none();
        let mut seen = HashSet::new();
        for (index, id) in request.indexes().zip(request.bulk.ids()) {
            if !seen.insert(id) {
                let message = "This id is there twice.";
                errors.push(FieldError::new(format!("{name}/{index}"), "repeated", message));
            }
        }
        errors.into_result(|| request)
    }

    /// The number of items.
    #[must_use]
    pub fn item_count(&self) -> usize {
        self.bulk.len() + self.rejected.len()
    }

    /// The index of each item of `bulk` among all items.
    pub(super) fn indexes(&self) -> impl Iterator<Item = usize> + '_ {
        let mut rejected = self.rejected.iter().map(|(index, _)| *index).peekable();
        (0..self.item_count()).filter(move |index| rejected.next_if_eq(index).is_none())
    }
}

/// The error of a bulk without items, or with too many.
pub(crate) fn number_error(name: &'static str) -> FieldError {
    let max = BulkRequest::MAX_ITEMS;
    let message = format!("There must be 1 to {max} items.");
    FieldError::new(name, "out_of_range", message)
}

/// The result of an item of a bulk.
///
/// As JSON, it is an item of the HTTP API's response.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkResult {
    /// The item's index in the request, from 0.
    pub index: usize,
    /// What became of it.
    pub outcome: BulkOutcome,
}

/// What became of an item of a bulk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BulkOutcome {
    /// The todo is new.
    Created(Todo),
    /// The todo was changed or restored. It is as it was after an empty patch.
    Changed(Todo),
    /// The todo was completed, and recurs.
    Completed {
        /// The todo.
        todo: Todo,
        /// The next occurrence: see [`set_completed`](crate::todos::set_completed).
        next_id: TodoId,
    },
    /// The todo is gone.
    Deleted,
    /// Nothing was done; only in a [partial](BulkRequest::partial) bulk.
    Failed(ItemError),
}

impl BulkResult {
    /// The todo, unless it was deleted or the item failed.
    #[must_use]
    pub fn todo(&self) -> Option<&Todo> {
        match &self.outcome {
            BulkOutcome::Created(todo)
            | BulkOutcome::Changed(todo)
            | BulkOutcome::Completed { todo, .. } => Some(todo),
            BulkOutcome::Deleted | BulkOutcome::Failed(_) => None,
        }
    }

    /// The next occurrence of a completed todo that recurs.
    #[must_use]
    pub fn next_id(&self) -> Option<TodoId> {
        match self.outcome {
            BulkOutcome::Completed { next_id, .. } => Some(next_id),
            _ => None,
        }
    }

    /// The status that a request with this item alone would have.
    fn status(&self) -> u16 {
        match &self.outcome {
            BulkOutcome::Created(_) => 201,
            BulkOutcome::Changed(_) | BulkOutcome::Completed { .. } | BulkOutcome::Deleted => 200,
            BulkOutcome::Failed(ItemError::Invalid(_)) => 400,
            BulkOutcome::Failed(ItemError::Forbidden) => 403,
            BulkOutcome::Failed(ItemError::NotFound) => 404,
            BulkOutcome::Failed(ItemError::QuotaExceeded { .. }) => 409,
        }
    }
}

/// A [`BulkResult`] as JSON.
#[derive(Serialize, Deserialize)]
struct Item<'a> {
    index: usize,
    status: u16,
    todo: Option<Cow<'a, Todo>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    next_id: Option<TodoId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    code: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    of: Option<Quota>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    used: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty", skip_deserializing, default)]
    details: Vec<Detail<'a>>,
}

/// A rule that an item breaks.
#[derive(Serialize)]
struct Detail<'a> {
    field: &'a str,
    /// The field's location in the request, as a JSON Pointer (RFC 6901).
    pointer: String,
    code: &'a str,
    message: &'a str,
}

impl Serialize for BulkResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let error = match &self.outcome {
            BulkOutcome::Failed(error) => Some(error),
            _ => None,
        };
        let quota = match error {
            Some(ItemError::QuotaExceeded { of, limit, used }) => Some((*of, *limit, *used)),
            _ => None,
        };
        let rules: &[FieldError] = match error {
            Some(ItemError::Invalid(errors)) => errors,
            _ => &[],
        };
        let detail = |rule: &'_ FieldError| format!("/{}", rule.field);
        let item = Item {
            index: self.index,
            status: self.status(),
            todo: self.todo().map(Cow::Borrowed),
            next_id: self.next_id(),
            code: error.map(|error| error.code().into()),
            of: quota.map(|(of, ..)| of).filter(|of| *of != Quota::Todos),
            limit: quota.map(|(_, limit, _)| limit),
            used: quota.map(|(.., used)| used),
            details: rules
                .iter()
                .map(|rule| Detail {
                    field: &rule.field,
                    pointer: detail(rule),
                    code: rule.code,
                    message: &rule.message,
                })
                .collect(),
        };
        item.serialize(serializer)
    }
}

/// Of the answers that are kept with a key. They have no invalid values: only the HTTP API has
/// requests with some, and returns their answers unparsed.
impl<'de> Deserialize<'de> for BulkResult {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Item { index, status, todo, next_id, of, limit, used, .. } =
            Item::deserialize(deserializer)?;
        let todo = todo.map(Cow::into_owned);
        let outcome = match (status, todo) {
            (200, Some(todo)) if let Some(next_id) = next_id => {
                BulkOutcome::Completed { todo, next_id }
            }
            (201, Some(todo)) => BulkOutcome::Created(todo),
            (200, Some(todo)) => BulkOutcome::Changed(todo),
            (200, None) => BulkOutcome::Deleted,
            (403, None) => BulkOutcome::Failed(ItemError::Forbidden),
            (404, None) => BulkOutcome::Failed(ItemError::NotFound),
            (409, None) => BulkOutcome::Failed(ItemError::QuotaExceeded {
                of: of.unwrap_or(Quota::Todos),
                limit: limit.unwrap_or_default(),
                used: used.unwrap_or_default(),
            }),
            _ => return Err(de::Error::custom("not a result of a bulk")),
        };
        Ok(Self { index, outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> TodoId {
        uuid::Uuid::from_u128(number).into()
    }

    fn fields(errors: &FieldErrors) -> Vec<(&str, &'static str)> {
        errors.iter().map(|error| (error.field.as_ref(), error.code)).collect()
    }

    #[test]
    fn a_bulk_has_1_to_500_items_each_once() {
        let ids = |count| (0..count).map(id).collect::<Vec<_>>();
        assert!(BulkRequest::new(Bulk::Delete(ids(500))).is_ok());
        for bad in [0, 501] {
            let errors = BulkRequest::new(Bulk::Restore(ids(bad))).unwrap_err();
            assert_eq!(fields(&errors), [("restore", "out_of_range")], "{bad}");
        }
        let twice = vec![id(1), id(2), id(1), id(2), id(2)];
        let patch = Bulk::Patch { ids: twice, patch: TodoPatch::new() };
        let errors = BulkRequest::new(patch).unwrap_err();
        let expected = [("ids/2", "repeated"), ("ids/3", "repeated"), ("ids/4", "repeated")];
        assert_eq!(fields(&errors), expected);
    }

    #[test]
    fn items_of_invalid_values_have_their_place() {
        let bad = || FieldErrors::from(FieldError::new("x", "invalid", "X."));
        let bulk = Bulk::Delete(vec![id(1), id(2), id(3)]);
        let request =
            BulkRequest::with_rejected(bulk, vec![(0, bad()), (2, bad()), (5, bad())]).unwrap();
        assert_eq!(request.item_count(), 6);
        assert_eq!(request.indexes().collect::<Vec<_>>(), [1, 3, 4]);
    }

    #[test]
    fn kept_results_are_parsed_back() {
        let outcomes = [
            BulkOutcome::Deleted,
            BulkOutcome::Failed(ItemError::Forbidden),
            BulkOutcome::Failed(ItemError::NotFound),
            BulkOutcome::Failed(ItemError::QuotaExceeded { of: Quota::Todos, limit: 1, used: 2 }),
            BulkOutcome::Failed(ItemError::QuotaExceeded { of: Quota::Tags, limit: 1, used: 2 }),
        ];
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let result = BulkResult { index, outcome };
            let json = serde_json::to_string(&result).unwrap();
            assert_eq!(serde_json::from_str::<BulkResult>(&json).unwrap(), result, "{json}");
        }
    }
}
