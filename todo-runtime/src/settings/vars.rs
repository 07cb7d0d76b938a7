//! Names and values that are parsed into settings, and the errors.

use super::kind::Kind;

/// The given names and values, and an error for each invalid one.
#[derive(Default)]
pub(super) struct Vars {
    values: Vec<(String, String)>,
    pub(super) errors: Vec<String>,
}

impl Vars {
    pub(super) fn new<K: Into<String>, V: Into<String>>(
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let values = vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { values, errors: Vec::new() }
    }

    /// The last value of a name, trimmed; `None` if it is empty.
    fn get(&self, name: &str) -> Option<String> {
        let value = self.values.iter().rev().find(|(known, _)| known == name)?.1.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// The value of a setting. If it is unset or invalid, the default.
    pub(super) fn read<T: 'static>(&mut self, name: &str, default: T, kind: &Kind<T>) -> T {
        let Some(text) = self.get(name) else { return default };
        kind.parse(&text).unwrap_or_else(|allowed| {
            self.reject(name, &allowed);
            default
        })
    }

    pub(super) fn reject(&mut self, name: &str, allowed: &str) {
        self.errors.push(format!("{name} must be {allowed}"));
    }

    pub(super) fn has_error(&self, name: &str) -> bool {
        self.errors.iter().any(|error| error.starts_with(&format!("{name} ")))
    }
}
