//! Taking over the database of the Python backend, as SQLAlchemy made it: what its columns may be,
//! and which of its rows are good here. The source is read twice in one snapshot: once to find the
//! rows that break a rule, and only then, from the start again, to write.
//!
//! A few rows are held at a time, and beside them 32 bytes for each user: which ids there are, and
//! which addresses are taken.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use chrono::{DateTime, NaiveDateTime, SubsecRound, Utc};
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use sha2::{Digest, Sha256};
use sqlx::{Column, Row, ValueRef, sqlite::SqliteRow};
use uuid::Uuid;

use super::{
    Conn, Progress, TransferError,
    copy::{User, begin_empty, insert_todos, insert_users},
    migrate, migrations, open_existing, refuse_same,
};
use crate::{
    auth::{Email, Name, stored},
    error::{FieldError, Listed},
    text::Named,
    todos::{Description, Priority, Title, Todo},
};

/// Rows that are written at once.
const BATCH: usize = 500;
/// Bad rows that are told one by one.
const TOLD: usize = 100;
/// Characters of an id that are told; a good one has 36.
const ID_CHARS: usize = 64;

/// What was imported.
#[derive(Clone, Debug)]
pub struct Imported {
    /// How many users.
    pub users: u64,
    /// How many todos.
    pub todos: u64,
    /// Which rows were left out.
    pub left_out: BadRows,
}

/// The rows that break a rule.
#[derive(Clone, Debug, Default)]
pub struct BadRows {
    /// The first 100 of them.
    pub first: Vec<BadRow>,
    /// How many there are in all.
    pub count: u64,
}

/// One row that breaks a rule. It repeats no value but the id.
#[derive(Clone, Debug)]
pub struct BadRow {
    /// Of which table.
    pub table: &'static str,
    /// Its id as the source has it, escaped and cut to 64 characters.
    pub id: String,
    /// Every field that breaks a rule, and the rule.
    pub fields: Vec<FieldError>,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.table, self.id, Listed(&self.fields))
    }
}

/// Imports users and todos from the Python backend's database into one of this program, which is
/// migrated first and must have no rows. All or nothing. Rows that break a rule are left out if
/// `skip_invalid`; else one of them is enough to leave the target untouched.
///
/// # Errors
/// [`TransferError`]; [`TransferError::Invalid`] names the rows that break a rule.
pub async fn import(
    from: &str,
    to: &str,
    skip_invalid: bool,
    mut progress: impl FnMut(Progress),
) -> Result<Imported, TransferError> {
    refuse_same(from, to)?;
    let mut source = open_existing(from).await?;
    // Very likely the source itself, if it is another program's.
    migrations(to).await?;
    source.begin_snapshot().await?;
    if let Conn::Postgres(_) = source {
        source.run("SET LOCAL TIME ZONE 'UTC'").await?;
    }
    for table in ["users", "todos"] {
        if !source.has_table(table).await? {
            return Err(TransferError::Refused(format!("the source has no table {table}")));
        }
    }

    let mut bad = BadRows::default();
    let good = pass(&mut source, None, |row| bad.note(row), |_| ()).await?;
    if bad.count > 0 && !skip_invalid {
        return Err(TransferError::Invalid(bad));
    }

    migrate(to).await?;
    let mut target = open_existing(to).await?;
    begin_empty(&mut target).await?;
    let total = good.iter().sum();
    let mut done = 0;
    let on_batch = |n: usize| {
        done += n as u64;
        progress(Progress { done, total });
    };
    let written = pass(&mut source, Some(&mut target), |_| (), on_batch).await?;
    let [users, sessions, todos] = target.counts().await?.map(|n| u64::try_from(n).unwrap_or(0));
    if written != good || [users, sessions, todos] != [good[0], 0, good[1]] {
        let why = "what was written differs from what was read: nothing is kept";
        return Err(TransferError::Refused(why.into()));
    }
    target.run("COMMIT").await?;
    target.close().await?;
    source.close().await?;
    Ok(Imported { users, todos, left_out: bad })
}

