//! Third-party programs that some tests need.

use std::{path::PathBuf, process::Command, sync::Mutex};

/// The path of `program`, installed by `tests/install.sh` if it is missing. Blocks.
///
/// # Panics
/// When it cannot be installed; the message describes the remedy.
pub fn tool(program: &str) -> PathBuf {
    tool_of(program, program)
}

/// As [`tool`], of a package with another name.
pub fn tool_of(program: &str, package: &str) -> PathBuf {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/install.sh");
    let output = Command::new("bash").args([script, program, package]).output().expect("bash runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {}", stderr.trim());
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}
