//! Account commands for operators, beside a running server: list accounts, delete one with all its
//! data, reset a password. No password hash leaves the database.

use chrono::{DateTime, Utc};
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use uuid::Uuid;

use super::{AdminError, Conn, DriverResult, on, open_existing};
use crate::{
    auth::{Email, Password},
    crypto::hashing,
    db::value::Timestamp,
    error::BoxError,
};

/// Accounts per page.
const PAGE_SIZE: i64 = 500;
/// Length of a generated password in characters: 116 bits.
const PASSWORD_CHARS: usize = 20;
/// Characters of generated passwords: letters and digits without look-alikes.
const ALPHABET: &[u8; 56] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789";

/// One account, with the sizes of its data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// Unique id.
    pub id: Uuid,
    /// E-mail address.
    pub email: String,
    /// Display name of the user.
    pub name: String,
    /// Creation time.
    pub created_at: DateTime<Utc>,
    /// Number of sessions, including expired ones that are not yet deleted.
    pub sessions: i64,
    /// Number of todos.
    pub todos: i64,
}

struct AccountRow(Account);

impl<'r, R> FromRow<'r, R> for AccountRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self(Account {
            id: row.try_get(0)?,
            email: row.try_get(1)?,
            name: row.try_get(2)?,
            created_at: row.try_get::<Timestamp, _>(3)?.0,
            sessions: row.try_get(4)?,
            todos: row.try_get(5)?,
        }))
    }
}

/// An account that its user has deleted is none: the servers delete its rows.
macro_rules! select_account {
    ($rest:literal) => {
        concat!(
            "SELECT id, email, name, created_at, \
             (SELECT count(*) FROM sessions WHERE user_id = users.id), \
             (SELECT count(*) FROM todos WHERE user_id = users.id) FROM users \
             WHERE deleted_at IS NULL AND ",
            $rest
        )
    };
}

/// Reads all accounts ordered by e-mail address and passes them to `on_page` in pages of at most
/// 500, until the last page or until it returns false. An account that exists throughout is read
/// exactly once.
///
/// # Errors
/// [`AdminError`].
pub async fn users(
    url: &str,
    mut on_page: impl FnMut(&[Account]) -> bool,
) -> Result<(), AdminError> {
    let mut conn = open_todo_database(url).await?;
    let mut after = String::new();
    loop {
        // No address is empty.
        let sql = select_account!("email > $1 ORDER BY email LIMIT $2");
        let page: Vec<AccountRow> = on!(&mut conn, c => {
            sqlx::query_as(sql).bind(&after).bind(PAGE_SIZE).fetch_all(c).await
        })?;
        let page: Vec<Account> = page.into_iter().map(|AccountRow(account)| account).collect();
        let Some(last) = page.last() else { break };
        after.clone_from(&last.email);
        if !on_page(&page) {
            break;
        }
    }
    conn.close().await
}

/// Finds the account with this e-mail address, in any spelling.
///
/// # Errors
/// [`AdminError`]; [`AdminError::Refused`] if there is none.
pub async fn find_user(url: &str, email: &str) -> Result<Account, AdminError> {
    let mut conn = open_todo_database(url).await?;
    let account = find(&mut conn, email).await?;
    conn.close().await?;
    Ok(account)
}

/// Deletes the account with this id, its sessions and its todos. Returns the deleted account.
///
/// # Errors
/// [`AdminError`]; [`AdminError::Refused`] if there is none.
pub async fn delete_user(url: &str, id: Uuid) -> Result<Account, AdminError> {
    let mut conn = open_todo_database(url).await?;
    begin(&mut conn).await?;
    let sql = match &conn {
        Conn::Sqlite(_) => select_account!("id = $1"),
        // Concurrent inserts for this account wait for the lock, then fail.
        Conn::Postgres(_) => select_account!("id = $1 FOR UPDATE"),
    };
    let found: Option<AccountRow> =
        on!(&mut conn, c => sqlx::query_as(sql).bind(id).fetch_optional(c).await)?;
    let AccountRow(account) = found.ok_or_else(no_such_account)?;
    // The rest goes with the user. Todos that are deleted before would each be logged.
    let sql = "DELETE FROM users WHERE id = $1";
    on!(&mut conn, c => sqlx::query(sql).bind(id).execute(c).await.map(drop))?;
    conn.execute("COMMIT").await?;
    conn.close().await?;
    Ok(account)
}

