//! TLS of the clients: the authorities that they trust.

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::HttpError;

/// Some servers refuse requests without one.
pub(super) const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// Mozilla's certificate authorities.
pub(super) fn webpki_roots() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

/// Those, and the certificates of `pem` (RFC 7468).
///
/// # Errors
/// [`HttpError`] if a certificate is invalid, or there is none.
pub(super) fn more_roots(pem: &[u8]) -> Result<RootCertStore, HttpError> {
    let mut roots = webpki_roots();
    let public = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added = certificate
            .map_err(|e| e.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|e| e.to_string()));
        added.map_err(|e| HttpError::new(format!("invalid certificate: {e}")))?;
    }
    if roots.len() == public {
        return Err(HttpError::new("no certificate"));
    }
    Ok(roots)
}

/// The TLS of a client that trusts these authorities.
pub(super) fn config(roots: RootCertStore) -> ClientConfig {
    // The process may have other providers, or none that is its default.
    ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|_| unreachable!("aws-lc-rs supports TLS 1.2 and 1.3"))
        .with_root_certificates(roots)
        .with_no_client_auth()
}
