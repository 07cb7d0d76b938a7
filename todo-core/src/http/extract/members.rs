//! Typed request bodies: a struct whose fields are the members of a JSON object. The type of a
//! field states whether the member is required, may be null, or may be absent, and how it is
//! parsed. The schema in the OpenAPI document is made from the same types.

use serde_json::Value;

use crate::{
    error::{FieldError, FieldErrors},
    http::{
        extract::Form,
        problem::ApiError,
        schema::{self, Member},
    },
    validate::{self, FieldLabel},
};

/// A request body that is a JSON object.
pub(crate) trait JsonBody: Sized {
    /// Its name among the schemas of the OpenAPI document.
    const SCHEMA: &'static str;

    /// Reads all members. First, all that are missing or of a wrong type are reported at once
    /// (422), the required ones before the others; then all with an invalid value (400).
    fn read(form: Form) -> Result<Self, ApiError>;

    /// Its JSON Schema.
    fn schema() -> Value;
}

/// A field of a [`JsonBody`]. A plain [`Member`] is required and not null.
pub(crate) trait Field: Sized {
    /// The member before its value is parsed.
    type Shape;
    const IS_REQUIRED: bool = false;

    /// Takes the member from the form. Its absence, or a wrong type, is an error of the form.
    fn take(form: &mut Form, name: &'static str) -> Option<Self::Shape>;

    /// Parses the member; `None` if it is absent.
    fn parse(name: &'static str, shape: Option<Self::Shape>) -> Result<Self, FieldErrors>;

    fn schema() -> Value;
}

impl<M: Member> Field for M {
    type Shape = M::Shape;
    const IS_REQUIRED: bool = true;

    fn take(form: &mut Form, name: &'static str) -> Option<M::Shape> {
        form.required::<M>(name)
    }

    fn parse(name: &'static str, shape: Option<M::Shape>) -> Result<Self, FieldErrors> {
        // An absent member is an error of the form, which comes first.
        shape.map_or_else(|| Err(validate::missing(name).into()), |shape| parse_as(name, shape))
    }

    fn schema() -> Value {
        M::schema()
    }
}

/// A member that may be absent, but not null; then it has its type's default.
pub(crate) struct OrDefault<M>(pub(crate) M);

impl<M: Member + Default + serde::Serialize> Field for OrDefault<M> {
    type Shape = M::Shape;

    fn take(form: &mut Form, name: &'static str) -> Option<M::Shape> {
        form.optional::<M>(name)
    }

    fn parse(name: &'static str, shape: Option<M::Shape>) -> Result<Self, FieldErrors> {
        shape.map_or_else(|| Ok(M::default()), |shape| parse_as(name, shape)).map(Self)
    }

    fn schema() -> Value {
        schema::with_default(M::schema(), &M::default())
    }
}

/// A member that may be absent, but not null.
pub(crate) struct Optional<M>(pub(crate) Option<M>);

impl<M: Member> Field for Optional<M> {
    type Shape = M::Shape;

    fn take(form: &mut Form, name: &'static str) -> Option<M::Shape> {
        form.optional::<M>(name)
    }

    fn parse(name: &'static str, shape: Option<M::Shape>) -> Result<Self, FieldErrors> {
        shape.map(|shape| parse_as(name, shape)).transpose().map(Self)
    }

    fn schema() -> Value {
        M::schema()
    }
}

/// A member that may be absent or null, which mean the same.
pub(crate) struct OrNull<M>(pub(crate) Option<M>);

impl<M: Member> Field for OrNull<M> {
    type Shape = Option<M::Shape>;

    fn take(form: &mut Form, name: &'static str) -> Option<Self::Shape> {
        form.nullable::<M>(name)
    }

    fn parse(name: &'static str, shape: Option<Self::Shape>) -> Result<Self, FieldErrors> {
        shape.flatten().map(|shape| parse_as(name, shape)).transpose().map(Self)
    }

    fn schema() -> Value {
        schema::or_null(M::schema())
    }
}

/// A required member that may be null.
pub(crate) struct Nullable<M>(pub(crate) Option<M>);

impl<M: Member> Field for Nullable<M> {
    type Shape = Option<M::Shape>;
    const IS_REQUIRED: bool = true;

    fn take(form: &mut Form, name: &'static str) -> Option<Self::Shape> {
        form.required_or_null::<M>(name)
    }

    fn parse(name: &'static str, shape: Option<Self::Shape>) -> Result<Self, FieldErrors> {
        // An absent member is an error of the form, which comes first.
        let shape = shape.ok_or_else(|| validate::missing(name))?;
        shape.map(|shape| parse_as(name, shape)).transpose().map(Self)
    }

    fn schema() -> Value {
        schema::or_null(M::schema())
    }
}

/// A member of a merge patch (RFC 7396) that cannot be removed: absent, it is unchanged, and null
/// is an error of its value.
pub(crate) struct Change<M>(pub(crate) Option<M>);

impl<M: Member> Field for Change<M> {
    type Shape = Option<M::Shape>;

    fn take(form: &mut Form, name: &'static str) -> Option<Self::Shape> {
        form.nullable::<M>(name)
    }

    fn parse(name: &'static str, shape: Option<Self::Shape>) -> Result<Self, FieldErrors> {
        let message = || format!("{} cannot be null.", FieldLabel(name));
        let parse = |value: Option<M::Shape>| match value {
            Some(value) => parse_as(name, value),
            None => Err(FieldError::new(name, "null", message()).into()),
        };
        shape.map(parse).transpose().map(Self)
    }

    fn schema() -> Value {
        M::schema()
    }
}

/// A member of a merge patch (RFC 7396): absent, it is unchanged; null removes it.
pub(crate) struct ChangeOrNull<M>(pub(crate) Option<Option<M>>);

impl<M: Member> Field for ChangeOrNull<M> {
    type Shape = Option<M::Shape>;

    fn take(form: &mut Form, name: &'static str) -> Option<Self::Shape> {
        form.nullable::<M>(name)
    }

    fn parse(name: &'static str, shape: Option<Self::Shape>) -> Result<Self, FieldErrors> {
        let parse = |value: Option<M::Shape>| value.map(|value| parse_as(name, value)).transpose();
        shape.map(parse).transpose().map(Self)
    }

    fn schema() -> Value {
        schema::or_null(M::schema())
    }
}

/// Parses the value of the member `name`. The errors name the member, not the value's usual field.
fn parse_as<M: Member>(name: &'static str, shape: M::Shape) -> Result<M, FieldErrors> {
    M::parse(shape).map_err(|errors| errors.of_field(name))
}

/// Declares a [`JsonBody`]: `struct Name as "SchemaName" { field: Type, … }`.
macro_rules! json_body {
    (
        $(#[$doc:meta])*
        $visibility:vis struct $body:ident as $schema:literal { $($field:ident: $type:ty),+ $(,)? }
    ) => {
        $(#[$doc])*
        $visibility struct $body {
            $($field: $type,)+
        }

        impl $crate::http::extract::JsonBody for $body {
            const SCHEMA: &'static str = $schema;

            fn read(
                mut form: $crate::http::extract::Form,
            ) -> Result<Self, $crate::http::problem::ApiError> {
                use $crate::http::extract::Field;

                $(let mut $field = None;)+
                for is_required in [true, false] {
                    $(if <$type as Field>::IS_REQUIRED == is_required {
                        $field = <$type as Field>::take(&mut form, stringify!($field));
                    })+
                }
                form.finish()?;
                let mut errors = $crate::error::FieldErrors::none();
                $(let $field =
                    errors.collect(<$type as Field>::parse(stringify!($field), $field));)+
                match ($($field,)+) {
                    ($(Some($field),)+) => Ok(Self { $($field),+ }),
                    _ => Err($crate::error::Error::from(errors).into()),
                }
            }

            fn schema() -> serde_json::Value {
                use $crate::http::extract::Field;

                let mut required = Vec::new();
                $(if <$type as Field>::IS_REQUIRED {
                    required.push(stringify!($field));
                })+
                let properties =
                    serde_json::json!({ $(stringify!($field): <$type as Field>::schema(),)+ });
                $crate::http::schema::object(&required, &properties)
            }
        }
    };
}

pub(crate) use json_body;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        error::Error,
        todos::{Description, Priority, Title},
    };

    json_body! {
        /// One member of each kind.
        struct Body as "Body" {
            removed: ChangeOrNull<Description>,
            changed: Change<Title>,
            title: Title,
            noted: OrNull<Description>,
            done: bool,
            priority: OrDefault<Priority>,
            optional: Optional<Title>,
        }
    }

    fn read(json: &str) -> Result<Body, ApiError> {
        Body::read(Form::parse(json.as_bytes()).unwrap())
    }

    #[test]
    fn members_may_be_absent_or_null_by_their_type() {
        let body = read(r#"{"title":" a ","done":true}"#).unwrap();
        assert!(body.title == "a" && body.done);
        assert!(body.noted.0.is_none() && body.changed.0.is_none() && body.removed.0.is_none());
        assert_eq!(body.priority.0, Priority::Medium);
        assert!(body.optional.0.is_none());
        let body = r#"{"title":"a","done":false,"noted":null,"removed":null,"changed":"b",
            "optional":"c"}"#;
        let body = read(body).unwrap();
        assert!(body.noted.0.is_none() && body.removed.0 == Some(None));
        assert!(body.changed.0.is_some_and(|title| title == "b"));
        assert!(body.optional.0.is_some_and(|title| title == "c"));
    }

    #[test]
    fn errors_of_shape_come_first_and_all_at_once() {
        let Err(ApiError::Malformed(_, errors)) =
            read(r#"{"removed":1,"title":"","priority":null,"noted":[],"optional":null}"#)
        else {
            panic!()
        };
        let reported: Vec<_> = errors.iter().map(|e| (e.field.as_ref(), e.code)).collect();
        let expected = [
            ("done", "missing"),
            ("removed", "wrong_type"),
            ("noted", "wrong_type"),
            ("priority", "wrong_type"),
            ("optional", "wrong_type"),
        ];
        assert_eq!(reported, expected, "the required members first");

        let body = r#"{"title":"","done":true,"changed":null,"priority":"urgent","noted":"\u0000",
            "optional":""}"#;
        let Err(ApiError::Core(Error::Invalid(errors))) = read(body) else { panic!() };
        let reported: Vec<_> = errors.iter().map(|e| (e.field.as_ref(), e.code)).collect();
        let expected = [
            ("changed", "null"),
            ("title", "blank"),
            ("noted", "nul"),
            ("priority", "invalid"),
            ("optional", "blank"),
        ];
        assert_eq!(reported, expected);
    }

    #[test]
    fn the_schema_has_the_same_members() {
        let schema = Body::schema();
        assert_eq!(schema["required"], json!(["title", "done"]));
        assert_eq!(schema["properties"]["title"]["maxLength"], Title::MAX_CHARS);
        assert_eq!(schema["properties"]["noted"]["type"], json!(["string", "null"]));
        assert_eq!(schema["properties"]["priority"]["default"], "medium");
        assert_eq!(schema["properties"]["done"], json!({ "type": "boolean" }));
        assert_eq!(schema["properties"]["optional"]["type"], "string");
    }
}
