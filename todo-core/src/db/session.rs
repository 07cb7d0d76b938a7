//! A session of PostgreSQL: what is set on it when it is new, and which errors say that it is of no
//! further use. An error of the session, unlike one of the statement, comes again with every call.

use std::time::Duration;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::is_connectivity;

/// What is set on a new session, whatever the defaults of its database or role are. By SET, not as
/// start-up parameters: poolers refuse those that they do not know, and a session of its own keeps
/// what is set. The driver sets `client_encoding`, `DateStyle` and `TimeZone` itself.
///
/// `call` is the longest that a call may take.
pub(super) fn settings(call: Duration, server_version: Option<u32>) -> String {
    // Shorter than the call's own deadline: a row that somebody holds is then told by the server, and
    // does not look like a server that has gone silent.
    let timeout_ms = (call * 3 / 4).as_millis().max(1);
    let mut set = format!(
        "SET statement_timeout = {timeout_ms}; SET lock_timeout = {timeout_ms}; \
         SET idle_in_transaction_session_timeout = 10000; \
         SET default_transaction_isolation = 'read committed'; \
         SET standard_conforming_strings = on"
    );
    if server_version.is_some_and(|version| version >= 170_000) {
        set.push_str("; SET transaction_timeout = 0");
    }
    set
}

/// What an error of a statement says of the session that it came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// It is as good as before.
    Good,
    /// It can only fail, or its state is not known. It is to be closed.
    Over,
    /// As [`Session::Over`], and so are probably all that are as old. The statement had no effect for
    /// sure, and may succeed on a new session.
    Outdated,
    /// As [`Session::Outdated`], unless it is the server that may not be written to now.
    ReadOnly,
}

impl Session {
    pub(super) fn after(error: &sqlx::Error) -> Self {
        let sqlx::Error::Database(database) = error else { return Self::Over };
        let code = database.code().unwrap_or_default();
        let server = database.try_downcast_ref::<PgDatabaseError>();
        let is = |severity| server.is_some_and(|error| error.severity() == severity);
        // SQLSTATE (PostgreSQL, appendix A).
        match &*code {
            _ if is_connectivity(error) || is(PgSeverity::Fatal) || is(PgSeverity::Panic) => {
                Self::Over
            }
            // A kept plan no longer fits its tables. The code alone means any missing feature.
            "0A000"
                if server.and_then(PgDatabaseError::routine) == Some("RevalidateCachedQuery") =>
            {
                Self::Outdated
            }
            // No such prepared statement; one of this name is there; inside a failed transaction.
            "26000" | "42P05" | "25P02" => Self::Outdated,
            "25006" => Self::ReadOnly,
            // Other states of a transaction, which nothing here begins; no such cursor, or one of this
            // name is there; an internal error.
            code if code.starts_with("25") || code.starts_with("XX") => Self::Over,
            "34000" | "42P03" => Self::Over,
            _ => Self::Good,
        }
    }
}

/// Whether a server, or the pooler before it, refused a connection because it has no place for one.
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    error.code().is_some_and(|code| code == "53300")
        // PgBouncer and Supavisor have other codes for it.
        || ["no more connections allowed", "max clients reached", "MaxClientsInSessionMode"]
            .iter()
            .any(|text| error.message().contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_what_its_server_knows() {
        let call = Duration::from_millis(1800);
        let old = settings(call, Some(130_000));
        assert!(old.contains("statement_timeout = 1350;"), "{old}");
        assert!(!old.contains("transaction_timeout"), "{old}");
        assert!(settings(call, Some(170_002)).ends_with("; SET transaction_timeout = 0"));
        assert!(settings(Duration::ZERO, None).contains("lock_timeout = 1;"));
    }

    #[test]
    fn an_error_that_is_no_answer_ends_the_session() {
        assert_eq!(Session::after(&sqlx::Error::WorkerCrashed), Session::Over);
    }
}
