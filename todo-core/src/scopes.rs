//! Scopes: what an API key allows (RFC 6749, section 3.3).

use std::fmt;

/// One of the rights that an API key may have. None includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Scope {
    /// Read todos, the trash and the changes.
    TodosRead = 1,
    /// Create, change, delete and restore todos.
    TodosWrite = 2,
    /// Read the account.
    AccountRead = 4,
}

impl Scope {
    /// Every scope.
    pub const ALL: &'static [Self] = &[Self::TodosRead, Self::TodosWrite, Self::AccountRead];

    /// The word, such as `todos:read`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TodosRead => "todos:read",
            Self::TodosWrite => "todos:write",
            Self::AccountRead => "account:read",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl AsRef<str> for Scope {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl serde::Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A set of [`Scope`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scopes(u16);

impl Scopes {
    /// The set of these scopes, each of which may occur more than once; `None` if there is none.
    #[must_use]
    pub fn new(scopes: impl IntoIterator<Item = Scope>) -> Option<Self> {
        let bits = scopes.into_iter().fold(0, |bits, scope| bits | scope as u16);
        (bits != 0).then_some(Self(bits))
    }

    /// Whether it has `scope`.
    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope as u16 != 0
    }

    /// Its scopes, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().copied().filter(move |scope| self.contains(*scope))
    }

    /// A bit for each scope, as stored and as in an API key.
    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    /// The set with these bits. Unknown ones allow nothing.
    pub(crate) fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl serde::Serialize for Scopes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_its_scopes_in_one_order() {
        let scopes = Scopes::new([Scope::AccountRead, Scope::TodosRead, Scope::TodosRead]).unwrap();
        let words: Vec<_> = scopes.iter().map(Scope::as_str).collect();
        assert_eq!(words, ["todos:read", "account:read"]);
        assert_eq!(serde_json::to_value(scopes).unwrap(), serde_json::json!(words));
        assert!(scopes.contains(Scope::AccountRead) && !scopes.contains(Scope::TodosWrite));
        assert_eq!(Scopes::from_bits(scopes.bits()), scopes);
        assert_eq!(Scopes::from_bits(8).iter().count(), 0, "an unknown bit allows nothing");
        assert_eq!(Scopes::new([]), None);
    }
}
