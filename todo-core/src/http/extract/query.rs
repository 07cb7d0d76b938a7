//! The query of a request.

use http::Uri;

use crate::{
    error::{FieldError, FieldErrors},
    validate::FieldLabel,
};

/// Decoded query parameters. Each must occur at most once, but for those that are read as lists.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// Parses a parameter, or returns the default if it is absent.
    pub(crate) fn read<T: Default, E: Into<FieldErrors>>(
        &self,
        name: &'static str,
        errors: &mut FieldErrors,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> T {
        let mut given = self.values(name);
        match (given.next(), given.next()) {
            (None, _) => T::default(),
            (Some(value), None) => errors.collect(parse(value)).unwrap_or_default(),
            (Some(_), Some(_)) => {
                let message = format!("{} must be given only once.", FieldLabel(name));
                errors.push(FieldError::new(name, "repeated", message));
                T::default()
            }
        }
    }

    /// The text of a parameter, if it is given.
    pub(crate) fn text(&self, name: &'static str, errors: &mut FieldErrors) -> Option<String> {
        self.read(name, errors, |text| Ok::<_, FieldError>(Some(text.to_owned())))
    }

    /// Parses each occurrence of a parameter, in their order.
    pub(crate) fn read_all<T, E: Into<FieldErrors>>(
        &self,
        name: &'static str,
        errors: &mut FieldErrors,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        self.values(name).filter_map(|value| errors.collect(parse(value))).collect()
    }

    fn values(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_parameter_is_an_error_and_an_unknown_one_is_not() {
        let query = Query::parse(&"/?a=1&a=2&b=%20x+y&c".parse().unwrap());
        let mut errors = FieldErrors::none();
        let text = |value: &str| Ok::<_, FieldError>(value.to_owned());
        assert_eq!(query.read("b", &mut errors, text), " x y");
        assert_eq!(query.read("c", &mut errors, text), "");
        assert_eq!(query.read("d", &mut errors, text), "");
        assert!(errors.is_empty());
        query.read("a", &mut errors, text);
        assert_eq!(errors[0].code, "repeated");
        assert_eq!(query.read_all("a", &mut errors, text), ["1", "2"]);
        assert!(query.read_all("d", &mut errors, text).is_empty());
        assert_eq!(errors.len(), 1);
        let number = |value: &str| {
            value.parse::<u8>().map_err(|_| FieldError::new("b", "invalid", "B must be a number."))
        };
        assert!(query.read_all("b", &mut errors, number).is_empty());
        assert_eq!(errors.len(), 2);
    }
}
