//! Programs under measurement as processes: started, asked, ended by their id. What they are asked
//! is for `cases`.

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

/// How long a program may take until it answers, and a single answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// A program that listens on the loopback; killed when dropped.
pub(crate) struct Running {
    name: String,
    child: Child,
    pub(crate) port: u16,
}

/// What an answer was.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Head and body.
    pub(crate) bytes: usize,
}

/// A port that nobody listens on right now.
pub(crate) fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Where a program of this workspace is: beside this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf, Failure> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

impl Running {
    /// Starts a program that will listen on `port`, with nothing but these settings in its
    /// environment, and waits until it answers.
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
        let mut running = Self { name: name.to_owned(), child, port };
        running.answers().await?;
        Ok(running)
    }

    async fn answers(&mut self) -> Result<(), Failure> {
        let health = Request {
            method: "GET",
            path: "/health".into(),
            token: String::new(),
            body: String::new(),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended with {status}", self.name).into());
            }
            match self.ask(&health).await {
                Ok(Answer { status: 200, .. }) => return Ok(()),
                _ if Instant::now() < deadline => sleep(Duration::from_millis(10)).await,
                Ok(answer) => {
                    return Err(format!("{}: /health is {}", self.name, answer.status).into());
                }
                Err(error) => return Err(format!("{}: no answer: {error}", self.name).into()),
            }
        }
    }

    /// Sends one request, as wrk does, and reads its answer whole.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Answer, Failure> {
        timeout(PATIENCE, exchange(self.port, request)).await?
    }

    /// Its process.
    pub(crate) fn id(&self) -> Result<u32, Failure> {
        self.child.id().ok_or_else(|| format!("{} has ended", self.name).into())
    }

    /// Ends it, and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }
}

async fn exchange(port: u16, request: &Request) -> Result<Answer, Failure> {
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
            return Err("the answer ended in its head".into());
        }
    }
    let status = head.split(' ').nth(1).unwrap_or_default().parse()?;
    let length = head.to_ascii_lowercase().lines().find_map(|line| {
        line.strip_prefix("content-length:").and_then(|length| length.trim().parse().ok())
    });
    let mut body = vec![0; length.ok_or("an answer without a Content-Length")?];
    stream.read_exact(&mut body).await?;
    Ok(Answer { status, bytes: head.len() + body.len() })
}
