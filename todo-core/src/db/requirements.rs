//! Checks that a PostgreSQL database and its role meet the requirements of requests: encoding,
//! defaults of the database and the role, and grants. It reports what is missing and changes
//! nothing.

use sqlx::{Connection, PgConnection};

use super::{
    DbError, OpenError, Statement,
    pooler_check::{self, PoolingMode},
    postgres::{connect_at_start, connect_options},
};
use crate::error::BoxError;

/// Selects the role, the privileges it lacks, and the tables whose rows row security may hide from
/// it; the last two are empty if there are none.
///
/// A need is a relation, a privilege, and the columns unless it is all of them. A trigger function
/// runs with the rights of the role whose statement fires it, so its needs are included. Row locks
/// need UPDATE.
const GRANTS: &str = "\
    WITH needs (relation, privilege, columns) AS (VALUES \
        ('users', 'SELECT', NULL), ('users', 'INSERT', NULL), \
        ('users', 'UPDATE', '{name,password_hash,email,email_verified_at,\
            deleted_at,time_zone,reminder_mail}'), \
        ('users', 'DELETE', NULL), \
        ('sessions', 'SELECT', NULL), ('sessions', 'INSERT', NULL), \
        ('sessions', 'UPDATE', '{seen_at}'), ('sessions', 'DELETE', NULL), \
        ('todos', 'SELECT', NULL), ('todos', 'INSERT', NULL), ('todos', 'UPDATE', \
            '{title,title_key,description,priority,completed,updated_at,completed_at,search,\
            tags,list_id,position,due_date,due_minute,due_zone,due_at,undated,due_key,rule,\
            rule_from,series_id,occurrence,reminders}'), \
        ('todos', 'DELETE', NULL), \
        ('todo_counts', 'SELECT', NULL), ('todo_counts', 'INSERT', '{user_id}'), \
        ('todo_counts', 'UPDATE', '{pending,completed,seq}'), ('todo_counts', 'DELETE', NULL), \
        ('changes', 'SELECT', NULL), \
        ('changes', 'INSERT', '{user_id,seq,kind,todo_id,tag,list_id,reminder_id}'), \
        ('changes', 'DELETE', NULL), \
        ('tags', 'SELECT', NULL), ('tags', 'INSERT', NULL), \
        ('tags', 'UPDATE', '{pending,completed}'), ('tags', 'DELETE', NULL), \
        ('todo_tags', 'SELECT', NULL), ('todo_tags', 'INSERT', NULL), \
        ('todo_tags', 'DELETE', NULL), \
        ('lists', 'SELECT', NULL), ('lists', 'INSERT', NULL), \
        ('lists', 'UPDATE', '{name,color,updated_at,deleted_at}'), ('lists', 'DELETE', NULL), \
        ('list_counts', 'SELECT', NULL), ('list_counts', 'INSERT', NULL), \
        ('list_counts', 'UPDATE', '{pending,completed}'), ('list_counts', 'DELETE', NULL), \
        ('meta', 'SELECT', NULL), ('meta', 'INSERT', NULL), ('meta', 'UPDATE', '{value}'), \
        ('trash', 'SELECT', NULL), ('trash', 'INSERT', NULL), ('trash', 'DELETE', NULL), \
        ('trash', 'UPDATE', '{deleted_at}'), \
        ('deletions', 'SELECT', NULL), ('deletions', 'INSERT', NULL), \
        ('idempotency', 'SELECT', NULL), ('idempotency', 'INSERT', NULL), \
        ('idempotency', 'DELETE', NULL), \
        ('keyed_todos', 'SELECT', NULL), ('keyed_todos', 'INSERT', NULL), \
        ('rate_limits', 'SELECT', NULL), ('rate_limits', 'INSERT', NULL), \
        ('rate_limits', 'UPDATE', '{taken_at,settled,prefix56,prefix48}'), \
        ('rate_limits', 'DELETE', NULL), \
        ('signups', 'INSERT', NULL), \
        ('new_sessions', 'SELECT', NULL), ('new_sessions', 'INSERT', NULL), \
        ('password_changes', 'SELECT', NULL), ('password_changes', 'INSERT', NULL), \
        ('password_resets', 'SELECT', NULL), ('password_resets', 'INSERT', NULL), \
        ('email_confirmations', 'SELECT', NULL), ('email_confirmations', 'INSERT', NULL), \
        ('account_deletions', 'SELECT', NULL), ('account_deletions', 'INSERT', NULL), \
        ('identities', 'SELECT', NULL), ('identities', 'INSERT', NULL), \
        ('identities', 'UPDATE', NULL), ('identities', 'DELETE', NULL), \
        ('revoked_tokens', 'SELECT', NULL), ('revoked_tokens', 'INSERT', NULL), \
        ('revoked_tokens', 'DELETE', NULL), \
        ('oauth_codes', 'SELECT', NULL), ('oauth_codes', 'INSERT', NULL), \
        ('oauth_codes', 'DELETE', NULL), \
        ('external_sessions', 'SELECT', NULL), ('external_sessions', 'INSERT', NULL), \
        ('oauth_sign_ins', 'SELECT', NULL), ('oauth_sign_ins', 'INSERT', NULL), \
        ('new_identities', 'SELECT', NULL), ('new_identities', 'INSERT', NULL), \
        ('identity_removals', 'SELECT', NULL), ('identity_removals', 'INSERT', NULL), \
        ('mails', 'SELECT', NULL), ('mails', 'INSERT', NULL), ('mails', 'UPDATE', NULL), \
        ('mails', 'DELETE', NULL), \
        ('reminders', 'SELECT', NULL), ('reminders', 'INSERT', NULL), \
        ('reminders', 'UPDATE', '{fire_at,written_at,fired_at,is_late}'), \
        ('reminders', 'DELETE', NULL), \
        ('reminder_firings', 'SELECT', NULL), ('reminder_firings', 'INSERT', NULL), \
        ('webhooks', 'SELECT', NULL), ('webhooks', 'INSERT', NULL), \
        ('webhooks', 'UPDATE', NULL), ('webhooks', 'DELETE', NULL), \
        ('webhook_deliveries', 'SELECT', NULL), ('webhook_deliveries', 'INSERT', NULL), \
        ('webhook_deliveries', 'UPDATE', '{attempts,next_attempt_at}'), \
        ('webhook_deliveries', 'DELETE', NULL), \
        ('jobs', 'SELECT', NULL), ('jobs', 'INSERT', '{kind,run_at}'), \
        ('jobs', 'UPDATE', '{run_at,attempts,lease,leased_until}')), \
    found AS (SELECT *, CAST(to_regclass(relation) AS oid) AS oid FROM needs), \
    missing AS (SELECT relation, CASE WHEN bool_or(oid IS NULL) \
        THEN relation || ', which is not there or not in its search_path' \
        ELSE string_agg(privilege, ', ' ORDER BY privilege) || ' on ' || relation END AS text \
        FROM found WHERE oid IS NULL OR CASE privilege \
            WHEN 'DELETE' THEN NOT has_table_privilege(oid, privilege) \
            ELSE EXISTS (SELECT FROM pg_attribute WHERE attrelid = found.oid AND attnum > 0 \
                AND NOT attisdropped \
                AND (columns IS NULL OR CAST(attname AS text) = ANY (CAST(columns AS text[]))) \
                AND NOT has_column_privilege(attrelid, attnum, privilege)) END \
        GROUP BY relation) \
    SELECT CAST(current_user AS text), \
        coalesce((SELECT string_agg(text, '; ' ORDER BY text) FROM missing), ''), \
        coalesce((SELECT string_agg(DISTINCT relation, ', ') FROM found \
            WHERE oid IS NOT NULL AND row_security_active(oid)), '')";

