//! The values of request bodies: how each is read from JSON, and its JSON Schema; and in
//! `responses` the schemas of the types in responses.

use serde_json::{Value, json};

#[cfg(feature = "webhook")]
use crate::webhooks::{WebhookSecret, WebhookUrl};
use crate::{
    auth::{Email, KeyLifetime, KeyName, Name, Password, Scopes, TimeZone},
    error::{FieldError, FieldErrors},
    http::matcher::parse_id,
    todos::{
        Description, Due, ListColor, ListId, ListName, Priority, Recurrence, RecurrenceBase,
        Reminder, Reminders, Rule, Tag, Tags, Title, TodoId,
    },
};

mod files;
pub(crate) mod responses;

/// The values that the types of `auth` and `todos` accept, as regular expressions with the same
/// meaning in JSON Schema's dialect (ECMA-262) and Python's `re`: a value that matches is never
/// rejected. They are stricter where an expression cannot be exact: a leading or trailing blank of
/// a name is trimmed, and a password's letters may be of any script.
pub(crate) const UUID: &str = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$";
pub(crate) const CURSOR: &str = "^[A-Za-z0-9_-]+$";
const LINK_TOKEN: &str = "^[A-Za-z0-9_-]{43}$";
/// Non-ASCII letters that are valid at any position of an address (Latin, Greek, Cyrillic, kana,
/// Han, Hangul). For other letters the valid positions cannot be expressed.
macro_rules! letters {
    () => {
        "\\u00c0-\\u00d6\\u00d8-\\u00f6\\u00f8-\\u012f\\u0134-\\u013e\\u0141-\\u0148\\u014a-\\u017e\
         \\u0391-\\u03a1\\u03a3-\\u03c9\\u0410-\\u044f\\u1ea0-\\u1ef9\
         \\u3041-\\u3093\\u30a1-\\u30f6\\u4e00-\\u9fa5\\uac00-\\ud7a3"
    };
}
/// A domain in ASCII, or a short one with such letters: its ASCII form is longer than the original.
const EMAIL: &str = concat!(
    "^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~",
    letters!(),
    "-]+@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\
     (\\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+|([A-Za-z0-9",
    letters!(),
    "]{1,10}\\.){1,3}[A-Za-z0-9",
    letters!(),
    "]{1,10})$"
);
/// A tag. Its letters are of lower case after parsing; others are accepted.
const TAG: &str = "^[^\\s\\u0000-\\u001f\\u007f-\\u009f,]\
    ([^\\u0000-\\u001f\\u007f-\\u009f,]*[^\\s\\u0000-\\u001f\\u007f-\\u009f,])?$";
pub(crate) const TIME: &str = "^([01][0-9]|2[0-3]):[0-5][0-9]$";
const COLOR: &str = "^#[0-9A-Fa-f]{6}$";
const TEXT: &str = "^[^\\u0000]*$";
const NOT_BLANK: &str = "^[^\\u0000]*[^\\s\\u0000\\u0085][^\\u0000]*$";
const NAME: &str = "^[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*\
    [^\\s\\u0000-\\u001f\\u007f-\\u009f]$";
const KEY_NAME: &str = "^[^\\s\\u0000-\\u001f\\u007f-\\u009f]\
    ([^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f])?$";
const PASSWORD: &str = "^(?=[^\\u0000]*[A-Z])(?=[^\\u0000]*[a-z])(?=[^\\u0000]*[0-9])[^\\u0000]+$";

/// A value in a request body. Its [`Member::Shape`] is the JSON value, of the right type.
pub(crate) trait Member: Sized {
    type Shape;
    /// The JSON type, for the sentence "… must be a string.".
    const TYPE: &'static str;

    fn from_json(value: Value) -> Option<Self::Shape>;

    /// # Errors
    /// Every rule that the value breaks.
    fn parse(shape: Self::Shape) -> Result<Self, FieldErrors>;

    fn schema() -> Value;
}

impl Member for bool {
    type Shape = Self;
    const TYPE: &'static str = "true or false";

    fn from_json(value: Value) -> Option<Self> {
        value.as_bool()
    }

    fn parse(shape: Self) -> Result<Self, FieldErrors> {
        Ok(shape)
    }

    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
}

