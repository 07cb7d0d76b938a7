//! The certificate: where it is read, when it is read again, and that a bad one never takes the
//! place of one that works. Connections that are open keep what they began with.

use std::{io, pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt, future::ready, stream};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use salvo::conn::IntoConfigStream;
use todo_core::settings::TlsFiles;

use crate::pem;

/// A certificate that was read, and those that take its place.
pub(crate) struct Certificate(Pin<Box<dyn Stream<Item = ServerConfig> + Send>>);

impl Certificate {
    /// Reads the files, and again whenever `reloads` has an item.
    ///
    /// # Errors
    /// What is wrong with them now. What is wrong with them later is logged, and the last good ones
    /// stay.
    pub(crate) fn read(
        files: TlsFiles,
        reloads: impl Stream<Item = ()> + Send + 'static,
    ) -> io::Result<Self> {
        let first = config(&files)?;
        let later = reloads.filter_map(move |()| {
            let read = config(&files);
            match &read {
                Ok(_) => tracing::info!("the certificate was read again"),
                Err(error) => tracing::error!(%error, "the old certificate stays"),
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

/// HTTP/2 and HTTP/1.1 with these files. salvo's own configuration would take a key that is not the
/// certificate's: what a reload finds in the middle of a renewal.
fn config(files: &TlsFiles) -> io::Result<ServerConfig> {
    let (chain, key) = (pem::chain(files)?, pem::key(files)?);
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| pem::unusable(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
