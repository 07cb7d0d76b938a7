//! Imports the database of the Python backend, as SQLAlchemy created it: the accepted column
//! formats and the validation of rows. The source is read twice in one snapshot: first to find the
//! invalid rows, then to write the valid ones.
//!
//! Memory holds one batch of rows, plus 32 bytes per user and 16 per todo for ids and e-mail
//! addresses that are taken.

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
    AdminError, Conn, DriverResult, Progress,
    copy::{MoreColumns, TodoRow, UserRow, begin_empty, commit, insert_todos, insert_users},
    migrate, migrations, open_existing, refuse_same,
};
use crate::{
    auth::{Email, Name},
    crypto::stored_hash,
    error::{BoxError, FieldError, FieldErrors},
    todos::{Description, Priority, Title},
    validate::FieldLabel,
};

/// Rows per batch.
const BATCH_ROWS: usize = 500;
/// Maximum number of invalid rows listed one by one.
const MAX_LISTED: usize = 100;
/// Maximum length of an id in a report; a valid one has 36 characters.
const MAX_ID_CHARS: usize = 64;

/// Result of an import.
#[derive(Clone, Debug)]
pub struct ImportReport {
    /// Number of users.
    pub users: u64,
    /// Number of todos.
    pub todos: u64,
    /// Invalid rows that were skipped.
    pub skipped: InvalidRows,
}

/// Rows of the source that break a rule.
#[derive(Clone, Debug, Default)]
pub struct InvalidRows {
    /// The first 100.
    pub first: Vec<InvalidRow>,
    /// Total number.
    pub count: u64,
}

/// One row that breaks a rule. Includes no value other than the id.
#[derive(Clone, Debug)]
pub struct InvalidRow {
    /// Name of the table.
    pub table: &'static str,
    /// Its id as in the source, escaped and truncated to 64 characters.
    pub id: String,
    /// Each field that breaks a rule, with the rule.
    pub fields: FieldErrors,
}

impl fmt::Display for InvalidRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.table, self.id, self.fields)
    }
}

/// Imports users and todos from the Python backend's database into a database of this program,
/// which is migrated first and must have no rows. All or nothing. Invalid rows are skipped with
/// `skip_invalid`; without it, a single one leaves the target untouched.
///
/// # Errors
/// [`AdminError`]; [`AdminError::Invalid`] lists the invalid rows.
pub async fn import(
    from: &str,
    to: &str,
    skip_invalid: bool,
    mut progress: impl FnMut(Progress),
) -> Result<ImportReport, AdminError> {
    refuse_same(from, to)?;
    let mut source = open_existing(from).await?;
    // Fails on another program's database, most likely the source given by mistake.
    migrations(to).await?;
    source.begin_snapshot().await?;
    if let Conn::Postgres(_) = source {
        source.execute("SET LOCAL TIME ZONE 'UTC'").await?;
    }
    for table in ["users", "todos"] {
        if !source.has_table(table).await? {
            return Err(AdminError::Refused(format!("the source has no table {table}")));
        }
    }

    let mut invalid = InvalidRows::default();
    let valid = scan(&mut source, None, |row| invalid.record(row), |_| ()).await?;
    if invalid.count > 0 && !skip_invalid {
        return Err(AdminError::Invalid(invalid));
    }

    migrate(to).await?;
    let mut target = open_existing(to).await?;
    begin_empty(&mut target).await?;
    let total = valid.iter().sum();
    let mut done = 0;
    let on_batch = |n: usize| {
        done += n as u64;
        progress(Progress { done, total });
    };
    let written = scan(&mut source, Some(&mut target), |_| (), on_batch).await?;
    let [users, sessions, todos] = target.counts().await?.map(|n| u64::try_from(n).unwrap_or(0));
    if written != valid || [users, sessions, todos] != [valid[0], 0, valid[1]] {
        let why = "the rows written differ from the rows read: nothing was written";
        return Err(AdminError::Refused(why.into()));
    }
    commit(&mut target).await?;
    target.close().await?;
    source.close().await?;
    Ok(ImportReport { users, todos, skipped: invalid })
}

impl InvalidRows {
    fn record(&mut self, row: InvalidRow) {
        self.count += 1;
        if self.first.len() < MAX_LISTED {
            self.first.push(row);
        }
    }
}

