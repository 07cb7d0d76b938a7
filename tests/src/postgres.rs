//! The PostgreSQL of the tests: a server given by URL, else a container, else a private cluster of
//! the binaries on this machine, else an error with what to install.

mod cluster;
mod container;

use std::{env, time::Duration};

use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep};

pub use self::cluster::Cluster;
use self::container::Container;

/// The URL of a server, with a role that may create databases.
pub const URL: &str = "TEST_DATABASE_URL";
/// The image to run on a Docker engine.
pub const IMAGE: &str = "TODO_TEST_POSTGRES_IMAGE";
/// The only directory to look in for `initdb` and `postgres`.
pub const BINARIES: &str = "TODO_TEST_POSTGRES_BIN";

/// Settings of servers started for the tests: many connections, no crash safety.
const TUNING: [&str; 4] =
    ["max_connections=300", "fsync=off", "synchronous_commit=off", "full_page_writes=off"];

/// Limit for a started server to accept a connection.
const STARTING: Duration = Duration::from_secs(60);

/// A PostgreSQL server for the tests.
#[derive(Debug)]
pub struct Postgres {
    url: String,
    origin: String,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    External,
    Container(Box<Container>),
    Cluster(Cluster),
}

impl Postgres {
    /// Finds a server, or starts one.
    ///
    /// # Errors
    /// Each attempt with its error, and what to install.
    pub async fn find() -> Result<Postgres, String> {
        if let Some(url) = given() {
            let origin = format!("the server {URL} names");
            return Ok(Postgres { url, origin, backing: Backing::External });
        }
        let no_container = match Container::start().await {
            Ok(container) => {
                let (url, origin) = (container.url(), container.to_string());
                return Ok(Postgres {
                    url,
                    origin,
                    backing: Backing::Container(Box::new(container)),
                });
            }
            Err(reason) => reason,
        };
        match Cluster::start().await {
            Ok(cluster) => {
                let (url, origin) = (cluster.url(), format!("{cluster} ({no_container})"));
                Ok(Postgres { url, origin, backing: Backing::Cluster(cluster) })
            }
            Err(no_cluster) => Err(format!(
                "the tests need PostgreSQL 13 or later. Set {URL} to a server on which databases \
                 can be created ({URL} is not set), or start a Docker engine ({no_container}), or \
                 install the server's binaries, as `apt-get install postgresql` does ({no_cluster})"
            )),
        }
    }

    /// The URL of its maintenance database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its origin, for people.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Stops it, if it was started for the tests.
    ///
    /// # Errors
    /// The error, and what remains.
    pub async fn stop(self) -> Result<(), String> {
        match self.backing {
            Backing::External => Ok(()),
            Backing::Container(container) => container.stop().await,
            Backing::Cluster(cluster) => cluster.stop().await,
        }
    }
}

/// Pings the Docker engine that testcontainers would use.
///
/// # Errors
/// The reason why there is none.
pub async fn docker_engine() -> Result<(), String> {
    container::engine().await
}

/// The URL given by the environment.
pub(crate) fn given() -> Option<String> {
    env::var(URL).ok().filter(|url| !url.is_empty())
}

/// Polls until the server accepts a connection; fails as soon as `alive` does.
async fn wait_until_ready(
    url: &str,
    mut alive: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let deadline = Instant::now() + STARTING;
    loop {
        alive()?;
        let error = match PgConnection::connect(url).await {
            Ok(connection) => return connection.close().await.map_err(|e| e.to_string()),
            Err(error) => error,
        };
        if Instant::now() > deadline {
            return Err(format!("no connection within {STARTING:?}: {error}"));
        }
        sleep(Duration::from_millis(20)).await;
    }
}
