//! The OpenAPI document: it is complete and consistent, the servers' responses match it, and every
//! change shows in the diff of `golden/openapi.json`. To accept a change:
//!
//! ```text
//! UPDATE_GOLDEN=1 cargo test -p todo-tests --test contract openapi
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
};

use proptest::{
    prelude::*,
    strategy::ValueTree,
    string::string_regex,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value, json};
use todo_tests::{Actor, App, Database, Server, Target, endpoint, on_every_target, uncovered};

const TODOS: &str = "/api/users/{user_id}/todos";
const TODO: &str = "/api/users/{user_id}/todos/{todo_id}";
const COMPLETE: &str = "/api/users/{user_id}/todos/{todo_id}/complete";
const UNKNOWN_ID: &str = "00000000-0000-7000-8000-000000000000";

/// A route of the contract.
struct Route {
    method: &'static str,
    path: &'static str,
    is_protected: bool,
    has_body: bool,
    statuses: &'static [&'static str],
}

const fn route(
    method: &'static str,
    path: &'static str,
    is_protected: bool,
    has_body: bool,
    statuses: &'static [&'static str],
) -> Route {
    Route { method, path, is_protected, has_body, statuses }
}

#[rustfmt::skip]
const ROUTES: [Route; 18] = [
    route("post", "/api/auth/signup", false, true,
        &["201", "400", "409", "413", "415", "422", "429", "500", "503"]),
    route("post", "/api/auth/login", false, true,
        &["200", "401", "413", "415", "422", "429", "500", "503"]),
    route("post", "/api/auth/logout", true, false, &["200", "401", "500", "503"]),
    route("get", "/api/auth/me", true, false, &["200", "401", "500", "503"]),
    route("patch", "/api/auth/me", true, true,
        &["200", "400", "401", "413", "415", "422", "500", "503"]),
    route("post", TODOS, true, true,
        &["201", "400", "401", "403", "413", "415", "422", "500", "503"]),
    route("get", TODOS, true, false, &["200", "400", "401", "403", "500", "503"]),
    route("get", TODO, true, false, &["200", "401", "403", "404", "500", "503"]),
    route("put", TODO, true, true,
        &["200", "400", "401", "403", "404", "413", "415", "422", "500", "503"]),
    route("patch", TODO, true, true,
        &["200", "400", "401", "403", "404", "413", "415", "422", "500", "503"]),
    route("patch", COMPLETE, true, true,
        &["200", "401", "403", "404", "413", "415", "422", "500", "503"]),
    route("delete", TODO, true, false, &["200", "401", "403", "404", "500", "503"]),
    route("get", "/health", false, false, &["200"]),
    route("get", "/health/ready", false, false, &["200", "503"]),
    route("get", "/health/db", false, false, &["200", "503"]),
    route("get", "/metrics", false, false, &["200"]),
    route("get", "/openapi.json", false, false, &["200"]),
    route("get", "/", false, false, &["200"]),
];

async fn document(app: &App) -> Value {
    let answer = app.anonymous().get("/openapi.json").await;
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/") && kind.contains("json"), "{kind}");
    answer.expect(200)
}

/// The document of one target; a separate test compares the other targets with it.
async fn sqlite_document() -> Value {
    document(&App::start(Target { server: Server::Hyper, database: Database::Sqlite }).await).await
}

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join("openapi.json")
}

fn operation<'a>(document: &'a Value, route: &Route) -> &'a Value {
    let operation = &document["paths"][route.path][route.method];
    assert!(operation.is_object(), "{} {} is not described", route.method, route.path);
    operation
}

/// Follows a `$ref`, if the value is one.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let Some(reference) = value["$ref"].as_str() else { return value };
    let pointer = reference.strip_prefix('#');
    let target = pointer.and_then(|pointer| document.pointer(pointer));
    let target = target.unwrap_or_else(|| panic!("{reference} does not resolve"));
    resolved(document, target)
}

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

/// The first difference between two documents, in readable form.
fn difference(at: &str, was: &Value, is: &Value) -> Option<String> {
    match (was, is) {
        (Value::Object(was), Value::Object(is)) => {
            let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
            names.into_iter().find_map(|name| {
                let member = |of: &serde_json::Map<String, Value>| of.get(name).cloned();
                let (was, is) = (member(was).unwrap_or_default(), member(is).unwrap_or_default());
                difference(&format!("{at}/{name}"), &was, &is)
            })
        }
        (Value::Array(was), Value::Array(is)) if was.len() == is.len() => was
            .iter()
            .zip(is)
            .enumerate()
            .find_map(|(index, (was, is))| difference(&format!("{at}/{index}"), was, is)),
        _ if was == is => None,
        _ => Some(format!("at {at}:\n was {was}\n  is {is}")),
    }
}

