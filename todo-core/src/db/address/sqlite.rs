//! The address of an SQLite file.
//!
//! `sqlite:` is parsed as sqlx does: `sqlite://FILE` and `sqlite:FILE` are relative to the working
//! directory, `sqlite:///FILE` is absolute. With a SQLAlchemy driver, `:///FILE` is relative and
//! `:////FILE` absolute. `/./` and `/../` after the two slashes can only be meant as relative.

use std::path::{Path, PathBuf};

use super::{decoded, one_of, parameters};

const NO_FILE: &str = "it names no file: use sqlite://FILE, or sqlite::memory: to store nothing";

/// The address of an SQLite database, and the permitted access to its file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SqliteAddress {
    /// `None` in memory.
    file: Option<PathBuf>,
    pub(crate) mode: Mode,
}

/// The parameter `mode` (SQLite, "URI Filenames").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `rwc`, the default: a missing file is created.
    Create,
    /// `rw`: a missing file is an error.
    Existing,
    /// `ro`: read-only.
    Read,
}

impl SqliteAddress {
    /// Parses the part after the scheme and its colon.
    pub(super) fn parse(is_sqlalchemy: bool, rest: &str) -> Result<Self, String> {
        let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
        let name = if is_sqlalchemy {
            match name.strip_prefix("///") {
                Some(name) => name,
                None if name.trim_matches('/').is_empty() => return Err(NO_FILE.into()),
                None => {
                    return Err("three slashes precede a relative FILE, four an absolute one, \
                                    as in sqlite+aiosqlite:///FILE"
                        .into());
                }
            }
        } else {
            let name = name.strip_prefix("//").unwrap_or(name);
            match name.strip_prefix('/') {
                Some(relative)
                    if relative.starts_with("./")
                        || relative.starts_with("../")
                        || relative.starts_with("file:")
                        || relative == ":memory:" =>
                {
                    relative
                }
                _ => name,
            }
        };
        let (mut mode, mut in_memory) = (Mode::Create, name == ":memory:");
        for parameter in parameters(query) {
            let (name, Some(value)) = parameter? else {
                return Err("a parameter has no value; in a file's name, ? is %3F".into());
            };
            match &*name {
                "mode" => match &*value {
                    "rwc" => mode = Mode::Create,
                    "rw" => mode = Mode::Existing,
                    "ro" => mode = Mode::Read,
                    "memory" => in_memory = true,
                    _ => return Err("mode must be rwc, rw, ro or memory".into()),
                },
                // Connections share no cache; a shared one would make no visible difference.
                "cache" => one_of(&name, &value, &["shared", "private"])?,
                "immutable" => one_of(&name, &value, &["false", "0"])?,
                // SQLAlchemy's, for Python's driver only.
                "uri" | "timeout" | "check_same_thread" | "cached_statements" | "detect_types"
                | "isolation_level" => {}
                name => return Err(super::unknown(name, "mode and cache are")),
            }
        }
        if in_memory {
            return Ok(Self { file: None, mode: Mode::Create });
        }
        let path = decoded(uri_path(name)?, "the file's name")?;
        if path.trim_start_matches('/').is_empty() {
            return Err(NO_FILE.into());
        }
        if path.ends_with('/') {
            return Err("it names a directory instead of a file".into());
        }
        // SQLite itself would not treat these as the name of a file.
        let is_special = path.starts_with("file:") || path == ":memory:";
        let path = if is_special { Path::new(".").join(path) } else { path.into() };
        Ok(Self { file: Some(path), mode })
    }

    /// The file, unless the database is in memory.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    pub(super) fn shown(&self) -> String {
        let Some(file) = &self.file else { return "sqlite::memory:".into() };
        let mode = match self.mode {
            Mode::Create => "",
            Mode::Existing => "?mode=rw",
            Mode::Read => "?mode=ro",
        };
        format!("sqlite://{}{mode}", file.display())
    }
}

