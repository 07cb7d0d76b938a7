//! Sources of settings: the environment, `.env` in the working directory, and the files named by
//! `NAME_FILE`. [`Settings::from_vars`] parses the values.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, Read},
};

use super::{
    Settings, SettingsError, Warning,
    dotenv::Dotenv,
    table::{NAMES, secret_names},
};
use crate::ServeError;

/// Maximum size of a secret's file.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Maximum size of `.env`.
const MAX_DOTENV_BYTES: u64 = 1 << 20;

const DOTENV: &str = ".env";
/// The variable that turns on traces. The exporter reads it from the environment only.
const TRACES: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

impl Settings {
    /// Reads the settings from the environment and from `.env` in the working directory; the
    /// environment wins. `NAME_FILE` names a file with the value of a setting that is a secret, the
    /// way container engines and systemd pass secrets.
    ///
    /// `.env` is read as python-dotenv reads it. An invalid line is skipped and added to
    /// [`Settings::warnings`]; one that begins with the name of a setting is an error.
    ///
    /// # Errors
    /// [`ServeError::Settings`], [`ServeError::Dotenv`].
    pub fn load() -> Result<Self, ServeError> {
        from_sources(read_dotenv()?.as_deref(), env::vars_os())
    }
}

/// The settings of a `.env` file and an environment.
fn from_sources(
    dotenv: Option<&str>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Settings, ServeError> {
    let environment = unicode(environment)?;
    let in_environment = |name: &str| {
        let (_, value) = environment.iter().find(|(known, _)| known == name)?;
        Some(value.clone())
    };
    let dotenv = dotenv.map(|text| Dotenv::read(text, in_environment)).unwrap_or_default();
    reject_unreadable(&dotenv)?;
    let mut warnings = warnings_of(&dotenv);
    let is_set = |name: &str| in_environment(name).is_some_and(|value| !value.is_empty());
    if !cfg!(feature = "otlp") && (is_set(TRACES) || dotenv.values.contains_key(TRACES)) {
        let message = "has no effect: this program is built without traces (the feature otlp)";
        warnings.push(Warning::new(TRACES, message));
    } else if !is_set(TRACES) && dotenv.values.contains_key(TRACES) {
        let message = "has no effect in .env: set it in the environment";
        warnings.push(Warning::new(TRACES, message));
    }
    let mut vars: Vec<_> = dotenv.values.into_iter().chain(environment).collect();
    for name in NAMES.iter().filter(|name| !secret_names().any(|secret| secret == **name)) {
        let file = format!("{name}_FILE");
        if vars.iter().any(|(known, value)| *known == file && !value.is_empty()) {
            warnings
                .push(Warning::new(file, "has no effect: this setting is not read from a file"));
        }
    }
    read_files(&mut vars)?;
    let mut settings = Settings::from_vars(vars).map_err(|mut error| {
        // A skipped line may be the cause.
        error.0.extend(warnings.iter().map(ToString::to_string));
        error
    })?;
    settings.warnings = warnings;
    Ok(settings)
}

/// The text of `.env`, if there is one.
fn read_dotenv() -> Result<Option<String>, ServeError> {
    let fail = |cause: &str| Err(ServeError::Dotenv(cause.to_owned()));
    let mut bytes = Vec::new();
    let read =
        File::open(DOTENV).and_then(|file| file.take(MAX_DOTENV_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > MAX_DOTENV_BYTES => return fail("it has more than 1 MiB"),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            return fail("it is a directory, and must be a file");
        }
        Err(error) => return fail(&error.to_string()),
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return fail("it is UTF-16, and must be UTF-8");
    }
    String::from_utf8(bytes).map(Some).or_else(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = String::from_utf8_lossy(valid).matches('\n').count() + 1;
        fail(&format!("line {line} is not UTF-8"))
    })
}

/// The Unicode variables of an environment. A setting that is not Unicode is an error.
fn unicode(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, SettingsError> {
    let mut vars = Vec::new();
    let mut errors = Vec::new();
    for (name, value) in environment {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => vars.push((name, value)),
            Err(_) if NAMES.contains(&name.strip_suffix("_FILE").unwrap_or(&name)) => {
                errors.push(format!("{name} must be UTF-8"));
            }
            Err(_) => {}
        }
    }
    if errors.is_empty() { Ok(vars) } else { Err(SettingsError(errors)) }
}

/// Rejects an invalid line that begins with the name of a setting, since the program would start
/// without that setting. Other invalid lines are taken for another program's.
fn reject_unreadable(dotenv: &Dotenv) -> Result<(), ServeError> {
    for unreadable in &dotenv.unreadable {
        let begins = unreadable.name.as_deref().map(|name| name.trim_end_matches(':'));
        let is_ours = |known: &&str| {
            begins == Some(known)
                || begins.and_then(|name| name.strip_suffix("_FILE")) == Some(known)
        };
        if let Some(name) = NAMES.iter().find(|known| is_ours(known)) {
            let line = unreadable.line;
            let message = format!("line {line}: {name} is not followed by = and one value");
            return Err(ServeError::Dotenv(message));
        }
    }
    Ok(())
}

