//! One PostgreSQL for all concurrent test processes, which never outlives them.
//!
//! A test binary cannot own a server: statics are not dropped, and a process may be killed. So the
//! first process that needs PostgreSQL starts a lender (the binary `with-postgres`) in its own
//! process group. The lender starts the server and holds one TCP connection to each process that
//! uses it; a few seconds after the last connection has closed, it stops the server.

use std::{
    env,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpListener, sync::mpsc, time::sleep};

use crate::{
    client::causes,
    postgres::{self, Postgres},
};

/// How long the lender waits for another borrower; the gap between two test binaries is far less.
const LINGER: Duration = Duration::from_secs(3);

/// A share in a PostgreSQL server, held until the process ends.
#[derive(Debug)]
pub struct Lease {
    /// The URL of its maintenance database.
    pub url: String,
    /// Its origin, for people.
    pub origin: String,
    /// The connection whose end returns the share.
    _held: Option<TcpStream>,
}

/// The PostgreSQL of this process; the first call finds or starts it and prints its origin on
/// standard error. Blocks.
///
/// # Panics
/// When there is none; the message names what to install.
pub fn postgres() -> &'static Lease {
    static LEASE: OnceLock<Lease> = OnceLock::new();
    LEASE.get_or_init(|| {
        let lease = take().unwrap_or_else(|reason| panic!("{reason}"));
        // Not eprintln!, which the test runner captures and hides for a test that passes; in one
        // write, since other threads write to it too.
        let line = format!("PostgreSQL for the tests: {}\n", lease.origin);
        let _ = io::stderr().write_all(line.as_bytes());
        lease
    })
}

fn take() -> Result<Lease, String> {
    if let Some(url) = postgres::given() {
        let origin = format!("the server {} names", postgres::URL);
        return Ok(Lease { url, origin, _held: None });
    }
    let lender = lender()?;
    let notes = Notes::beside(&lender);
    let lock = File::create(&notes.lock).map_err(causes)?;
    lock.lock().map_err(causes)?;
    if let Some(lease) = borrow_at(&notes.port) {
        return Ok(lease);
    }
    start(&lender, &notes)?;
    borrow_at(&notes.port).ok_or_else(|| format!("the lender is gone: {}", notes.log()))
}

/// Files through which test processes find the lender.
struct Notes {
    lock: PathBuf,
    port: PathBuf,
    log: PathBuf,
}

impl Notes {
    /// Next to the lender; separate for each way to choose PostgreSQL.
    fn beside(lender: &Path) -> Notes {
        let mut hasher = DefaultHasher::new();
        for name in ["DOCKER_HOST", postgres::IMAGE, postgres::BINARIES] {
            env::var_os(name).hash(&mut hasher);
        }
        let stem = format!("postgres-{:016x}", hasher.finish());
        let file = |extension| lender.with_file_name(format!("{stem}.{extension}"));
        Notes { lock: file("lock"), port: file("port"), log: file("log") }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default().trim().to_owned()
    }
}

/// The binary `with-postgres`, which cargo builds along with the tests.
fn lender() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("NEXTEST_BIN_EXE_with-postgres") {
        return Ok(path.into());
    }
    let exe = env::current_exe().map_err(causes)?;
    let near = exe.ancestors().skip(1).take(2).map(|dir| dir.join("with-postgres"));
    near.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        format!("no with-postgres near {}: `cargo build -p todo-tests` makes it", exe.display())
    })
}

/// Starts a lender and waits until its server is ready.
fn start(lender: &Path, notes: &Notes) -> Result<(), String> {
    let log = File::create(&notes.log).map_err(causes)?;
    let mut child = Command::new(lender)
        .arg("--lend")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        // A separate group: an interrupt from the terminal ends the tests, and their end ends it.
        .process_group(0)
        .spawn()
        .map_err(causes)?;
    let mut port = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut port).map_err(causes)?;
    if port.is_empty() {
        return Err(notes.log());
    }
    fs::write(&notes.port, port.trim()).map_err(causes)
}

/// A share from the lender whose port is in this file, if it still runs.
fn borrow_at(port: &Path) -> Option<Lease> {
    let port: u16 = fs::read_to_string(port).ok()?.parse().ok()?;
    borrow(port)
}

/// A share from the lender at this port, if there is one.
pub fn borrow(port: u16) -> Option<Lease> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    // Another program may have the port by now, and send nothing.
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut line = String::new();
    BufReader::new(&stream).take(4096).read_line(&mut line).ok()?;
    let terms: Value = serde_json::from_str(&line).ok()?;
    let text = |name: &str| terms["todo-postgres"][name].as_str().map(str::to_owned);
    Some(Lease { url: text("url")?, origin: text("origin")?, _held: Some(stream) })
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(stream) = &self._held {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// The lender: starts PostgreSQL, prints the port to borrow it at, and stops it after `LINGER`
/// without a borrower.
///
/// # Errors
/// The reason why there is no PostgreSQL, or what remains of it.
pub async fn lend() -> Result<(), String> {
    let postgres = Postgres::find().await?;
    let lent = lend_out(&postgres).await;
    postgres.stop().await.and(lent)
}

async fn lend_out(postgres: &Postgres) -> Result<(), String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(causes)?;
    println!("{}", listener.local_addr().map_err(causes)?.port());
    let terms = json!({ "todo-postgres": { "url": postgres.url(), "origin": postgres.origin() } });
    let terms = format!("{terms}\n");
    let (returning, mut returned) = mpsc::unbounded_channel();
    let mut borrowers = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (mut stream, _) = accepted.map_err(causes)?;
                let (terms, returning) = (terms.clone(), returning.clone());
                borrowers += 1;
                tokio::spawn(async move {
                    if stream.write_all(terms.as_bytes()).await.is_ok() {
                        // A borrower sends nothing: the read ends when the borrower does.
                        let _ = stream.read(&mut [0]).await;
                    }
                    let _ = returning.send(());
                });
            }
            Some(()) = returned.recv() => borrowers -= 1,
            () = sleep(LINGER), if borrowers == 0 => return Ok(()),
        }
    }
}
