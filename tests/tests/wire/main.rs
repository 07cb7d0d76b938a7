//! HTTP and what surrounds it: protocol versions, TLS, compression, draining, logs, metrics.

mod compression;
mod draining;
mod events;
mod http2;
mod logs;
mod metrics;
mod protocol;
mod streams;
mod tls;
mod websocket;
