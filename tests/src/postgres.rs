//! Where the tests get PostgreSQL from: a server that is given, else a container, else a private
//! cluster of the binaries on this machine, else a message that says what to install.

mod cluster;
mod container;

use std::{env, time::Duration};

use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep};

pub use self::cluster::Cluster;
use self::container::Container;

/// The URL of a server on which databases can be created, with the right to do so.
pub const URL: &str = "TEST_DATABASE_URL";
/// The image to run on a Docker engine.
pub const IMAGE: &str = "TODO_TEST_POSTGRES_IMAGE";
/// The only directory to look in for `initdb` and `postgres`.
pub const BINARIES: &str = "TODO_TEST_POSTGRES_BIN";

/// For servers that exist for the tests alone: many connections, and nothing kept through a crash.
const TUNING: [&str; 4] =
    ["max_connections=300", "fsync=off", "synchronous_commit=off", "full_page_writes=off"];

/// How long a server that was started may take to answer.
const STARTING: Duration = Duration::from_secs(60);

/// A PostgreSQL server for the tests.
#[derive(Debug)]
pub struct Postgres {
    url: String,
    origin: String,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Nothing,
    Container(Box<Container>),
    Cluster(Cluster),
}

impl Postgres {
    /// Finds one, or starts one.
    ///
    /// # Errors
    /// What was tried, why each attempt failed, and what to install.
    pub async fn find() -> Result<Postgres, String> {
        if let Some(url) = given() {
            let origin = format!("the server {URL} names");
            return Ok(Postgres { url, origin, held: Held::Nothing });
        }
        let no_container = match Container::start().await {
            Ok(container) => {
                let (url, origin) = (container.url(), container.to_string());
                return Ok(Postgres { url, origin, held: Held::Container(Box::new(container)) });
            }
            Err(reason) => reason,
        };
        match Cluster::start().await {
            Ok(cluster) => {
                let (url, origin) = (cluster.url(), format!("{cluster} ({no_container})"));
                Ok(Postgres { url, origin, held: Held::Cluster(cluster) })
            }
            Err(no_cluster) => Err(format!(
                "the tests need PostgreSQL 13 or later. Set {URL} to a server on which databases \
                 can be created ({URL} is not set), or start a Docker engine ({no_container}), or \
                 install the server's binaries, as `apt-get install postgresql` does ({no_cluster})"
            )),
        }
    }

    /// Its maintenance database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it comes from, for people.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Takes it down, if it was started for the tests.
    ///
    /// # Errors
    /// What is left behind, and why.
    pub async fn stop(self) -> Result<(), String> {
        match self.held {
            Held::Nothing => Ok(()),
            Held::Container(container) => container.stop().await,
            Held::Cluster(cluster) => cluster.stop().await,
        }
    }
}

/// Whether a Docker engine answers, where testcontainers would look for it.
///
/// # Errors
/// Why there is none.
pub async fn docker_engine() -> Result<(), String> {
    container::engine().await
}

/// The server that was given.
pub(crate) fn given() -> Option<String> {
    env::var(URL).ok().filter(|url| !url.is_empty())
}

/// Asks until the server answers a query; `alive` says whether it still may.
async fn answers(url: &str, mut alive: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let deadline = Instant::now() + STARTING;
    loop {
        alive()?;
        let error = match PgConnection::connect(url).await {
            Ok(connection) => return connection.close().await.map_err(|e| e.to_string()),
            Err(error) => error,
        };
        if Instant::now() > deadline {
            return Err(format!("no answer within {STARTING:?}: {error}"));
        }
        sleep(Duration::from_millis(20)).await;
    }
}
