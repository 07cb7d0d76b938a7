//! The reminders of a todo.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{FieldError, FieldErrors};

/// A reminder: a number of minutes before a todo is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reminder {
    /// Minutes: 0 to [`Reminder::MAX_MINUTES`].
    pub minutes_before: u16,
}

impl Reminder {
    /// Maximum number of minutes: four weeks.
    pub const MAX_MINUTES: u16 = 40_320;

    /// Creates a reminder.
    ///
    /// # Errors
    /// The [`FieldError`] of the field `minutes_before`, unless it is 0 to
    /// [`Reminder::MAX_MINUTES`].
    pub fn before(minutes: i64) -> Result<Self, FieldError> {
        match u16::try_from(minutes) {
            Ok(minutes_before) if minutes_before <= Self::MAX_MINUTES => {
                Ok(Self { minutes_before })
            }
            _ => {
                let message = "Minutes before must be a whole number from 0 to 40320.";
                Err(FieldError::new("minutes_before", "out_of_range", message))
            }
        }
    }
}

/// The reminders of a todo: a set of up to 5, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reminders(Vec<Reminder>);

impl Reminders {
    /// Maximum number of reminders.
    pub const MAX: usize = 5;

    /// Creates the set; equal reminders are one.
    ///
    /// # Errors
    /// The [`FieldError`] of the field `reminders` if there are more than [`Reminders::MAX`].
    pub fn new(reminders: impl IntoIterator<Item = Reminder>) -> Result<Self, FieldError> {
        let mut set: Vec<_> = reminders.into_iter().collect();
        set.sort_unstable();
        set.dedup();
        if set.len() > Self::MAX {
            let message = "A todo can have at most 5 reminders.";
            return Err(FieldError::new("reminders", "too_many", message));
        }
        Ok(Self(set))
    }

    /// Creates the set from minutes.
    ///
    /// # Errors
    /// Every rule that the field `reminders` breaks; those of one reminder are of the field
    /// `reminders/<index>/minutes_before`.
    pub(crate) fn parse(minutes: impl IntoIterator<Item = i64>) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::none();
        let mut set = Vec::new();
        for (index, minutes) in minutes.into_iter().enumerate() {
            let reminder = Reminder::before(minutes).map_err(|mut error| {
                error.field = format!("reminders/{index}/minutes_before").into();
                error
            });
            set.extend(errors.collect(reminder));
        }
        let set = errors.collect(Self::new(set));
        errors.into_result(|| set.unwrap_or_default())
    }

    /// The reminders, the latest first.
    pub fn iter(&self) -> std::slice::Iter<'_, Reminder> {
        self.0.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of reminders.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The text that is stored: a JSON array of minutes.
    pub(crate) fn to_stored(&self) -> String {
        let minutes: Vec<_> = self.0.iter().map(|reminder| reminder.minutes_before).collect();
        serde_json::to_string(&minutes).unwrap_or_else(|_| "[]".to_owned())
    }

    /// The reminders of a stored text; `None` if it is not one.
    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        if text == "[]" {
            return Some(Self::default());
        }
        let minutes: Vec<u16> = serde_json::from_str(text).ok()?;
        Some(Self(minutes.into_iter().map(|minutes_before| Reminder { minutes_before }).collect()))
    }
}

impl<'a> IntoIterator for &'a Reminders {
    type Item = &'a Reminder;
    type IntoIter = std::slice::Iter<'a, Reminder>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Serialize for Reminders {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Reminders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let reminders = Vec::<Reminder>::deserialize(deserializer)?;
        Self::parse(reminders.iter().map(|reminder| reminder.minutes_before.into()))
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_are_a_set_of_up_to_five() {
        let reminders = Reminders::parse([60, 0, 60]).unwrap();
        let json = serde_json::to_string(&reminders).unwrap();
        assert_eq!(json, r#"[{"minutes_before":0},{"minutes_before":60}]"#);
        assert_eq!(serde_json::from_str::<Reminders>(&json).unwrap(), reminders);
        assert_eq!(reminders.to_stored(), "[0,60]");
        assert_eq!(Reminders::from_stored("[0,60]"), Some(reminders));
        assert!(Reminders::parse([1, 2, 3, 4, 5]).is_ok());
        let errors = Reminders::parse([1, 2, 3, 4, 5, 6, -1, 40_321]).unwrap_err();
        let codes: Vec<_> = errors.iter().map(|error| (&*error.field, error.code)).collect();
        let expected = [
            ("reminders/6/minutes_before", "out_of_range"),
            ("reminders/7/minutes_before", "out_of_range"),
            ("reminders", "too_many"),
        ];
        assert_eq!(codes, expected);
    }
}