/// The statement that returns [`Grants`].
pub(super) fn grants() -> Statement {
    Statement::new(GRANTS)
}

/// A row of [`grants`].
pub(super) type Grants = (String, String, String);

/// Fails with the privileges that the role lacks.
pub(super) fn check_grants((role, lacks, _): &Grants) -> Result<(), DbError> {
    if lacks.is_empty() {
        return Ok(());
    }
    Err(DbError::Grants(format!("the role {role} lacks {lacks}")))
}

/// A defect of a database: it makes a start fail, or is logged as a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Whether a start fails.
    pub is_refused: bool,
    /// The defect and its remedy, in one line.
    pub text: String,
}

impl Finding {
    fn refused(text: impl Into<String>) -> Self {
        Self { is_refused: true, text: text.into() }
    }

    fn warned(text: impl Into<String>) -> Self {
        Self { is_refused: false, text: text.into() }
    }
}

/// Lists the errors and warnings of a start with the PostgreSQL database at `url`, for the role in
/// `url`. Grants are checked only if the tables exist. Nothing is changed.
///
/// # Errors
/// [`OpenError`] if the check could not run.
pub async fn check_database(url: &str) -> Result<Vec<Finding>, OpenError> {
    let connect = connect_options(url)?;
    let pooling_mode = pooler_check::check(&connect, 0).await?;
    let mut connection = connect_at_start(&connect).await?;
    let mut findings = settings(&mut connection, pooling_mode).await?;
    let query = "SELECT current_setting('synchronous_commit') = 'off', \
                 EXISTS (SELECT FROM pg_tables WHERE tablename = 'todo_counts')";
    let (is_asynchronous, has_tables): (bool, bool) =
        sqlx::query_as(query).fetch_one(&mut connection).await.map_err(unknown)?;
    if is_asynchronous {
        findings.push(Finding::warned(
            "synchronous_commit is off: writes that were acknowledged can be lost in a crash",
        ));
    }
    if has_tables {
        let grants: Grants =
            sqlx::query_as(GRANTS).fetch_one(&mut connection).await.map_err(unknown)?;
        findings.extend(check_grants(&grants).err().map(|lack| Finding::refused(lack.to_string())));
        findings.extend(check_row_security(&grants));
    }
    // Errors on closing do not matter.
    let _ = connection.close().await;
    Ok(findings)
}