/// Reads all rows in a fixed order, passes invalid ones to `on_invalid` and inserts valid ones into
/// `target`, if given. Returns the numbers of valid users and todos.
async fn scan(
    source: &mut Conn,
    mut target: Option<&mut Conn>,
    mut on_invalid: impl FnMut(InvalidRow),
    mut on_batch: impl FnMut(usize),
) -> Result<[u64; 2], AdminError> {
    let mut rules = Rules::default();
    let mut valid = [0, 0];

    let mut rows = rows_of(source, Table::Users).try_chunks(BATCH_ROWS);
    while let Some(batch) = rows.try_next().await.map_err(|error| error.1)? {
        let mut users = Vec::with_capacity(batch.len());
        for row in &batch {
            match rules.user(row) {
                Ok(user) => users.push(user),
                Err(fields) => on_invalid(row.invalid("users", fields)),
            }
        }
        valid[0] += users.len() as u64;
        if let Some(target) = target.as_deref_mut().filter(|_| !users.is_empty()) {
            insert_users(target, &users).await?;
            on_batch(users.len());
        }
    }
    drop(rows);

    let mut rows = rows_of(source, Table::Todos).try_chunks(BATCH_ROWS);
    while let Some(batch) = rows.try_next().await.map_err(|error| error.1)? {
        let mut todos = Vec::with_capacity(batch.len());
        for row in &batch {
            match rules.todo(row) {
                Ok(todo) => todos.push(todo),
                Err(fields) => on_invalid(row.invalid("todos", fields)),
            }
        }
        valid[1] += todos.len() as u64;
        if let Some(target) = target.as_deref_mut().filter(|_| !todos.is_empty()) {
            insert_todos(target, &todos).await?;
            on_batch(todos.len());
        }
    }
    Ok(valid)
}

#[derive(Clone, Copy)]
enum Table {
    Users,
    Todos,
}

/// A row of the source: text values by column name, for any column type.
struct SourceRow(HashMap<String, Option<String>>);

/// Streams the rows of a table. Of two users with one address, the older comes first and is valid.
fn rows_of(source: &mut Conn, table: Table) -> BoxStream<'_, Result<SourceRow, AdminError>> {
    match source {
        Conn::Sqlite(c) => {
            let sql = match table {
                Table::Users => "SELECT * FROM users ORDER BY created_at, id",
                Table::Todos => "SELECT * FROM todos ORDER BY id",
            };
            Box::pin(
                sqlx::query(sql).fetch(c).map(|row| SourceRow::of_sqlite(&row.or_admin_error()?)),
            )
        }
        Conn::Postgres(c) => {
            let sql = match table {
                Table::Users => "SELECT to_jsonb(t)::text FROM users t ORDER BY created_at, id",
                Table::Todos => "SELECT to_jsonb(t)::text FROM todos t ORDER BY id",
            };
            Box::pin(
                sqlx::query_scalar::<_, String>(sql)
                    .fetch(c)
                    .map(|row| SourceRow::of_json(&row.or_admin_error()?)),
            )
        }
    }
}

impl SourceRow {
    fn of_sqlite(row: &SqliteRow) -> Result<Self, AdminError> {
        let mut fields = HashMap::new();
        for (i, column) in row.columns().iter().enumerate() {
            let is_null = row.try_get_raw(i).or_admin_error()?.is_null();
            // SQLite converts any value to text.
            let value =
                if is_null { None } else { Some(row.try_get_unchecked(i).or_admin_error()?) };
            fields.insert(column.name().to_owned(), value);
        }
        Ok(Self(fields))
    }

    fn of_json(row: &str) -> Result<Self, AdminError> {
        use serde_json::Value;
        let fields: HashMap<String, Value> =
            serde_json::from_str(row).map_err(|error| AdminError::Sql(BoxError::new(error)))?;
        let text = |value| match value {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        };
        Ok(Self(fields.into_iter().map(|(name, value)| (name, text(value))).collect()))
    }

    fn field(&self, name: &'static str) -> Result<&str, FieldError> {
        let message = || format!("{} cannot be null.", FieldLabel(name));
        self.optional(name).ok_or_else(|| FieldError::new(name, "required", message()))
    }

    fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, FieldErrors>,
    ) -> Result<T, FieldErrors> {
        parse(self.field(name)?)
    }

    fn optional(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_deref()
    }

    fn uuid(&self, name: &'static str) -> Result<Uuid, FieldError> {
        Uuid::try_parse(self.field(name)?).map_err(|_| {
            FieldError::new(name, "invalid", format!("{} must be a UUID.", FieldLabel(name)))
        })
    }

    fn time(&self, name: &'static str) -> Result<DateTime<Utc>, FieldError> {
        let message = || format!("{} must be a date and time.", FieldLabel(name));
        time_of(self.field(name)?).ok_or_else(|| FieldError::new(name, "invalid", message()))
    }

    fn optional_time(&self, name: &'static str) -> Result<Option<DateTime<Utc>>, FieldError> {
        self.optional(name).map(|_| self.time(name)).transpose()
    }

    fn invalid(&self, table: &'static str, fields: FieldErrors) -> InvalidRow {
        let id = self.optional("id").unwrap_or("without an id");
        let id = id.chars().take(MAX_ID_CHARS).collect::<String>().escape_debug().to_string();
        InvalidRow { table, id, fields }
    }
}

/// Parses a time as either database writes it, in whole microseconds; UTC without an offset.
fn time_of(text: &str) -> Option<DateTime<Utc>> {
    let with_offset = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    let naive = |format| NaiveDateTime::parse_from_str(text, format).map(|time| time.and_utc());
    with_offset
        .or_else(|_| naive("%Y-%m-%dT%H:%M:%S%.f"))
        .or_else(|_| naive("%Y-%m-%d %H:%M:%S%.f"))
        .ok()
        .map(|time| time.trunc_subsecs(6))
}

