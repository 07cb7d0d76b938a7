use std::time::Duration;

use super::*;
use crate::{
    auth::{Email, Name, Password},
    error::BoxError,
    error::{FieldErrors, Quota},
    http::schema::responses::{example_list, example_todo},
    todos::{Description, Limit, ListColor, ListName, Priority, SortBy, SortOrder, Status, Title},
};

#[test]
fn a_response_contains_no_cause() {
    let cause = || BoxError::new("SELECT secret FROM table at /var/lib/x");
    for failure in [
        ApiError::Core(Error::Internal(cause())),
        ApiError::Core(Error::Unavailable(cause())),
        ApiError::Panicked,
    ] {
        let response = failure.respond("id");
        assert!(response.status().is_server_error());
        let body = format!("{:?}", response.into_body());
        assert!(!body.contains("secret") && !body.contains("/var"), "{body}");
    }
}

#[test]
fn retry_after_is_a_whole_number_of_at_least_one_second() {
    for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
        assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
    }
}

#[test]
fn retry_after_and_the_detail_agree() {
    for millis in [0, 1000, 1001, 58_001, 59_999, 60_000] {
        let retry_after = Duration::from_millis(millis);
        let failure = ApiError::Core(Error::RateLimited { retry_after });
        let header = failure.retry_after().unwrap();
        let detail = failure.detail();
        let number = detail.split(' ').find(|word| word.parse::<u64>().is_ok());
        assert_eq!(number, header.to_str().ok(), "{detail}");
    }
}

fn items_failed(reason: ItemError) -> Error {
    let items = match &reason {
        ItemError::Invalid(errors) => errors.clone(),
        other => FieldError::new("delete/7", other.code(), other.message()).into(),
    };
    Error::ItemsFailed { reason, items }
}

/// One of each variant; a new one does not compile until it is here.
#[expect(clippy::too_many_lines, reason = "one entry for each variant")]
fn every_failure() -> Vec<ApiError> {
    let cause = || BoxError::new("SELECT secret FROM table");
    let retry_after = Duration::from_secs(42);
    let errors = [
        Error::Invalid(every_field_error()),
        Error::Unauthenticated,
        Error::InvalidCredentials,
        Error::Forbidden,
        Error::NotFound,
        Error::PreconditionFailed,
        Error::CursorExpired,
        Error::KeyReused,
        Error::KeyInUse,
        Error::QuotaExceeded { of: Quota::Todos, limit: 2, used: 3 },
        Error::KeysFull { limit: 2, used: 3 },
        items_failed(ItemError::Invalid(every_field_error())),
        items_failed(ItemError::Forbidden),
        items_failed(ItemError::NotFound),
        items_failed(ItemError::QuotaExceeded { of: Quota::Todos, limit: 2, used: 3 }),
        Error::FileInvalid { invalid: 2, errors: every_field_error() },
        Error::TooManyStreams { limit: 5 },
        Error::InsufficientScope { required: Some(Scope::TodosWrite) },
        Error::InsufficientScope { required: None },
        Error::TooManyKeys { limit: 20 },
        Error::ReauthenticationRequired,
        Error::IdentityTaken,
        Error::LastCredential,
        Error::InvalidGrant,
        Error::EmailTaken,
        Error::InvalidLink,
        Error::EmailUnverified,
        Error::AlreadyVerified,
        Error::MailNotConfigured,
        Error::RateLimited { retry_after },
        Error::RateLimited { retry_after: Duration::from_secs(1) },
        Error::Busy,
        Error::Unavailable(cause()),
        Error::Internal(cause()),
    ];
    for error in &errors {
        match error {
            Error::Invalid(_)
            | Error::Unauthenticated
            | Error::InvalidCredentials
            | Error::Forbidden
            | Error::NotFound
            | Error::PreconditionFailed
            | Error::CursorExpired
            | Error::KeyReused
            | Error::KeyInUse
            | Error::QuotaExceeded { .. }
            | Error::KeysFull { .. }
            | Error::FileInvalid { .. }
            | Error::ItemsFailed { .. }
            | Error::TooManyStreams { .. }
            | Error::InsufficientScope { .. }
            | Error::TooManyKeys { .. }
            | Error::ReauthenticationRequired
            | Error::IdentityTaken
            | Error::LastCredential
            | Error::InvalidGrant
            | Error::EmailTaken
            | Error::InvalidLink
            | Error::EmailUnverified
            | Error::AlreadyVerified
            | Error::MailNotConfigured
            | Error::RateLimited { .. }
            | Error::Busy
            | Error::Unavailable(_)
            | Error::Internal(_) => {}
        }
    }
    let mut failures: Vec<ApiError> = errors.into_iter().map(ApiError::Core).collect();
    failures.extend([
        ApiError::Outdated(Box::new(example_todo())),
        ApiError::OutdatedList(Box::new(example_list())),
        ApiError::BadRequest("There must be a Host header."),
        ApiError::OriginNotAllowed,
        ApiError::UpgradeRequired,
        ApiError::WebSocketVersion,
        ApiError::UriTooLong,
        ApiError::HeadTooLarge,
        ApiError::MissingToken,
        ApiError::HttpsRequired,
        ApiError::OtherUser,
        ApiError::NoRoute,
        ApiError::WrongMethod(HeaderValue::from_static("GET, HEAD, OPTIONS")),
        ApiError::HeadTimeout,
        ApiError::BodyTimeout,
        ApiError::TooLarge(65_536),
        ApiError::BodyMemory,
        ApiError::UnsupportedMediaType,
        ApiError::WrongFileType,
        ApiError::Malformed("The request body is not valid JSON.", Vec::new()),
        ApiError::Malformed("", every_field_error().into()),
        ApiError::NoSuch("session"),
        ApiError::NotYours("list"),
        ApiError::Timeout,
        ApiError::Panicked,
    ]);
    for failure in &failures {
        match failure {
            ApiError::Core(_)
            | ApiError::Outdated(_)
            | ApiError::OutdatedList(_)
            | ApiError::NotYours(_)
            | ApiError::BadRequest(_)
            | ApiError::UriTooLong
            | ApiError::HeadTooLarge
            | ApiError::MissingToken
            | ApiError::HttpsRequired
            | ApiError::OtherUser
            | ApiError::OriginNotAllowed
            | ApiError::UpgradeRequired
            | ApiError::WebSocketVersion
            | ApiError::NoRoute
            | ApiError::WrongMethod(_)
            | ApiError::HeadTimeout
            | ApiError::BodyTimeout
            | ApiError::TooLarge(_)
            | ApiError::BodyMemory
            | ApiError::UnsupportedMediaType
            | ApiError::WrongFileType
            | ApiError::NoSuch(_)
            | ApiError::Malformed(..)
            | ApiError::Timeout
            | ApiError::Panicked => {}
        }
    }
    failures
}