/// Checks the encoding of the database and the defaults of a session. In session mode the pool sets
/// the isolation level itself.
pub(super) async fn settings(
    connection: &mut PgConnection,
    pooling_mode: PoolingMode,
) -> Result<Vec<Finding>, OpenError> {
    let query = "SELECT current_setting('server_encoding'), \
                 current_setting('session_replication_role'), \
                 current_setting('default_transaction_isolation'), \
                 current_setting('default_transaction_read_only') = 'on' OR pg_is_in_recovery()";
    let (encoding, replication, isolation, is_read_only): (String, String, String, bool) =
        sqlx::query_as(query).fetch_one(connection).await.map_err(unknown)?;
    let mut findings = Vec::new();
    if encoding != "UTF8" {
        findings.push(Finding::refused(format!(
            "the encoding of the database is {encoding} and must be UTF8: create one with \
             ENCODING 'UTF8' TEMPLATE template0"
        )));
    }
    if replication == "replica" {
        findings.push(Finding::refused(
            "session_replication_role is replica, so that triggers do not run: reset it for the \
             role and the database",
        ));
    }
    if is_read_only {
        findings.push(Finding::warned(
            "the database may not be written to now: it is a standby, or \
             default_transaction_read_only is on for the role or the database",
        ));
    }
    if isolation != "read committed" && pooling_mode == PoolingMode::Transaction {
        findings.push(Finding::warned(format!(
            "default_transaction_isolation is {isolation} and cannot be set over a pooler that \
             shares connections: ALTER ROLE … SET default_transaction_isolation = 'read committed', \
             or concurrent requests are answered with 503"
        )));
    }
    Ok(findings)
}

/// Warns if row security applies to the role.
pub(super) fn check_row_security((role, _, tables): &Grants) -> Option<Finding> {
    let text = || {
        format!(
            "row security applies to the role {role} on {tables}: rows that its policies hide are \
             missing for requests"
        )
    };
    (!tables.is_empty()).then(|| Finding::warned(text()))
}

fn unknown(error: sqlx::Error) -> OpenError {
    pooler_check::detect_mixup(error).unwrap_or_else(|e| OpenError::Connect(BoxError::new(e)))
}

/// Logs the warnings among `findings`.
///
/// # Errors
/// [`OpenError::Unfit`] with the findings that make a start fail.
pub(super) fn reject_or_warn(findings: impl IntoIterator<Item = Finding>) -> Result<(), OpenError> {
    let mut refused = Vec::new();
    for Finding { is_refused, text } in findings {
        if is_refused {
            refused.push(text);
        } else {
            tracing::warn!("{text}");
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(OpenError::Unfit(refused.join("; "))) }
}
