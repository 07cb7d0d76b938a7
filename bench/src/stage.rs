//! Everything that is measured, set up once: each server with a copy of its own of one filled
//! database, pgbench with another, and who takes a turn. The order of turns is for `measure`.

use std::{
    fs::{self, File},
    ops::Range,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use todo_bench::Failure;
use todo_tests::postgres::Cluster;

use crate::{
    browse::{self, Way},
    cases::{Case, Cell, Request, Statement, Target},
    load::{self, SCRIPT, Sample},
    seed::{self, SECRET, User},
    servers::{Running, free_port},
};

/// More than a server deletes in a second.
const DELETED_A_SECOND: u64 = 30_000;
/// pgbench's database, and the one that all others are copied from.
const PGBENCH: &str = "pgbench";
const TEMPLATE: &str = "seed";

/// Everything that is measured. What it started ends when it is dropped.
pub(crate) struct Stage {
    // Before the directory and the cluster, which they use.
    servers: Vec<OnStage>,
    cluster: Option<Cluster>,
    users: Vec<User>,
    dir: TempDir,
    /// Which databases these are.
    databases: Vec<String>,
    /// pgbench's so far: each has ids of its own.
    runs: u32,
}

/// A server with its database.
struct OnStage {
    cell: Cell,
    server: Running,
    url: String,
    /// Todos that are there to be deleted.
    spares: Range<u64>,
}

/// What a login storm does to a read: both at the same connections, alone and during it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storm {
    pub(crate) alone: Sample,
    pub(crate) during: Sample,
    pub(crate) logins: Sample,
}

