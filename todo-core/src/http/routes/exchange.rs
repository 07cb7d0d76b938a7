//! `/users/{user_id}/export` and `/users/{user_id}/import`: todos in files.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, future::ready, stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    auth::Caller,
    error::{Error, FieldError, FieldErrors, Quota},
    http::{
        Body,
        budget::Reservation,
        endpoint::{
            AnswerDocs, BodyDocs, BodyForm, BodyLimit, Docs, Endpoint, ErrorDocs, Handler,
            HandlerResult, HeaderDocs, KeyAccess, Policy, QueryParameter, RequestContext, Schema,
            Statements, Tag,
        },
        extract::Query,
        idempotency,
        list::CHUNKED_LIST_BYTES,
        problem::ApiError,
        respond,
        routes::{
            docs::{
                self, BODY_TIMEOUT, INTERNAL, OTHER_USER, TIMEOUT, TOO_LARGE, UNAUTHORIZED,
                UNAVAILABLE, field,
            },
            todos::KEY,
        },
        schema::object,
    },
    request_id,
    scopes::Scope,
    time_zone::TimeZone,
    todos::{
        self, Export, ExportFormat, ExportOptions, ImportFormat, ImportOptions, MAX_IMPORT_BYTES,
    },
    validate,
};

/// The time for reading a file and creating 5,000 todos.
const IMPORT_DEADLINE: Duration = Duration::from_mins(1);
/// What a file takes while it is read, as a multiple of its size: its todos, and the statements of
/// one piece.
const FILE_FACTOR: usize = 4;
/// The media types of files, beside application/json.
const FILE_TYPES: &[&str] =
    &["text/csv", "text/plain", "text/calendar", "application/octet-stream"];