/// Validation of rows, each by itself and against the rows before it.
#[derive(Default)]
struct Rules {
    users: HashSet<Uuid>,
    /// The first half of each address's SHA-256: equal only for equal addresses.
    emails: HashSet<[u8; 16]>,
    /// A source with text ids can have two rows whose ids are spellings of one UUID.
    todos: HashSet<Uuid>,
}

impl Rules {
    fn user(&mut self, row: &SourceRow) -> Result<UserRow, FieldErrors> {
        let mut errors = FieldErrors::none();
        let id = errors.collect(row.uuid("id"));
        let email = errors.collect(row.parsed("email", Email::parse));
        let name = errors.collect(row.parsed("name", printable_name));
        let password_hash = errors.collect(password_hash(row));
        let created_at = errors.collect(row.time("created_at"));
        let (Some(id), Some(email), Some(name), Some(password_hash), Some(created_at)) =
            (id, email, name, password_hash, created_at)
        else {
            return Err(errors);
        };
        let mut half = [0; 16];
        half.copy_from_slice(&Sha256::digest(email.as_str())[..16]);
        if self.emails.contains(&half) {
            let message = "Email must not be that of another user, in upper or lower case.";
            return Err(FieldError::new("email", "taken", message).into());
        }
        if !self.users.insert(id) {
            let message = "Id must not be that of another user.";
            return Err(FieldError::new("id", "taken", message).into());
        }
        self.emails.insert(half);
        let email = email.as_str().to_owned();
        let name = name.as_str().to_owned();
        Ok(UserRow {
            id,
            email,
            name,
            password_hash,
            created_at,
            email_verified_at: None,
            deleted_at: None,
            time_zone: None,
            reminder_mail: false,
        })
    }

    fn todo(&mut self, row: &SourceRow) -> Result<TodoRow, FieldErrors> {
        let mut errors = FieldErrors::none();
        let id = errors.collect(row.uuid("id"));
        let user_id = errors.collect(row.uuid("user_id").and_then(|id| {
            let message = "User id must be that of an existing user without errors.";
            let owner = self.users.contains(&id).then_some(id);
            owner.ok_or_else(|| FieldError::new("user_id", "orphan", message))
        }));
        let title = errors.collect(row.parsed("title", Title::parse));
        let description =
            errors.collect(row.optional("description").map(Description::parse).transpose());
        // SQLAlchemy stores an enum's names, upper case by convention, not its values.
        let priority = row.field("priority").map(str::to_ascii_lowercase);
        let priority = errors.collect(priority.and_then(|word| Priority::parse(&word)));
        let completed = errors.collect(row.field("completed").and_then(boolean));
        let created_at = errors.collect(row.time("created_at"));
        let updated_at = errors.collect(row.optional_time("updated_at"));
        let completed_at = errors.collect(row.optional_time("completed_at"));
        let (Some(id), Some(user_id), Some(title), Some(description)) =
            (id, user_id, title, description)
        else {
            return Err(errors);
        };
        let (Some(priority), Some(completed), Some(created_at)) = (priority, completed, created_at)
        else {
            return Err(errors);
        };
        let (Some(updated_at), Some(completed_at)) = (updated_at, completed_at) else {
            return Err(errors);
        };
        if !self.todos.insert(id) {
            let message = "Id must not be that of another todo.";
            return Err(FieldError::new("id", "taken", message).into());
        }
        // The backend reads the clock once for each of the two, in no guaranteed order.
        let updated_at = updated_at.map_or(created_at, |time| time.max(created_at));
        Ok(TodoRow {
            id,
            user_id,
            title: title.into(),
            description: description.map(String::from),
            priority: priority.rank(),
            completed,
            created_at,
            updated_at,
            completed_at: completed.then(|| completed_at.unwrap_or(updated_at)),
            more: MoreColumns::default(),
        })
    }
}

/// Parses an imported name after replacing control characters with spaces: the Python backend
/// accepted them, and a user must not lose an account over one.
fn printable_name(name: &str) -> Result<Name, FieldErrors> {
    // U+0000 stays an error: it cannot be a typing mistake.
    let is_replaced = |c: char| c.is_control() && c != '\0';
    Name::parse(&name.replace(is_replaced, " "))
}

/// Reads the password hash from either column name that the backend has used.
fn password_hash(row: &SourceRow) -> Result<String, FieldError> {
    let name =
        if row.optional("hashed_password").is_some() { "hashed_password" } else { "password_hash" };
    let stored = row.field(name)?;
    if stored_hash::is_supported_hash(stored) {
        return Ok(stored.to_owned());
    }
    let message = format!("{} must be a hash by bcrypt or Argon2id.", FieldLabel(name));
    Err(FieldError::new(name, "unknown", message))
}

fn boolean(text: &str) -> Result<bool, FieldError> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(FieldError::new("completed", "invalid", "Completed must be true or false.")),
    }
}

#[cfg(test)]
mod tests;
