//! The document describes every route with its parameters, responses and examples, and the written
//! contract names them too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use serde_json::{Value, json};
use todo_core::http::KeyAccess;
use todo_tests::{endpoint, uncovered};

use super::{
    CALLBACK, CHANGES, EVENTS, EXPORT, IMPORT, ROUTES, START, TAGS, TODOS, TRASH, content,
    operation, resolved, sqlite_document, validate,
};

/// Calls `visit` with every object of the document and its JSON pointer.
fn visit_objects<'a>(value: &'a Value, at: &str, visit: &mut impl FnMut(&str, &'a Value)) {
    match value {
        Value::Object(members) => {
            visit(at, value);
            for (name, member) in members {
                visit_objects(member, &format!("{at}/{name}"), visit);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                visit_objects(item, &format!("{at}/{index}"), visit);
            }
        }
        _ => {}
    }
}

/// Whether the media type has an example: its own, its schema's, or one for each property.
fn has_example(document: &Value, media: &Value) -> bool {
    let given = |value: &Value| value.get("example").is_some() || value.get("examples").is_some();
    let schema = resolved(document, &media["schema"]);
    let members = schema["properties"].as_object();
    let by_member = members.is_some_and(|members| {
        !members.is_empty() && members.values().all(|member| given(resolved(document, member)))
    });
    given(media) || given(schema) || by_member
}

#[tokio::test]
async fn every_route_is_described() {
    let document = sqlite_document().await;
    let version = document["openapi"].as_str().unwrap_or_default();
    assert!(version.starts_with("3.1"), "{version}");
    for member in ["title", "version", "description"] {
        assert!(document["info"][member].is_string(), "info.{member}");
    }
    assert_eq!(document["info"]["license"]["identifier"], "MIT OR Apache-2.0");
    assert_eq!(document["servers"], json!([{ "url": "/" }]));
    let covered = ROUTES.map(|route| endpoint(&route.method.to_ascii_uppercase(), route.path));
    assert_eq!(uncovered(covered, |_| true), [""; 0]);
    let mut ids = BTreeSet::new();
    for route in &ROUTES {
        let name = format!("{} {}", route.method, route.path);
        let operation = operation(&document, route);
        for text in ["summary", "description"] {
            assert!(operation[text].as_str().is_some_and(|it| !it.is_empty()), "{name}: {text}");
        }
        let id = operation["operationId"].as_str().unwrap_or_default();
        assert!(!id.is_empty() && ids.insert(id), "{name}: operationId {id:?}");

        let responses = operation["responses"].as_object().expect("responses");
        for status in route.statuses {
            let response = responses.get(*status).unwrap_or_else(|| panic!("{name}: no {status}"));
            let response = resolved(&document, response);
            let description = response["description"].as_str().unwrap_or_default();
            assert!(!description.is_empty(), "{name}: {status} has no description");
            if ["101", "302", "303", "304"].contains(status) {
                continue;
            }
            let (kind, media) = content(&document, response)
                .unwrap_or_else(|| panic!("{name}: {status} has no content"));
            let is_error = *status >= "400" && !route.path.starts_with("/health/");
            let json = match route.path {
                "/metrics" => true,
                EVENTS => kind == "text/event-stream",
                _ => kind == "application/json",
            };
            assert!(json || is_error && kind == "application/problem+json", "{name}: {kind}");
            assert!(!is_error || kind == "application/problem+json", "{name}: {status} is {kind}");
            assert!(media["schema"].is_object(), "{name}: {status} has no schema");
        }
        // Every response has an example, and a problem's example has the response's status.
        for (status, response) in responses {
            if ["101", "302", "303", "304"].contains(&status.as_str()) {
                assert!(content(&document, response).is_none(), "{name}: {status} has no content");
                continue;
            }
            let (_, media) = content(&document, response).expect("content");
            assert!(has_example(&document, media), "{name}: {status} has no example");
            if media["schema"]["$ref"] == "#/components/schemas/Problem" {
                assert_eq!(media["example"]["status"].to_string(), *status, "{name}");
            }
        }
        for status in ["414", "431"] {
            assert!(responses.contains_key(status), "{name}: no {status}");
        }
        let is_probe = route.path.starts_with("/health");
        assert_eq!(responses.contains_key("403"), !is_probe, "{name}: https only");

        let body = resolved(&document, &operation["requestBody"]);
        assert_eq!(body.is_object(), route.has_body, "{name}: body");
        if route.has_body {
            assert_eq!(body["required"], true, "{name}: the body is required");
            let (kind, media) = content(&document, body).expect("a body has content");
            assert_eq!(kind, "application/json", "{name}");
            assert!(has_example(&document, media), "{name}: an example of the body");
        }
    }
}

/// `docs/api.md` is written by hand: it must list every route and every error code.
#[tokio::test]
async fn the_written_contract_names_every_route_and_error() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    let text = fs::read_to_string(path).expect("docs/api.md");
    for route in &ROUTES {
        let route = format!("`{} {}`", route.method.to_ascii_uppercase(), route.path);
        assert!(text.contains(&route), "{route}");
    }
    let mut codes = BTreeSet::new();
    visit_objects(&sqlite_document().await, "#", &mut |_, object| {
        if object.get("request_id").is_some() {
            let status = object["status"].to_string();
            codes.extend(object["code"].as_str().map(|code| (status, code.to_owned())));
        }
    });
    assert!(codes.len() > 15, "{codes:?}");
    for (status, code) in codes {
        let row = format!("| {status} | `{code}` |");
        assert!(text.contains(&row), "{row}");
    }
}

