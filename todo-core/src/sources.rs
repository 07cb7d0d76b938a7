//! Where settings come from: the environment, `.env` in the working directory, and the files that
//! `NAME_FILE` names. What the values mean is for [`crate::settings`].

use std::{
    fs::File,
    io::{self, Read},
};

use crate::{
    server::ServeError,
    settings::{Settings, SettingsError},
};

/// The settings that hold a secret: each may be in a file that `NAME_FILE` names instead, as
/// container engines and systemd hand secrets over.
const IN_FILES: [&str; 4] =
    ["DATABASE_URL", "MIGRATIONS_DATABASE_URL", "SECRET_KEY", "SECRET_KEY_PREVIOUS"];

/// How many bytes such a file may have.
const MAX_FILE: u64 = 64 << 10;

/// Reads the settings from the environment and from `.env` in the working directory; the
/// environment wins. `DATABASE_URL_FILE`, `MIGRATIONS_DATABASE_URL_FILE`, `SECRET_KEY_FILE` and
/// `SECRET_KEY_PREVIOUS_FILE` name files that have the value.
///
/// # Errors
/// [`ServeError::Settings`], [`ServeError::Dotenv`].
pub fn settings() -> Result<Settings, ServeError> {
    let mut vars: Vec<(String, String)> = Vec::new();
    match dotenvy::from_path_iter(".env") {
        Ok(lines) => {
            for line in lines {
                // Its own message repeats the line, which may hold a secret.
                vars.push(line.map_err(|_| ServeError::Dotenv("a line is not NAME=value".into()))?);
            }
        }
        Err(error) if error.not_found() => {}
        Err(error) => return Err(ServeError::Dotenv(error.to_string())),
    }
    // What is no Unicode is no setting of ours.
    vars.extend(
        std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }),
    );
    read_files(&mut vars)?;
    Ok(Settings::from_vars(vars)?)
}

/// Adds what is in the files that are named.
fn read_files(vars: &mut Vec<(String, String)>) -> Result<(), SettingsError> {
    let mut errors = Vec::new();
    for name in IN_FILES {
        let file = format!("{name}_FILE");
        let set = |name: &str| {
            let (_, value) = vars.iter().rev().find(|(known, _)| known == name)?;
            Some(value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let Some(path) = set(&file) else { continue };
        if set(name).is_some() {
            errors.push(format!("{file} must be unset, if {name} is set"));
            continue;
        }
        // The path is not told: it may be a secret that was set to the wrong name.
        match read_file(&path) {
            Ok(value) => vars.push((name.to_owned(), value)),
            Err(cause) => errors.push(format!("{file} must be a text file to read: {cause}")),
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(SettingsError(errors)) }
}

fn read_file(path: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it has more than 64 KiB"));
    }
    // Silently going on without a secret is what nobody wants who names a file for it.
    match text.trim_end_matches(['\r', '\n']) {
        text if text.trim().is_empty() => Err(io::Error::other("it is empty")),
        text => Ok(text.to_owned()),
    }
}
