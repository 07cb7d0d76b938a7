//! The errors of a server's process, one line each.

use std::{io, net::SocketAddr};

use crate::{settings::SettingsError, startup::StartError};

/// Why a server did not start, or failed while running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The settings are invalid.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The `.env` file cannot be read.
    #[error("cannot read .env: {0}")]
    Dotenv(String),
    /// The database cannot be opened, or the secret cannot be loaded.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The listener cannot bind its address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot use TLS_CERT and TLS_KEY")]
    Tls(#[source] io::Error),
    /// The health check of a server failed.
    #[error("health check of {address} failed")]
    Health {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// An I/O error of a running server.
    #[error(transparent)]
    Io(#[from] io::Error),
}