/// The schema of a response's content, with its media type.
fn content<'a>(document: &'a Value, response: &'a Value) -> Option<(&'a str, &'a Value)> {
    let content = resolved(document, response)["content"].as_object()?;
    assert_eq!(content.len(), 1, "one media type: {response}");
    let (kind, media) = content.iter().next()?;
    Some((kind, media))
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

/// Validates `value` by the part of JSON Schema 2020-12 that the document uses. Stricter in one
/// point: an undescribed property is an error.
fn validate(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = resolved(document, schema);
    let wrong = |what: &str| Err(format!("{at}: {what}: {value} against {schema}"));
    for (keyword, enough) in [("oneOf", 1), ("anyOf", 1), ("allOf", usize::MAX)] {
        let Some(branches) = schema[keyword].as_array() else { continue };
        let fitting =
            branches.iter().filter(|branch| validate(document, branch, value, at).is_ok()).count();
        if fitting < enough.min(branches.len()) {
            return wrong(keyword);
        }
    }
    if let Some(kinds) = schema.get("type") {
        let one = [kinds.clone()];
        let kinds = kinds.as_array().map_or(&one[..], Vec::as_slice);
        if !kinds.iter().any(|kind| has_type(kind.as_str().unwrap_or_default(), value)) {
            return wrong("type");
        }
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        return wrong("enum");
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return wrong("const");
    }
    if let Some(items) = value.as_array() {
        for (index, item) in items.iter().enumerate() {
            validate(document, &schema["items"], item, &format!("{at}/{index}"))?;
        }
    }
    let (Some(described), Some(members)) = (schema["properties"].as_object(), value.as_object())
    else {
        return Ok(());
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !members.contains_key(name.as_str().unwrap_or_default()) {
            return wrong(&format!("{name} is required"));
        }
    }
    for (name, member) in members {
        match described.get(name) {
            Some(schema) => validate(document, schema, member, &format!("{at}/{name}"))?,
            None => return wrong(&format!("{name} is not described")),
        }
    }
    Ok(())
}

