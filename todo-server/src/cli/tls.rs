//! Certificate checks of the commands: key match and validity for `doctor`, and a TLS client that
//! trusts exactly this certificate for `healthcheck`.

use std::{io, net::IpAddr, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};
use todo_runtime::settings::TlsFiles;
use todo_server::pem;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// Validity period of a certificate, in seconds since the Unix epoch.
pub(crate) struct Validity {
    pub(crate) from: i64,
    pub(crate) until: i64,
}

/// Checks that the key matches the certificate.
pub(crate) fn check_key(files: &TlsFiles, chain: Vec<CertificateDer<'static>>) -> io::Result<()> {
    let key = pem::key(files)?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map(drop)
        .map_err(|error| pem::unusable(&error))
}

/// Reads the validity period of the server's own certificate.
pub(crate) fn validity(chain: &[CertificateDer<'_>]) -> io::Result<Validity> {
    let first = chain.first().ok_or_else(|| io::Error::other("no certificate"))?;
    let (_, certificate) = X509Certificate::from_der(first)
        .map_err(|_| io::Error::other("the certificate is not X.509"))?;
    let validity = certificate.validity();
    Ok(Validity { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
}

/// Connects by TLS to a server with exactly this certificate and its key. Issuer, name and validity
/// are not checked: a probe on the loopback has no name to check, and an expired certificate does
/// not make a server unhealthy.
pub(crate) async fn connect(
    stream: TcpStream,
    host: IpAddr,
    files: &TlsFiles,
) -> io::Result<TlsStream<TcpStream>> {
    let pinned = pem::chain(files)?.swap_remove(0);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(PinnedCertificate { pinned, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(ServerName::from(host), stream).await
}

#[derive(Debug)]
struct PinnedCertificate {
    pinned: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.pinned {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General("the server's certificate is not the one in TLS_CERT".into()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
