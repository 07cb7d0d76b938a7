//! The address of an SQLite file.
//!
//! `sqlite:` is read as sqlx reads it: `sqlite://FILE` and `sqlite:FILE` are relative to the working
//! directory, `sqlite:///FILE` is absolute. With a driver of SQLAlchemy's, `:///FILE` is relative and
//! `:////FILE` absolute. `/./` and `/../` behind the two slashes can only be meant relatively.

use std::path::{Path, PathBuf};

use super::{decoded, one_of, parameters};

const NO_FILE: &str = "it names no file: sqlite://FILE, or sqlite::memory: to keep nothing";

/// Where an SQLite database is, and what may be done to its file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SqliteAddress {
    /// `None` in memory.
    file: Option<PathBuf>,
    pub(crate) mode: Mode,
}

/// The parameter `mode` (SQLite, "URI Filenames").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `rwc`, the default: a file that is not there is made.
    Create,
    /// `rw`: a file that is not there is an error.
    Existing,
    /// `ro`: nothing is written.
    Read,
}

impl SqliteAddress {
    /// Reads what stands behind the scheme and its colon.
    pub(super) fn parse(is_sqlalchemy: bool, rest: &str) -> Result<Self, String> {
        let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
        let name = if is_sqlalchemy {
            match name.strip_prefix("///") {
                Some(name) => name,
                None if name.trim_matches('/').is_empty() => return Err(NO_FILE.into()),
                None => {
                    return Err("three slashes stand before a relative FILE, four before an \
                                    absolute one, as in sqlite+aiosqlite:///FILE"
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
                // Connections do not share a cache, and nobody sees whether they do.
                "cache" => one_of(&name, &value, &["shared", "private"])?,
                "immutable" => one_of(&name, &value, &["false", "0"])?,
                // SQLAlchemy's, for Python's driver alone.
                "uri" | "timeout" | "check_same_thread" | "cached_statements" | "detect_types"
                | "isolation_level" => {}
                name => return Err(super::unknown(name, "mode and cache are")),
            }
        }
        if in_memory {
            return Ok(Self { file: None, mode: Mode::Create });
        }
        let path = decoded(of_uri(name)?, "the file's name")?;
        if path.trim_start_matches('/').is_empty() {
            return Err(NO_FILE.into());
        }
        if path.ends_with('/') {
            return Err("it names a directory, and not a file".into());
        }
        // SQLite itself would take these for something else than a file's name.
        let is_special = path.starts_with("file:") || path == ":memory:";
        let path = if is_special { Path::new(".").join(path) } else { path.into() };
        Ok(Self { file: Some(path), mode })
    }

    /// The file, unless the database is in memory.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    #[cfg(feature = "server")]
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
fn of_uri(name: &str) -> Result<&str, String> {
    let Some(path) = name.strip_prefix("file:") else { return Ok(name) };
    if path.contains('#') {
        return Err("in a file: address, # is %23".into());
    }
    let Some(rest) = path.strip_prefix("//") else { return Ok(path) };
    match rest.find('/').map(|at| rest.split_at(at)) {
        Some(("" | "localhost", path)) => Ok(path),
        _ => Err("behind file:// stands an absolute path, and no host".into()),
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
    fn documented_addresses_are_read_as_their_documents_say() {
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
            // What SQLite would take for something else is a file all the same.
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
    fn what_is_not_understood_is_refused_by_name() {
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
            let Err(error) = Address::parse(url) else { panic!("{url} is taken") };
            assert!(error.contains(named), "{url}: {error}");
        }
    }

    #[cfg(feature = "server")]
    #[test]
    fn an_address_is_shown_as_it_is_understood() {
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
