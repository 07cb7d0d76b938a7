//! The command lines of both programs: help, exit codes, and the account and database commands.

mod accounts;
mod database_urls;
mod doctor;
mod health_check;
mod help;

use std::{fs, path::Path, process::Output};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use todo_tests::{STARTING, command};
use tokio::time::timeout;

async fn run(
    program: &str,
    dir: &Path,
    settings: &[(&str, &str)],
    arguments: &[&str],
) -> (i32, String, String) {
    let mut command = command(program, dir, settings);
    let output: Output = timeout(STARTING, command.args(arguments).output())
        .await
        .expect("an end in time")
        .expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let code = output.status.code().expect("no signal");
    (code, text(output.stdout), text(output.stderr))
}

fn is_empty(dir: &Path) -> bool {
    dir.read_dir().expect("a directory").next().is_none()
}

/// Writes a certificate that expires in the year `until`, and its key; returns their paths.
fn certificate(dir: &Path, name: &str, until: i32) -> [String; 2] {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let cert = params.self_signed(&key).expect("a certificate");
    [("crt", cert.pem()), ("key", key.serialize_pem())].map(|(kind, pem)| {
        let path = dir.join(format!("{name}.{kind}"));
        fs::write(&path, pem).expect("a file");
        path.display().to_string()
    })
}
