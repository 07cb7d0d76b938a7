//! The programs as an operator runs them: processes with a clean environment.

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

/// The programs of both servers.
pub const PROGRAMS: [&str; 2] = ["todo-server", "todo-hyper-min"];

/// Limit for a start, which may wait for other processes that migrate.
pub const STARTING: Duration = Duration::from_secs(60);
/// Limit for a stop. A stop without open requests takes milliseconds; one that waits for a silent
/// peer takes much longer.
pub const STOPPING: Duration = Duration::from_secs(10);

/// The path of a program; the first call builds both.
pub fn built(name: &str) -> &'static Path {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(build);
    built.get(name).unwrap_or_else(|| panic!("cargo built no {name}, only {built:?}"))
}

/// Builds with the features of `cargo test --workspace`, so that nothing is compiled twice.
fn build() -> BTreeMap<String, PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = std::process::Command::new(cargo);
    build.args(["build", "--workspace", "--bins", "--message-format=json-render-diagnostics"]);
    // In this test's target folder: a coverage run has a separate one, and reports only on the
    // programs in it.
    let exe = env::current_exe().expect("a path");
    if let Some(folder) = exe.ancestors().nth(3) {
        build.arg("--target-dir").arg(folder);
    }
    let output = build
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo build: {}", output.status);
    let mut built = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Value = serde_json::from_str(line).unwrap_or_default();
        let name = message["target"]["name"].as_str();
        if let (Some(name), Some(path)) = (name, message["executable"].as_str()) {
            built.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    built
}

/// A program in an otherwise empty environment.
pub fn command(program: &str, dir: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = match program {
        "bash" => Command::new("bash"),
        // SIGINT ends it even if these tests run in the background, where a shell ignores the
        // signal.
        program => {
            let mut command = Command::new("env");
            command.arg("--default-signal=INT").arg(built(program));
            command
        }
    };
    command.current_dir(dir).env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The last one is for coverage runs.
    for name in ["PATH", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("PORT", "0").envs(settings.iter().copied());
    command
}

/// A program that listens.
#[derive(Debug)]
pub struct Process {
    /// The process.
    pub child: Child,
    /// The address that it listens on.
    pub addr: SocketAddr,
    lines: mpsc::UnboundedReceiver<String>,
    output: Arc<Mutex<String>>,
}

impl Process {
    /// Starts a program and waits until it logs its address.
    pub async fn start(program: &str, dir: &Path, settings: &[(&str, &str)]) -> Process {
        Self::spawned(command(program, dir, settings), program).await
    }

    /// As [`Process::start`], for any command that runs the program.
    pub async fn spawned(mut command: Command, program: &str) -> Process {
        let mut child = command.spawn().expect("the program runs");
        let (sender, mut lines) = mpsc::unbounded_channel();
        let output = Arc::new(Mutex::new(String::new()));
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        tokio::spawn(collect(stdout, sender.clone(), output.clone()));
        tokio::spawn(collect(stderr, sender, output.clone()));
        let addr = timeout(STARTING, first(&mut lines, address_in)).await.ok().flatten();
        let logged = || output.lock().expect("no reader panics").clone();
        let addr = addr.unwrap_or_else(|| panic!("{program} does not listen: {}", logged()));
        Process { child, addr, lines, output }
    }

    /// Waits until it logs that it is stopping.
    pub async fn wait_for_stopping(&mut self) {
        let stopping = |line: &str| line.contains("stopping").then_some(());
        let found = timeout(STOPPING, first(&mut self.lines, stopping)).await;
        assert_eq!(found, Ok(Some(())), "it does not log that it stops: {}", self.output());
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it still runs").to_string();
        let sent = std::process::Command::new("kill").args(["-s", signal, &id]).status();
        assert!(sent.expect("kill runs").success(), "kill -s {signal} {id}");
    }

    /// Its resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The maximum of its resident memory since the last call, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let peak = self.status("VmHWM:");
        // proc(5): 5 sets the maximum to the present size.
        std::fs::write(self.file_of_proc("clear_refs"), "5").expect("the maximum is reset");
        peak
    }

    /// A size of its memory, in bytes.
    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(self.file_of_proc("status")).expect("it is there");
        let line = status.lines().find(|line| line.starts_with(name)).expect("its size");
        let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("a number") << 10
    }

    fn file_of_proc(&self, name: &str) -> PathBuf {
        let id = self.child.id().expect("it runs");
        PathBuf::from(format!("/proc/{id}/{name}"))
    }

    /// Its output so far, on both streams.
    pub fn output(&self) -> String {
        self.output.lock().expect("no reader panics").clone()
    }

    /// Waits for an output line that contains `text`.
    pub async fn wait_for_line(&mut self, text: &str) {
        let has = |line: &str| line.contains(text).then_some(());
        let found = timeout(STARTING, first(&mut self.lines, has)).await;
        assert_eq!(found, Ok(Some(())), "no line with {text:?}: {}", self.output());
    }

    /// Waits for a clean exit; returns its output.
    pub async fn wait_for_exit(mut self) -> String {
        let ended = timeout(STOPPING, self.child.wait()).await;
        // To the end of both streams: the last lines may still be in a pipe.
        let _ = timeout(STOPPING, async { while self.lines.recv().await.is_some() {} }).await;
        let output = self.output();
        let status = ended.unwrap_or_else(|_| panic!("still running after {STOPPING:?}: {output}"));
        let status = status.expect("a status");
        assert!(status.success(), "{status}: {output}");
        output
    }

    /// Sends SIGTERM and waits for a clean exit; returns its output.
    pub async fn stop(self) -> String {
        self.signal("TERM");
        self.wait_for_exit().await
    }
}

/// The first match of `find` in the lines.
async fn first<T>(
    lines: &mut mpsc::UnboundedReceiver<String>,
    find: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    while let Some(line) = lines.recv().await {
        if let Some(found) = find(&line) {
            return Some(found);
        }
    }
    None
}

/// Collects a program's output, and forwards it line by line.
async fn collect(
    from: impl AsyncRead + Unpin,
    lines: mpsc::UnboundedSender<String>,
    output: Arc<Mutex<String>>,
) {
    let mut from = BufReader::new(from).lines();
    while let Ok(Some(line)) = from.next_line().await {
        {
            let mut output = output.lock().expect("no reader panics");
            output.push_str(&line);
            output.push('\n');
        }
        // The receiver may be gone.
        let _ = lines.send(line);
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on http")?;
    let (_, rest) = rest.split_once("://")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

/// The standard error of a program whose start must fail.
pub async fn startup_error(program: &str, dir: &Path, settings: &[(&str, &str)]) -> String {
    let output = timeout(STARTING, command(program, dir, settings).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{program} runs with {settings:?}"));
    let output = output.expect("the program runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    assert!(
        code.is_some_and(|code| code != 0),
        "{program} {settings:?}: {}: {stderr}",
        output.status
    );
    stderr
}

/// An empty temporary directory, deleted on drop.
///
/// # Panics
/// When it cannot be created.
pub fn empty_dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}
