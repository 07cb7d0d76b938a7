//! Accounts as an operator handles them, beside a running server: list them, delete one with all that
//! it has, give one a new password. No password hash leaves the database.

use chrono::{DateTime, Utc};
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use uuid::Uuid;

use super::{Conn, TransferError, on, open_existing};
use crate::{
    auth::{Email, Password, passwords},
    db::columns::Stamp,
    error::Cause,
};

/// Accounts that are held at once.
const PAGE: i64 = 500;
/// Characters of a generated password: 116 bits.
const PASSWORD_CHARS: usize = 20;
/// What it is made of: letters and digits that are not mistaken for each other.
const ALPHABET: &[u8; 56] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789";

/// One account, and how much it has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// Identifies it.
    pub id: Uuid,
    /// Its e-mail address.
    pub email: String,
    /// What its user is called.
    pub name: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// How many sessions it has, expired ones that are not swept yet among them.
    pub sessions: i64,
    /// How many todos it has.
    pub todos: i64,
}

impl<'r, R> FromRow<'r, R> for Account
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Stamp: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get(0)?,
            email: row.try_get(1)?,
            name: row.try_get(2)?,
            created_at: row.try_get::<Stamp, _>(3)?.0,
            sessions: row.try_get(4)?,
            todos: row.try_get(5)?,
        })
    }
}

macro_rules! select_account {
    ($rest:literal) => {
        concat!(
            "SELECT id, email, name, created_at, \
             (SELECT count(*) FROM sessions WHERE user_id = users.id), \
             (SELECT count(*) FROM todos WHERE user_id = users.id) FROM users ",
            $rest
        )
    };
}

/// Reads all accounts in the order of their addresses and hands them to `on_page`, at most 500 at
/// once, until there are no more or it returns false. One that is there throughout is seen once.
///
/// # Errors
/// [`TransferError`].
pub async fn users(
    url: &str,
    mut on_page: impl FnMut(&[Account]) -> bool,
) -> Result<(), TransferError> {
    let mut conn = open_ours(url).await?;
    let mut after = String::new();
    loop {
        // No address is empty.
        let sql = select_account!("WHERE email > $1 ORDER BY email LIMIT $2");
        let page: Vec<Account> = on!(&mut conn, c => {
            sqlx::query_as(sql).bind(&after).bind(PAGE).fetch_all(c).await
        })?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.email);
        if !on_page(&page) {
            break;
        }
    }
    conn.close().await
}

/// Reads the account with this address, in any of its spellings.
///
/// # Errors
/// [`TransferError`]; [`TransferError::Refused`] if there is none.
pub async fn find_user(url: &str, email: &str) -> Result<Account, TransferError> {
    let mut conn = open_ours(url).await?;
    let account = find(&mut conn, email).await?;
    conn.close().await?;
    Ok(account)
}

/// Deletes the account with this id, its sessions and its todos. How much it had.
///
/// # Errors
/// [`TransferError`]; [`TransferError::Refused`] if there is none.
pub async fn delete_user(url: &str, id: Uuid) -> Result<Account, TransferError> {
    let mut conn = open_ours(url).await?;
    begin(&mut conn).await?;
    let sql = match &conn {
        Conn::Sqlite(_) => select_account!("WHERE id = $1"),
        // What is made meanwhile waits for the account, and is then refused.
        Conn::Postgres(_) => select_account!("WHERE id = $1 FOR UPDATE"),
    };
    let found: Option<Account> =
        on!(&mut conn, c => sqlx::query_as(sql).bind(id).fetch_optional(c).await)?;
    let account = found.ok_or_else(no_such_account)?;
    for sql in [
        "DELETE FROM sessions WHERE user_id = $1",
        "DELETE FROM todos WHERE user_id = $1",
        "DELETE FROM users WHERE id = $1",
    ] {
        on!(&mut conn, c => sqlx::query(sql).bind(id).execute(c).await.map(drop))?;
    }
    conn.run("COMMIT").await?;
    conn.close().await?;
    Ok(account)
}

