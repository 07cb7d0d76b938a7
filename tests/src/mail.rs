//! Mails that a server under test has sent: to a directory, or to a real SMTP server.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{App, Target, process::empty_dir, tools::tool_of};

/// Limit for the arrival of a mail.
const ARRIVAL: Duration = Duration::from_secs(30);

/// The settings of mails besides `SMTP_URL`.
pub const MAIL_SETTINGS: [(&str, &str); 2] =
    [("MAIL_FROM", "todo@example.com"), ("APP_URL", "https://app.example.com")];

/// A mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Headers and body.
    pub text: String,
}

impl Mail {
    /// The value of a header.
    pub fn header(&self, name: &str) -> &str {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default();
        let value = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }

    /// The address in `To`.
    pub fn to(&self) -> &str {
        self.header("To").trim_matches(['<', '>'])
    }

    /// The token of its link.
    pub fn token(&self) -> &str {
        let (_, rest) = self.text.split_once("#token=").expect("a link");
        rest.lines().next().unwrap_or_default()
    }
}

/// The mails in a directory, in the order in which they were written.
fn mails_in(directory: &Path) -> Vec<Mail> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = files.map(|file| file.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
    let written = |path: &PathBuf| path.metadata().and_then(|file| file.modified()).ok();
    paths.sort_by_key(written);
    let read = |path: PathBuf| Mail { text: fs::read_to_string(path).expect("a mail") };
    paths.into_iter().map(read).collect()
}

/// The last mail to `to` with this subject, once there is one.
async fn arrived(directory: &Path, to: &str, subject: &str) -> Mail {
    let deadline = Instant::now() + ARRIVAL;
    loop {
        let mails = mails_in(directory);
        let is_it = |mail: &&Mail| mail.to() == to && mail.header("Subject") == subject;
        if let Some(mail) = mails.iter().rfind(is_it) {
            return mail.clone();
        }
        assert!(Instant::now() < deadline, "no {subject:?} to {to}: {mails:#?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A directory into which a server under test writes its mails.
#[derive(Debug)]
pub struct Mailbox(TempDir);

impl Default for Mailbox {
    fn default() -> Self {
        Self(empty_dir())
    }
}

impl Mailbox {
    /// Its `SMTP_URL`.
    pub fn url(&self) -> String {
        format!("file://{}", self.0.path().display())
    }

    /// Starts a server that sends its mails here.
    pub async fn start(&self, target: Target, more: &[(&str, &str)]) -> App {
        let url = self.url();
        let settings = [&[("SMTP_URL", &*url)], &MAIL_SETTINGS[..], more].concat();
        App::start_with(target, &settings).await
    }

    /// All mails so far.
    pub fn mails(&self) -> Vec<Mail> {
        mails_in(self.0.path())
    }

    /// The last mail to `to` with this subject, once there is one.
    pub async fn arrived(&self, to: &str, subject: &str) -> Mail {
        arrived(self.0.path(), to, subject).await
    }
}

/// A real SMTP server, aiosmtpd, with the modes of `tests/smtp_server.py`.
#[derive(Debug)]
pub struct SmtpServer {
    directory: TempDir,
    child: Option<Child>,
    /// The port that it listens on.
    pub port: u16,
    options: &'static [&'static str],
}

impl SmtpServer {
    /// Starts one that accepts mails.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// As [`SmtpServer::start`], with more arguments.
    pub async fn start_with(options: &'static [&'static str]) -> Self {
        tokio::task::spawn_blocking(|| tool_of("aiosmtpd", "python3-aiosmtpd"))
            .await
            .expect("it is installed");
        let mut server = Self { directory: empty_dir(), child: None, port: 0, options };
        server.set_mode("ok");
        server.resume().await;
        server
    }

    /// Sets the mode of the next commands.
    pub fn set_mode(&self, mode: &str) {
        fs::write(self.directory.path().join("mode"), mode).expect("it is written");
    }

    /// Listens on the same port again, after [`SmtpServer::stop`].
    pub async fn resume(&mut self) {
        // Debian's, which has the package.
        let python =
            if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
        let mut command = Command::new(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/smtp_server.py"));
        command.arg(self.directory.path()).arg(self.port.to_string()).args(self.options);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("python runs");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = timeout(ARRIVAL, lines.next_line()).await.expect("it starts in time");
        self.port = line.expect("a line").and_then(|port| port.parse().ok()).expect("a port");
        self.child = Some(child);
    }

    /// Kills it, so that connections are refused.
    pub async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("it is killed");
        }
    }

    /// Its `SMTP_URL`.
    pub fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    /// All mails that it has accepted.
    pub fn mails(&self) -> Vec<Mail> {
        mails_in(self.directory.path())
    }

    /// The last mail to `to` with this subject, once there is one.
    pub async fn arrived(&self, to: &str, subject: &str) -> Mail {
        arrived(self.directory.path(), to, subject).await
    }
}