const INVALID_FORMAT: ErrorDocs = docs::invalid(|_| {
    let message = "Format must be json, csv, todotxt or ics.";
    ApiError::Core(Error::Invalid(field("format", "invalid", message)))
});
const INVALID_FILE: ErrorDocs = ErrorDocs {
    description: "Todos of the file are invalid, and none was created; `details` has the first 100 \
        errors, each with its `line`. Or a parameter is invalid",
    example: |_| {
        let message = "Title cannot be empty.";
        let error = FieldError::new("todos/2/title", "blank", message).on_line(4);
        ApiError::Core(Error::FileInvalid { invalid: 1, errors: error.into() })
    },
};
const QUOTA_EXCEEDED: ErrorDocs = ErrorDocs {
    description: "The user would have more todos, tags or lists than allowed; or a request with \
        the same `Idempotency-Key` is still running; or the answers of the user's keys exceed \
        32 MiB",
    example: |_| {
        ApiError::Core(Error::QuotaExceeded { of: Quota::Todos, limit: 50_000, used: 49_998 })
    },
};
const FILE_TYPE: ErrorDocs = ErrorDocs {
    description: "The media type is not one of the format",
    example: |_| ApiError::WrongFileType,
};
const KEY_REUSED: ErrorDocs = ErrorDocs {
    description: "The `Idempotency-Key` was used for another request",
    example: |_| ApiError::Core(Error::KeyReused),
};

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint::of_api(
        Method::GET,
        "/users/{user_id}/export",
        Policy { body: BodyForm::Stream, ..Policy::DEFAULT },
        // The lists, a page of todos and one that is empty with its count, what the page has
        // beside its todos; the same of the trash.
        Statements::new(9, 2),
        Handler::Owner(KeyAccess::With(Scope::TodosRead), |request, caller| {
            Box::pin(export(request, caller))
        }),
        Docs {
            operation_id: "exportTodos",
            summary: "Export all todos",
            description: "Returns all todos of the user as a file, in the order of their creation. \
                It is sent in chunks and is no snapshot: a todo that exists throughout is there \
                once, as it was when it was read. A response that was cut off has no end. The \
                formats are described in docs/import.md.",
            tag: Tag::Todos,
            query: Some(export_parameters),
            headers: &[],
            body: None,
            answers: &[AnswerDocs {
                status: 200,
                description: "The file: JSON, or with another `format` text/csv, text/plain or \
                    text/calendar",
                media_type: "application/json",
                schema: Schema::Named("TodoFile"),
                example: None,
                headers: &[HeaderDocs::ContentDisposition],
            }],
            errors: &[INVALID_FORMAT, UNAUTHORIZED, OTHER_USER, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
    Endpoint::of_api(
        Method::POST,
        "/users/{user_id}/import",
        // It makes its own reservation.
        Policy {
            request_body: BodyLimit::AtLeast(MAX_IMPORT_BYTES),
            deadline: Some(IMPORT_DEADLINE),
            ..Policy::DEFAULT
        },
        // What the user has, twice if lists are created; BEGIN, a lock, these, COMMIT; BEGIN, a
        // lock, the todos, COMMIT for each 500 todos, and for those with reminders two more. With a
        // key also its look-up and that of its pieces, and four statements more in the transaction.
        Statements::new(18, 14),
        Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
            Box::pin(import(request, caller))
        }),
        Docs {
            operation_id: "importTodos",
            summary: "Import todos from a file",
            description: "Creates the todos of a file of up to 2 MiB and 5,000 todos, in the order \
                of the file. If one is invalid, none is created, unless `skip_invalid` is true. \
                Todos are created in pieces of up to 500; with an `Idempotency-Key`, a repetition \
                of an interrupted request creates the pieces that are missing. The formats are \
                described in docs/import.md.",
            tag: Tag::Todos,
            query: Some(import_parameters),
            headers: KEY,
            body: Some(BodyDocs {
                schema: "ImportFile",
                json_schema: file_schema,
                example: || {
                    json!({ "todos": [
                        { "title": "Buy milk", "list": "Home", "tags": ["errand"] },
                        { "title": "Pay rent", "due": { "date": "2026-12-01" } },
                    ] })
                },
                files: FILE_TYPES,
            }),
            answers: &[AnswerDocs {
                headers: &[HeaderDocs::Replayed],
                ..AnswerDocs::json(200, "What was created", "ImportReport", None)
            }],
            errors: &[
                INVALID_FILE,
                UNAUTHORIZED,
                OTHER_USER,
                BODY_TIMEOUT,
                QUOTA_EXCEEDED,
                TOO_LARGE,
                FILE_TYPE,
                KEY_REUSED,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
];

fn file_schema() -> Value {
    let todos = json!({
        "type": "array",
        "description": "The todos. Files of Microsoft To Do and of Google Tasks have other members",
        "items": { "type": "object" },
    });
    object(&["todos"], &json!({ "todos": todos }))
}

fn words(values: impl Iterator<Item = &'static str>) -> Value {
    json!({ "type": "string", "enum": values.collect::<Vec<_>>() })
}

fn flag_parameter(name: &'static str, description: &'static str) -> QueryParameter {
    let schema = json!({ "type": "boolean", "default": false });
    QueryParameter { name, is_required: false, schema, description }
}

fn export_parameters() -> Vec<QueryParameter> {
    let mut schema = words(ExportFormat::ALL.iter().map(|format| format.as_str()));
    schema["default"] = json!(ExportFormat::default());
    vec![
        QueryParameter {
            name: "format",
            is_required: false,
            schema,
            description: "The format of the file",
        },
        flag_parameter("trash", "Whether the file has the trash, with the format `json` only"),
    ]
}

fn import_parameters() -> Vec<QueryParameter> {
    vec![
        QueryParameter {
            name: "format",
            is_required: true,
            schema: words(ImportFormat::ALL.iter().map(|format| format.as_str())),
            description: "The format of the file",
        },
        flag_parameter("dry_run", "Whether the file is only checked"),
        flag_parameter(
            "skip_invalid",
            "Whether the valid todos are created although others are not",
        ),
        QueryParameter {
            name: "time_zone",
            is_required: false,
            schema: json!({ "type": "string", "default": "UTC" }),
            description: "The time zone of times that have none in the file",
        },
    ]
}

fn parse_flag(name: &'static str, value: &str) -> Result<bool, FieldError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => {
            let label = validate::FieldLabel(name);
            Err(FieldError::new(name, "invalid", format!("{label} must be true or false.")))
        }
    }
}

async fn export(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let query = Query::parse(&request.parts.uri);
    let mut errors = FieldErrors::none();
    let format = query.read("format", &mut errors, ExportFormat::parse);
    let trash = query.read("trash", &mut errors, |value| parse_flag("trash", value));
    let options = ExportOptions::new(format).trash(trash);
    let options = errors.into_result(|| options).map_err(Error::from)?;
    let budget = request.api.budget();
    let held = budget.reserve_or_wait(request.payer, CHUNKED_LIST_BYTES).await;
    let held = held.ok_or(ApiError::BodyMemory)?;
    let mut export = todos::export(request.api.core(), &caller, options).await?;
    // The first todos are read here, so that an error is known before the head is sent.
    let mut first = Vec::new();
    for _ in 0..2 {
        first.extend(export.next().await?);
    }
    let (media_type, disposition) = match format {
        ExportFormat::Json => ("application/json", "attachment; filename=\"todos.json\""),
        ExportFormat::Csv => {
            ("text/csv; charset=utf-8; header=present", "attachment; filename=\"todos.csv\"")
        }
        ExportFormat::Todotxt => ("text/plain; charset=utf-8", "attachment; filename=\"todo.txt\""),
        ExportFormat::Ics => ("text/calendar; charset=utf-8", "attachment; filename=\"todos.ics\""),
    };
    let body = Body::stream(chunks(first.concat(), export, Arc::new(held)));
    let mut response = respond::personal(StatusCode::OK, body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    Ok(response)
}

/// The pieces that were read, and then the rest of an export.
fn chunks(
    first: Vec<u8>,
    export: Export,
    held: Arc<Reservation>,
) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    let id = request_id::current();
    let begin = held.attach_to(first);
    let rest = stream::try_unfold((export, held), move |(mut export, held)| {
        let id = id.clone();
        async move {
            // The database may return pages without a pause: other tasks must run in between.
            tokio::task::yield_now().await;
            let next = match id {
                Some(id) => request_id::scope(id, export.next()).await?,
                None => export.next().await?,
            };
            Ok(next.map(|piece| (held.attach_to(piece), (export, held))))
        }
    });
    stream::once(ready(Ok(begin))).chain(rest)
}

async fn import(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let query = Query::parse(&request.parts.uri);
    let mut errors = FieldErrors::none();
    let format = query.read("format", &mut errors, |format| ImportFormat::parse(format).map(Some));
    let dry_run = query.read("dry_run", &mut errors, |value| parse_flag("dry_run", value));
    let skip = query.read("skip_invalid", &mut errors, |value| parse_flag("skip_invalid", value));
    let zone = query.read("time_zone", &mut errors, |zone| {
        TimeZone::parse(zone).map(Some).map_err(|_| {
            let message = "Time zone must be a name of the IANA time zone database, for example \
                Europe/Berlin.";
            FieldError::new("time_zone", "invalid", message)
        })
    });
    if format.is_none() && !errors.iter().any(|error| error.field == "format") {
        errors.push(validate::missing("format"));
    }
    let format = errors.into_result(|| format).map_err(Error::from)?;
    let Some(format) = format else {
        return Err(Error::from(validate::missing("format")).into());
    };
    let key = idempotency::key(&request.parts.headers)?;
    let file = request.file(|headers| has_type_of(headers, format)).await?;
    let budget = request.api.budget();
    let held = budget.reserve_or_wait(request.payer, FILE_FACTOR * file.len()).await;
    let held = held.ok_or(ApiError::BodyMemory)?;
    let mut options = ImportOptions::new(format).dry_run(dry_run).skip_invalid(skip);
    options.time_zone = zone;
    options.key = key;
    let core = request.api.core();
    let (report, is_replay) = todos::import_or_replay(core, &caller, options, file.into()).await?;
    drop(held);
    let mut response = respond::personal(StatusCode::OK, Bytes::from(report));
    if is_replay {
        idempotency::mark_replayed(&mut response);
    }
    Ok(response)
}

/// Whether the media type is one of files of a format.
fn has_type_of(headers: &HeaderMap, format: ImportFormat) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return false };
    let Ok(value) = value.to_str() else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let own: &[&str] = match format {
        ImportFormat::Json | ImportFormat::Microsoft | ImportFormat::Google => {
            &["application/json"]
        }
        ImportFormat::Csv | ImportFormat::Todoist => &["text/csv", "text/plain"],
        ImportFormat::Todotxt => &["text/plain"],
        ImportFormat::Ics => &["text/calendar"],
    };
    own.contains(&essence.as_str()) || essence == "application/octet-stream"
}
