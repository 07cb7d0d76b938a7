//! Processes under measurement: start, requests, stop. `cases` defines the requests.

use std::{
    fmt::Write,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use todo_bench::Failure;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::cases::Request;

/// Timeout of a start and of a single response.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A process that listens on the loopback; killed on drop.
pub(crate) struct ServerProcess {
    name: String,
    child: Child,
    pub(crate) port: u16,
}

/// Status and size of a response.
pub(crate) struct ResponseSummary {
    pub(crate) status: u16,
    /// Size of head and body.
    pub(crate) bytes: usize,
}

/// A currently unused port.
pub(crate) fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Path of a program of this workspace, in the directory of this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf, Failure> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

impl ServerProcess {
    /// Starts a program that listens on `port`, with only these settings in its environment, and
    /// waits until it responds.
    pub(crate) async fn start(
        name: &str,
        port: u16,
        arguments: &[String],
        settings: &[(&str, &str)],
        dir: &Path,
    ) -> Result<Self, Failure> {
        let program = beside(name)?;
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(dir).env_clear().envs(settings.iter().copied());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        let mut process = Self { name: name.to_owned(), child, port };
        process.wait_until_healthy().await?;
        Ok(process)
    }

    async fn wait_until_healthy(&mut self) -> Result<(), Failure> {
        let health = Request {
            method: "GET",
            path: "/health".into(),
            token: String::new(),
            body: String::new(),
        };
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended with {status}", self.name).into());
            }
            match self.send(&health).await {
                Ok(ResponseSummary { status: 200, .. }) => return Ok(()),
                _ if Instant::now() < deadline => sleep(Duration::from_millis(10)).await,
                Ok(response) => {
                    let status = response.status;
                    return Err(format!("{}: /health responds with {status}", self.name).into());
                }
                Err(error) => return Err(format!("{}: no response: {error}", self.name).into()),
            }
        }
    }

    /// Sends one request, as wrk does, and reads its response to the end.
    pub(crate) async fn send(&self, request: &Request) -> Result<ResponseSummary, Failure> {
        timeout(TIMEOUT, exchange(self.port, request)).await?
    }

    /// Process id.
    pub(crate) fn id(&self) -> Result<u32, Failure> {
        self.child.id().ok_or_else(|| format!("{} has ended", self.name).into())
    }

    /// Kills the process and waits for its end.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }
}

async fn exchange(port: u16, request: &Request) -> Result<ResponseSummary, Failure> {
    let Request { method, path, token, body } = request;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n");
    // Writing to a string does not fail.
    if !token.is_empty() {
        let _ = write!(head, "Authorization: Bearer {token}\r\n");
    }
    if !body.is_empty() {
        let length = body.len();
        let _ = write!(head, "Content-Type: application/json\r\nContent-Length: {length}\r\n");
    }
    let text = head + "\r\n" + body;
    let mut stream = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
    stream.write_all(text.as_bytes()).await?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Err("the response ended in its head".into());
        }
    }
    let status = head.split(' ').nth(1).unwrap_or_default().parse()?;
    let length = head.to_ascii_lowercase().lines().find_map(|line| {
        line.strip_prefix("content-length:").and_then(|length| length.trim().parse().ok())
    });
    let mut body = vec![0; length.ok_or("a response without Content-Length")?];
    stream.read_exact(&mut body).await?;
    Ok(ResponseSummary { status, bytes: head.len() + body.len() })
}
