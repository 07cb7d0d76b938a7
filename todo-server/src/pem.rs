//! Reads certificate and key files. The errors of the PEM parser include the unreadable text, which
//! may be a key that lost its line breaks; the errors of this module never do.

use std::{io, path::Path};

use rustls::{
    Error,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};
use todo_runtime::settings::TlsFiles;

/// Reads the certificate chain from `TLS_CERT`, the server's own certificate first; at least one.
///
/// # Errors
/// The reason and the path of the file, none of its content.
pub fn chain(files: &TlsFiles) -> io::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_file_iter(&files.cert).and_then(Iterator::collect);
    let chain: Vec<_> = chain.map_err(|error| of(&files.cert, error, "no certificate in PEM"))?;
    if chain.is_empty() {
        return Err(of(&files.cert, pem::Error::NoItemsFound, "no certificate in PEM"));
    }
    Ok(chain)
}

/// Reads the private key from `TLS_KEY`.
///
/// # Errors
/// Like [`chain`].
pub fn key(files: &TlsFiles) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| of(&files.key, error, "no key in PEM, or an encrypted one"))
}

/// Error for a certificate and key that cannot be used, without the parser's text.
#[must_use]
pub fn unusable(error: &Error) -> io::Error {
    io::Error::other(match error {
        Error::InconsistentKeys(_) => {
            "keys may not be consistent: the key is not the certificate's"
        }
        Error::InvalidCertificate(_) => "the certificate is not X.509",
        _ => "the key is not RSA, ECDSA or Ed25519, or it is damaged",
    })
}

/// Error with the path of the file and none of its content.
fn of(file: &Path, error: pem::Error, none: &str) -> io::Error {
    let why = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => none.to_owned(),
        pem::Error::MissingSectionEnd { .. } | pem::Error::IllegalSectionStart { .. } => {
            "not in PEM: BEGIN and END must be on separate lines; are the line breaks lost?"
                .to_owned()
        }
        pem::Error::Base64Decode(_) => "not in PEM: no base64 between BEGIN and END".to_owned(),
        _ => "not in PEM".to_owned(),
    };
    io::Error::other(format!("{}: {why}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_do_not_include_file_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.pem");
        let files = TlsFiles { cert: path.clone(), key: path.clone() };
        let body = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp";
        let whole = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        for text in [
            whole.replace('\n', ""),
            whole.replace('\n', "\\n"),
            whole.replace('\n', " "),
            whole.replace("-----END", "END"),
            whole.replace("KEY-----\n", &format!("KEY-----{body}\n")),
            whole.replace(body, &format!("{body}!")),
            // Thirty-seven characters: invalid base64, with or without padding.
            whole.replace(body, &body[3..]),
            whole.replace("PRIVATE", "ENCRYPTED PRIVATE"),
            whole.replace("-----", ""),
            body.to_owned(),
        ] {
            std::fs::write(&path, &text).unwrap();
            let errors = [chain(&files).map(drop), key(&files).map(drop)];
            assert!(errors.iter().all(Result::is_err), "{text}");
            for error in errors.into_iter().filter_map(Result::err) {
                let text = format!("{error} {error:?}");
                assert!(text.contains("one.pem: n"), "{text}");
                assert!(!text.contains("MC4") && !text.contains("45, 45"), "{text}");
                assert!(text.len() < 400, "{text}");
            }
        }
    }
}