/// Gives the account with this id a new password, and ends its sessions. The password is generated and
/// kept nowhere else than in what is returned.
///
/// # Errors
/// [`TransferError`]; [`TransferError::Refused`] if there is no such account.
pub async fn reset_password(url: &str, id: Uuid) -> Result<String, TransferError> {
    const UPDATE: &str = "UPDATE users SET password_hash = $2 WHERE id = $1";
    const END: &str = "DELETE FROM sessions WHERE user_id = $1";
    let (text, password) = generate()?;
    let hash =
        passwords::hash_now(&password).map_err(|error| TransferError::Sql(Cause::new(error)))?;
    let mut conn = open_ours(url).await?;
    begin(&mut conn).await?;
    let changed = on!(&mut conn, c => {
        sqlx::query(UPDATE).bind(id).bind(hash).execute(c).await.map(|done| done.rows_affected())
    })?;
    if changed == 0 {
        return Err(no_such_account());
    }
    on!(&mut conn, c => sqlx::query(END).bind(id).execute(c).await.map(drop))?;
    conn.run("COMMIT").await?;
    if let Conn::Postgres(c) = &mut conn {
        // A login that found the old password a moment ago is waited for, and its session ends too.
        let mut transaction = sqlx::Connection::begin(c).await?;
        let lock = "SELECT id FROM users WHERE id = $1 FOR UPDATE";
        sqlx::query(lock).bind(id).execute(&mut *transaction).await?;
        sqlx::query(END).bind(id).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    conn.close().await?;
    Ok(text)
}

/// Opens a database that has this program's tables.
async fn open_ours(url: &str) -> Result<Conn, TransferError> {
    let mut conn = open_existing(url).await?;
    for table in ["users", "sessions", "todos", "todo_counts"] {
        if !conn.has_table(table).await? {
            let why = format!("The database has no table {table}: it is not of this program.");
            return Err(TransferError::Refused(why));
        }
    }
    Ok(conn)
}

async fn begin(conn: &mut Conn) -> Result<(), TransferError> {
    conn.run(match conn {
        Conn::Sqlite(_) => "BEGIN IMMEDIATE",
        Conn::Postgres(_) => "BEGIN",
    })
    .await
}

async fn find(conn: &mut Conn, email: &str) -> Result<Account, TransferError> {
    // A row that breaks today's rules can be named just as it is.
    let parsed = Email::parse(email);
    let (stored, ascii) = match &parsed {
        Ok(email) => (email.as_str(), email.in_ascii()),
        Err(_) => (email, email),
    };
    let sql = select_account!("WHERE email IN ($1, $2, $3) ORDER BY created_at");
    let found: Vec<Account> = on!(conn, c => {
        sqlx::query_as(sql).bind(stored).bind(ascii).bind(email).fetch_all(c).await
    })?;
    found.into_iter().next().ok_or_else(no_such_account)
}

fn no_such_account() -> TransferError {
    TransferError::Refused("There is no such account.".into())
}

/// A password that meets the rules of a signup.
fn generate() -> Result<(String, Password), TransferError> {
    loop {
        let mut text = String::with_capacity(PASSWORD_CHARS);
        while text.len() < PASSWORD_CHARS {
            let mut bytes = [0; PASSWORD_CHARS];
            getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
            let chars = bytes.iter().filter_map(|byte| {
                // 224 is four times the alphabet: each character is as likely.
                let index = usize::from(*byte);
                let char = (index < 4 * ALPHABET.len()).then(|| index % ALPHABET.len());
                char.and_then(|index| ALPHABET.get(index)).copied().map(char::from)
            });
            text.extend(chars.take(PASSWORD_CHARS - text.len()));
        }
        if let Ok(password) = Password::parse_new(&text) {
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
