//! Whether a connection keeps what was prepared on it. A pooler in transaction mode gives each
//! statement whichever server connection is free; unless it tracks prepared statements (PgBouncer
//! does since 1.21, when told to), one client is then answered with the rows of another's statement.
//! No setting of a client's helps, so this finds out, and the start ends there.
//!
//! It asks questions with answers of their own, over several connections at once, and knows nothing
//! of any table: it comes before the migrations.

use std::{collections::HashSet, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgDatabaseError},
};
use tokio::task::JoinSet;

use super::{
    Fault, OpenError,
    postgres::{CONNECT_TIMEOUT, connect_options},
};
use crate::error::Cause;

/// Connections that a check opens at least, whatever the pool is to have: one alone cannot be
/// mistaken for another.
const FEWEST: u32 = 2;
const MOST: u32 = 8;
/// Statements that each connection prepares, each with a text of its own.
const STATEMENTS: i64 = 4;
/// How often each connection runs its statements; the first time prepares them.
const ROUNDS: i64 = 4;
/// The longest a whole check may take: it is some thirty round trips, and others may keep a pooler's
/// few connections busy.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How connections come to those that the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Each has one to itself for as long as it lives.
    None,
    /// Each gets one for a transaction, then another: what is SET on it stays behind for others.
    Transactions,
}

/// Whether statements come to their own answers at the PostgreSQL address `url`, however many
/// connections run them at once. Some tens of milliseconds where nothing stands in between; no table
/// is read. [`Core::open`](crate::Core::open) does the same.
///
/// # Errors
/// [`OpenError::Pooler`] if they do not; [`OpenError::Url`] or [`OpenError::Connect`] if that could
/// not be found out.
pub async fn check_pooler(url: &str) -> Result<(), OpenError> {
    check(&connect_options(url)?, MOST).await.map(drop)
}

/// As [`check_pooler`], with no more connections than the pool may have, if it may have two.
pub(crate) async fn check(connect: &PgConnectOptions, pool_max: u32) -> Result<Sharing, OpenError> {
    tokio::time::timeout(TIMEOUT, unbounded_check(connect, pool_max.clamp(FEWEST, MOST)))
        .await
        .unwrap_or_else(|_| Err(OpenError::Connect(Cause::new(Fault::Deadline))))
}

/// The error of a start in which statements were mixed up, if that is what `error` tells.
pub(crate) fn mixed_up(error: sqlx::Error) -> Result<OpenError, sqlx::Error> {
    if is_mix_up(&error) { Ok(OpenError::Pooler(Cause::new(error))) } else { Err(error) }
}

fn is_mix_up(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref() {
            // no such prepared statement; one of this name is there already
            Some("26000" | "42P05") => true,
            // A bind that does not fit its statement. Of the server itself: poolers give this code to
            // whatever they have to say, and name no routine.
            Some("08P01") => {
                error.try_downcast_ref::<PgDatabaseError>().is_some_and(|e| e.routine().is_some())
            }
            _ => false,
        },
        // An answer that does not fit what was asked.
        sqlx::Error::Protocol(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
            true
        }
        _ => false,
    }
}

async fn unbounded_check(connect: &PgConnectOptions, n: u32) -> Result<Sharing, OpenError> {
    let mut probes = opened(connect, n).await?;

    // By turns: a pooler that is idle gives all of them one server connection.
    for _ in 0..2 {
        for probe in probes.iter_mut().take(2) {
            probe.ask(0).await?;
        }
    }
    // All at once: they have to take what they get.
    let mut asking = JoinSet::new();
    for mut probe in probes {
        asking.spawn(async move {
            for turn in 0..ROUNDS * STATEMENTS {
                probe.ask(turn % STATEMENTS).await?;
            }
            Ok(probe)
        });
    }
    let mut probes = Vec::new();
    while let Some(asked) = asking.join_next().await {
        probes.push(asked.map_err(|e| OpenError::Connect(Cause::new(e)))??);
    }

    let distinct: HashSet<i32> = probes.iter().flat_map(|probe| &probe.servers).copied().collect();
    let is_shared =
        distinct.len() != probes.len() || probes.iter().any(|probe| probe.servers.len() != 1);
    let mut closing = JoinSet::new();
    for probe in probes {
        closing.spawn(probe.connection.close());
    }
    // How a connection ends that did its work is nobody's concern.
    while closing.join_next().await.is_some() {}
    Ok(if is_shared { Sharing::Transactions } else { Sharing::None })
}

/// As many of `n` as the server takes; an error if these are too few.
async fn opened(connect: &PgConnectOptions, n: u32) -> Result<Vec<Probe>, OpenError> {
    let mut opening = JoinSet::new();
    for number in 0..i64::from(n) {
        let connect = connect.clone().disable_statement_logging();
        opening.spawn(async move {
            let connection = tokio::time::timeout(CONNECT_TIMEOUT, connect.connect())
                .await
                .map_err(|_| OpenError::Connect(Cause::new(Fault::Deadline)))?
                .map_err(|e| OpenError::Connect(Cause::new(e)))?;
            Ok(Probe { connection, number, servers: HashSet::new() })
        });
    }
    let (mut probes, mut refused) = (Vec::new(), None);
    while let Some(opened) = opening.join_next().await {
        match opened.unwrap_or_else(|e| Err(OpenError::Connect(Cause::new(e)))) {
            Ok(probe) => probes.push(probe),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if probes.len() < FEWEST as usize => Err(error),
        _ => Ok(probes),
    }
}

/// One connection that asks.
struct Probe {
    connection: PgConnection,
    /// What tells its statements from those of the others.
    number: i64,
    /// The server's processes that have answered it.
    servers: HashSet<i32>,
}

impl Probe {
    async fn ask(&mut self, statement: i64) -> Result<(), OpenError> {
        let own = self.number * STATEMENTS + statement;
        // One parameter, and columns of one type: a statement of another's fits, and gives itself
        // away by its answer alone. A number of ours is all that goes into the text.
        let text = format!("SELECT {own}::bigint * 1000 + $1::bigint, pg_backend_pid()");
        let argument = 7;
        let (answer, server): (i64, i32) = sqlx::query_as(AssertSqlSafe(text))
            .bind(argument)
            .fetch_one(&mut self.connection)
            .await
            .map_err(|e| mixed_up(e).unwrap_or_else(|e| OpenError::Connect(Cause::new(e))))?;
        if answer != own * 1000 + argument {
            return Err(OpenError::Pooler(Cause::new("a statement got the answer of another")));
        }
        self.servers.insert(server);
        Ok(())
    }
}
