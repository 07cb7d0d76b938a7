//! The test setup: each server, and pgbench, with its own copy of one filled database. `measure`
//! defines the order of measurements.

use std::{
    fs::{self, File},
    ops::Range,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use todo_bench::Failure;
use todo_tests::postgres::Cluster;

use crate::{
    browse::{self, ClientMode},
    cases::{Case, Request, ServerKind, Statement, Target},
    load::{self, SCRIPT, Sample},
    seed::{self, SECRET, User},
    servers::{ServerProcess, free_port},
};

/// Upper bound of deletes per second.
const DELETED_A_SECOND: u64 = 30_000;
/// pgbench's database, and the template of all databases.
const PGBENCH: &str = "pgbench";
const TEMPLATE: &str = "seed";

/// All measured servers and databases. Processes are stopped on drop.
pub(crate) struct Testbed {
    // Dropped before the directory and the cluster, which the servers use.
    servers: Vec<RunningServer>,
    cluster: Option<Cluster>,
    users: Vec<User>,
    dir: TempDir,
    /// Names and versions of the databases.
    databases: Vec<String>,
    /// pgbench runs so far; each inserts ids with its own number.
    runs: u32,
}

/// A server with its database.
struct RunningServer {
    kind: ServerKind,
    server: ServerProcess,
    url: String,
    /// Numbers of the spare todos, to be deleted.
    spares: Range<u64>,
}

/// Effect of a login storm on a read: the same connections without it and during it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storm {
    pub(crate) alone: Sample,
    pub(crate) during: Sample,
    pub(crate) logins: Sample,
}