/// Field errors of every value type of the API, from invalid inputs.
fn every_field_error() -> FieldErrors {
    let mut errors = FieldErrors::none();
    for text in ["", "x", "\0", "\u{7}x", &"x".repeat(2000)] {
        errors.collect(Email::parse(text));
        errors.collect(Name::parse(text));
        errors.collect(Password::parse(text));
        errors.collect(Password::unchecked(text));
        errors.collect(Title::parse(text));
        errors.collect(Description::parse(text));
        errors.collect(Priority::parse(text));
        errors.collect(Status::parse(text));
        errors.collect(SortBy::parse(text));
        errors.collect(SortOrder::parse(text));
        errors.collect(Limit::parse(text));
        errors.collect(ListName::parse(text));
        errors.collect(ListColor::parse(text));
    }
    errors
}

/// A Rust program and a client of the API get the same codes.
#[test]
fn the_core_and_the_api_have_the_same_codes() {
    for failure in every_failure() {
        if let ApiError::Core(error) = &failure {
            assert_eq!(error.code(), failure.kind().code);
            assert_eq!(error.is_retryable(), failure.retry_after().is_some(), "{error}");
        }
    }
}

/// Clients show these to users unchanged.
#[test]
fn every_message_is_a_whole_sentence() {
    fn check(text: &str) {
        assert!(text.starts_with(|c: char| c.is_ascii_uppercase()), "{text:?}");
        assert!(text.ends_with('.') && !text.ends_with(".."), "{text:?}");
        assert!(!text.contains("  ") && !text.contains(".;"), "{text:?}");
        for word in text.split(' ').filter(|word| word.ends_with(':')) {
            assert_eq!(word, "only:", "a field name in front of its message: {text:?}");
        }
    }
    for failure in every_failure() {
        check(&failure.detail());
        let body: serde_json::Value = serde_json::from_slice(&failure.body("id")).unwrap();
        assert_eq!(body["detail"], failure.detail());
        assert_eq!(
            body.get("details").is_some(),
            body["detail"] == sentences(&every_field_error())
                || matches!(failure, ApiError::Core(Error::ItemsFailed { .. }))
        );
        for detail in body["details"].as_array().into_iter().flatten() {
            check(detail["message"].as_str().unwrap());
            let field = detail["field"].as_str().unwrap();
            assert_eq!(detail["pointer"], format!("/{field}"));
            let code = detail["code"].as_str().unwrap();
            assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{code}");
        }
    }
}
