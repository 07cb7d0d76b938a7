//! A private PostgreSQL cluster of the binaries on this machine, in a temporary directory and on a
//! unix socket in it.

use std::{
    env, fmt, fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{BINARIES, TUNING, wait_until_ready};
use crate::client::causes;

/// Limit for a fast shutdown.
const STOPPING: Duration = Duration::from_secs(20);

/// A running cluster. [`Cluster::stop`] ends it; on Linux, so does the end of the thread that
/// started it.
#[derive(Debug)]
pub struct Cluster {
    binaries: PathBuf,
    dir: TempDir,
    account: Account,
    settings: Vec<String>,
    port: Option<u16>,
    server: Child,
}

impl Cluster {
    /// The cluster that test processes share: on a unix socket, without crash safety.
    pub(super) async fn start() -> Result<Cluster, String> {
        let settings = TUNING.iter().map(|setting| (*setting).to_owned()).collect();
        Cluster::make(settings, false, &[]).await
    }

    /// A cluster for a single test, on 127.0.0.1 at a free port that it keeps through restarts,
    /// with PostgreSQL's full durability, these further settings (`name=value`), and these files
    /// (name, content) in its data directory, readable by the server alone.
    ///
    /// # Errors
    /// The reason why it does not run.
    pub async fn dedicated(settings: &[&str], files: &[(&str, &str)]) -> Result<Cluster, String> {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        // Another program may take the port before it: then it ends, and the port's server may be
        // that of another test.
        let mut attempt = 1;
        loop {
            match Cluster::make(settings.clone(), true, files).await {
                Err(_) if attempt < 3 => attempt += 1,
                made => return made,
            }
        }
    }

    /// Fails if another server is at the port.
    async fn verify(&self) -> Result<(), String> {
        let show = async {
            let mut connection = PgConnection::connect(&self.url()).await?;
            let row: String =
                sqlx::query_scalar("SHOW data_directory").fetch_one(&mut connection).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(row)
        };
        let directory = show.await.map_err(causes)?;
        let own = self.dir.path().join("data");
        if Path::new(&directory) == own {
            Ok(())
        } else {
            Err(format!("the server of {directory} is at the port"))
        }
    }

    async fn make(
        settings: Vec<String>,
        is_dedicated: bool,
        files: &[(&str, &str)],
    ) -> Result<Cluster, String> {
        let binaries = binaries()?;
        let account = Account::of_the_server()?;
        let dir = tempfile::Builder::new().prefix("todo-postgres-").tempdir().map_err(causes)?;
        account.give(dir.path())?;
        let data = dir.path().join("data");

        let mut initdb = account.command(&binaries.join("initdb"), dir.path());
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale"]);
        let made = initdb.arg("--no-sync").arg("-D").arg(&data).output().map_err(causes)?;
        succeeded("initdb", &made)?;

        for (name, content) in files {
            let path = data.join(name);
            fs::write(&path, content).map_err(causes)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(causes)?;
            account.give(&path)?;
        }
        let port = if is_dedicated { Some(free_port()?) } else { None };
        let server = launch(&binaries, &account, dir.path(), &settings, port)?;
        let mut cluster = Cluster { binaries, dir, account, settings, port, server };
        cluster.wait_until_ready().await?;
        if is_dedicated {
            cluster.verify().await?;
        }
        Ok(cluster)
    }

    /// The URL of its maintenance database.
    pub fn url(&self) -> String {
        match self.port {
            Some(port) => format!("postgres://postgres@127.0.0.1:{port}/postgres"),
            None => {
                format!("postgres://postgres@localhost/postgres?host={}", self.dir.path().display())
            }
        }
    }

    /// The port of a dedicated cluster.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// A program that must not run as root, as the server: under the server's account, which owns
    /// `dir`, its working directory. Its output goes to `/dev/null`.
    ///
    /// # Errors
    /// The error of the change of ownership.
    pub fn command(&self, program: &Path, dir: &Path) -> Result<Command, String> {
        for entry in fs::read_dir(dir).map_err(causes)?.flatten() {
            self.account.give(&entry.path())?;
        }
        self.account.give(dir)?;
        let mut command = self.account.command(program, dir);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Sends a signal to all of its processes: `STOP` freezes it, `CONT` resumes it, `KILL` is a
    /// crash.
    ///
    /// # Errors
    /// The error of `kill`.
    pub fn signal_all(&self, signal: &str) -> Result<(), String> {
        let pid = self.pid()?;
        // Stopped first, it forks no more children; one of its children may just have ended.
        let script = "kill -s STOP \"$0\"; \
                      for child in $(ps -o pid= --ppid \"$0\"); do \
                      kill -s \"$1\" \"$child\" 2>/dev/null; done; \
                      kill -s \"$1\" \"$0\"";
        let sent = Command::new("sh").args(["-c", script, &pid, signal]).output();
        succeeded("kill", &sent.map_err(causes)?)
    }

    /// A fast shutdown; [`Cluster::start_again`] may follow.
    ///
    /// # Errors
    /// A timeout.
    pub async fn shut_down(&mut self) -> Result<(), String> {
        let pid = self.pid()?;
        let sent = Command::new("sh").args(["-c", "kill -INT \"$0\"", &pid]).output();
        succeeded("kill", &sent.map_err(causes)?)?;
        self.wait_for_exit().await
    }

    /// Waits for its end, after a signal.
    ///
    /// # Errors
    /// A timeout.
    pub async fn wait_for_exit(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + STOPPING;
        while self.server.try_wait().map_err(causes)?.is_none() {
            if Instant::now() > deadline {
                return Err("PostgreSQL did not stop".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Restarts it on the same data, address and settings, after its end.
    ///
    /// # Errors
    /// The reason why it does not run.
    pub async fn start_again(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + STOPPING;
        loop {
            self.server =
                launch(&self.binaries, &self.account, self.dir.path(), &self.settings, self.port)?;
            match self.wait_until_ready().await {
                // The last process of a crashed server may still hold the shared memory.
                Err(reason) if reason.contains("shared memory") && Instant::now() < deadline => {
                    sleep(Duration::from_millis(50)).await;
                }
                done => return done,
            }
        }
    }

    fn pid(&self) -> Result<String, String> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).map_err(causes)?;
        Ok(file.lines().next().unwrap_or_default().to_owned())
    }

    async fn wait_until_ready(&mut self) -> Result<(), String> {
        let url = self.url();
        wait_until_ready(&url, || self.check_alive()).await
    }

    /// A fast shutdown, then deletes the directory.
    ///
    /// # Errors
    /// The error; the directory may remain.
    pub async fn stop(mut self) -> Result<(), String> {
        self.shut_down().await?;
        fs::remove_dir_all(self.dir.path()).map_err(causes)
    }

    fn check_alive(&mut self) -> Result<(), String> {
        match self.server.try_wait().map_err(causes)? {
            None => Ok(()),
            Some(status) => {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                Err(format!("postgres ended with {status}: {}", log.trim()))
            }
        }
    }
}

fn free_port() -> Result<u16, String> {
    let free = std::net::TcpListener::bind("127.0.0.1:0").map_err(causes)?;
    Ok(free.local_addr().map_err(causes)?.port())
}

fn launch(
    binaries: &Path,
    account: &Account,
    dir: &Path,
    settings: &[String],
    port: Option<u16>,
) -> Result<Child, String> {
    let log = fs::File::create(dir.join("log")).map_err(causes)?;
    let mut postgres = account.command(&binaries.join("postgres"), dir);
    postgres.arg("-D").arg(dir.join("data")).arg("-k").arg(dir);
    match port {
        Some(port) => postgres.args(["-c", "listen_addresses=127.0.0.1", "-p", &port.to_string()]),
        None => postgres.args(["-c", "listen_addresses="]),
    };
    postgres.args(settings.iter().flat_map(|setting| ["-c", setting]));
    postgres.stdout(Stdio::null()).stderr(log).spawn().map_err(causes)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A dedicated cluster is not leased; only SIGKILL ends a frozen process.
        if self.port.is_some() && matches!(self.server.try_wait(), Ok(None)) {
            let _ = self.signal_all("KILL");
            let _ = self.server.wait();
        }
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a private cluster by {}", self.binaries.display())
    }
}

/// The directory with `initdb` and `postgres`: [`BINARIES`] if set, else one on the `PATH`, else
/// the newest of the packages' directories.
fn binaries() -> Result<PathBuf, String> {
    let complete = |dir: &PathBuf| ["initdb", "postgres"].iter().all(|n| dir.join(n).is_file());
    if let Some(named) = env::var_os(BINARIES).map(PathBuf::from) {
        let none = || format!("no initdb and postgres in {BINARIES}, {}", named.display());
        return Some(named.clone()).filter(complete).ok_or_else(none);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let mut packaged: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    packaged.sort();
    let found = env::split_paths(&path).chain(packaged.into_iter().rev()).find(complete);
    found.ok_or_else(|| "no initdb and postgres in PATH or /usr/lib/postgresql/*/bin".to_owned())
}

/// The account to run the server as: PostgreSQL refuses to run as root.
#[derive(Debug)]
enum Account {
    Ours,
    Postgres { uid: u32, gid: u32 },
}

impl Account {
    fn of_the_server() -> Result<Account, String> {
        if id(&["-u"])? != 0 {
            return Ok(Account::Ours);
        }
        let ids = id(&["-u", "postgres"]).and_then(|uid| Ok((uid, id(&["-g", "postgres"])?)));
        let (uid, gid) = ids.map_err(|reason| {
            format!("root cannot run PostgreSQL and there is no user postgres: {reason}")
        })?;
        Ok(Account::Postgres { uid, gid })
    }

    fn give(&self, dir: &Path) -> Result<(), String> {
        match *self {
            Account::Ours => Ok(()),
            Account::Postgres { uid, gid } => chown(dir, Some(uid), Some(gid)).map_err(causes),
        }
    }

    /// `program` under this account; with `setpriv`, it also ends with this process.
    fn command(&self, program: &Path, dir: &Path) -> Command {
        let mut command = match *self {
            _ if works("setpriv") => {
                let mut setpriv = Command::new("setpriv");
                if let Account::Postgres { uid, gid } = *self {
                    let ids = [format!("--reuid={uid}"), format!("--regid={gid}")];
                    setpriv.args(ids).arg("--clear-groups");
                }
                setpriv.args(["--pdeathsig", "INT"]).arg(program);
                setpriv
            }
            Account::Ours => Command::new(program),
            Account::Postgres { .. } => {
                let mut su = Command::new("su");
                su.args(["-s", "/bin/sh", "postgres", "-c", "exec \"$0\" \"$@\"", "--"]);
                su.arg(program);
                su
            }
        };
        command.current_dir(dir).stdin(Stdio::null());
        command
    }
}

fn id(args: &[&str]) -> Result<u32, String> {
    let output = Command::new("id").args(args).output().map_err(causes)?;
    succeeded("id", &output)?;
    String::from_utf8_lossy(&output.stdout).trim().parse().map_err(causes)
}

fn succeeded(program: &str, output: &Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} ended with {}: {}", output.status, stderr.trim()))
}

fn works(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}