#[tokio::test]
async fn protected_routes_require_a_bearer_token() {
    let document = sqlite_document().await;
    let schemes = document["components"]["securitySchemes"].as_object().expect("schemes");
    let bearer: Vec<&String> = schemes
        .iter()
        .filter(|(_, it)| it["type"] == "http" && it["scheme"] == "bearer")
        .map(|(name, _)| name)
        .collect();
    let [bearer] = bearer[..] else { panic!("one bearer scheme: {schemes:?}") };
    for route in &ROUTES {
        let own = operation(&document, route).get("security");
        let security = own.or(document.get("security")).cloned().unwrap_or_else(|| json!([]));
        let expected = if route.is_protected { json!([{bearer: []}]) } else { json!([]) };
        assert_eq!(security, expected, "{} {}", route.method, route.path);
        let operation = operation(&document, route);
        let endpoint = endpoint(&route.method.to_ascii_uppercase(), route.path);
        let scopes = match endpoint.key_access() {
            Some(KeyAccess::With(scope)) => json!([scope.as_str()]),
            _ => json!(null),
        };
        assert_eq!(operation["x-scopes"], scopes, "{} {}", route.method, route.path);
    }
}

#[tokio::test]
async fn parameters_are_described() {
    let document = sqlite_document().await;
    for route in &ROUTES {
        let path = &document["paths"][route.path];
        let own = operation(&document, route);
        let mut named = BTreeMap::new();
        for list in [&path["parameters"], &own["parameters"]] {
            for parameter in list.as_array().into_iter().flatten() {
                let parameter = resolved(&document, parameter);
                let name = parameter["name"].as_str().unwrap_or_default();
                assert!(parameter["schema"].is_object(), "{name} has no schema");
                named.insert(name, (parameter["in"].as_str(), &parameter["required"]));
            }
        }
        let mut expected: BTreeSet<&str> = route
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        for name in &expected {
            assert_eq!(named.get(name), Some(&(Some("path"), &json!(true))), "{name}");
        }
        let query: &[&str] = match (route.method, route.path) {
            ("get", TODOS) => &[
                "status",
                "sort_by",
                "order",
                "tag",
                "any_tag",
                "due",
                "due_before",
                "due_after",
                "time_zone",
                "list",
                "q",
                "include_total",
                "limit",
                "cursor",
            ],
            ("get", TRASH) => &["limit", "cursor"],
            ("get", CHANGES) => &["since", "limit"],
            ("delete", TAGS) => &["name"],
            ("get", EXPORT) => &["format", "trash"],
            ("post", IMPORT) => &["format", "dry_run", "skip_invalid", "time_zone"],
            ("get", EVENTS) => &["since"],
            ("get", START) => &["redirect_uri", "code_challenge", "code_challenge_method", "state"],
            ("get", CALLBACK) => &["state", "code", "iss", "error"],
            _ => &[],
        };
        let needed: &[&str] = match route.path {
            START => &["redirect_uri", "code_challenge", "code_challenge_method"],
            CALLBACK => &["state"],
            TAGS => &["name"],
            IMPORT => &["format"],
            _ => &[],
        };
        for name in query {
            let (place, required) = named.get(name).unwrap_or_else(|| panic!("no {name}"));
            assert_eq!(*place, Some("query"), "{name}");
            assert_eq!(**required == true, needed.contains(name), "{name}");
            expected.insert(name);
        }
        let named: BTreeSet<&str> = named
            .into_iter()
            .filter(|(_, (place, _))| *place != Some("header"))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(named, expected, "{} {}", route.method, route.path);
    }
}

#[tokio::test]
async fn every_reference_resolves_and_every_schema_is_used() {
    let document = sqlite_document().await;
    let mut used = BTreeSet::new();
    visit_objects(&document, "#", &mut |at, object| {
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            let target = reference.strip_prefix('#').and_then(|it| document.pointer(it));
            assert!(target.is_some(), "{reference} at {at} does not resolve");
            used.insert(reference.to_owned());
        }
    });
    for name in document["components"]["schemas"].as_object().expect("schemas").keys() {
        assert!(used.contains(&format!("#/components/schemas/{name}")), "{name} is not used");
    }
}

#[tokio::test]
async fn examples_match_their_schemas() {
    let document = sqlite_document().await;
    let mut checked = 0;
    visit_objects(&document, "#", &mut |at, object| {
        let schema = object.get("schema").unwrap_or(object);
        let several = object.get("examples").and_then(Value::as_array).into_iter().flatten();
        let named = object.get("examples").and_then(Value::as_object).into_iter().flatten();
        let values = named.filter_map(|(_, example)| example.get("value"));
        for example in object.get("example").into_iter().chain(several).chain(values) {
            if at.contains("/properties/example") {
                continue;
            }
            if let Err(error) = validate(&document, schema, example, at) {
                panic!("{error}");
            }
            checked += 1;
        }
    });
    assert!(checked > 10, "{checked} examples");
}
