//! The query of a request.

use http::Uri;

use crate::{
    error::{FieldError, FieldErrors},
    validate::FieldLabel,
};

/// Decoded query parameters; one that is read must occur at most once.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// Parses a parameter, or returns the default if it is absent.
    pub(crate) fn read<T: Default>(
        &self,
        name: &'static str,
        errors: &mut FieldErrors,
        parse: impl FnOnce(&str) -> Result<T, FieldError>,
    ) -> T {
        let mut given = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        let parsed = match (given.next(), given.next()) {
            (None, _) => return T::default(),
            (Some(value), None) => parse(value),
            (Some(_), Some(_)) => {
                let message = format!("{} must be given only once.", FieldLabel(name));
                Err(FieldError::new(name, "repeated", message))
            }
        };
        parsed.unwrap_or_else(|error| {
            errors.push(error);
            T::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_parameter_is_an_error_and_an_unknown_one_is_not() {
        let query = Query::parse(&"/?a=1&a=2&b=%20x+y&c".parse().unwrap());
        let mut errors = FieldErrors::none();
        let text = |value: &str| Ok(value.to_owned());
        assert_eq!(query.read("b", &mut errors, text), " x y");
        assert_eq!(query.read("c", &mut errors, text), "");
        assert_eq!(query.read("d", &mut errors, text), "");
        assert!(errors.is_empty());
        query.read("a", &mut errors, text);
        assert_eq!(errors[0].code, "repeated");
    }
}
