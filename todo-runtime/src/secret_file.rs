//! The file of a generated secret: private, and written by only one of several concurrent starts.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// 256 random bits, in hexadecimal.
pub(crate) fn new_secret() -> io::Result<String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    let (high, low) = bytes.split_at(16);
    let half = |half: &[u8]| half.iter().fold(0, |n: u128, byte| n << 8 | u128::from(*byte));
    Ok(format!("{:032x}{:032x}", half(high), half(low)))
}

/// The secret stored at `path`, generated if there is none. Concurrent callers get the same secret.
pub(crate) fn load_or_create_secret_file(path: &Path) -> io::Result<String> {
    match read_secret(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        stored => return stored,
    }
    // Written to a draft, then hard-linked to `path`, which fails if another process was faster.
    let secret = new_secret()?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", &new_secret()?[..16]));
    let draft = PathBuf::from(name);
    let created = private_file(&draft)
        .and_then(|mut file| file.write_all(secret.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::hard_link(&draft, path));
    let removed = std::fs::remove_file(&draft);
    match created {
        Ok(()) => removed.map(|()| secret),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_secret(path),
        Err(error) => Err(error),
    }
}

fn read_secret(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(4096).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_secret_is_private_and_the_same_for_concurrent_starts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("todo.db.secret");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || load_or_create_secret_file(&path).unwrap())
            })
            .collect();
        let secrets: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(secrets.iter().all(|secret| *secret == secrets[0] && secret.len() == 64));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
