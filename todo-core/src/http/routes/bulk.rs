//! `/users/{user_id}/todos/bulk`: many of a user's todos at once.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    auth::Caller,
    error::{Error, FieldError, FieldErrors, ItemError, Quota},
    http::{
        endpoint::{
            AnswerDocs, BodyDocs, BodyLimit, Docs, Endpoint, ErrorDocs, Handler, HandlerResult,
            HeaderDocs, KeyAccess, Policy, RequestContext, Statements, Tag,
        },
        extract::{Form, JsonBody},
        idempotency,
        matcher::parse_id,
        problem::ApiError,
        respond,
        routes::{
            docs::{
                self, BODY_TIMEOUT, INTERNAL, MEDIA_TYPE, OTHER_USER, TIMEOUT, TOO_LARGE,
                UNAUTHORIZED, UNAVAILABLE,
            },
            todos::{KEY, NewTodoBody, PatchTodoBody},
        },
        schema::{UUID, object, reference, with_default},
    },
    scopes::Scope,
    todos::{self, Bulk, BulkRequest, NewTodo, TodoId, TodoPatch, number_error},
};

/// Maximum size of the request body in bytes: 500 todos with the longest texts in ASCII have
/// 650 KB.
const MAX_BODY: usize = 2 << 20;
/// Bytes of the response that are reserved for each item before it is changed. The longest todo in
/// ASCII has 1.6 KB.
const ITEM_BYTES: usize = 1600;
/// The members of which a request has one.
const KINDS: [&str; 5] = ["create", "patch", "complete", "delete", "restore"];
const NOT_ONE_KIND: &str =
    "The request body must have one of create, patch, complete, delete and restore.";

const INVALID_ITEM: ErrorDocs = docs::invalid(|_| {
    let message = "Title cannot be empty.";
    ApiError::Core(Error::Invalid(FieldError::new("create/3/title", "blank", message).into()))
});
const NOT_FOUND: ErrorDocs = ErrorDocs {
    description: "The first todo that failed does not exist, or is not in the trash. `details` has \
        all that failed; nothing was changed",
    example: |_| ApiError::Core(items_failed("delete/7", ItemError::NotFound)),
};
const QUOTA_EXCEEDED: ErrorDocs = ErrorDocs {
    description: "The user would have more than `MAX_TODOS_PER_USER` todos; or a request with the \
        same `Idempotency-Key` is still running; or the answers of the user's keys exceed 32 MiB",
    example: |_| {
        let reason = ItemError::QuotaExceeded { of: Quota::Todos, limit: 50_000, used: 49_998 };
        ApiError::Core(items_failed("create/2", reason))
    },
};
const MALFORMED_OR_KEY_REUSED: ErrorDocs = ErrorDocs {
    description: "The body is not JSON of the request's shape, or the `Idempotency-Key` was used \
        for another request",
    example: |_| ApiError::Malformed(NOT_ONE_KIND, Vec::new()),
};

fn items_failed(field: &'static str, reason: ItemError) -> Error {
    let items = FieldError::new(field, reason.code(), reason.message()).into();
    Error::ItemsFailed { reason, items }
}

pub(crate) static ENDPOINTS: &[Endpoint] = &[Endpoint::of_api(
    Method::POST,
    "/users/{user_id}/todos/bulk",
    // It makes its own reservation.
    Policy { request_body: BodyLimit::AtLeast(MAX_BODY), ..Policy::DEFAULT },
    // BEGIN, the search for the items, the change, COMMIT; with a key also its look-up, the
    // deletion of an expired one, and the answer. Of a failure: a look-up at last.
    Statements::new(7, 6),
    Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
        Box::pin(bulk(request, caller))
    }),
    Docs {
        operation_id: "bulkTodos",
        summary: "Change many todos",
        description: "Creates, updates, completes, deletes or restores 1 to 500 todos in one \
            transaction. Unless `partial` is true, all items take effect or none, and an error has \
            the pointer of each item that failed in `details`. The `ids` of `patch` are beside it. \
            An id that is there twice is a 400.",
        tag: Tag::Todos,
        query: None,
        headers: KEY,
        body: Some(BodyDocs::of::<BulkBody>(
            || json!({ "create": [{ "title": "Buy milk" }, { "title": "Buy bread" }] }),
        )),
        answers: &[AnswerDocs {
            headers: &[HeaderDocs::Replayed],
            ..AnswerDocs::json(200, "The result of each item", "BulkResults", None)
        }],
        errors: &[
            INVALID_ITEM,
            UNAUTHORIZED,
            OTHER_USER,
            NOT_FOUND,
            BODY_TIMEOUT,
            QUOTA_EXCEEDED,
            TOO_LARGE,
            MEDIA_TYPE,
            MALFORMED_OR_KEY_REUSED,
            INTERNAL,
            UNAVAILABLE,
            TIMEOUT,
        ],
    },
)];

