//! Programs of others that some tests need beside the servers.

use std::{path::PathBuf, process::Command, sync::Mutex};

/// Where `program` is, after `tests/install.sh` has installed it if need be. Blocks.
///
/// # Panics
/// When it is not there and cannot be installed: the message says what to do.
pub fn tool(program: &str) -> PathBuf {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/install.sh");
    let output = Command::new("bash").args([script, program]).output().expect("bash runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {}", said.trim());
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}
