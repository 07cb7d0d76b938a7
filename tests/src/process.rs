//! The programs as an operator meets them: processes with an environment of their own.

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
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

/// Both servers' programs.
pub const PROGRAMS: [&str; 2] = ["todo-server", "todo-hyper-min"];

/// A start may wait for others that migrate; only one that hangs takes this long.
pub const STARTING: Duration = Duration::from_secs(60);
/// A stop that nothing holds up takes milliseconds; one that waits for a silent peer, much longer.
pub const STOPPING: Duration = Duration::from_secs(10);

/// Where cargo put a program, after building both once.
pub fn built(name: &str) -> &'static Path {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(build);
    built.get(name).unwrap_or_else(|| panic!("cargo built no {name}, only {built:?}"))
}

/// Builds with the features that `cargo test --workspace` has, so that nothing is compiled again.
fn build() -> BTreeMap<String, PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = std::process::Command::new(cargo);
    build.args(["build", "--workspace", "--bins", "--message-format=json-render-diagnostics"]);
    // Beside this test, wherever that was built: a coverage run has a folder of its own, and reports
    // of the programs in there only.
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
        // SIGINT ends it, even if these tests were started in the background, where a shell has it
        // ignored.
        program => {
            let mut command = Command::new("env");
            command.arg("--default-signal=INT").arg(built(program));
            command
        }
    };
    command.current_dir(dir).env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The last one lets a coverage run see into the program.
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
    /// The process itself.
    pub child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
    heard: mpsc::UnboundedReceiver<String>,
    said: Arc<Mutex<String>>,
}

impl Process {
    /// Starts a program and waits until it says where it listens.
    pub async fn start(program: &str, dir: &Path, settings: &[(&str, &str)]) -> Process {
        Self::spawned(command(program, dir, settings), program).await
    }

    /// As [`Process::start`], of a command that may be more than the program's own.
    pub async fn spawned(mut command: Command, program: &str) -> Process {
        let mut child = command.spawn().expect("the program runs");
        let (lines, mut heard) = mpsc::unbounded_channel();
        let said = Arc::new(Mutex::new(String::new()));
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        tokio::spawn(listen(stdout, lines.clone(), said.clone()));
        tokio::spawn(listen(stderr, lines, said.clone()));
        let addr = timeout(STARTING, first(&mut heard, address_in)).await.ok().flatten();
        let said_so_far = || said.lock().expect("no listener panics").clone();
        let addr =
            addr.unwrap_or_else(|| panic!("{program} does not listen; it said: {}", said_so_far()));
        Process { child, addr, heard, said }
    }

    /// Waits until it says that it was told to stop.
    pub async fn stops(&mut self) {
        let stopping = |line: &str| line.contains("stopping").then_some(());
        let heard = timeout(STOPPING, first(&mut self.heard, stopping)).await;
        let said = self.said.lock().expect("no listener panics").clone();
        assert_eq!(heard, Ok(Some(())), "it does not say that it stops: {said}");
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it still runs").to_string();
        let sent = std::process::Command::new("kill").args(["-s", signal, &id]).status();
        assert!(sent.expect("kill runs").success(), "kill -s {signal} {id}");
    }

    /// What it has said so far, on both streams.
    pub fn said(&self) -> String {
        self.said.lock().expect("no listener panics").clone()
    }

    /// Waits until it has said `text`, in the log or elsewhere.
    pub async fn says(&mut self, text: &str) {
        let has = |line: &str| line.contains(text).then_some(());
        let heard = timeout(STARTING, first(&mut self.heard, has)).await;
        assert_eq!(heard, Ok(Some(())), "it does not say {text:?}: {}", self.said());
    }

    /// Waits for a clean end; returns what it said.
    pub async fn ended(mut self) -> String {
        let ended = timeout(STOPPING, self.child.wait()).await;
        // To the end of both streams: what it said last may still be in a pipe.
        let _ = timeout(STOPPING, async { while self.heard.recv().await.is_some() {} }).await;
        let said = self.said.lock().expect("no listener panics").clone();
        let status = ended.unwrap_or_else(|_| panic!("still running after {STOPPING:?}: {said}"));
        let status = status.expect("a status");
        assert!(status.success(), "{status}: {said}");
        said
    }

    /// Tells it to stop and waits for a clean end; returns what it said.
    pub async fn stop(self) -> String {
        self.signal("TERM");
        self.ended().await
    }
}

/// What is found in the first line that has it.
async fn first<T>(
    heard: &mut mpsc::UnboundedReceiver<String>,
    find: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    while let Some(line) = heard.recv().await {
        if let Some(found) = find(&line) {
            return Some(found);
        }
    }
    None
}

/// Keeps and passes on what a program says.
async fn listen(
    from: impl AsyncRead + Unpin,
    lines: mpsc::UnboundedSender<String>,
    said: Arc<Mutex<String>>,
) {
    let mut from = BufReader::new(from).lines();
    while let Ok(Some(line)) = from.next_line().await {
        {
            let mut said = said.lock().expect("no listener panics");
            said.push_str(&line);
            said.push('\n');
        }
        // Nobody may be listening any more.
        let _ = lines.send(line);
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on http")?;
    let (_, rest) = rest.split_once("://")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

/// What a program says on standard error that does not start.
pub async fn refusal(program: &str, dir: &Path, settings: &[(&str, &str)]) -> String {
    let output = timeout(STARTING, command(program, dir, settings).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{program} runs with {settings:?}"));
    let output = output.expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    assert!(
        code.is_some_and(|code| code != 0),
        "{program} {settings:?}: {}: {said}",
        output.status
    );
    said
}