impl BadRows {
    fn note(&mut self, row: BadRow) {
        self.count += 1;
        if self.first.len() < TOLD {
            self.first.push(row);
        }
    }
}

/// Reads everything in a fixed order, tells the bad rows and, if there is a target, writes the good
/// ones there. How many users and todos are good.
async fn pass(
    source: &mut Conn,
    mut target: Option<&mut Conn>,
    mut on_bad: impl FnMut(BadRow),
    mut on_batch: impl FnMut(usize),
) -> Result<[u64; 2], TransferError> {
    let mut rules = Rules::default();
    let mut good = [0, 0];

    let mut rows = rows_of(source, Table::Users).try_chunks(BATCH);
    while let Some(batch) = rows.try_next().await.map_err(|error| error.1)? {
        let mut users = Vec::with_capacity(batch.len());
        for row in &batch {
            match rules.user(row) {
                Ok(user) => users.push(user),
                Err(fields) => on_bad(row.bad("users", fields)),
            }
        }
        good[0] += users.len() as u64;
        if let Some(target) = target.as_deref_mut().filter(|_| !users.is_empty()) {
            insert_users(target, &users).await?;
            on_batch(users.len());
        }
    }
    drop(rows);

    let mut rows = rows_of(source, Table::Todos).try_chunks(BATCH);
    while let Some(batch) = rows.try_next().await.map_err(|error| error.1)? {
        let mut todos = Vec::with_capacity(batch.len());
        for row in &batch {
            match rules.todo(row) {
                Ok(todo) => todos.push(todo),
                Err(fields) => on_bad(row.bad("todos", fields)),
            }
        }
        good[1] += todos.len() as u64;
        if let Some(target) = target.as_deref_mut().filter(|_| !todos.is_empty()) {
            insert_todos(target, &todos).await?;
            on_batch(todos.len());
        }
    }
    Ok(good)
}

#[derive(Clone, Copy)]
enum Table {
    Users,
    Todos,
}

/// A row of the source as text by column, whatever the columns' types are.
struct Source(HashMap<String, Option<String>>);

/// The rows of a table. Of two users with one address the older one comes first, and is the good one.
fn rows_of(source: &mut Conn, table: Table) -> BoxStream<'_, Result<Source, TransferError>> {
    match source {
        Conn::Sqlite(c) => {
            let sql = match table {
                Table::Users => "SELECT * FROM users ORDER BY created_at, id",
                Table::Todos => "SELECT * FROM todos ORDER BY id",
            };
            Box::pin(sqlx::query(sql).fetch(c).map(|row| Source::of_sqlite(&row?)))
        }
        Conn::Postgres(c) => {
            let sql = match table {
                Table::Users => "SELECT to_jsonb(t)::text FROM users t ORDER BY created_at, id",
                Table::Todos => "SELECT to_jsonb(t)::text FROM todos t ORDER BY id",
            };
            Box::pin(
                sqlx::query_scalar::<_, String>(sql).fetch(c).map(|row| Source::of_json(&row?)),
            )
        }
    }
}

impl Source {
    fn of_sqlite(row: &SqliteRow) -> Result<Self, TransferError> {
        let mut fields = HashMap::new();
        for (i, column) in row.columns().iter().enumerate() {
            let is_null = row.try_get_raw(i)?.is_null();
            // SQLite gives any value as text.
            let value = if is_null { None } else { Some(row.try_get_unchecked(i)?) };
            fields.insert(column.name().to_owned(), value);
        }
        Ok(Self(fields))
    }

    fn of_json(row: &str) -> Result<Self, TransferError> {
        use serde_json::Value;
        let fields: HashMap<String, Value> =
            serde_json::from_str(row).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let text = |value| match value {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        };
        Ok(Self(fields.into_iter().map(|(name, value)| (name, text(value))).collect()))
    }