/// Sets a new password for the account with this id and ends its sessions. The password is
/// generated, returned and not stored in plain text.
///
/// # Errors
/// [`AdminError`]; [`AdminError::Refused`] if there is no such account.
pub async fn reset_password(url: &str, id: Uuid) -> Result<String, AdminError> {
    const UPDATE: &str = "UPDATE users SET password_hash = $2 WHERE id = $1 AND deleted_at IS NULL";
    const END: &str = "DELETE FROM sessions WHERE user_id = $1";
    let (text, password) = generate()?;
    let hash =
        hashing::hash_blocking(&password).map_err(|error| AdminError::Sql(BoxError::new(error)))?;
    let mut conn = open_todo_database(url).await?;
    begin(&mut conn).await?;
    let changed = on!(&mut conn, c => {
        sqlx::query(UPDATE).bind(id).bind(hash).execute(c).await.map(|done| done.rows_affected())
    })?;
    if changed == 0 {
        return Err(no_such_account());
    }
    on!(&mut conn, c => sqlx::query(END).bind(id).execute(c).await.map(drop))?;
    conn.execute("COMMIT").await?;
    if let Conn::Postgres(c) = &mut conn {
        // Waits for a concurrent login with the old password and ends its session too.
        let mut transaction = sqlx::Connection::begin(c).await.or_admin_error()?;
        let lock = "SELECT id FROM users WHERE id = $1 FOR UPDATE";
        sqlx::query(lock).bind(id).execute(&mut *transaction).await.or_admin_error()?;
        sqlx::query(END).bind(id).execute(&mut *transaction).await.or_admin_error()?;
        transaction.commit().await.or_admin_error()?;
    }
    conn.close().await?;
    Ok(text)
}

/// Connects to a database that must have this program's tables.
async fn open_todo_database(url: &str) -> Result<Conn, AdminError> {
    let mut conn = open_existing(url).await?;
    for table in ["users", "sessions", "todos", "todo_counts"] {
        if !conn.has_table(table).await? {
            let why = format!("The database has no table {table}: it is not of this program.");
            return Err(AdminError::Refused(why));
        }
    }
    Ok(conn)
}

async fn begin(conn: &mut Conn) -> Result<(), AdminError> {
    conn.execute(match conn {
        Conn::Sqlite(_) => "BEGIN IMMEDIATE",
        Conn::Postgres(_) => "BEGIN",
    })
    .await
}

async fn find(conn: &mut Conn, email: &str) -> Result<Account, AdminError> {
    // An address that breaks today's rules matches literally.
    let parsed = Email::parse(email);
    let (stored, ascii) = match &parsed {
        Ok(email) => (email.as_str(), email.in_ascii()),
        Err(_) => (email, email),
    };
    let sql = select_account!("email IN ($1, $2, $3) ORDER BY created_at");
    let found: Vec<AccountRow> = on!(conn, c => {
        sqlx::query_as(sql).bind(stored).bind(ascii).bind(email).fetch_all(c).await
    })?;
    found.into_iter().next().map(|AccountRow(account)| account).ok_or_else(no_such_account)
}

fn no_such_account() -> AdminError {
    AdminError::Refused("There is no such account.".into())
}

/// Generates a password that meets the signup rules.
fn generate() -> Result<(String, Password), AdminError> {
    loop {
        let mut text = String::with_capacity(PASSWORD_CHARS);
        while text.len() < PASSWORD_CHARS {
            let mut bytes = [0; PASSWORD_CHARS];
            getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
            let chars = bytes.iter().filter_map(|byte| {
                // Bytes from 224 (four times the alphabet) are dropped: all characters are equally
                // likely.
                let index = usize::from(*byte);
                let char = (index < 4 * ALPHABET.len()).then(|| index % ALPHABET.len());
                char.and_then(|index| ALPHABET.get(index)).copied().map(char::from)
            });
            text.extend(chars.take(PASSWORD_CHARS - text.len()));
        }
        if let Ok(password) = Password::parse(&text) {
            return Ok((text, password));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_passwords_meet_the_rules_and_differ() {
        let passwords: std::collections::HashSet<_> =
            (0..200).map(|_| generate().unwrap().0).collect();
        assert_eq!(passwords.len(), 200);
        let bytes = |text: &String| text.bytes().all(|byte| ALPHABET.contains(&byte));
        assert!(passwords.iter().all(|text| text.len() == PASSWORD_CHARS && bytes(text)));
    }
}