/// Implements [`Member`] for a type that is parsed from a string, with its schema.
macro_rules! text_member {
    ($type:ty, $parse:path, $schema:expr) => {
        impl Member for $type {
            type Shape = String;
            const TYPE: &'static str = "a string";

            fn from_json(value: Value) -> Option<String> {
                match value {
                    Value::String(text) => Some(text),
                    _ => None,
                }
            }

            fn parse(text: String) -> Result<Self, FieldErrors> {
                $parse(&text)
            }

            fn schema() -> Value {
                $schema
            }
        }
    };
}

text_member!(
    Title,
    Title::parse,
    json!({
        "type": "string", "minLength": 1, "maxLength": Self::MAX_CHARS, "pattern": NOT_BLANK,
    })
);
text_member!(
    Description,
    Description::parse,
    json!({
        "type": "string", "maxLength": Self::MAX_CHARS, "pattern": TEXT,
    })
);
text_member!(Priority, parse_priority, reference("Priority"));
text_member!(
    Email,
    Email::parse,
    json!({
        "type": "string", "maxLength": Self::MAX_CHARS, "pattern": EMAIL,
    })
);
text_member!(
    Name,
    Name::parse,
    json!({
        "type": "string", "minLength": Self::MIN_CHARS, "maxLength": Self::MAX_CHARS, "pattern": NAME,
    })
);
text_member!(
    Password,
    Password::parse,
    json!({
        "type": "string", "format": "password",
        "minLength": Self::MIN_CHARS, "maxLength": Self::MAX_CHARS,
        "pattern": PASSWORD,
        "description": "At least one upper-case and one lower-case letter and one digit",
    })
);

text_member!(
    TimeZone,
    TimeZone::parse,
    json!({
        "type": "string", "minLength": 1, "maxLength": Self::MAX_CHARS, "pattern": time_zones(),
        "description": "A name of the IANA time zone database; the case of its letters is ignored",
    })
);

/// The names of time zones, as an expression. An `enum` of them cannot be: generated clients turn
/// each value into an identifier, and `GMT+0` and `GMT-0` into the same.
fn time_zones() -> String {
    let names: Vec<_> = TimeZone::names().map(|name| name.replace('+', "\\+")).collect();
    format!("^({})$", names.join("|"))
}

text_member!(
    KeyName,
    KeyName::parse,
    json!({
        "type": "string", "minLength": 1, "maxLength": Self::MAX_CHARS, "pattern": KEY_NAME,
    })
);

impl Member for Scopes {
    type Shape = Vec<String>;
    const TYPE: &'static str = "an array of strings";

    fn from_json(value: Value) -> Option<Vec<String>> {
        serde_json::from_value(value).ok()
    }

    fn parse(words: Vec<String>) -> Result<Self, FieldErrors> {
        Self::parse(&words)
    }

    fn schema() -> Value {
        json!({ "type": "array", "minItems": 1, "items": reference("Scope") })
    }
}

impl Member for KeyLifetime {
    type Shape = i64;
    const TYPE: &'static str = "a whole number";

    fn from_json(value: Value) -> Option<i64> {
        // JSON does not distinguish 30 and 30.0. Of numbers out of range, any stands for all.
        let whole = value.as_f64().filter(|number| number.fract() == 0.0)?;
        let is_it = |days: &u16| (f64::from(*days) - whole).abs() < 0.5;
        Some((1..=Self::MAX_DAYS).find(is_it).map_or(0, i64::from))
    }

    fn parse(days: i64) -> Result<Self, FieldErrors> {
        Ok(Self::days(days)?)
    }

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 1, "maximum": Self::MAX_DAYS })
    }
}

impl Member for Tags {
    type Shape = Vec<String>;
    const TYPE: &'static str = "an array of strings";

    fn from_json(value: Value) -> Option<Vec<String>> {
        serde_json::from_value(value).ok()
    }

    fn parse(tags: Vec<String>) -> Result<Self, FieldErrors> {
        Self::parse(tags)
    }

    fn schema() -> Value {
        tags(Self::MAX)
    }
}

/// An array of tags.
pub(crate) fn tags(max: usize) -> Value {
    json!({ "type": "array", "maxItems": max, "items": Tag::schema() })
}