/// Warnings about the parts of a `.env` file that have no effect.
fn warnings_of(dotenv: &Dotenv) -> Vec<Warning> {
    let warning =
        |line: usize, message: &str| Warning::new(DOTENV, format!("line {line} {message}"));
    let skipped = dotenv.unreadable.iter().map(|it| warning(it.line, "is not NAME=value: skipped"));
    let empty = dotenv.without_value.iter().map(|line| warning(*line, "has no =: it sets nothing"));
    let unset = dotenv.unset.iter().map(|line| {
        warning(*line, "has a ${NAME} that is not set and has no default: it became empty")
    });
    let in_lower_case = dotenv.values.keys().filter_map(|name| {
        let known = NAMES.iter().find(|known| name.eq_ignore_ascii_case(known))?;
        let message = format!("a name in lower case has no effect: write {known}");
        (name != known).then(|| Warning::new(DOTENV, message))
    });
    skipped.chain(empty).chain(unset).chain(in_lower_case).collect()
}

/// Adds the values from the files named by `NAME_FILE`.
fn read_files(vars: &mut Vec<(String, String)>) -> Result<(), SettingsError> {
    let mut errors = Vec::new();
    for name in secret_names() {
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
        // The message leaves out the path: it may be a secret, set under the wrong name.
        match read_file(&path) {
            Ok(value) => vars.push((name.to_owned(), value)),
            Err(cause) => errors.push(format!("{file} must be a text file to read: {cause}")),
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(SettingsError(errors)) }
}

fn read_file(path: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("it has more than 64 KiB"));
    }
    // An empty file is an error: the server would otherwise start without the configured secret.
    match text.trim_end_matches(['\r', '\n']) {
        text if text.trim().is_empty() => Err(io::Error::other("it is empty")),
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "e3b0c44298fc1c149afbf4c8996fb924";

    fn read(dotenv: &str, environment: &[(&str, &str)]) -> Result<Settings, String> {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        from_sources(Some(dotenv), environment).map_err(|error| error.to_string())
    }

    fn warnings(dotenv: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let settings = read(dotenv, environment).unwrap();
        settings.warnings().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let dotenv = "PROJECT_NAME=My Todo API\nPORT=1\nHOST=${OUTER}\n";
        let settings = read(dotenv, &[("PORT", "2"), ("OUTER", "::1")]).unwrap();
        assert_eq!((&*settings.project_name, settings.port), ("My Todo API", 2));
        assert!(settings.host.is_ipv6());
        assert_eq!(read(dotenv, &[("OUTER", "::1"), ("PORT", "")]).unwrap().port, 8000, "no value");
    }

    #[test]
    fn invalid_lines_of_other_programs_are_skipped_with_a_numbered_warning() {
        let dotenv = "# a\nnpm run dev\n\nport=1\nPORT\nPROJECT_NAME=a${NONE}\nPORT_FILE=x\n";
        let warnings = warnings(dotenv, &[]);
        assert_eq!(
            warnings,
            [
                ".env: line 2 is not NAME=value: skipped",
                ".env: line 5 has no =: it sets nothing",
                ".env: line 6 has a ${NAME} that is not set and has no default: it became empty",
                ".env: a name in lower case has no effect: write PORT",
                "PORT_FILE: has no effect: this setting is not read from a file",
            ]
        );
    }

    /// Otherwise another value would be used, or a secret created, without a warning.
    #[test]
    fn an_invalid_line_with_the_name_of_a_setting_is_an_error() {
        for line in [
            "SECRET_KEY='hunter2",
            "SECRET_KEY=\"hunter2\" hunter2",
            "export SECRET_KEY hunter2",
            "SECRET_KEY: hunter2",
            "SECRET_KEY_FILE hunter2",
        ] {
            let error = read(&format!("A=1\n\n{line}\n"), &[]).unwrap_err();
            assert!(error.starts_with("cannot read .env: line 3: SECRET_KEY "), "{line}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_setting_that_is_not_utf8_is_rejected() {
        use std::os::unix::ffi::OsStringExt;
        let with = |name: &str| {
            let value = OsString::from_vec(vec![b'a', 0xff]);
            from_sources(None, [(name.into(), value)]).map_err(|error| error.to_string())
        };
        for name in ["SECRET_KEY", "SECRET_KEY_FILE", "PORT"] {
            let error = with(name).unwrap_err();
            assert_eq!(error, format!("bad settings: {name} must be UTF-8"));
        }
        assert!(with("OTHER").is_ok());
    }

    #[test]
    fn an_example_secret_is_one_warning_outside_of_production() {
        let dotenv = "SECRET_KEY=your-super-secret-key-change-in-production\n";
        assert_eq!(warnings(dotenv, &[]).len(), 1);
        let overridden = warnings(dotenv, &[("SECRET_KEY", SECRET)]);
        assert!(overridden.is_empty(), "the environment wins: {overridden:?}");
        let error = read(dotenv, &[("ENVIRONMENT", "production")]).unwrap_err();
        assert!(error.contains("SECRET_KEY must be a secret of your own"), "{error}");
    }

    #[cfg(not(feature = "otlp"))]
    #[test]
    fn traces_without_the_otlp_feature_are_a_warning() {
        let endpoint = [(TRACES, "http://localhost:4318")];
        assert_eq!(warnings("", &endpoint).len(), 1);
        assert_eq!(warnings("OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318", &[]).len(), 1);
    }
}
