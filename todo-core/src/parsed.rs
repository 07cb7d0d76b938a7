//! Conversions of the types that are constructed by parsing. Each such type has `parse` and
//! `as_str`; these macros add the standard traits over the two.

/// Implements `FromStr` and `TryFrom<&str>` by the `parse` of a type, with its error.
macro_rules! impl_parse {
    ($type:ident, $error:ty) => {
        impl std::str::FromStr for $type {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                Self::parse(text)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = $error;

            fn try_from(text: &str) -> Result<Self, $error> {
                Self::parse(text)
            }
        }
    };
}

/// Implements `Display` and `AsRef<str>` by the `as_str` of a type.
macro_rules! impl_as_str {
    ($type:ident) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
    };
}

/// Implements the access to the text of a credential: `as_str`, `AsRef<str>`, a conversion into
/// `String`, and a `Debug` output without it. There is no `Display`.
macro_rules! impl_credential {
    ($type:ident) => {
        impl $type {
            /// The credential as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl From<$type> for String {
            fn from(credential: $type) -> Self {
                credential.0
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($type), "(…)"))
            }
        }
    };
}

/// Implements the conversions of a text type: `Display`, `AsRef<str>`, `FromStr`, `TryFrom`, a
/// comparison with plain text, and serde's traits. Deserializing parses.
macro_rules! impl_text {
    ($type:ident) => {
        $crate::parsed::impl_parse!($type, $crate::error::FieldErrors);
        $crate::parsed::impl_as_str!($type);

        impl TryFrom<String> for $type {
            type Error = crate::error::FieldErrors;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::parse(&text)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.into_string()
            }
        }

        impl PartialEq<str> for $type {
            fn eq(&self, text: &str) -> bool {
                self.as_str() == text
            }
        }

        impl PartialEq<&str> for $type {
            fn eq(&self, text: &&str) -> bool {
                self.as_str() == *text
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Implements `parse`, `as_str` and the conversions of an enum of fixed words, which are also its
/// names in JSON.
macro_rules! impl_words {
    ($type:ident, $field:literal, $allowed:literal, $($word:literal => $value:ident),+ $(,)?) => {
        impl $type {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            #[doc = concat!("Parses a word: ", $allowed, ".")]
            ///
            /// # Errors
            #[doc = concat!("The [`FieldError`](crate::FieldError) of the field `", $field, "`.")]
            pub fn parse(word: &str) -> Result<Self, crate::error::FieldError> {
                match word {
                    $($word => Ok(Self::$value),)+
                    _ => {
                        let label = crate::validate::FieldLabel($field);
                        let message = format!(concat!("{} must be ", $allowed, "."), label);
                        Err(crate::error::FieldError::new($field, "invalid", message))
                    }
                }
            }

            /// The word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }

        $crate::parsed::impl_parse!($type, $crate::error::FieldError);
        $crate::parsed::impl_as_str!($type);
    };
}

pub(crate) use impl_as_str;
pub(crate) use impl_credential;
pub(crate) use impl_parse;
pub(crate) use impl_text;
pub(crate) use impl_words;