/// The path of a `file:` URI (SQLite, "URI Filenames"); another name is the path itself.
fn uri_path(name: &str) -> Result<&str, String> {
    let Some(path) = name.strip_prefix("file:") else { return Ok(name) };
    if path.contains('#') {
        return Err("in a file: address, # is %23".into());
    }
    let Some(rest) = path.strip_prefix("//") else { return Ok(path) };
    match rest.find('/').map(|at| rest.split_at(at)) {
        Some(("" | "localhost", path)) => Ok(path),
        _ => Err("file:// is followed by an absolute path, with no host".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Address, *};

    fn read(url: &str) -> SqliteAddress {
        match Address::parse(url) {
            Ok(Address::Sqlite(address)) => address,
            #[cfg(feature = "postgres")]
            Ok(_) => panic!("{url} is of another database"),
            Err(error) => panic!("{url}: {error}"),
        }
    }

    #[test]
    #[rustfmt::skip] // a table
    fn documented_addresses_are_parsed_as_documented() {
        for (url, file, mode) in [
            // sqlx, SqliteConnectOptions
            ("sqlite:data.db", "data.db", Mode::Create),
            ("sqlite://data.db", "data.db", Mode::Create),
            ("sqlite:///data.db", "/data.db", Mode::Create),
            ("sqlite:////srv/data.db", "//srv/data.db", Mode::Create),
            ("sqlite:/srv/data.db", "/srv/data.db", Mode::Create),
            ("sqlite://data.db?mode=ro", "data.db", Mode::Read),
            ("sqlite://data.db?mode=rw", "data.db", Mode::Existing),
            ("sqlite://todo.db?mode=rwc", "todo.db", Mode::Create),
            ("sqlite:///srv/todo.db?mode=rwc&cache=private", "/srv/todo.db", Mode::Create),
            ("sqlite://a.db?cache=shared&immutable=false", "a.db", Mode::Create),
            ("sqlite://a%3Fb%23c%20d%25.db", "a?b#c d%.db", Mode::Create),
            ("sqlite://a#b+c.db?mode=rwc", "a#b+c.db", Mode::Create),
            ("sqlite://./a.db", "./a.db", Mode::Create),
            ("sqlite://../a.db", "../a.db", Mode::Create),
            // SQLAlchemy, "SQLite"; the first one is FastAPI's
            ("sqlite:///./sql_app.db", "./sql_app.db", Mode::Create),
            ("sqlite:///../sql_app.db", "../sql_app.db", Mode::Create),
            ("sqlite+aiosqlite:///./x.db", "./x.db", Mode::Create),
            ("sqlite+aiosqlite:///x.db", "x.db", Mode::Create),
            ("sqlite+aiosqlite:////srv/x.db", "/srv/x.db", Mode::Create),
            ("sqlite+pysqlite:///x.db?timeout=10&check_same_thread=false", "x.db", Mode::Create),
            ("sqlite:///file:path/to/database?mode=ro&uri=true", "path/to/database", Mode::Read),
            ("sqlite+pysqlite:///file:/srv/x.db?uri=true", "/srv/x.db", Mode::Create),
            // SQLite, "URI Filenames"
            ("sqlite:file:data.db", "data.db", Mode::Create),
            ("sqlite://file:data.db?mode=rwc", "data.db", Mode::Create),
            ("sqlite:file:/home/fred/data.db", "/home/fred/data.db", Mode::Create),
            ("sqlite:file:///home/fred/data.db", "/home/fred/data.db", Mode::Create),
            ("sqlite:file://localhost/home/fred/data.db", "/home/fred/data.db", Mode::Create),
            // Names that SQLite would not treat as a file are files too.
            ("sqlite://%66ile:x.db", "./file:x.db", Mode::Create),
            ("sqlite://%3Amemory:", "./:memory:", Mode::Create),
        ] {
            let address = read(url);
            assert_eq!((address.file(), address.mode), (Some(Path::new(file)), mode), "{url}");
        }
        for url in [
            "sqlite::memory:",
            "sqlite://:memory:",
            "sqlite::memory:?cache=shared",
            "sqlite://?mode=memory",
            "sqlite:file:x.db?mode=memory&cache=shared",
            "sqlite:///:memory:",
            "sqlite+aiosqlite:///:memory:",
        ] {
            assert_eq!(read(url).file(), None, "{url}");
        }
    }

    #[test]
    fn an_error_names_the_unknown_part() {
        for (url, named) in [
            ("sqlite:", "names no file"),
            ("sqlite://", "names no file"),
            ("sqlite:////", "names no file"),
            ("sqlite://?mode=rwc", "names no file"),
            ("sqlite+aiosqlite://", "names no file"),
            ("sqlite+aiosqlite://x.db", "three slashes"),
            ("sqlite+aiosqlite:x.db", "three slashes"),
            ("sqlite:///srv/", "directory"),
            ("sqlite://x.db?mode=write", "mode must be"),
            ("sqlite://x.db?cache=none", "cache must be"),
            ("sqlite://x.db?immutable=1", "immutable must be"),
            ("sqlite://x.db?vfs=unix-none", "the parameter vfs "),
            ("sqlite://x.db?nolock=1", "the parameter nolock "),
            ("sqlite://what?.db", "%3F"),
            ("sqlite:file:a#b.db", "%23"),
            ("sqlite:file://host/x.db", "no host"),
            ("sqlite://x%00.db", "U+0000"),
            ("sqlite://x%FF.db", "UTF-8"),
            ("sqlite+other:///x.db", "begins with"),
        ] {
            let Err(error) = Address::parse(url) else { panic!("{url} is accepted") };
            assert!(error.contains(named), "{url}: {error}");
        }
    }

    #[test]
    fn an_address_is_shown_as_parsed() {
        for (url, as_shown) in [
            ("sqlite://todo.db?mode=rwc", "sqlite://todo.db"),
            ("sqlite+aiosqlite:////srv/x.db", "sqlite:///srv/x.db"),
            ("sqlite://x.db?mode=ro", "sqlite://x.db?mode=ro"),
            ("sqlite://?mode=memory", "sqlite::memory:"),
        ] {
            assert_eq!(Address::parse(url).unwrap().shown(), as_shown, "{url}");
        }
    }
}
