//! The epoch of a database: a random text, valid together with the numbers of the logs of changes.
//! A new epoch makes all positions invalid that clients have kept.

use super::{AdminError, Conn, on, open_existing};

/// Gives the database a new epoch and returns it. Required after a backup was restored: the
/// database gives out numbers again that clients may have seen with other changes. The clients read
/// their lists again.
///
/// # Errors
/// [`AdminError`]; [`AdminError::Refused`] if the database has no epoch yet: its migration makes
/// one.
pub async fn new_epoch(url: &str) -> Result<String, AdminError> {
    let mut conn = open_existing(url).await?;
    if !conn.has_table("meta").await? || !conn.has_table("todo_counts").await? {
        let why = "the database has no epoch yet: run `migrate`, which makes one";
        return Err(AdminError::Refused(why.into()));
    }
    let epoch = renew(&mut conn).await?;
    conn.close().await?;
    Ok(epoch)
}

/// Replaces the epoch.
pub(super) async fn renew(conn: &mut Conn) -> Result<String, AdminError> {
    // As in the migration: 64 bits in hexadecimal.
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    let epoch = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let sql = "INSERT INTO meta (name, value) VALUES ('epoch', $1) \
               ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    on!(conn, c => sqlx::query(sql).bind(&epoch).execute(c).await.map(drop))?;
    Ok(epoch)
}