    fn field(&self, name: &'static str) -> Result<&str, FieldError> {
        let message = || format!("{} cannot be null.", Named(name));
        self.optional(name).ok_or_else(|| FieldError::new(name, "required", message()))
    }

    fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Vec<FieldError>>,
    ) -> Result<T, Vec<FieldError>> {
        parse(self.field(name)?)
    }

    fn optional(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_deref()
    }

    fn uuid(&self, name: &'static str) -> Result<Uuid, FieldError> {
        Uuid::try_parse(self.field(name)?).map_err(|_| {
            FieldError::new(name, "invalid", format!("{} must be a UUID.", Named(name)))
        })
    }

    fn time(&self, name: &'static str) -> Result<DateTime<Utc>, FieldError> {
        let message = || format!("{} must be a date and time.", Named(name));
        time_of(self.field(name)?).ok_or_else(|| FieldError::new(name, "invalid", message()))
    }

    fn optional_time(&self, name: &'static str) -> Result<Option<DateTime<Utc>>, FieldError> {
        self.optional(name).map(|_| self.time(name)).transpose()
    }

    fn bad(&self, table: &'static str, fields: Vec<FieldError>) -> BadRow {
        let id = self.optional("id").unwrap_or("without an id");
        let id = id.chars().take(ID_CHARS).collect::<String>().escape_debug().to_string();
        BadRow { table, id, fields }
    }
}

/// A time as either database writes it; without an offset it is UTC. In whole microseconds.
fn time_of(text: &str) -> Option<DateTime<Utc>> {
    let with_offset = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    let naive = |format| NaiveDateTime::parse_from_str(text, format).map(|time| time.and_utc());
    with_offset
        .or_else(|_| naive("%Y-%m-%dT%H:%M:%S%.f"))
        .or_else(|_| naive("%Y-%m-%d %H:%M:%S%.f"))
        .ok()
        .map(|time| time.trunc_subsecs(6))
}

/// What a row must be, by itself and beside the rows before it.
#[derive(Default)]
struct Rules {
    users: HashSet<Uuid>,
    /// Half a SHA-256 of each address: no two are alike but by equal addresses.
    emails: HashSet<[u8; 16]>,
    /// Two spellings of one id are two rows to a source that keeps ids as text.
    todos: HashSet<Uuid>,
}

impl Rules {
    fn user(&mut self, row: &Source) -> Result<User, Vec<FieldError>> {
        let mut errors = Errors::default();
        let id = errors.note(row.uuid("id"));
        let email = errors.note(row.parsed("email", Email::parse));
        let name = errors.note(row.parsed("name", printable_name));
        let password_hash = errors.note(password_hash(row));
        let created_at = errors.note(row.time("created_at"));
        let (Some(id), Some(email), Some(name), Some(password_hash), Some(created_at)) =
            (id, email, name, password_hash, created_at)
        else {
            return Err(errors.0);
        };
        let mut half = [0; 16];
        half.copy_from_slice(&Sha256::digest(email.as_str())[..16]);
        if self.emails.contains(&half) {
            let message = "Email must not be that of another user, in upper or lower case.";
            return Err(vec![FieldError::new("email", "taken", message)]);
        }
        if !self.users.insert(id) {
            let message = "Id must not be that of another user.";
            return Err(vec![FieldError::new("id", "taken", message)]);
        }
        self.emails.insert(half);
        let (email, name) = (email.as_str().to_owned(), name.as_str().to_owned());
        Ok(User { id, email, name, password_hash, created_at })
    }

