//! The TLS certificate: loads it, reloads it on request, and never replaces a working certificate
//! with an invalid one. Open connections keep the certificate that they started with.

use std::{io, pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt, future::ready, stream};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use salvo::conn::IntoConfigStream;
use todo_runtime::settings::TlsFiles;

use crate::pem;

/// A loaded certificate and its later replacements.
pub(crate) struct Certificate(Pin<Box<dyn Stream<Item = ServerConfig> + Send>>);

impl Certificate {
    /// Loads the files, and reloads them for each item of `reloads`.
    ///
    /// # Errors
    /// If the files are invalid now. A later error is logged, and the current certificate is kept.
    pub(crate) fn read(
        files: TlsFiles,
        reloads: impl Stream<Item = ()> + Send + 'static,
    ) -> io::Result<Self> {
        let first = config(&files)?;
        let later = reloads.filter_map(move |()| {
            let read = config(&files);
            match &read {
                Ok(_) => tracing::info!("certificate reloaded"),
                Err(error) => tracing::error!(%error, "certificate reload failed, old one kept"),
            }
            ready(read.ok())
        });
        Ok(Self(Box::pin(stream::once(ready(first)).chain(later))))
    }
}

impl IntoConfigStream<ServerConfig> for Certificate {
    type Stream = Pin<Box<dyn Stream<Item = ServerConfig> + Send>>;

    fn into_stream(self) -> Self::Stream {
        self.0
    }
}

/// TLS configuration for HTTP/2 and HTTP/1.1 with these files. salvo's own configuration would
/// accept a key that does not match the certificate, as a reload can find during a renewal.
fn config(files: &TlsFiles) -> io::Result<ServerConfig> {
    let chain = pem::chain(files)?;
    let key = pem::key(files)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| pem::unusable(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
