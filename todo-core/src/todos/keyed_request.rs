//! The key of a request whose answer is known only after its statements: the answer is stored by a
//! further one, in their transaction.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    IdempotencyKey,
    bulk::{Text, both},
    idempotency::{KEY_LIFETIME, hash, stored_answer},
};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{DbError, Dialect, FromRow, Row, Statement, value::Timestamp},
    error::{Error, Result},
};

/// The status of an answer.
pub(super) const OK: i16 = 200;
/// A user's stored answers of more than 8 KiB have at most this size together. The
/// one that exceeds it is stored: it has at most a few MB.
const MAX_STORED_BYTES: u64 = 32 << 20;

/// SQL expression for the size of an answer in bytes.
macro_rules! size {
    (Sqlite) => {
        "length(CAST(answer AS BLOB))"
    };
    (Postgres) => {
        "octet_length(answer)"
    };
}

/// SQL query of the row of a [`KeyState`]. An index has the long answers of a user, which count
/// towards [`MAX_STORED_BYTES`].
macro_rules! find {
    ($dialect:ident) => {
        concat!(
            "SELECT ",
            authorized!(),
            ", fingerprint, answer, made_at, (SELECT coalesce(sum(",
            size!($dialect),
            "), 0) FROM idempotency WHERE user_id = $1 AND ",
            size!($dialect),
            " > 8192) FROM (SELECT 1 AS one) AS one \
             LEFT JOIN idempotency ON user_id = $1 AND key = $4"
        )
    };
}

/// A key, and a hash of the request that it belongs to: for a script that makes an answer known
/// only after its statements, and stores it in their transaction.
///
/// It looks the key up first, so that a repetition changes nothing. Two requests at once may both
/// find none: then the unique index lets the second one wait, and rejects it.
#[derive(Clone, Debug)]
pub(super) struct KeyedRequest {
    caller: Caller,
    now: DateTime<Utc>,
    key: IdempotencyKey,
    fingerprint: Vec<u8>,
}

/// What is known of a key, and of its user: the row of [`KeyedRequest::find`].
#[derive(Clone, Debug)]
pub(super) struct KeyState {
    pub(super) is_authorized: bool,
    fingerprint: Option<Vec<u8>>,
    answer: Option<String>,
    made_at: Option<DateTime<Utc>>,
    stored_bytes: i64,
}

impl FromRow for KeyState {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self {
            is_authorized: row.get(0)?,
            fingerprint: row.get(1)?,
            answer: row.get(2)?,
            made_at: row.get::<Option<Timestamp>>(3)?.map(|time| time.0),
            stored_bytes: row.get(4)?,
        })
    }
}

/// What a key means for a request.
pub(super) enum KeyUse {
    /// No request had it, or the last one more than [`KEY_LIFETIME`] ago.
    Free { is_expired: bool },
    /// The same request had it; this was the answer.
    Repeated(String),
    /// Another request had it, or no further answer may be stored.
    Refused(Error),
}

impl KeyedRequest {
    /// A key and the request, which must contain all that the request does.
    pub(super) fn new(
        caller: Caller,
        now: DateTime<Utc>,
        key: IdempotencyKey,
        request: &impl Serialize,
    ) -> Result<Self> {
        Ok(Self { caller, now, key, fingerprint: hash(request)? })
    }

    /// The statement that returns the [`KeyState`].
    pub(super) fn find(&self, dialect: Dialect) -> Statement {
        const SQL: Text = both!(find);
        acting_as(self.caller, SQL.of(dialect)).bind(self.key.as_str())
    }

    /// Whether a stored answer is that to this request.
    pub(super) fn has_fingerprint(&self, fingerprint: &[u8]) -> bool {
        self.fingerprint == fingerprint
    }

    pub(super) fn judge(&self, state: &KeyState) -> KeyUse {
        match (&state.fingerprint, &state.answer, state.made_at) {
            (Some(fingerprint), Some(answer), Some(made_at))
                if made_at >= self.now - KEY_LIFETIME =>
            {
                if *fingerprint == self.fingerprint {
                    KeyUse::Repeated(answer.clone())
                } else {
                    KeyUse::Refused(Error::KeyReused)
                }
            }
            (found, ..) => {
                let used = state.stored_bytes.unsigned_abs();
                if used >= MAX_STORED_BYTES {
                    return KeyUse::Refused(Error::KeysFull { limit: MAX_STORED_BYTES, used });
                }
                KeyUse::Free { is_expired: found.is_some() }
            }
        }
    }

    /// The statement that deletes the key if it is expired.
    pub(super) fn free(&self) -> Statement {
        const SQL: &str = concat!(
            "DELETE FROM idempotency WHERE user_id = $1 AND key = $4 AND made_at < $5 AND ",
            authorized!()
        );
        acting_as(self.caller, SQL).bind(self.key.as_str()).bind(Timestamp(self.now - KEY_LIFETIME))
    }

    /// The statement that stores the answer, which has this status.
    pub(super) fn store(&self, status: i16, answer: String) -> Statement {
        const SQL: &str = concat!(
            "INSERT INTO idempotency (user_id, key, fingerprint, status, answer, made_at) \
             SELECT $1, $4, $5, $6, $7, $8 WHERE ",
            authorized!()
        );
        acting_as(self.caller, SQL)
            .bind(self.key.as_str())
            .bind(self.fingerprint.clone())
            .bind(status)
            .bind(answer)
            .bind(Timestamp(self.now))
    }

    /// The stored answer, for a request that failed: another one with this key may have taken
    /// effect meanwhile. [`Error::KeyReused`] if that was another request.
    pub(super) async fn replay(&self, core: &Core) -> Result<Option<String>> {
        match stored_answer(core, self.caller, &self.key, self.now).await? {
            None => Ok(None),
            Some(stored) if stored.fingerprint == self.fingerprint => Ok(Some(stored.answer)),
            Some(_) => Err(Error::KeyReused),
        }
    }
}