    fn todo(&mut self, row: &Source) -> Result<Todo, Vec<FieldError>> {
        let mut errors = Errors::default();
        let id = errors.note(row.uuid("id"));
        let user_id = errors.note(row.uuid("user_id").and_then(|id| {
            let message = "User id must be that of a user who is there and breaks no rule.";
            let known = self.users.contains(&id).then_some(id);
            known.ok_or_else(|| FieldError::new("user_id", "orphan", message))
        }));
        let title = errors.note(row.parsed("title", Title::parse));
        let description =
            errors.note(row.optional("description").map(Description::parse).transpose());
        // SQLAlchemy keeps an enum's names, which are upper case by custom, and not its values.
        let priority = row.field("priority").map(str::to_ascii_lowercase);
        let priority = errors.note(priority.and_then(|word| Priority::parse(&word)));
        let completed = errors.note(row.field("completed").and_then(boolean));
        let created_at = errors.note(row.time("created_at"));
        let updated_at = errors.note(row.optional_time("updated_at"));
        let completed_at = errors.note(row.optional_time("completed_at"));
        let (Some(id), Some(user_id), Some(title), Some(description)) =
            (id, user_id, title, description)
        else {
            return Err(errors.0);
        };
        let (Some(priority), Some(completed), Some(created_at)) = (priority, completed, created_at)
        else {
            return Err(errors.0);
        };
        let (Some(updated_at), Some(completed_at)) = (updated_at, completed_at) else {
            return Err(errors.0);
        };
        if !self.todos.insert(id) {
            let message = "Id must not be that of another todo.";
            return Err(vec![FieldError::new("id", "taken", message)]);
        }
        // The two are read from the clock one after the other, in an order that nobody promised.
        let updated_at = updated_at.map_or(created_at, |time| time.max(created_at));
        Ok(Todo {
            id,
            user_id,
            title: title.as_str().to_owned(),
            description: description.map(|text| text.as_str().to_owned()),
            priority,
            completed,
            created_at,
            updated_at,
            completed_at: completed.then(|| completed_at.unwrap_or(updated_at)),
        })
    }
}

/// The name of an old account, with a blank for each control character: these were taken once, and
/// nobody is to lose an account over one.
fn printable_name(name: &str) -> Result<Name, Vec<FieldError>> {
    // U+0000 stays an error: it is no slip of a keyboard.
    let is_unfit = |c: char| c.is_control() && c != '\0';
    Name::parse(&name.replace(is_unfit, " "))
}

/// Under either of the two names that it has had.
fn password_hash(row: &Source) -> Result<String, FieldError> {
    let name =
        if row.optional("hashed_password").is_some() { "hashed_password" } else { "password_hash" };
    let stored = row.field(name)?;
    if stored::is_known(stored) {
        return Ok(stored.to_owned());
    }
    let message = format!("{} must be a hash by bcrypt or Argon2id.", Named(name));
    Err(FieldError::new(name, "unknown", message))
}

fn boolean(text: &str) -> Result<bool, FieldError> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(FieldError::new("completed", "invalid", "Completed must be true or false.")),
    }
}

/// Notes every field that breaks a rule.
#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn note<T>(&mut self, parsed: Result<T, impl Into<Vec<FieldError>>>) -> Option<T> {
        parsed.map_err(|errors| self.0.extend(errors.into())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_name_keeps_its_account() {
        assert_eq!(printable_name("\tAda\nLovelace\u{7f}").unwrap().as_str(), "Ada Lovelace");
        assert!(printable_name("Ada\0").is_err() && printable_name("\n\n\n").is_err());
    }

    #[test]
    fn times_with_and_without_a_zone_are_understood() {
        let noon = Some("2024-05-06T12:00:00.123456Z".parse().unwrap());
        for text in [
            "2024-05-06T12:00:00.123456",
            "2024-05-06T14:00:00.123456+02:00",
            "2024-05-06 12:00:00.123456",
            "2024-05-06 12:00:00.1234569",
            "2024-05-06 12:00:00.123456+00:00",
        ] {
            assert_eq!(time_of(text), noon, "{text}");
        }
        for text in ["", "infinity", "2024-05-06", "0044-03-15T00:00:00 BC", "1715000000"] {
            assert_eq!(time_of(text), None, "{text}");
        }
    }
}
