//! Makes the documents' lists of settings from the table, and compares: the table in `README.md`,
//! and `.env.example`. After a change of the table, write both again:
//!
//! ```sh
//! UPDATE_GOLDEN=1 cargo test -p todo-runtime documents
//! ```

use std::{env, fs, mem, path::Path};

use super::{Setting, Settings};

const BEGIN: &str = "<!-- settings:begin -->\n";
const END: &str = "<!-- settings:end -->\n";

/// Maximum length of a line of `.env.example`.
const WIDTH: usize = 100;

#[test]
fn the_readme_has_the_table() {
    check("README.md", |readme| {
        let (head, rest) = readme.split_once(BEGIN).expect("the marker of the beginning");
        let (_, tail) = rest.split_once(END).expect("the marker of the end");
        format!("{head}{BEGIN}{}{END}{tail}", markdown_table())
    });
}

#[test]
fn the_example_of_a_env_file_has_all_settings() {
    check(".env.example", |_| dotenv_example());
}

/// Compares a document with `expected`, or writes it if `UPDATE_GOLDEN` is set.
fn check(name: &str, expected: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    let actual = fs::read_to_string(&path).unwrap();
    let expected = expected(&actual);
    if actual == expected {
        return;
    }
    assert!(
        env::var_os("UPDATE_GOLDEN").is_some(),
        "{name} differs from the table of settings: run `UPDATE_GOLDEN=1 cargo test -p \
         todo-runtime documents`, and read the diff"
    );
    fs::write(&path, expected).unwrap();
}

fn markdown_table() -> String {
    let head = "| name | default | allowed | description |\n|---|---|---|---|\n".to_owned();
    let rows = Settings::table().into_iter().map(|row| {
        let Setting { name, description, .. } = row;
        let default = match (row.default_text, row.default) {
            (Some(text), _) => text.to_owned(),
            (None, Some(value)) => format!("`{value}`"),
            (None, None) => "none".to_owned(),
        };
        let allowed = code_spans(&row.allowed);
        let file = if row.is_secret { format!(", `{name}_FILE`") } else { String::new() };
        format!("| `{name}`{file} | {default} | {allowed} | {description} |\n")
    });
    head + &rows.collect::<String>()
}

/// The text with its addresses and paths as code, so that they are not links.
fn code_spans(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.trim_end_matches(',') {
        code if code.contains("://") || code.starts_with('/') => {
            word.replace(code, &format!("`{code}`"))
        }
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn dotenv_example() -> String {
    let secrets = super::table::secret_names().collect::<Vec<_>>().join(", ");
    let head = comment(&format!(
        "All settings, each with its default, or with an example. Copy this file to .env and remove \
         the # before the settings to change. The syntax is that of python-dotenv. The environment \
         takes precedence over .env. The value of {secrets} may be in a file that NAME_FILE names, \
         for instance SECRET_KEY_FILE=/run/secrets/secret_key."
    ));
    let rows = Settings::table().into_iter().map(|row| {
        let Setting { name, allowed, .. } = row;
        let value = match (row.example, row.default) {
            (Some(example), _) => example.to_owned(),
            (None, default) => default.unwrap_or_default(),
        };
        let value = if value.contains(' ') { format!("\"{value}\"") } else { value };
        let description = comment(row.description);
        let allowed = comment(&format!("Allowed: {allowed}."));
        format!("\n{description}{allowed}#{name}={value}\n")
    });
    head + &rows.collect::<String>()
}

/// Markdown as a comment of several lines. Code is not broken.
fn comment(text: &str) -> String {
    const NO_BREAK_SPACE: &str = "\u{a0}";
    let spans = text.split('`').enumerate();
    let spans = spans.map(|(number, span)| match number % 2 {
        0 => span.to_owned(),
        _ => span.replace(' ', NO_BREAK_SPACE),
    });
    let mut lines = Vec::new();
    let mut line = "#".to_owned();
    for word in spans.collect::<String>().split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(mem::replace(&mut line, "#".to_owned()));
        }
        line.extend([" ", word]);
    }
    lines.push(line);
    (lines.join("\n") + "\n").replace(NO_BREAK_SPACE, " ")
}