impl Member for Due {
    /// Date, time and time zone.
    type Shape = (String, Option<String>, Option<String>);
    const TYPE: &'static str = "an object with the string date, and perhaps time and time_zone";

    fn from_json(value: Value) -> Option<Self::Shape> {
        let Value::Object(mut members) = value else { return None };
        let mut text = |name| match members.remove(name) {
            None | Some(Value::Null) => Some(None),
            Some(Value::String(text)) => Some(Some(text)),
            Some(_) => None,
        };
        Some((text("date")??, text("time")?, text("time_zone")?))
    }

    fn parse((date, time, time_zone): Self::Shape) -> Result<Self, FieldErrors> {
        Self::parse(&date, time.as_deref(), time_zone.as_deref())
    }

    fn schema() -> Value {
        reference("DueInput")
    }
}

impl Member for Recurrence {
    /// Rule and base.
    type Shape = (String, Option<String>);
    const TYPE: &'static str = "an object with the string rule, and perhaps from";

    fn from_json(value: Value) -> Option<Self::Shape> {
        let Value::Object(mut members) = value else { return None };
        let mut text = |name| match members.remove(name) {
            None | Some(Value::Null) => Some(None),
            Some(Value::String(text)) => Some(Some(text)),
            Some(_) => None,
        };
        Some((text("rule")??, text("from")?))
    }

    fn parse((rule, from): Self::Shape) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::none();
        let rule = Rule::parse(&rule).map_err(|errors| errors.below("recurrence"));
        let rule = errors.collect(rule);
        let from = from.map_or(Ok(RecurrenceBase::default()), |from| RecurrenceBase::parse(&from));
        let from = errors.collect(from.map_err(|error| error.below("recurrence")));
        match (rule, from) {
            (Some(rule), Some(from)) => Ok(Self::new(rule).from(from)),
            _ => Err(errors),
        }
    }

    fn schema() -> Value {
        reference("RecurrenceInput")
    }
}

impl Member for Reminders {
    type Shape = Vec<i64>;
    const TYPE: &'static str = "an array of objects with the whole number minutes_before";

    fn from_json(value: Value) -> Option<Vec<i64>> {
        let Value::Array(items) = value else { return None };
        // JSON does not distinguish 30 and 30.0. Of numbers out of range, any stands for all.
        let minutes = |item: &Value| {
            let whole = item.get("minutes_before")?.as_f64().filter(|n| n.fract() == 0.0)?;
            Some(format!("{whole:.0}").parse().unwrap_or(-1))
        };
        items.iter().map(minutes).collect()
    }

    fn parse(minutes: Vec<i64>) -> Result<Self, FieldErrors> {
        Self::parse(minutes)
    }

    fn schema() -> Value {
        let minutes = json!({ "type": "integer", "minimum": 0, "maximum": Reminder::MAX_MINUTES });
        json!({
            "type": "array", "maxItems": Self::MAX,
            "items": object(&["minutes_before"], &json!({ "minutes_before": minutes })),
        })
    }
}

text_member!(
    Tag,
    Tag::parse,
    json!({
        "type": "string", "format": "tag", "minLength": 1, "maxLength": Self::MAX_CHARS,
        "pattern": TAG,
    })
);

text_member!(
    ListName,
    ListName::parse,
    json!({
        "type": "string", "minLength": 1, "maxLength": Self::MAX_CHARS, "pattern": KEY_NAME,
    })
);

text_member!(ListColor, ListColor::parse, json!({ "type": "string", "pattern": COLOR }));

text_member!(TodoId, parse_after, json!({ "type": "string", "format": "uuid", "pattern": UUID }));

/// The id of another todo.
fn parse_after(text: &str) -> Result<TodoId, FieldErrors> {
    let error = || FieldError::new("after", "invalid", "After must be a UUID.").into();
    parse_id(text).map(TodoId::from).ok_or_else(error)
}

impl Member for ListId {
    type Shape = String;
    const TYPE: &'static str = "a string";