async fn bulk(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    // The values are about as large as the body.
    let (BulkBody(bulk), body) = request.large_json().await?;
    let key = idempotency::key(&request.parts.headers)?;
    // Before anything is changed: afterwards the response has to be sent.
    let expected = bulk.item_count() * ITEM_BYTES;
    let held = request.api.budget().charge_or_wait(request.payer, expected).await;
    let held = held.map_err(|_exhausted| ApiError::BodyMemory)?;
    let (answer, is_replay) = todos::bulk_as_json(request.api.core(), &caller, key, bulk).await?;
    drop(body);
    let mut answer = Bytes::from(answer);
    if let Some(mut held) = held {
        held.resize(answer.len());
        answer = Arc::new(held).attach_to(answer);
    }
    let mut response = respond::personal(StatusCode::OK, answer);
    if is_replay {
        idempotency::mark_replayed(&mut response);
    }
    Ok(response)
}

/// The body of a bulk.
struct BulkBody(BulkRequest);

/// The items of a request while they are read, and the errors of all.
#[derive(Default)]
struct Reader {
    malformed: Vec<FieldError>,
    /// Items with invalid values, with their indexes.
    rejected: Vec<(usize, FieldErrors)>,
    invalid: Vec<FieldErrors>,
}

impl Reader {
    /// Collects the errors of a body, whose names are below `parent`. Errors of values are
    /// returned.
    fn read<B: JsonBody>(&mut self, form: Form, parent: &str) -> Result<B, Option<FieldErrors>> {
        B::read(form).map_err(|error| match error {
            ApiError::Malformed(_, errors) => {
                self.malformed.extend(errors.into_iter().map(|error| error.below(parent)));
                None
            }
            ApiError::Core(Error::Invalid(errors)) => Some(errors.below(parent)),
            _ => None,
        })
    }

    fn new_todos(&mut self, items: Vec<Value>) -> Vec<NewTodo> {
        let mut todos = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let name = format!("create/{index}");
            let Value::Object(members) = item else {
                let message = "An item must be an object.";
                self.malformed.push(FieldError::new(name, "wrong_type", message));
                continue;
            };
            match self.read::<NewTodoBody>(Form::of(members), &name) {
                Ok(body) => todos.push(body.into()),
                Err(Some(errors)) => self.rejected.push((index, errors)),
                Err(None) => {}
            }
        }
        todos
    }

    fn ids(&mut self, name: &'static str, items: &[Value]) -> Vec<TodoId> {
        let mut ids = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let error = |code, message| FieldError::new(format!("{name}/{index}"), code, message);
            match item.as_str().map(parse_id) {
                Some(Some(id)) => ids.push(id.into()),
                Some(None) => {
                    let errors = error("invalid", "An id must be a UUID.").into();
                    self.rejected.push((index, errors));
                }
                None => self.malformed.push(error("wrong_type", "An id must be a string.")),
            }
        }
        ids
    }

    fn patch(&mut self, form: Option<Form>) -> TodoPatch {
        let Some(form) = form else { return TodoPatch::new() };
        match self.read::<PatchTodoBody>(form, "patch") {
            Ok(body) => body.into(),
            Err(errors) => {
                self.invalid.extend(errors);
                TodoPatch::new()
            }
        }
    }

    /// The request. Errors of shape come first, then those of values. The items with invalid values
    /// fail for themselves if the request is partial.
    fn finish(mut self, bulk: Bulk, is_partial: bool) -> Result<BulkRequest, ApiError> {
        if !self.malformed.is_empty() {
            return Err(ApiError::Malformed("", self.malformed));
        }
        let rejected = std::mem::take(&mut self.rejected);
        let mut errors = FieldErrors::none();
        for each in self.invalid {
            errors.extend(each);
        }
        if !is_partial {
            for (_, each) in &rejected {
                errors.extend(each.clone());
            }
        }
        let request = errors.collect(BulkRequest::with_rejected(bulk, rejected));
        match request {
            Some(request) if errors.is_empty() => Ok(request.partial(is_partial)),
            _ => Err(Error::from(errors).into()),
        }
    }
}

impl JsonBody for BulkBody {
    const SCHEMA: &'static str = "BulkRequest";

    fn read(mut form: Form) -> Result<Self, ApiError> {
        let given: Vec<&'static str> = KINDS.into_iter().filter(|kind| form.has(kind)).collect();
        let [kind] = given[..] else {
            return Err(ApiError::Malformed(NOT_ONE_KIND, Vec::new()));
        };
        let items_name = if kind == "patch" { "ids" } else { kind };
        let items = form.array(items_name).unwrap_or_default();
        let patch = if kind == "patch" { form.object("patch") } else { None };
        let completed = if kind == "complete" { form.required::<bool>("completed") } else { None };
        let is_partial = form.optional::<bool>("partial").unwrap_or_default();
        form.finish()?;
        if !(1..=BulkRequest::MAX_ITEMS).contains(&items.len()) {
            return Err(Error::from(number_error(items_name)).into());
        }
        let mut reader = Reader::default();
        let bulk = match kind {
            "create" => Bulk::Create(reader.new_todos(items)),
            "patch" => {
                let ids = reader.ids(items_name, &items);
                Bulk::Patch { ids, patch: reader.patch(patch) }
            }
            "complete" => Bulk::Complete {
                ids: reader.ids(items_name, &items),
                completed: completed.unwrap_or_default(),
            },
            "delete" => Bulk::Delete(reader.ids(items_name, &items)),
            _ => Bulk::Restore(reader.ids(items_name, &items)),
        };
        reader.finish(bulk, is_partial).map(Self)
    }