impl Stage {
    /// Fills the databases and starts the servers of these cells.
    pub(crate) async fn set(cells: &[Cell]) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("todo-bench-").tempdir()?;
        fs::write(dir.path().join("load.lua"), SCRIPT)?;
        let users = seed::users()?;
        let (servers, databases) = (Vec::new(), Vec::new());
        let mut stage = Self { servers, cluster: None, users, dir, databases, runs: 0 };
        if cells.iter().any(|cell| cell.on_sqlite()) {
            eprintln!("filling SQLite");
            let url = stage.sqlite(TEMPLATE);
            seed::seed(&url).await?;
            stage.databases.push(format!("SQLite {}", seed::version(&url).await?));
        }
        if cells.iter().any(|cell| !cell.on_sqlite()) {
            eprintln!("filling PostgreSQL");
            let cluster = Cluster::of_its_own(&["max_connections=300"], &[]).await?;
            stage.cluster = Some(cluster);
            let created = format!("CREATE DATABASE {TEMPLATE}");
            seed::run(&stage.postgres("postgres")?, &[created]).await?;
            let url = stage.postgres(TEMPLATE)?;
            seed::seed(&url).await?;
            stage.databases.push(format!("PostgreSQL {}", seed::version(&url).await?));
            stage.copy_postgres(PGBENCH).await?;
        }
        for cell in Cell::ALL.into_iter().filter(|cell| cells.contains(cell)) {
            let server = stage.start(cell).await?;
            stage.servers.push(server);
        }
        if stage.cluster.is_some() {
            // What the copies left to be written is not to be written while something is measured.
            seed::run(&stage.postgres("postgres")?, &["CHECKPOINT".to_owned()]).await?;
        }
        Ok(stage)
    }

    async fn start(&self, cell: Cell) -> Result<OnStage, Failure> {
        let url = if cell.on_sqlite() {
            let [from, to] = [TEMPLATE, cell.program()].map(|name| self.sqlite_file(name));
            fs::copy(from, &to)?;
            File::open(to)?.sync_all()?;
            self.sqlite(cell.program())
        } else {
            let name = cell.program().replace('-', "_");
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
        ];
        let server = Running::start(cell.program(), port, &[], &settings, self.dir.path()).await?;
        Ok(OnStage { cell, server, url, spares: 0..0 })
    }

    fn sqlite_file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.db"))
    }

    fn sqlite(&self, name: &str) -> String {
        format!("sqlite://{}", self.sqlite_file(name).display())
    }

    /// The address of a database, for servers, pgbench and the driver alike.
    fn postgres(&self, name: &str) -> Result<String, Failure> {
        let port = self.cluster.as_ref().and_then(Cluster::port).ok_or("no PostgreSQL runs")?;
        Ok(format!("postgres://postgres@127.0.0.1:{port}/{name}"))
    }

    async fn copy_postgres(&self, name: &str) -> Result<(), Failure> {
        let copied = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}");
        seed::run(&self.postgres("postgres")?, &[copied]).await
    }

    /// Which databases these are, with their versions.
    pub(crate) fn databases(&self) -> &[String] {
        &self.databases
    }

    /// The server of each cell, in the order of their turns.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        self.servers.iter().map(|server| server.cell).collect()
    }

    /// The process of a server.
    pub(crate) fn process_of(&self, cell: Cell) -> Result<u32, Failure> {
        self.servers[self.at(cell)?].server.id()
    }

    fn at(&self, cell: Cell) -> Result<usize, Failure> {
        let at = self.servers.iter().position(|server| server.cell == cell);
        at.ok_or_else(|| format!("{cell} does not run").into())
    }

    /// One turn of somebody.
    pub(crate) async fn turn(
        &mut self,
        target: Target,
        case: Case,
        connections: u32,
        seconds: u32,
    ) -> Result<Sample, Failure> {
        match target {
            Target::BareHyper => self.bare("bare-hyper", target, case, connections, seconds).await,
            Target::BareSalvo => self.bare("bare-salvo", target, case, connections, seconds).await,
            Target::Cell(cell) => self.load(cell, case, connections, seconds).await,
            Target::Pgbench(statement) => self.pgbench(statement, connections, seconds).await,
            Target::Argon2 => load::argon2(seconds),
        }
    }

    /// Loads a server.
    pub(crate) async fn load(
        &mut self,
        cell: Cell,
        case: Case,
        connections: u32,
        seconds: u32,
    ) -> Result<Sample, Failure> {
        let at = self.at(cell)?;
        if case == Case::Delete {
            self.servers[at].stock(DELETED_A_SECOND * u64::from(seconds)).await?;
        }
        let requests = self.write(case)?;
        let OnStage { server, spares, .. } = &mut self.servers[at];
        let sample =
            load::wrk(self.dir.path(), server.port, connections, seconds, &requests, spares.start);
        let sample = sample.await?;
        if case == Case::Delete {
            // Those in flight at the end are not counted, nor is the one that wrk tries out first.
            spares.start += sample.requests + u64::from(connections) + 1;
        }
        Ok(sample)
    }

    /// Loads a framework alone, which answers with as many bytes as the first of its servers does.
    async fn bare(
        &mut self,
        program: &str,
        target: Target,
        case: Case,
        connections: u32,
        seconds: u32,
    ) -> Result<Sample, Failure> {
        let like = self.servers.iter().position(|server| server.cell.bare() == target);
        let like = like.ok_or_else(|| format!("nothing to compare {target} with"))?;
        let requests = case.requests(&self.users);
        let bytes = self.servers[like].answer_size(&requests).await?;
        let empty = start_bare(program, 0, self.dir.path()).await?;
        let head = empty.ask(&requests[0]).await?.bytes;
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

    /// How long a list of 100 takes on one connection.
    pub(crate) async fn browse(
        &self,
        cell: Cell,
        way: Way,
        seconds: u32,
    ) -> Result<Sample, Failure> {
        let request = Case::list_of_100(&self.users).ok_or("there are no users")?;
        let port = self.servers[self.at(cell)?].server.port;
        let sample = browse::browse(port, &request, way, seconds).await?;
        eprintln!("list 100, {}, {cell}: {:.0}/s", way.name(), sample.rate);
        Ok(sample)
    }

    /// How long a read takes alone, and while others log in.
    pub(crate) async fn storm(&mut self, cell: Cell, seconds: u32) -> Result<Storm, Failure> {
        const READERS: u32 = 4;
        const LOGINS: u32 = 16;
        let alone = self.load(cell, Case::Get, READERS, seconds).await?;
        let [reads, logins] = [self.write(Case::Get)?, self.write(Case::Login)?];
        let (dir, port) = (self.dir.path(), self.servers[self.at(cell)?].server.port);
        // The storm is there before the first read, and outlasts the last.
        let storm = load::wrk(dir, port, LOGINS, seconds + 2, &logins, 0);
        let during = async {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            load::wrk(dir, port, READERS, seconds, &reads, 0).await
        };
        let (logins, during) = tokio::try_join!(storm, during)?;
        Ok(Storm { alone, during, logins })
    }

    /// The file of a case's requests.
    fn write(&self, case: Case) -> Result<PathBuf, Failure> {
        let path = self.dir.path().join(format!("{case:?}.requests"));
        let lines: String = case.requests(&self.users).iter().map(Request::line).collect();
        fs::write(&path, lines)?;
        Ok(path)
    }

    /// Ends everything.
    pub(crate) async fn clear(self) -> Result<(), Failure> {
        for OnStage { server, .. } in self.servers {
            server.stop().await?;
        }
        if let Some(cluster) = self.cluster {
            cluster.stop().await?;
        }
        Ok(self.dir.close()?)
    }
}

impl OnStage {
    /// Sees to it that so many todos are there to be deleted.
    async fn stock(&mut self, wanted: u64) -> Result<(), Failure> {
        let end = self.spares.start + wanted;
        if end > self.spares.end {
            seed::add_spares(&self.url, self.spares.end.max(self.spares.start)..end).await?;
            self.spares.end = end;
        }
        Ok(())
    }

    /// How many bytes an answer has on average, by asking.
    async fn answer_size(&mut self, requests: &[Request]) -> Result<usize, Failure> {
        self.stock(Request::SAMPLE as u64).await?;
        let mut bytes = 0;
        for _ in 0..Request::SAMPLE {
            let number = self.spares.start;
            let request = &requests[usize::try_from(number)? % requests.len()];
            self.spares.start += 1;
            let answer = self.server.ask(&request.of_spare(number)).await?;
            if !(200..300).contains(&answer.status) {
                return Err(format!("{}: {} {}", self.cell, answer.status, request.path).into());
            }
            bytes += answer.bytes;
        }
        Ok(bytes.div_ceil(Request::SAMPLE))
    }
}

async fn start_bare(program: &str, size: usize, dir: &Path) -> Result<Running, Failure> {
    let port = free_port()?;
    Running::start(program, port, &[port.to_string(), size.to_string()], &[], dir).await
}
