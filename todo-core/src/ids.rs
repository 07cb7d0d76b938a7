//! The ids of the rows of each table, each a type: the id of a todo cannot be passed for a user's.

/// Declares an id type over a UUID.
macro_rules! id {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $type(uuid::Uuid);

        impl $type {
            /// The id that is this UUID.
            #[must_use]
            pub const fn new(id: uuid::Uuid) -> Self {
                Self(id)
            }

            /// The id as a UUID.
            #[must_use]
            pub const fn as_uuid(self) -> uuid::Uuid {
                self.0
            }
        }

        impl From<uuid::Uuid> for $type {
            fn from(id: uuid::Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$type> for uuid::Uuid {
            fn from(id: $type) -> Self {
                id.0
            }
        }

        impl From<$type> for crate::db::value::Value {
            fn from(id: $type) -> Self {
                id.0.into()
            }
        }

        impl std::str::FromStr for $type {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                uuid::Uuid::try_parse(text).map(Self)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// The id of a user: a UUIDv7 (RFC 9562, section 5.7), unless an import brought another UUID.
    UserId
}
id! {
    /// The id of a session: a UUIDv7 (RFC 9562, section 5.7), or the hash of its credential.
    SessionId
}
id! {
    /// The id of an identity: a UUIDv7 (RFC 9562, section 5.7).
    IdentityId
}
id! {
    /// The id of a todo: a UUIDv7 (RFC 9562, section 5.7), unless an import brought another UUID.
    TodoId
}
id! {
    /// The id of a list of todos: a UUIDv7 (RFC 9562, section 5.7), unless an import brought
    /// another UUID.
    ListId
}
id! {
    /// The id of a reminder: a random UUID (RFC 9562, section 5.4).
    ReminderId
}
