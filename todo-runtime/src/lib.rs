//! The process around the API: the parts of a `main` that the servers share, without an HTTP
//! framework. `todo_core` is the library; nothing in it reads the environment, handles a signal or
//! writes a log.
//!
//! A program calls [`run_server`], which loads the [`Settings`], starts the log and binds the
//! listener. A server opens the API with [`start`], accepts connections with [`Admission`] and
//! [`HeaderTimeoutStream`], and stops on [`Signals`], after [`drain`].
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `otlp` | no | traces by OTLP/HTTP, if `OTEL_EXPORTER_OTLP_ENDPOINT` is set |
//!
//! Types of other crates in the public API: those of `todo_core`, `ipnet`, tokio's `TcpListener`
//! and the `Stream` of `futures`.
#![forbid(unsafe_code)]

mod admission;
mod descriptors;
mod error;
mod header_timeout;
mod healthcheck;
mod jobs;
mod limits;
mod log;
mod mail;
#[cfg(feature = "otlp")]
mod otlp;
mod program;
mod secret_file;
pub mod settings;
mod shutdown;
mod sign_in;
mod signals;
mod socket;
mod startup;

pub use self::{
    admission::{Admission, ConnectionPermit},
    error::ServeError,
    header_timeout::{HeaderTimeoutStream, InProgress, TrackedBody, Unanswered},
    healthcheck::{
        HEALTHCHECK_TIMEOUT, check_health, health_address, healthcheck, with_health_timeout,
    },
    jobs::{JobsTask, spawn_jobs},
    limits::{
        ACCEPT_PAUSE, HEADER_TIMEOUT, METRICS_CONNECTIONS, OVER_CAPACITY_CONNECTIONS,
        SHUTDOWN_GRACE, Timeouts, WRITE_STALL,
    },
    log::log_warnings,
    mail::{MailTask, check_mail, spawn_mail},
    program::{EVENT_INTERVAL, block_on, exit_code, main_minimal, run_server},
    settings::Settings,
    shutdown::{drain, finish_streams},
    signals::{Signals, signals},
    socket::set_socket_options,
    startup::{StartError, listen_for_metrics, log_listening, start},
};