impl Testbed {
    /// Fills the databases and starts the servers of these kinds.
    pub(crate) async fn start(kinds: &[ServerKind]) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("todo-bench-").tempdir()?;
        fs::write(dir.path().join("load.lua"), SCRIPT)?;
        let users = seed::users()?;
        let mut testbed =
            Self { servers: vec![], cluster: None, users, dir, databases: vec![], runs: 0 };
        if kinds.iter().any(|kind| kind.on_sqlite()) {
            eprintln!("filling SQLite");
            let url = testbed.sqlite(TEMPLATE);
            seed::seed(&url).await?;
            testbed.databases.push(format!("SQLite {}", seed::version(&url).await?));
        }
        if kinds.iter().any(|kind| !kind.on_sqlite()) {
            eprintln!("filling PostgreSQL");
            let cluster = Cluster::dedicated(&["max_connections=300"], &[]).await?;
            testbed.cluster = Some(cluster);
            let created = format!("CREATE DATABASE {TEMPLATE}");
            seed::run(&testbed.postgres("postgres")?, &[created]).await?;
            let url = testbed.postgres(TEMPLATE)?;
            seed::seed(&url).await?;
            testbed.databases.push(format!("PostgreSQL {}", seed::version(&url).await?));
            testbed.copy_postgres(PGBENCH).await?;
        }
        for kind in ServerKind::ALL.into_iter().filter(|kind| kinds.contains(kind)) {
            let server = testbed.start_server(kind).await?;
            testbed.servers.push(server);
        }
        if testbed.cluster.is_some() {
            // Pending writes of the copies must not run during a measurement.
            seed::run(&testbed.postgres("postgres")?, &["CHECKPOINT".to_owned()]).await?;
        }
        Ok(testbed)
    }

    async fn start_server(&self, kind: ServerKind) -> Result<RunningServer, Failure> {
        let url = if kind.on_sqlite() {
            let [from, to] = [TEMPLATE, kind.program()].map(|name| self.sqlite_file(name));
            fs::copy(from, &to)?;
            File::open(to)?.sync_all()?;
            self.sqlite(kind.program())
        } else {
            let name = kind.program().replace('-', "_");
            self.copy_postgres(&name).await?;
            self.postgres(&name)?
        };
        let port = free_port()?;
        let settings = [
            ("DATABASE_URL", url.as_str()),
            ("SECRET_KEY", SECRET),
            ("HOST", "127.0.0.1"),
            ("PORT", &port.to_string()),
            ("LOG_LEVEL", "warn"),
            ("RATE_LIMIT_PER_MINUTE", "0"),
            ("MAX_TODOS_PER_USER", "0"),
        ];
        let server =
            ServerProcess::start(kind.program(), port, &[], &settings, self.dir.path()).await?;
        Ok(RunningServer { kind, server, url, spares: 0..0 })
    }

    fn sqlite_file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.db"))
    }

    fn sqlite(&self, name: &str) -> String {
        format!("sqlite://{}", self.sqlite_file(name).display())
    }

    /// URL of a database, for servers, pgbench and the driver.
    fn postgres(&self, name: &str) -> Result<String, Failure> {
        let port =
            self.cluster.as_ref().and_then(Cluster::port).ok_or("PostgreSQL is not running")?;
        Ok(format!("postgres://postgres@127.0.0.1:{port}/{name}"))
    }

    async fn copy_postgres(&self, name: &str) -> Result<(), Failure> {
        let copied = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}");
        seed::run(&self.postgres("postgres")?, &[copied]).await
    }

    /// Names and versions of the databases.
    pub(crate) fn databases(&self) -> &[String] {
        &self.databases
    }

    /// The measured servers, in the order of measurement.
    pub(crate) fn kinds(&self) -> Vec<ServerKind> {
        self.servers.iter().map(|server| server.kind).collect()
    }

    /// Process id of a server.
    pub(crate) fn process_of(&self, kind: ServerKind) -> Result<u32, Failure> {
        self.servers[self.at(kind)?].server.id()
    }

    fn at(&self, kind: ServerKind) -> Result<usize, Failure> {
        let at = self.servers.iter().position(|server| server.kind == kind);
        at.ok_or_else(|| format!("{kind} is not running").into())
    }

    /// Measures one target.
    pub(crate) async fn measure(
        &mut self,
        target: Target,
        case: Case,
        connections: u32,
        seconds: u32,
    ) -> Result<Sample, Failure> {
        match target {
            Target::BareHyper => self.bare("bare-hyper", target, case, connections, seconds).await,
            Target::BareSalvo => self.bare("bare-salvo", target, case, connections, seconds).await,
            Target::Server(kind) => self.load(kind, case, connections, seconds).await,
            Target::Pgbench(statement) => self.pgbench(statement, connections, seconds).await,
            Target::Argon2 => load::argon2(seconds),
        }
    }

    /// Loads a server.
    pub(crate) async fn load(
        &mut self,
        kind: ServerKind,
        case: Case,
        connections: u32,
        seconds: u32,
    ) -> Result<Sample, Failure> {
        let at = self.at(kind)?;
        if case == Case::Delete {
            self.servers[at].stock(DELETED_A_SECOND * u64::from(seconds)).await?;
        }
        let requests = self.write(case)?;
        let RunningServer { server, spares, .. } = &mut self.servers[at];
        let sample =
            load::wrk(self.dir.path(), server.port, connections, seconds, &requests, spares.start);
        let sample = sample.await?;
        if case == Case::Delete {
            // wrk does not count its first test request and the requests in flight at the end.
            spares.start += sample.requests + u64::from(connections) + 1;
        }
        Ok(sample)
    }

    /// Loads a bare framework, which responds with as many bytes as the first of its servers.
    async fn bare(
        &mut self,
        program: &str,
        target: Target,
        case: Case,
        connections: u32,
        seconds: u32,
    ) -> Result<Sample, Failure> {
        let like = self.servers.iter().position(|server| server.kind.bare() == target);
        let like = like.ok_or_else(|| format!("nothing to compare {target} with"))?;
        let requests = case.requests(&self.users);
        let bytes = self.servers[like].response_size(&requests).await?;
        let empty = start_bare(program, 0, self.dir.path()).await?;
        let head = empty.send(&requests[0]).await?.bytes;
        empty.stop().await?;
        let size = bytes.saturating_sub(head);
        let bare = start_bare(program, size, self.dir.path()).await?;
        let requests = self.write(case)?;
        let sample =
            load::wrk(self.dir.path(), bare.port, connections, seconds, &requests, 0).await?;
        bare.stop().await?;
        Ok(sample)
    }

    async fn pgbench(
        &mut self,
        statement: Statement,
        connections: u32,
        seconds: u32,
    ) -> Result<Sample, Failure> {
        self.runs += 1;
        let url = self.postgres(PGBENCH)?;
        load::pgbench(self.dir.path(), &url, connections, seconds, statement, self.runs).await
    }

    /// Measures the latency of a list of 100 on one connection.
    pub(crate) async fn browse(
        &self,
        kind: ServerKind,
        mode: ClientMode,
        seconds: u32,
    ) -> Result<Sample, Failure> {
        let request = Case::list_of_100(&self.users).ok_or("there are no users")?;
        let port = self.servers[self.at(kind)?].server.port;
        let sample = browse::browse(port, &request, mode, seconds).await?;
        eprintln!("list 100, {}, {kind}: {:.0}/s", mode.name(), sample.rate);
        Ok(sample)
    }

    /// Measures the latency of a read, without and during concurrent logins.
    pub(crate) async fn storm(&mut self, kind: ServerKind, seconds: u32) -> Result<Storm, Failure> {
        const READERS: u32 = 4;
        const LOGINS: u32 = 16;
        let alone = self.load(kind, Case::Get, READERS, seconds).await?;
        let [reads, logins] = [self.write(Case::Get)?, self.write(Case::Login)?];
        let dir = self.dir.path();
        let port = self.servers[self.at(kind)?].server.port;
        // The storm begins before the first read and ends after the last.
        let storm = load::wrk(dir, port, LOGINS, seconds + 2, &logins, 0);
        let during = async {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            load::wrk(dir, port, READERS, seconds, &reads, 0).await
        };
        let (logins, during) = tokio::try_join!(storm, during)?;
        Ok(Storm { alone, during, logins })
    }

    /// Writes the file with a case's requests; returns its path.
    fn write(&self, case: Case) -> Result<PathBuf, Failure> {
        let path = self.dir.path().join(format!("{case:?}.requests"));
        let lines: String = case.requests(&self.users).iter().map(Request::line).collect();
        fs::write(&path, lines)?;
        Ok(path)
    }

    /// Stops all processes and removes the directory.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        for RunningServer { server, .. } in self.servers {
            server.stop().await?;
        }
        if let Some(cluster) = self.cluster {
            cluster.stop().await?;
        }
        Ok(self.dir.close()?)
    }
}

