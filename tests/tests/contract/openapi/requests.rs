//! The servers accept every request that matches the schemas: generated ones are sent.

use proptest::{
    prelude::*,
    strategy::ValueTree,
    string::string_regex,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value};
use todo_tests::{Actor, App, on_every_target};

use super::{BULK, ROUTES, TODOS, document, operation, resolved};

/// Generates values that match a schema. Strings follow the schema's pattern and include whitespace
/// and characters of all Unicode planes.
fn values_for(document: &Value, schema: &Value) -> BoxedStrategy<Value> {
    let schema = resolved(document, schema);
    if let Some(branches) = schema["oneOf"].as_array() {
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
        "string" => {
            let (min, max) = (number("minLength").unwrap_or(0), number("maxLength"));
            let bounds = min..=max.unwrap_or(u64::MAX);
            let text = strings_matching(schema["pattern"].as_str().expect("a pattern"), max);
            let fits = move |text: &String| bounds.contains(&(text.chars().count() as u64));
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
        let is_deletion = (route.method, route.path) == ("delete", "/api/auth/me");
        for _ in 0..if route.has_body || route.path == TODOS { tries } else { 0 } {
            let answer = if route.has_body {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                let mut body = sample(schema);
                // The schema cannot state that it is required of an account that has one.
                if is_deletion && body.get("password").is_none() {
                    body["password"] = Value::from("Wrong1horse");
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
                // The schema does not define which strings are valid cursors.
                let free = |it: &&Value| it["in"] == "query" && it["name"] != "cursor";
                for parameter in parameters.iter().filter(free) {
                    let value = sample(&parameter["schema"]);
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    query.append_pair(parameter["name"].as_str().expect("a name"), &text);
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
            let expected = if route.path == BULK { 404 } else { expected };
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
