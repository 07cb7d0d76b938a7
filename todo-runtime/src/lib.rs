//! The process around the API: the parts of a `main` that the servers share, without an HTTP
//! framework. `todo_core` is the library; nothing in it reads the environment, handles a signal or
//! writes a log.
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `otlp` | no | traces by OTLP/HTTP, if `OTEL_EXPORTER_OTLP_ENDPOINT` is set |
//!
//! Types of other crates in the public API: those of `todo_core`, `ipnet`, tokio's `TcpListener`
//! and the `Stream` of `futures`.

mod admission;
mod dotenv;
mod header_timeout;
mod log;
#[cfg(feature = "otlp")]
mod otlp;
pub mod server;
pub mod settings;
mod sources;
