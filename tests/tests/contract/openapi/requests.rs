//! The servers accept every request that matches the schemas: generated ones are sent.

use proptest::{
    prelude::*,
    strategy::ValueTree,
    string::string_regex,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value};
use todo_tests::{Actor, App, on_every_target};

use super::{BULK, IMPORT, MOVE, RENAME_TAG, ROUTES, TODOS, document, operation, resolved};

/// Generates values that match a schema. Strings follow the schema's pattern and include whitespace
/// and characters of all Unicode planes.
fn values_for(document: &Value, schema: &Value) -> BoxedStrategy<Value> {
    let schema = resolved(document, schema);
    if let Some(branches) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let branches = branches.iter().map(|branch| values_for(document, branch));
        return prop::strategy::Union::new(branches).boxed();
    }
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
        // The schema cannot state that a host is public.
        "string" if schema["format"] == "uri" => {
            Just(Value::from("https://hooks.example.com/")).boxed()
        }
        "string" if schema["format"] == "date" => (1970_u32..9999, 1_u32..=12, 1_u32..=28)
            .prop_map(|(y, m, d)| format!("{y:04}-{m:02}-{d:02}").into())
            .boxed(),
        "string" if schema["format"] == "date-time" => {
            let zones = prop::sample::select(vec!["Z", "+01:00", "-11:30"]);
            (1970_u32..9999, 1_u32..=12, 0_u32..24, zones)
                .prop_map(|(y, m, h, zone)| format!("{y:04}-{m:02}-28T{h:02}:30:00{zone}").into())
                .boxed()
        }
        "string" if schema["format"] == "recurrence-rule" => {
            prop::sample::select(RULES).prop_map(Value::from).boxed()
        }
        "string" => {
            let (min, max) = (number("minLength").unwrap_or(0), number("maxLength"));
            let bounds = min..=max.unwrap_or(u64::MAX);
            let text = strings_matching(schema["pattern"].as_str().expect("a pattern"), max);
            // Lower case, and form C, may have more characters.
            let expands = schema["format"] == "tag";
            let fits = move |text: &String| {
                let length = text.chars().count() as u64;
                bounds.contains(&if expands && !text.is_ascii() { length * 3 } else { length })
            };
            text.prop_filter("its length", fits).prop_map(Value::from).boxed()
        }
        "array" => {
            let (min, max) = (number("minItems").unwrap_or(0), number("maxItems").unwrap_or(5));
            let count = |number: u64| usize::try_from(number).expect("a length");
            let items = values_for(document, &schema["items"]);
            let some = prop::collection::vec(items, count(min)..=count(max.min(min + 4)));
            some.prop_map(Value::from).boxed()
        }
        "object" => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let members = schema["properties"].as_object();
            let members = members.into_iter().flatten();
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

const RULES: &[&str] = &[
    "FREQ=DAILY",
    "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,WE",
    "FREQ=MONTHLY;BYMONTHDAY=-1",
    "FREQ=YEARLY;BYMONTH=6;BYDAY=1SU;COUNT=3",
];

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

/// Makes the todos of a body possible: what needs a due date has one, and no list is named, since
/// there is none. A schema cannot state that.
fn complete(body: &mut Value) {
    if let Some(items) = body.get_mut("create").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(complete);
    }
    if let Some(patch) = body.get_mut("patch") {
        complete(patch);
    }
    let needs_due = body["recurrence"].is_object()
        || body["reminders"].as_array().is_some_and(|reminders| !reminders.is_empty());
    if needs_due && !body["due"].is_object() {
        body["due"] = serde_json::json!({ "date": "2026-12-01" });
    } else if body.get("due").is_some_and(Value::is_null) {
        // The todo may have them.
        body["recurrence"] = Value::Null;
        body["reminders"] = Value::Null;
    }
    if let Some(body) = body.as_object_mut() {
        body.remove("list_id");
    }
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
    let lists = format!("/api/users/{}/lists", ann.id());
    let list = ann.post(&lists, serde_json::json!({"name": "l"})).await.expect(201);
    let list_id = list["id"].as_str().expect("an id");
    for route in &ROUTES {
        let operation = operation(&document, route);
        let path = route.path.replace("{user_id}", ann.id()).replace("{todo_id}", id);
        let mut path = path.replace("{list_id}", list_id);
        if route.path == IMPORT {
            // The schema does not define the todos of a file.
            path.push_str("?format=json&skip_invalid=true");
        }
        let method = route.method.to_ascii_uppercase();
        let is_deletion = (route.method, route.path) == ("delete", "/api/auth/me");
        for _ in 0..if route.has_body || route.path == TODOS { tries } else { 0 } {
            let answer = if route.has_body {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                let mut body = sample(schema);
                // The schema cannot state that it is required of an account that has one.
                if is_deletion && body.get("password").is_none() {
                    body["password"] = Value::from("Wrong1horse");
                }
                complete(&mut body);
                // A generated id is no todo's.
                if route.path == MOVE {
                    body["after"] = Value::Null;
                }
                let body = body.to_string();
                let json = [("content-type", "application/json")];
                let answer = ann.send(&method, &path, &json, body.clone()).await;
                // There is no issuer, so that no token is valid.
                let needs_issuer = route.path == "/api/auth/identities"
                    || route.path.starts_with("/api/auth/oauth/");
                let is_valid = ![400, 422].contains(&answer.status);
                assert!(is_valid || needs_issuer && answer.status == 400, "{body}: {answer}");
                answer
            } else {
                let parameters = operation["parameters"].as_array().expect("parameters");
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                // The schema does not define which strings are valid cursors and searches.
                let is_defined = |it: &Value| it["name"] != "cursor" && it["name"] != "q";
                let free = |it: &&Value| it["in"] == "query" && is_defined(it);
                for parameter in parameters.iter().filter(free) {
                    let value = sample(&parameter["schema"]);
                    let values = value.as_array().cloned().unwrap_or_else(|| vec![value]);
                    for value in values {
                        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                        query.append_pair(parameter["name"].as_str().expect("a name"), &text);
                    }
                }
                ann.send(&method, &format!("{path}?{}", query.finish()), &[], "").await
            };
            // Generated passwords are wrong.
            let of_passwords = ["/api/auth/login", "/api/auth/password", "/api/auth/keys"];
            let has_password = of_passwords.contains(&route.path) || is_deletion;
            let expected = if has_password { 401 } else { 201 };
            // There are no mails.
            let needs_mail =
                route.path.contains("/auth/password/") || route.path.contains("/auth/email");
            let expected = if needs_mail { 501 } else { expected };
            let expected = if route.path == "/api/auth/identities" { 400 } else { expected };
            // Generated codes are no sign-in's, and there is no provider.
            let expected = match route.path {
                "/api/auth/oauth/token" | "/api/auth/oauth/link" => 400,
                "/api/auth/oauth/{provider}/link" => 404,
                _ => expected,
            };
            // Generated ids are no todo's.
            let expected = if matches!(route.path, BULK | RENAME_TAG) { 404 } else { expected };
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
}
