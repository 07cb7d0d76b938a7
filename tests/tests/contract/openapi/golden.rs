//! All targets serve the document of the golden file.

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use serde_json::Value;
use todo_tests::{App, on_every_target};

use super::{document, sqlite_document};

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join("openapi.json")
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

on_every_target! {
    async fn all_targets_serve_the_same_document(target) {
        let app = App::start(target).await;
        assert_eq!(difference("#", &sqlite_document().await, &document(&app).await), None);
    }
}
