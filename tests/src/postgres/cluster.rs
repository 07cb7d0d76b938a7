//! A private PostgreSQL cluster of the binaries on this machine, in a temporary directory and on a
//! unix socket in it.

use std::{
    env, fmt, fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{BINARIES, TUNING, answers};
use crate::client::causes;

/// How long a fast shutdown may take.
const STOPPING: Duration = Duration::from_secs(20);

/// A running cluster. [`Cluster::stop`] ends it; where Linux allows, so does the end of the thread
/// that started it.
#[derive(Debug)]
pub(super) struct Cluster {
    binaries: PathBuf,
    dir: TempDir,
    server: Child,
}

impl Cluster {
    pub(super) async fn start() -> Result<Cluster, String> {
        let binaries = binaries()?;
        let account = Account::of_the_server()?;
        let dir = tempfile::Builder::new().prefix("todo-postgres-").tempdir().map_err(causes)?;
        account.give(dir.path())?;
        let data = dir.path().join("data");

        let mut initdb = account.command(&binaries.join("initdb"), dir.path());
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale"]);
        let made = initdb.arg("--no-sync").arg("-D").arg(&data).output().map_err(causes)?;
        succeeded("initdb", &made)?;

        let log = fs::File::create(dir.path().join("log")).map_err(causes)?;
        let mut postgres = account.command(&binaries.join("postgres"), dir.path());
        postgres.arg("-D").arg(&data).arg("-k").arg(dir.path());
        postgres.args(["-c", "listen_addresses="]);
        postgres.args(TUNING.iter().flat_map(|setting| ["-c", *setting]));
        let server = postgres.stdout(Stdio::null()).stderr(log).spawn().map_err(causes)?;

        let mut cluster = Cluster { binaries, dir, server };
        let url = cluster.url();
        answers(&url, || cluster.lives()).await?;
        Ok(cluster)
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.dir.path().display())
    }

    /// A fast shutdown, then the directory.
    pub(super) async fn stop(mut self) -> Result<(), String> {
        let pid_file = fs::read_to_string(self.dir.path().join("data/postmaster.pid"));
        let pid_file = pid_file.map_err(causes)?;
        let pid = pid_file.lines().next().unwrap_or_default();
        let told = Command::new("sh").args(["-c", "kill -INT \"$0\"", pid]).output();
        succeeded("kill", &told.map_err(causes)?)?;
        let deadline = Instant::now() + STOPPING;
        while self.server.try_wait().map_err(causes)?.is_none() {
            if Instant::now() > deadline {
                return Err(format!("PostgreSQL (process {pid}) did not stop"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.dir.close().map_err(causes)
    }

    fn lives(&mut self) -> Result<(), String> {
        match self.server.try_wait().map_err(causes)? {
            None => Ok(()),
            Some(status) => {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                Err(format!("postgres ended with {status}: {}", log.trim()))
            }
        }
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a private cluster by {}", self.binaries.display())
    }
}

/// The directory with `initdb` and `postgres`: the one that was named, else one on the path, else
/// the newest of those where packages put them.
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

/// Whom to run the server as: it refuses to be root.
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

    /// `program` under this account; with `setpriv`, it also ends when we do.
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
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} ended with {}: {}", output.status, said.trim()))
}

fn works(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").output();
    asked.is_ok_and(|output| output.status.success())
}