    fn from_json(value: Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    fn parse(text: String) -> Result<Self, FieldErrors> {
        let error = || FieldError::new("list_id", "invalid", "List id must be a UUID.").into();
        parse_id(&text).map(Self::from).ok_or_else(error)
    }

    fn schema() -> Value {
        json!({ "type": "string", "format": "uuid", "pattern": UUID })
    }
}

fn parse_priority(text: &str) -> Result<Priority, FieldErrors> {
    Ok(Priority::parse(text)?)
}

/// The password of a login, which need not meet the rules for a new one.
pub(crate) struct LoginPassword(pub(crate) Password);

impl LoginPassword {
    fn parse(text: &str) -> Result<Self, FieldErrors> {
        Ok(Self(Password::unchecked(text)?))
    }
}

text_member!(
    LoginPassword,
    Self::parse,
    json!({
        "type": "string", "format": "password", "pattern": TEXT,
    })
);

/// `whsec_` and the base64 of 24 to 64 bytes.
#[cfg(feature = "webhook")]
const WHSEC: &str = "^whsec_(?:(?:[A-Za-z0-9+/]{4}){8,20}\
    (?:[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)?\
    |(?:[A-Za-z0-9+/]{4}){21}(?:[A-Za-z0-9+/][AQgw]==)?)$";

#[cfg(feature = "webhook")]
text_member!(
    WebhookUrl,
    WebhookUrl::parse,
    json!({
        "type": "string", "format": "uri", "maxLength": Self::MAX_CHARS, "pattern": "^[hH][tT][tT][pP][sS]:",
    })
);

#[cfg(feature = "webhook")]
text_member!(
    WebhookSecret,
    WebhookSecret::parse,
    json!({
        "type": "string", "pattern": WHSEC,
        "description": "`whsec_` and the base64 of 24 to 64 bytes; without it, one is generated",
    })
);

/// The token of a mailed link. Any text is one: an invalid token is an invalid link.
pub(crate) struct LinkToken(pub(crate) String);

impl LinkToken {
    #[expect(clippy::unnecessary_wraps, reason = "as the other values")]
    fn parse(text: &str) -> Result<Self, FieldErrors> {
        Ok(Self(text.to_owned()))
    }
}

text_member!(
    LinkToken,
    Self::parse,
    json!({
        "type": "string", "pattern": LINK_TOKEN,
        "description": "The part of the link after `#token=`",
    })
);

/// The token of another issuer. Any text is one: a token that is none is an invalid identity.
#[cfg(feature = "identity")]
pub(crate) struct IdentityToken(pub(crate) String);

#[cfg(feature = "identity")]
impl IdentityToken {
    #[expect(clippy::unnecessary_wraps, reason = "as the other values")]
    fn parse(text: &str) -> Result<Self, FieldErrors> {
        Ok(Self(text.to_owned()))
    }
}

#[cfg(feature = "identity")]
text_member!(
    IdentityToken,
    Self::parse,
    json!({ "type": "string", "pattern": TEXT, "description": "A JWT of the issuer." })
);

/// A text of a sign-in, such as its code. Any text is one; the operation checks it.
#[cfg(feature = "identity")]
pub(crate) struct GrantText(pub(crate) String);

#[cfg(feature = "identity")]
impl GrantText {
    #[expect(clippy::unnecessary_wraps, reason = "as the other values")]
    fn parse(text: &str) -> Result<Self, FieldErrors> {
        Ok(Self(text.to_owned()))
    }
}

#[cfg(feature = "identity")]
text_member!(
    GrantText,
    Self::parse,
    json!({ "type": "string", "pattern": TEXT, "description": "A text of a sign-in." })
);

/// The schema of an object.
pub(crate) fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// A reference to a schema of the document.
pub(crate) fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// A schema with a default value. A reference can have no other members in OpenAPI 3.0's tools, so
/// it is wrapped.
pub(crate) fn with_default(schema: Value, default: &impl serde::Serialize) -> Value {
    let mut schema =
        if schema.get("$ref").is_some() { json!({ "allOf": [schema] }) } else { schema };
    schema["default"] = json!(default);
    schema
}

/// A schema that also accepts null.
pub(crate) fn or_null(mut schema: Value) -> Value {
    if schema.get("type").is_none() {
        return json!({ "anyOf": [schema, { "type": "null" }] });
    }
    schema["type"] = json!([schema["type"], "null"]);
    schema
}