    fn schema() -> Value {
        let items = |items: Value| {
            json!({
                "type": "array", "minItems": 1, "maxItems": BulkRequest::MAX_ITEMS, "items": items,
            })
        };
        let ids = || items(json!({ "type": "string", "format": "uuid", "pattern": UUID }));
        let partial = || {
            let mut partial = with_default(json!({ "type": "boolean" }), &false);
            partial["description"] =
                json!("Whether each item takes effect or fails for itself, with its own status");
            partial
        };
        let kind = |required: &[&str], mut members: Value| {
            members["partial"] = partial();
            object(required, &members)
        };
        json!({
            "oneOf": [
                kind(&["create"], json!({ "create": items(reference("NewTodo")) })),
                kind(&["patch", "ids"], json!({ "patch": reference("PatchTodo"), "ids": ids() })),
                kind(
                    &["complete", "completed"],
                    json!({ "complete": ids(), "completed": { "type": "boolean" } }),
                ),
                kind(&["delete"], json!({ "delete": ids() })),
                kind(&["restore"], json!({ "restore": ids() })),
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(body: &Value) -> (&'static str, Vec<(String, &'static str)>) {
        let form = Form::parse(body.to_string().as_bytes()).unwrap();
        let (kind, errors): (_, Vec<FieldError>) = match BulkBody::read(form) {
            Ok(_) => ("none", Vec::new()),
            Err(ApiError::Malformed(_, errors)) => ("malformed", errors),
            Err(ApiError::Core(Error::Invalid(errors))) => ("invalid", errors.into()),
            Err(other) => panic!("{other:?}"),
        };
        (kind, errors.into_iter().map(|error| (error.field.into_owned(), error.code)).collect())
    }

    const ID: &str = "01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b11";

    #[test]
    fn all_errors_have_their_pointers_and_those_of_shape_come_first() {
        let expect = |body: Value, kind: &'static str, fields: &[(&str, &'static str)]| {
            let fields: Vec<_> = fields.iter().map(|(f, code)| ((*f).to_owned(), *code)).collect();
            assert_eq!(errors(&body), (kind, fields), "{body}");
        };
        expect(json!({ "create": [{ "title": "a" }], "unknown": 1 }), "none", &[]);
        expect(json!({ "delete": [ID], "partial": true }), "none", &[]);
        expect(json!({ "patch": {}, "ids": [ID] }), "none", &[]);
        for bad in [json!({}), json!({ "create": [], "delete": [] }), json!({ "ids": [ID] })] {
            expect(bad, "malformed", &[]);
        }
        let body = json!({ "create": [{ "title": "" }, 1, {}, { "title": 2, "priority": null }] });
        expect(
            body,
            "malformed",
            &[
                ("create/1", "wrong_type"),
                ("create/2/title", "missing"),
                ("create/3/title", "wrong_type"),
                ("create/3/priority", "wrong_type"),
            ],
        );
        let body = json!({ "create": [{ "title": "" }, { "title": "b", "priority": "x" }] });
        expect(body, "invalid", &[("create/0/title", "blank"), ("create/1/priority", "invalid")]);
        expect(json!({ "delete": [1, ID] }), "malformed", &[("delete/0", "wrong_type")]);
        let body = json!({ "delete": [ID, "x", ID.to_uppercase()] });
        expect(body, "invalid", &[("delete/1", "invalid"), ("delete/2", "repeated")]);
        let body = json!({ "restore": [ID, "x", ID], "partial": true });
        expect(body, "invalid", &[("restore/2", "repeated")]);
        expect(json!({ "restore": ["x"], "partial": true }), "none", &[]);
        let body = json!({ "complete": {}, "partial": 1 });
        expect(
            body,
            "malformed",
            &[("complete", "wrong_type"), ("completed", "missing"), ("partial", "wrong_type")],
        );
        expect(
            json!({ "complete": [], "completed": true }),
            "invalid",
            &[("complete", "out_of_range")],
        );
        let body = json!({ "patch": { "title": null, "priority": "x" }, "ids": ["y"] });
        expect(
            body,
            "invalid",
            &[("patch/title", "null"), ("patch/priority", "invalid"), ("ids/0", "invalid")],
        );
        expect(json!({ "patch": { "title": 1 } }), "malformed", &[("ids", "missing")]);
        let body = json!({ "patch": { "title": 1 }, "ids": [ID] });
        expect(body, "malformed", &[("patch/title", "wrong_type")]);
        expect(
            json!({ "create": vec![json!({ "title": "a" }); 501] }),
            "invalid",
            &[("create", "out_of_range")],
        );
    }
}
