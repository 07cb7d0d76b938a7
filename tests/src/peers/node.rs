//! A program of Node.js, with the npm packages of its folder.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::Stdio,
    sync::Mutex,
};

use serde_json::Value;
use tokio::process::Command;

use crate::{Client, Process, tools::tool};

/// A running program that prints its address and has a path `/control`.
#[derive(Debug)]
pub(super) struct Node {
    /// `None` if other tests use it too.
    process: Option<Process>,
    pub(super) client: Client,
}

impl Node {
    /// Starts `script` of `folder`, whose packages are installed if they are missing.
    ///
    /// # Panics
    /// When it does not start.
    pub(super) async fn start(folder: &'static str, script: &str, options: &[String]) -> Node {
        let installed = tokio::task::spawn_blocking(move || tool(folder)).await;
        let mut command = Command::new("node");
        command.current_dir(installed.expect("it is installed")).arg(script).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        let process = Process::spawned(command, script).await;
        let client = Client::of(process.addr);
        Node { process: Some(process), client }
    }

    /// As [`Node::start`]: one program for all tests of this process that ask for the same. It ends
    /// when its standard input closes, which is when this process ends.
    ///
    /// # Panics
    /// When it does not start.
    pub(super) async fn shared(
        folder: &'static str,
        script: &'static str,
        options: Vec<String>,
    ) -> Node {
        static RUNNING: Mutex<BTreeMap<Vec<String>, SocketAddr>> = Mutex::new(BTreeMap::new());
        let find = move || {
            let mut running = RUNNING.lock().expect("the others have started");
            *running.entry(options.clone()).or_insert_with(|| {
                let mut command = std::process::Command::new("node");
                command.current_dir(tool(folder)).arg(script).args(&options);
                command.arg("--until-stdin-closes");
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = command.spawn().expect("Node.js runs");
                let mut line = String::new();
                let output = child.stdout.as_mut().expect("it is piped");
                BufReader::new(output).read_line(&mut line).expect("a line");
                // Its pipes stay open.
                std::mem::forget(child);
                let address = line.trim().rsplit_once("http://").expect("an address");
                address.1.parse().expect("an address")
            })
        };
        let addr = tokio::task::spawn_blocking(find).await.expect("it runs");
        Node { process: None, client: Client::of(addr) }
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("a program of this test alone")
    }

    /// Its address, without a slash at the end.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.client.addr())
    }

    /// Replaces the faults.
    pub(super) async fn control(&self, faults: Value) {
        self.client.post("/control", faults).await.expect(200);
    }

    /// The number of requests by path, those of `/control` not counted.
    pub(super) async fn requests(&self) -> BTreeMap<String, u64> {
        let requests = self.client.get("/control").await.expect(200);
        serde_json::from_value(requests).expect("numbers")
    }

    /// Stops the process, so that its connections open and nothing is answered.
    pub(super) fn freeze(&self) {
        self.process().signal("STOP");
    }

    /// Continues after [`Node::freeze`].
    pub(super) fn thaw(&self) {
        self.process().signal("CONT");
    }

    /// Its output so far.
    pub(super) fn output(&self) -> String {
        self.process().output()
    }
}
