//! Checks that a pooler does not mix up prepared statements. A pooler in transaction mode runs each
//! statement on any free server connection; unless it tracks prepared statements (PgBouncer does
//! since 1.21, with `max_prepared_statements` set), a client gets the rows of another client's
//! statement. No client setting prevents that, so the start fails.
//!
//! The check runs distinguishable queries over several connections at once. It reads no table,
//! because it runs before the migrations.

use std::{collections::HashSet, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgDatabaseError},
};
use tokio::task::JoinSet;

use super::{
    DbError, OpenError,
    postgres::{CONNECT_TIMEOUT, connect_options},
};
use crate::error::BoxError;

/// Minimum number of connections of a check, whatever the pool's size: a mix-up takes two.
const MIN_CONNECTIONS: u32 = 2;
const MAX_CONNECTIONS: u32 = 8;
/// Statements that each connection prepares, each with a different text.
const STATEMENTS: i64 = 4;
/// Runs of each connection's statements; the first prepares them.
const ROUNDS: i64 = 4;
/// Timeout of the whole check: some thirty round trips, and other clients may use up a pooler's few
/// connections.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How client connections map to server connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolingMode {
    /// One server connection for each client connection, until it closes.
    Session,
    /// A server connection for each transaction: a SET leaks to other clients.
    Transaction,
}

/// Checks that prepared statements are not mixed up at the PostgreSQL address `url`, with
/// concurrent connections. It takes some tens of milliseconds without a pooler, and reads no table.
/// [`CoreBuilder::open`](crate::CoreBuilder::open) does the same.
///
/// # Errors
/// [`OpenError::Pooler`] if they are mixed up; [`OpenError::Url`] or [`OpenError::Connect`] if the
/// check could not run.
pub async fn check_pooler(url: &str) -> Result<(), OpenError> {
    check(&connect_options(url)?, MAX_CONNECTIONS).await.map(drop)
}

/// [`check_pooler`] with at most `pool_max` connections, and at least two.
pub(crate) async fn check(
    connect: &PgConnectOptions,
    pool_max: u32,
) -> Result<PoolingMode, OpenError> {
    tokio::time::timeout(
        TIMEOUT,
        unbounded_check(connect, pool_max.clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)),
    )
    .await
    .unwrap_or_else(|_| Err(OpenError::Connect(BoxError::new(DbError::Timeout))))
}

/// Maps `error` to [`OpenError::Pooler`] if a mix-up of prepared statements causes it.
pub(crate) fn detect_mixup(error: sqlx::Error) -> Result<OpenError, sqlx::Error> {
    if is_mix_up(&error) { Ok(OpenError::Pooler(BoxError::new(error))) } else { Err(error) }
}

fn is_mix_up(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref() {
            // no such prepared statement; a statement of this name exists
            Some("26000" | "42P05") => true,
            // A bind that does not match its statement. Only from the server itself: poolers use
            // this code for any error, and set no routine.
            Some("08P01") => {
                error.try_downcast_ref::<PgDatabaseError>().is_some_and(|e| e.routine().is_some())
            }
            _ => false,
        },
        // An answer that does not match the query.
        sqlx::Error::Protocol(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
            true
        }
        _ => false,
    }
}

async fn unbounded_check(connect: &PgConnectOptions, n: u32) -> Result<PoolingMode, OpenError> {
    let mut probes = open_probes(connect, n).await?;

    // One at a time: an idle pooler uses the same server connection for all of them.
    for _ in 0..2 {
        for probe in probes.iter_mut().take(2) {
            probe.query(0).await?;
        }
    }
    // All at once: they share the server connections.
    let mut queries = JoinSet::new();
    for mut probe in probes {
        queries.spawn(async move {
            for run in 0..ROUNDS * STATEMENTS {
                probe.query(run % STATEMENTS).await?;
            }
            Ok(probe)
        });
    }
    let mut probes = Vec::new();
    while let Some(finished) = queries.join_next().await {
        probes.push(finished.map_err(|e| OpenError::Connect(BoxError::new(e)))??);
    }

    let distinct: HashSet<i32> = probes.iter().flat_map(|probe| &probe.servers).copied().collect();
    let is_shared =
        distinct.len() != probes.len() || probes.iter().any(|probe| probe.servers.len() != 1);
    let mut closing = JoinSet::new();
    for probe in probes {
        closing.spawn(probe.connection.close());
    }
    // Errors on closing do not matter.
    while closing.join_next().await.is_some() {}
    Ok(if is_shared { PoolingMode::Transaction } else { PoolingMode::Session })
}

/// Opens up to `n` connections; fails if the server accepts fewer than [`MIN_CONNECTIONS`].
async fn open_probes(connect: &PgConnectOptions, n: u32) -> Result<Vec<Probe>, OpenError> {
    let mut opening = JoinSet::new();
    for number in 0..i64::from(n) {
        let connect = connect.clone().disable_statement_logging();
        opening.spawn(async move {
            let connection = tokio::time::timeout(CONNECT_TIMEOUT, connect.connect())
                .await
                .map_err(|_| OpenError::Connect(BoxError::new(DbError::Timeout)))?
                .map_err(|e| OpenError::Connect(BoxError::new(e)))?;
            Ok(Probe { connection, number, servers: HashSet::new() })
        });
    }
    let mut probes = Vec::new();
    let mut refused = None;
    while let Some(opened) = opening.join_next().await {
        match opened.unwrap_or_else(|e| Err(OpenError::Connect(BoxError::new(e)))) {
            Ok(probe) => probes.push(probe),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if probes.len() < MIN_CONNECTIONS as usize => Err(error),
        _ => Ok(probes),
    }
}

/// One connection of the check.
struct Probe {
    connection: PgConnection,
    /// Makes its statements differ from those of the other connections.
    number: i64,
    /// The server processes that answered it.
    servers: HashSet<i32>,
}

impl Probe {
    async fn query(&mut self, statement: i64) -> Result<(), OpenError> {
        let id = self.number * STATEMENTS + statement;
        // The same parameter and column types in all: another connection's statement is accepted,
        // and only its answer differs. The text contains only our own number, no input.
        let text = format!("SELECT {id}::bigint * 1000 + $1::bigint, pg_backend_pid()");
        let argument = 7;
        let (answer, server): (i64, i32) = sqlx::query_as(AssertSqlSafe(text))
            .bind(argument)
            .fetch_one(&mut self.connection)
            .await
            .map_err(|e| {
                detect_mixup(e).unwrap_or_else(|e| OpenError::Connect(BoxError::new(e)))
            })?;
        if answer != id * 1000 + argument {
            return Err(OpenError::Pooler(BoxError::new("a statement got the answer of another")));
        }
        self.servers.insert(server);
        Ok(())
    }
}
