//! A program of Node.js, with the npm packages of its folder.

use std::{collections::BTreeMap, process::Stdio};

use serde_json::Value;
use tokio::process::Command;

use crate::{Client, Process, tools::tool};

/// A running program that prints its address and has a path `/control`.
#[derive(Debug)]
pub(super) struct Node {
    process: Process,
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
        Node { process, client }
    }

    /// Its address, without a slash at the end.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.process.addr)
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
        self.process.signal("STOP");
    }

    /// Continues after [`Node::freeze`].
    pub(super) fn thaw(&self) {
        self.process.signal("CONT");
    }

    /// Its output so far.
    pub(super) fn output(&self) -> String {
        self.process.output()
    }
}
