//! PostgreSQL sessions: the settings of a new one, and the errors after which it must be closed. An
//! error of the session, unlike one of the statement, recurs with every call.

use std::time::Duration;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::is_connectivity;

/// The settings of a new session, which override the defaults of its database and role. They are
/// SET, not sent as startup parameters: poolers reject unknown parameters, and in session mode a
/// SET lasts. The driver sets `client_encoding`, `DateStyle` and `TimeZone` itself.
///
/// `call` is the timeout of a call.
pub(super) fn settings(call: Duration, server_version: Option<u32>) -> String {
    // Shorter than the call's timeout: the server then reports a locked row, which would otherwise
    // look like a dead server. To compile a statement (jit) takes 20 to 100 ms, more than it saves.
    let timeout_ms = (call * 3 / 4).as_millis().max(1);
    let mut set = format!(
        "SET statement_timeout = {timeout_ms}; SET lock_timeout = {timeout_ms}; \
         SET idle_in_transaction_session_timeout = 10000; \
         SET default_transaction_isolation = 'read committed'; \
         SET standard_conforming_strings = on; SET jit = off"
    );
    if server_version.is_some_and(|version| version >= 170_000) {
        set.push_str("; SET transaction_timeout = 0");
    }
    set
}

/// The state of a session after an error of a statement on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionState {
    /// It can run further statements.
    Usable,
    /// Further statements fail, or its state is unknown: it must be closed.
    Broken,
    /// As [`SessionState::Broken`], and probably so are all sessions of its age. The statement
    /// certainly had no effect, and may succeed on a new session.
    Outdated,
    /// As [`SessionState::Outdated`], unless the server itself is read-only now.
    ReadOnly,
}

impl SessionState {
    pub(super) fn after(error: &sqlx::Error) -> Self {
        let sqlx::Error::Database(database) = error else { return Self::Broken };
        let code = database.code().unwrap_or_default();
        let server = database.try_downcast_ref::<PgDatabaseError>();
        let is = |severity| server.is_some_and(|error| error.severity() == severity);
        // SQLSTATE (PostgreSQL, appendix A).
        match &*code {
            _ if is_connectivity(error) || is(PgSeverity::Fatal) || is(PgSeverity::Panic) => {
                Self::Broken
            }
            // A cached plan no longer matches its tables. The code alone means any missing feature.
            "0A000"
                if server.and_then(PgDatabaseError::routine) == Some("RevalidateCachedQuery") =>
            {
                Self::Outdated
            }
            // No such prepared statement; a statement of this name exists; in a failed transaction.
            "26000" | "42P05" | "25P02" => Self::Outdated,
            "25006" => Self::ReadOnly,
            // Other transaction states, although no transaction is begun here; no such cursor, or a
            // cursor of this name exists; an internal error.
            code if code.starts_with("25") || code.starts_with("XX") => Self::Broken,
            "34000" | "42P03" => Self::Broken,
            _ => Self::Usable,
        }
    }
}

/// Whether the server, or the pooler before it, refused a connection because it is full.
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    error.code().is_some_and(|code| code == "53300")
        // PgBouncer and Supavisor use other codes.
        || ["no more connections allowed", "max clients reached", "MaxClientsInSessionMode"]
            .iter()
            .any(|text| error.message().contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_gets_only_settings_that_its_server_supports() {
        let call = Duration::from_millis(1800);
        let old = settings(call, Some(130_000));
        assert!(old.contains("statement_timeout = 1350;"), "{old}");
        assert!(old.ends_with("; SET jit = off"), "{old}");
        assert!(!old.contains("transaction_timeout"), "{old}");
        assert!(settings(call, Some(170_002)).ends_with("; SET transaction_timeout = 0"));
        assert!(settings(Duration::ZERO, None).contains("lock_timeout = 1;"));
    }

    #[test]
    fn an_error_without_a_server_response_breaks_the_session() {
        assert_eq!(SessionState::after(&sqlx::Error::WorkerCrashed), SessionState::Broken);
    }
}