fn has_type(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

#[tokio::test]
async fn the_document_matches_the_golden_file() {
    let document = sqlite_document().await;
    if env::var_os("UPDATE_GOLDEN").is_some() {
        let mut text = serde_json::to_string_pretty(&document).expect("JSON of JSON");
        text.push('\n');
        fs::create_dir_all(golden().parent().expect("a directory")).expect("the directory");
        fs::write(golden(), text).expect("the golden file");
    }
    let hint = "UPDATE_GOLDEN=1 cargo test -p todo-tests --test contract openapi";
    let text = fs::read_to_string(golden()).unwrap_or_else(|error| panic!("{error}; run {hint}"));
    let was: Value = serde_json::from_str(&text).expect("the golden file is JSON");
    if let Some(difference) = difference("#", &was, &document) {
        panic!("the contract changed {difference}\nif that is meant, run {hint}");
    }
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
            let (kind, media) = content(&document, response)
                .unwrap_or_else(|| panic!("{name}: {status} has no content"));
            let is_error = *status >= "400" && !route.path.starts_with("/health/");
            let json = kind == "application/json" || route.path == "/metrics";
            assert!(json || is_error && kind == "application/problem+json", "{name}: {kind}");
            assert!(!is_error || kind == "application/problem+json", "{name}: {status} is {kind}");
            assert!(media["schema"].is_object(), "{name}: {status} has no schema");
        }
        // Every response has an example, and a problem's example has the response's status.
        for (status, response) in responses {
            if status == "304" {
                assert!(content(&document, response).is_none(), "{name}: a 304 has no content");
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
        if route.path == TODOS && route.method == "get" {
            for name in ["status", "sort_by", "order", "limit", "cursor"] {
                let (place, required) = named.get(name).unwrap_or_else(|| panic!("no {name}"));
                assert_eq!(*place, Some("query"), "{name}");
                assert_ne!(**required, json!(true), "{name} is optional");
                expected.insert(name);
            }
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

/// Generates values that match a schema. Strings follow the schema's pattern and include whitespace
/// and characters of all Unicode planes.
fn values_for(document: &Value, schema: &Value) -> BoxedStrategy<Value> {
    let schema = resolved(document, schema);
    if let Some(branches) = schema["allOf"].as_array() {
        let [only] = &branches[..] else { panic!("one branch: {schema}") };
        return values_for(document, only);
    }
    if let Some(words) = schema["enum"].as_array() {
        return prop::sample::select(words.clone()).boxed();
    }
    let number = |name: &str| schema[name].as_u64();
    let kinds = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    let of_kind = |kind: &Value| match kind.as_str().unwrap_or_default() {
        "null" => Just(Value::Null).boxed(),
        "boolean" => any::<bool>().prop_map(Value::from).boxed(),
        "integer" => {
            let (min, max) = (number("minimum").expect("a bound"), number("maximum"));
            (min..=max.expect("a bound")).prop_map(Value::from).boxed()
        }
        "string" => {
            let (min, max) = (number("minLength").unwrap_or(0), number("maxLength"));
            let bounds = min..=max.unwrap_or(u64::MAX);
            let text = strings_matching(schema["pattern"].as_str().expect("a pattern"), max);
            let fits = move |text: &String| bounds.contains(&(text.chars().count() as u64));
            text.prop_filter("its length", fits).prop_map(Value::from).boxed()
        }
        "object" => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let members = schema["properties"].as_object().expect("members").iter();
            let members = members.map(|(name, member)| {
                let is_there = required.iter().any(|required| required == name);
                let member = values_for(document, member);
                let given = match is_there {
                    true => member.prop_map(Some).boxed(),
                    false => prop::option::of(member).boxed(),
                };
                (Just(name.clone()), given)
            });
            let object = |members: Vec<(String, Option<Value>)>| {
                let given = members.into_iter().filter_map(|(name, value)| Some((name, value?)));
                Value::Object(given.collect::<Map<_, _>>())
            };
            members.collect::<Vec<_>>().prop_map(object).boxed()
        }
        kind => panic!("a generator of {kind}: {schema}"),
    };
    prop::strategy::Union::new(kinds.iter().map(of_kind)).boxed()
}

/// Generates strings that match a pattern, including the longest allowed. A prefix satisfies the
/// pattern's lookaheads.
fn strings_matching(pattern: &str, max: Option<u64>) -> BoxedStrategy<String> {
    let (mut rest, mut front) = (pattern.trim_start_matches('^').trim_end_matches('$'), "");
    while let Some(behind) = rest.strip_prefix("(?=") {
        (front, rest) = ("Aa1", behind.split_once(')').expect("an end").1);
    }
    // A pattern without a length limit is also tried at the maximum length.
    let has_any_length = rest.starts_with("[^");
    let text = string_regex(rest).expect("an expression");
    let text = text.prop_map(move |text| front.to_owned() + &text).boxed();
    let padded = text.clone().prop_map(move |text| {
        let lacks = max.unwrap_or(0).saturating_sub(text.chars().count() as u64);
        let padding = if has_any_length { lacks } else { 0 };
        let middle = text.char_indices().nth(4).map_or(0, |(at, _)| at);
        let padding = "\u{1f600}".repeat(padding.try_into().expect("a length"));
        if middle == 0 { text } else { format!("{}{padding}{}", &text[..middle], &text[middle..]) }
    });
    prop_oneof![3 => text, 1 => padded].boxed()
}

/// Sends generated valid requests to each operation with a body or query parameters.
async fn assert_valid_requests_are_accepted(app: &App, ann: &Actor, tries: usize) {
    let document = document(app).await;
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );
    let mut sample = |schema: &Value| {
        let tree = values_for(&document, schema).new_tree(&mut runner).expect("a value");
        tree.current()
    };
    let todo = ann.todo("a").await;
    let id = todo["id"].as_str().expect("an id");
    for route in &ROUTES {
        let operation = operation(&document, route);
        let path = route.path.replace("{user_id}", ann.id()).replace("{todo_id}", id);
        let method = route.method.to_ascii_uppercase();
        for _ in 0..if route.has_body || route.path == TODOS { tries } else { 0 } {
            let answer = if route.has_body {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                let body = sample(schema).to_string();
                let json = [("content-type", "application/json")];
                let answer = ann.send(&method, &path, &json, body.clone()).await;
                assert!(![400, 422].contains(&answer.status), "{body}: {answer}");
                answer
            } else {
                let parameters = operation["parameters"].as_array().expect("parameters");
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                // The schema does not define which strings are valid cursors.
                let free = |it: &&Value| it["in"] == "query" && it["name"] != "cursor";
                for parameter in parameters.iter().filter(free) {
                    let value = sample(&parameter["schema"]);
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    query.append_pair(parameter["name"].as_str().expect("a name"), &text);
                }
                ann.send(&method, &format!("{path}?{}", query.finish()), &[], "").await
            };
            let expected = if route.path == "/api/auth/login" { 401 } else { 201 };
            let is_done = [200, 201, expected].contains(&answer.status);
            assert!(is_done, "{answer}");
        }
    }
}

on_every_target! {
    async fn requests_that_match_the_schemas_are_accepted(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        assert_valid_requests_are_accepted(&app, &ann, 24).await;
    }

    async fn all_targets_serve_the_same_document(target) {
        let app = App::start(target).await;
        assert_eq!(difference("#", &sqlite_document().await, &document(&app).await), None);
    }

    async fn responses_match_the_document(target) {
        let app = App::start(target).await;
        let document = document(&app).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let anonymous = app.anonymous();
        let todo = ann.todo("a").await;
        let theirs = bob.todo("b").await;
        let path = |todo: &Value| {
            format!("{}/{}", ann.todos(), todo["id"].as_str().expect("an id"))
        };
        let mine = path(&todo);
        let login = json!({"email": "new@example.com", "password": "Correct1horse"});
        let mut account = login.clone();
        account["name"] = json!("New");
        let put = json!({"title": "c", "priority": "low", "description": "d"});
        let done = json!({"completed": true});
        let page = format!("{}?limit=1", ann.todos());
        ann.todo("another").await;
        let answers = [
            ("post", "/api/auth/signup", anonymous.post("/api/auth/signup", account.clone()).await),
            ("post", "/api/auth/signup", anonymous.post("/api/auth/signup", account).await),
            ("post", "/api/auth/signup", anonymous.post("/api/auth/signup", json!({})).await),
            ("post", "/api/auth/signup", anonymous.send("POST", "/api/auth/signup", &[], "").await),
            ("post", "/api/auth/login", anonymous.post("/api/auth/login", login.clone()).await),
            ("post", "/api/auth/login", anonymous.post("/api/auth/login", json!({})).await),
            ("get", "/api/auth/me", ann.get("/api/auth/me").await),
            ("get", "/api/auth/me", anonymous.get("/api/auth/me").await),
            ("post", TODOS, ann.post(&ann.todos(), json!({"title": "b"})).await),
            ("post", TODOS, ann.post(&ann.todos(), json!({"title": ""})).await),
            ("post", TODOS, bob.post(&ann.todos(), json!({"title": "b"})).await),
            ("post", TODOS, ann.post(&ann.todos(), json!({"title": "x".repeat(70_000)})).await),
            ("get", TODOS, ann.get(&ann.todos()).await),
            ("get", TODOS, ann.get(&page).await),
            ("get", TODOS, ann.get(&format!("{page}0000")).await),
            ("get", TODO, ann.get(&mine).await),
            ("get", TODO, ann.get(&path(&theirs)).await),
            ("get", TODO, ann.get(&path(&json!({"id": UNKNOWN_ID}))).await),
            ("put", TODO, ann.put(&mine, put).await),
            ("patch", TODO, ann.patch(&mine, json!({"description": null})).await),
            ("patch", TODO, ann.patch(&mine, json!({"title": null})).await),
            ("patch", COMPLETE, ann.patch(&format!("{mine}/complete"), done).await),
            ("patch", COMPLETE, ann.patch(&format!("{mine}/complete"), json!({})).await),
            ("delete", TODO, ann.delete(&mine).await),
            ("get", "/health", anonymous.get("/health").await),
            ("get", "/health/ready", anonymous.get("/health/ready").await),
            ("get", "/health/db", anonymous.get("/health/db").await),
            ("post", "/api/auth/logout", ann.post("/api/auth/logout", Value::Null).await),
        ];
        for (method, path, answer) in answers {
            let status = answer.status.to_string();
            let response = &document["paths"][path][method]["responses"][&status];
            assert!(response.is_object(), "{method} {path}: {status} is not described");
            let (kind, media) = content(&document, response).expect("content is described");
            assert_eq!(answer.header("content-type"), Some(kind), "{method} {path}: {status}");
            let at = format!("{method} {path} {status}");
            if let Err(error) = validate(&document, &media["schema"], &answer.json(), &at) {
                panic!("{error}");
            }
        }
    }
}