impl RunningServer {
    /// Adds spare todos until at least `count` are left.
    async fn stock(&mut self, count: u64) -> Result<(), Failure> {
        let end = self.spares.start + count;
        if end > self.spares.end {
            seed::add_spares(&self.url, self.spares.end.max(self.spares.start)..end).await?;
            self.spares.end = end;
        }
        Ok(())
    }

    /// Measures the average response size in bytes.
    async fn response_size(&mut self, requests: &[Request]) -> Result<usize, Failure> {
        self.stock(Request::SAMPLE as u64).await?;
        let mut bytes = 0;
        for _ in 0..Request::SAMPLE {
            let number = self.spares.start;
            let request = &requests[usize::try_from(number)? % requests.len()];
            self.spares.start += 1;
            let response = self.server.send(&request.of_spare(number)).await?;
            if !(200..300).contains(&response.status) {
                return Err(format!("{}: {} {}", self.kind, response.status, request.path).into());
            }
            bytes += response.bytes;
        }
        Ok(bytes.div_ceil(Request::SAMPLE))
    }
}

async fn start_bare(program: &str, size: usize, dir: &Path) -> Result<ServerProcess, Failure> {
    let port = free_port()?;
    ServerProcess::start(program, port, &[port.to_string(), size.to_string()], &[], dir).await
}
