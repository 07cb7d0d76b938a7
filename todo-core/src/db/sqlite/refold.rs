//! The function `refolded` of the statements that change a part of a folded text. PostgreSQL's is
//! in the migrations; no schema of SQLite uses it, so that other programs can open the file.

use rusqlite::{Connection, functions::FunctionFlags};

use crate::validate::FOLD_SEPARATOR;

/// Registers `refolded(search, title, tags, description)`: the folded text with new parts. A part
/// that is NULL is kept; a text that is NULL stays NULL, unless all parts are new.
pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("refolded", 4, flags, |arguments| {
        let text = |index| arguments.get_raw(index).as_str_or_null();
        let search = text(0)?;
        let new = [text(1)?, text(2)?, text(3)?];
        Ok(refold(search, new))
    })
}

fn refold(search: Option<&str>, new: [Option<&str>; 3]) -> Option<String> {
    if new == [None; 3] {
        return search.map(str::to_owned);
    }
    let mut old = search.map(|search| search.split(FOLD_SEPARATOR));
    let mut text = String::new();
    for (index, part) in new.into_iter().enumerate() {
        let kept = old.as_mut().and_then(Iterator::next);
        if index > 0 {
            text.push(FOLD_SEPARATOR);
        }
        text.push_str(part.or(kept)?);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_not_given_is_kept() {
        let old = Some("title\u{1e}tags\u{1e}description");
        assert_eq!(refold(old, [None; 3]).as_deref(), old);
        let new = refold(old, [Some("t"), None, None]);
        assert_eq!(new.as_deref(), Some("t\u{1e}tags\u{1e}description"));
        let new = refold(old, [None, Some(""), Some("d")]);
        assert_eq!(new.as_deref(), Some("title\u{1e}\u{1e}d"));
        assert_eq!(refold(None, [Some("t"), None, Some("d")]), None);
        let new = refold(None, [Some("t"), Some(""), Some("d")]);
        assert_eq!(new.as_deref(), Some("t\u{1e}\u{1e}d"));
    }
}
